"""A study of a moment: short tones in the layout of FSDD, tiny networks of a few epochs."""

import os
import signal
from pathlib import Path

import numpy as np
import soundfile
import yaml

from lib import posteriors, runs
from lib.study import Study, engine, read

MEASURE = engine.measure
TOY = {
    "sets": {"tones": {"dataset": "fsdd"}},
    "variants": {"LIF": {"neuron": "lif"}, "MLP": {"network": "mlp"}},
    "method": ["map", "ivon"],
    "seed": [1, 2],
    "common": {"epochs": 2, "batch_size": 10, "hidden_sizes": [6], "num_frames": 20, "ivon": {"freeze_norm_after": 1}},
    "evaluation": {"samples": 2, "bins": 5},
    "measures": {"progress": {}, "sharpness": {"std": 0.01, "samples": 2, "examples": 10}},
}
SMALL = {"variants": {"LIF": {}}, "method": ["map"], "seed": [1]}


def make_tones(root: Path) -> Path:
    """Four speakers say ten digits three times each: tones of a quarter of a second."""
    noise = np.random.default_rng(0)
    (root / "recordings").mkdir(parents=True)
    times = np.arange(2_000) / 8_000
    for digit in range(10):
        for number, speaker in enumerate(("jackson", "lucas", "nicolas", "theo")):
            for index in range(3):
                tone = np.sin(2 * np.pi * (200 + 300 * digit + 10 * number) * times) / 4
                path = root / "recordings" / f"{digit}_{speaker}_{index}.wav"
                soundfile.write(path, tone + 0.01 * noise.standard_normal(len(times)), 8_000)
    return root


def write(path: Path, tones: Path, **changes) -> Study:
    """The toy study, changed, in this file."""
    content = {name: value for name, value in (TOY | changes).items() if value is not None}
    content["sets"] = {name: {"data_root": str(tones)} | of_set for name, of_set in content["sets"].items()}
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return read(path)


def in_this_process(work, tasks, scheduler, folder):
    """In the place of ``engine.on_workers``."""
    for name, arguments in tasks.items():
        try:
            yield name, work(*arguments)
        except FloatingPointError:
            print(f"{name} failed")


def measure_but_die_once(task: engine.Task, folder: Path) -> tuple:
    """Measure a run, but the first time that a checkpoint is written kill this very process."""
    if not (folder / "killed").exists():
        store = posteriors.store

        def store_and_die(tensors: dict, path: Path) -> None:
            store(tensors, path)
            if path.name == runs.CHECKPOINT and not (folder / "killed").exists():
                (folder / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)

        posteriors.store = store_and_die
    return MEASURE(task, folder)
