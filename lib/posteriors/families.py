"""The families of posteriors: how each is written down and sampled."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

State = dict[str, Tensor]


@runtime_checkable
class Posterior(Protocol):
    def sample(self, generator: torch.Generator) -> State:
        """One full set of the network's tensors."""


@dataclass(frozen=True)
class PointMass:
    """A trained network: every sample is the same."""

    mean: State

    def sample(self, generator: torch.Generator) -> State:
        return dict(self.mean)


@dataclass(frozen=True)
class MeanFieldGaussian:
    """Independent Gaussians (equations 6 and 8). A tensor of ``mean`` without a ``std`` is certain.

    Raises ``ValueError`` where ``std`` names a tensor that ``mean`` lacks, or differs from it in shape.
    """

    mean: State
    std: State

    def __post_init__(self):
        _check_spread(self.mean, self.std)

    def sample(self, generator: torch.Generator) -> State:
        return _with_independent_noise(self.mean, self.std, generator)


@dataclass(frozen=True)
class LowRankGaussian:
    """A Gaussian with the covariance ``diag(std^2) + factors^T factors``.

    A factor has the shape [rank, *shape of its mean], and the numbers that weight its ranks in a sample are the same
    for all tensors: so weights of different tensors correlate. Tensors without a ``std`` have none of their own.

    Raises ``ValueError`` where ``std`` or ``factors`` do not fit ``mean``, or the factors differ in rank.
    """

    mean: State
    std: State
    factors: State

    def __post_init__(self):
        _check_spread(self.mean, self.std)
        for name, factor in self.factors.items():
            if name not in self.mean or self.mean[name].shape != factor.shape[1:]:
                raise ValueError(f"the factor {name!r} has no mean of the same shape behind its rank")
        if len({len(factor) for factor in self.factors.values()}) != 1:
            raise ValueError("a low rank needs one or more factors, all of the same rank")

    def sample(self, generator: torch.Generator) -> State:
        state = _with_independent_noise(self.mean, self.std, generator)
        first = next(iter(self.factors.values()))
        shared = torch.randn(len(first), generator=generator, dtype=first.dtype, device=first.device)
        for name, factor in self.factors.items():
            state[name] = state[name] + torch.tensordot(shared, factor, dims=1)
        return state


@dataclass(frozen=True)
class NoisyNetwork:
    """Weights of a network whose own randomness stays on: dropout's masks (Gal & Ghahramani 2016), or drawn spikes.

    ``sample`` gives the weights; what else is random is drawn where the network is run, as ``predict`` does.
    """

    weights: Posterior

    @property
    def mean(self) -> State:
        """Of the weights, where they have one."""
        return self.weights.mean

    def sample(self, generator: torch.Generator) -> State:
        return self.weights.sample(generator)


@dataclass(frozen=True)
class Mixture:
    """Equally weighted components, each a posterior: an ensemble.

    Raises ``ValueError`` for a ``NoisyNetwork`` among them: the noise belongs around the mixture.
    """

    components: tuple[Posterior, ...]

    def __post_init__(self):
        if any(isinstance(component, NoisyNetwork) for component in self.components):
            raise ValueError("a mixture has no noisy networks in it: make a NoisyNetwork of the mixture")

    def sample(self, generator: torch.Generator) -> State:
        choice = torch.randint(len(self.components), (), generator=generator, device=generator.device)
        return self.components[int(choice)].sample(generator)


def _check_spread(mean: Mapping[str, Tensor], spread: Mapping[str, Tensor]) -> None:
    for name, std in spread.items():
        if name not in mean or mean[name].shape != std.shape:
            raise ValueError(f"the standard deviation {name!r} has no mean of the same shape")


def _with_independent_noise(mean: State, spread: State, generator: torch.Generator) -> State:
    state = dict(mean)
    for name, std in spread.items():
        noise = torch.randn(std.shape, generator=generator, dtype=std.dtype, device=std.device)
        state[name] = mean[name] + std * noise
    return state
