"""Augmentation of the waveform as the earlier baseline has it: polarity, noise, gain and reverberation, each by chance.

Bittar and Garner (2022) apply the four in this order, each with a probability of its own, through the library
torchaudio-augmentations, whose ranges for noise and gain are kept here. Its reverberation is the Freeverb of SoX, with
settings in percent that no room has. Here a room is simulated with pyroomacoustics, by the image method: shoeboxes
as small as those that RoomSimulator of the library audiomentations draws, with its ranges.

Such libraries draw from generators that all threads share. Here what is drawn follows from the utterance and the
number of its copy alone.
"""

import functools
import threading
from hashlib import blake2b
from typing import Any

import numpy as np
import pyroomacoustics
from jaxtyping import Float32
from scipy.signal import fftconvolve
from scipy.special import expit

# All that determines a copy; features that are made of copies are stored under these settings.
SETTINGS = {
    "chances": {"polarity": 0.8, "noise": 0.1, "gain": 0.3, "reverberation": 0.6},  # sparch
    "noise": (0.0001, 0.9),  # standard deviation, relative to the signal's; sparch calls it ``snr``
    "gain_db": (-20.0, -1.0),  # torchaudio-augmentations
    "rooms": 32,
    "room_m": ((3.6, 3.6, 2.4), (5.6, 3.9, 3.0)),  # audiomentations, and the next two
    "reverberation_time_s": (0.15, 0.8),
    "microphone_m": (0.15, 0.35),  # from the mouth
    "mouth_m": 0.5,  # from the walls, at least: more than the microphone is from the mouth
}

# Samples: an impulse that comes between two of them is a filter twice as long, with its peak in the middle.
DELAY = pyroomacoustics.constants.get("frac_delay_length") // 2

SIMULATING = threading.Lock()


def augmented(
    waveform: Float32[np.ndarray, " samples"], sample_rate: int, utterance: str, copy: int
) -> Float32[np.ndarray, " samples"]:
    """A copy of an utterance, the same whenever its name and its number are; ``sample_rate`` in Hz."""
    generator = generator_of(f"{copy} {utterance}")
    return apply(waveform, sample_rate, generator, **draw(generator))


def in_noise(waveform: Float32[np.ndarray, " samples"], snr: float, utterance: str) -> Float32[np.ndarray, " samples"]:
    """An utterance in white noise, as loud as it was; ``snr`` is the ratio of their powers over its length, in dB.

    Minus infinity leaves the noise alone. The noise is the same for each ratio, and follows from the utterance's name.
    """
    noise = generator_of(f"noise {utterance}").standard_normal(len(waveform))
    noise *= np.sqrt(np.mean(waveform.astype(float) ** 2) / np.mean(noise**2))
    share = expit(snr * np.log(10) / 10)  # of the power that is the utterance's
    return (np.sqrt(share) * waveform + np.sqrt(1 - share) * noise).astype(np.float32)


def generator_of(name: str) -> np.random.Generator:
    """The same for the same name, on every machine and in every thread."""
    return np.random.default_rng(int.from_bytes(blake2b(name.encode(), digest_size=16).digest(), "little"))


def draw(generator: np.random.Generator) -> dict[str, Any]:
    """The steps that are taken, each by its chance and uniformly within its range, as ``apply`` takes them."""
    taken = generator.random(4) < tuple(SETTINGS["chances"].values())
    noise, gain_db = generator.uniform(*SETTINGS["noise"]), generator.uniform(*SETTINGS["gain_db"])
    steps = {"inverted": True, "noise": noise, "gain_db": gain_db, "room": int(generator.integers(SETTINGS["rooms"]))}
    return {name: value for (name, value), own in zip(steps.items(), taken, strict=True) if own}


def apply(
    waveform: Float32[np.ndarray, " samples"],
    sample_rate: int,
    generator: np.random.Generator,
    *,
    inverted: bool = False,
    noise: float | None = None,
    gain_db: float | None = None,
    room: int | None = None,
) -> Float32[np.ndarray, " samples"]:
    """The waveform after all steps in this order, None being none; ``noise`` is relative to its standard deviation.

    It is as long as it was: what would still sound in the room after its end is cut.
    """
    if inverted:
        waveform = -waveform
    if noise is not None:
        deviation = noise * waveform.std()
        waveform = waveform + deviation * generator.standard_normal(len(waveform), dtype=np.float32)
    if gain_db is not None:
        waveform = waveform * np.float32(10 ** (gain_db / 20))
    if room is not None:
        sounding = fftconvolve(waveform, impulse_response(room, sample_rate))
        waveform = sounding[DELAY : DELAY + len(waveform)]
    return waveform


def draw_room(number: int) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    """Sides in metres, reverberation time (60 dB) in seconds, and where mouth and microphone are."""
    generator = np.random.default_rng(number)
    sides = generator.uniform(*SETTINGS["room_m"])
    seconds = generator.uniform(*SETTINGS["reverberation_time_s"])
    mouth = generator.uniform(SETTINGS["mouth_m"], sides - SETTINGS["mouth_m"])
    direction = generator.standard_normal(3)
    distance = generator.uniform(*SETTINGS["microphone_m"])
    return sides, seconds, mouth, mouth + distance * direction / np.linalg.norm(direction)


def impulse_response(room: int, sample_rate: int) -> Float32[np.ndarray, " samples"]:
    """From mouth to microphone: the direct sound, which comes after ``DELAY`` and as loud as it was, and reflections.

    Rooms are few and the same for all sets: one takes up to seconds, for 10^5 or 10^6 images of the mouth. What
    several threads wait for is computed once.
    """
    with SIMULATING:
        return simulated(room, sample_rate)


@functools.cache
def simulated(room: int, sample_rate: int) -> Float32[np.ndarray, " samples"]:
    sides, seconds, mouth, microphone = draw_room(room)
    # Threads that share the images out would change the sum's last digits.
    pyroomacoustics.constants.set("num_threads", 1)
    absorption, reflections = pyroomacoustics.inverse_sabine(seconds, sides)
    walls = pyroomacoustics.Material(absorption)
    shoebox = pyroomacoustics.ShoeBox(sides, fs=sample_rate, materials=walls, max_order=reflections)
    shoebox.add_source(mouth)
    shoebox.add_microphone(microphone)
    shoebox.compute_rir()
    distance = np.linalg.norm(microphone - mouth)
    under_way = int(distance / shoebox.c * sample_rate)
    return (distance * shoebox.rir[0][0][under_way:]).astype(np.float32)
