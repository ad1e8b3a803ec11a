"""Adaptive leaky integrate-and-fire neurons."""

import math
from collections.abc import Callable
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from lib.network import SpikingLayer, fire, over_time

# The adaptation current's time constants go from 30 to 120 steps; the others are what it gains from a unit of potential
# and from a spike.
RANGES = {
    "adaptation_leak": (math.exp(-1 / 30), math.exp(-1 / 120)),
    "adaptation_potential": (-1.0, 1.0),
    "adaptation_spike": (0.0, 2.0),
}


def adlif(
    current: Float[Tensor, "time batch units"],
    leak: Float[Tensor, " units"],
    adaptation_leak: Float[Tensor, " units"],
    adaptation_potential: Float[Tensor, " units"],
    adaptation_spike: Float[Tensor, " units"],
    threshold: float = 1.0,
) -> Float[Tensor, "time batch units"]:
    """Spikes (0 or 1) of adaptive leaky integrate-and-fire neurons that start from rest.

    The baseline's adLIF in discrete time: the adaptation current moves first, by the potential and the spike of the
    step before, ``w_t = adaptation_leak w_{t-1} + adaptation_potential u_{t-1} + adaptation_spike s_{t-1}``; then
    ``u_t = leak (u_{t-1} - s_{t-1}) + (1 - leak) (current_t - w_t)`` and ``s_t = [u_t > threshold]``. The surrogate
    gradient is that of ``lif``; it follows every use of a spike.

    With ``adaptation_potential < adaptation_leak - 1``, as half of the baseline's range has it, potential and current
    drive each other away from rest, by up to 1.4 times a step: then rounding decides spikes before long, and after some
    250 steps single precision overflows.
    """
    advance = adlif_step(leak, adaptation_leak, adaptation_potential, adaptation_spike, threshold)
    return over_time(advance, current, memories=1)[0]


def adlif_step(
    leak: Tensor, adaptation_leak: Tensor, adaptation_potential: Tensor, adaptation_spike: Tensor, threshold: float
) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """A step of ``adlif``, for ``over_time``."""

    def advance(step, potential, spike, adaptation):
        adaptation = adaptation_leak * adaptation + adaptation_potential * potential + adaptation_spike * spike
        potential = leak * (potential - spike) + (1 - leak) * (step - adaptation)
        return potential, fire(potential, threshold), adaptation

    return advance


class AdLIFLayer(SpikingLayer):
    """A ``SpikingLayer`` of adLIF neurons."""

    ranges: ClassVar = SpikingLayer.ranges | RANGES
    groups: ClassVar = SpikingLayer.groups | {f"raw_{name}": "adaptation" for name in RANGES}
    kernel: ClassVar = "adlif"

    def __init__(self, num_inputs: int, num_units: int, dropout: float = 0.1):
        super().__init__(num_inputs, num_units, dropout)
        for name in RANGES:
            setattr(self, f"raw_{name}", self.spread(name, num_units))

    def spikes(self, current: Float[Tensor, "time batch units"]) -> Float[Tensor, "time batch units"]:
        return adlif(current, self.leak, *(self.held(name) for name in RANGES))
