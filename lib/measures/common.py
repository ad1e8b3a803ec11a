"""What measures share: whom they are told of, what they predict, what losses are taken on and where tables are kept."""

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from lib import posteriors, slices
from lib.experiment import Run
from lib.features import Frames
from lib.files import atomic_write, or_damaged

Choices = Mapping[str, Any]


def predicted(run: Run, frames: Frames, features: Tensor, samples: int) -> Tensor:
    """Probabilities [samples, utterances, classes], of no more samples than there are different ones."""
    generator = torch.Generator().manual_seed(run.record["settings"]["seed"])
    samples = posteriors.samples_needed(run.posterior, samples)
    return posteriors.predict(run.network(frames), run.posterior, features, samples, generator)


def test_batches(frames: Frames, examples: int) -> slices.Batches:
    """The first utterances of the test part in minibatches of 64."""
    test = frames.part("test")
    return list(zip(test.features[:examples].split(64), test.labels[:examples].split(64), strict=True))


def kept(run: Run, name: str, settings: Mapping[str, Any], compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table that ``compute`` makes, kept in the run's folder under the measure's name and its settings'."""
    digest = blake2b(repr(sorted(settings.items())).encode(), digest_size=4).hexdigest()
    path = run.folder / f"{name}-{digest}.csv"
    if not path.exists():
        with atomic_write(path) as aside:
            compute().to_csv(aside, index=False)
    with or_damaged(path, "delete it and run again"):
        return pd.read_csv(path)
