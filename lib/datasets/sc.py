"""Speech Commands v0.02 (Warden, 2018): one-second recordings of 35 words by many speakers.

Layout: `<word>/<speaker>_nohash_<n>.wav`, `validation_list.txt`, `testing_list.txt`.
"""

import re
from collections import Counter
from hashlib import sha1
from pathlib import Path

from lib.datasets.speech import Speech, assemble
from lib.datasets.utterances import PARTS, Utterance, check_counts, check_present, read_list

SPLITS = ("official", "70-10-20")
SAMPLE_RATE = 16_000
WORDS = (
    *("backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow", "forward", "four", "go"),
    *("happy", "house", "learn", "left", "marvin", "nine", "no", "off", "on", "one", "right", "seven"),
    *("sheila", "six", "stop", "three", "tree", "two", "up", "visual", "wow", "yes", "zero"),
)

PUBLISHED_COUNTS = {
    "official": {"train": 84_843, "validation": 9_981, "test": 11_005},
    "70-10-20": {"train": 75_466, "validation": 9_981, "test": 20_382},
}

FILE_NAME = re.compile(r"([0-9a-f]+)_nohash_\d+\.wav")


def load(name: str, split: str, root: Path) -> Speech:
    """Read the word folders; a set with fewer words has fewer classes."""
    recordings = {}
    for word in sorted(entry.name for entry in root.iterdir() if entry.is_dir() and entry.name[0] not in "._"):
        for file_name in sorted(entry.name for entry in (root / word).iterdir() if entry.suffix == ".wav"):
            match = FILE_NAME.fullmatch(file_name)
            if match is None:
                raise ValueError(
                    f"{root / word / file_name} is not named '<speaker>_nohash_<n>.wav'; take it out of the set."
                )
            recordings[f"{word}/{file_name}"] = (word, match[1])
    words = tuple(dict.fromkeys(word for word, _ in recordings.values()))

    parts = listed_parts(root, recordings) if split == "official" else None
    utterances = []
    for path, (word, speaker) in recordings.items():
        part = parts.get(path, "train") if parts is not None else hashed_part(speaker, 10, 30)
        utterances.append(Utterance(path, words.index(word), speaker, part))
    if words == WORDS:
        counts = Counter(utterance.part for utterance in utterances)
        check_counts(name, split, {part: counts[part] for part in PARTS}, PUBLISHED_COUNTS[split])
    return assemble(name, split, root, SAMPLE_RATE, words, utterances)


def listed_parts(root: Path, recordings: dict) -> dict[str, str]:
    """The part of each recording that the official lists name; the rest is training."""
    parts = {}
    for part, file_name in (("validation", "validation_list.txt"), ("test", "testing_list.txt")):
        names = read_list(root / file_name)
        check_present(root / file_name, names, recordings.keys())
        for recording in names:
            if recording in parts:
                raise ValueError(
                    f"{root}: both lists name {recording!r}; restore validation_list.txt and testing_list.txt."
                )
            parts[recording] = part
    return parts


def hashed_part(speaker: str, validation_below: float, test_below: float) -> str:
    """The part of a speaker by the rule in the README of Speech Commands: SHA-1 of the name as a percentage.

    (10, 20) is the rule behind the official lists; (10, 30) gives 70-10-20, whose counts are those of the paper.
    """
    percentage = int(sha1(speaker.encode()).hexdigest(), 16) % 2**27 * 100 / (2**27 - 1)
    if percentage < validation_below:
        return "validation"
    return "test" if percentage < test_below else "train"
