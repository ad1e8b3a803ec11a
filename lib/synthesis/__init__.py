"""Synthetic speech: eSpeak NG says words, each speaker with a voice, a pitch, a rate and a microphone of their own.

It is for running everything without a download, not for results about speech.
"""

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import soundfile
from tqdm import tqdm

from lib.files import atomic_write, check_space, exclusive
from lib.synthesis import sound
from lib.synthesis.sound import Recording

# The recordings, and the set's file lists: their names and lines.
Plan = tuple[list[Recording], dict[str, list[str]]]

# Recordings that one copy of eSpeak NG says, one after the other: what it says depends on what it said before.
BLOCK = 2_100


def write_audio(name: str, plan: Plan, root: Path, seed: int) -> None:
    """Write the recordings in their folders, and the lists."""
    recordings, lists = plan
    for folder in {(root / recording.path).parent for recording in recordings}:
        folder.mkdir(parents=True)

    def write(recording: Recording, samples: sound.Samples) -> None:
        soundfile.write(root / recording.path, samples, recording.sample_rate, subtype="PCM_16")

    say_each(name, recordings, root.parent, seed, write)
    for file_name, lines in lists.items():
        (root / file_name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def say_each(name: str, recordings: list[Recording], folder: Path, seed: int, use: Callable) -> None:
    """Call ``use(recording, samples)`` for each, a block of them in each thread at a time."""

    def say_block(first: int) -> None:
        with sound.espeak(folder) as say:
            for recording in recordings[first : first + BLOCK]:
                use(recording, sound.utter(say, recording, sound.generator(seed, recording.path)))
                progress.update()

    executor = ThreadPoolExecutor()
    try:
        with tqdm(total=len(recordings), desc=name, unit="utterance") as progress:
            list(executor.map(say_block, range(0, len(recordings), BLOCK)))
    finally:
        executor.shutdown(cancel_futures=True)


def make(
    name: str, root: Path, utterances: int | None, seed: int,
    *, settings: Mapping[str, Any], plan: Callable[..., Plan], write: Callable[..., None] = write_audio,
) -> None:  # fmt: skip
    """Write a synthetic set into the folder ``root``, whole or not at all.

    ``plan(utterances, seed)`` says what is recorded, ``write(name, plan, root, seed)`` records it, and ``settings`` are
    all else that determines how it sounds. One seed gives the same files byte for byte; the same set already there is
    left as it is. Raises ``ValueError`` if ``root`` holds anything else, ``OSError`` if the disk has not room enough.
    """
    identity = {"name": name, "utterances": utterances, "seed": seed, "espeakng_loader": version("espeakng_loader")}
    described = json.dumps(identity | settings, indent=2) + "\n"
    path = root / "synthesis.json"

    def is_there() -> bool:
        return path.is_file() and path.read_text(encoding="utf-8") == described

    if is_there():
        return
    with exclusive(root):
        if is_there():
            return
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise ValueError(f"{root} holds something other than this synthetic set: delete it or give another folder")
        planned = plan(utterances, seed)
        # A second of 16-bit samples and a block of the disk's own for each; its spikes take less.
        needed = sum(2 * recording.sample_rate + 4_096 for recording in planned[0])
        check_space(repr(name), needed, root.parent)
        with atomic_write(root) as aside:
            write(name, planned, aside, seed)
            (aside / "synthesis.json").write_text(described, encoding="utf-8")
