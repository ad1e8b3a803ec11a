"""Heidelberg Digits (Cramer et al., 2022): spoken digits in English and German, twelve speakers.

Layout: ``audio/lang-english_speaker-00_trial-0_digit-0.flac``, ``train_filenames.txt``, ``test_filenames.txt``.
"""

import re
from pathlib import Path

from lib.datasets.dataset import DataSet
from lib.datasets.downloads import Source
from lib.datasets.layout import AUDIO, read_lists, refuse_strays, shown, visible
from lib.datasets.speech import Speech, SpeechSettings, assemble
from lib.datasets.utterances import Utterance, check_counts

FOLDERS = ("https://zenkelab.org/datasets/", "https://compneuro.net/datasets/")
CITATION = (
    "Cramer, Stradmann, Schemmel and Zenke, The Heidelberg Spiking Data Sets for the Systematic Evaluation of Spiking "
    "Neural Networks, IEEE Transactions on Neural Networks and Learning Systems 33 (2022), "
    "doi:10.1109/TNNLS.2020.3044364"
)

# Two of the ten training speakers, because the test part, too, has two speakers that training never hears, and
# because settings chosen on one voice would suit that voice; they cost about a fifth of the training part. Simply the
# last two: nothing was tried out on any recording before they were chosen.
VALIDATION_SPEAKERS = ("10", "11")

# The publishers' pages have given both, at different times, for the spikes made from the same 10,420 recordings. The
# paper's text has the first; its accuracies on HD, 98.10 and 99.51 %, are whole numbers of utterances of the second.
PUBLISHED_COUNTS = ({"train": 8_332, "test": 2_088}, {"train": 8_156, "test": 2_264})
CLASS_NAMES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"),
)
LISTS = {"train": "train_filenames.txt", "test": "test_filenames.txt"}
LANGUAGES = {"english": range(10), "german": range(10, 20)}

FILE_NAME = re.compile(rf"lang-(english|german)_speaker-(\d+)_trial-(\d+)_digit-(\d){AUDIO}")


def read(name: str, split: str, root: Path) -> Speech:
    """Read HD's lists; label = digit, plus ten for German. What no list names is left out, and this is said."""
    refuse_strays(root)
    present = [entry.name for entry in visible(root / "audio")]
    lists = read_lists(root, LISTS, present)
    found = [parse(file_name, part) for part, names in lists.items() for file_name in names]
    check_counts(name, split, [utterance.part for utterance in found], *PUBLISHED_COUNTS)
    listed, remarks = {utterance.path for utterance in found}, ()
    if unlisted := [file_name for file_name in present if f"audio/{file_name}" not in listed]:
        remarks = (
            f"{len(unlisted):,} of {len(present):,} files in 'audio' are left out, since no list names them, the first "
            f"{shown(unlisted[0])!r}: add them to {' or '.join(LISTS.values())}, or take them out",
        )
    return assemble(name, split, root, None, CLASS_NAMES, found, remarks)


def parse(file_name: str, part: str) -> Utterance:
    """Read language, speaker and digit from a file name, or raise ``ValueError`` if it is not HD's."""
    match = FILE_NAME.fullmatch(file_name)
    if match is None:
        raise ValueError(
            f"{LISTS[part]} names {file_name!r}, which is not of the form "
            "'lang-english_speaker-00_trial-0_digit-0.flac': restore the list"
        )
    language, speaker, _, digit = match.groups()
    return Utterance(f"audio/{file_name}", int(digit) + 10 * (language == "german"), speaker, part)


HD = DataSet(
    name="hd",
    settings=SpeechSettings,
    splits=("official",),
    default_split="official",
    mark="audio",
    read=read,
    validation_speakers=VALIDATION_SPEAKERS,
    groups=LANGUAGES,
    # 10,420 utterances of at most 2 s would take 2 GB uncompressed; the publishers list the archive's MD5 sum.
    sources=(Source(FOLDERS, "hd_audio.tar.gz", "md5sums.txt", LISTS["train"], 4_000_000_000),),
    licence="CC BY 4.0, as its publishers say of the spiking sets made from it, on the page that offers both",
    citation=CITATION,
)
