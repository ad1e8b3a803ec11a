"""The paper's Bayesian network: a mean-field Gaussian by IVON (Shen et al. 2024).

What of it is its mean, and what its noise: derived methods take the mean alone, the noise about Adam's solution, and
the noise shuffled among the parameters.
"""

from dataclasses import dataclass

import pandas as pd
import torch
from torch import nn

from lib.features import Examples
from lib.methods.adam import Adam
from lib.methods.base import (
    Derived,
    Method,
    batch_size,
    decay_vectors,
    defaults_of,
    dropout,
    freeze_norm_after,
    leak_rate,
    learning_rate,
    patience,
    weight_decay,
)
from lib.methods.swag import with_own_statistics
from lib.networks.activity import dead_rows
from lib.posteriors import MeanFieldGaussian, PointMass
from lib.settings import real, setting, whole
from lib.trainers import train_ivon

DEFAULTS = defaults_of(train_ivon)


@dataclass(frozen=True)
class IVON(Method, name="ivon", label="IVON", colour="#D55E00", marker="s"):
    """``lib.trainers.train_ivon``, whose defaults these are."""

    batch_size: int = batch_size(DEFAULTS["batch_size"])
    learning_rate: float = learning_rate(DEFAULTS["learning_rate"], search=(0.03, 1.0))
    weight_decay: float = weight_decay(DEFAULTS["weight_decay"], search=[1e-5, 1e-4, 1e-3])
    dropout: float = dropout()
    patience: int = patience(DEFAULTS["patience"])
    ess_factor: float = setting(DEFAULTS["ess_factor"], real(0, 1e9, above=True), search=(1.0, 30.0))
    hess_init: float = setting(DEFAULTS["hess_init"], real(0, 1e9, above=True), search=(0.003, 3.0))
    beta2: float = setting(DEFAULTS["beta2"], real(0, 1), search=[0.99, 0.999, 0.9995, 0.9999, 0.99999])
    draws: int = setting(DEFAULTS["draws"], whole(1, 1_000), before=1)
    decay_vectors: bool = decay_vectors()
    leak_rate: float = leak_rate()
    freeze_norm_after: int | None = freeze_norm_after(DEFAULTS["freeze_norm_after"])

    def train(
        self, network: nn.Module, training: Examples, validation: Examples, *, copies: int = 0, **loop
    ) -> tuple[MeanFieldGaussian, pd.DataFrame]:
        settings = self.trainer_settings() | {"ess_factor": self.ess_factor / (1 + copies)}
        return train_ivon(network, training, validation, **settings, **loop)


@dataclass(frozen=True)
class IVONMean(Derived, name="ivon-mean", label="IVON's mean", colour="#FFB713", marker="<", made_of=(IVON,)):
    """The posterior mean alone."""

    def derive(self, network, bases, training, validation, seed, copies=0) -> PointMass:
        (base,) = bases
        return PointMass(base.mean)


@dataclass(frozen=True)
class IVONNoise(
    Derived, name="noise-ivon", label="Adam + IVON's noise", colour="#7A35D8", marker=">", made_of=(Adam, IVON)
):
    """Adam's solution with IVON's standard deviations."""

    def derive(self, network, bases, training, validation, seed, copies=0) -> MeanFieldGaussian:
        adam, ivon = bases
        return MeanFieldGaussian(adam.mean, ivon.std)


@dataclass(frozen=True)
class IVONNoiseOnLive(
    Derived,
    name="noise-live",
    label="Adam + IVON's noise, dead units left alone",
    colour="#7A35D8",
    marker="3",
    made_of=(Adam, IVON),
):
    """Adam's solution with IVON's standard deviations, but for incoming weights that have decayed to nothing.

    Such a unit's current is next to nothing, and so is its variance, by which batch norm divides: any noise on its
    weights would be blown up to the size of a live unit's current.
    """

    def derive(self, network, bases, training, validation, seed, copies=0) -> MeanFieldGaussian:
        adam, ivon = bases
        dead = dead_rows(network, adam.mean)
        left_alone = {name: ivon.std[name].masked_fill(rows[:, None], 0.0) for name, rows in dead.items()}
        return MeanFieldGaussian(adam.mean, ivon.std | left_alone)


@dataclass(frozen=True)
class IsotropicNoise(
    Derived, name="noise-isotropic", label="Adam + isotropic noise", colour="#D7A288", marker="p", made_of=(Adam, IVON)
):
    """Adam's solution with the same standard deviation for each parameter, matched to IVON's.

    The variances of all parameters have the same sum, so that the noise has the same expected squared length.
    """

    def derive(self, network, bases, training, validation, seed, copies=0) -> MeanFieldGaussian:
        adam, ivon = bases
        variances = sum((std.double() ** 2).sum() for std in ivon.std.values())
        matched = float((variances / sum(std.numel() for std in ivon.std.values())).sqrt())
        return MeanFieldGaussian(adam.mean, {name: std.new_full(std.shape, matched) for name, std in ivon.std.items()})


@dataclass(frozen=True)
class IVONPermuted(
    Derived, name="ivon-permuted", label="IVON, noise permuted", colour=IVON.colour, marker="2", made_of=(IVON,)
):
    """IVON's posterior, its standard deviations permuted among all parameters: their sizes without their places."""

    def derive(self, network, bases, training, validation, seed, copies=0) -> MeanFieldGaussian:
        (base,) = bases
        sizes = torch.cat([std.flatten() for std in base.std.values()])
        shuffled = sizes[torch.randperm(len(sizes), generator=torch.Generator().manual_seed(seed))]
        pieces = zip(base.std.items(), shuffled.split([std.numel() for std in base.std.values()]), strict=True)
        return MeanFieldGaussian(base.mean, {name: piece.view(std.shape) for (name, std), piece in pieces})


@dataclass(frozen=True)
class IVONReestimated(
    Derived, name="ivon-reestimated", label="IVON, statistics anew", colour=IVON.colour, marker="4", made_of=(IVON,)
):
    """IVON's posterior with the batch-norm statistics that its mean has on the training data, in one pass over them."""

    def derive(self, network, bases, training, validation, seed, copies=0) -> MeanFieldGaussian:
        (base,) = bases
        own = with_own_statistics(network, base.mean, training, self.base("ivon").batch_size)
        return MeanFieldGaussian(own, base.std)
