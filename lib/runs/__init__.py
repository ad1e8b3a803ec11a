"""Runs: settings become a folder that holds a trained posterior and all that determined it.

A run's folder is named by data set, method, seed and a hash of its settings and data. It holds ``posterior.pt``,
``history.csv``, ``heard.json`` (how recordings were prepared), ``run.json`` (written last: where it stands the run is
whole) and what was evaluated since. A derived run names the runs that it is made of.
"""

import io
import itertools
import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib import datasets, metrics, posteriors, provenance
from lib.datasets import Utterances
from lib.features import Frames
from lib.files import atomic_write, exclusive, or_damaged, writable, write_json
from lib.methods import Derived
from lib.network import fast
from lib.networks.activity import dead_units, firing_rate_penalty, leaks
from lib.posteriors import Posterior
from lib.runs.run import Run, network_for
from lib.settings import folder_named
from lib.setup import Setup, as_list, setup_of
from lib.trainers import VALIDATION_SAMPLES, likelihood

# Where this repository keeps recordings, features and runs, unless a caller names another folder.
DATA = Path(__file__).resolve().parents[2] / "data"
CHECKPOINT, HEARD = "checkpoint.pt", "heard.json"
MEMBER = 1_000  # from the seed of one member of an ensemble to the next one's
FIGURES = ("accuracy", "nll", "ece", "entropy", "mutual_information", "brier")

Root = str | Path | Mapping[str, str] | None  # the folder of a data set, or those of several by their names


@dataclass(frozen=True)
class Evaluation:
    """A run on the test part: its figures, and the averaged prediction for each utterance."""

    record: dict[str, Any]  # the figures, and what produced them
    probabilities: Tensor  # [examples, classes], averaged over samples
    labels: Tensor  # [examples]

    @property
    def figures(self) -> dict[str, float]:
        return self.record["figures"]


def load_utterances(setup: Setup, data_root: Root = None, results_root: str | Path | None = None) -> Utterances:
    """A data set under its split; where no folder is named it is made or downloaded, unless it is there."""
    dataset = datasets.get(setup.dataset)
    data_root = data_root.get(setup.dataset) if isinstance(data_root, Mapping) else data_root
    if data_root is None:
        own = DATA / setup.dataset
        dataset.prepare(data_root := own if own.is_dir() else writable(own, results_root))
    return datasets.load(setup.dataset, data_root, setup.data)


def load_frames(
    setup: Setup, data_root: Root = None, snr: float | None = None, cache: Path | None = None,
    results_root: str | Path | None = None,
) -> Frames:  # fmt: skip
    """The features of a data set, extracted once; with ``snr`` (dB) there is noise in the test part's waveforms."""
    cache = cache or writable(DATA / "features", results_root)
    return datasets.get(setup.dataset).frames(load_utterances(setup, data_root, results_root), setup.data, cache, snr)


def fit(setup: Setup, frames: Frames, **how: Any) -> tuple[Posterior, pd.DataFrame]:
    """The posterior of a setup whose method trains, and the history; ``how`` is as the method's ``train`` takes it."""
    penalty = setup.training.firing_rate_penalty
    if fast:
        fast.keep_freed_memory()
    # Weights of units that no longer learn decay below 1e-38, where a CPU is slow: they are taken for zeros.
    torch.set_flush_denormal(True)
    try:
        return setup.method.train(
            network_for(setup, frames), frames.part("train"), frames.part("validation"),
            epochs=setup.training.epochs, seed=setup.seed, copies=setup.copies,
            objective=firing_rate_penalty(penalty) if penalty else likelihood, **how,
        )  # fmt: skip
    finally:
        torch.set_flush_denormal(False)


