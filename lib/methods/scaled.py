"""Noise put around a trained network afterwards: one factor for its size, by the validation NLL.

This is training-free Bayesianization (Shi et al. 2025), but for the choice: theirs is the widest noise that raises the
loss by no more than a tolerance, ours the noise of the lowest loss, which may be none.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.features import Examples
from lib.methods.adam import Adam
from lib.methods.base import Derived
from lib.methods.ivon import IVON
from lib.metrics import negative_log_likelihood
from lib.posteriors import MeanFieldGaussian, State, predict

FACTORS = (0.0, *(2 ** (half / 2) for half in range(-8, 9)))  # none, and from 1/16 to 16
SAMPLES = 16
SHARE = 0.1  # of the weights' root mean square, to which a factor of 1 stands


def scaled(network: nn.Module, mean: State, std: Mapping[str, Tensor], validation: Examples) -> MeanFieldGaussian:
    """The Gaussian about ``mean`` with ``std`` times that of ``FACTORS`` whose average has the lowest validation NLL.

    The noise is the same for each, or the choice would chase the luck of the draw.
    """

    def at(factor: float) -> MeanFieldGaussian:
        return MeanFieldGaussian(mean, {name: factor * one for name, one in std.items()})

    def cost(factor: float) -> float:
        generator = torch.Generator().manual_seed(0)
        drawn = predict(network, at(factor), validation.features, SAMPLES if factor else 1, generator)
        return negative_log_likelihood(drawn, validation.labels)

    return at(min(FACTORS, key=cost))


@dataclass(frozen=True)
class ScaledIVON(
    Derived, name="scaled-ivon", label="IVON, noise scaled", colour=IVON.colour, marker="H", made_of=(IVON,)
):
    """IVON's posterior with all of its standard deviations times one factor."""

    def derive(self, network, bases, training, validation, seed, copies=0) -> MeanFieldGaussian:
        (base,) = bases
        return scaled(network, base.mean, base.std, validation)


@dataclass(frozen=True)
class ScaledIsotropic(
    Derived,
    name="scaled-isotropic",
    label="Adam + scaled isotropic noise",
    colour=Adam.colour,
    marker="+",
    made_of=(Adam,),
):
    """Adam's solution with one standard deviation for all parameters."""

    def derive(self, network, bases, training, validation, seed, copies=0) -> MeanFieldGaussian:
        (base,) = bases
        means = learned_means(network, base.mean)
        size = SHARE * float(torch.cat([mean.flatten() for mean in means.values()]).square().mean().sqrt())
        std = {name: torch.full_like(mean, size) for name, mean in means.items()}
        return scaled(network, base.mean, std, validation)


@dataclass(frozen=True)
class ScaledFilters(
    Derived,
    name="scaled-filters",
    label="Adam + scaled noise by filter",
    colour=Adam.colour,
    marker="x",
    made_of=(Adam,),
):
    """Adam's solution with standard deviations in proportion to each filter's norm, a row of a matrix.

    As with filter-normalised directions (Li et al. 2018), vectors have none: gains, biases and leaks are certain.
    """

    def derive(self, network, bases, training, validation, seed, copies=0) -> MeanFieldGaussian:
        (base,) = bases
        matrices = {name: mean for name, mean in learned_means(network, base.mean).items() if mean.ndim == 2}
        sizes = {name: SHARE * mean.square().mean(dim=1, keepdim=True).sqrt() for name, mean in matrices.items()}
        std = {name: size.expand_as(matrices[name]).clone() for name, size in sizes.items()}
        return scaled(network, base.mean, std, validation)


def learned_means(network: nn.Module, mean: State) -> State:
    return {name: mean[name] for name, parameter in network.named_parameters() if parameter.requires_grad}
