"""Synthetic speech: eSpeak NG says the words of HD and SC, and the recordings are written in those sets' layouts.

It is for running everything without a download, not for results about speech. Every speaker has a voice, a pitch,
a rate and a microphone; every utterance its own rate, pitch, loudness, place in the recording, and noise.
"""

import ctypes
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import espeakng_loader
import numpy as np
import soundfile
from jaxtyping import Float, Int16, Shaped
from tqdm import tqdm

from lib.datasets import hd, sc
from lib.downloads import written_aside

SAMPLE_RATE = 16_000
ESPEAK_SAMPLE_RATE = 22_050
DEFAULT_UTTERANCES = {"synthetic-hd": 1_440, "synthetic-sc": 2_100}

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

# Twelve voices, as HD has, women and men in turn. Speakers 04 and 05 stand in the test part only; of the others'
# recordings it takes a twentieth.
HD_VARIANTS = ("f1", "m1", "f3", "m2", "f2", "m3", "f4", "m4", "Annie", "Alex", "f5", "m7")
HD_TEST_SPEAKERS = ("04", "05")
HD_TEST_SHARE = 0.05

# Of the speakers, more than SC's own tenth in the validation and the test part each, so that a small set is tested on
# enough of them.
SC_HELD_OUT_SHARE = 0.15


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
    """A file to write: who says what in which accent, in how many samples (None: as long as it takes)."""

    path: str
    speaker: Speaker
    accent: str
    word: str
    samples: int | None


