"""One thing of each kind is added to a copy of the repository, and runs; and what may be taken away is."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch
import yaml

ROOT = Path(__file__).resolve().parents[1]
CORE = ("features", "network", "posteriors", "trainers", "metrics", "slices")

# Each addition: its file, the list, the line of it, and what the line needs imported.
ADDITIONS = [
    ("lib/neurons/amplified.py", "lib/neurons/__init__.py", '"amplified": AmplifiedLayer,',
     "from lib.neurons.amplified import AmplifiedLayer"),
    ("lib/methods/rmsprop.py", "lib/methods/__init__.py", "RMSprop,", "from lib.methods.rmsprop import RMSprop"),
    ("lib/datasets/chords.py", "lib/datasets/__init__.py", "CHORDS", "from lib.datasets.chords import CHORDS"),
    ("lib/study/measures/largest.py", "lib/study/measures/__init__.py", '"largest": largest.largest,',
     "from lib.study.measures import largest"),
]  # fmt: skip
NEURON = '''
import torch
from torch import nn

from lib.network import SpikingLayer, lif


class AmplifiedLayer(SpikingLayer):
    """LIF neurons that amplify their input, each by a factor of its own."""

    ranges = SpikingLayer.ranges | {"gain": (0.5, 8.0)}
    groups = SpikingLayer.groups | {"raw_gain": "gain"}

    def __init__(self, num_inputs, num_units, dropout=0.1):
        super().__init__(num_inputs, num_units, dropout)
        self.raw_gain = self.spread("gain", num_units)

    def spikes(self, current):
        return lif(self.held("gain") * current, self.leak)
'''
METHOD = '''
from dataclasses import dataclass
from typing import ClassVar

import torch

from lib import trainers
from lib.methods.base import Method, batch_size, dropout, learning_rate, patience
from lib.posteriors import PointMass, network_state
from lib.settings import real, setting


@dataclass(frozen=True)
class RMSprop(Method):
    """RMSprop with momentum."""

    name: ClassVar = "rmsprop"
    label: ClassVar = "RMSprop"
    colour: ClassVar = "#123456"
    marker: ClassVar = "8"

    batch_size: int = batch_size(16)
    learning_rate: float = learning_rate(0.01)
    dropout: float = dropout()
    patience: int = patience(2)
    momentum: float = setting(0.9, real(0, 1), search=[0.5, 0.9])

    def updates(self, network, training, objective, epochs, originals):
        optimizer = torch.optim.RMSprop(network.parameters(), lr=self.learning_rate, momentum=self.momentum)

        def step(features, labels):
            optimizer.zero_grad()
            loss, logits = objective(network, features, labels)
            loss.backward()
            optimizer.step()
            return logits

        return trainers.Method(optimizer, step, posterior=lambda: PointMass(network_state(network)))
'''
DATA_SET = """
from itertools import product

import numpy as np
import soundfile

from lib.datasets.dataset import DataSet
from lib.datasets.speech import SpeechSettings, assemble
from lib.datasets.utterances import Utterance

PARTS, NAMES = ("train", "validation", "test"), ("minor", "major")


