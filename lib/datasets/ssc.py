"""Spiking Speech Commands (Cramer et al., 2022): SC's recordings as spikes of a model of the cochlea.

Layout: ``ssc_train.h5``, ``ssc_valid.h5`` and ``ssc_test.h5``, as ``lib.datasets.spikes`` describes them.
"""

from pathlib import Path

from lib.datasets import hd, sc
from lib.datasets.dataset import DataSet
from lib.datasets.downloads import Source
from lib.datasets.spikes import SpikeSettings, SpikeTrains, gather
from lib.datasets.utterances import check_counts

FILES = {"train": "ssc_train.h5", "validation": "ssc_valid.h5", "test": "ssc_test.h5"}
PUBLISHED_COUNTS = sc.PUBLISHED_COUNTS["70-10-20"]


def read(name: str, split: str, root: Path) -> SpikeTrains:
    """Read the three files."""
    trains = gather(name, split, root, FILES, sc.WORDS)
    check_counts(name, split, trains.parts.tolist(), PUBLISHED_COUNTS)
    return trains


SSC = DataSet(
    name="ssc",
    settings=SpikeSettings,
    splits=("official",),
    default_split="official",
    mark=FILES["train"],
    read=read,
    sources=(
        Source(hd.FOLDERS, "ssc_train.h5.zip", "md5:d102be95e7144fcc0553d1f45ba94170", "ssc_train.h5", 8_000_000_000),
        Source(hd.FOLDERS, "ssc_valid.h5.zip", "md5:b4eee3516a4a90dd0c71a6ac23a8ae43", "ssc_valid.h5", 1_100_000_000),
        Source(hd.FOLDERS, "ssc_test.h5.zip", "md5:a35ff1e9cffdd02a20eb850c17c37748", "ssc_test.h5", 2_200_000_000),
    ),
    licence="CC BY 4.0",
    citation=hd.CITATION,
)
