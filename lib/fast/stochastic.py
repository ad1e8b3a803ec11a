"""``neurons.stochastic.stochastic_lif`` with its adjoint by hand: autograd's tape of each step costs as much again.

The same numbers from the same generator state, and the same gradients, up to rounding.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def drawn_lif(
    current: Float[Tensor, "time batch units"],
    variance: Float[Tensor, "time batch #units"],
    leak: float,
    recurrent: tuple[Float[Tensor, "units units"], Float[Tensor, "units units"]] | None,
    slope: Callable[[Tensor, Tensor], Tensor],
    smallest_variance: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, drawn with the gradient ``slope(score, spikes)``, and mean and variance of the currents behind them.

    ``recurrent`` is mean and variance of the weights between units, whose diagonals are zero.
    """
    weights = None
    if recurrent is not None:
        weights = torch.cat(recurrent).T
        variance = variance.expand_as(current)
    return _DrawnLIF.apply(current, variance, weights, leak, slope, smallest_variance)


class _DrawnLIF(torch.autograd.Function):
    @staticmethod
    def forward(ctx, current, variance, weights, leak, slope, smallest):
        # Drawn step by step, as the plain form draws: for few numbers the stream depends on how many are drawn at once.
        noise = torch.stack([torch.randn_like(step) for step in current])
        means, variances = current.clone(), variance.clone()
        spikes, scores = torch.empty_like(current), torch.empty_like(current)
        deviations = torch.empty_like(variances)
        potential, spread = torch.zeros_like(current[0]), torch.zeros_like(variances[0])
        for t in range(len(current)):
            if t > 0:
                potential.sub_(spikes[t - 1]).mul_(leak)
                if weights is not None:
                    from_others, noise_from_others = (spikes[t - 1] @ weights).chunk(2, dim=-1)
                    means[t] += from_others
                    variances[t] += noise_from_others
            potential += means[t]
            spread.mul_(leak**2).add_(variances[t])
            torch.sqrt(spread.clamp(min=smallest), out=deviations[t])
            torch.div(potential - 1, deviations[t], out=scores[t])
            torch.lt(noise[t], scores[t], out=spikes[t])
        ctx.save_for_backward(spikes, scores, deviations, weights)
        ctx.leak, ctx.slope, ctx.smallest = leak, slope, smallest
        return spikes, means, variances

    @staticmethod
    def backward(ctx, grad_spikes, grad_means, grad_variances):
        spikes, scores, deviations, weights = ctx.saved_tensors
        to_potential = ctx.slope(scores, spikes) / deviations
        # Of sqrt(q) in the score; where q was raised to its least value it does not depend on it.
        to_spread = -to_potential * scores / (2 * deviations)
        to_spread = torch.where(deviations.square() > ctx.smallest, to_spread, 0)
        # With p_t = dL/du_t and r_t = dL/dq_t, and g_t all that reaches the spike:
        #   g_t = dL/ds_t - leak p_{t+1} + (what returns through the recurrent weights)
        #   p_t = to_potential_t g_t + leak p_{t+1}   and   r_t = to_spread_t g_t + leak^2 r_{t+1}
        potential, spread = torch.zeros_like(spikes[0]), torch.zeros_like(deviations[0])
        of_means, of_variances = grad_means.clone(), grad_variances.clone()
        for t in range(len(spikes) - 1, -1, -1):
            reaching = grad_spikes[t] - ctx.leak * potential
            if weights is not None and t + 1 < len(spikes):
                reaching += torch.cat([of_means[t + 1], of_variances[t + 1]], dim=-1) @ weights.T
            potential = torch.addcmul(ctx.leak * potential, to_potential[t], reaching)
            spread = ctx.leak**2 * spread + (to_spread[t] * reaching).sum_to_size(spread.shape)
            of_means[t] += potential
            of_variances[t] += spread
        of_weights = None
        if weights is not None:
            returned = torch.cat([of_means[1:], of_variances[1:]], dim=-1)
            of_weights = spikes[:-1].flatten(0, 1).T @ returned.flatten(0, 1)
        return of_means, of_variances, of_weights, None, None, None
