"""How a recording comes to sound: a speaker's voice and microphone, the word's place, its loudness, the noise."""

from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int16, Shaped

from lib.synthesis.espeak import ESPEAK_SAMPLE_RATE

# How hard the sets are. Clean words from a few similar voices are told apart without a mistake, and then accuracy,
# calibration and uncertainty have nothing to show. With these ranges the deterministic network with two layers of
# 128 LIF neurons is right on 90 to 93 % of the test part. The signal-to-noise ratio is the strongest of them;
# next come what sets speakers apart: the microphone, the accents, the voice variants. Whispers, robots and eSpeak
# NG's second synthesiser are left out: among a few dozen speakers such a voice is heard in the test part only, and
# nearly everything it says is misunderstood.
SNR_DB = (13, 33)
NOISE_EXPONENT = (0, 1.5)  # noise power falls as 1 / frequency^exponent: 0 is white noise, 1 pink
LEVEL_DB = (-26, -20)  # root mean square of the word, relative to full scale
TILT_DB_PER_OCTAVE = (-2, 2)  # of a speaker's microphone
RIPPLE_DB = 1  # standard deviation of each of the waves in its response about that tilt
RATE_FACTOR = (0.8, 1.25)  # of an utterance, about its speaker's own words per minute
PITCH_OFFSET = (-10, 10)  # of an utterance, about its speaker's own pitch, of eSpeak NG's 0 to 100
FEMALE = ("f1", "f2", "f3", "f4", "f5", "Annie", "belinda", "linda", "aunty")
MALE = ("m1", "m2", "m3", "m4", "m6", "m7", "m8", "Alex", "Gene")
ACCENTS = ("en-us", "en", "en-gb-x-rp", "en-us-nyc")
SETTINGS = {
    "accents": ACCENTS,
    "snr_db": SNR_DB,
    "noise_exponent": NOISE_EXPONENT,
    "level_db": LEVEL_DB,
    "tilt_db_per_octave": TILT_DB_PER_OCTAVE,
    "ripple_db": RIPPLE_DB,
    "rate_factor": RATE_FACTOR,
    "pitch_offset": PITCH_OFFSET,
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


def generator(seed: int, identity: str) -> np.random.Generator:
    """Random numbers of one speaker or recording, which no other one's change."""
    return np.random.default_rng([seed, int.from_bytes(blake2b(identity.encode(), digest_size=8).digest())])


def draw_speaker(random: np.random.Generator) -> Speaker:
    """Draw a voice and a microphone."""
    return Speaker(
        variant=str(random.choice(FEMALE if random.random() < 0.5 else MALE)),
        accent=str(random.choice(ACCENTS)),
        rate=random.uniform(140, 210),
        pitch=random.uniform(30, 70),
        pitch_range=random.uniform(20, 80),
        tilt=random.uniform(*TILT_DB_PER_OCTAVE),
        ripple=random.normal(0, RIPPLE_DB, size=(4, 2)),
    )


def utter(say: Callable, recording: Recording, random: np.random.Generator) -> Samples:
    """One recording: the word through the speaker's microphone, somewhere between silence, in noise."""
    speaker = recording.speaker
    spoken = say(
        recording.word,
        f"{recording.accent}+{speaker.variant}",
        rate=speaker.rate * random.uniform(*RATE_FACTOR),
        pitch=speaker.pitch + random.uniform(*PITCH_OFFSET),
        pitch_range=speaker.pitch_range,
    )
    # In a fiftieth of a second both rates have whole numbers of samples, so the spectral lines are the same.
    theirs, ours = ESPEAK_SAMPLE_RATE // 50, recording.sample_rate // 50
    groups = -(-len(spoken) // theirs)
    spoken = np.pad(spoken, (0, theirs * groups - len(spoken)))
    word = shaped(spoken, ours * groups, recording.sample_rate, lambda frequency: response(speaker, frequency))
    level = decibels(random.uniform(*LEVEL_DB))
    word *= level / root_mean_square(word)
    if recording.samples is None:
        before, after = random.integers(2, 20, size=2) * recording.sample_rate // 100
    else:
        word = word[: recording.samples]
        before = random.integers(0, recording.samples - len(word), endpoint=True)
        after = recording.samples - len(word) - before
    word = np.pad(word, (before, after))

    exponent = random.uniform(*NOISE_EXPONENT)
    noise = random.normal(size=len(word))
    noise = shaped(noise, len(noise), recording.sample_rate, lambda frequency: frequency ** (-exponent / 2))
    noise *= level / decibels(random.uniform(*SNR_DB)) / root_mean_square(noise)
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
