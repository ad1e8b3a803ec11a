"""What goes into a network: the features of a set, computed once and mapped from the disk ever after."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, Int64, Real, Shaped, UInt8
from torch import Tensor

from lib.datasets import PARTS, Utterances
from lib.files import atomic_write, check_space, exclusive


@dataclass(frozen=True, eq=False)
class Frames:
    """Features of a set, every utterance of the same number of frames: log-mel energies, or numbers of spikes.

    The utterances of a part stand together, so that a part is a view and not a copy.
    """

    features: Float32[Tensor, "utterance time feature"] | UInt8[Tensor, "utterance time feature"]
    labels: Int64[Tensor, " utterance"]
    parts: Shaped[np.ndarray, " utterance"]
    class_names: tuple[str, ...]
    fingerprint: str

    def part(self, name: str) -> "Frames":
        """The utterances of one part: "train", "validation" or "test"."""
        if name not in PARTS:
            raise ValueError(f"No part is called {name!r}; the parts are {', '.join(PARTS)}.")
        chosen = np.flatnonzero(self.parts == name)
        rows = slice(chosen[0], chosen[-1] + 1) if len(chosen) else slice(0)
        if len(self.parts[rows]) != len(chosen):
            raise ValueError(f"The utterances of the part {name!r} do not stand together; order them by their parts.")
        return replace(self, features=self.features[rows], labels=self.labels[rows], parts=self.parts[rows])


def data_settings(utterances: Utterances, cache: Path) -> dict[str, Any]:
    """What features are determined by on the side of the data: the files, and the part that each utterance is in."""
    return {
        "data": utterances.fingerprint(cache),
        "parts": blake2b(" ".join(utterances.parts).encode(), digest_size=16).hexdigest(),
        "order": PARTS,
    }


def by_part(utterances: Utterances) -> Utterances:
    """The training part first, then validation and test, each in the order in which it was."""
    return utterances.chosen(np.concatenate([np.flatnonzero(utterances.parts == part) for part in PARTS]))


def cached(
    utterances: Utterances,
    cache: Path,
    settings: dict[str, Any],
    shape: tuple[int, int],
    dtype: type[np.generic],
    compute: Callable[[Path], None],
) -> Frames:
    """Map the features of `utterances`, which `compute` writes to a path where the cache lacks them.

    `settings` are all that determines them; `shape` and `dtype` are those of one utterance's features, [time, feature].

    Raises:
        ValueError: if what lies in the cache is damaged.
        OSError: if the disk has not room enough.
    """
    key = blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()
    name = f"{utterances.name}-{key}"
    features_path, settings_path = cache / f"{name}.npy", cache / f"{name}.json"
    shape = (len(utterances), *shape)
    # The settings are written last, so where they stand the features are whole.
    if not settings_path.is_file():
        with exclusive(cache / name):
            if not settings_path.is_file():
                check_space(f"features of {utterances.name}", np.dtype(dtype).itemsize * math.prod(shape), cache)
                with atomic_write(features_path) as aside:
                    compute(aside)
                with atomic_write(settings_path) as aside:
                    aside.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    try:
        features = np.load(features_path, mmap_mode="c")
    except (OSError, ValueError) as error:
        raise ValueError(f"{features_path} cannot be read ({error}); delete {settings_path} and run again.") from error
    if features.shape != shape or features.dtype != dtype:
        raise ValueError(f"{features_path} does not hold features of shape {shape}; delete it and {settings_path}.")
    return Frames(
        features=torch.from_numpy(features),
        labels=torch.from_numpy(utterances.labels),
        parts=utterances.parts,
        class_names=utterances.class_names,
        fingerprint=settings["data"],
    )


@runtime_checkable
class Examples(Protocol):
    """Features and labels to train on, such as ``Frames``; they may be memory-mapped."""

    features: Real[Tensor, "utterance time feature"]
    labels: Int64[Tensor, " utterance"]
