"""The spike's surrogate derivative."""

import torch
from jaxtyping import Float
from torch import Tensor


def boxcar(
    potential: Float[Tensor, "..."],
    threshold: float = 1.0,
) -> Float[Tensor, "..."]:
    """The surrogate derivative of a spike: 1 within half a unit of the threshold, else 0."""
    return ((potential - threshold).abs() <= 0.5).to(potential.dtype)


def fired(
    potential: Float[Tensor, "..."],
    threshold: float = 1.0,
) -> Float[Tensor, "..."]:
    """Spikes, 1 where the potential is above the threshold, whose derivative is the boxcar."""
    return _Fired.apply(potential, threshold)


class _Fired(torch.autograd.Function):
    @staticmethod
    def forward(ctx, potential, threshold):
        ctx.save_for_backward(potential)
        ctx.threshold = threshold
        return (potential > threshold).to(potential.dtype)

    @staticmethod
    def backward(ctx, grad):
        (potential,) = ctx.saved_tensors
        return grad * boxcar(potential, ctx.threshold), None
