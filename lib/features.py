"""From recordings to features: log-mel frames of a whole set, computed once and mapped from the disk ever after."""

import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, Int64, Real, Shaped, UInt8
from numpy.lib.format import write_array_header_1_0
from torch import Tensor
from torch.nn.functional import pad
from torchaudio.compliance import kaldi
from tqdm import tqdm

from lib.files import atomic_write, check_space, exclusive, or_damaged

PARTS = ("train", "validation", "test")

FRAME_LENGTH_MS = 25
FRAME_SHIFT_MS = 10
PREEMPHASIS = 0.97
BATCH = 16  # utterances that a thread holds in memory

# A row of the features: the place of its utterance in the set, and what is done to the waveform before it is analysed.
Row = tuple[int, Callable[[Float32[np.ndarray, " samples"]], Float32[np.ndarray, " samples"]] | None]


@runtime_checkable
class Labelled(Protocol):
    """Utterances in parts; ``fingerprint`` is a digest of their files."""

    name: str
    class_names: tuple[str, ...]
    labels: Int64[np.ndarray, " utterance"]
    parts: Shaped[np.ndarray, " utterance"]

    def fingerprint(self, cache: Path) -> str: ...


@runtime_checkable
class Recordings(Labelled, Protocol):
    """Utterances that are audio files, such as ``lib.datasets.speech.Speech``; ``audio`` gives waveform and rate."""

    root: Path
    paths: tuple[str, ...]
    sample_rate: int

    def audio(self, index: int) -> tuple[Float32[np.ndarray, " samples"], int]: ...


@dataclass(frozen=True, eq=False)
class Frames:
    """Features of a set, every utterance of the same number of frames: log-mel energies, or numbers of spikes.

    The utterances of a part stand together, so that a part is a view and not a copy.
    """

    features: Float32[Tensor, "utterance time feature"] | UInt8[Tensor, "utterance time feature"]
    labels: Int64[Tensor, " utterance"]
    parts: Shaped[np.ndarray, " utterance"]
    class_names: tuple[str, ...]
    fingerprint: str

    def part(self, name: str) -> "Frames":
        """Return the utterances of one part: "train", "validation" or "test"."""
        if name not in PARTS:
            raise ValueError(f"no part is called {name!r}: the parts are {', '.join(PARTS)}")
        chosen = np.flatnonzero(self.parts == name)
        rows = slice(chosen[0], chosen[-1] + 1) if len(chosen) else slice(0)
        if len(self.parts[rows]) != len(chosen):
            raise ValueError(f"the utterances of the part {name!r} do not stand together: order them by their parts")
        return replace(self, features=self.features[rows], labels=self.labels[rows], parts=self.parts[rows])


@runtime_checkable
class Examples(Protocol):
    """Features and labels to train on, such as ``Frames``; they may be memory-mapped."""

    features: Real[Tensor, "utterance time feature"]
    labels: Int64[Tensor, " utterance"]


