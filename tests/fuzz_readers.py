"""What is fuzzed: each reader of what comes from outside, with what it reads of the small world."""

import functools
import gzip
import json
import random
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import h5py
import numpy as np
import small_world
import soundfile
import test_spike_files
import torch
import toy_study
import yaml
from mutations import mutated, renamed, rewritten
from small_world import World, extract, fetch, tabulate

from lib import book, datasets, posteriors, runs, study, trainers
from lib.datasets import downloads
from lib.network import SpikingClassifier
from lib.runs import recordings
from lib.study import tuning


class Reader(NamedTuple):
    """What is read of a world: ``folders`` are what it needs of it, ``files`` the patterns of those that are changed.

    ``read(world)`` returns a value, and ``right(value, valid)`` says whether a changed world may give it where the
    sound one gives ``valid``. ``change(path, random)`` changes a file; errors need not be ``named`` after it.
    """

    folders: tuple[str, ...]
    files: tuple[str, ...]
    read: Callable[[World], Any]
    right: Callable[[Any, Any], bool] = lambda value, valid: True
    change: Callable[[Path, random.Random], None] | None = None
    named: bool = True


# Of a recording's own formats; all under the name that the set gives it.
FORMATS = {
    "wav": ("WAV", "PCM_16"), "float": ("WAV", "FLOAT"), "wide": ("WAV", "PCM_24"), "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
}  # fmt: skip
LISTS = (".txt", ".csv")
RECORDING = "sc/bed/00000008_nohash_0.wav"


