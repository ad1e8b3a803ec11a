"""What is published where: addresses, checksums and sizes."""

from typing import NamedTuple


class Source(NamedTuple):
    """Where an archive comes from and how to know it.

    `folders` are web folders with the same archive, tried in turn. `checksum` is "<algorithm>:<digest>", or the
    name of the publisher's list of MD5 sums in the same folder. `mark` is a file or folder at the top of the set's
    own layout that is in this archive; `space` a bound on what the archive and its files take on the disk, in bytes.
    """

    folders: tuple[str, ...]
    remote_name: str
    archive: str
    checksum: str
    mark: str
    space: int


HEIDELBERG = ("https://zenkelab.org/datasets/", "https://compneuro.net/datasets/")

# Sets that come in one archive.
SOURCES = {
    "hd": Source(
        folders=HEIDELBERG,
        remote_name="hd_audio.tar.gz",
        archive="hd_audio.tar.gz",
        checksum="md5sums.txt",
        mark="train_filenames.txt",
        space=4_000_000_000,  # 10,420 utterances of at most 2 s would take 2 GB uncompressed
    ),
    "sc": Source(
        folders=("https://storage.googleapis.com/download.tensorflow.org/data/",),
        remote_name="speech_commands_v0.02.tar.gz",
        archive="speech_commands_v0.02.tar.gz",
        checksum="sha256:af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
        mark="validation_list.txt",
        space=6_500_000_000,
    ),
    "fsdd": Source(
        folders=("https://github.com/Jakobovski/free-spoken-digit-dataset/archive/",),
        remote_name="v1.0.9.tar.gz",
        archive="free-spoken-digit-dataset-1.0.9.tar.gz",
        checksum="sha256:8bc44cde129d505cbbb6b365c09f80c663f2aa77578afc634e6141a2f87100c0",
        mark="recordings",
        space=60_000_000,
    ),
}

# Sets whose parts are compressed files: their MD5 sums, and how many bytes a part takes, compressed and whole.
SPIKE_FILES = {
    "shd": {
        "shd_train.h5.gz": ("d47c9825dee33347913e8ce0f2be08b0", 1_500_000_000),
        "shd_test.h5.gz": ("3062a80ec0c5719404d5b02e166543b1", 400_000_000),
    },
    "ssc": {
        "ssc_train.h5.zip": ("d102be95e7144fcc0553d1f45ba94170", 8_000_000_000),
        "ssc_valid.h5.zip": ("b4eee3516a4a90dd0c71a6ac23a8ae43", 1_100_000_000),
        "ssc_test.h5.zip": ("a35ff1e9cffdd02a20eb850c17c37748", 2_200_000_000),
    },
}


def sources_of(name: str) -> list[Source]:
    """The archives that make a set; ValueError if nobody publishes it."""
    if name in SOURCES:
        return [SOURCES[name]]
    if name not in SPIKE_FILES:
        known = ", ".join((*SOURCES, *SPIKE_FILES))
        raise ValueError(f"No set called {name!r} can be downloaded; those that can are {known}.")
    return [
        Source(
            folders=HEIDELBERG,
            remote_name=file_name,
            archive=file_name,
            checksum=f"md5:{md5}",
            mark=file_name.rpartition(".")[0],
            space=space,
        )
        for file_name, (md5, space) in SPIKE_FILES[name].items()
    ]
