"""Posteriors made of those of finished runs: noise left on, networks averaged, one's centre with another's spread."""

from lib.networks import Classifier
from lib.posteriors import MeanFieldGaussian, Mixture, NoisyNetwork, PointMass, Posterior
from lib.trainers.loop import Examples


def dropout(
    network: Classifier, bases: tuple[Posterior], training: Examples, validation: Examples, seed: int
) -> NoisyNetwork:
    """MC dropout (Gal & Ghahramani 2016): the trained network, its dropout left on.

    Raises ``ValueError`` for a network without dropout.
    """
    if network.dropout.p == 0:
        raise ValueError("MC dropout needs a network that was trained with dropout: choose a dropout above 0")
    (base,) = bases
    return NoisyNetwork(base)


def ensemble(
    network: Classifier, bases: tuple[Posterior, ...], training: Examples, validation: Examples, seed: int
) -> Mixture:
    """Networks of several seeds, averaged (Lakshminarayanan et al. 2017)."""
    return Mixture(bases)


def at_the_mean(
    network: Classifier, bases: tuple[MeanFieldGaussian], training: Examples, validation: Examples, seed: int
) -> PointMass:
    """A Gaussian's centre alone."""
    (base,) = bases
    return PointMass(base.mean)


def with_its_noise(
    network: Classifier,
    bases: tuple[PointMass, MeanFieldGaussian],
    training: Examples,
    validation: Examples,
    seed: int,
) -> MeanFieldGaussian:
    """The first one's centre with the second one's spread."""
    centre, spread = bases
    return MeanFieldGaussian(centre.mean, spread.std)


def with_isotropic_noise(
    network: Classifier,
    bases: tuple[PointMass, MeanFieldGaussian],
    training: Examples,
    validation: Examples,
    seed: int,
) -> MeanFieldGaussian:
    """The first one's centre with the same standard deviation for each parameter, matched to the second one's spread.

    The variances of all parameters have the same sum, so that the noise has the same expected squared length.
    """
    centre, spread = bases
    variances = sum((std.double() ** 2).sum() for std in spread.std.values())
    matched = float((variances / sum(std.numel() for std in spread.std.values())).sqrt())
    return MeanFieldGaussian(centre.mean, {name: std.new_full(std.shape, matched) for name, std in spread.std.items()})