def train(setup: Setup, frames: Frames, root: str | Path | None = None) -> Run:
    """The run of this setup in the folder ``root``: found where it is finished, gone on with where it was interrupted.

    What a derived run is made of is trained first, where it is not found.
    """
    folder = folder_named(root, DATA / "runs") / setup.name_of(frames.fingerprint)
    if not (folder / "run.json").exists():
        with exclusive(folder):
            if not (folder / "run.json").exists():
                (_derive if isinstance(setup.method, Derived) else _train)(folder, setup, frames)
    with suppress(OSError):  # a folder that can only be read is as good
        (folder / CHECKPOINT).unlink(missing_ok=True)
    return Run(folder)


def find(setup: Setup, frames: Frames, root: str | Path | None = None) -> Run | None:
    """The finished run of this setup; None where there is none of this data set, method and seed at all.

    Raises ``ValueError`` where there are only others, and says in what they differ: another run is never taken for it.
    """
    root = folder_named(root, DATA / "runs")
    wanted = root / setup.name_of(frames.fingerprint)
    if (wanted / "run.json").exists():
        return Run(wanted)
    pattern = f"{setup.dataset}-{setup.method.name}-{setup.seed}-*/run.json"
    others = [Run(path.parent) for path in sorted(root.glob(pattern))]
    if not others:
        return None
    asked, said = setup.record() | {"data": frames.fingerprint}, []
    for other in others:
        has = other.record["settings"] | {"data": other.record["data"]}
        with suppress(ValueError):  # what an edition stored that had other settings
            has |= other.setup.record()
        differs = [f"{name} {has.get(name)!r}" for name in asked if has.get(name) != asked[name]]
        if not differs:
            return other
        said.append(f"{other} (with {', '.join(differs)})")
    raise ValueError(
        f"no run of {setup.dataset}, {setup.method.name}, seed {setup.seed} in {root} has these settings; there are "
        f"{'; '.join(said)}: give the settings of one of these, or train the run that you ask for with 02_training"
    )


def each(
    settings: Mapping[str, Any],
    *,
    dataset: str | Sequence[str],
    method: str | Sequence[str],
    seed: int | Sequence[int],
    data_root: Root = None,
    results_root: str | Path | None = None,
    missing: Collection[str] = (),
    **named: Any,
) -> Iterator[tuple[Run, Frames]]:
    """The run of each of the data sets, methods and seeds: found, or trained where there is none such at all.

    ``data_root`` may be a mapping from data sets to folders. Those that are ``missing``, each named as in "hd-ivon-2",
    are left out. ``settings`` and ``named`` are as ``setup_of`` takes them. Raises ``ValueError`` as ``find`` does, and
    where no run is asked for or a folder is given for what is no data set.
    """
    for name, asked in {"dataset": dataset, "method": method, "seed": seed}.items():
        if not as_list(asked):
            raise ValueError(f"no {name} is given: give one or more")
    for name in data_root.keys() - datasets.SETS.keys() if isinstance(data_root, Mapping) else ():
        raise ValueError(f"data_root names {name!r}, which is no data set: the sets are {', '.join(datasets.SETS)}")
    found = []  # of all, before any is trained: what cannot be had together is refused at once
    for one in as_list(dataset):
        pairs = itertools.product(as_list(method), as_list(seed))
        there = [pair for pair in pairs if "-".join(map(str, (one, *pair))) not in as_list(missing)]
        setups = [setup_of(settings, dataset=one, method=name, seed=number, **named) for name, number in there]
        frames = load_frames(setups[0], data_root, results_root=results_root) if setups else None
        found += [(setup, frames, find(setup, frames, results_root)) for setup in setups]
    for setup, frames, run in found:
        yield run or train(setup, frames, results_root), frames


def _train(folder: Path, setup: Setup, frames: Frames) -> None:
    """Train, from the checkpoint where there is one, and put the run into its folder."""
    posterior, history = fit(setup, frames, checkpoint=folder / CHECKPOINT)
    with atomic_write(folder / "history.csv") as aside:
        history.to_csv(aside, index=False)
    _finish(folder, setup, frames, posterior, {"seconds": history["seconds"].sum()})


