"""What of IVON is its mean, and what its noise: the mean alone, and its noise about Adam's solution."""

from dataclasses import dataclass
from typing import ClassVar

from lib.methods.adam import Adam
from lib.methods.base import Derived
from lib.methods.ivon import IVON
from lib.posteriors import MeanFieldGaussian, PointMass


@dataclass(frozen=True)
class IVONMean(Derived):
    """The posterior mean alone."""

    name: ClassVar = "ivon-mean"
    label: ClassVar = "IVON's mean"
    colour: ClassVar = "#FFB713"
    marker: ClassVar = "<"
    made_of: ClassVar = (IVON,)

    def derive(self, network, bases, training, validation, seed, copies=0) -> PointMass:
        (base,) = bases
        return PointMass(base.mean)


@dataclass(frozen=True)
class IVONNoise(Derived):
    """Adam's solution with IVON's standard deviations."""

    name: ClassVar = "noise-ivon"
    label: ClassVar = "Adam + IVON's noise"
    colour: ClassVar = "#7A35D8"
    marker: ClassVar = ">"
    made_of: ClassVar = (Adam, IVON)

    def derive(self, network, bases, training, validation, seed, copies=0) -> MeanFieldGaussian:
        adam, ivon = bases
        return MeanFieldGaussian(adam.mean, ivon.std)


@dataclass(frozen=True)
class IsotropicNoise(Derived):
    """Adam's solution with the same standard deviation for each parameter, matched to IVON's.

    The variances of all parameters have the same sum, so that the noise has the same expected squared length.
    """

    name: ClassVar = "noise-isotropic"
    label: ClassVar = "Adam + isotropic noise"
    colour: ClassVar = "#D7A288"
    marker: ClassVar = "p"
    made_of: ClassVar = (Adam, IVON)

    def derive(self, network, bases, training, validation, seed, copies=0) -> MeanFieldGaussian:
        adam, ivon = bases
        variances = sum((std.double() ** 2).sum() for std in ivon.std.values())
        matched = float((variances / sum(std.numel() for std in ivon.std.values())).sqrt())
        return MeanFieldGaussian(adam.mean, {name: std.new_full(std.shape, matched) for name, std in ivon.std.items()})
