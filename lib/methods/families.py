"""Posteriors that the paper does without: of correlated weights, and of networks with noise of their own."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from lib.posteriors import MeanFieldGaussian, Posterior, State, family


@family
@dataclass(frozen=True)
class LowRankGaussian(Posterior):
    """A Gaussian with the covariance ``diag(std^2) + factors^T factors``.

    A factor has the shape [rank, *shape of its mean], and the numbers that weight its ranks in a sample are the same
    for all tensors: so weights of different tensors correlate. Tensors without a ``std`` have none of their own.

    Raises ``ValueError`` where ``std`` or ``factors`` do not fit ``mean``, or the factors differ in rank.
    """

    mean: State
    std: State
    factors: State

    def __post_init__(self) -> None:
        MeanFieldGaussian(self.mean, self.std)  # which checks the two
        for name, factor in self.factors.items():
            if name not in self.mean or self.mean[name].shape != factor.shape[1:]:
                raise ValueError(f"the factor {name!r} has no mean of the same shape behind its rank")
        if len({len(factor) for factor in self.factors.values()}) != 1:
            raise ValueError("a low rank needs one or more factors, all of the same rank")

    def sample(self, generator: torch.Generator) -> State:
        state = MeanFieldGaussian(self.mean, self.std).sample(generator)
        first = next(iter(self.factors.values()))
        shared = torch.randn(len(first), generator=generator, dtype=first.dtype, device=first.device)
        for name, factor in self.factors.items():
            state[name] = state[name] + torch.tensordot(shared, factor, dims=1)
        return state


@family
@dataclass(frozen=True)
class NoisyNetwork(Posterior):
    """Weights of a network whose own randomness stays on: dropout's masks (Gal & Ghahramani 2016), or drawn spikes.

    ``sample`` gives the weights; what else is random is drawn where the network is run, as ``predict`` does.
    """

    noisy: ClassVar[bool] = True
    weights: Posterior

    @property
    def mean(self) -> State:
        """The mean of the weights."""
        return self.weights.mean

    def sample(self, generator: torch.Generator) -> State:
        return self.weights.sample(generator)

    def draws(self, samples: int, generator: torch.Generator) -> list[State]:
        return self.weights.draws(samples, generator)
