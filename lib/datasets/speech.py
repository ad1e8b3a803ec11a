"""Sets of recordings: an utterance is a file of its own."""

import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float32

from lib.datasets.utterances import Utterance, Utterances, check_trainable


@dataclass(frozen=True, eq=False)
class Speech(Utterances):
    """Utterances as recordings of one sample rate, in Hz."""

    sample_rate: int

    def audio(self, index: int) -> tuple[Float32[np.ndarray, " samples"], int]:
        """Waveform in [-1, 1] and its sample rate in Hz.

        Raises:
            ValueError: if the file does not decode, is cut short, is not mono, or has another rate than the set.
        """
        path = self.root / self.paths[index]
        try:
            waveform, sample_rate = soundfile.read(path, dtype="float32")
        except soundfile.LibsndfileError as error:
            raise ValueError(f"{path} does not decode as audio ({error}); restore this file.") from error
        if len(waveform) < samples_promised(path):
            raise ValueError(f"{path} is cut short: its header promises more samples than it has; restore this file.")
        if sample_rate != self.sample_rate:
            raise ValueError(
                f"{path} has a sample rate of {sample_rate} Hz where the set {self.name!r} has "
                f"{self.sample_rate} Hz; restore this file."
            )
        if waveform.ndim != 1:
            raise ValueError(f"{path} has {waveform.shape[1]} channels; this set is mono: restore this file.")
        if not np.isfinite(waveform).all():
            raise ValueError(f"{path} holds samples that are not finite numbers; restore this file.")
        return waveform, sample_rate


def samples_promised(path: Path) -> int:
    """How many samples the header of a PCM WAV file speaks of; 0 for another file. libsndfile reads what is there."""
    try:
        with wave.open(str(path)) as file:
            return file.getnframes()
    except wave.Error:
        return 0


def assemble(
    name: str,
    split: str,
    root: Path,
    sample_rate: int | None,
    class_names: tuple[str, ...],
    utterances: list[Utterance],
) -> Speech:
    """Build a `Speech` that can be trained on, or say why the files do not make one.

    `sample_rate` is what the set is known to have; None takes the first file's own. Every file is held to it
    when it is read.

    Raises:
        ValueError: if a part is empty, a class has no training utterance, or the first file does not decode.
    """
    found = Utterances(
        name=name,
        split=split,
        root=root,
        class_names=class_names,
        paths=tuple(utterance.path for utterance in utterances),
        labels=np.array([utterance.label for utterance in utterances], dtype=np.int64),
        speakers=np.array([utterance.speaker for utterance in utterances], dtype=str),
        parts=np.array([utterance.part for utterance in utterances], dtype=str),
    )
    check_trainable(found)
    if sample_rate is None:
        path = root / found.paths[0]
        try:
            sample_rate = soundfile.info(path).samplerate
        except soundfile.LibsndfileError as error:
            raise ValueError(f"{path} does not decode as audio ({error}); restore this file.") from error
    return Speech(**vars(found), sample_rate=sample_rate)
