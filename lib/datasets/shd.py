"""Spiking Heidelberg Digits (Cramer et al., 2022): HD's recordings as spikes of a model of the cochlea.

Layout: `shd_train.h5` and `shd_test.h5`, as `lib.datasets.spikes` describes them.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from lib.datasets import hd
from lib.datasets.spikes import SpikeTrains, gather
from lib.datasets.utterances import check_counts, check_trainable

SPLITS = ("official",)
FILES = {"train": "shd_train.h5", "test": "shd_test.h5"}
PUBLISHED_COUNTS = {"train": 8_156, "test": 2_264}


def load(name: str, split: str, root: Path, validation: str) -> SpikeTrains:
    """Read both files; `validation` is as in HD, whose speakers these are."""
    trains = gather(name, split, root, FILES, hd.CLASS_NAMES)
    counts = Counter(trains.parts.tolist())
    check_counts(name, split, {part: counts[part] for part in FILES}, PUBLISHED_COUNTS)
    if validation == "speaker":
        held_out = (trains.parts == "train") & np.isin(trains.speakers, hd.VALIDATION_SPEAKERS)
        trains = replace(trains, parts=np.where(held_out, "validation", trains.parts))
    else:
        trains = gather(name, split, root, FILES | {"validation": FILES["test"]}, hd.CLASS_NAMES)
    check_trainable(trains)
    return trains
