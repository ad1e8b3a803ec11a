"""Log-mel filterbank features: a waveform becomes frames of `num_mel_bins` values, 100 frames a second."""

import functools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor
from torch.nn.functional import pad
from torchaudio.compliance import kaldi
from tqdm import tqdm

from lib import augmentation
from lib.datasets import Speech
from lib.features.frames import Examples, Frames, by_part, cached, data_settings
from lib.features.spikes import count_spikes

__all__ = ["Examples", "Frames", "count_spikes", "extract"]

FRAME_LENGTH_MS = 25
FRAME_SHIFT_MS = 10
PREEMPHASIS = 0.97

# Utterances that a thread holds in memory.
BATCH = 16


def extract(
    speech: Speech,
    cache: str | Path,
    *,
    num_mel_bins: int = 40,
    frames: int = 100,
    sample_rate: int | None = None,
    augmented: int = 0,
    snr: float | None = None,
    workers: int | None = None,
) -> Frames:
    """Compute a set's features, or map them from `cache` if they are there for the same data and settings.

    Log-mel filterbanks of 25 ms frames every 10 ms, standardised for each mel bin with mean and standard deviation of
    the training part's frames. A longer utterance keeps its middle `frames`; a shorter one is followed by zeros, the
    mean of the training part. The training part comes first, then validation and test, each in the order of `speech`.

    `sample_rate` in Hz is what `fbank` is told; None tells it the files' own. Telling it 16000 whatever the files
    have is what the earlier baseline did (Bittar & Garner, 2022).

    So many `augmented` copies of the training part, each changed by chance (`lib.augmentation`), follow it as part of
    it. They do not enter mean and standard deviation: all other rows are what they are without copies.

    With `snr` there is white noise in the waveforms of the test part, so many dB below the speech, and at minus
    infinity noise alone (`lib.augmentation.in_noise`). All other rows are what they are without it.

    Raises:
        ValueError: if a setting is out of range, or an utterance is shorter than one frame or does not decode.
        OSError: if the disk has not room enough.
    """
    limits = {
        "num_mel_bins": (num_mel_bins, 4),
        "frames": (frames, 1),
        "sample_rate": (sample_rate, 1_000),
        "augmented": (augmented, 0),
        "snr": (snr, -math.inf),
    }
    for setting, (value, least) in limits.items():
        if value is not None and not value >= least:  # so that what is not a number is refused, too
            raise ValueError(f"`{setting}` is {value}; it has to be at least {least}.")
    cache = Path(cache)
    settings = data_settings(speech, cache) | {
        "sample_rate": sample_rate or speech.sample_rate,
        "num_mel_bins": num_mel_bins,
        "frames": frames,
        "frame_length_ms": FRAME_LENGTH_MS,
        "frame_shift_ms": FRAME_SHIFT_MS,
    }
    speech = by_part(speech)
    if augmented:
        settings |= {"augmented": augmented, "augmentation": augmentation.SETTINGS}
        rows = np.arange(len(speech))
        training = speech.parts == "train"
        speech = speech.chosen(np.concatenate([np.tile(rows[training], 1 + augmented), rows[~training]]))
    if snr is not None:
        settings |= {"snr": str(float(snr))}  # JSON has no infinity

    def write(path: Path) -> None:
        compute(speech, path, num_mel_bins, frames, settings["sample_rate"], workers, augmented, snr)

    return cached(speech, cache, settings, (frames, num_mel_bins), np.float32, write)


