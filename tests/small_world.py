"""A small world for faults: what it holds, ways to damage it, and what can be asked for in it.

Recordings in the layouts of HD, SC and FSDD, SC's features, and a run that was trained, evaluated and put into a table.
"""

import functools
import hashlib
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from full_disk import full_disk

from lib import datasets, downloads, experiment, features, posteriors, settings, synthesis, tables
from lib.pipeline.planning import notebooks_of, plan, read_defaults, read_settings

ROOT = Path(__file__).parents[1]
SC_SPEAKERS = {"train": "00000008", "other": "00000009", "validation": "00000007", "test": "00000002"}
HD_SPEAKERS = {"train": "00", "validation": "10", "test": "04"}
CHOSEN = {"dataset": "sc", "method": "map", "seed": 1, "num_frames": 20, "hidden_sizes": [4], "epochs": 2}

World = Path


def make(world: World) -> None:
    """Recordings of every class by a speaker of each part, and what is computed from SC's."""
    for word in ("bed", "yes"):
        for speaker in SC_SPEAKERS.values():
            sound(f"sc/{word}/{speaker}_nohash_0.wav")(world)
    for part, name in (("validation", "validation_list.txt"), ("test", "testing_list.txt")):
        names = [f"{word}/{SC_SPEAKERS[part]}_nohash_0.wav" for word in ("bed", "yes")]
        (world / "sc" / name).write_text("\n".join(names) + "\n")
    listed = {"train": [], "test": []}
    for part, speaker in HD_SPEAKERS.items():
        for language in ("english", "german"):
            for digit in range(10):
                name = f"lang-{language}_speaker-{speaker}_trial-0_digit-{digit}.flac"
                sound(f"hd/audio/{name}")(world)
                listed["test" if part == "test" else "train"].append(name)
    for part, names in listed.items():
        (world / "hd" / f"{part}_filenames.txt").write_text("\n".join(names) + "\n")
    sound("fsdd/recordings/0_theo_0.wav", rate=8_000)(world)
    extract("sc")(world)
    with patch.object(experiment, "DATA", world):
        run = train()(world)
        tables.write({run: evaluate()(world)}, chosen(world))


# What is asked for: the library's functions, on the world's folders.


def load(name: str, split: str | None = None, root: str | None = None, validation: str | None = None) -> Callable:
    return lambda world: datasets.load(name, split, world / (root or name), validation)


def extract(name: str, **settings: Any) -> Callable:
    return lambda world: features.extract(load(name)(world), world / "features", **{"frames": 20, **settings})


def chosen(world: World, **other: Any) -> dict[str, Any]:
    return CHOSEN | {"data_root": world / "sc", "results_root": world / "runs"} | other


def frames(world: World, **other: Any) -> features.Frames:
    return experiment.load_frames(chosen(world, **other), "sc")


def train(**other: Any) -> Callable:
    return lambda world: experiment.train(frames(world), chosen(world, **other))


def find(world: World) -> experiment.Run:
    return experiment.find(frames(world), chosen(world))


def history(world: World) -> pd.DataFrame:
    return find(world).history


def evaluate(samples: int = 2, bins: int = 5) -> Callable:
    return lambda world: experiment.evaluate(find(world), frames(world), samples, bins)


def tabulate(world: World) -> pd.DataFrame:
    return tables.write({find(world): evaluate()(world)}, chosen(world))


def notebook(name: str, **parameters: Any) -> Callable:
    return lambda world: settings.checked(parameters, name)


@functools.cache
def declared() -> dict[str, dict[str, Any]]:
    return {stem: read_defaults(ROOT / "book" / f"{stem}.ipynb") for stem in notebooks_of(ROOT)}


def plan_from(name: str) -> Callable:
    return lambda world: plan(read_settings(world / name), declared())


def fetch(folders: tuple[str, ...] = ("http://127.0.0.1:9/",), space: int = 10**6, checksum: str = "") -> Callable:
    """HD's archive into "new/hd"; its published checksum is that of what lies there, where no other is given."""

    def ask(world):
        archive = world / "new" / "hd.tar.gz"
        known = checksum or f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"
        source = downloads.Source(folders, "hd.tar.gz", "hd.tar.gz", known, "train_filenames.txt", space)
        with patch.dict(downloads.SOURCES, hd=source):
            downloads.fetch("hd", world / "new" / "hd")

    return ask


