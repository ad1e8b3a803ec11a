"""Sets of spike trains: an utterance is a row of an HDF5 file, a part of the set is a file.

Layout of a file: ``spikes/times`` (for each utterance a list of seconds) and ``spikes/units`` (the channel of each
spike), ``labels``, ``extra/speaker``, and ``extra/keys``, the name of each label.
"""

import mmap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Float64, Int64, Shaped, UInt8
from numpy.lib.format import write_array_header_1_0
from tqdm import tqdm

from lib.datasets.utterances import DataSettings, Utterances, check_counts
from lib.features import Frames
from lib.files import WITHOUT_LOCKS, or_damaged
from lib.settings import real, setting

UNITS = 700  # channels of the cochlea
LONGEST = 60.0  # seconds: no recording of a word, but one that is told in milliseconds or samples
BATCH = 64  # utterances that are read together

LEAST = 2**24  # bytes: of so few no list is too long, however small the file
QUICK = 2**30  # bytes that are looked through in a second; larger files are when they are read as a whole
HEAP = b"GCOL\1\0\0\0"  # begins what HDF5 keeps the lists' contents in
RESTORE = "restore this file"

Spikes = tuple[Float64[np.ndarray, " spike"], Int64[np.ndarray, " spike"]]


@dataclass(frozen=True)
class SpikeSettings(DataSettings):
    """What a set of spike trains can be asked for: ``num_frames`` bins of ``bin_ms`` milliseconds."""

    title = "a set of spike trains"
    bin_ms: float = setting(14.0, real(0, 1e6, above=True))


@dataclass(frozen=True, eq=False)
class SpikeTrains(Utterances):
    """Utterances as spikes of 700 channels; ``rows`` are their places in their files."""

    rows: Int64[np.ndarray, " utterance"]

    def spikes(self, index: int) -> Spikes:
        """Return the times in seconds, and the channels (0 to 699) that fired at them.

        Raises ``ValueError`` if the file is damaged, or what it holds of the utterance are not spikes.
        """
        return self.read([index])[0]

    def read(self, indices: Iterable[int]) -> list[Spikes]:
        """Return the spikes of several: neighbours in a file are read twenty times as fast together as singly."""
        indices, found = list(indices), {}
        for path in dict.fromkeys(self.paths[index] for index in indices):
            own = [index for index in indices if self.paths[index] == path]
            first, last = self.rows[own].min(), self.rows[own].max()
            with or_damaged(self.root / path, RESTORE), opened(self.root / path) as file:
                times, units = (column(file, name)[first : last + 1] for name in ("spikes/times", "spikes/units"))
                for index in own:
                    row = int(self.rows[index])
                    found[index] = checked(times[row - first], units[row - first], row)
        return [found[index] for index in indices]

    def fingerprint(self, cache: Path | None = None) -> str:
        """BLAKE2b (32 hexadecimal digits) of the files', and of which of their rows these utterances are."""
        places = "".join(f"\n{path} {row}" for path, row in zip(self.paths, self.rows, strict=True))
        return blake2b((super().fingerprint(cache) + places).encode(), digest_size=16).hexdigest()

    def frames(self, settings: SpikeSettings, cache: Path, snr: float | None = None) -> Frames:
        """Return how often each channel fires in each bin, counted once.

        Spikes after the last bin are dropped; at the defaults it ends at 1.4 s, the time that Bittar and Garner (2022)
        gave the published sets, and theirs are the 100 bins, too. A bin holds the number of its spikes, as in their
        work and in most since: whether there was one alone would lose the rate of a channel that fires faster than
        the bins follow each other. Counts are bytes, a quarter of what floats would take: 7.4 GB for the whole of SSC.
        """
        if snr is not None:
            raise ValueError(f"{self.name!r} holds spikes and no waveforms: leave snr out")
        number, bin_ms, places = settings.num_frames, float(settings.bin_ms), self.by_part()

        def write(path: Path) -> None:
            for name in dict.fromkeys(self.paths):
                check_heaps(self.root / name)
            progress = tqdm(total=len(places), desc=f"features of {self.name}", unit="utterance")
            with path.open("wb") as file, progress:
                header = {"descr": "|u1", "fortran_order": False, "shape": (len(places), number, UNITS)}
                write_array_header_1_0(file, header)
                for first in range(0, len(places), BATCH):
                    batch = self.read(places[first : first + BATCH])
                    file.writelines(counts(spikes, number, bin_ms) for spikes in batch)
                    progress.update(len(batch))

        described = {"frames": number, "bin_ms": bin_ms, "units": UNITS}
        return self.cached(np.array(places), Path(cache), described, (number, UNITS), np.uint8, write)


def checked(times: Shaped[np.ndarray, " _"], units: Shaped[np.ndarray, " _"], row: int) -> Spikes:
    """Return the spikes of the utterance in a row of its file, whatever their types there; ValueError if not spikes."""
    if len(times) != len(units):
        raise ValueError(f"utterance {row} has {len(times):,} times of spikes and {len(units):,} channels")
    times = times.astype(np.float64)
    if not (np.isfinite(times) & (times >= 0)).all():
        raise ValueError(f"utterance {row} has a spike at a time that is not a number of seconds from 0")
    if (times > LONGEST).any():
        raise ValueError(f"utterance {row} has a spike at {times.max():g} s, and no word is so long: times are seconds")
    if units.dtype.kind not in "iu":
        raise ValueError(f"the channels of utterance {row} are not whole numbers")
    wrong = units[(units < 0) | (units >= UNITS)]
    if len(wrong):
        raise ValueError(f"utterance {row} has a spike on channel {wrong[0]}, and the channels are 0 to {UNITS - 1}")
    return times, units.astype(np.int64)


