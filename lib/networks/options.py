"""What may be chosen of any network: the norm between linear maps and neurons, biases, and both directions of time.

No network need know of them.
"""

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lib.network import MOMENTUM

NORMS = ("batch", "layer", "none")


def normaliser(kind: str, units: int, groups: int = 1) -> nn.Module:
    """Batch norm, layer norm (over each of ``groups`` of the units alone) or none, over [examples, units]."""
    if kind == "none":
        return nn.Identity()
    if kind == "batch":
        return nn.BatchNorm1d(units, momentum=MOMENTUM)
    return nn.LayerNorm(units) if groups == 1 else Grouped(nn.LayerNorm(units // groups) for _ in range(groups))


class Grouped(nn.ModuleList):
    """Each of the norms on its own share of the units; ``nn.GroupNorm`` does the same ten times as slowly on a CPU."""

    def forward(self, inputs: Float[Tensor, "examples units"]) -> Float[Tensor, "examples units"]:
        return torch.cat([norm(part) for norm, part in zip(self, inputs.chunk(len(self), dim=-1), strict=True)], dim=-1)


@cache
def biased(kind: type[nn.Module]) -> type[nn.Module]:
    """The same kind of layer or readout, its linear map with a bias, and computed by the same kernel."""
    return type(f"Biased{kind.__name__}", (kind,), {"bias": True, "kernel": vars(kind).get("kernel")})


def both_directions(layer: nn.Module) -> nn.Module:
    """Let a layer hear each sequence backwards too, with the same weights: it then has two outputs for each unit."""
    layer.outputs *= 2
    layer.register_forward_pre_hook(_with_reversed)
    layer.register_forward_hook(_side_by_side)
    return layer


def _with_reversed(layer: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    (train,) = inputs
    return torch.cat([train, train.flip(0)], dim=1)


def _side_by_side(layer: nn.Module, inputs: tuple[Tensor], outputs: Tensor) -> Tensor:
    forwards, backwards = outputs.chunk(2, dim=1)
    return torch.cat([forwards, backwards.flip(0)], dim=2)
