"""The baseline's way of holding neurons' parameters to their ranges (Bittar & Garner 2022): a clamp.

Beyond its range a parameter has no gradient.
"""

import math
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lib.network import SpikingLayer

# Of the leaks in the baseline: time constants of 5 to 25 steps.
BASELINE_LEAKS = (math.exp(-1 / 5), math.exp(-1 / 25))


class Clamped(SpikingLayer):
    """A ``SpikingLayer`` that learns the values of its neurons' parameters, and clamps them where it uses them."""

    def within(self, name: str, raw: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return raw.clamp(*self.ranges[name]) if self.bounded else raw

    def spread(self, name: str, num_units: int) -> nn.Parameter:
        return nn.Parameter(torch.empty(num_units).uniform_(*self.ranges[name]))


@cache
def clamped(kind: type[SpikingLayer]) -> type[SpikingLayer]:
    """The baseline's layer of these neurons: its ranges and its clamp, computed by the same kernel."""
    own = {"kernel": vars(kind).get("kernel")}
    return with_leaks(type(f"Clamped{kind.__name__}", (Clamped, kind), own), *BASELINE_LEAKS)


@cache
def with_leaks(kind: type[SpikingLayer], low: float, high: float) -> type[SpikingLayer]:
    """The same kind of layer, its leaks in another range."""
    own = {"ranges": kind.ranges | {"leak": (low, high)}, "kernel": vars(kind).get("kernel")}
    return type(kind.__name__, (kind,), own)
