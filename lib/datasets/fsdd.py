"""Free Spoken Digit Dataset (Jakobovski and contributors): English digits by six speakers.

Layout: `recordings/<digit>_<speaker>_<index>.wav`.
"""

import re
from collections import Counter
from pathlib import Path

from lib.datasets.speech import Speech, assemble
from lib.datasets.utterances import PARTS, Utterance, check_counts

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
SPLITS = ("official", *(f"speaker-{speaker}" for speaker in SPEAKERS))
SAMPLE_RATE = 8_000
CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

FILE_NAME = re.compile(r"(\d)_([a-z]+)_(\d+)\.wav")


def load(name: str, split: str, root: Path) -> Speech:
    """Read the recordings; the split is by index ("official") or holds one speaker out for the test.

    Under "official" indices 0 to 4 are the test part, as the set defines it, and 5 to 9 validation. Under
    "speaker-<name>" the next speaker in alphabetical order, after the last the first, is validation.
    """
    recordings = []
    for file_name in sorted(entry.name for entry in (root / "recordings").iterdir() if entry.suffix == ".wav"):
        match = FILE_NAME.fullmatch(file_name)
        if match is None:
            raise ValueError(
                f"{root / 'recordings' / file_name} is not named '<digit>_<speaker>_<index>.wav'; "
                "take it out of the set."
            )
        recordings.append((file_name, int(match[1]), match[2], int(match[3])))
    speakers = sorted({speaker for _, _, speaker, _ in recordings})

    if split == "official":
        parts = {index: "test" if index < 5 else "validation" for index in range(10)}
        utterances = [
            Utterance(f"recordings/{file_name}", digit, speaker, parts.get(index, "train"))
            for file_name, digit, speaker, index in recordings
        ]
        published = {"train": 2_400, "validation": 300, "test": 300}
    else:
        held_out = split.removeprefix("speaker-")
        if held_out not in speakers:
            raise ValueError(f"{root} holds no recording of {held_out!r}; its speakers are {', '.join(speakers)}.")
        following = speakers[(speakers.index(held_out) + 1) % len(speakers)]
        parts = {following: "validation", held_out: "test"}
        utterances = [
            Utterance(f"recordings/{file_name}", digit, speaker, parts.get(speaker, "train"))
            for file_name, digit, speaker, _ in recordings
        ]
        published = {"train": 2_000, "validation": 500, "test": 500}
    if tuple(speakers) == SPEAKERS:
        counts = Counter(utterance.part for utterance in utterances)
        check_counts(name, split, {part: counts[part] for part in PARTS}, published)
    return assemble(name, split, root, SAMPLE_RATE, CLASS_NAMES, utterances)
