"""Synthetic spikes in SHD's layout: what a simple cochlea hears of the recordings of synthetic-hd."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from lib import synthesis
from lib.datasets import hd, shd_ssc, synthetic_hd
from lib.datasets.dataset import synthetic
from lib.datasets.spikes import UNITS
from lib.synthesis import cochlea
from lib.synthesis.cochlea import Spikes
from lib.synthesis.sound import SETTINGS, Recording, Samples


def write_spikes(name: str, plan: synthesis.Plan, root: Path, seed: int) -> None:
    """Write what the cochlea hears, a file for each list."""
    recordings, lists = plan
    root.mkdir()
    heard = {}

    def hear(recording: Recording, samples: Samples) -> None:
        heard[recording.path] = cochlea.listen(samples, recording.sample_rate, UNITS)

    synthesis.say_each(name, recordings, root.parent, seed, hear)
    write_files(root, heard, lists)


def write_files(root: Path, spikes: Mapping[str, Spikes], lists: Mapping[str, Sequence[str]]) -> None:
    """Write SHD's two files of what was heard, by the name of HD's recording and in the order of HD's two lists."""
    for part, file_name in shd_ssc.SHD_FILES.items():
        utterances = [hd.parse(name, part) for name in lists[hd.LISTS[part]]]
        heard = [spikes[utterance.path] for utterance in utterances]
        # Without times of change and in one version of the format, so that the bytes are the same each time.
        with h5py.File(root / file_name, "w", libver=("v110", "v110")) as file:
            create = partial(file.create_dataset, track_times=False)
            for key, which, dtype in (("times", 0, np.float16), ("units", 1, np.uint16)):
                ragged = np.empty(len(heard), dtype=object)
                ragged[:] = [one[which] for one in heard]
                create(f"spikes/{key}", data=ragged, dtype=h5py.vlen_dtype(dtype))
            create("labels", data=np.array([utterance.label for utterance in utterances], dtype=np.uint16))
            create(
                "extra/speaker", data=np.array([int(utterance.speaker) for utterance in utterances], dtype=np.uint16)
            )
            create("extra/keys", data=list(hd.CLASS_NAMES), dtype=h5py.string_dtype())


SYNTHETIC_SHD = synthetic(
    shd_ssc.SHD,
    "synthetic-shd",
    1_440,
    settings={"voices": synthetic_hd.VOICES} | SETTINGS | cochlea.SETTINGS,
    plan=partial(synthetic_hd.plan, published=shd_ssc.SHD_COUNTS),
    write=write_spikes,
)