def _derive(folder: Path, setup: Setup, frames: Frames) -> None:
    """Put a derived run into its folder; its ``seconds`` are with those of the trainings that it is made of."""
    names, bases = setup.method.bases, []
    for index, name in enumerate(names):
        # The members of an ensemble differ by their seeds, and no two ensembles share one.
        seed = setup.seed + MEMBER * names[:index].count(name)
        base = replace(setup, method=setup.method.base(name), seed=seed)
        bases.append(train(base, frames, folder.parent))
    network, training, validation = network_for(setup, frames), frames.part("train"), frames.part("validation")
    began = time.perf_counter()
    posterior = setup.method.derive(
        network, tuple(run.posterior for run in bases), training, validation, setup.seed, copies=setup.copies
    )
    seconds = time.perf_counter() - began + sum(run.record["seconds"] for run in bases)
    samples, generator = posterior.distinct(VALIDATION_SAMPLES), torch.Generator().manual_seed(0)
    predicted = posteriors.predict(network, posterior, validation.features, samples, generator)
    record = {"bases": [run.folder.name for run in bases], "seconds": seconds}
    record |= {"validation_nll": metrics.negative_log_likelihood(predicted, validation.labels)}
    _finish(folder, setup, frames, posterior, record)


def _finish(folder: Path, setup: Setup, frames: Frames, posterior: Posterior, record: dict[str, Any]) -> None:
    """Write the posterior and what a run is known by, its record last."""
    posteriors.save(posterior, folder / "posterior.pt")
    if frames.heard:
        write_json(folder / HEARD, frames.heard | {"class_names": list(frames.class_names)})
    network = network_for(setup, frames, "cpu")
    record |= leaks(network, posterior.mean) | dead_units(network, posterior.mean)
    record = {"settings": setup.record(), "data": frames.fingerprint} | record | provenance.here()
    write_json(folder / "run.json", record)


def predicted(run: Run, frames: Frames, features: Tensor, samples: int) -> Tensor:
    """Probabilities [samples, utterances, classes], of no more samples than there are different ones."""
    generator = torch.Generator().manual_seed(run.setup.seed)
    count = run.posterior.distinct(samples)
    return posteriors.predict(run.network(frames), run.posterior, features, count, generator)


def evaluate(run: Run, frames: Frames, samples: int, bins: int) -> Evaluation:
    """The paper's section 6.1 on the test part, averaged over ``samples`` draws of the weights."""
    path = run.folder / f"test-{samples}-samples-{bins}-bins.json"
    averaged, labels = path.with_suffix(".npy"), frames.part("test").labels
    if not path.exists():
        with exclusive(run.folder):
            if not path.exists():
                _evaluate(run, frames, samples, bins, averaged, path)
    with or_damaged(path, "delete it and evaluate again"):
        record = json.loads(path.read_text(encoding="utf-8"))
        sum(itemgetter(*FIGURES)(record["figures"]))  # of numbers alone there is one
    with or_damaged(averaged, f"delete it and {path.name} and evaluate again"):
        probabilities = np.load(averaged)
        if probabilities.shape != (shape := (len(labels), len(frames.class_names))):
            raise ValueError(f"it does not hold an array of shape {shape}")
    return Evaluation(record, torch.from_numpy(probabilities), labels)


def _evaluate(run: Run, frames: Frames, samples: int, bins: int, averaged: Path, path: Path) -> None:
    """Predict the test part, and write the averaged predictions and, last, the figures."""
    test = frames.part("test")
    probabilities = predicted(run, frames, test.features, samples)
    np.save(written := io.BytesIO(), metrics.model_average(probabilities).float().numpy())
    with atomic_write(averaged) as aside:
        aside.write_bytes(written.getvalue())
    figures = metrics.summary(probabilities, test.labels, bins=bins) | {"examples": len(test.labels)}
    record = {"figures": figures, "run": run.folder.name, "samples": len(probabilities), "bins": bins}
    write_json(path, record | provenance.here())
