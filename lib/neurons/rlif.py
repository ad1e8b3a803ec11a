"""Leaky integrate-and-fire neurons with recurrent connections."""

from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lib.network import SpikingLayer, fire, over_time


def rlif(
    current: Float[Tensor, "time batch units"],
    leak: Float[Tensor, " units"],
    recurrent: Float[Tensor, "units units"],
    threshold: float = 1.0,
) -> Float[Tensor, "time batch units"]:
    """Spikes (0 or 1) of leaky integrate-and-fire neurons that excite and inhibit each other, and start from rest.

    The baseline's RLIF in discrete time: ``u_t = leak (u_{t-1} - s_{t-1}) + (1 - leak) (current_t + V s_{t-1})`` and
    ``s_t = [u_t > threshold]``, V being ``recurrent`` with zeros in the place of its diagonal. The surrogate gradient
    is that of ``lif``; it follows every use of a spike.
    """
    return over_time(rlif_step(leak, recurrent, threshold), current)[0]


def rlif_step(leak: Tensor, recurrent: Tensor, threshold: float) -> Callable[..., tuple[Tensor, Tensor]]:
    """A step of ``rlif``, for ``over_time``."""
    weights = without_self(recurrent)

    def advance(step, potential, spike):
        potential = leak * (potential - spike) + (1 - leak) * (step + received(spike, weights))
        return potential, fire(potential, threshold)

    return advance


def received(
    spike: Float[Tensor, "*shape units"], weights: Float[Tensor, "units units"]
) -> Float[Tensor, "*shape units"]:
    """``V s``, row n of V being what unit n receives.

    It is summed in double precision: brought back to single precision, it does not show the order of the terms, in
    which the kernels differ.
    """
    return (spike.double() @ weights.double().T).to(spike.dtype)


def without_self(recurrent: Float[Tensor, "units units"]) -> Float[Tensor, "units units"]:
    """The weights with a zero diagonal: no neuron receives its own spikes."""
    return recurrent.masked_fill(torch.eye(len(recurrent), dtype=torch.bool, device=recurrent.device), 0)


class RLIFLayer(SpikingLayer):
    """A ``SpikingLayer`` of RLIF neurons; their recurrent weights start orthogonal."""

    groups: ClassVar = SpikingLayer.groups | {"recurrent": "recurrent"}
    kernel: ClassVar = "rlif"

    def __init__(self, num_inputs: int, num_units: int, dropout: float = 0.1):
        super().__init__(num_inputs, num_units, dropout)
        self.recurrent = nn.Parameter(nn.init.orthogonal_(torch.empty(num_units, num_units)))

    def between_units(self) -> Float[Tensor, "units units"]:
        """The recurrent weights as the neurons use them, without the diagonal."""
        return without_self(self.recurrent)

    def spikes(self, current: Float[Tensor, "time batch units"]) -> Float[Tensor, "time batch units"]:
        return rlif(current, self.leak, self.recurrent)
