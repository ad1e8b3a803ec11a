"""Adaptive leaky integrate-and-fire neurons with recurrent connections."""

from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lib.neurons.adlif import RANGES, AdLIFLayer, adaptive_step
from lib.neurons.steps import orthogonal, over_time, received, without_self


def radlif(
    current: Float[Tensor, "time batch units"],
    leak: Float[Tensor, " units"],
    adaptation_leak: Float[Tensor, " units"],
    adaptation_potential: Float[Tensor, " units"],
    adaptation_spike: Float[Tensor, " units"],
    recurrent: Float[Tensor, "units units"],
    threshold: float = 1.0,
) -> Float[Tensor, "time batch units"]:
    """Spikes (0 or 1) of adaptive leaky integrate-and-fire neurons that excite and inhibit each other, from rest on.

    The baseline's RadLIF in discrete time: the adaptation current of ``adlif`` and the recurrent connections of
    ``rlif``, ``u_t = leak (u_{t-1} - s_{t-1}) + (1 - leak) (current_t + V s_{t-1} - w_t)``.
    """
    parameters = leak, adaptation_leak, adaptation_potential, adaptation_spike
    return over_time(_step(*parameters, recurrent, threshold), current, memories=1)[0]


@torch.no_grad()
def radlif_potential(
    current: Float[Tensor, "time batch units"], *parameters: Float[Tensor, "..."], threshold: float = 1.0
) -> Float[Tensor, "time batch units"]:
    """The membrane potentials behind ``radlif``, whose arguments it takes, before each reset."""
    return over_time(_step(*parameters, threshold), current, memories=1)[1]


def _step(
    leak: Tensor,
    adaptation_leak: Tensor,
    adaptation_potential: Tensor,
    adaptation_spike: Tensor,
    recurrent: Tensor,
    threshold: float,
) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    recurrent = without_self(recurrent)
    advance = adaptive_step(leak, adaptation_leak, adaptation_potential, adaptation_spike, threshold)

    def advance_all(step, potential, spike, adaptation):
        return advance(step + received(spike, recurrent), potential, spike, adaptation)

    return advance_all


class RadLIFLayer(AdLIFLayer):
    """A ``SpikingLayer`` of RadLIF neurons; their recurrent weights start orthogonal."""

    groups: ClassVar = AdLIFLayer.groups | {"recurrent": "recurrent"}
    kernel: ClassVar = "radlif"

    def __init__(self, num_inputs: int, num_units: int, dropout: float = 0.1):
        super().__init__(num_inputs, num_units, dropout)
        self.recurrent = orthogonal(num_units)

    def between_units(self) -> Float[Tensor, "units units"]:
        """The recurrent weights as the neurons use them, without the diagonal."""
        return without_self(self.recurrent)

    def spikes(self, current: Float[Tensor, "time batch units"]) -> Float[Tensor, "time batch units"]:
        return radlif(current, self.held("leak"), *(self.held(name) for name in RANGES), self.recurrent)
