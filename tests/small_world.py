"""A small world for faults: what it holds, ways to damage it, and what can be asked for in it.

Recordings in the layouts of HD, SC and FSDD, SC's features, and a run that was trained, evaluated and put into a table.
"""

import errno
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import h5py
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


def of_world(act: Callable) -> Callable:
    """What is done or asked is said first and the world given later: ``removed("hd")(world)``."""
    return wraps(act)(lambda *given, **named: lambda world: act(world, *given, **named))


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
    for word, speaker in itertools.product(("ja", "nein"), ("anna", "bert", "cleo", "dora")):
        sound(f"words/{word}/{speaker}_1.wav")(world)
    with patch.object(runs, "DATA", world):
        train()(world)
        tabulate()(world)


# What is asked for: the library's functions, on the world's folders.


@of_world
def load(world: World, name: str, root: str | None = None, **settings: Any) -> datasets.Utterances:
    return datasets.load(name, world / (root or name), datasets.get(name).settings(**settings))


def setup(**other: Any) -> Setup:
    return Setup.of(TOY | other)


@of_world
def extract(world: World, name: str, snr: float | None = None, **settings: Any) -> runs.Frames:
    return runs.load_frames(setup(dataset=name, **settings), world / name, snr)


@of_world
def train(world: World, **other: Any) -> runs.Run:
    return runs.train(setup(**other), extract("sc")(world), world / "runs")


@of_world
def find(world: World, **other: Any) -> runs.Run:
    return runs.find(setup(**other), extract("sc")(world), world / "runs")


@of_world
def stored(world: World, name: str) -> Any:
    return getattr(find()(world), name)


@of_world
def evaluate(world: World, samples: int = 2, bins: int = 5) -> runs.Evaluation:
    return runs.evaluate(find()(world), extract("sc")(world), samples, bins)


@of_world
def tabulate(world: World) -> pd.DataFrame:
    return tables.write_table1({find()(world): evaluate()(world)}, world / "runs")


@of_world
def each(world: World, **asked: Any) -> list:
    given = {"dataset": "sc", "method": "map", "seed": 1} | asked
    return list(runs.each({"num_frames": 20}, **given, results_root=world / "runs"))


@of_world
def fetch(world: World, checksum: str = "") -> None:
    """HD's archive into "new/hd"; its published checksum is that of what lies there, where no other is given."""
    archive = world / "new" / "hd.tar.gz"
    known = checksum or f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"
    source = downloads.Source(("http://127.0.0.1:9/",), "hd.tar.gz", known, "train_filenames.txt", 10**6)
    downloads.fetch("hd", (source,), world / "new" / "hd")


@of_world
def synthesise(world: World, root: str, **given: Any) -> None:
    datasets.get("synthetic-hd").make(world / root, **given)


@of_world
def on_a_full_disk(world: World, ask: Callable, after: int = 0) -> None:
    with full_disk(after):
        ask(world)


@of_world
def with_little_room(world: World, ask: Callable) -> None:
    with patch.object(shutil, "disk_usage", return_value=shutil.disk_usage(world)._replace(free=1_000)):
        ask(world)


@of_world
def without_locks(world: World, ask: Callable) -> None:
    """On a disk that refuses them."""
    with patch.object(fcntl, "flock", side_effect=OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))):
        ask(world)


@of_world
def interrupted(world: World, ask: Callable, epochs: int) -> None:
    """The user interrupts in the validation after so many epochs."""
    predict, calls = posteriors.predict, []

    def heed(*given):
        calls.append(given)
        if len(calls) > epochs:
            raise KeyboardInterrupt
        return predict(*given)

    with patch.object(posteriors, "predict", heed):
        ask(world)


# What is wrong: changes of one file or folder of the world, whose name may be a pattern.


def path_in(world: World, name: str) -> Path:
    (path,) = [*world.glob(name)] or [world / name]
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def nothing(world: World) -> None:
    """Nothing is wrong but what is asked for."""


