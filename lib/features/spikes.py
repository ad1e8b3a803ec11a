"""Numbers of spikes: an utterance's spikes become frames of 700 values, how often each channel fired in each bin."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from lib.datasets import SpikeTrains
from lib.datasets.spikes import UNITS, Spikes
from lib.features.frames import Frames, by_part, cached, data_settings

# Utterances that are read together.
BATCH = 64


def count_spikes(trains: SpikeTrains, cache: str | Path, *, frames: int = 100, bin_ms: float = 14.0) -> Frames:
    """Count a set's spikes in `frames` bins of `bin_ms` milliseconds, or map the counts from `cache`.

    Spikes after the last bin are dropped; at the defaults it ends at 1.4 s, the time that Bittar and Garner (2022)
    gave the published sets, and theirs are the 100 bins, too. A bin holds the number of its spikes, as in their work
    and in most since: whether there was one alone would lose the rate of a channel that fires faster than the bins
    follow each other. Counts are bytes, a quarter of what floats would take: 7.4 GB for the whole of SSC.

    Raises:
        ValueError: if a setting is out of range, a file is damaged, or a channel fires too often for a byte.
        OSError: if the disk has not room enough.
    """
    if frames < 1 or not 0 < bin_ms < np.inf:
        raise ValueError(f"{frames} bins of {bin_ms} ms hold no spikes; `frames` is 1 or more and `bin_ms` above 0.")
    cache = Path(cache)
    settings = data_settings(trains, cache) | {"frames": frames, "bin_ms": float(bin_ms), "units": UNITS}
    trains = by_part(trains)

    def write(path: Path) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(trains), frames, UNITS)}
        progress = tqdm(total=len(trains), desc=f"features of {trains.name}", unit="utterance")
        with path.open("wb") as file, progress:
            np.lib.format.write_array_header_1_0(file, header)
            for first in range(0, len(trains), BATCH):
                batch = trains.read(range(first, min(first + BATCH, len(trains))))
                file.writelines(counts(spikes, frames, bin_ms) for spikes in batch)
                progress.update(len(batch))

    return cached(trains, cache, settings, (frames, UNITS), np.uint8, write)


def counts(spikes: Spikes, frames: int, bin_ms: float) -> UInt8[np.ndarray, "{frames} 700"]:
    """How many spikes each channel has in each bin; a spike on a boundary belongs to the later bin.

    Raises ValueError for more than 255 in one bin.
    """
    times, units = spikes
    # In this order the operands are exact for times of 16 or 32 bits and whole milliseconds, and so is the floor.
    bins = np.floor(times * 1000 / bin_ms)
    kept = bins < frames
    found = np.bincount(bins[kept].astype(np.int64) * UNITS + units[kept], minlength=frames * UNITS)
    if found.max() > 255:
        raise ValueError(f"A channel has {found.max()} spikes in {bin_ms:g} ms, and 255 fit; give a smaller `bin_ms`.")
    return found.astype(np.uint8).reshape(frames, UNITS)
