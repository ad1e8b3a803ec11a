"""Bias and variance of gradient estimators for drawn spikes, in networks whose spike patterns can all be listed.

Nothing here is sampled: the loss that training minimises is ``sum_s P(s) L(s)`` over the patterns s of all neurons and
steps. An estimator has a gradient for each pattern, and its mean and its variance are sums over the patterns too.
Gradients are those of the hidden layers' parameters, as the readout's is exact in any estimator.
"""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy
from torch.special import log_ndtr

from lib.network import boxcar
from lib.networks.sbnn import StochasticClassifier
from lib.neurons.stochastic import Slope, differentiable, relaxed, straight_through, trapezoid

# The patterns of more spikes do not fit into memory.
MOST_SPIKES = 16
# With a gain of 1 the second layer of so few neurons would be silent, and the loss all but linear in each spike.
GAIN, READOUT_GAIN = 2.0, 4.0

Parameters = Mapping[str, Tensor]
# Makes drawn spikes differentiable by the potential above threshold and its standard deviation.
Carrier = Callable[[Tensor, Tensor, Tensor], Tensor]


def boxcar_of_means(spikes: Tensor, excess: Tensor, deviation: Tensor) -> Tensor:
    """The surrogate derivative of the paper, at the mean potential."""
    return differentiable(spikes, excess, lambda above, _: boxcar(above, threshold=0.0))


def with_slope(slope: Slope, spikes: Tensor, excess: Tensor, deviation: Tensor) -> Tensor:
    """Give drawn spikes this slope by their score (``neurons.stochastic``)."""
    return differentiable(spikes, excess / deviation, slope)


CARRIERS: dict[str, Carrier] = {
    "straight-through": partial(with_slope, straight_through),
    "trapezoid": partial(with_slope, trapezoid),
    "relaxed, width 1": partial(with_slope, partial(relaxed, width=1.0)),
    "relaxed, width 4": partial(with_slope, partial(relaxed, width=4.0)),
    "boxcar, drawn spikes": boxcar_of_means,
}


class Case(NamedTuple):
    """A network and the one utterance on which its gradients are taken."""

    network: StochasticClassifier
    features: Float[Tensor, "time features"]
    label: Int64[Tensor, ""]


def compare(
    deviations: Collection[float],
    seeds: Collection[int],
    *,
    hidden_sizes: Sequence[int] = (2, 2),
    time: int = 3,
    features: int = 3,
    classes: int = 2,
) -> pd.DataFrame:
    """Bias and variance of each estimator in random recurrent networks, with an utterance and a network for each seed.

    ``deviations`` are the standard deviations of the weights (``StochasticClassifier``). Columns: deviation, seed,
    estimator; in units of the exact gradient's norm ``bias``, the norm of the mean gradient's distance from the exact
    one, and in the square of these units ``variance``, the mean squared distance of a gradient from the mean gradient;
    ``cosine`` between the mean and the exact gradient, NaN for a mean of 0. Raises ``ValueError`` for networks with
    more than 2^16 patterns of spikes.
    """
    rows = []
    for deviation, seed in itertools.product(deviations, seeds):
        case = random_case(deviation, seed, hidden_sizes, time, features, classes)
        exact = exact_gradient(case)
        scale = exact.norm()
        for estimator, (gradients, weights) in estimates(case).items():
            mean = weights @ gradients
            bias = (mean - exact).norm() / scale
            variance = weights @ (gradients - mean).square().sum(dim=1) / scale**2
            cosine = mean @ exact / (mean.norm() * scale)
            rows.append((deviation, seed, estimator, float(bias), float(variance), float(cosine)))
    return pd.DataFrame(rows, columns=["deviation", "seed", "estimator", "bias", "variance", "cosine"])


