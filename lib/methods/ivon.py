"""The paper's Bayesian network: a mean-field Gaussian by IVON (Shen et al. 2024)."""

from dataclasses import dataclass
from typing import ClassVar

import pandas as pd
from torch import nn

from lib.features import Examples
from lib.methods.base import Method, batch_size, defaults_of, dropout, learning_rate, patience, weight_decay
from lib.posteriors import MeanFieldGaussian
from lib.settings import optional, real, setting, whole
from lib.trainers import train_ivon

DEFAULTS = defaults_of(train_ivon)


@dataclass(frozen=True)
class IVON(Method):
    """``lib.trainers.train_ivon``, whose defaults these are."""

    name: ClassVar = "ivon"
    label: ClassVar = "IVON"
    colour: ClassVar = "#D55E00"
    marker: ClassVar = "s"

    batch_size: int = batch_size(DEFAULTS["batch_size"])
    learning_rate: float = learning_rate(DEFAULTS["learning_rate"], search=(0.03, 1.0))
    weight_decay: float = weight_decay(DEFAULTS["weight_decay"], search=[1e-5, 1e-4, 1e-3])
    dropout: float = dropout()
    patience: int = patience(DEFAULTS["patience"])
    ess_factor: float = setting(DEFAULTS["ess_factor"], real(0, 1e9, above=True), search=(1.0, 30.0))
    hess_init: float = setting(DEFAULTS["hess_init"], real(0, 1e9, above=True), search=(0.1, 3.0))
    beta2: float = setting(DEFAULTS["beta2"], real(0, 1), search=[0.999, 0.9999, 0.99999])
    freeze_norm_after: int | None = setting(DEFAULTS["freeze_norm_after"], optional(whole(1)), search=[10, 20, 30])

    def train(
        self, network: nn.Module, training: Examples, validation: Examples, *, copies: int = 0, **loop
    ) -> tuple[MeanFieldGaussian, pd.DataFrame]:
        settings = self.trainer_settings() | {"ess_factor": self.ess_factor / (1 + copies)}
        return train_ivon(network, training, validation, **settings, **loop)
