"""Momentum SGD at IVON's step: what IVON is without its noise and with the curvature that it begins with."""

from dataclasses import dataclass

import pandas as pd
from torch import nn

from lib.features import Examples
from lib.methods.base import Method, batch_size, dropout, freeze_norm_after, learning_rate, patience, weight_decay
from lib.methods.ivon import DEFAULTS
from lib.posteriors import PointMass
from lib.trainers import train_ivon

# Deviations of 1e-12 / sqrt(utterances), which single precision rounds away, and no curvature is learnt from them.
WITHOUT_NOISE = {"ess_factor": 1e24, "hess_init": 1.0, "beta2": 1.0}


@dataclass(frozen=True)
class SGD(Method, name="sgd", label="Momentum SGD", colour="#5F2369", marker="d"):
    """``lib.trainers.train_ivon`` with deviations of zero and a curvature held where it began: a noise-free control.

    There IVON's step is ``learning_rate`` times the sum of the gradients' mean over time (``beta1`` 0.9, debiased) and
    ``weight_decay`` times the weights: the curvature cancels. Minibatches and dropout are those of IVON's run of the
    same seed.
    """

    batch_size: int = batch_size(DEFAULTS["batch_size"])
    learning_rate: float = learning_rate(DEFAULTS["learning_rate"], search=(0.03, 1.0))
    weight_decay: float = weight_decay(DEFAULTS["weight_decay"], search=[1e-5, 1e-4, 1e-3])
    dropout: float = dropout()
    patience: int = patience(DEFAULTS["patience"])
    freeze_norm_after: int | None = freeze_norm_after(DEFAULTS["freeze_norm_after"])

    def train(
        self, network: nn.Module, training: Examples, validation: Examples, *, copies: int = 0, **loop
    ) -> tuple[PointMass, pd.DataFrame]:
        settings = self.trainer_settings() | WITHOUT_NOISE
        posterior, history = train_ivon(network, training, validation, **settings, **loop)
        return PointMass(posterior.mean), history
