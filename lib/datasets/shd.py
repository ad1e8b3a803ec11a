"""Spiking Heidelberg Digits (Cramer et al., 2022): HD's recordings as spikes of a model of the cochlea.

Layout: ``shd_train.h5`` and ``shd_test.h5``, as ``lib.datasets.spikes`` describes them.
"""

from pathlib import Path

from lib.datasets import hd
from lib.datasets.dataset import DataSet
from lib.datasets.downloads import Source
from lib.datasets.spikes import SpikeSettings, SpikeTrains, gather
from lib.datasets.utterances import check_counts

FILES = {"train": "shd_train.h5", "test": "shd_test.h5"}
PUBLISHED_COUNTS = {"train": 8_156, "test": 2_264}


def read(name: str, split: str, root: Path) -> SpikeTrains:
    """Read both files."""
    trains = gather(name, split, root, FILES, hd.CLASS_NAMES)
    check_counts(name, split, trains.parts.tolist(), PUBLISHED_COUNTS)
    return trains


SHD = DataSet(
    name="shd",
    settings=SpikeSettings,
    splits=("official",),
    default_split="official",
    mark=FILES["train"],
    read=read,
    validation_speakers=hd.VALIDATION_SPEAKERS,
    groups=hd.LANGUAGES,
    sources=(
        Source(hd.FOLDERS, "shd_train.h5.gz", "md5:d47c9825dee33347913e8ce0f2be08b0", FILES["train"], 1_500_000_000),
        Source(hd.FOLDERS, "shd_test.h5.gz", "md5:3062a80ec0c5719404d5b02e166543b1", FILES["test"], 400_000_000),
    ),
    licence="CC BY 4.0",
    citation=hd.CITATION,
)
