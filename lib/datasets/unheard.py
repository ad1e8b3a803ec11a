"""Splits in which words are left out of training, and their recordings are what a network has never heard.

"without cat, dog" is a set's default split without these classes. "unheard cat, dog" has the same training and
validation parts, and as its test part the test utterances of these classes alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from lib.datasets.utterances import Utterances, check_trainable

FORMS = ("without ", "unheard ")
UNHEARD = -1  # the label of an utterance whose word the rest has no class for


def left_out(split: str, class_names: tuple[str, ...], groups: Mapping[str, Iterable[int]]) -> set[int]:
    """Labels of the classes that a split leaves out; ``groups`` are short names for the labels of several.

    Raises ValueError for an unknown class.
    """
    known = {**groups, **{name: (label,) for label, name in enumerate(class_names)}}
    names = [name.strip() for name in split.partition(" ")[2].split(",")]
    for name in names:
        if name not in known:
            raise ValueError(
                f"The split {split!r} leaves out {name!r}, which is no class of the set: it has "
                f"{', '.join([*class_names, *groups])}."
            )
    return {label for name in names for label in known[name]}


def leaving_out(utterances: Utterances, split: str, groups: Mapping[str, Iterable[int]]) -> Utterances:
    """The set under a split of one of the ``FORMS``; the labels and class names are those of the rest, in order.

    Raises ValueError for an unknown class, where fewer than two are left, and where the rest cannot be trained on.
    """
    out = left_out(split, utterances.class_names, groups)
    kept = [label for label in range(len(utterances.class_names)) if label not in out]
    if len(kept) < 2:
        raise ValueError(f"The split {split!r} has to leave two classes or more to be told apart.")
    renumbered = np.full(len(utterances.class_names), UNHEARD, dtype=utterances.labels.dtype)
    renumbered[kept] = np.arange(len(kept))
    is_out = renumbered[utterances.labels] == UNHEARD
    wanted = ~is_out
    if split.startswith("unheard "):
        wanted = np.where(utterances.parts == "test", is_out, ~is_out)
    chosen = utterances.chosen(np.flatnonzero(wanted))
    names = tuple(utterances.class_names[label] for label in kept)
    found = replace(chosen, split=split, class_names=names, labels=renumbered[chosen.labels])
    check_trainable(found)
    return found
