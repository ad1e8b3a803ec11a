"""What every set is once it is loaded: labelled utterances with their files, speakers and parts."""

import errno
import hashlib
import json
import math
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, Shaped

from lib.features import PARTS, Frames
from lib.files import atomic_write, check_space, exclusive, explaining_os_errors, or_damaged, write_json
from lib.settings import TEXT, Settings, choice, optional, real, setting, whole

CLOCK_TICK = 2  # seconds, of the coarsest file systems
TASK = 64  # files that a thread digests at a time: a task of a single file would cost more than its digest

# What the system may refuse about a file of a set, in words.
LOST = dict.fromkeys(
    (errno.ENOENT, errno.EISDIR, errno.EACCES),
    "a file of {} is gone, a folder or not to be read; restore it",
)


@dataclass(frozen=True)
class DataSettings(Settings):
    """What all sets can be asked for.

    ``split`` None is the set's default. ``validation`` "test" takes the test part for validation, too, to see what that
    flatters, as the earlier baseline did; "speaker" is what sets without a validation part do by themselves. Of the
    training part a ``share`` below 1 keeps some speakers, those of a smaller share among them (``Utterances.reduced``).
    """

    split: str | None = setting(None, optional(TEXT))
    validation: str | None = setting(None, optional(choice("speaker", "test")))
    num_frames: int = setting(100, whole(2, 10_000))
    share: float = setting(1.0, real(0, 1, above=True), before=1.0)

    def layout(self) -> dict[str, Any]:
        """What the set's ``read`` is told of the files beside the split."""
        return {}


class Utterance(NamedTuple):
    """One recording as it is found: its file relative to the root, and what its name says."""

    path: str
    label: int
    speaker: str
    part: str


