"""Speech Commands v0.02 (Warden, 2018): one-second recordings of 35 words by many speakers.

Layout: ``<word>/<speaker>_nohash_<n>.wav``, ``validation_list.txt``, ``testing_list.txt``.
"""

from hashlib import sha1
from pathlib import Path

from lib.datasets.dataset import DataSet
from lib.datasets.downloads import Source
from lib.datasets.layout import AUDIO, composed, read_lists, recordings, shared_speakers, word_folders
from lib.datasets.speech import Speech, SpeechSettings, assemble
from lib.datasets.utterances import Utterance, check_counts

SAMPLE_RATE = 16_000
LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}
WORDS = (
    *("backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow", "forward", "four", "go"),
    *("happy", "house", "learn", "left", "marvin", "nine", "no", "off", "on", "one", "right", "seven"),
    *("sheila", "six", "stop", "three", "tree", "two", "up", "visual", "wow", "yes", "zero"),
)

PUBLISHED_COUNTS = {
    "official": {"train": 84_843, "validation": 9_981, "test": 11_005},
    "70-10-20": {"train": 75_466, "validation": 9_981, "test": 20_382},
}

FILE_NAME = rf"([0-9a-f]+)_nohash_\d+{AUDIO}"


def read(name: str, split: str, root: Path) -> Speech:
    """Read the word folders; a set with fewer words has fewer classes."""
    speakers = {
        path: speaker
        for folder in word_folders(root)
        if folder.name not in LISTS.values()
        for path, (speaker,) in recordings(root, folder.name, FILE_NAME, "<speaker>_nohash_<n>.wav")
    }
    word_of = {path: composed(path.partition("/")[0]) for path in speakers}
    words = tuple(dict.fromkeys(word_of.values()))
    if split == "official":
        lists = read_lists(root, LISTS, speakers)
        parts = dict.fromkeys(speakers, "train") | {path: part for part, paths in lists.items() for path in paths}
    else:
        parts = {path: hashed_part(speaker, 10, 30) for path, speaker in speakers.items()}
    if words == WORDS:
        check_counts(name, split, parts.values(), PUBLISHED_COUNTS[split])
    found = [Utterance(path, words.index(word_of[path]), speaker, parts[path]) for path, speaker in speakers.items()]
    return assemble(name, split, root, SAMPLE_RATE, words, found, shared_speakers(found))


def hashed_part(speaker: str, validation_below: float, test_below: float) -> str:
    """Return the part of a speaker by the rule in the README of Speech Commands: SHA-1 of the name as a percentage.

    (10, 20) is the rule behind the official lists; (10, 30) gives 70-10-20, whose counts are those of the paper.
    """
    if percentage(speaker) < validation_below:
        return "validation"
    return "test" if percentage(speaker) < test_below else "train"


def percentage(speaker: str) -> float:
    return int(sha1(speaker.encode()).hexdigest(), 16) % 2**27 * 100 / (2**27 - 1)


SC = DataSet(
    name="sc",
    settings=SpeechSettings,
    splits=("official", "70-10-20"),
    default_split="official",
    mark=LISTS["validation"],
    read=read,
    sources=(
        Source(
            folders=("https://storage.googleapis.com/download.tensorflow.org/data/",),
            archive="speech_commands_v0.02.tar.gz",
            checksum="sha256:af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
            mark=LISTS["validation"],
            space=6_500_000_000,
        ),
    ),
    licence="CC BY 4.0",
    citation="Warden, Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition (2018), arXiv:1804.03209",
)
