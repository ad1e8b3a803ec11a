"""The normalisations of the baseline, between a layer's linear map and its neurons."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

NORMS = ("batch", "layer", "none")


def normaliser(kind: str, units: int, groups: int = 1) -> nn.Module:
    """Batch norm, layer norm (over each of ``groups`` of the units alone) or none, over [examples, units]."""
    if kind == "none":
        return nn.Identity()
    if kind == "batch":
        return nn.BatchNorm1d(units, momentum=0.05)
    return nn.LayerNorm(units) if groups == 1 else Grouped(nn.LayerNorm(units // groups) for _ in range(groups))


def normalised(norm: nn.Module, weighted: Float[Tensor, "time batch units"]) -> Float[Tensor, "time batch units"]:
    """All time steps of all utterances are examples."""
    return norm(weighted.flatten(0, 1)).view_as(weighted)


class Grouped(nn.ModuleList):
    """Each of the norms on its own share of the units; ``nn.GroupNorm`` does the same ten times as slowly on a CPU."""

    def forward(self, inputs: Float[Tensor, "examples units"]) -> Float[Tensor, "examples units"]:
        return torch.cat([norm(part) for norm, part in zip(self, inputs.chunk(len(self), dim=-1), strict=True)], dim=-1)
