"""Leaky integrate-and-fire neurons with recurrent connections."""

import torch
from jaxtyping import Float
from torch import Tensor

from lib.neurons.recurrence import received, without_self
from lib.neurons.surrogate import fired


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
    spikes, _ = _integrated(current, leak, recurrent, threshold)
    return spikes


@torch.no_grad()
def rlif_potential(
    current: Float[Tensor, "time batch units"],
    leak: Float[Tensor, " units"],
    recurrent: Float[Tensor, "units units"],
    threshold: float = 1.0,
) -> Float[Tensor, "time batch units"]:
    """The membrane potentials behind ``rlif``, before each reset; they carry no gradient."""
    _, potentials = _integrated(current, leak, recurrent, threshold)
    return potentials


def _integrated(current, leak, recurrent, threshold):
    recurrent = without_self(recurrent)
    potential = spike = torch.zeros_like(current[:1])
    spikes, potentials = [], []
    for step in current.split(1):
        potential = leak * (potential - spike) + (1 - leak) * (step + received(spike, recurrent))
        spike = fired(potential, threshold)
        potentials.append(potential)
        spikes.append(spike)
    return torch.cat(spikes), torch.cat(potentials)
