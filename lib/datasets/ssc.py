"""Spiking Speech Commands (Cramer et al., 2022): SC's recordings as spikes of a model of the cochlea.

Layout: `ssc_train.h5`, `ssc_valid.h5` and `ssc_test.h5`, as `lib.datasets.spikes` describes them.
"""

from collections import Counter
from pathlib import Path

from lib.datasets import sc
from lib.datasets.spikes import SpikeTrains, gather
from lib.datasets.utterances import check_counts, check_trainable

SPLITS = ("official",)
FILES = {"train": "ssc_train.h5", "validation": "ssc_valid.h5", "test": "ssc_test.h5"}
PUBLISHED_COUNTS = sc.PUBLISHED_COUNTS["70-10-20"]


def load(name: str, split: str, root: Path) -> SpikeTrains:
    """Read the three files."""
    trains = gather(name, split, root, FILES, sc.WORDS)
    counts = Counter(trains.parts.tolist())
    check_counts(name, split, {part: counts[part] for part in FILES}, PUBLISHED_COUNTS)
    check_trainable(trains)
    return trains
