"""What measures share: where a run's recordings lie, whom losses are taken on, along which lines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from lib import datasets, landscape, runs, slices
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
        """The features of a setup's data; with ``snr`` (dB) there is noise in the test part's waveforms."""
        utterances = runs.load_utterances(setup, self.data_root)
        return datasets.get(setup.dataset).frames(utterances, setup.data, self.folder / "features", snr)


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


def over_directions(lines: pd.DataFrame, values: Callable[[np.ndarray, np.ndarray], dict[str, float]]) -> pd.DataFrame:
    """The mean over directions of what ``values(alphas, losses)`` returns of each line.

    ``lines`` have the columns alpha, nll, direction and those that the result has as its index. NaN counts as no
    direction.
    """
    index = [name for name in lines if name not in ("direction", "alpha", "nll")]
    rows = [
        dict(zip([*index, "direction"], place, strict=True)) | values(line["alpha"].to_numpy(), line["nll"].to_numpy())
        for place, line in lines.groupby([*index, "direction"], sort=False)
    ]
    return pd.DataFrame(rows).drop(columns="direction").groupby(index, sort=False).mean()


def first_direction(lines: pd.DataFrame, index: Sequence[str]) -> pd.DataFrame:
    """The lines to draw: the first of each kind."""
    return lines[lines["direction"] == 0].set_index([*index, "alpha"])
