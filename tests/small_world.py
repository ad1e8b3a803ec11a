"""A small world for faults: what it holds, ways to damage it, and what can be asked for in it.

Recordings in the layouts of HD, SC and FSDD, SC's features, and a run that was trained, evaluated and put into a table.
"""

import hashlib
import itertools
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

from lib import datasets, posteriors, runs
from lib.datasets import downloads, fsdd
from lib.setup import Setup
from lib.study import tables

SC_SPEAKERS = {"train": "00000008", "other": "00000009", "validation": "00000007", "test": "00000002"}
TOY = {"dataset": "sc", "method": "map", "seed": 1, "num_frames": 20, "hidden_sizes": [4], "epochs": 2}

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
    for speaker, language, digit in itertools.product(("00", "10", "04"), ("english", "german"), range(10)):
        name = f"lang-{language}_speaker-{speaker}_trial-0_digit-{digit}.flac"
        sound(f"hd/audio/{name}")(world)
        listed["test" if speaker == "04" else "train"].append(name)
    for part, names in listed.items():
        (world / "hd" / f"{part}_filenames.txt").write_text("\n".join(names) + "\n")
    sound("fsdd/recordings/0_theo_0.wav", rate=8_000)(world)
    with patch.object(runs, "DATA", world):
        train()(world)
        tabulate(world)


# What is asked for: the library's functions, on the world's folders.


def load(name: str, root: str | None = None, **settings: Any) -> Callable:
    return lambda world: datasets.load(name, world / (root or name), datasets.get(name).settings(**settings))


def extract(name: str, snr: float | None = None, **settings: Any) -> Callable:
    return lambda world: runs.load_frames(setup(dataset=name, **settings), world / name, snr)


def setup(**other: Any) -> Setup:
    return Setup.of(TOY | other)


def train(**other: Any) -> Callable:
    return lambda world: runs.train(setup(**other), extract("sc")(world), world / "runs")


def find(world: World, **other: Any) -> runs.Run:
    return runs.find(setup(**other), extract("sc")(world), world / "runs")


def stored(name: str) -> Callable:
    return lambda world: getattr(find(world), name)


def evaluate(samples: int = 2, bins: int = 5) -> Callable:
    return lambda world: runs.evaluate(find(world), extract("sc")(world), samples, bins)


def tabulate(world: World) -> pd.DataFrame:
    return tables.write_table1({find(world): evaluate()(world)}, world / "runs")


def each(**asked: Any) -> Callable:
    given = {"dataset": "sc", "method": "map", "seed": 1} | asked
    return lambda world: list(runs.each({"num_frames": 20}, **given, results_root=world / "runs"))


def fetch(folders: tuple[str, ...] = ("http://127.0.0.1:9/",), space: int = 10**6, checksum: str = "") -> Callable:
    """HD's archive into "new/hd"; its published checksum is that of what lies there, where no other is given."""

    def ask(world):
        archive = world / "new" / "hd.tar.gz"
        known = checksum or f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"
        source = downloads.Source(folders, "hd.tar.gz", known, "train_filenames.txt", space)
        downloads.fetch("hd", (source,), world / "new" / "hd")

    return ask


def synthesise(root: str, **given: Any) -> Callable:
    return lambda world: datasets.get("synthetic-hd").make(world / root, **given)


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


def crowd(world: World) -> None:
    """FSDD's recordings but for one, without sound."""
    for digit, speaker, index in [*itertools.product(range(10), fsdd.SPEAKERS, range(50))][1:]:
        (world / f"fsdd/recordings/{digit}_{speaker}_{index}.wav").touch()
