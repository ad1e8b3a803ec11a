"""Recordings and their spikes on disk, in the layouts in which their publishers give them out.

Each set has a loader in a file of its own; the synthetic sets are read by the loader whose layout they have.
"""

from pathlib import Path

from lib.datasets import fsdd, hd, sc, shd, ssc
from lib.datasets.speech import Speech
from lib.datasets.spikes import SpikeTrains
from lib.datasets.unheard import FORMS, leaving_out
from lib.datasets.utterances import PARTS, Utterances, validated_on_test

__all__ = ["DEFAULT_SPLITS", "LOADERS", "PARTS", "Speech", "SpikeTrains", "Utterances", "load"]

LOADERS = {
    "hd": hd,
    "sc": sc,
    "fsdd": fsdd,
    "shd": shd,
    "ssc": ssc,
    "synthetic-hd": hd,
    "synthetic-sc": sc,
    "synthetic-shd": shd,
}
DEFAULT_SPLITS = {hd: "official", sc: "official", fsdd: "speaker-theo", shd: "official", ssc: "official"}

# Short names for several classes, in splits that leave them out; by label, since SHD's files give the names themselves.
LANGUAGES = {"english": range(10), "german": range(10, 20)}
GROUPS = {hd: LANGUAGES, shd: LANGUAGES}

# What a folder must hold to be taken for the set at all.
MARKS = {
    hd: "audio",
    sc: "validation_list.txt",
    fsdd: "recordings",
    shd: shd.FILES["train"],
    ssc: ssc.FILES["train"],
}


def load(name: str, split: str | None, root: str | Path, validation: str | None = None) -> Utterances:
    """Load a set under a named split (None: the set's default) from the folder that holds its own layout.

    Recordings are returned as `Speech`, spikes as `SpikeTrains`. Every set has splits that leave classes out, "without
    cat, dog" and "unheard cat, dog" (`unheard`).

    `validation` is what training looks at to choose: "test", the test part itself, to see what that flatters; in HD's
    and SHD's layouts, which have no validation part, also "speaker" (None means this there).

    Raises:
        ValueError: if a name is unknown or the files do not make a whole set.
        FileNotFoundError: if the folder does not hold the set, or a list names recordings that are not there.
    """
    if name not in LOADERS:
        raise ValueError(f"No data set is called {name!r}; the sets are {', '.join(LOADERS)}.")
    loader = LOADERS[name]
    if split is not None and split.startswith(FORMS):
        return leaving_out(load(name, None, root, validation), split, GROUPS.get(loader, {}))
    split = DEFAULT_SPLITS[loader] if split is None else split
    if split not in loader.SPLITS:
        raise ValueError(
            f"{name!r} has no split called {split!r}; its splits are {', '.join(loader.SPLITS)}, and 'without' "
            "or 'unheard' with the names of classes."
        )
    root = Path(root)
    if not (root / MARKS[loader]).exists():
        raise FileNotFoundError(
            f"{root} does not hold the set {name!r}: there is no {MARKS[loader]!r} in it; give the folder that "
            "holds the set's own layout (data/README.md shows it and says how to get the set)."
        )
    if validation not in (None, "speaker", "test"):
        raise ValueError(f"`validation` is 'speaker' or 'test', not {validation!r}.")
    if loader in (hd, shd):
        return loader.load(name, split, root, validation or "speaker")
    if validation == "speaker":
        raise ValueError(f"{name!r} has a validation part of its own; leave `validation` out, or make it 'test'.")
    loaded = loader.load(name, split, root)
    return loaded if validation is None else validated_on_test(loaded)
