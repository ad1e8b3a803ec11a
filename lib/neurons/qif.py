"""Quadratic integrate-and-fire neurons, whose spikes neither appear nor vanish at a threshold."""

import torch
from jaxtyping import Float
from torch import Tensor

from lib.network import SpikingLayer

STRAIGHT = 1e-4  # drive within which a step's turn is taken from its series, which has no root in it


def qif(current: Float[Tensor, "time batch units"], leak: Float[Tensor, " units"]) -> Float[Tensor, "time batch units"]:
    """Spikes of quadratic integrate-and-fire neurons that start from rest, as shares of a step.

    ``tau v' = v (v - 1) + current``, each step solved exactly; ``leak = exp(-1 / tau)`` is the decay near rest, where
    the neuron is that of ``lif``. Above 1 it runs away: v passes infinity within a step and comes back from minus
    infinity, and that is its spike. One at the share f of a step counts 1 - f in this step and f in the next. Its time
    follows the current without a jump, and it leaves across the end of the utterance little by little: the loss is
    continuous, and its derivative exact (Klos & Memmesheimer 2023; Wenig, Memmesheimer & Klos 2026).
    """
    drive = current - 0.25
    cosine, sine = _harmonic(drive, -leak.log())
    # v - 1/2 = a / b: a step is a linear map of (a, b), of which the length is of no account; at infinity b is 0.
    a, b, late, spikes = torch.full_like(current[0], -0.5), torch.ones_like(current[0]), 0.0, []
    for cos, sin, back in zip(cosine, sine, drive * sine, strict=True):
        a, passed = cos * a + back * b, cos * b - sin * a
        fired = passed < 0
        share = torch.where(fired, b / (b - passed).clamp(min=torch.finfo(b.dtype).tiny), 0)
        spikes.append(fired.to(b.dtype) - share + late)
        late = share
        scale = torch.where(fired, -1, 1) * torch.rsqrt(a.square() + passed.square())
        a, b = a * scale, passed * scale
    return torch.stack(spikes)


def _harmonic(drive: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
    """``cos(w r)`` and ``sin(w r) / w`` of w = sqrt(drive), hyperbolic below 0; a turn of less than half a circle."""
    near = drive.abs() < STRAIGHT
    size = torch.where(near, STRAIGHT, drive.abs()).sqrt()
    angle = size * rate
    around, apart = angle.clamp(max=3.1), angle.clamp(max=30)
    series = 1 - drive * rate.square() / 2, rate - drive * rate**3 / 6
    cosine = torch.where(near, series[0], torch.where(drive > 0, around.cos(), apart.cosh()))
    sine = torch.where(near, series[1], torch.where(drive > 0, around.sin(), apart.sinh()) / size)
    return cosine, sine


class QIFLayer(SpikingLayer):
    """A ``SpikingLayer`` of QIF neurons."""

    def spikes(self, current: Float[Tensor, "time batch units"]) -> Float[Tensor, "time batch units"]:
        return qif(current, self.leak)
