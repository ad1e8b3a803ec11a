"""From recordings to features: the log-mel frames of a set's utterances, and what a network is given of them."""

import functools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, Real, Shaped, UInt8
from numpy.lib.format import write_array_header_1_0
from torch import Tensor
from torch.nn.functional import pad
from torchaudio.compliance import kaldi
from tqdm import tqdm

PARTS = ("train", "validation", "test")

FRAME_LENGTH_MS = 25
FRAME_SHIFT_MS = 10
PREEMPHASIS = 0.97
BATCH = 16  # utterances that a thread holds in memory


@dataclass(frozen=True, eq=False)
class Frames:
    """Features of a set, every utterance of the same number of frames: log-mel energies, or numbers of spikes.

    The utterances of a part stand together, so that a part is a view and not a copy.
    """

    features: Float32[Tensor, "utterance time feature"] | UInt8[Tensor, "utterance time feature"]
    labels: Int64[Tensor, " utterance"]
    parts: Shaped[np.ndarray, " utterance"]
    speakers: Shaped[np.ndarray, " utterance"]
    class_names: tuple[str, ...]
    fingerprint: str
    heard: dict[str, Any] | None = None  # what another recording is prepared with, and held against

    def part(self, name: str) -> "Frames":
        """Return the utterances of one part: "train", "validation" or "test"."""
        if name not in PARTS:
            raise ValueError(f"no part is called {name!r}: the parts are {', '.join(PARTS)}")
        chosen = np.flatnonzero(self.parts == name)
        rows = slice(chosen[0], chosen[-1] + 1) if len(chosen) else slice(0)
        if len(self.parts[rows]) != len(chosen):
            raise ValueError(f"the utterances of the part {name!r} do not stand together: order them by their parts")
        of_all = {"features": self.features, "labels": self.labels, "parts": self.parts, "speakers": self.speakers}
        return replace(self, **{name: of_utterances[rows] for name, of_utterances in of_all.items()})


@runtime_checkable
class Examples(Protocol):
    """Features and labels to train on, such as ``Frames``; they may be memory-mapped."""

    features: Real[Tensor, "utterance time feature"]
    labels: Int64[Tensor, " utterance"]


def write_log_mels(
    path: Path,
    waveform: Callable[[int], Float32[Tensor, " samples"]],
    measured: Bool[np.ndarray, " row"],
    *,
    sample_rate: int,
    num_frames: int,
    num_mel_bins: int = 40,
    description: str = "features",
) -> tuple[np.ndarray, np.ndarray]:
    """Write standardised log-mel filterbanks [row, time, mel], of 25 ms frames every 10 ms, as a file of numpy's.

    ``waveform(row)`` reads an utterance; a longer one keeps its middle ``num_frames``, a shorter one is followed by
    zeros. Each mel bin is standardised with mean and standard deviation over the frames of the ``measured`` rows, so
    that zero is their mean. A thread holds a batch in memory; the file is not memory-mapped meanwhile, since writing to
    a map where the disk is full ends the process.
    """
    shape = num_frames, num_mel_bins

    def log_mels(batch: range) -> tuple[np.ndarray, list[int], np.ndarray]:
        """A batch's frames with zeros after them, their numbers, and the sums of x and x^2 that are measured."""
        block = np.zeros((len(batch), *shape), dtype=np.float32)
        lengths, sums = [], np.zeros((2, num_mel_bins))
        # First all are read: reading and computing in turn, each would drive the other from the processor's caches.
        waveforms = [waveform(index) for index in batch]
        for row, index, samples in zip(block, batch, waveforms, strict=True):
            middle = middle_frames(samples, num_frames, num_mel_bins, sample_rate)
            row[: len(middle)] = middle
            lengths.append(len(middle))
            if measured[index]:
                sums += middle.sum(axis=0, dtype=np.float64), np.square(middle, dtype=np.float64).sum(axis=0)
        return block, lengths, sums

    with path.open("w+b") as file:
        write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (len(measured), *shape)})
        start, lengths, sums = file.tell(), [], 0
        for block, own_lengths, own_sums in in_threads(log_mels, len(measured), description):
            file.write(block)
            lengths += own_lengths
            sums = sums + own_sums
        lengths = np.array(lengths)
        mean, square = sums / lengths[measured].sum()
        deviation = np.sqrt(np.maximum(square - mean**2, 0))
        deviation[deviation < 1e-4] = 1  # a bin that does not vary, up to the rounding of its values
        for batch in batches(len(measured)):
            place = start + 4 * batch.start * math.prod(shape)
            file.seek(place)
            block = np.frombuffer(file.read(4 * len(batch) * math.prod(shape)), "<f4").reshape(-1, *shape)
            block = (block - mean) / deviation
            block[np.arange(num_frames) >= lengths[batch.start : batch.stop, None]] = 0
            file.seek(place)
            file.write(block.astype("<f4"))
    return mean, deviation


def middle_frames(
    waveform: Float32[Tensor, " samples"], num_frames: int, num_mel_bins: int, sample_rate: int
) -> Float32[np.ndarray, "time {num_mel_bins}"]:
    """Log-mel frames of an utterance, of a longer one the middle ``num_frames``."""
    log_mel = filterbank(waveform, num_mel_bins, sample_rate).numpy()
    return log_mel[max(0, len(log_mel) - num_frames) // 2 :][:num_frames]


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
