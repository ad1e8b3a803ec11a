"""Log-mel filterbank features: a waveform becomes frames of `num_mel_bins` values, 100 frames a second."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64, Shaped
from torch import Tensor
from torchaudio.compliance import kaldi
from tqdm import tqdm

from lib.datasets import PARTS, Speech
from lib.downloads import written_aside

FRAME_LENGTH_MS = 25
FRAME_SHIFT_MS = 10

# Utterances that share one call of `fbank`: most of the time of a call for one utterance is its overhead.
BATCH = 16


@dataclass(frozen=True, eq=False)
class Frames:
    """Features of a set: standardised, every utterance of the same number of frames, zeros after a shorter one."""

    features: Float32[Tensor, "utterance time mel"]
    labels: Int64[Tensor, " utterance"]
    parts: Shaped[np.ndarray, " utterance"]
    class_names: tuple[str, ...]
    fingerprint: str

    def part(self, name: str) -> "Frames":
        """The utterances of one part: "train", "validation" or "test"."""
        if name not in PARTS:
            raise ValueError(f"No part is called {name!r}; the parts are {', '.join(PARTS)}.")
        chosen = np.flatnonzero(self.parts == name)
        return replace(self, features=self.features[chosen], labels=self.labels[chosen], parts=self.parts[chosen])


def extract(
    speech: Speech,
    cache: str | Path,
    *,
    num_mel_bins: int = 40,
    frames: int = 100,
    sample_rate: int | None = None,
    workers: int | None = None,
) -> Frames:
    """Compute a set's features, or map them from `cache` if they are there for the same data and settings.

    Log-mel filterbanks of 25 ms frames every 10 ms (`torchaudio.compliance.kaldi.fbank` without dither),
    standardised for each mel bin with mean and standard deviation of the training part's frames. A longer
    utterance keeps its middle `frames`; a shorter one is followed by zeros, the mean of the training part.

    `sample_rate` in Hz is what `fbank` is told; None tells it the files' own. Telling it 16000 whatever the files
    have is what the earlier baseline did (Bittar & Garner, 2022).

    Raises:
        ValueError: if a setting is out of range, or an utterance is shorter than one frame or does not decode.
    """
    limits = {"num_mel_bins": (num_mel_bins, 4), "frames": (frames, 1), "sample_rate": (sample_rate, 1_000)}
    for setting, (value, least) in limits.items():
        if value is not None and value < least:
            raise ValueError(f"`{setting}` is {value}; it has to be at least {least}.")
    fingerprint = speech.fingerprint()
    settings = {
        "data": fingerprint,
        "parts": blake2b(" ".join(speech.parts).encode(), digest_size=16).hexdigest(),
        "sample_rate": sample_rate or speech.sample_rate,
        "num_mel_bins": num_mel_bins,
        "frames": frames,
        "frame_length_ms": FRAME_LENGTH_MS,
        "frame_shift_ms": FRAME_SHIFT_MS,
    }
    key = blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()
    cache = Path(cache)
    features_path, settings_path = (cache / f"{speech.name}-{key}.npy", cache / f"{speech.name}-{key}.json")
    # The settings are written last, so where they stand the features are whole.
    if not settings_path.is_file():
        with written_aside(features_path) as aside:
            compute(speech, aside, num_mel_bins, frames, settings["sample_rate"], workers)
        with written_aside(settings_path) as aside:
            aside.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    shape = (len(speech), frames, num_mel_bins)
    try:
        features = np.load(features_path, mmap_mode="c")
    except (OSError, ValueError) as error:
        raise ValueError(f"{features_path} cannot be read ({error}); delete {settings_path} and run again.") from error
    if features.shape != shape or features.dtype != np.float32:
        raise ValueError(f"{features_path} does not hold features of shape {shape}; delete it and {settings_path}.")
    return Frames(
        features=torch.from_numpy(features),
        labels=torch.from_numpy(speech.labels),
        parts=speech.parts,
        class_names=speech.class_names,
        fingerprint=fingerprint,
    )


def compute(speech: Speech, path: Path, num_mel_bins: int, frames: int, sample_rate: int, workers: int | None) -> None:
    """Write the standardised features of a set to `path`, a batch of utterances in memory at a time."""
    shape = (len(speech), frames, num_mel_bins)
    features = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)

    def write(batch: range) -> list[int]:
        lengths = []
        for index, log_mel in zip(batch, filterbanks(speech, batch, num_mel_bins, sample_rate), strict=True):
            skipped = max(0, len(log_mel) - frames) // 2
            lengths.append(min(len(log_mel), frames))
            features[index, : lengths[-1]] = log_mel[skipped : skipped + frames]
        return lengths

    batches = [range(first, min(first + BATCH, len(speech))) for first in range(0, len(speech), BATCH)]
    lengths = []
    # The setting is each thread's own: threads that share the work leave none over for more inside an operation.
    executor = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        with tqdm(total=len(speech), desc=f"features of {speech.name}", unit="utterance") as progress:
            for written in executor.map(write, batches):
                lengths += written
                progress.update(len(written))
    finally:
        executor.shutdown(cancel_futures=True)

    total, squares, count = np.zeros(num_mel_bins), np.zeros(num_mel_bins), 0
    for index in np.flatnonzero(speech.parts == "train"):
        utterance = features[index, : lengths[index]].astype(np.float64)
        total += utterance.sum(axis=0)
        squares += (utterance**2).sum(axis=0)
        count += len(utterance)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    deviation[deviation < 1e-4] = 1  # a bin that does not vary, up to the rounding of its values
    for index, length in enumerate(lengths):
        features[index, :length] = (features[index, :length] - mean) / deviation
    features.flush()


def filterbanks(
    speech: Speech, batch: range, num_mel_bins: int, sample_rate: int
) -> list[Float32[np.ndarray, "time mel"]]:
    """Log-mel filterbanks of some utterances, from one call of `fbank`.

    A frame depends on its own samples alone, so the utterances are joined, each beginning where a frame begins,
    and the frames that lie inside one utterance are those of the utterance by itself.
    """
    length, shift = (sample_rate * FRAME_LENGTH_MS // 1000, sample_rate * FRAME_SHIFT_MS // 1000)
    joined, places, first = [], [], 0
    for index in batch:
        waveform, _ = speech.audio(index)
        if len(waveform) < length:
            raise ValueError(
                f"{speech.root / speech.paths[index]} has {len(waveform)} samples, fewer than one frame of "
                f"{FRAME_LENGTH_MS} ms ({length}); take it out of the set or restore it."
            )
        places.append(slice(first, first + 1 + (len(waveform) - length) // shift))
        joined.append(np.pad(waveform, (0, -len(waveform) % shift)))
        first += len(joined[-1]) // shift
    log_mel = kaldi.fbank(
        torch.from_numpy(np.concatenate(joined))[None],
        num_mel_bins=num_mel_bins,
        frame_length=FRAME_LENGTH_MS,
        frame_shift=FRAME_SHIFT_MS,
        sample_frequency=sample_rate,
        dither=0.0,
    ).numpy()
    return [log_mel[place] for place in places]