def make(world: World) -> None:
    """The small world, and what only these readers want."""
    small_world.make(world)
    shutil.rmtree(world / "fsdd")
    toy_study.make_tones(world / "fsdd")
    tone = 0.3 * np.sin(np.arange(4_000) / 5)
    for name, (form, subtype) in FORMATS.items():
        (world / "sounds").mkdir(exist_ok=True)
        soundfile.write(world / "sounds" / name, tone, 16_000, format=form, subtype=subtype)
    test_spike_files.write(world / "shd" / "shd_train.h5", test_spike_files.spoken((0, 10, 11), seed=0))
    test_spike_files.write(world / "shd" / "shd_test.h5", test_spike_files.spoken((4,), seed=1))
    spoken = sorted((world / "words").glob("*/*"))
    rows = "".join(f"{path.relative_to(world / 'words')},{path.stem.partition('_')[0]}\n" for path in spoken)
    (world / "words" / "speakers.csv").write_text(rows)
    small_world.archive()(world)
    (world / "packed").mkdir()
    content = b"spikes" * 300
    (world / "packed" / "train.h5.gz").write_bytes(gzip.compress(content))
    with zipfile.ZipFile(world / "packed" / "test.h5.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("test.h5", content)
    small_world.interrupted_training()(world)
    (world / "training").mkdir()
    train(world)
    (world / "settings").mkdir()
    given = {"dataset": ["hd", "sc"], "method": ["map", "ivon"], "seed": [1, 2], "epochs": 3, "settings": {}}
    given |= {"ivon": {"learning_rate": 0.3}, "samples": 4, "data_root": {"hd": "here"}}
    (world / "settings" / "book.yml").write_text(yaml.safe_dump(given), encoding="utf-8")
    (world / "settings" / "study.yml").write_text(yaml.safe_dump(toy_study.TOY), encoding="utf-8")
    search(world)


# Recordings and their lists


def recording(form: str) -> Reader:
    def read(world: World) -> tuple[int, torch.Tensor]:
        (world / RECORDING).write_bytes((world / "sounds" / form).read_bytes())
        utterances = datasets.load("sc", world / "sc")
        place = utterances.paths.index(RECORDING.partition("/")[2])
        frames = utterances.chosen(np.repeat(place, 3))
        return frames.sample_rate, frames.waveform(0, None, frames.sample_rate)

    def right(value: tuple, valid: tuple) -> bool:
        return value[0] == valid[0] and bool(value[1].isfinite().all()) and float(value[1].abs().max()) <= 4

    return Reader(("sc", "sounds"), (f"sounds/{form}",), read, right, named=False)


def layout(name: str, folder: str) -> Reader:
    """A set's lists and the names of its files and folders."""

    def recordings(world: World) -> int:
        return sum(path.is_file() and path.suffix not in LISTS and path.name[0] != "." for path in world.rglob("*"))

    def read(world: World) -> tuple[int, int, str]:
        """How many utterances were read of how many recordings, and what was said of it."""
        root = world / folder
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            number = len(datasets.load(name, root, datasets.get(name).settings()))
        return number, recordings(root), " ".join(str(warning.message) for warning in said)

    def change(path: Path, chance: random.Random) -> None:
        if path.suffix in LISTS:
            return rewritten(path, chance)
        name = renamed(path.name, chance)
        if not (path.parent / name).exists() and name not in (".", ".."):
            path.rename(path.parent / name)

    def right(value: tuple, valid: tuple) -> bool:
        return value[0] == value[1] or f"{value[1] - value[0]} of" in value[2]

    return Reader((folder,), (f"{folder}/*.*", f"{folder}/*/*"), read, right, change)


# Spikes


def read_spikes(world: World) -> tuple:
    utterances = datasets.load("shd", world / "shd")
    frames = datasets.get("shd").frames(utterances, datasets.get("shd").settings(), world / "shd" / "features")
    return utterances.labels.tolist(), frames.features.sum(), utterances.read(range(len(utterances)))


def change_spikes(path: Path, chance: random.Random) -> None:
    """Half of them in the file's bytes, half in the numbers that it holds."""
    if chance.random() < 0.5:
        return rewritten(path, chance)
    with h5py.File(path, "r+") as file:
        name = chance.choice(("labels", "extra/speaker", "extra/keys", "spikes/times", "spikes/units"))
        number, place = chance.choice((-1, 1e30, 2**40, np.nan, 0.5, 700, 255, 1e3)), chance.randrange(20)
        kind = chance.choice("vtsde")
        if kind == "v" and name != "extra/keys":
            ragged = name.startswith("spikes")
            with np.errstate(all="ignore"):
                file[name][place] = np.array([number]).astype(np.float16 if ragged else np.uint16)[
                    slice(None) if ragged else 0
                ]
        elif kind == "t":
            del file[name]
            dtype = chance.choice((np.int8, np.float64, np.uint8, "S3", bool, np.complex64, h5py.ref_dtype))
            file.create_dataset(name, shape=chance.choice(((60,), (20,), (), (60, 2))), dtype=dtype)
        elif kind == "s":
            del file[name]
            size = chance.choice((10**9, 10**12, 61, 0))
            file.create_dataset(name, shape=(size,), dtype=np.uint16, chunks=(min(size, 1_000) or 1,), maxshape=(None,))
        elif kind == "d":
            del file[name]
        else:
            del file[name]
            file[name] = chance.choice(
                (h5py.ExternalLink("shd_test.h5", name), h5py.SoftLink("/" + name), np.zeros(60))
            )


def spikes_are_right(value: tuple, valid: tuple) -> bool:
    labels, _, spikes = value
    fits = all(len(t) == len(u) and (u >= 0).all() and (u < 700).all() and np.isfinite(t).all() for t, u in spikes)
    return fits and len(labels) == len(spikes) == len(valid[0]) and set(labels) <= set(range(20))


# Archives


def change_tar(path: Path, chance: random.Random) -> None:
    """Half of them within the compression, whose checksum is then right."""
    content = path.read_bytes()
    if chance.random() < 0.5:
        path.write_bytes(mutated(content, chance))
    else:
        path.write_bytes(gzip.compress(mutated(gzip.decompress(content), chance)))


def unpack(world: World) -> list[str]:
    fetch()(world)
    return unpacked(world / "new" / "hd", world / "new")


def packed(name: str) -> Reader:
    mark = name.rpartition(".")[0]

    def read(world: World) -> list[str]:
        archive = world / "packed" / name
        source = downloads.Source((), name, "md5:", mark, 10**6)
        downloads.unpack({archive: source}, world / "packed" / "set", {})
        return unpacked(world / "packed" / "set", world / "packed")

    return Reader(("packed",), (f"packed/{name}",), read, lambda value, valid: value == valid)


def unpacked(root: Path, within: Path) -> list[str]:
    """What was unpacked; nothing lies outside of the set's folder, and nothing is a link."""
    if any(path.is_symlink() for path in within.parent.rglob("*")):
        raise AssertionError("a link was unpacked")
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


# Runs


def train(world: World) -> int:
    """A training of three epochs, of which the checkpoint is there."""
    random = torch.Generator().manual_seed(0)
    features, labels = torch.randn(8, 5, 3, generator=random), torch.arange(8) % 2
    examples = runs.Frames(features, labels, np.repeat("train", 8), np.repeat("one", 8), ("a", "b"), "0" * 32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SpikingClassifier(3, 2, (4,), dropout=0.0)
    _, history = trainers.train_map(
        network, examples, examples, epochs=2, seed=0, checkpoint=world / "training" / "checkpoint.pt"
    )
    return len(history)


def posterior(world: World) -> dict:
    (path,) = world.glob("runs/*-1-*/posterior.pt")
    return posteriors.load(path).sample(torch.Generator().manual_seed(0))


def record(world: World) -> tuple:
    (path,) = world.glob("runs/*-1-*")
    run = runs.Run(path)
    return run.setup, run.trained, run.validation_nll


def heard(world: World) -> dict:
    (path,) = world.glob("runs/*-1-*")
    return recordings.heard_by(runs.Run(path), world / "absent")


def evaluation(world: World) -> runs.Evaluation:
    with patch.object(runs, "_evaluate", side_effect=OSError(f"{world} is asked to evaluate anew")):
        return small_world.evaluate()(world)


def evaluation_is_right(value: runs.Evaluation, valid: runs.Evaluation) -> bool:
    return value.probabilities.shape == valid.probabilities.shape and all(
        isinstance(value.figures[name], float | int) for name in runs.FIGURES
    )


def features(world: World) -> runs.Frames:
    with patch.object(runs, "DATA", world):
        return extract("sc")(world)


def features_are_right(value: Any, valid: Any) -> bool:
    same = value.features.shape == valid.features.shape and value.fingerprint == valid.fingerprint
    return same and value.features.dtype == valid.features.dtype


# Settings, searches, results


@functools.cache
def declared() -> dict[str, dict[str, Any]]:
    return book.read_defaults(book.ROOT)


def read_book(world: World) -> dict:
    settings = book.read_settings(world / "settings" / "book.yml")
    book.check(settings, declared())
    return settings


def read_study(world: World) -> list:
    found = study.read(world / "settings" / "study.yml")
    return found.cells if len(found.seed) * len(found.sets) < 1_000 else []


def search(world: World) -> list:
    given = {"dataset": "fsdd", "hidden_sizes": [3], "epochs": 1, "batch_size": 10}
    labels = torch.arange(12) % 2
    features = torch.randn(12, 5, 3, generator=torch.Generator().manual_seed(0))
    parts, speakers = np.repeat(["train", "validation", "test"], 4), np.repeat("one", 12)
    frames = runs.Frames(features, labels, parts, speakers, ("a", "b"), "0" * 32)
    found = tuning.search(world / "search" / "toy.log", {"toy": given}, {"toy": frames}, "map", 3)
    return [(trial.number, trial.value) for trial in found.trials]


def results(world: World) -> Any:
    return json.loads(json.dumps(tabulate()(world).to_dict()))


READERS = {
    **{form: recording(form) for form in FORMATS},
    **{
        name: layout(name, folder)
        for name, folder in (("sc", "sc"), ("hd", "hd"), ("fsdd", "fsdd"), ("folder", "words"))
    },
    "spikes": Reader(("shd",), ("shd/*.h5",), read_spikes, spikes_are_right, change_spikes),
    "tar": Reader(("new",), ("new/*.tar.gz",), unpack, change=change_tar),
    "gz": packed("train.h5.gz"),
    "zip": packed("test.h5.zip"),
    "posterior": Reader(("runs",), ("runs/*-1-*/posterior.pt",), posterior),
    "checkpoint": Reader(("training",), ("training/*.pt",), train),
    "record": Reader(("runs",), ("runs/*-1-*/run.json",), record),
    "history": Reader(("runs",), ("runs/*-1-*/history.csv",), record),
    "heard": Reader(("runs",), ("runs/*-1-*/heard.json",), heard),
    "evaluation": Reader(("runs", "sc", "features"), ("runs/*-1-*/test-*",), evaluation, evaluation_is_right),
    "features": Reader(("sc", "features"), ("features/*",), features, features_are_right),
    "book": Reader(("settings",), ("settings/book.yml",), read_book, named=False),
    "study": Reader(("settings",), ("settings/study.yml",), read_study, named=False),
    "search": Reader(("search",), ("search/*.log",), search),
    "results": Reader(("runs", "sc", "features"), ("runs/table1.csv", "runs/runs.json"), results),
}
