"""What measures share: where a run's recordings lie, whom losses are taken on, along which lines."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int64, Shaped
from torch import nn

from lib import landscape, runs, slices
from lib.features import Frames
from lib.posteriors import State
from lib.setup import Setup
from lib.slices import Batches

# Beside the parts of the network: all of its matrices, by filter-normalised directions.
FILTERS = "filters"
# Utterances whose loss is one term of equation 19.
MINIBATCH = 64


@dataclass(frozen=True)
class Place:
    """The folder of a set's recordings (None: its own folder in ``data/``), and that of features and runs."""

    data_root: Path | None
    folder: Path

    def frames(self, setup: Setup, snr: float | None = None) -> Frames:
        return runs.load_frames(setup, self.data_root, snr, self.folder / "features")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def balanced(
    labels: Int64[np.ndarray, " utterance"], speakers: Shaped[np.ndarray, " utterance"], number: int
) -> Int64[np.ndarray, " chosen"]:
    """The places of so many utterances that stand for all of them, always the same ones, or of all if there are fewer.

    Classes take turns, and within a class its speakers do, both in random order: every class occurs as often as any
    other to within one, and every speaker of a class likewise, as long as they have utterances left. The first of more
    are those of fewer.
    """
    table = pd.DataFrame({"label": labels, "speaker": speakers}).sample(frac=1, random_state=0)
    for turns in (["label", "speaker"], ["label"]):
        table = table.iloc[np.argsort(table.groupby(turns).cumcount(), kind="stable")]
    return np.array(table.index[:number])


def test_utterances(frames: Frames, examples: int) -> Frames:
    """Those of the test part that all measures of the loss are taken on: balanced over classes and speakers."""
    test = frames.part("test")
    places = balanced(test.labels.numpy(), test.speakers, examples)
    own = {name: getattr(test, name)[places] for name in ("features", "labels", "parts", "speakers")}
    return replace(test, **own)


def test_batches(frames: Frames, examples: int) -> Batches:
    """These utterances in minibatches of near-equal size, 64 at most, in which the classes take turns."""
    test = test_utterances(frames, examples)
    number = -(-len(test.labels) // MINIBATCH)
    return list(zip(test.features.tensor_split(number), test.labels.tensor_split(number), strict=True))


def direction_in(network: nn.Module, state: State, part: str, number: int) -> State:
    """A random direction of unit norm, the same for all networks of a shape: alpha is a distance between weights.

    In the part "filters" each filter of the direction has the norm of the state's: there alpha is a share of it.
    """
    if part != FILTERS:
        return slices.random_direction(landscape.parameters_of(network, part), seeded(number))
    noise = slices.random_direction(network.named_parameters(), seeded(number))
    return landscape.filter_normalised(noise, state)


def place_along(number: int, radius: float) -> float:
    """A random place within the radius of a line's middle, one for each direction."""
    return float(np.random.default_rng(number).uniform(-radius, radius))


def as_series(lines: Mapping[Any, tuple[np.ndarray, np.ndarray]], names: list[str]) -> pd.Series:
    """Alphas and losses of lines, one after the other; the index is each line's key, by these names, and alpha."""
    series = {key: pd.Series(losses, alphas) for key, (alphas, losses) in lines.items()}
    return pd.concat(series, names=[*names, "alpha"]).rename("nll")


def over_directions(lines: pd.Series, values: Callable[[np.ndarray, np.ndarray], dict[str, float]]) -> pd.DataFrame:
    """The mean over directions of what ``values(alphas, losses)`` returns of each line; NaN counts as no direction."""
    names = [name for name in lines.index.names if name != "alpha"]
    found = {
        key: values(line.index.get_level_values("alpha").to_numpy(), line.to_numpy())
        for key, line in lines.groupby(names, sort=False)
    }
    table = pd.DataFrame(found.values(), index=pd.MultiIndex.from_tuples(found, names=names))
    return table.groupby([name for name in names if name != "direction"], sort=False).mean()