@of_world
def both(world: World, *changes: Callable) -> None:
    for change in changes:
        change(world)


@of_world
def removed(world: World, name: str) -> None:
    path = path_in(world, name)
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@of_world
def emptied(world: World, name: str) -> None:
    shutil.rmtree(world / name)
    (world / name).mkdir()


@of_world
def copied(world: World, name: str, to: str) -> None:
    (shutil.copytree if (world / name).is_dir() else shutil.copy)(world / name, world / to)


@of_world
def holds(world: World, name: str, content: str | bytes) -> None:
    path_in(world, name).write_bytes(content.encode() if isinstance(content, str) else content)


@of_world
def folder_instead(world: World, name: str) -> None:
    (world / name).unlink()
    (world / name / "inside").mkdir(parents=True)


@of_world
def mode(world: World, name: str, of: int) -> None:
    path_in(world, name).chmod(of)


@of_world
def link_to_nowhere(world: World, name: str) -> None:
    path_in(world, name).unlink(missing_ok=True)
    (world / name).symlink_to("nowhere/at/all")


@of_world
def cut(world: World, name: str, part: float) -> None:
    path = path_in(world, name)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])


@of_world
def lines(world: World, name: str, of: Callable[[list[str]], list[str]]) -> None:
    (world / name).write_text("\n".join(of((world / name).read_text().splitlines())) + "\n")


@of_world
def sound(
    world: World, name: str, rate: int = 16_000, seconds: float = 0.25, channels: int = 1, value: float = 0.1
) -> None:
    samples = np.full((int(rate * seconds), channels), value)
    soundfile.write(path_in(world, name), samples, rate, subtype="PCM_16" if abs(value) <= 1 else "FLOAT")


@of_world
def spikes(world: World, change: Callable[[h5py.File], Any]) -> None:
    """Three utterances of SHD in each file, of a spike each; the training file is then changed."""
    (world / "shd").mkdir()
    for name in ("shd_train.h5", "shd_test.h5"):
        with h5py.File(world / "shd" / name, "w") as file:
            for key, dtype, value in (("times", np.float32, 0.5), ("units", np.int32, 7)):
                ragged = np.empty(3, dtype=object)
                ragged[:] = [np.array([value], dtype)] * 3
                file.create_dataset(f"spikes/{key}", data=ragged, dtype=h5py.vlen_dtype(dtype))
            file["labels"], file["extra/speaker"], file["extra/keys"] = [0, 1, 0], [0, 0, 10], ["one", "two"]
    with h5py.File(world / "shd" / "shd_train.h5", "r+") as file:
        change(file)


@of_world
def record(world: World, change: Callable[[dict], Any]) -> None:
    path = path_in(world, "runs/*/run.json")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@of_world
def tensors(world: World, name: str, change: Callable[[dict], Any]) -> None:
    path = path_in(world, name)
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


@of_world
def archive(world: World, *members: tarfile.TarInfo) -> None:
    with tarfile.open(path_in(world, "new/hd.tar.gz"), "w:gz") as tar:
        for member in (tarfile.TarInfo("hd/train_filenames.txt"), *members):
            tar.addfile(member)


def link(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


@of_world
def interrupted_training(world: World) -> None:
    """Its checkpoint is there."""
    with pytest.raises(KeyboardInterrupt):
        interrupted(train(seed=2), 1)(world)


@of_world
def crowd(world: World) -> None:
    """FSDD's recordings but for one, without sound."""
    for digit, speaker, index in [*itertools.product(range(10), fsdd.SPEAKERS, range(50))][1:]:
        (world / f"fsdd/recordings/{digit}_{speaker}_{index}.wav").touch()


class Code:
    """Code that a pickle would run: it would put a file into the working folder."""

    def __reduce__(self):
        return (open, ("code-was-run", "w"))
