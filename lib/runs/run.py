"""A finished run on disk: its record, posterior and history, read when they are asked for."""

import json
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from lib import posteriors
from lib.features import Frames
from lib.files import or_damaged
from lib.posteriors import Posterior
from lib.setup import Setup

RETRAIN = "delete its folder and train again"


@dataclass(frozen=True)
class Run:
    """A finished run on disk."""

    folder: Path

    @cached_property
    def record(self) -> dict[str, Any]:
        """Settings, data fingerprint, seconds of training, and what it was computed with."""
        path = self.folder / "run.json"
        with or_damaged(path, RETRAIN):
            record = json.loads(path.read_text(encoding="utf-8"))
            itemgetter("data", "settings")(record), itemgetter("dataset", "method", "seed")(record["settings"])
        return record

    @cached_property
    def setup(self) -> Setup:
        with or_damaged(self.folder / "run.json", RETRAIN):
            return Setup.from_record(self.record["settings"])

    @cached_property
    def posterior(self) -> Posterior:
        return posteriors.load(self.folder / "posterior.pt")

    @property
    def trained(self) -> list["Run"]:
        """The runs whose training it took: this one, or those that it is made of."""
        return [Run(self.folder.parent / name) for name in self.record.get("bases", ())] or [self]

    @cached_property
    def history(self) -> pd.DataFrame:
        """Of the training; of a derived run that of the first that it is made of."""
        if self.trained != [self]:
            return self.trained[0].history
        path, epochs = self.folder / "history.csv", self.setup.training.epochs
        with or_damaged(path, RETRAIN):
            history = pd.read_csv(path)
            numbers = history[["epoch", "validation_loss"]].to_numpy(dtype=float)
            if len(history) != epochs or not np.isfinite(numbers).all():
                raise ValueError(f"it does not hold {epochs} epochs")
        return history

    @property
    def validation_nll(self) -> float:
        """Of the posterior that was kept."""
        if "validation_nll" in self.record:
            return self.record["validation_nll"]
        losses = self.history["validation_loss"]
        return float(losses.iloc[-1] if self.setup.method.keeps_last else losses.min())

    def network(self, frames: Frames, device: str | None = None) -> nn.Module:
        """An untrained network of this run's shape, to call with weights sampled from the posterior."""
        return network_for(self.setup, frames, device)

    def __str__(self) -> str:
        return self.folder.name


def network_for(setup: Setup, frames: Frames, device: str | None = None) -> nn.Module:
    """The network of a setup, its starting weights given by the seed; on CUDA where that is there, or on ``device``."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng():
        torch.manual_seed(setup.seed)
        sizes = frames.features.shape[-1], len(frames.class_names)
        return setup.method.network(setup.network, *sizes).to(device)
