"""The normalisations of the baseline, between a layer's linear map and its neurons."""

from jaxtyping import Float
from torch import Tensor, nn

NORMS = ("batch", "layer", "none")


def normaliser(kind: str, units: int, groups: int = 1) -> nn.Module:
    """Batch norm, layer norm (over each of ``groups`` of the units alone) or none, over [examples, units]."""
    if kind == "batch":
        return nn.BatchNorm1d(units, momentum=0.05)
    return nn.GroupNorm(groups, units) if kind == "layer" else nn.Identity()


def normalised(norm: nn.Module, weighted: Float[Tensor, "time batch units"]) -> Float[Tensor, "time batch units"]:
    """All time steps of all utterances are examples."""
    return norm(weighted.flatten(0, 1)).view_as(weighted)
