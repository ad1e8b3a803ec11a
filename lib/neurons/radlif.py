"""Adaptive leaky integrate-and-fire neurons with recurrent connections."""

import torch
from jaxtyping import Float
from torch import Tensor

from lib.neurons.recurrence import received, without_self
from lib.neurons.surrogate import fired


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
    adaptation = adaptation_leak, adaptation_potential, adaptation_spike
    return _integrated(current, leak, *adaptation, recurrent, threshold)[0]


@torch.no_grad()
def radlif_potential(
    current: Float[Tensor, "time batch units"],
    leak: Float[Tensor, " units"],
    adaptation_leak: Float[Tensor, " units"],
    adaptation_potential: Float[Tensor, " units"],
    adaptation_spike: Float[Tensor, " units"],
    recurrent: Float[Tensor, "units units"],
    threshold: float = 1.0,
) -> Float[Tensor, "time batch units"]:
    """The membrane potentials behind ``radlif``, before each reset; they carry no gradient."""
    adaptation = adaptation_leak, adaptation_potential, adaptation_spike
    return _integrated(current, leak, *adaptation, recurrent, threshold)[1]


def _integrated(current, leak, adaptation_leak, adaptation_potential, adaptation_spike, recurrent, threshold):
    recurrent = without_self(recurrent)
    adaptation = potential = spike = torch.zeros_like(current[:1])
    spikes, potentials = [], []
    for step in current.split(1):
        adaptation = adaptation_leak * adaptation + adaptation_potential * potential + adaptation_spike * spike
        potential = leak * (potential - spike) + (1 - leak) * (step + received(spike, recurrent) - adaptation)
        spike = fired(potential, threshold)
        potentials.append(potential)
        spikes.append(spike)
    return torch.cat(spikes), torch.cat(potentials)