def counts(spikes: Spikes, num_frames: int, bin_ms: float) -> UInt8[np.ndarray, "{num_frames} 700"]:
    """Count the spikes of each channel in each bin; a spike on a boundary belongs to the later bin.

    Raises ``ValueError`` for more than 255 in one bin.
    """
    times, units = spikes
    # In this order the operands are exact for times of 16 or 32 bits and whole milliseconds, and so is the floor.
    bins = np.floor(times * 1000 / bin_ms)
    within = bins < num_frames
    found = np.bincount(bins[within].astype(np.int64) * UNITS + units[within], minlength=num_frames * UNITS)
    if found.max() > 255:
        raise ValueError(f"a channel has {found.max()} spikes in {bin_ms:g} ms, and 255 fit: give a smaller bin_ms")
    return found.astype(np.uint8).reshape(num_frames, UNITS)


def opened(path: Path) -> h5py.File:
    """Open a file to read, without locks where its disk knows none. Raises ``BlockingIOError`` while it is written."""
    try:
        return h5py.File(path)
    except BlockingIOError as error:
        said = f"{path} is open for writing in another process; close it there, or wait until that has ended"
        raise BlockingIOError(error.errno, said) from error
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        return h5py.File(path, locking=False)


def column(file: h5py.File, name: str) -> h5py.Dataset:
    """Return a list that the file holds. Raises ``ValueError`` for what is none, lies elsewhere or claims too much."""
    found = file[name]
    if not isinstance(found, h5py.Dataset) or found.ndim != 1:
        raise ValueError(f"its {name!r} is no list")
    if found.file != file or found.is_virtual or found.external:
        raise ValueError(f"its {name!r} lies in another file, which is not read")
    claimed = max(found.size, *(found.chunks or (0,))) * found.dtype.itemsize
    if claimed > max(file.id.get_filesize(), LEAST):
        raise ValueError(f"its {name!r} claims {claimed:,} bytes, more than the file has")
    return found


def check_heaps(path: Path) -> None:
    """Raise ``ValueError`` for a file that HDF5 would read for ever: one of its heaps' objects has no size.

    HDF5 reads what was zeroed by a disk's failure so (HDFGroup/hdf5, issue 1707). A disk that cannot map is not asked.
    """

    def number(first: int, bytes: int) -> int:
        return int.from_bytes(content[first : first + bytes], "little")

    with or_damaged(path, RESTORE), path.open("rb") as file:
        try:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError:
            return
        start = content.find(HEAP)
        while start >= 0:
            place, end = start + 16, min(start + number(start + 8, 8), len(content))
            while place + 16 <= end:
                index, size = number(place, 2), number(place + 8, 8)
                if not index and not size:
                    raise ValueError(f"its heap at byte {start:,} is broken")
                place += 16 + -(-size // 8) * 8 if index else end
            start = content.find(HEAP, start + 1)


def gather(
    name: str,
    split: str,
    root: Path,
    files: Mapping[str, str],
    class_names: tuple[str, ...],
    published: Mapping[str, int],
) -> SpikeTrains:
    """Return the utterances of a set whose parts are these files, in the files' order.

    ``class_names`` are what the labels mean in a file that does not say, and ``published`` are its parts' sizes. Raises
    ``ValueError`` if a file is damaged or lacks something, its lists differ in length, or the files in their labels.
    """
    paths, labels, speakers, parts, rows, names = [], [], [], [], [], {}
    for part, path in files.items():
        if (root / path).is_file() and (root / path).stat().st_size < QUICK:
            check_heaps(root / path)
        with or_damaged(root / path, RESTORE), opened(root / path) as file:
            keys = ("labels", "extra/speaker", "spikes/times", "spikes/units")
            lengths = {key: len(column(file, key)) for key in keys}
            if len(set(lengths.values())) > 1:
                raise ValueError(f"its lists differ in length: {lengths}")
            names[path] = tuple(column(file, "extra/keys").asstr("utf-8")[:]) if "extra/keys" in file else class_names
            own = file["labels"][:]
            wrong = own[~np.isin(own, np.arange(len(names[path])))]
            if len(wrong):
                raise ValueError(f"it has a label {wrong[0]}, and the labels are 0 to {len(names[path]) - 1}")
            labels.append(own.astype(np.int64))
            speakers += [speaker_name(speaker) for speaker in file["extra/speaker"][:]]
        paths += [path] * len(own)
        parts += [part] * len(own)
        rows.append(np.arange(len(own)))
    if len(set(names.values())) > 1:
        raise ValueError(f"the files of {name!r} in {root} differ in what their labels mean: restore them")
    check_counts(name, split, parts, published)
    arrays = np.concatenate(labels), np.array(speakers, dtype=str), np.array(parts, dtype=str), np.concatenate(rows)
    return SpikeTrains(name, split, root, next(iter(names.values())), tuple(paths), *arrays)


def speaker_name(speaker: object) -> str:
    """Name a speaker as HD's and SC's file names do: numbers of two digits, or a string as it is.

    Raises ``ValueError`` for what is neither.
    """
    if isinstance(speaker, bytes):
        return speaker.decode()
    if not isinstance(speaker, int | np.integer) or speaker < 0:
        raise ValueError(f"it has a speaker {speaker}, and speakers are names or whole numbers from 0")
    return f"{speaker:02d}"
