"""What lies in a set's folder: its word folders, its recordings, its file lists. Nothing is left out in silence.

What systems leave behind is no part of a set: hidden files and folders, and those of ``JUNK``.
"""

import errno
import filecmp
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from unicodedata import normalize

import soundfile

from lib.datasets.utterances import LOST, Utterance
from lib.files import explaining_os_errors

JUNK = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "lost+found", "$recycle.bin", "@eadir"),
    *("system volume information", "_background_noise_"),
}
AUDIO = r"\.(?i:wav|flac)"  # how names of recordings end; what a file is, is seen when it is read

UNREADABLE = {
    errno.EACCES: "{} cannot be read; ask for the right to read it, or take it out of the set",
    errno.ENOTDIR: "{} is no folder of recordings; restore it",
}


def visible(folder: Path) -> list[Path]:
    """Return what a folder holds, ordered by name, without what is hidden or junk.

    Raises ``ValueError`` for a name that is not UTF-8, ``OSError`` where the folder cannot be read.
    """
    with explaining_os_errors(folder, UNREADABLE):
        found = [entry for entry in folder.iterdir() if entry.name[0] != "." and entry.name.casefold() not in JUNK]
    for entry in found:
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{shown(entry)} has a name that is not UTF-8: rename it") from None
    return sorted(found, key=lambda entry: entry.name)


def shown(path: Path | str) -> str:
    """Return a path as it can be printed on one line."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in str(path))


def composed(name: str) -> str:
    """Return a name in the one form of Unicode (NFC), of those that look the same, that all are compared in."""
    return normalize("NFC", name)


def compared(path: str) -> str:
    """Return the path of a recording in the form in which a list may name it: composed, its ending in small letters."""
    return re.sub(r"\.\w+$", lambda ending: ending[0].lower(), composed(path))


def word_folders(root: Path) -> list[Path]:
    """Return the folders of a set that has one for each word.

    Raises ``ValueError`` for a recording that lies beside them, and for a folder that is a copy of another.
    """
    refuse_strays(root)
    folders = [entry for entry in visible(root) if entry.is_dir()]
    refuse_copies(folders)
    return folders


def refuse_strays(root: Path) -> None:
    """Raise ``ValueError`` for a recording that lies in the set's folder itself."""
    for entry in visible(root):
        if entry.is_file() and (re.search(f"{AUDIO}$", entry.name) or is_sound(entry)):
            raise ValueError(
                f"{shown(entry)} is a recording beside the folders of recordings: move it into one of them, or take it "
                "out of the set"
            )


def is_sound(path: Path) -> bool:
    """Whether the file decodes as audio, whatever its name."""
    try:
        soundfile.info(path)
    except (soundfile.LibsndfileError, TypeError):  # the type of error for names that end in .raw
        return False
    return True


def refuse_copies(folders: Sequence[Path]) -> None:
    """Raise ``ValueError`` for a folder that is named after another one, as ``bed (1)``, and holds nothing else."""
    for one, copy in permutations(folders, 2):
        if composed(one.name).casefold() not in composed(copy.name).casefold():
            continue
        names = [entry.name for entry in visible(copy)]
        if names and all(same_files(one / name, copy / name) for name in names):
            raise ValueError(f"{shown(copy)} is a copy of {shown(one.name)!r} and would be another class: take it out")


def same_files(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False)


def recordings(root: Path, folder: str, pattern: str, form: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the path of each recording in a folder of the set, in order, and what the groups of ``pattern`` find.

    Raises ``ValueError`` for any other file or folder, and for two recordings whose names differ in their ending alone.
    """
    stems = {}
    for entry in visible(root / folder):
        if (match := re.fullmatch(pattern, entry.name)) is None:
            wrong = (
                f"is a folder inside of {folder!r}: move its recordings up into {folder!r}, or take it out of the set"
                if entry.is_dir()
                else f"is not named {form!r}: take it out of the set"
            )
            raise ValueError(f"{shown(entry)} {wrong}")
        if (other := stems.setdefault(entry.stem, entry)) != entry:
            raise ValueError(f"{shown(entry)} and {other.name!r} are two files of one recording: take one of them out")
        yield f"{folder}/{entry.name}", match.groups()


def read_lists(root: Path, files: Mapping[str, str], present: Iterable[str]) -> dict[str, list[str]]:
    """Return the names that a set's file lists hold, by their parts, as they are ``present``.

    A name may be written in another form of Unicode, or with its ending in capitals. Raises ``FileNotFoundError`` if
    there is no such list or it names what is not present, ``ValueError`` if a name stands twice, in one list or in two.
    """
    known, lists = by_compared_name(root, present), {}
    for part, path in ((part, root / file_name) for part, file_name in files.items()):
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: the set's own file lists belong beside its recordings")
        with explaining_os_errors(root, LOST):
            text = path.read_text(encoding="utf-8-sig", errors="replace")
        names = [line.strip() for line in text.splitlines() if line.strip()]
        if missing := [name for name in names if compared(name) not in known]:
            raise FileNotFoundError(
                f"{path} names {len(missing):,} of {len(names):,} recordings that are not there, the first "
                f"{missing[0]!r}: restore the files or the list"
            )
        lists[part] = [known[compared(name)] for name in names]
    for name, times in Counter(name for names in lists.values() for name in names).items():
        if times > 1:
            raise ValueError(f"{name!r} stands twice in {' and '.join(files.values())} of {root}: restore the lists")
    return lists


def by_compared_name(root: Path, present: Iterable[str]) -> dict[str, str]:
    """Return each name by how it is ``compared``. Raises ``ValueError`` for two that are the same then."""
    known = {}
    for name in present:
        if (other := known.setdefault(compared(name), name)) != name:
            raise ValueError(f"{name!r} and {other!r} in {root} cannot be told apart in a list: rename one of them")
    return known


def shared_speakers(found: Iterable[Utterance]) -> tuple[str, ...]:
    """Return what is to be said where a split keeps speakers apart and some are in two parts, else nothing."""
    parts = defaultdict(dict)
    for utterance in found:
        parts[utterance.speaker].setdefault(utterance.part, utterance.path)
    shared = {speaker: where for speaker, where in parts.items() if len(where) > 1}
    if not shared:
        return ()
    speaker, where = next(iter(shared.items()))
    places = " and ".join(f"{shown(path)} in {part}" for part, path in where.items())
    return (
        f"{len(shared):,} of {len(parts):,} speakers are in more than one part, the first {speaker!r} ({places}): what "
        "is measured is not how well new speakers are understood; list all recordings of a speaker in one part",
    )
