"""What measures share: where a run's recordings lie, whom losses are taken on, along which lines."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from lib import landscape, runs, slices
from lib.features import Frames
from lib.posteriors import State
from lib.setup import Setup
from lib.slices import Batches

# Beside the parts of the network: all of its matrices, by filter-normalised directions.
FILTERS = "filters"


@dataclass(frozen=True)
class Place:
    """The folder of a set's recordings (None: its own folder in ``data/``), and that of features and runs."""

    data_root: Path | None
    folder: Path

    def frames(self, setup: Setup, snr: float | None = None) -> Frames:
        return runs.load_frames(setup, self.data_root, snr, self.folder / "features")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_batches(frames: Frames, examples: int) -> Batches:
    """The first utterances of the test part in minibatches of 64."""
    test = frames.part("test")
    return list(zip(test.features[:examples].split(64), test.labels[:examples].split(64), strict=True))


def unit_direction(network: nn.Module, state: State, part: str, number: int) -> State:
    """A random direction of unit norm, the same for all networks of a shape.

    In the part "filters" the same noise is filter-normalised by the state's weights first.
    """
    if part != FILTERS:
        return slices.random_direction(landscape.parameters_of(network, part), seeded(number))
    noise = slices.random_direction(network.named_parameters(), seeded(number))
    direction = landscape.filter_normalised(noise, state)
    norm = landscape.weight_norm(direction, direction)
    return {name: tensor / norm for name, tensor in direction.items()}


def as_series(lines: Mapping, names: list[str], alphas: np.ndarray) -> pd.Series:
    """Losses along lines, one after the other; its index is each line's key, by these names, and alpha."""
    table = pd.DataFrame(lines, index=pd.Index(alphas, name="alpha")).rename_axis(columns=names)
    return table.unstack().rename("nll")


def over_directions(lines: pd.Series, values: Callable[[np.ndarray, np.ndarray], dict[str, float]]) -> pd.DataFrame:
    """The mean over directions of what ``values(alphas, losses)`` returns of each line; NaN counts as no direction."""
    names = [name for name in lines.index.names if name != "alpha"]
    found = {
        key: values(line.index.get_level_values("alpha").to_numpy(), line.to_numpy())
        for key, line in lines.groupby(names, sort=False)
    }
    table = pd.DataFrame(found.values(), index=pd.MultiIndex.from_tuples(found, names=names))
    return table.groupby([name for name in names if name != "direction"], sort=False).mean()