def synthesise(name: str, root: str, **settings: Any) -> Callable:
    return lambda world: synthesis.make(name, world / root, **settings)


def on_a_full_disk(ask: Callable, after: int = 0) -> Callable:
    def asked(world):
        with full_disk(after):
            ask(world)

    return asked


def with_little_room(ask: Callable) -> Callable:
    def asked(world):
        with patch.object(shutil, "disk_usage", return_value=shutil.disk_usage(world)._replace(free=1_000)):
            ask(world)

    return asked


# What is wrong: changes of one file or folder of the world, whose name may be a pattern.


def path_in(world: World, name: str) -> Path:
    (path,) = [*world.glob(name)] or [world / name]
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def nothing(world: World) -> None:
    """Nothing is wrong but what is asked for."""


def removed(name: str) -> Callable:
    def change(world):
        path = path_in(world, name)
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def emptied(name: str) -> Callable:
    return both(removed(name), lambda world: (world / name).mkdir())


def holds(name: str, content: str | bytes) -> Callable:
    return lambda world: path_in(world, name).write_bytes(content.encode() if isinstance(content, str) else content)


def folder_instead(name: str) -> Callable:
    def change(world):
        path = path_in(world, name)
        path.unlink()
        (path / "inside").mkdir(parents=True)

    return change


def mode(name: str, of: int) -> Callable:
    return lambda world: path_in(world, name).chmod(of)


def link_to_nowhere(name: str) -> Callable:
    return both(removed(name), lambda world: (world / name).symlink_to("nowhere"))


def cut(name: str, part: float) -> Callable:
    def change(world):
        path = path_in(world, name)
        path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])

    return change


def lines(name: str, of: Callable[[list[str]], list[str]]) -> Callable:
    def change(world):
        path = path_in(world, name)
        path.write_text("\n".join(of(path.read_text().splitlines())) + "\n")

    return change


def sound(name: str, rate: int = 16_000, seconds: float = 0.25, channels: int = 1, value: float = 0.1) -> Callable:
    def change(world):
        samples = np.full((int(rate * seconds), channels), value)
        subtype = "FLOAT" if np.isnan(value) else "PCM_16"
        soundfile.write(path_in(world, name), samples, rate, subtype=subtype)

    return change


def record(change: Callable[[dict], None], name: str = "runs/*/run.json") -> Callable:
    def rewrite(world):
        path = path_in(world, name)
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return rewrite


def tensors(name: str, change: Callable[[dict], Any]) -> Callable:
    def rewrite(world):
        path = path_in(world, name)
        content = torch.load(path, weights_only=True)
        change(content)
        torch.save(content, path)

    return rewrite


def archive(*members: tarfile.TarInfo) -> Callable:
    def make(world):
        with tarfile.open(path_in(world, "new/hd.tar.gz"), "w:gz") as tar:
            for member in (tarfile.TarInfo("hd/train_filenames.txt"), *members):
                tar.addfile(member)

    return make


def link(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


def both(*changes: Callable) -> Callable:
    def change(world):
        for one in changes:
            one(world)

    return change


def interrupted_training(epochs: int = 1) -> Callable:
    """A training that the user interrupts in the validation after so many epochs: its checkpoint is there."""

    def change(world):
        with pytest.raises(KeyboardInterrupt):
            interrupted(train(seed=2), epochs)(world)

    return change


def interrupted(ask: Callable, epochs: int) -> Callable:
    def asked(world):
        predict, calls = posteriors.predict, []

        def heed(*given):
            calls.append(given)
            if len(calls) > epochs:
                raise KeyboardInterrupt
            return predict(*given)

        with patch.object(posteriors, "predict", heed):
            ask(world)

    return asked


class Code:
    """Code that a pickle would run: it would put a file into the working folder."""

    def __reduce__(self):
        return (open, ("code-was-run", "w"))


def crowd(folder: Path) -> None:
    """FSDD's recordings but for one, without sound."""
    for speaker in datasets.fsdd.SPEAKERS:
        for digit in range(10):
            for index in range(50):
                (folder / f"{digit}_{speaker}_{index}.wav").touch()
    (folder / "0_george_0.wav").unlink()