def compute(
    speech: Speech,
    path: Path,
    num_mel_bins: int,
    frames: int,
    sample_rate: int,
    workers: int | None,
    augmented: int = 0,
    snr: float | None = None,
) -> None:
    """Write the standardised features of a set to `path`, with a batch for each thread in memory.

    The training part stands first in `speech`, and so many times more as `augmented` says, for its copies. Written
    through the file, since writing to a memory map where the disk is full ends the process.
    """
    shape = (len(speech), frames, num_mel_bins)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        header = file.tell()
    lengths = np.zeros(len(speech), dtype=np.int64)
    originals = int((speech.parts == "train").sum()) // (1 + augmented)

    def offset(batch: range) -> int:
        return header + 4 * math.prod(shape[1:]) * batch.start

    def write(batch: range, block: Float32[np.ndarray, "utterance time mel"]) -> None:
        with path.open("r+b") as file:
            file.seek(offset(batch))
            file.write(block)

    def heard(index: int) -> Float32[Tensor, " samples"]:
        samples, name = waveform(speech, index, sample_rate), speech.paths[index]
        if speech.parts[index] == "test" and snr is not None:
            return torch.from_numpy(augmentation.in_noise(samples.numpy(), snr, name))
        if index < originals or speech.parts[index] != "train":
            return samples
        return torch.from_numpy(augmentation.augmented(samples.numpy(), speech.sample_rate, name, index // originals))

    def compute_batch(batch: range) -> Float64[np.ndarray, "2 mel"]:
        """Returns the sums over the frames of the training part as it is, and of their squares."""
        block = np.zeros((len(batch), *shape[1:]), dtype=np.float32)
        sums = np.zeros((2, num_mel_bins))
        # First all are read: reading and computing in turn, each would drive the other from the processor's caches.
        waveforms = [heard(index) for index in batch]
        for row, index, samples in zip(block, batch, waveforms, strict=True):
            log_mel = filterbank(samples, num_mel_bins, sample_rate).numpy()
            kept = log_mel[max(0, len(log_mel) - frames) // 2 :][:frames]
            row[: len(kept)], lengths[index] = kept, len(kept)
            if index < originals:
                sums += kept.sum(axis=0, dtype=np.float64), np.square(kept, dtype=np.float64).sum(axis=0)
        write(batch, block)
        return sums

    sums = sum(in_threads(compute_batch, len(speech), workers, f"features of {speech.name}"))
    mean, square = sums / lengths[:originals].sum()
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    deviation[deviation < 1e-4] = 1  # a bin that does not vary, up to the rounding of its values

    def standardise_batch(batch: range) -> None:
        block = np.fromfile(path, "<f4", len(batch) * math.prod(shape[1:]), offset=offset(batch))
        block = (block.reshape(len(batch), *shape[1:]) - mean) / deviation
        block[np.arange(frames) >= lengths[batch, None]] = 0
        write(batch, block.astype(np.float32))

    for _ in in_threads(standardise_batch, len(speech), workers, f"standardising {speech.name}"):
        pass


def in_threads(work: Callable[[range], Any], number: int, workers: int | None, description: str) -> Iterator[Any]:
    """What `work` returns for each batch of so many utterances, in their order, whatever the number of threads."""
    batches = [range(first, min(first + BATCH, number)) for first in range(0, number, BATCH)]
    # The setting is each thread's own: threads that share the work leave none over for more inside an operation.
    executor = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        with tqdm(total=number, desc=description, unit="utterance") as progress:
            for batch, returned in zip(batches, executor.map(work, batches), strict=True):
                yield returned
                progress.update(len(batch))
    finally:
        executor.shutdown(cancel_futures=True)


def waveform(speech: Speech, index: int, sample_rate: int) -> Float32[Tensor, " samples"]:
    """The samples of an utterance, if they make a frame at `sample_rate`."""
    samples, _ = speech.audio(index)
    least = sample_rate * FRAME_LENGTH_MS // 1000
    if len(samples) < least:
        raise ValueError(
            f"{speech.root / speech.paths[index]} has {len(samples)} samples, fewer than one frame of "
            f"{FRAME_LENGTH_MS} ms ({least}); take it out of the set or restore it."
        )
    return torch.from_numpy(samples)


def filterbank(
    waveform: Float32[Tensor, " samples"], num_mel_bins: int, sample_rate: int
) -> Float32[Tensor, "time {num_mel_bins}"]:
    """Log-mel filterbank, as `torchaudio.compliance.kaldi.fbank` without dither computes it, in a third of its time.

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
