"""Words of your own: a folder for each word, with recordings of any name, in any format and rate that soundfile reads.

Layout: ``<word>/<recording>``, at any depth below the word; beside the words, where there are such, ``speakers.csv``
(recording, speaker), ``testing_list.txt`` and ``validation_list.txt`` (``<word>/<recording>``, one a line).
"""

import csv
import functools
import io
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import gcd
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32, Float64
from scipy.signal import firwin, resample_poly

from lib.datasets import layout, sc
from lib.datasets.dataset import DataSet
from lib.datasets.layout import by_compared_name, compared, composed, is_sound, read_lists, shown, visible
from lib.datasets.speech import Speech, SpeechSettings, assemble, look_at, read_sound
from lib.datasets.utterances import LOST, Utterance
from lib.files import explaining_os_errors
from lib.settings import Range, optional, setting

SAMPLE_RATE = 16_000
HELD_OUT = ("validation", "test")
SPEAKERS = "speakers.csv"
ABOUT = ("readme", "licence", "license", "copying", "citation")  # texts that may lie beside the words
TRAINED = 0.6  # of the speakers, at least
FEWEST = 2  # training utterances of a class that is large enough to be learned at all

# A low-pass filter as long as so many samples on both sides, at so much of half the lower rate, 80 dB down above it.
FILTER = {"reach": 32, "cutoff": 0.92, "kaiser": 8.0}


def has_one_group(pattern: Any) -> bool:
    try:
        return isinstance(pattern, str) and re.compile(pattern).groups == 1
    except (re.error, OverflowError, RecursionError):
        return False


@dataclass(frozen=True)
class FolderSettings(SpeechSettings):
    """What a folder of your own words can be asked for: ``speaker`` finds the speaker in a recording's name."""

    title = "a folder of words"
    speaker: str | None = setting(
        None, optional(Range(has_one_group, "a regular expression with one group, such as '^([a-z]+)_'"))
    )

    def layout(self) -> dict[str, Any]:
        return {"pattern": self.speaker}


@dataclass(frozen=True, eq=False)
class OwnSpeech(Speech):
    """Recordings of any rates and channels, as one channel of 16 kHz."""

    preparation: ClassVar[Mapping[str, Any]] = {"channels": "mean", "brought_to": SAMPLE_RATE, "filter": FILTER}

    def audio(self, index: int) -> tuple[Float32[np.ndarray, " samples"], int]:
        """Return the waveform and ``SAMPLE_RATE``. Raises ``ValueError`` as ``read_sound``, and for silence."""
        path = self.root / self.paths[index]
        sound, sample_rate = read_sound(path)
        waveform = sound.mean(axis=1)
        if not waveform.any():
            raise ValueError(f"{shown(path)} holds nothing but silence: take it out, or record it again")
        return resampled(waveform, sample_rate), SAMPLE_RATE

    def fingerprint(self, cache: Path | None = None) -> str:
        """BLAKE2b (32 hexadecimal digits) of the files', and of the parts: lists and speakers may change them."""
        return blake2b(" ".join((super().fingerprint(cache), *self.parts)).encode(), digest_size=16).hexdigest()


def resampled(
    waveform: Float32[np.ndarray, " samples"], sample_rate: int, wanted: int = SAMPLE_RATE
) -> Float32[np.ndarray, " new_samples"]:
    """Bring a waveform from ``sample_rate`` in Hz to the one that is wanted, without what the lower cannot hold."""
    if sample_rate == wanted:
        return waveform
    common = gcd(wanted, sample_rate)
    up, down = wanted // common, sample_rate // common
    return resample_poly(waveform, up, down, window=low_pass(max(up, down))).astype(np.float32)


@functools.cache
def low_pass(width: int) -> Float64[np.ndarray, " taps"]:
    """Return the filter at the common multiple of two rates; a sample of the lower of them is ``width`` samples."""
    return firwin(2 * FILTER["reach"] * width + 1, FILTER["cutoff"] / width, window=("kaiser", FILTER["kaiser"]))


def read(name: str, split: str, root: Path, pattern: str | None) -> OwnSpeech:
    """Read the words, their speakers and parts, and remark what is to be known of them."""
    folders = layout.word_folders(root)
    refuse_unread_texts(root)
    words = tuple(dict.fromkeys(composed(folder.name) for folder in folders))
    word_of = {str(path.relative_to(root)): composed(folder.name) for folder in folders for path in files_in(folder)}
    if not word_of:
        raise FileNotFoundError(f"{root} does not hold the set {name!r}, there is no recording in a folder of its word")
    if len(set(word_of.values())) < 2:
        raise ValueError(
            f"{root} holds one folder of recordings, {shown(min(word_of.values()))!r}, and two words or more are to be "
            "told apart: give the folder that holds the words' folders"
        )
    remarks = prepared(root, word_of)
    speakers = speakers_of(root, [*word_of], pattern)
    parts, said = parts_of(root, word_of, speakers)
    labels = tuple(word for word in words if word in word_of.values())
    found = [
        Utterance(path, labels.index(word), speakers.get(path, "unknown"), parts[path])
        for path, word in word_of.items()
    ]
    remarks += said + small_classes(words, [(word, parts[path]) for path, word in word_of.items()])
    return assemble(name, split, root, SAMPLE_RATE, labels, found, remarks, OwnSpeech)


