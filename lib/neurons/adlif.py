"""Adaptive leaky integrate-and-fire neurons."""

import torch
from jaxtyping import Float
from torch import Tensor

from lib.neurons.surrogate import fired


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
    spikes, _ = _integrated(current, leak, adaptation_leak, adaptation_potential, adaptation_spike, threshold)
    return spikes


@torch.no_grad()
def adlif_potential(
    current: Float[Tensor, "time batch units"],
    leak: Float[Tensor, " units"],
    adaptation_leak: Float[Tensor, " units"],
    adaptation_potential: Float[Tensor, " units"],
    adaptation_spike: Float[Tensor, " units"],
    threshold: float = 1.0,
) -> Float[Tensor, "time batch units"]:
    """The membrane potentials behind ``adlif``, before each reset; they carry no gradient."""
    _, potentials = _integrated(current, leak, adaptation_leak, adaptation_potential, adaptation_spike, threshold)
    return potentials


def _integrated(current, leak, adaptation_leak, adaptation_potential, adaptation_spike, threshold):
    adaptation = potential = spike = torch.zeros_like(current[:1])
    spikes, potentials = [], []
    for step in current.split(1):
        adaptation = adaptation_leak * adaptation + adaptation_potential * potential + adaptation_spike * spike
        potential = leak * (potential - spike) + (1 - leak) * (step - adaptation)
        spike = fired(potential, threshold)
        potentials.append(potential)
        spikes.append(spike)
    return torch.cat(spikes), torch.cat(potentials)
