"""What every loader returns, whatever the recordings are: utterances with their files, labels, speakers and parts."""

import errno
import hashlib
import os
import time
from collections.abc import Container
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, Shaped

from lib.files import atomic_write, exclusive, explaining_os_errors

PARTS = ("train", "validation", "test")

CLOCK_TICK = 2  # seconds, of the coarsest file systems

# What the system may refuse about a file of a set, in words.
LOST = dict.fromkeys(
    (errno.ENOENT, errno.EISDIR, errno.EACCES),
    "a file of {} is gone, a folder or not to be read; restore it",
)


class Utterance(NamedTuple):
    """One recording as a loader finds it: its file relative to the root, and what its name says."""

    path: str
    label: int
    speaker: str
    part: str


@dataclass(frozen=True, eq=False)
class Utterances:
    """A set of labelled utterances on disk, each in one part of a named split.

    `paths` are the files that they lie in, relative to `root`; `labels` index `class_names`; `parts` holds "train",
    "validation" or "test". Under `validation="test"` an utterance stands twice, once in each of those parts.
    """

    name: str
    split: str
    root: Path
    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: Int64[np.ndarray, " utterance"]
    speakers: Shaped[np.ndarray, " utterance"]
    parts: Shaped[np.ndarray, " utterance"]

    def __len__(self) -> int:
        """Number of utterances."""
        return len(self.paths)

    def part(self, name: str) -> "Utterances":
        """The utterances of one part: "train", "validation" or "test"."""
        if name not in PARTS:
            raise ValueError(f"No part is called {name!r}; the parts are {', '.join(PARTS)}.")
        return self.chosen(np.flatnonzero(self.parts == name))

    def chosen(self, indices: Int64[np.ndarray, " chosen"]) -> "Utterances":
        """Some of the utterances, in the order of `indices`."""
        arrays = {name: value[indices] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return replace(self, paths=tuple(self.paths[index] for index in indices), **arrays)

    def fingerprint(self, cache: Path | None = None) -> str:
        """BLAKE2b (32 hexadecimal digits) over the relative paths and contents of the files, each once, in order.

        Reading gigabytes takes minutes, so a digest is kept in the folder `cache`, if one is given, and found there
        as long as every file has the size, the times of change and the inode that it had.
        """
        if cache is None:
            return self.digest()
        state, changed = self.state()
        kept = cache / f"{self.name}-{state}.fingerprint"
        if kept.is_file():
            return kept.read_text(encoding="utf-8").strip()
        fingerprint = self.digest()
        # Two changes within one tick of the file system's clock look like one: what is too new is not relied on.
        if self.state()[0] == state and time.time() - changed > CLOCK_TICK:
            with exclusive(kept), atomic_write(kept) as aside:
                aside.write_text(fingerprint + "\n", encoding="utf-8")
        return fingerprint

    def digest(self) -> str:
        """The fingerprint, from the files."""
        total = blake2b(digest_size=16)
        # A task of a single file would cost more than its digest.
        files = tuple(dict.fromkeys(self.paths))
        tasks = [files[first : first + 64] for first in range(0, len(files), 64)]

        def contents(paths: tuple[str, ...]) -> list[bytes]:
            return [path.encode() + b"\0" + digest_of(self.root / path) for path in paths]

        with explaining_os_errors(self.root, LOST), ThreadPoolExecutor() as executor:
            for digests in executor.map(contents, tasks):
                total.update(b"".join(digests))
        return total.hexdigest()

    def state(self) -> tuple[str, float]:
        """A digest of what the file system says of the files, and when (in seconds) the newest of them changed."""
        total, changed = blake2b(digest_size=16), 0
        with explaining_os_errors(self.root, LOST):
            for path in dict.fromkeys(self.paths):
                found = os.stat(os.path.join(self.root, path))
                what = (path, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
                total.update(repr(what).encode())
                changed = max(changed, found.st_mtime_ns, found.st_ctime_ns)
        return total.hexdigest(), changed / 1e9


def digest_of(path: Path) -> bytes:
    """BLAKE2b of a file, which may be larger than the memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, blake2b).digest()


def validated_on_test(utterances: Utterances) -> Utterances:
    """The test part in the place of the validation part, and the training part as it is."""
    train, test = (np.flatnonzero(utterances.parts == part) for part in ("train", "test"))
    changed = utterances.chosen(np.concatenate([train, test, test]))
    return replace(changed, parts=np.repeat(PARTS, [len(train), len(test), len(test)]))


def check_trainable(utterances: Utterances) -> None:
    """Raise ValueError if a part is empty, or a class has no training utterance."""
    name, root, split = repr(utterances.name), utterances.root, repr(utterances.split)
    for part in PARTS:
        if part not in utterances.parts:
            raise ValueError(
                f"The {part} part of {name} in {root} is empty under the split {split}; "
                "more utterances or another split are needed."
            )
    trained = set(utterances.labels[utterances.parts == "train"].tolist())
    for label, class_name in enumerate(utterances.class_names):
        if label not in trained:
            raise ValueError(
                f"The class {class_name!r} of {name} in {root} has no training utterance under the split "
                f"{split}; add utterances of it or take the class out."
            )


def check_counts(name: str, split: str, found: dict[str, int], *versions: dict[str, int]) -> None:
    """Hold a full set to the number of utterances that its publisher gives for each part, in one version or another.

    A set of which neither a part nor the whole is of a published size is a smaller one of the same layout, and is
    left alone.

    Raises:
        ValueError: naming each part that differs.
    """
    if found in versions:
        return
    for published in versions:
        wrong = [f"{part} {found[part]:,} (published: {n:,})" for part, n in published.items() if found[part] != n]
        if len(wrong) < len(published) or sum(found.values()) == sum(published.values()):
            raise ValueError(
                f"{name!r} under the split {split!r} has other counts than published: {', '.join(wrong)}. "
                "Files or lines of its lists are missing or added; unpack the archive again."
            )


def read_list(path: Path) -> list[str]:
    """The lines of a file list, each once.

    Raises:
        FileNotFoundError: if there is no such list.
        ValueError: if a line stands twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; the set's own file lists belong beside its recordings.")
    with explaining_os_errors(path.parent, LOST):
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    seen = set()
    for line in lines:
        if line in seen:
            raise ValueError(f"{path} names {line!r} twice; restore the list.")
        seen.add(line)
    return lines


def check_present(list_path: Path, names: list[str], present: Container[str]) -> None:
    """Raise FileNotFoundError if the list names recordings that are not there, with their number and the first."""
    missing = [name for name in names if name not in present]
    if missing:
        raise FileNotFoundError(
            f"{list_path} names {len(missing):,} of {len(names):,} recordings that are not there, the first "
            f"{missing[0]!r}; restore the files or the list."
        )
