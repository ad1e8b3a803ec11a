"""Leaky integrate-and-fire neurons."""

import torch
from jaxtyping import Float
from torch import Tensor

from lib.neurons.surrogate import boxcar


def lif(
    current: Float[Tensor, "time batch units"],
    leak: Float[Tensor, " units"],
    threshold: float = 1.0,
) -> Float[Tensor, "time batch units"]:
    """Spikes (0 or 1) of leaky integrate-and-fire neurons that start from rest.

    Equations 1 and 2 of the paper, with the baseline's reset by subtraction and input gain:
    ``u_t = leak (u_{t-1} - s_{t-1}) + (1 - leak) current_t`` and ``s_t = [u_t > threshold]``.
    The backward pass puts a boxcar of width and height 1, centred on the threshold, in place of the
    spike's derivative; it also follows the reset.
    """
    spikes, _ = _LIF.apply(current, leak, threshold)
    return spikes


def lif_potential(
    current: Float[Tensor, "time batch units"],
    leak: Float[Tensor, " units"],
    threshold: float = 1.0,
) -> Float[Tensor, "time batch units"]:
    """The membrane potentials behind ``lif``, before each reset; they carry no gradient."""
    _, potential = _LIF.apply(current.detach(), leak.detach(), threshold)
    return potential


class _LIF(torch.autograd.Function):
    """The recurrence and its adjoint; in-place steps, since autograd's own tape costs four times as much."""

    @staticmethod
    def forward(ctx, current, leak, threshold):
        potential = (1 - leak) * current
        spikes = torch.zeros_like(current)
        for t in range(len(current)):
            if t > 0:
                potential[t].addcmul_(leak, potential[t - 1] - spikes[t - 1])
            torch.gt(potential[t], threshold, out=spikes[t])
        ctx.save_for_backward(current, leak, potential, spikes)
        ctx.threshold = threshold
        ctx.mark_non_differentiable(potential)
        return spikes, potential

    @staticmethod
    def backward(ctx, grad_spikes, _):
        current, leak, potential, spikes = ctx.saved_tensors
        window = boxcar(potential, ctx.threshold)
        # With p_t = dL/du_t:  p_t = leak p_{t+1} + window_t (dL/ds_t - leak p_{t+1}).
        grad_potential = window * grad_spikes
        for t in range(len(current) - 2, -1, -1):
            grad_potential[t].addcmul_(leak * grad_potential[t + 1], 1 - window[t])
        grad_leak = -(grad_potential * current).sum(dim=(0, 1))
        grad_leak += (grad_potential[1:] * (potential[:-1] - spikes[:-1])).sum(dim=(0, 1))
        return (1 - leak) * grad_potential, grad_leak, None
