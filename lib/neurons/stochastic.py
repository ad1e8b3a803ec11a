"""Leaky integrate-and-fire neurons with Gaussian weights: their spikes are Bernoulli draws, and so need a gradient.

A spike is drawn with probability ``Phi(score)``, the score being the potential above the threshold over its standard
deviation. Of the expected loss, ``Phi(score) L(1) + (1 - Phi(score)) L(0)``, the derivative is ``phi(score)`` times
``L(1) - L(0)``, which is the integral of L' from 0 to 1. Backpropagation knows L' at the drawn spike alone. To put it
in the integral's place with weight p(s) for spike s, when s is drawn with probability pi(s), is an importance weight
``p(s) / pi(s)`` (Walker, Khajehnejad & Razi 2025, arXiv:2505.17962). The *slopes* below are ``phi(score)`` times it.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.special import erfcx

from lib import network
from lib.neurons.rlif import without_self

Slope = Callable[[Float[Tensor, "*shape"], Float[Tensor, "*shape"]], Float[Tensor, "*shape"]]

# A potential without noise would have no gradient, and 0/0 for a score at the threshold.
SMALLEST_VARIANCE = 1e-12


def straight_through(score: Float[Tensor, "*shape"], spikes: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """p = pi: each spike counts as often as it is drawn. Unbiased for a loss linear in the spike."""
    return (-score.square() / 2).exp() / math.sqrt(2 * math.pi)


def trapezoid(score: Float[Tensor, "*shape"], spikes: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """p = 1/2: the trapezoid rule for the integral. Unbiased for a loss quadratic in the spike.

    Its second moment grows with the inverse of the rarer spike's probability.
    """
    return 1 / (math.sqrt(2 * math.pi) * erfcx(-_of_drawn(score, spikes) / math.sqrt(2)))


def relaxed(
    score: Float[Tensor, "*shape"], spikes: Float[Tensor, "*shape"], width: float = 1.0
) -> Float[Tensor, "*shape"]:
    """A ramp of that width, in standard deviations, is backpropagated through in the spike's place.

    The slope is 1 / width where the score with its noise is on the ramp; here it is averaged over the noise that gives
    this spike, which leaves the mean as it is and lowers the variance. A narrow ramp gives ``trapezoid``, a wide one
    the same slope for all scores. At most 1 / width, however rare the spike.
    """
    # Above 8 the slope is 0 to the last digit, and the terms would overflow.
    drawn = _of_drawn(score, spikes).clamp(max=8.0)
    beyond = erfcx((width / 2 - drawn) / math.sqrt(2)) / erfcx(-drawn / math.sqrt(2))
    return (1 - beyond * (width / 2 * (drawn - width / 4)).exp()) / width


SLOPES: dict[str, Slope] = {"straight-through": straight_through, "trapezoid": trapezoid, "relaxed": relaxed}


def bernoulli_spike(score: Float[Tensor, "*shape"], slope: Slope = straight_through) -> Float[Tensor, "*shape"]:
    """Spikes (0 or 1) with probability ``Phi(score)``, from torch's own generator."""
    return differentiable((torch.randn_like(score) < score).to(score.dtype), score, slope)


def differentiable(
    spikes: Float[Tensor, "*shape"], score: Float[Tensor, "*shape"], slope: Slope
) -> Float[Tensor, "*shape"]:
    """Spikes that have been drawn, with their gradient to the score: ``slope(score, spikes)``."""
    return _Drawn.apply(spikes, score, slope)


class _Drawn(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(spikes, score, slope):
        return spikes.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        spikes, score, ctx.slope = inputs
        ctx.save_for_backward(spikes, score)

    @staticmethod
    def backward(ctx, grad):
        spikes, score = ctx.saved_tensors
        return None, grad * ctx.slope(score, spikes), None


class Response(NamedTuple):
    """Spikes, and mean and variance of the current that each neuron received in each step."""

    spikes: Float[Tensor, "time batch units"]
    current: Float[Tensor, "time batch units"]
    variance: Float[Tensor, "time batch #units"]


def stochastic_lif(
    current: Float[Tensor, "time batch units"],
    variance: Float[Tensor, "time batch #units"],
    leak: float,
    recurrent: tuple[Float[Tensor, "units units"], Float[Tensor, "units units"]] | None = None,
    fire: Callable[[Tensor, Tensor], Tensor] = lambda excess, deviation: bernoulli_spike(excess / deviation),
) -> Response:
    """Leaky integrate-and-fire neurons that start from rest, their current of that mean and variance.

    ``recurrent`` is mean and variance of the weights between them (the diagonals have no effect); what comes through
    them is ``m_t = current_t + V s_{t-1}`` and ``v_t = variance_t + W s_{t-1}`` (W weighs s squared, which is s).
    The potential has the mean ``u_t = leak (u_{t-1} - s_{t-1}) + m_t`` and the variance
    ``q_t = leak^2 q_{t-1} + v_t``; ``fire(u_t - 1, sqrt(q_t))`` gives s_t.

    Exact where weights are drawn afresh in each step, for the marginal of each potential given the spikes' resets, and
    an approximation in two ways. A reset takes away a known 1 and so no variance; that a neuron which fired tells that
    its noise was high is not used. And where one draw of the weights lasts for an utterance, the noise of the steps
    adds up in phase: the variance would be that of ``sum_k leak^k x_{t-k}`` and not of independent terms.
    """
    if recurrent is not None:
        weights = torch.cat([without_self(weight) for weight in recurrent]).T
    potential = spike = torch.zeros_like(current[0])
    spread = torch.zeros_like(variance[0])
    spikes, currents, variances = [], [], []
    for mean, noise in zip(current, variance, strict=True):
        if recurrent is not None:
            from_others, noise_from_others = (spike @ weights).chunk(2, dim=-1)
            mean, noise = mean + from_others, noise + noise_from_others
        potential = leak * (potential - spike) + mean
        spread = leak**2 * spread + noise
        spike = fire(potential - 1, spread.clamp(min=SMALLEST_VARIANCE).sqrt())
        spikes.append(spike)
        currents.append(mean)
        variances.append(noise)
    return Response(torch.stack(spikes), torch.stack(currents), torch.stack(variances))


def drawn_lif(
    current: Float[Tensor, "time batch units"],
    variance: Float[Tensor, "time batch #units"],
    leak: float,
    recurrent: tuple[Float[Tensor, "units units"], Float[Tensor, "units units"]] | None,
    slope: Slope,
) -> Response:
    """``stochastic_lif`` whose spikes are drawn, with the gradient ``slope``; compiled where that is to be had."""
    if network.fast:
        among = recurrent and tuple(map(without_self, recurrent))
        return Response(*network.fast.drawn_lif(current, variance, leak, among, slope, SMALLEST_VARIANCE))
    return stochastic_lif(
        current, variance, leak, recurrent, lambda excess, deviation: bernoulli_spike(excess / deviation, slope)
    )


def _of_drawn(score: Tensor, spikes: Tensor) -> Tensor:
    """The score of which ``Phi`` is the probability of what was drawn."""
    return torch.where(spikes > 0, score, -score)
