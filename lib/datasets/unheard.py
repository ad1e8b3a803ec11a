"""Splits in which words are left out of training, and their recordings are what a network has never heard.

"without cat, dog" is a set's default split without these classes. "unheard cat, dog" has the same training and
validation parts, and as its test part the test utterances of these classes alone.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from lib.datasets.utterances import Utterances, check_trainable

FORMS = ("without ", "unheard ")
UNHEARD = -1  # the label of an utterance whose word the rest has no class for


def left_out(split: str, class_names: tuple[str, ...], groups: Mapping[str, tuple[str, ...]]) -> set[int]:
    """Labels of the classes that a split leaves out; ``groups`` are short names for several of them.

    Raises ValueError for an unknown class, and where fewer than two are left.
    """
    named = [name.strip() for name in split.partition(" ")[2].split(",")]
    names = [name for one in named for name in groups.get(one, (one,))]
    for name in names:
        if name not in class_names:
            known = ", ".join([*class_names, *groups])
            raise ValueError(f"The split {split!r} leaves out {name!r}, which is no class of the set: it has {known}.")
    labels = {class_names.index(name) for name in names}
    if len(class_names) - len(labels) < 2:
        raise ValueError(f"The split {split!r} has to leave two classes or more to be told apart.")
    return labels


def leaving_out(utterances: Utterances, split: str, groups: Mapping[str, tuple[str, ...]]) -> Utterances:
    """The set under a split of one of the ``FORMS``; the labels and class names are those of the rest, in order."""
    out = left_out(split, utterances.class_names, groups)
    kept = [label for label in range(len(utterances.class_names)) if label not in out]
    renumbered = np.full(len(utterances.class_names), UNHEARD, dtype=utterances.labels.dtype)
    renumbered[kept] = np.arange(len(kept))
    is_out = np.isin(utterances.labels, list(out))
    wanted = ~is_out
    if split.startswith("unheard "):
        wanted = np.where(utterances.parts == "test", is_out, ~is_out)
    chosen = utterances.chosen(np.flatnonzero(wanted))
    names = tuple(utterances.class_names[label] for label in kept)
    found = replace(chosen, split=split, class_names=names, labels=renumbered[chosen.labels])
    check_trainable(found)
    return found