def make(name: str, root: str | Path, utterances: int | None = None, seed: int = 0) -> None:
    """Write "synthetic-hd" or "synthetic-sc" into the folder `root`, whole or not at all.

    `utterances` is the number wanted (None: 1,440 or 2,100), taken to the nearest at which every speaker says every
    word equally often. One seed gives the same files byte for byte; the same set already there is left as it is.

    Raises:
        ValueError: if the name is unknown, the number too small for the set's parts, or `root` holds anything else.
    """
    if name not in DEFAULT_UTTERANCES:
        raise ValueError(f"No synthetic set is called {name!r}; there are {', '.join(DEFAULT_UTTERANCES)}.")
    root = Path(root)
    settings = {
        "name": name,
        "utterances": DEFAULT_UTTERANCES[name] if utterances is None else utterances,
        "seed": seed,
        "espeakng_loader": version("espeakng_loader"),
        "voices": HD_VARIANTS if name == "synthetic-hd" else FEMALE + MALE,
        "accents": ACCENTS,
        "snr_db": SNR_DB,
        "noise_exponent": NOISE_EXPONENT,
        "level_db": LEVEL_DB,
        "tilt_db_per_octave": TILT_DB_PER_OCTAVE,
        "ripple_db": RIPPLE_DB,
        "rate_factor": RATE_FACTOR,
        "pitch_offset": PITCH_OFFSET,
    }
    written = json.dumps(settings, indent=2) + "\n"
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        path = root / "synthesis.json"
        if path.is_file() and path.read_text(encoding="utf-8") == written:
            return
        raise ValueError(f"{root} holds something other than this synthetic set; delete it or give another folder.")

    plan = {"synthetic-hd": plan_hd, "synthetic-sc": plan_sc}[name]
    recordings, lists = plan(settings["utterances"], seed)
    with written_aside(root) as aside, espeak(root.parent) as say:
        for folder in {(aside / recording.path).parent for recording in recordings}:
            folder.mkdir(parents=True)
        for recording in tqdm(recordings, desc=name, unit="utterance"):
            samples = utter(say, recording, generator(seed, recording.path))
            soundfile.write(aside / recording.path, samples, SAMPLE_RATE, subtype="PCM_16")
        for file_name, lines in lists.items():
            (aside / file_name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        (aside / "synthesis.json").write_text(written, encoding="utf-8")


def plan_hd(utterances: int, seed: int) -> tuple[list[Recording], dict[str, list[str]]]:
    """The recordings and the file lists of "synthetic-hd"."""
    once = len(HD_VARIANTS) * len(hd.CLASS_NAMES)
    if utterances < once:
        raise ValueError(f"'synthetic-hd' has at least {once} utterances, not {utterances}.")
    trials = round(utterances / once)
    recordings, lists = [], {"train_filenames.txt": [], "test_filenames.txt": []}
    for number, variant in enumerate(HD_VARIANTS):
        identity = f"{number:02d}"
        speaker = draw_speaker(generator(seed, identity))._replace(variant=variant)
        for label, word in enumerate(hd.CLASS_NAMES):
            language, accent = ("english", speaker.accent) if label < 10 else ("german", "de")
            for trial in range(trials):
                file_name = f"lang-{language}_speaker-{identity}_trial-{trial}_digit-{label % 10}.flac"
                recordings.append(Recording(f"audio/{file_name}", speaker, accent, word, None))
                tested = identity in HD_TEST_SPEAKERS or generator(seed, file_name).random() < HD_TEST_SHARE
                lists["test_filenames.txt" if tested else "train_filenames.txt"].append(file_name)
    return recordings, lists


def plan_sc(utterances: int, seed: int) -> tuple[list[Recording], dict[str, list[str]]]:
    """The recordings and the file lists of "synthetic-sc"; speakers are named so that SC's hash gives their part."""
    if utterances < 4 * len(sc.WORDS):
        raise ValueError(f"'synthetic-sc' has at least {4 * len(sc.WORDS)} utterances, not {utterances}.")
    speakers = round(utterances / len(sc.WORDS))
    held_out = round(SC_HELD_OUT_SHARE * speakers)
    wanted = {"train": speakers - 2 * held_out, "validation": held_out, "test": held_out}
    recordings, lists = [], {"validation_list.txt": [], "testing_list.txt": []}
    names, taken = generator(seed, "names"), set()
    while any(wanted.values()):
        identity = names.bytes(4).hex()
        part = sc.hashed_part(identity, 10, 20)
        if identity in taken or not wanted[part]:
            continue
        taken.add(identity)
        wanted[part] -= 1
        speaker = draw_speaker(generator(seed, identity))
        paths = [f"{word}/{identity}_nohash_0.wav" for word in sc.WORDS]
        for path, word in zip(paths, sc.WORDS, strict=True):
            recordings.append(Recording(path, speaker, speaker.accent, word, SAMPLE_RATE))
        if part != "train":
            lists["validation_list.txt" if part == "validation" else "testing_list.txt"] += paths
    return recordings, lists


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


def utter(say: Callable, recording: Recording, random: np.random.Generator) -> Int16[np.ndarray, " samples"]:
    """One recording: the word through the speaker's microphone, somewhere between silence, in noise."""
    speaker = recording.speaker
    spoken = say(
        recording.word,
        f"{recording.accent}+{speaker.variant}",
        rate=speaker.rate * random.uniform(*RATE_FACTOR),
        pitch=speaker.pitch + random.uniform(*PITCH_OFFSET),
        pitch_range=speaker.pitch_range,
    )
    # 441 samples of eSpeak NG last as long as 320 of ours, so whole groups of them have the same spectral lines.
    groups = -(-len(spoken) // 441)
    spoken = np.pad(spoken, (0, 441 * groups - len(spoken)))
    word = shaped(spoken, 320 * groups, lambda frequency: response(speaker, frequency))
    level = decibels(random.uniform(*LEVEL_DB))
    word *= level / root_mean_square(word)
    if recording.samples is None:
        before, after = random.integers(2, 20, size=2) * SAMPLE_RATE // 100
    else:
        word = word[: recording.samples]
        before = random.integers(0, recording.samples - len(word), endpoint=True)
        after = recording.samples - len(word) - before
    word = np.pad(word, (before, after))

    exponent = random.uniform(*NOISE_EXPONENT)
    noise = random.normal(size=len(word))
    noise = shaped(noise, len(noise), lambda frequency: frequency ** (-exponent / 2))
    noise *= level / decibels(random.uniform(*SNR_DB)) / root_mean_square(noise)
    return np.round(np.clip(word + noise, -1, 1) * 32767).astype(np.int16)


def response(speaker: Speaker, frequency: Float[np.ndarray, " bin"]) -> Float[np.ndarray, " bin"]:
    """Gain of a speaker's microphone: a tilt, and waves over the logarithm of the frequency."""
    octaves = np.log2(frequency / 1000)
    waves = np.arange(1, len(speaker.ripple) + 1)[:, None] * octaves * np.pi / 4
    ripple = speaker.ripple[:, :1] * np.cos(waves) + speaker.ripple[:, 1:] * np.sin(waves)
    return decibels(speaker.tilt * octaves + ripple.sum(axis=0))


def shaped(
    signal: Shaped[np.ndarray, " samples"], samples: int, gain: Callable[[np.ndarray], np.ndarray]
) -> Float[np.ndarray, " {samples}"]:
    """The signal with `gain` (a function of the frequency in Hz) put on its spectrum, resampled to so many samples.

    Up to a factor. `gain` is flat below 50 Hz.
    """
    frequency = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    spectrum = np.fft.rfft(signal)[: len(frequency)]
    return np.fft.irfft(spectrum * gain(np.maximum(frequency, 50)), samples)


def root_mean_square(signal: Float[np.ndarray, " samples"]) -> float:
    """What a level in decibels is measured by."""
    return float(np.sqrt(np.mean(signal**2)))


def decibels(level: float | Float[np.ndarray, " _"]) -> float | Float[np.ndarray, " _"]:
    """A level in decibels as a factor on amplitudes."""
    return 10 ** (level / 20)


@contextmanager
def espeak(folder: Path) -> Iterator[Callable[..., Int16[np.ndarray, " samples"]]]:
    """A function that says a word through eSpeak NG: `say(word, voice, rate, pitch, pitch_range)` at 22,050 Hz.

    eSpeak NG keeps its state (the phase of a voice's flutter, random numbers) in the library's global variables,
    and starting it again does not reset them. So each call loads a copy of the library of its own: what it says
    depends on the words said through this one since, and on nothing before. The copy lies in `folder` meanwhile.
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
            raise RuntimeError("eSpeak NG does not start; install the package espeakng-loader again.")
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
                raise RuntimeError(f"eSpeak NG does not say {word!r} with the voice {voice!r} (errors {errors}).")
            return np.frombuffer(b"".join(chunks), dtype=np.int16)

        yield say
        library.espeak_Terminate()
