"""How a recording comes to sound: eSpeak NG says a word, which has its place and loudness, a microphone and noise."""

import ctypes
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import espeakng_loader
import numpy as np
from jaxtyping import Float, Int16, Shaped

ESPEAK_SAMPLE_RATE = 22_050

FEMALE = ("f1", "f2", "f3", "f4", "f5", "Annie", "belinda", "linda", "aunty")
MALE = ("m1", "m2", "m3", "m4", "m6", "m7", "m8", "Alex", "Gene")
# How hard the sets are. Clean words from a few similar voices are told apart without a mistake, and then accuracy,
# calibration and uncertainty have nothing to show. With these ranges the deterministic network with two layers of
# 128 LIF neurons is right on 90 to 93 % of the test part. The signal-to-noise ratio is the strongest of them;
# next come what sets speakers apart: the microphone, the accents, the voice variants. Whispers, robots and eSpeak
# NG's second synthesiser are left out: among a few dozen speakers such a voice is heard in the test part only, and
# nearly everything it says is misunderstood.
SETTINGS = {
    "accents": ("en-us", "en", "en-gb-x-rp", "en-us-nyc"),
    "snr_db": (13, 33),
    "noise_exponent": (0, 1.5),  # noise power falls as 1 / frequency^exponent: 0 is white noise, 1 pink
    "level_db": (-26, -20),  # root mean square of the word, relative to full scale
    "tilt_db_per_octave": (-2, 2),  # of a speaker's microphone
    "ripple_db": 1,  # standard deviation of each of the waves in its response about that tilt
    "rate_factor": (0.8, 1.25),  # of an utterance, about its speaker's own words per minute
    "pitch_offset": (-10, 10),  # of an utterance, about its speaker's own pitch, of eSpeak NG's 0 to 100
}

Samples = Int16[np.ndarray, " samples"]


class Speaker(NamedTuple):
    """A voice (rate in words per minute, pitch and its range of eSpeak's 0 to 100) and a microphone (in dB)."""

    variant: str
    accent: str
    rate: float
    pitch: float
    pitch_range: float
    tilt: float
    ripple: Float[np.ndarray, "wave 2"]


class Recording(NamedTuple):
    """A file to write: who says what in which accent, at how many samples a second, and in how many (None: all)."""

    path: str
    speaker: Speaker
    accent: str
    word: str
    sample_rate: int
    samples: int | None


@contextmanager
def espeak(folder: Path) -> Iterator[Callable[..., Samples]]:
    """A function that says a word through eSpeak NG: ``say(word, voice, rate, pitch, pitch_range)`` at 22,050 Hz.

    eSpeak NG keeps its state (the phase of a voice's flutter, random numbers) in the library's global variables,
    and starting it again does not reset them. So each call loads a copy of the library of its own: what it says
    depends on the words said through this one since, and on nothing before.
    """
    library, chunks = own_copy(folder), []

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

    def say(word: str, voice: str, rate: float, pitch: float, pitch_range: float) -> Samples:
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


def own_copy(folder: Path) -> ctypes.CDLL:
    """Load a copy of the library from ``folder``, or from the temporary folder where a disk's programs may not be run.

    Once it is loaded the copy is deleted. Raises ``OSError`` where it can be run from neither.
    """
    for place in (folder, None):
        try:
            with TemporaryDirectory(dir=place, prefix=".espeak-", ignore_cleanup_errors=True) as own:
                return ctypes.CDLL(shutil.copy(espeakng_loader.get_library_path(), own))
        except OSError as error:
            if place and error.errno:  # no room: only what does not load has no number
                raise
            reason = error
    raise OSError(
        f"eSpeak NG can be run neither from {folder} nor from the temporary folder ({reason}): set TMPDIR to a folder "
        "of a disk that is mounted without noexec"
    )


def generator(seed: int, identity: str) -> np.random.Generator:
    """Random numbers of one speaker or recording, which no other one's change."""
    return np.random.default_rng([seed, int.from_bytes(blake2b(identity.encode(), digest_size=8).digest())])