def random_case(
    deviation: float, seed: int, hidden_sizes: Sequence[int], time: int, features: int, classes: int
) -> Case:
    """A random network in double precision, and a random utterance; torch's own generator is left alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = StochasticClassifier(features, classes, hidden_sizes, deviation=deviation).double()
        network.requires_grad_(False).readout.weight.mul_(READOUT_GAIN)
        for layer in network.layers:
            layer.gain.fill_(GAIN)
        return Case(network, torch.randn(time, features, dtype=torch.float64), torch.randint(classes, ()))


def patterns(case: Case) -> Float[Tensor, "patterns spikes"]:
    """All patterns of spikes, which are in the order of layer, step and unit. Raises ``ValueError`` for too many."""
    spikes = len(case.features) * sum(layer.linear.out_features for layer in case.network.layers)
    if spikes > MOST_SPIKES:
        raise ValueError(f"{spikes} spikes have too many patterns to list: take units and steps for {MOST_SPIKES}")
    return (torch.arange(2**spikes)[:, None] >> torch.arange(spikes) & 1).to(case.features.dtype)


def hidden_parameters(case: Case) -> dict[str, Tensor]:
    """Those by which gradients are taken."""
    return dict(case.network.layers.named_parameters())


def expected_loss(parameters: Parameters, case: Case) -> Float[Tensor, ""]:
    """``sum_s P(s) L(s)``, which follows the parameters without a jump."""
    losses, scores = _forced(parameters, case, patterns(case))
    return log_ndtr(scores).sum(dim=1).exp() @ losses


def exact_gradient(case: Case) -> Float[Tensor, " parameters"]:
    """That of ``expected_loss``."""
    return _flat(grad(expected_loss)(hidden_parameters(case), case))


def estimates(case: Case) -> dict[str, tuple[Float[Tensor, "cases parameters"], Float[Tensor, " cases"]]]:
    """Each estimator's gradient for each of its cases, and the probabilities of these.

    The cases are the patterns, but for "boxcar, no noise": it has one, the deterministic network of the mean weights.
    "score function" is ``(L(s) - expected loss) d log P(s)``, which has no bias.
    """
    parameters, listed = hidden_parameters(case), patterns(case)
    losses, scores = _forced(parameters, case, listed)
    probabilities = log_ndtr(scores).sum(dim=1).exp()

    def of_patterns(function: Callable[[Parameters, Tensor], Tensor]) -> Tensor:
        return vmap(lambda pattern: _flat(grad(function)(parameters, pattern[None])))(listed)

    def log_probability(some: Parameters, pattern: Tensor) -> Tensor:
        _, scores = _forced(some, case, pattern)
        # d log Phi(x) is phi(x) / Phi(x) dx, twice the trapezoid's slope: only this line's gradient is of use.
        return (2 * trapezoid(scores, torch.ones_like(scores)).detach() * scores).sum()

    def without_noise(excess: Tensor, deviation: Tensor) -> Tensor:
        return boxcar_of_means((excess > 0).to(excess.dtype), excess, deviation)

    found = {}
    for name, carrier in CARRIERS.items():
        gradients = of_patterns(lambda some, pattern, carrier=carrier: _forced(some, case, pattern, carrier)[0].sum())
        found[name] = gradients, probabilities
    found["score function"] = (losses - probabilities @ losses)[:, None] * of_patterns(log_probability), probabilities
    surrogate = grad(lambda some: _loss(some, case, 1, without_noise).sum())(parameters)
    found["boxcar, no noise"] = _flat(surrogate)[None], torch.ones_like(probabilities[:1])
    return found


def _forced(
    parameters: Parameters, case: Case, listed: Tensor, carrier: Carrier = lambda spikes, *_: spikes
) -> tuple[Tensor, Tensor]:
    """The loss that follows from each pattern, and the scores [patterns, spikes] of its spikes and silences.

    ``Phi`` of these scores is how probable the network makes each spike or silence, given those before.
    """
    steps = iter(listed.split([layer.linear.out_features for layer in case.network.layers for _ in case.features], 1))
    scores = []

    def fire(excess, deviation):
        spikes, score = next(steps), excess / deviation
        scores.append(torch.where(spikes > 0, score, -score))
        return carrier(spikes, excess, deviation)

    losses = _loss(parameters, case, len(listed), fire)
    return losses, torch.cat(scores, dim=1)


def _loss(parameters: Parameters, case: Case, copies: int, fire: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    train = case.features[:, None].expand(-1, copies, -1)
    for index, layer in enumerate(case.network.layers):
        own = {name: parameters[f"{index}.{name}"] for name, _ in layer.named_parameters()}
        train = functional_call(layer, own, (train, fire))
    return cross_entropy(case.network.classify(train), case.label.expand(copies), reduction="none")


def _flat(gradients: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients.values()])
