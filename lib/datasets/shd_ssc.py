"""Spiking Heidelberg Digits and Spiking Speech Commands (Cramer et al., 2022): HD and SC as a model cochlea hears them.

Layout: ``shd_train.h5`` and ``shd_test.h5``; ``ssc_train.h5``, ``ssc_valid.h5`` and ``ssc_test.h5``; each as
``lib.datasets.spikes`` describes it.
"""

from functools import partial

from lib.datasets import hd, sc
from lib.datasets.dataset import DataSet
from lib.datasets.downloads import Source
from lib.datasets.spikes import SpikeSettings, gather

SHD_FILES = {"train": "shd_train.h5", "test": "shd_test.h5"}
SHD_COUNTS = {"train": 8_156, "test": 2_264}
SSC_FILES = {"train": "ssc_train.h5", "validation": "ssc_valid.h5", "test": "ssc_test.h5"}

SHARED = {
    "settings": SpikeSettings,
    "splits": ("official",),
    "default_split": "official",
    "licence": "CC BY 4.0",
    "citation": hd.CITATION,
}

SHD = DataSet(
    name="shd",
    mark=SHD_FILES["train"],
    read=partial(gather, files=SHD_FILES, class_names=hd.CLASS_NAMES, published=SHD_COUNTS),
    validation_speakers=hd.VALIDATION_SPEAKERS,
    groups=hd.LANGUAGES,
    sources=(
        Source(hd.FOLDERS, "shd_train.h5.gz", "md5:d47c9825dee33347913e8ce0f2be08b0", "shd_train.h5", 1_500_000_000),
        Source(hd.FOLDERS, "shd_test.h5.gz", "md5:3062a80ec0c5719404d5b02e166543b1", "shd_test.h5", 400_000_000),
    ),
    **SHARED,
)

SSC = DataSet(
    name="ssc",
    mark=SSC_FILES["train"],
    read=partial(gather, files=SSC_FILES, class_names=sc.WORDS, published=sc.PUBLISHED_COUNTS["70-10-20"]),
    sources=(
        Source(hd.FOLDERS, "ssc_train.h5.zip", "md5:d102be95e7144fcc0553d1f45ba94170", "ssc_train.h5", 8_000_000_000),
        Source(hd.FOLDERS, "ssc_valid.h5.zip", "md5:b4eee3516a4a90dd0c71a6ac23a8ae43", "ssc_valid.h5", 1_100_000_000),
        Source(hd.FOLDERS, "ssc_test.h5.zip", "md5:a35ff1e9cffdd02a20eb850c17c37748", "ssc_test.h5", 2_200_000_000),
    ),
    **SHARED,
)