def extract(
    speech: Recordings,
    cache: str | Path,
    *,
    num_mel_bins: int = 40,
    num_frames: int = 100,
    sample_rate: int | None = None,
    rows: Sequence[Row] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Frames:
    """Compute a set's features, or map them from ``cache`` if they are there for the same data and settings.

    Log-mel filterbanks of 25 ms frames every 10 ms are standardised for each mel bin with the mean and the standard
    deviation over the training part's frames. A longer utterance keeps its middle ``num_frames``; a shorter one is
    followed by zeros, the mean of the training part. The training part comes first, then validation and test. The
    filterbank is told that ``sample_rate`` in Hz is the files' own (None: what is); telling it 16000 whatever the files
    have is what the earlier baseline did (Bittar and Garner, 2022).

    ``rows``, in the order of the parts, replaces one row for each utterance: an utterance may come several times, its
    waveform changed. Changed rows do not enter mean and deviation. ``changes`` describes them in the cache's key.

    Raises ``ValueError`` for a setting out of range and for an utterance that is shorter than one frame or does not
    decode, ``OSError`` if the disk has not room enough.
    """
    sample_rate = speech.sample_rate if sample_rate is None else sample_rate
    if num_mel_bins < 4 or num_frames < 1 or sample_rate < 1_000:
        raise ValueError("num_mel_bins, num_frames and sample_rate must be at least 4, 1 and 1000")
    rows = rows or [(place, None) for place in by_part(speech.parts)]
    settings = {"sample_rate": sample_rate, "num_mel_bins": num_mel_bins, "frames": num_frames}
    settings |= {"frame_length_ms": FRAME_LENGTH_MS, "frame_shift_ms": FRAME_SHIFT_MS} | dict(changes or {})
    write = functools.partial(compute, speech, rows, (num_frames, num_mel_bins), sample_rate)
    places = np.array([place for place, _ in rows])
    return cached(speech, places, Path(cache), settings, (num_frames, num_mel_bins), np.float32, write)


def by_part(parts: Shaped[np.ndarray, " utterance"]) -> list[int]:
    """Return the places of the training part's utterances, then of validation and test, each in their order."""
    return np.concatenate([np.flatnonzero(parts == part) for part in PARTS]).tolist()


def compute(speech: Recordings, rows: Sequence[Row], shape: tuple[int, int], sample_rate: int, path: Path) -> None:
    """Write the standardised features of ``rows``, each [time, mel] of ``shape``; a thread holds a batch in memory.

    The file is not memory-mapped meanwhile, since writing to a map where the disk is full ends the process.
    """
    num_frames, num_mel_bins = shape
    measured = np.array([change is None and speech.parts[place] == "train" for place, change in rows])

    def log_mels(batch: range) -> tuple[np.ndarray, list[int], np.ndarray]:
        """Return a batch's frames with zeros after them, their numbers, and the sums of x and x^2 that are measured."""
        block = np.zeros((len(batch), *shape), dtype=np.float32)
        lengths, sums = [], np.zeros((2, num_mel_bins))
        # First all are read: reading and computing in turn, each would drive the other from the processor's caches.
        waveforms = [waveform(speech, *rows[index], sample_rate) for index in batch]
        for row, index, samples in zip(block, batch, waveforms, strict=True):
            log_mel = filterbank(samples, num_mel_bins, sample_rate).numpy()
            middle = log_mel[max(0, len(log_mel) - num_frames) // 2 :][:num_frames]
            row[: len(middle)] = middle
            lengths.append(len(middle))
            if measured[index]:
                sums += middle.sum(axis=0, dtype=np.float64), np.square(middle, dtype=np.float64).sum(axis=0)
        return block, lengths, sums

    with path.open("w+b") as file:
        write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (len(rows), *shape)})
        start, lengths, sums = file.tell(), [], 0
        for block, own_lengths, own_sums in in_threads(log_mels, len(rows), f"features of {speech.name}"):
            file.write(block)
            lengths += own_lengths
            sums = sums + own_sums
        lengths = np.array(lengths)
        mean, square = sums / lengths[measured].sum()
        deviation = np.sqrt(np.maximum(square - mean**2, 0))
        deviation[deviation < 1e-4] = 1  # a bin that does not vary, up to the rounding of its values
        for batch in batches(len(rows)):
            place = start + 4 * batch.start * math.prod(shape)
            file.seek(place)
            block = np.frombuffer(file.read(4 * len(batch) * math.prod(shape)), "<f4").reshape(-1, *shape)
            block = (block - mean) / deviation
            block[np.arange(num_frames) >= lengths[batch.start : batch.stop, None]] = 0
            file.seek(place)
            file.write(block.astype("<f4"))


def batches(number: int) -> list[range]:
    return [range(first, min(first + BATCH, number)) for first in range(0, number, BATCH)]


def in_threads(work: Callable[[range], Any], number: int, description: str) -> Iterator[Any]:
    """Yield what ``work`` returns for each batch, in order."""
    # The setting is each thread's own: threads that share the work leave none over for more inside an operation.
    executor = ThreadPoolExecutor(initializer=torch.set_num_threads, initargs=(1,))
    try:
        with tqdm(total=number, desc=description, unit="utterance") as progress:
            for batch, returned in zip(batches(number), executor.map(work, batches(number)), strict=True):
                yield returned
                progress.update(len(batch))
    finally:
        executor.shutdown(cancel_futures=True)