@dataclass(frozen=True, eq=False)
class Utterances:
    """A set of labelled utterances on disk, each in one part of a named split.

    ``paths`` are the files that they lie in, relative to ``root``; ``labels`` index ``class_names``; ``parts`` holds
    "train", "validation" or "test". An utterance that serves both validation and test stands twice. ``remarks`` are
    sentences that whoever loads the set is to read.
    """

    name: str
    split: str
    root: Path
    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: Int64[np.ndarray, " utterance"]
    speakers: Shaped[np.ndarray, " utterance"]
    parts: Shaped[np.ndarray, " utterance"]
    remarks: tuple[str, ...] = field(default=(), kw_only=True)

    def __len__(self) -> int:
        """Number of utterances."""
        return len(self.paths)

    def part(self, name: str) -> "Utterances":
        """Return the utterances of one part: "train", "validation" or "test"."""
        if name not in PARTS:
            raise ValueError(f"no part is called {name!r}: the parts are {', '.join(PARTS)}")
        return self.chosen(np.flatnonzero(self.parts == name))

    def chosen(self, indices: Int64[np.ndarray, " chosen"]) -> "Utterances":
        """Return some of the utterances, in the order of ``indices``."""
        arrays = {name: value[indices] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return replace(self, paths=tuple(self.paths[index] for index in indices), **arrays)

    def reduced(self, share: float) -> "Utterances":
        """Return the set with about this share of its training part, all of validation and test.

        A speaker stays, with everything they say, or goes: a digest of the name puts each at a place from 0 to 1, and
        those below the share stay. Raises ``ValueError`` if a class of the training part would be lost.
        """
        training = self.parts == "train"
        stays = ~training | np.array([place_of(speaker) < share for speaker in self.speakers])
        lost = set(self.labels[training].tolist()) - set(self.labels[training & stays].tolist())
        if lost:
            raise ValueError(
                f"a share of {share:g} of the training speakers of {self.name!r} leaves none who says "
                f"{self.class_names[min(lost)]!r}: give a larger share"
            )
        return self.chosen(np.flatnonzero(stays))

    def fingerprint(self, cache: Path | None = None) -> str:
        """BLAKE2b (32 hexadecimal digits) over the relative paths and contents of the files, each once, in order.

        Reading gigabytes takes minutes, so the fingerprint is cached in the folder ``cache``, if one is given, and
        found there as long as every file has the size, the times of change and the inode that it had.
        """
        if cache is None:
            return self.digest()
        state, changed = self.state()
        path = cache / f"{self.name}-{state}.fingerprint"
        if path.is_file() and re.fullmatch(rb"[0-9a-f]{32}\n", known := path.read_bytes()):
            return known.decode().strip()
        fingerprint = self.digest()
        # Two changes within one tick of the file system's clock look like one: what is too new is not relied on.
        if self.state()[0] == state and time.time() - changed > CLOCK_TICK:
            with exclusive(path), atomic_write(path) as aside:
                aside.write_text(fingerprint + "\n", encoding="utf-8")
        return fingerprint

    def digest(self) -> str:
        """Compute the fingerprint from the files, which may be larger than the memory."""
        total, files = blake2b(digest_size=16), tuple(dict.fromkeys(self.paths))

        def contents(first: int) -> bytes:
            found = b""
            for path in files[first : first + TASK]:
                with (self.root / path).open("rb") as file:
                    found += path.encode() + b"\0" + hashlib.file_digest(file, blake2b).digest()
            return found

        with explaining_os_errors(self.root, LOST), ThreadPoolExecutor() as executor:
            for found in executor.map(contents, range(0, len(files), TASK)):
                total.update(found)
        return total.hexdigest()

    def state(self) -> tuple[str, float]:
        """Return a digest of what the file system says of the files, and when (in seconds) the newest was changed."""
        total, changed = blake2b(digest_size=16), 0
        with explaining_os_errors(self.root, LOST):
            for path in dict.fromkeys(self.paths):
                found = os.stat(os.path.join(self.root, path))
                what = (path, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
                total.update(repr(what).encode())
                changed = max(changed, found.st_mtime_ns, found.st_ctime_ns)
        return total.hexdigest(), changed / 1e9

    def by_part(self) -> list[int]:
        """Return the places of the training part's utterances, then of validation and test, each in their order."""
        return np.concatenate([np.flatnonzero(self.parts == part) for part in PARTS]).tolist()

    def cached(
        self,
        places: Int64[np.ndarray, " row"],
        cache: Path,
        settings: Mapping[str, Any],
        shape: tuple[int, int],
        dtype: type[np.generic],
        write: Callable[[Path], dict[str, Any] | None],
    ) -> Frames:
        """Map the features of the utterances at ``places``, which ``write`` writes where the cache lacks them.

        ``settings`` are all that determines them beside the data; ``shape`` and ``dtype`` are those of one utterance's
        features, [time, feature]. What ``write`` returns is kept with them, and is ``Frames.heard``. Raises
        ``ValueError`` if what lies in the cache is damaged.
        """
        parts = blake2b(" ".join(self.parts).encode(), digest_size=16).hexdigest()
        settings = {"data": self.fingerprint(cache), "parts": parts, "order": PARTS} | dict(settings)
        key = blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()
        path, shape = cache / f"{self.name}-{key}.npy", (len(places), *shape)
        described = path.with_suffix(".json")

        def stored() -> dict[str, Any] | None:
            """The settings are written last, so where they stand, and are these, the features are whole."""
            with suppress(OSError, ValueError, AttributeError):
                found = json.loads(described.read_bytes())
                if {**found, "heard": None} == json.loads(json.dumps({**settings, "heard": None})):
                    return found
            return None

        if not stored():
            with exclusive(path.with_suffix("")):
                if not stored():
                    check_space(f"features of {self.name}", np.dtype(dtype).itemsize * math.prod(shape), cache)
                    with atomic_write(path) as aside:
                        heard = write(aside)
                    write_json(described, settings | {"heard": heard})
        heard = (stored() or {}).get("heard")
        with or_damaged(path, f"delete {described} and run again"):
            features = mapped(path)
            if features.shape != shape or features.dtype != dtype:
                raise ValueError(f"it does not hold features of shape {shape}")
            if features.dtype.kind == "f" and not np.isfinite(features.sum()):
                raise ValueError("it holds features that are not finite numbers")
        labels, parts, speakers = torch.from_numpy(self.labels[places]), self.parts[places], self.speakers[places]
        return Frames(torch.from_numpy(features), labels, parts, speakers, self.class_names, settings["data"], heard)


def place_of(speaker: Any) -> float:
    """Return where a speaker stands among all, from 0 to 1, by their name alone; the words before it are a salt."""
    return int.from_bytes(blake2b(f"share of {speaker}".encode(), digest_size=8).digest(), "big") / 2**64


def mapped(path: Path) -> np.ndarray:
    """Map an array on disk, of which what is written stays in memory; some disks cannot, and it is read whole."""
    try:
        return np.load(path, mmap_mode="c")
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.EOPNOTSUPP):
            raise
        return np.load(path)


def check_trainable(utterances: Utterances) -> None:
    """Raise ``ValueError`` if a part is empty, or a class has no training utterance."""
    of = f"of {utterances.name!r} in {utterances.root}"
    for part in PARTS:
        if part not in utterances.parts:
            raise ValueError(
                f"the {part} part {of} is empty under the split {utterances.split!r}: "
                "more utterances or another split are needed"
            )
    trained = set(utterances.labels[utterances.parts == "train"].tolist())
    for label, class_name in enumerate(utterances.class_names):
        if label not in trained:
            raise ValueError(
                f"the class {class_name!r} {of} has no training utterance under the split {utterances.split!r}: "
                "add utterances of it or take the class out"
            )


def check_counts(name: str, split: str, parts: Iterable[str], *versions: dict[str, int]) -> None:
    """Hold a full set to the number of utterances that its publisher gives for each part, in one version or another.

    A set of which neither a part nor the whole is of a published size is a smaller one of the same layout, and is
    left alone. Raises ``ValueError`` that names each part that differs.
    """
    counts = Counter(parts)
    if counts in versions:
        return
    for published in versions:
        wrong = [f"{part} {counts[part]:,} (published: {n:,})" for part, n in published.items() if counts[part] != n]
        if len(wrong) < len(published) or counts.total() == sum(published.values()):
            raise ValueError(
                f"{name!r} under the split {split!r} has other counts than published: {', '.join(wrong)}. "
                "Files or lines of its lists are missing or added: unpack the archive again"
            )
