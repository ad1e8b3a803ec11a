"""Sets of recordings: an utterance is an audio file of its own."""

import math
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from jaxtyping import Float32
from torch import Tensor

from lib import augmentation, features
from lib.datasets.utterances import DataSettings, Utterance, Utterances
from lib.features import Frames
from lib.settings import optional, setting, whole

NUM_MEL_BINS = 40
USUAL = 0.01, 0.99  # between these quantiles of the training part a recording's length and level are usual

Change = Callable[[Float32[np.ndarray, " samples"]], Float32[np.ndarray, " samples"]]
Row = tuple[int, Change | None]  # the place of an utterance in its set, and what is done to its waveform


@dataclass(frozen=True)
class SpeechSettings(DataSettings):
    """What a set of recordings can be asked for.

    ``filterbank_rate`` in Hz is what the filterbank takes the sample rate for (None: for what it is); ``augmented`` is
    how many changed copies of the training part join it.
    """

    title = "a set of recordings"
    filterbank_rate: int | None = setting(None, optional(whole(1_000, 200_000)))
    augmented: int = setting(0, whole(0, 1_000))


@dataclass(frozen=True, eq=False)
class Speech(Utterances):
    """Utterances as recordings of one sample rate, in Hz."""

    sample_rate: int

    def audio(self, index: int) -> tuple[Float32[np.ndarray, " samples"], int]:
        """Return the waveform in [-1, 1] and its sample rate in Hz.

        Raises ``ValueError`` if the file does not decode, is cut short, is not mono, or has another rate than the set.
        """
        path = self.root / self.paths[index]
        with decoding(path):
            waveform, sample_rate = soundfile.read(path, dtype="float32")
        if len(waveform) < samples_promised(path):
            raise ValueError(f"{path} is cut short, its header promises more samples than it has: restore this file")
        if sample_rate != self.sample_rate:
            raise ValueError(
                f"{path} has a sample rate of {sample_rate} Hz where the set {self.name!r} has {self.sample_rate} Hz: "
                "restore this file"
            )
        if waveform.ndim != 1:
            raise ValueError(f"{path} has {waveform.shape[1]} channels where the set is mono: restore this file")
        if not np.isfinite(waveform).all():
            raise ValueError(f"{path} holds samples that are not finite numbers: restore this file")
        return waveform, sample_rate

    def frames(self, settings: SpeechSettings, cache: Path, snr: float | None = None) -> Frames:
        """Return the log-mel frames, computed once.

        Changed copies follow the training part as part of it. With ``snr`` there is white noise in the waveforms of
        the test part, so many dB below the speech, and at minus infinity noise alone. Neither enters the statistics:
        all other rows are what they are without.
        """
        if snr is not None and math.isnan(snr):
            raise ValueError(f"snr = {snr} does not fit: it must be a number of dB, or minus infinity for noise alone")
        rate, rows = settings.filterbank_rate or self.sample_rate, [*self.variants(settings.augmented, snr)]
        described = {"sample_rate": rate, "num_mel_bins": NUM_MEL_BINS, "frames": settings.num_frames}
        described |= {"frame_length_ms": features.FRAME_LENGTH_MS, "frame_shift_ms": features.FRAME_SHIFT_MS}
        if settings.augmented:
            described |= {"augmented": settings.augmented, "augmentation": augmentation.SETTINGS}
        if snr is not None:
            described |= {"snr": str(float(snr))}  # JSON has no infinity
        measured = np.array([change is None and self.parts[place] == "train" for place, change in rows])
        shape = {"num_frames": settings.num_frames, "num_mel_bins": NUM_MEL_BINS}
        places, heard = np.array([place for place, _ in rows]), np.zeros((2, len(rows)))

        def waveform(row: int) -> Float32[Tensor, " samples"]:
            samples = self.waveform(*rows[row], rate)
            heard[:, row] = len(samples) / self.sample_rate, level(samples)
            return samples

        def write(path: Path) -> dict[str, Any]:
            description = f"features of {self.name}"
            mean, deviation = features.write_log_mels(
                path, waveform, measured, sample_rate=rate, **shape, description=description
            )
            seconds, levels = np.quantile(heard[:, measured], USUAL, axis=1).T.tolist()
            return described | {
                "recorded_at": self.sample_rate, "mean": mean.tolist(), "deviation": deviation.tolist(),
                "seconds": seconds, "level_db": levels,
            }  # fmt: skip

        return self.cached(places, cache, described, tuple(shape.values()), np.float32, write)

    def waveform(self, place: int, change: Change | None, rate: int) -> Float32[Tensor, " samples"]:
        """Read an utterance and change it. Raises ``ValueError`` if it makes no frame at ``rate``."""
        samples, _ = self.audio(place)
        least = rate * features.FRAME_LENGTH_MS // 1000
        if len(samples) < least:
            raise ValueError(
                f"{self.root / self.paths[place]} has {len(samples)} samples, fewer than one frame of "
                f"{features.FRAME_LENGTH_MS} ms ({least}): take it out of the set or restore it"
            )
        return torch.from_numpy(samples if change is None else change(samples))

    def variants(self, copies: int, snr: float | None) -> Iterator[Row]:
        """Yield the place of each utterance and what is done to its waveform, in the order of the parts."""
        training = np.flatnonzero(self.parts == "train").tolist()
        for copy in range(1 + copies):
            for index in training:
                options = {"sample_rate": self.sample_rate, "utterance": self.paths[index], "copy": copy}
                yield index, partial(augmentation.augmented, **options) if copy else None
        for index in self.by_part()[len(training) :]:
            noisy = snr is not None and self.parts[index] == "test"
            yield index, partial(augmentation.in_noise, snr=snr, utterance=self.paths[index]) if noisy else None


def level(samples: Float32[Tensor, " samples"]) -> float:
    """The root mean square in dB of full scale, from -120 up."""
    return 20 * math.log10(max(float(samples.square().mean().sqrt()), 1e-6))


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Raise ``ValueError`` that names ``path`` where the block finds that it does not decode."""
    try:
        yield
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} does not decode as audio ({error}): restore this file") from error


def samples_promised(path: Path) -> int:
    """How many samples the header of a PCM WAV file speaks of; 0 for another file. libsndfile reads what is there."""
    try:
        with wave.open(str(path)) as file:
            return file.getnframes()
    except wave.Error:
        return 0


def assemble(
    name: str, split: str, root: Path, sample_rate: int | None, class_names: tuple[str, ...], found: list[Utterance]
) -> Speech:
    """Make a set of the recordings that were found.

    ``sample_rate`` is what the set is known to have; None takes the first file's own. Every file is held to it when it
    is read. Raises ``ValueError`` if there is no recording, or the first does not decode.
    """
    if not found:
        raise ValueError(f"{root} holds no recordings of {name!r}: restore its files and lists")
    if sample_rate is None:
        with decoding(root / found[0].path):
            sample_rate = soundfile.info(root / found[0].path).samplerate
    paths, labels, speakers, parts = zip(*found, strict=True)
    arrays = np.array(labels, dtype=np.int64), np.array(speakers), np.array(parts)
    return Speech(name, split, root, class_names, paths, *arrays, sample_rate)
