"""What measures share: whom they are told of, what they predict and the minibatches that losses are taken on."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lib import posteriors, slices
from lib.experiment import Run
from lib.features import Frames

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
