"""Adaptive leaky integrate-and-fire neurons with recurrent connections."""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from lib.network import over_time
from lib.neurons.adlif import RANGES, AdLIFLayer, adlif_step
from lib.neurons.rlif import RLIFLayer, received, without_self


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
    weights = without_self(recurrent)
    adapting = adlif_step(leak, adaptation_leak, adaptation_potential, adaptation_spike, threshold)

    def advance(step, potential, spike, adaptation):
        return adapting(step + received(spike, weights), potential, spike, adaptation)

    return over_time(advance, current, memories=1)[0]


class RadLIFLayer(RLIFLayer, AdLIFLayer):
    """A ``SpikingLayer`` of RadLIF neurons: the parameters of adLIF, then the recurrent weights of RLIF."""

    groups: ClassVar = AdLIFLayer.groups | RLIFLayer.groups
    kernel: ClassVar = "radlif"

    def spikes(self, current: Float[Tensor, "time batch units"]) -> Float[Tensor, "time batch units"]:
        return radlif(current, self.leak, *(self.held(name) for name in RANGES), self.recurrent)
