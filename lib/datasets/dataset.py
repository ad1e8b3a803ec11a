"""What there is to say about a data set, and what one does with it.

Every set has splits in which classes are held out from training, to ask what a network makes of words that it was not
taught. "without cat, dog" is its default split without these classes. "held-out cat, dog" has the same training and
validation parts, and as its test part the test utterances of these classes alone.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lib import synthesis
from lib.datasets import downloads
from lib.datasets.downloads import Source
from lib.datasets.layout import shown, visible
from lib.datasets.utterances import DataSettings, Utterances, check_trainable
from lib.features import Frames
from lib.settings import folder_named

HOLDING_OUT = ("without ", "held-out ")
HELD_OUT = -1  # the label of an utterance whose class the rest does not have


@dataclass(frozen=True, eq=False, kw_only=True)
class DataSet:
    """A set, each in a file of its own that says all about it.

    ``mark`` is a pattern of what a folder must hold to be taken for the set at all, and ``read(name, split, root)``
    loads it from there; the settings' ``layout`` is given to it by name. A set without a validation part has
    ``validation_speakers``, who are held out from training for it.
    ``groups`` are short names for the labels of several classes. A published set has ``sources``; a synthetic one is
    made: ``make(root, utterances, seed)`` (``synthetic``); one with neither is the user's own.
    """

    name: str
    settings: type[DataSettings]
    splits: tuple[str, ...]
    default_split: str
    mark: str
    read: Callable[..., Utterances]
    licence: str
    citation: str
    validation_speakers: tuple[str, ...] = ()
    groups: Mapping[str, Iterable[int]] = field(default_factory=dict)
    sources: tuple[Source, ...] = ()
    make: Callable[..., None] | None = None

    def prepare(self, root: str | Path) -> None:
        """Make the set in the folder ``root``, or download it there; what a folder holds already is left as it is.

        Raises ``ValueError`` where a synthetic set's folder holds something else or an archive is not what was
        published, ``ConnectionError`` if no server gives the whole archive, ``OSError`` if the disk is too small, and
        ``FileNotFoundError`` for a link to nowhere and where the set can only be the user's own.
        """
        root = folder_named(root)
        if self.make is not None:
            self.make(root)
        elif not (root.is_dir() and visible(root)):
            if not self.sources:
                raise FileNotFoundError(f"{self.name!r} is recordings of your own: give their folder as data_root")
            downloads.fetch(self.name, self.sources, root)

    def load(self, root: str | Path, settings: DataSettings | None = None) -> Utterances:
        """Load the set from the folder that holds its own layout, under the split that the settings name.

        Raises ``ValueError`` if the split is unknown or the files do not make a whole set, ``FileNotFoundError`` if the
        folder does not hold the set or a list names recordings that are not there.
        """
        root, settings = folder_named(root), self.settings() if settings is None else settings
        if root.is_symlink() and not root.exists():
            raise FileNotFoundError(f"{root} is a link to what is not there: make its target, or delete the link")
        split = settings.split or self.default_split
        holds_out = split.startswith(HOLDING_OUT)
        if not holds_out and split not in self.splits:
            raise ValueError(
                f"{self.name!r} has no split called {split!r}: its splits are {', '.join(self.splits)}, and 'without' "
                "or 'held-out' with the names of classes"
            )
        if settings.validation == "speaker" and not self.validation_speakers:
            raise ValueError(f"{self.name!r} has a validation part of its own: leave validation out, or make it 'test'")
        if not any(root.glob(self.mark)):
            raise FileNotFoundError(
                f"{root} does not hold the set {self.name!r}, there is no {self.mark!r} in it: give the folder that "
                "holds the set's own layout (data/README.md shows it and says how to get the set)"
            )
        utterances = self.read(self.name, self.default_split if holds_out else split, root, **settings.layout())
        if settings.validation == "test":
            train, test = (np.flatnonzero(utterances.parts == part) for part in ("train", "test"))
            # In this order, which the fingerprints of stored runs have.
            parts = np.repeat(["train", "test", "validation"], [len(train), len(test), len(test)])
            utterances = replace(utterances.chosen(np.concatenate([train, test, test])), parts=parts)
        elif self.validation_speakers:
            moved = (utterances.parts == "train") & np.isin(utterances.speakers, self.validation_speakers)
            utterances = replace(utterances, parts=np.where(moved, "validation", utterances.parts))
        check_trainable(utterances)
        if settings.share < 1:
            utterances = utterances.reduced(settings.share)
        for remark in utterances.remarks:
            warnings.warn(f"{self.name!r} in {shown(root)}: {remark}", stacklevel=2)
        return holding_out(utterances, split, self.groups) if holds_out else utterances

    def frames(self, utterances: Any, settings: DataSettings, cache: str | Path, snr: float | None = None) -> Frames:
        """Return what a network is given of the loaded set, computed once in the folder ``cache``.

        With ``snr`` there is noise in the test part's waveforms, so many dB below the speech. Raises ``ValueError`` for
        a damaged recording and for an ``snr`` where there are no waveforms.
        """
        return utterances.frames(settings, Path(cache), snr)


def holding_out(utterances: Utterances, split: str, groups: Mapping[str, Iterable[int]]) -> Utterances:
    """Return the set under a split that holds classes out; labels and class names are those of the rest, in order.

    Raises ``ValueError`` for an unknown class, where fewer than two are left, and where the rest cannot be trained on.
    """
    names = utterances.class_names
    known = {**groups, **{name: (label,) for label, name in enumerate(names)}}
    out = [name.strip() for name in split.partition(" ")[2].split(",")]
    for name in out:
        if name not in known:
            raise ValueError(
                f"the split {split!r} holds out {name!r}, which is no class of the set: {', '.join(known)}"
            )
    rest = sorted(set(range(len(names))).difference(*(known[name] for name in out)))
    if len(rest) < 2:
        raise ValueError(f"the split {split!r} has to leave two classes or more to be told apart")
    renumbered = np.full(len(names), HELD_OUT, dtype=utterances.labels.dtype)
    renumbered[rest] = np.arange(len(rest))
    wanted = renumbered[utterances.labels] != HELD_OUT
    if split.startswith("held-out "):
        wanted ^= utterances.parts == "test"
    chosen = utterances.chosen(np.flatnonzero(wanted))
    rest_names = tuple(names[label] for label in rest)
    found = replace(chosen, split=split, class_names=rest_names, labels=renumbered[chosen.labels])
    check_trainable(found)
    return found


def synthetic(like: DataSet, name: str, usual: int, **recipe: Any) -> DataSet:
    """Return a set in the layout of another that is made here, by a ``recipe`` of ``synthesis.make``.

    It makes as many utterances as are usual, or asked for, to the nearest number at which every speaker says every word
    equally often, and None is the number that was published. Raises ``ValueError`` for too few.
    """

    def make(root: str | Path, utterances: int | None = usual, seed: int = 0) -> None:
        synthesis.make(name, folder_named(root), utterances, seed, **recipe)

    citation = "eSpeak NG, from the package espeakng-loader"
    return replace(like, name=name, sources=(), make=make, licence="made here, not given out", citation=citation)
