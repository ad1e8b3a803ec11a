"""The paper's deterministic network: a maximum a posteriori estimate by Adam."""

from dataclasses import dataclass

import pandas as pd
from torch import nn

from lib.features import Examples
from lib.methods.base import (
    Method,
    batch_size,
    decay_vectors,
    defaults_of,
    dropout,
    leak_rate,
    learning_rate,
    patience,
    weight_decay,
)
from lib.posteriors import PointMass
from lib.settings import optional, setting, whole
from lib.trainers import train_map

DEFAULTS = defaults_of(train_map)


@dataclass(frozen=True)
class Adam(Method, name="map", label="Adam (MAP)", colour="#0072B2", marker="o"):
    """``lib.trainers.train_map``, whose defaults these are."""

    batch_size: int = batch_size(DEFAULTS["batch_size"])
    learning_rate: float = learning_rate(DEFAULTS["learning_rate"])
    weight_decay: float = weight_decay(DEFAULTS["weight_decay"])
    dropout: float = dropout()
    patience: int = patience(DEFAULTS["patience"])
    decay_vectors: bool = decay_vectors()
    leak_rate: float = leak_rate()
    freeze_norm_after: int | None = setting(DEFAULTS["freeze_norm_after"], optional(whole(1)), before=None)

    def train(
        self, network: nn.Module, training: Examples, validation: Examples, *, copies: int = 0, **loop
    ) -> tuple[PointMass, pd.DataFrame]:
        return train_map(network, training, validation, **self.trainer_settings(), **loop)