def files_in(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and of those in it, in order. Raises ``ValueError`` for what is neither."""
    for entry in visible(folder):
        if entry.is_dir() and not folder.resolve().is_relative_to(entry.resolve()):
            yield from files_in(entry)
        elif entry.is_file():
            yield entry
        else:
            raise ValueError(f"{shown(entry)} is no file, but a link to nowhere or to where it lies: take it out")


def refuse_unread_texts(root: Path) -> None:
    """Raise ``ValueError`` for a text beside the words that may be meant as a list and is not read as one."""
    lists = (SPEAKERS, *sc.LISTS.values())
    for entry in visible(root):
        text = entry.is_file() and entry.suffix.lower() in (".csv", ".tsv", ".txt")
        if text and entry.name not in lists and not entry.name.lower().startswith(ABOUT):
            raise ValueError(f"{shown(entry)} is not read: name it {', '.join(lists)} or README.txt, or take it out")


def prepared(root: Path, paths: Collection[str]) -> tuple[str, ...]:
    """Return what is done to the recordings before all else, in words. Raises ``ValueError`` for what is no audio."""
    with explaining_os_errors(root, LOST):
        for path in paths:
            (root / path).open("rb").close()
    if foreign := [path for path in paths if not is_sound(root / path)]:
        more = f", nor do {len(foreign) - 1:,} more files" if foreign[1:] else ""
        raise ValueError(
            f"{shown(root / foreign[0])} does not decode as audio{more}: convert recordings to WAV, FLAC, OGG or MP3, "
            "and take other files out of the set"
        )
    headers = {path: look_at(root / path) for path in paths}
    remarks = ()
    rates = Counter(header.samplerate for header in headers.values() if header.samplerate != SAMPLE_RATE)
    if rates:
        which = ", ".join(f"{rates[rate]:,} from {rate:,} Hz" for rate in sorted(rates))
        lower = "; those of lower rates have nothing in the upper bands" if min(rates) < SAMPLE_RATE else ""
        remarks += (f"{rates.total():,} of {len(headers):,} recordings are brought to 16,000 Hz: {which}{lower}",)
    if several := sum(header.channels > 1 for header in headers.values()):
        remarks += (f"{several:,} of {len(headers):,} recordings have several channels, which are averaged",)
    return remarks


def speakers_of(root: Path, paths: Sequence[str], pattern: str | None) -> dict[str, str]:
    """Return the speaker of each recording, from the pattern or ``speakers.csv``; none where there is neither.

    The pattern is searched in the files' names and, if it is in none, in their paths. Raises ``ValueError`` where both
    are there or a recording has no speaker.
    """
    listed = root / SPEAKERS
    if pattern is None:
        return read_speakers(listed, by_compared_name(root, paths)) if listed.exists() else {}
    if listed.exists():
        raise ValueError(f"{listed} and the pattern {pattern!r} both say who speaks: delete the one or leave the other")
    for text_of in (lambda path: composed(path.rpartition("/")[2]), composed):
        matches = {path: re.search(composed(pattern), text_of(path)) for path in paths}
        speakers = {path: match[1] for path, match in matches.items() if match and match[1]}
        if speakers:
            break
    if lacking := [path for path in paths if path not in speakers]:
        raise ValueError(
            f"the pattern {pattern!r} finds no speaker in {len(lacking):,} of {len(paths):,} recordings in {root}, the "
            f"first {shown(lacking[0])!r}: give another pattern, or list recordings and speakers in {SPEAKERS}"
        )
    return speakers


def read_speakers(path: Path, known: Mapping[str, str]) -> dict[str, str]:
    """Read the table of recordings and speakers; ``known`` are the recordings, by how they are compared.

    Raises ``ValueError`` for what is no such table, and where it does not name each recording once.
    """
    remedy = "give each row a recording, as <word>/<file>, and its speaker"
    try:
        with explaining_os_errors(path.parent, LOST):
            text = path.read_text(encoding="utf-8-sig")
        delimiter = max(",;\t", key=text.partition("\n")[0].count)
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no table in UTF-8 ({error}): save it as CSV in UTF-8") from error
    if rows and [cell.strip().lower() for cell in rows[0]] == ["recording", "speaker"]:
        rows = rows[1:]
    speakers = {}
    for row in rows:
        if len(row) != 2 or not row[1].strip():
            raise ValueError(f"{path} has the row {delimiter.join(row)!r}: {remedy}")
        recording = known.get(compared(row[0].strip()))
        if recording is None:
            raise ValueError(f"{path} names {row[0]!r}, which is not there: {remedy}")
        if recording in speakers:
            raise ValueError(f"{path} names {row[0]!r} twice: {remedy}")
        speakers[recording] = composed(row[1].strip())
    if lacking := [recording for recording in known.values() if recording not in speakers]:
        raise ValueError(f"{path} lacks {len(lacking):,} recordings, the first {shown(lacking[0])!r}: {remedy}")
    return speakers


def parts_of(
    root: Path, word_of: Mapping[str, str], speakers: Mapping[str, str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the part of each recording, and what is to be said of it.

    The user's lists say which; where ``validation_list.txt`` or both are not there, speakers are divided (``divided``),
    or the recordings of each word where fewer speakers are known than there are parts to fill.
    """
    files = {part: sc.LISTS[part] for part in HELD_OUT if (root / sc.LISTS[part]).exists()}
    if [*files] == ["validation"]:
        raise ValueError(f"{root} has a {files['validation']} and no {sc.LISTS['test']}: add it, or take the one out")
    lists = read_lists(root, files, word_of) if files else {}
    parts = {path: part for part, paths in lists.items() for path in paths}
    rest, wanted = [path for path in word_of if path not in parts], [part for part in HELD_OUT if part not in files]
    names, remarks = {speakers.get(path) for path in rest} - {None}, ()
    if not wanted:
        parts |= dict.fromkeys(rest, "train")
    elif len(names) > len(wanted):
        by_name, remarks = divided(names, wanted)
        parts |= {path: by_name[speakers[path]] for path in rest}
    else:
        of_word = defaultdict(list)
        for path in rest:
            of_word[word_of[path]].append(composed(path))
        by_path = {path: part for own in of_word.values() for path, part in divided(own, wanted)[0].items()}
        parts |= {path: by_path[composed(path)] for path in rest}
        known = f"too few speakers are known ({len(names)})" if names else "no speaker is known"
        remarks = (
            f"{known}, so single recordings are put into parts, and what is measured is not how well new speakers are "
            f"understood: give a pattern for speaker, or {SPEAKERS}, or {sc.LISTS['test']}",
        )
    if files and speakers:
        remarks += layout.shared_speakers(Utterance(path, 0, speakers[path], parts[path]) for path in word_of)
    return parts, remarks


def divided(names: Collection[str], parts: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the part of each name: of these parts, or "train".

    It is given by the hash of Speech Commands, a tenth for each part. Where this leaves a part empty or trains on less
    than ``TRAINED`` of them, as with few names it may, they are divided in the order of their hashes, a tenth or at
    least one for each part, and this is said.
    """
    limits = (10 * (parts[0] == "validation"), 10 * len(parts))
    found = {name: sc.hashed_part(name, *limits) for name in names}
    counts = Counter(found.values())
    if all(counts[part] for part in parts) and counts["train"] >= TRAINED * len(names):
        return found, ()
    share = max(1, round(len(names) / 10)) if len(names) > len(parts) else 0
    held = [part for part in parts for _ in range(share)]
    ordered = sorted(names, key=lambda name: (sc.percentage(name), name))
    found = dict(zip(ordered, held + ["train"] * (len(names) - len(held)), strict=True))
    which = "; ".join(f"{part} has {', '.join(ordered[n * share : (n + 1) * share])}" for n, part in enumerate(parts))
    return found, (f"{len(names):,} speakers are too few for the hash, so they are divided in its order: {which}",)


def small_classes(words: Sequence[str], found: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Return what is to be said of classes with few recordings in training, or none to test with."""
    counts = Counter(found)
    small = {
        word: f"{counts[word, 'train']:,} and {counts[word, 'test']:,}"
        for word in words
        if counts[word, "train"] < FEWEST or not counts[word, "test"]
    }
    which = ", ".join(f"{shown(word)!r} {numbers}" for word, numbers in small.items())
    said = f"these words have fewer than {FEWEST} recordings in training, or none in test (how many): {which}; add some"
    return (said,) if small else ()


FOLDER = DataSet(
    name="folder",
    settings=FolderSettings,
    splits=("official",),
    default_split="official",
    mark="*/*",
    read=read,
    licence="yours",
    citation="recordings of your own",
)
