"""Free Spoken Digit Dataset (Jakobovski and contributors): English digits by six speakers.

Layout: ``recordings/<digit>_<speaker>_<index>.wav``.
"""

from pathlib import Path

from lib.datasets import hd
from lib.datasets.dataset import DataSet
from lib.datasets.downloads import Source
from lib.datasets.layout import AUDIO, recordings, refuse_strays
from lib.datasets.speech import Speech, SpeechSettings, assemble
from lib.datasets.utterances import Utterance, check_counts

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
SAMPLE_RATE = 8_000
OFFICIAL_COUNTS = {"train": 2_400, "validation": 300, "test": 300}
SPEAKER_COUNTS = {"train": 2_000, "validation": 500, "test": 500}


def read(name: str, split: str, root: Path) -> Speech:
    """Read the recordings; the split is by index ("official") or holds one speaker out for the test.

    Under "official" indices 0 to 4 are the test part, as the set defines it, and 5 to 9 validation. Under
    "speaker-<name>" the next speaker in alphabetical order, after the last the first, is validation.
    """
    refuse_strays(root)
    files = [*recordings(root, "recordings", rf"(\d)_([a-z]+)_(\d+){AUDIO}", "<digit>_<speaker>_<index>.wav")]
    speakers = sorted({speaker for _, (_, speaker, _) in files})
    if split == "official":
        parts = {index: "test" if index < 5 else "validation" for index in range(10)}
    else:
        tested = split.removeprefix("speaker-")
        if tested not in speakers:
            there = ", ".join(speakers) or "none"
            raise ValueError(f"{root} holds no recording of {tested!r}: its speakers are {there}; get it anew")
        parts = {speakers[(speakers.index(tested) + 1) % len(speakers)]: "validation", tested: "test"}
    found = [
        Utterance(path, int(digit), speaker, parts.get(int(index) if split == "official" else speaker, "train"))
        for path, (digit, speaker, index) in files
    ]
    if tuple(speakers) == SPEAKERS:
        published = OFFICIAL_COUNTS if split == "official" else SPEAKER_COUNTS
        check_counts(name, split, [utterance.part for utterance in found], published)
    return assemble(name, split, root, SAMPLE_RATE, hd.CLASS_NAMES[:10], found)


FSDD = DataSet(
    name="fsdd",
    settings=SpeechSettings,
    splits=("official", *(f"speaker-{speaker}" for speaker in SPEAKERS)),
    default_split="speaker-theo",
    mark="recordings",
    read=read,
    sources=(
        Source(
            folders=("https://github.com/Jakobovski/free-spoken-digit-dataset/archive/",),
            archive="free-spoken-digit-dataset-1.0.9.tar.gz",
            remote_name="v1.0.9.tar.gz",
            checksum="sha256:8bc44cde129d505cbbb6b365c09f80c663f2aa77578afc634e6141a2f87100c0",
            mark="recordings",
            space=60_000_000,
        ),
    ),
    licence="CC BY-SA 4.0",
    citation="Jakobovski and contributors, Free Spoken Digit Dataset v1.0.9",
)