def draw_speaker(random: np.random.Generator) -> Speaker:
    """Draw a voice and a microphone."""
    return Speaker(
        variant=str(random.choice(FEMALE if random.random() < 0.5 else MALE)),
        accent=str(random.choice(SETTINGS["accents"])),
        rate=random.uniform(140, 210),
        pitch=random.uniform(30, 70),
        pitch_range=random.uniform(20, 80),
        tilt=random.uniform(*SETTINGS["tilt_db_per_octave"]),
        ripple=random.normal(0, SETTINGS["ripple_db"], size=(4, 2)),
    )


def utter(say: Callable, recording: Recording, random: np.random.Generator) -> Samples:
    """One recording: the word through the speaker's microphone, somewhere between silence, in noise."""

    def drawn(name: str) -> float:
        return random.uniform(*SETTINGS[name])

    speaker, rate = recording.speaker, recording.sample_rate
    spoken = say(
        recording.word,
        f"{recording.accent}+{speaker.variant}",
        rate=speaker.rate * drawn("rate_factor"),
        pitch=speaker.pitch + drawn("pitch_offset"),
        pitch_range=speaker.pitch_range,
    )
    # In a fiftieth of a second both rates have whole numbers of samples, so the spectral lines are the same.
    theirs, ours = ESPEAK_SAMPLE_RATE // 50, rate // 50
    groups = -(-len(spoken) // theirs)
    spoken = np.pad(spoken, (0, theirs * groups - len(spoken)))
    word = shaped(spoken, ours * groups, rate, lambda frequency: response(speaker, frequency))
    level = decibels(drawn("level_db"))
    word *= level / root_mean_square(word)
    if recording.samples is None:
        before, after = random.integers(2, 20, size=2) * rate // 100
    else:
        word = word[: recording.samples]
        before = random.integers(0, recording.samples - len(word), endpoint=True)
        after = recording.samples - len(word) - before
    word = np.pad(word, (before, after))

    exponent = drawn("noise_exponent")
    noise = random.normal(size=len(word))
    noise = shaped(noise, len(noise), rate, lambda frequency: frequency ** (-exponent / 2))
    noise *= level / decibels(drawn("snr_db")) / root_mean_square(noise)
    return np.round(np.clip(word + noise, -1, 1) * 32767).astype(np.int16)


def response(speaker: Speaker, frequency: Float[np.ndarray, " bin"]) -> Float[np.ndarray, " bin"]:
    """Gain of a speaker's microphone: a tilt, and waves over the logarithm of the frequency."""
    octaves = np.log2(frequency / 1000)
    waves = np.arange(1, len(speaker.ripple) + 1)[:, None] * octaves * np.pi / 4
    ripple = speaker.ripple[:, :1] * np.cos(waves) + speaker.ripple[:, 1:] * np.sin(waves)
    return decibels(speaker.tilt * octaves + ripple.sum(axis=0))


def shaped(
    signal: Shaped[np.ndarray, " samples"], samples: int, sample_rate: int, gain: Callable[[np.ndarray], np.ndarray]
) -> Float[np.ndarray, " {samples}"]:
    """The signal with ``gain`` (a function of the frequency in Hz) put on its spectrum, resampled to so many samples.

    Up to a factor. ``gain`` is flat below 50 Hz.
    """
    lines = samples // 2 + 1
    spectrum = np.fft.rfft(signal)[:lines]
    frequency = np.fft.rfftfreq(samples, 1 / sample_rate)[: len(spectrum)]
    return np.fft.irfft(spectrum * gain(np.maximum(frequency, 50)), samples)


def root_mean_square(signal: Float[np.ndarray, " samples"]) -> float:
    """What a level in decibels is measured by."""
    return float(np.sqrt(np.mean(signal**2)))


def decibels(level: float | Float[np.ndarray, " _"]) -> float | Float[np.ndarray, " _"]:
    """A level in decibels as a factor on amplitudes."""
    return 10 ** (level / 20)