def make(root, utterances=60):
    for part, number, (label, name) in product(PARTS, range(utterances // 6), enumerate(NAMES)):
        times = np.arange(4_000) / 8_000
        chord = sum(np.sin(2 * np.pi * (200 + number) * tone * times) for tone in (1, 1.2 + 0.06 * label, 1.5))
        (root / "chords").mkdir(parents=True, exist_ok=True)
        soundfile.write(root / "chords" / f"{part}-{name}-{number}.wav", chord / 4, 8_000)


def read(name, split, root):
    found = [f"chords/{path.name}" for path in sorted((root / "chords").iterdir())]
    named = [path.removeprefix("chords/").split("-") for path in found]
    utterances = [
        Utterance(path, NAMES.index(label), number, part)
        for path, (part, label, number) in zip(found, named, strict=True)
    ]
    return assemble(name, split, root, 8_000, NAMES, utterances)


CHORDS = DataSet(
    name="chords", settings=SpeechSettings, splits=("official",), default_split="official", mark="chords", read=read,
    licence="none", citation="none", make=make,
)
"""
MEASURE = '''
import pandas as pd


def largest(run, frames, place, *, share):
    """A share of the largest weight of each layer."""
    mean = run.posterior.mean
    rows = [{"layer": name, "weight": share * float(mean[name].abs().max())} for name in mean if "linear" in name]
    return pd.DataFrame(rows).set_index("layer")
'''
NETWORK = {"neuron": "amplified", "num_frames": 20}
RMSPROP = {"batch_size": 10, "learning_rate": 0.005, "momentum": 0.5}


def python(folder: Path, *arguments: str | Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(folder), "TQDM_DISABLE": "1"}
    finished = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert finished.returncode == 0, finished.stderr[-3_000:]
    return finished.stdout


def copy_of_the_library(folder: Path, *without: str) -> Path:
    shutil.copytree(ROOT / "lib", folder / "lib", ignore=shutil.ignore_patterns("__pycache__", *without))
    return folder


def add(folder: Path, path: str, content: str, of_list: str, line: str, imported: str) -> None:
    """Write the file, and put the line at the end of the list, which closes with the first ")" or "}" of a line."""
    (folder / path).write_text(content)
    text = (folder / of_list).read_text()
    before, name, after = text.partition({"CHORDS": "SYNTHETIC_SHD)}", "RMSprop,": "        SBNN,\n"}.get(line, "\n}"))
    assert name, of_list
    new = {"SYNTHETIC_SHD)}": f"SYNTHETIC_SHD, {line})}}", "\n}": f"\n    {line}\n}}"}.get(
        name, f"{name}        {line}\n"
    )
    head, first, rest = before.partition("\nfrom ")
    (folder / of_list).write_text(f"{head}\n{imported}{first}{rest}{new}{after}")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = copy_of_the_library(tmp_path / "repository")
    (folder / "book").mkdir()
    (folder / "data").mkdir()
    shutil.copy(ROOT / "book/02_training.ipynb", folder / "book")
    for addition, content in zip(ADDITIONS, (NEURON, METHOD, DATA_SET, MEASURE), strict=True):
        path, *listed = addition
        add(folder, path, content, *listed)
    return folder


def test_a_neuron_a_method_a_data_set_and_a_measure_are_each_a_file_and_a_line(repository: Path) -> None:
    named = {"dataset": "chords", "method": "rmsprop", "seed": 1, "epochs": 2, "hidden_sizes": [6]}
    (repository / "given.yml").write_text(yaml.safe_dump(named | {"settings": NETWORK | {"rmsprop": RMSPROP}}))
    python(repository, "-m", "papermill", "-k", "python3", "-f", "given.yml", "book/02_training.ipynb", "out.ipynb")
    (posterior,) = (repository / "data/runs").glob("chords-rmsprop-1-*/posterior.pt")
    settings = json.loads(posterior.with_name("run.json").read_text())["settings"]
    assert settings.items() >= (named | NETWORK | RMSPROP).items()
    mean = torch.load(posterior, weights_only=True)["mean"]
    assert mean["layers.0.raw_gain"].shape == (6,)
    history = pd.read_csv(posterior.with_name("history.csv"))
    assert (history["firing_rate_1"] > 0).all()
    shown = nbformat.read(repository / "out.ipynb", 4)
    assert any("image/svg+xml" in output.get("data", {}) for cell in shown.cells for output in cell.get("outputs", []))
    written = posterior.stat().st_mtime_ns

    study = {"sets": {"chords": {"dataset": "chords"}}, "method": ["rmsprop"], "seed": [1]}
    study |= {"evaluation": {"samples": 1, "bins": 5}, "measures": {"largest": {"share": 0.5}}}
    study["common"] = NETWORK | {"epochs": 2, "hidden_sizes": [6], "rmsprop": RMSPROP}
    (repository / "toy.yml").write_text(yaml.safe_dump(study))
    python(repository, "-m", "lib.study", "toy.yml")
    found = pd.read_csv(repository / "data/results/toy/largest.csv")
    assert found[["set", "method", "seed", "layer"]].to_numpy().tolist() == [
        ["chords", "rmsprop", 1, "layers.0.linear.weight"]
    ]
    assert found["weight"][0] == pytest.approx(0.5 * float(mean["layers.0.linear.weight"].abs().max()))
    assert posterior.stat().st_mtime_ns == written  # the notebook's run is the study's


TRAINED = """
import importlib, json, pkgutil, sys
from types import SimpleNamespace

# An editable installation would find what is taken away in the repository that is installed.
sys.meta_path[:] = [finder for finder in sys.meta_path if not finder.__module__.startswith("__editable__")]
import torch

if "all" in sys.argv:
    import lib
    for module in pkgutil.walk_packages(lib.__path__, "lib."):
        # spyx is timed where it is installed, and is no part of the library.
        if "__main__" not in module.name and module.name != "lib.benchmark.spyx":
            importlib.import_module(module.name)
from lib import metrics, network, posteriors, slices, trainers

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(1)
labels = torch.arange(40) % 3
features = torch.randn(40, 12, 4, generator=generator) + 2 * torch.nn.functional.one_hot(labels, 4)[:, None]
examples, found = SimpleNamespace(features=features, labels=labels), []
for train in (trainers.train_map, trainers.train_ivon):
    torch.manual_seed(0)
    net = network.SpikingClassifier(4, 3, (8, 6))
    for layer in net.layers:
        torch.nn.init.constant_(layer.norm.weight, 6)
        torch.nn.init.constant_(layer.norm.bias, 1)
    posterior, history = train(net, examples, examples, epochs=2)
    predicted = posteriors.predict(net, posterior, features, 3, generator)
    direction = slices.random_direction(net.named_parameters(), generator)
    losses = slices.deterministic_loss(net, posterior.mean, direction, [-1.0, 0.0, 1.0], [(features, labels)])
    found.append([predicted.tolist(), history["train_loss"].tolist(), losses.tolist()])
    assert history["firing_rate_1"].min() > 0.01
print(json.dumps([network.fast is not None, found]))
"""


def numbers(value) -> list[float]:
    return [one for part in value for one in numbers(part)] if isinstance(value, list) else [value]


def test_the_core_alone_and_the_library_without_fast_give_the_same_numbers(tmp_path: Path) -> None:
    alone = tmp_path / "alone/lib"
    alone.mkdir(parents=True)
    for name in (*CORE, "files", "__init__"):
        shutil.copy(ROOT / f"lib/{name}.py", alone)
    without = copy_of_the_library(tmp_path / "without", "fast")
    with_fast, expected = json.loads(python(ROOT, "-c", TRAINED))
    assert with_fast
    for folder, *arguments in [(alone.parent,), (without, "all")]:
        with_fast, found = json.loads(python(folder, "-c", TRAINED, *arguments).splitlines()[-1])
        assert not with_fast
        assert numbers(found) == pytest.approx(numbers(expected), rel=1e-4, abs=1e-6)