def waveform(speech: Recordings, place: int, change: Callable | None, sample_rate: int) -> Float32[Tensor, " samples"]:
    """Read an utterance and change it. Raises ``ValueError`` if it makes no frame at ``sample_rate``."""
    samples, _ = speech.audio(place)
    least = sample_rate * FRAME_LENGTH_MS // 1000
    if len(samples) < least:
        raise ValueError(
            f"{speech.root / speech.paths[place]} has {len(samples)} samples, fewer than one frame of "
            f"{FRAME_LENGTH_MS} ms ({least}): take it out of the set or restore it"
        )
    return torch.from_numpy(samples if change is None else change(samples))


def filterbank(
    waveform: Float32[Tensor, " samples"], num_mel_bins: int, sample_rate: int
) -> Float32[Tensor, "time {num_mel_bins}"]:
    """Log-mel filterbank, as ``torchaudio.compliance.kaldi.fbank`` without dither computes it, in a third of its time.

    A frame x loses its mean, is pre-emphasised and windowed: w[n] (x[n] - m - a (x[n - 1] - m)). The window begins with
    zero, so the whole waveform can be pre-emphasised at once and (1 - a) m be taken from its frames.
    """
    length, shift = (sample_rate * FRAME_LENGTH_MS // 1000, sample_rate * FRAME_SHIFT_MS // 1000)
    window, banks = window_and_banks(num_mel_bins, sample_rate)
    waveform = waveform - waveform.mean()  # the frames lose it anyway, and here its rounding goes with it
    emphasised = torch.zeros_like(waveform)
    torch.sub(waveform[1:], waveform[:-1], alpha=PREEMPHASIS, out=emphasised[1:])
    mean = waveform.unfold(0, length, shift).mean(dim=1, keepdim=True)
    framed = (emphasised.unfold(0, length, shift) - (1 - PREEMPHASIS) * mean).mul_(window)
    spectrum = torch.view_as_real(torch.fft.rfft(framed, n=len(banks) - 2))
    power = spectrum.flatten(1).square_() @ banks
    return power.clamp_(min=torch.finfo(torch.float32).eps).log_()


@functools.cache
def window_and_banks(
    num_mel_bins: int, sample_rate: int
) -> tuple[Float32[Tensor, " samples"], Float32[Tensor, "parts {num_mel_bins}"]]:
    """Kaldi's window and weights of the mel bins; each weight twice, for the real and the imaginary part of a line."""
    length = sample_rate * FRAME_LENGTH_MS // 1000
    padded = 2 ** (length - 1).bit_length()
    banks, _ = kaldi.get_mel_banks(num_mel_bins, padded, sample_rate, 20.0, 0.0, 100.0, -500.0, 1.0)
    weights = pad(banks, (0, 1)).T.repeat_interleave(2, dim=0)
    return torch.hann_window(length, periodic=False).pow(0.85), weights


def cached(
    utterances: Labelled,
    places: Int64[np.ndarray, " row"],
    cache: Path,
    settings: dict[str, Any],
    shape: tuple[int, int],
    dtype: type[np.generic],
    write: Callable[[Path], None],
) -> Frames:
    """Map the features of the utterances at ``places``, which ``write`` writes to a path where the cache lacks them.

    ``settings`` are all that determines them beside the data; ``shape`` and ``dtype`` are those of one utterance's
    features, [time, feature]. Raises ``ValueError`` if what lies in the cache is damaged.
    """
    parts = blake2b(" ".join(utterances.parts).encode(), digest_size=16).hexdigest()
    settings = {"data": utterances.fingerprint(cache), "parts": parts, "order": PARTS} | settings
    key = blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()
    path, shape = cache / f"{utterances.name}-{key}.npy", (len(places), *shape)
    # The settings are written last, so where they stand the features are whole.
    if not (described := path.with_suffix(".json")).is_file():
        with exclusive(path.with_suffix("")):
            if not described.is_file():
                check_space(f"features of {utterances.name}", np.dtype(dtype).itemsize * math.prod(shape), cache)
                with atomic_write(path) as aside:
                    write(aside)
                with atomic_write(described) as aside:
                    aside.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    with or_damaged(path, f"delete {described} and run again"):
        features = np.load(path, mmap_mode="c")
        if features.shape != shape or features.dtype != dtype:
            raise ValueError(f"it does not hold features of shape {shape}")
    labels, parts = torch.from_numpy(utterances.labels[places]), utterances.parts[places]
    return Frames(torch.from_numpy(features), labels, parts, utterances.class_names, settings["data"])
