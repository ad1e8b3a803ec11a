"""eSpeak NG as a function: a word and a voice become samples."""

import ctypes
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import espeakng_loader
import numpy as np
from jaxtyping import Int16

ESPEAK_SAMPLE_RATE = 22_050


@contextmanager
def espeak(folder: Path) -> Iterator[Callable[..., Int16[np.ndarray, " samples"]]]:
    """A function that says a word through eSpeak NG: ``say(word, voice, rate, pitch, pitch_range)`` at 22,050 Hz.

    eSpeak NG keeps its state (the phase of a voice's flutter, random numbers) in the library's global variables,
    and starting it again does not reset them. So each call loads a copy of the library of its own: what it says
    depends on the words said through this one since, and on nothing before. The copy lies in ``folder`` meanwhile.
    """
    with TemporaryDirectory(dir=folder, prefix=".espeak-", ignore_cleanup_errors=True) as own:
        library = ctypes.CDLL(shutil.copy(espeakng_loader.get_library_path(), own))
        chunks = []

        @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        def receive(samples: int | None, number: int, events: int) -> int:
            if samples:
                chunks.append(ctypes.string_at(samples, 2 * number))
            return 0

        # 2: synchronous, audio through the callback; 0x8000: return an error, do not exit the process.
        data = espeakng_loader.get_data_path().encode()
        if library.espeak_Initialize(2, 0, data, 0x8000) != ESPEAK_SAMPLE_RATE:
            raise RuntimeError("eSpeak NG does not start: install the package espeakng-loader again")
        library.espeak_SetSynthCallback(receive)
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))

        def say(word: str, voice: str, rate: float, pitch: float, pitch_range: float) -> Int16[np.ndarray, " samples"]:
            chunks.clear()
            text = word.encode()
            errors = [library.espeak_SetVoiceByName(voice.encode())]
            for parameter, value in ((1, rate), (3, pitch), (4, pitch_range)):
                errors.append(library.espeak_SetParameter(parameter, round(value), 0))
            errors.append(library.espeak_Synth(text, len(text) + 1, 0, 0, 0, 1, None, None))
            if any(errors) or not chunks:
                raise RuntimeError(f"eSpeak NG does not say {word!r} with the voice {voice!r} (errors {errors})")
            return np.frombuffer(b"".join(chunks), dtype=np.int16)

        yield say
        library.espeak_Terminate()
