"""Sets of recordings: an utterance is an audio file of its own."""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import soundfile
import torch
from jaxtyping import Float32
from torch import Tensor

from lib import augmentation, features
from lib.datasets.layout import shown
from lib.datasets.utterances import LOST, DataSettings, Utterance, Utterances
from lib.features import Frames
from lib.files import explaining_os_errors
from lib.settings import optional, setting, whole

NUM_MEL_BINS = 40
USUAL = 0.01, 0.99  # between these quantiles of the training part a recording's length and level are usual
LOUDEST = 2.0  # twice full scale: what is mixed or compressed in floats overshoots it, by less than this
LONGEST = 3_600  # seconds: a damaged header may promise what no memory holds
RATES = (1_000, 200_000)  # Hz, of recordings and of the filterbank

# The order of a number's bytes and the name of the sound in the headers of WAV and AIFF files; and from where on its
# size says nothing, since whoever wrote a stream did not know it.
SOUND_CHUNKS = {b"RIFF": ("little", b"data"), b"RIFX": ("big", b"data"), b"FORM": ("big", b"SSND")}
UNKNOWN_SIZE = 2**31 - 2**16

Change = Callable[[Float32[np.ndarray, " samples"]], Float32[np.ndarray, " samples"]]
Row = tuple[int, Change | None]  # the place of an utterance in its set, and what is done to its waveform


@dataclass(frozen=True)
class SpeechSettings(DataSettings):
    """What a set of recordings can be asked for.

    ``filterbank_rate`` in Hz is what the filterbank takes the sample rate for (None: for what it is); ``augmented`` is
    how many changed copies of the training part join it.
    """

    title = "a set of recordings"
    filterbank_rate: int | None = setting(None, optional(whole(*RATES)))
    augmented: int = setting(0, whole(0, 1_000))


@dataclass(frozen=True, eq=False)
class Speech(Utterances):
    """Utterances as recordings of one sample rate, in Hz."""

    sample_rate: int

    preparation: ClassVar[Mapping[str, Any]] = {}  # what is done to the files' sound before all else

    def audio(self, index: int) -> tuple[Float32[np.ndarray, " samples"], int]:
        """Return the waveform, of at most ``LOUDEST``, and its sample rate in Hz.

        Raises ``ValueError`` as ``read_sound``, and if the file is not mono or has another rate than the set.
        """
        path = self.root / self.paths[index]
        sound, sample_rate = read_sound(path)
        if sample_rate != self.sample_rate:
            raise ValueError(
                f"{shown(path)} has a sample rate of {sample_rate} Hz where the set {self.name!r} has "
                f"{self.sample_rate} Hz: restore this file"
            )
        if sound.shape[1] > 1:
            raise ValueError(f"{shown(path)} has {sound.shape[1]} channels where the set is mono: restore this file")
        return sound[:, 0], sample_rate

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
        described |= self.preparation
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
        """Read an utterance and change it. Raises ``ValueError`` if it makes no frame at ``rate``, or no numbers."""
        samples, _ = self.audio(place)
        path, least = shown(self.root / self.paths[place]), rate * features.FRAME_LENGTH_MS // 1000
        if len(samples) < least:
            raise ValueError(
                f"{path} has {len(samples)} samples, fewer than one frame of {features.FRAME_LENGTH_MS} ms ({least}): "
                "take it out of the set or restore it"
            )
        if change is not None and not np.isfinite(samples := change(samples)).all():
            raise ValueError(f"{path} is no longer finite numbers once it is changed: take it out of the set")
        return torch.from_numpy(samples)

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


def read_sound(path: Path) -> tuple[Float32[np.ndarray, "samples channels"], int]:
    """Return what a file holds, of at most ``LOUDEST``, and its sample rate in Hz.

    Raises ``ValueError`` if it does not decode, is cut short, or holds numbers that are no sound; ``OSError`` if it
    cannot be opened.
    """
    with explaining_os_errors(path.parent, LOST):
        cut = is_cut(path)
    with decoding(path), soundfile.SoundFile(path) as file:
        sample_rate = file.samplerate
        if file.frames > LONGEST * sample_rate:
            raise ValueError(
                f"{shown(path)} is longer than {LONGEST:,} s, as its header has it: restore or cut this file"
            )
        sound = file.read(dtype="float32", always_2d=True)
    if cut:
        raise ValueError(f"{shown(path)} is cut short, its header promises more than it has: restore this file")
    if not np.isfinite(sound).all():
        raise ValueError(f"{shown(path)} holds samples that are not finite numbers: restore this file")
    if (loudest := np.abs(sound).max(initial=0)) > LOUDEST:
        raise ValueError(
            f"{shown(path)} holds samples up to {loudest:.3g} where sound lies from -1 to 1: divide them by their full "
            "scale (32768 for numbers of 16 bits) or restore this file"
        )
    return sound, sample_rate


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Raise ``ValueError`` that names ``path`` where the block finds that it does not decode."""
    try:
        yield
    except (soundfile.LibsndfileError, TypeError) as error:  # the latter for names that end in .raw
        raise ValueError(f"{shown(path)} does not decode as audio ({shown(str(error))}): restore this file") from error


def is_cut(path: Path) -> bool:
    """Whether a WAV or AIFF file ends before the sound that its header promises: libsndfile reads what is there."""
    with path.open("rb") as file:
        order, wanted = SOUND_CHUNKS.get(file.read(12)[:4], (None, None))
        while order and len(head := file.read(8)) == 8:
            size = int.from_bytes(head[4:], order)
            if head[:4] == wanted:
                return size < UNKNOWN_SIZE and file.tell() + size > path.stat().st_size
            file.seek(size + size % 2, os.SEEK_CUR)
    return False


def assemble(
    name: str,
    split: str,
    root: Path,
    sample_rate: int | None,
    class_names: tuple[str, ...],
    found: list[Utterance],
    remarks: tuple[str, ...] = (),
    kind: type[Speech] = Speech,
) -> Speech:
    """Make a set of the recordings that were found.

    ``sample_rate`` is what the set is known to have; None takes the first file's own. Every file is held to it when it
    is read. Raises ``ValueError`` if there is no recording, or the first does not decode or has no rate of speech.
    """
    if not found:
        raise ValueError(f"{root} holds no recordings of {name!r}: restore its files and lists")
    if sample_rate is None:
        sample_rate = look_at(root / found[0].path).samplerate
    paths, labels, speakers, parts = zip(*found, strict=True)
    arrays = np.array(labels, dtype=np.int64), np.array(speakers), np.array(parts)
    return kind(name, split, root, class_names, paths, *arrays, sample_rate, remarks=remarks)


def look_at(path: Path) -> Any:
    """Return what a file's header says: its ``samplerate`` in Hz, ``channels``, ``frames`` (samples of each).

    Raises ``ValueError`` if it does not decode, or has a rate that speech is not recorded at.
    """
    with decoding(path):
        header = soundfile.info(path)
    low, high = RATES
    if not low <= header.samplerate <= high:
        raise ValueError(
            f"{shown(path)} has a sample rate of {header.samplerate} Hz, and speech is recorded at {low:,} to "
            f"{high:,} Hz: restore this file"
        )
    return header
