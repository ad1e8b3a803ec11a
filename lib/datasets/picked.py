"""A part of a published set, named recording by recording: what it consists of, and how to get it from the archives.

    python -m lib.datasets.picked data/results/sc-11-words-recordings.txt data/sc-11-words ARCHIVE [ARCHIVE …]

finds the recordings of such a list by their content in folders to which the two releases of Speech Commands were
unpacked (v0.02, which ``python -m lib.datasets sc`` brings, and v0.01, beside it on the same server), and copies them
into a folder in the layout of ``sc``. Names alone would not do: of the words that we have, some are as v0.01 has them,
from which v0.02 has dropped one recording in eight and numbered the others anew. A list can be checked with
``b2sum -l 64 -c`` as well.
"""

import argparse
import re
import shutil
import sys
from collections import Counter
from hashlib import blake2b
from pathlib import Path

from tqdm import tqdm

from lib.datasets.sc import LISTS, hashed_part
from lib.files import atomic_write
from lib.settings import folder_argument

LINE = re.compile(r"(?P<digest>[0-9a-f]{16})  (?P<name>\w+/\w+\.wav)")


def listed(path: Path) -> dict[str, str]:
    """The digests of a list's recordings by their paths, in its order. Raises ``ValueError`` where it is no list."""
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not (said := LINE.fullmatch(line)):
            raise ValueError(
                f"{path}, line {number}: expected 16 digits of a digest, two spaces, <word>/<recording>.wav"
            )
        found[said["name"]] = said["digest"]
    return found


def digest(path: Path) -> str:
    return blake2b(path.read_bytes(), digest_size=8).hexdigest()


def holds(path: Path, of: str) -> bool:
    return path.is_file() and digest(path) == of


def pick(wanted: dict[str, str], root: Path, archives: list[Path]) -> list[str]:
    """Copy what is wanted, by content, from the archives to ``root`` and write the official lists; what is in none.

    Raises ``ValueError`` where an archive has none of the words.
    """
    words = sorted({name.partition("/")[0] for name in wanted})
    places: dict[str, Path] = {}
    for archive in archives:
        there = [path for word in words for path in sorted((archive / word).glob("*.wav"))]
        if not there:
            raise ValueError(f"{archive} has none of the folders {', '.join(words)}: name where a release was unpacked")
        for path in tqdm(there, desc=f"reading {archive.name}", unit="recording"):
            places.setdefault(digest(path), path)
    for word in words:
        (root / word).mkdir(parents=True, exist_ok=True)
    for name, of in wanted.items():
        if of in places and not holds(root / name, of):
            with atomic_write(root / name) as aside:
                shutil.copyfile(places[of], aside)
    for part, name in LISTS.items():
        own = [one for one in wanted if hashed_part(one.partition("/")[2].partition("_")[0], 10, 20) == part]
        with atomic_write(root / name) as aside:
            aside.write_text("".join(f"{one}\n" for one in own if holds(root / one, wanted[one])), encoding="utf-8")
    return [name for name, of in wanted.items() if not holds(root / name, of)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m lib.datasets.picked", description="Pick a list's recordings by content."
    )
    parser.add_argument("list", type=folder_argument, help="such as data/results/sc-11-words-recordings.txt")
    parser.add_argument("root", type=folder_argument, help="the folder for them, such as data/sc-11-words")
    parser.add_argument(
        "archives", type=folder_argument, nargs="+", help="where releases of Speech Commands were unpacked"
    )
    options = parser.parse_args(arguments)
    try:
        wanted = listed(options.list)
        missing = pick(wanted, options.root, options.archives)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{options.root} holds {len(wanted) - len(missing):,} of {len(wanted):,} recordings.")
    if missing:
        by_word = Counter(name.partition("/")[0] for name in missing)
        counts = ", ".join(f"{word} {count:,}" for word, count in by_word.items())
        print(
            f"In none of the archives: {counts}; the first is {missing[0]}. Give the other release, too.",
            file=sys.stderr,
        )
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main())
