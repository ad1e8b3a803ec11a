"""Synthetic speech: eSpeak NG says the words of HD and SC, and the recordings are written in those sets' layouts.

For SHD's layout a simple cochlea hears HD's recordings, and its spikes are written in their place.

It is for running everything without a download, not for results about speech. Every speaker has a voice, a pitch,
a rate and a microphone; every utterance its own rate, pitch, loudness, place in the recording, and noise.
"""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Int16
from tqdm import tqdm

from lib.files import atomic_write, check_space, exclusive
from lib.synthesis import cochlea, sound
from lib.synthesis.espeak import espeak
from lib.synthesis.plans import HD_VARIANTS, Plan, plan_hd, plan_sc, plan_shd

DEFAULT_UTTERANCES = {"synthetic-hd": 1_440, "synthetic-sc": 2_100, "synthetic-shd": 1_440}

# Recordings that one copy of eSpeak NG says, one after the other: what it says depends on what it said before.
BLOCK = 2_100


def make(name: str, root: str | Path, utterances: int | None = None, seed: int = 0, full: bool = False) -> None:
    """Write "synthetic-hd", "synthetic-sc" or "synthetic-shd" into the folder `root`, whole or not at all.

    `utterances` is the number wanted (None: `DEFAULT_UTTERANCES`), taken to the nearest at which every speaker says
    every word equally often. `full` makes the published set's size instead: its utterances, speakers and words, its
    counts under every split and its sample rate. One seed gives the same files byte for byte; the same set already
    there is left as it is.

    Raises:
        ValueError: if the name is unknown, the number too small for the set's parts, or `root` holds anything else.
        OSError: if the disk has not room enough.
    """
    if name not in DEFAULT_UTTERANCES:
        raise ValueError(f"No synthetic set is called {name!r}; there are {', '.join(DEFAULT_UTTERANCES)}.")
    if full and utterances is not None:
        raise ValueError(f"The full size of {name!r} is given; leave `utterances` out.")
    root = Path(root)
    if not full and utterances is None:
        utterances = DEFAULT_UTTERANCES[name]
    settings = {
        "name": name,
        "utterances": utterances,
        "seed": seed,
        "espeakng_loader": version("espeakng_loader"),
        "voices": sound.FEMALE + sound.MALE if name == "synthetic-sc" else HD_VARIANTS,
        "accents": sound.ACCENTS,
        "snr_db": sound.SNR_DB,
        "noise_exponent": sound.NOISE_EXPONENT,
        "level_db": sound.LEVEL_DB,
        "tilt_db_per_octave": sound.TILT_DB_PER_OCTAVE,
        "ripple_db": sound.RIPPLE_DB,
        "rate_factor": sound.RATE_FACTOR,
        "pitch_offset": sound.PITCH_OFFSET,
    }
    if name == "synthetic-shd":
        settings |= cochlea.SETTINGS
    written = json.dumps(settings, indent=2) + "\n"
    path = root / "synthesis.json"

    def is_there() -> bool:
        return path.is_file() and path.read_text(encoding="utf-8") == written

    if is_there():
        return
    with exclusive(root):
        if is_there():
            return
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise ValueError(f"{root} holds something other than this synthetic set; delete it or give another folder.")
        plan = {"synthetic-hd": plan_hd, "synthetic-sc": plan_sc, "synthetic-shd": plan_shd}[name](utterances, seed)
        # A second of 16-bit samples and a block of the disk's own for each; its spikes take less.
        needed = sum(2 * recording.sample_rate + 4_096 for recording in plan[0])
        check_space(repr(name), needed, root.parent)
        with atomic_write(root) as aside:
            write = write_spikes if name == "synthetic-shd" else write_audio
            write(name, plan, aside, seed)
            (aside / "synthesis.json").write_text(written, encoding="utf-8")


def write_audio(name: str, plan: Plan, root: Path, seed: int) -> None:
    """Write the recordings in their folders, and the lists."""
    recordings, lists = plan
    for folder in {(root / recording.path).parent for recording in recordings}:
        folder.mkdir(parents=True)

    def write(recording: sound.Recording, samples: Int16[np.ndarray, " samples"]) -> None:
        soundfile.write(root / recording.path, samples, recording.sample_rate, subtype="PCM_16")

    say_each(name, recordings, root.parent, seed, write)
    for file_name, lines in lists.items():
        (root / file_name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_spikes(name: str, plan: Plan, root: Path, seed: int) -> None:
    """Write what the cochlea hears, a file for each list."""
    recordings, lists = plan
    root.mkdir()
    heard = {}

    def hear(recording: sound.Recording, samples: Int16[np.ndarray, " samples"]) -> None:
        heard[recording.path] = cochlea.listen(samples, recording.sample_rate)

    say_each(name, recordings, root.parent, seed, hear)
    cochlea.write_files(root, heard, lists)


def say_each(name: str, recordings: list[sound.Recording], folder: Path, seed: int, use: Callable) -> None:
    """Call `use(recording, samples)` for each, a block of them in each thread at a time."""

    def say_block(first: int) -> None:
        with espeak(folder) as say:
            for recording in recordings[first : first + BLOCK]:
                use(recording, sound.utter(say, recording, sound.generator(seed, recording.path)))
                progress.update()

    executor = ThreadPoolExecutor()
    try:
        with tqdm(total=len(recordings), desc=name, unit="utterance") as progress:
            list(executor.map(say_block, range(0, len(recordings), BLOCK)))
    finally:
        executor.shutdown(cancel_futures=True)
