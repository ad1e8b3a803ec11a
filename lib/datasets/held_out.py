"""Splits in which classes are held out from training, to ask what a network makes of words that it was not taught.

"without cat, dog" is a set's default split without these classes. "held-out cat, dog" has the same training and
validation parts, and as its test part the test utterances of these classes alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from lib.datasets.utterances import Utterances, check_trainable

FORMS = ("without ", "held-out ")
HELD_OUT = -1  # the label of an utterance whose class the rest does not have


def labels_held_out(split: str, class_names: tuple[str, ...], groups: Mapping[str, Iterable[int]]) -> set[int]:
    """Return the labels of the classes that a split names; ``groups`` are short names for the labels of several.

    Raises ``ValueError`` for an unknown class.
    """
    known = {**groups, **{name: (label,) for label, name in enumerate(class_names)}}
    names = [name.strip() for name in split.partition(" ")[2].split(",")]
    for name in names:
        if name not in known:
            raise ValueError(
                f"the split {split!r} holds out {name!r}, which is no class of the set: {', '.join(known)}"
            )
    return {label for name in names for label in known[name]}


def holding_out(utterances: Utterances, split: str, groups: Mapping[str, Iterable[int]]) -> Utterances:
    """Return the set under a split of one of the ``FORMS``; labels and class names are those of the rest, in order.

    Raises ``ValueError`` for an unknown class, where fewer than two are left, and where the rest cannot be trained on.
    """
    out = labels_held_out(split, utterances.class_names, groups)
    rest = [label for label in range(len(utterances.class_names)) if label not in out]
    if len(rest) < 2:
        raise ValueError(f"the split {split!r} has to leave two classes or more to be told apart")
    renumbered = np.full(len(utterances.class_names), HELD_OUT, dtype=utterances.labels.dtype)
    renumbered[rest] = np.arange(len(rest))
    is_out = renumbered[utterances.labels] == HELD_OUT
    wanted = ~is_out
    if split.startswith("held-out "):
        wanted = np.where(utterances.parts == "test", is_out, ~is_out)
    chosen = utterances.chosen(np.flatnonzero(wanted))
    names = tuple(utterances.class_names[label] for label in rest)
    found = replace(chosen, split=split, class_names=names, labels=renumbered[chosen.labels])
    check_trainable(found)
    return found
