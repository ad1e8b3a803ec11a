"""Runs: a trained posterior with all that determined it, stored in a folder of its own.

A run's folder is named by data set, method, seed and a hash of its settings and data. It holds
``posterior.pt``, ``history.csv``, ``run.json`` (written last: where it stands the run is whole) and what was
evaluated since. What is there is not computed again. A run of a method that needs no training names in ``run.json``
the runs that it is made of, in the place of a history.
"""

import io
import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from lib import datasets, downloads, features, metrics, networks, posteriors, provenance, settings, synthesis
from lib.datasets import SpikeTrains, Utterances
from lib.features import Frames
from lib.files import atomic_write, exclusive, or_damaged, write_json
from lib.networks import Classifier
from lib.networks.sbnn import StochasticClassifier
from lib.posteriors import Posterior
from lib.trainers import DERIVED, METHODS
from lib.trainers.loop import VALIDATION_SAMPLES

REPOSITORY = Path(__file__).resolve().parents[1]
DATA = REPOSITORY / "data"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CHECKPOINT = "checkpoint.pt"
MEMBER = 1_000  # from the seed of one member of an ensemble to the next one's
TABLE = ["dataset", "method", "seed", "accuracy", "nll", "ece", "entropy", "mutual_information", "brier"]
NEEDED = (*TABLE[:3], "hidden_sizes", "epochs")  # of a record's settings
RETRAIN = "delete its folder and train again"


@dataclass(frozen=True)
class Run:
    """A finished run on disk."""

    folder: Path

    @cached_property
    def record(self) -> dict[str, Any]:
        """Settings, data fingerprint, seconds of training, and what it was computed with."""
        path = self.folder / "run.json"
        with or_damaged(path, RETRAIN):
            record = json.loads(path.read_text(encoding="utf-8"))
            itemgetter("data", "settings")(record), itemgetter(*NEEDED)(record["settings"])
        return record

    @cached_property
    def posterior(self) -> Posterior:
        return posteriors.load(self.folder / "posterior.pt")

    @property
    def trained(self) -> list["Run"]:
        """The runs whose training it took: this one, or those that it is made of."""
        return [Run(self.folder.parent / name) for name in self.record.get("bases", ())] or [self]

    @cached_property
    def history(self) -> pd.DataFrame:
        """Of the training; of a run made of others that of the first."""
        if self.trained != [self]:
            return self.trained[0].history
        path, epochs = self.folder / "history.csv", self.record["settings"]["epochs"]
        with or_damaged(path, RETRAIN):
            history = pd.read_csv(path)
            if len(history) != epochs or history[["epoch", "validation_loss"]].isna().any(axis=None):
                raise ValueError(f"it does not hold {epochs} epochs")
        return history

    @property
    def validation_nll(self) -> float:
        """Of the posterior that was kept: of SWAG the last epoch's, else the lowest."""
        if "validation_nll" in self.record:
            return self.record["validation_nll"]
        losses = self.history["validation_loss"]
        return float(losses.iloc[-1] if self.record["settings"]["method"] == "swag" else losses.min())

    def network(self, frames: Frames) -> Classifier:
        """An untrained network of this run's shape, to call with weights sampled from the posterior."""
        return network_for(frames, self.record["settings"])

    def __str__(self) -> str:
        return self.folder.name


@dataclass(frozen=True)
class Evaluation:
    """A run on the test part: its figures, and the averaged prediction for each utterance."""

    record: dict[str, Any]  # the figures, and what produced them
    probabilities: torch.Tensor  # [examples, classes], averaged over samples
    labels: torch.Tensor  # [examples]

    @property
    def figures(self) -> dict[str, float]:
        return self.record["figures"]


def for_dataset(chosen: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """The choices for one data set, where some are given as a mapping from data sets."""
    resolved = {
        name: value.get(dataset) if isinstance(value, Mapping) and name != "bases" else value
        for name, value in chosen.items()
    }
    return resolved | {"dataset": dataset}


def load_speech(chosen: Mapping[str, Any], dataset: str) -> Utterances:
    """A data set from its folder under the chosen split; made or downloaded where it is absent."""
    one = for_dataset(chosen, dataset)
    root = one.get("data_root")
    if root is None:
        root = DATA / dataset
        if dataset in synthesis.DEFAULT_UTTERANCES:
            synthesis.make(dataset, root)
        elif not root.exists():
            downloads.fetch(dataset, root)
    return datasets.load(dataset, one.get("split"), Path(root), one.get("validation"))


def load_frames(chosen: Mapping[str, Any], dataset: str, snr: float | None = None) -> Frames:
    """The features of a data set, extracted once; with ``snr`` there is noise in the test part's waveforms."""
    return frames_of(load_speech(chosen, dataset), chosen, DATA / "features", snr)


def frames_of(utterances: Utterances, chosen: Mapping[str, Any], cache: Path, snr: float | None = None) -> Frames:
    """Frames of waveforms or of spikes, by the settings of each; ``ValueError`` for the other's."""
    of = {name: chosen.get(name, default) for name, default in settings.DATA_DEFAULTS.items()}
    if isinstance(utterances, SpikeTrains):
        given = {"filterbank_rate": of["filterbank_rate"], "augmented": of["augmented"] or None, "snr": snr}
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"{utterances.name!r} holds spikes and no waveforms: leave {name} out")
        return features.count_spikes(utterances, cache, frames=of["num_frames"], bin_ms=of["bin_ms"])
    return features.extract(
        utterances, cache,
        frames=of["num_frames"], sample_rate=of["filterbank_rate"], augmented=of["augmented"], snr=snr,
    )  # fmt: skip


def network_for(frames: Frames, chosen: Mapping[str, Any]) -> Classifier:
    """The network of some settings (for those not given, the defaults), its starting weights given by their seed."""
    shape = {name: chosen.get(name, default) for name, default in settings.NETWORK_DEFAULTS.items()}
    sizes = frames.features.shape[-1], len(frames.class_names)
    with torch.random.fork_rng():
        torch.manual_seed(chosen["seed"])
        if chosen.get("method") == "sbnn":
            return stochastic(*sizes, shape, chosen).to(DEVICE)
        return networks.build(*sizes, **shape, dropout=chosen["dropout"]).to(DEVICE)


def stochastic(
    num_features: int, num_classes: int, shape: Mapping[str, Any], chosen: Mapping[str, Any]
) -> StochasticClassifier:
    """SBNN's network: of LIF neurons, with recurrent connections where the neuron is "rlif".

    Raises ``ValueError`` for a shape that it does not have.
    """
    kept = {"neuron": shape["neuron"], "hidden_sizes": shape["hidden_sizes"]}
    if shape != settings.NETWORK_DEFAULTS | kept or shape["neuron"] not in ("lif", "rlif"):
        raise ValueError("sbnn has a network of its own: give the neuron 'lif' or 'rlif', and leave the rest out")
    own = {name: chosen[name] for name in ("deviation", "deviations", "slope")}
    return StochasticClassifier(
        num_features, num_classes, shape["hidden_sizes"], recurrent=shape["neuron"] == "rlif", **own
    )


def train(frames: Frames, chosen: Mapping[str, Any]) -> Run:
    """The run of these settings: found where it is finished, gone on with where it was interrupted.

    What a method without training is made of is trained first, where it is not found.
    """
    trained = determined(chosen)
    run = Run(results_folder(chosen) / run_name(frames, chosen))
    if not (run.folder / "run.json").exists():
        with exclusive(run.folder):
            if not (run.folder / "run.json").exists():
                (make if trained["method"] in DERIVED else fill)(run.folder, frames, trained)
    with suppress(OSError):  # a folder that can only be read is as good
        (run.folder / CHECKPOINT).unlink(missing_ok=True)
        os.utime(run.folder / "run.json")  # `find` takes the run that was last asked for
    return run


def determined(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that determine a run on some data, where they are not given at their defaults."""
    chosen = settings.RUN_DEFAULTS | for_dataset(chosen, chosen["dataset"])
    shared = {name: chosen[name] for name in ("dataset", "method", "seed", *settings.RUN_DEFAULTS)}
    return shared | settings.of_method(chosen["method"], chosen)


def run_name(frames: Frames, chosen: Mapping[str, Any]) -> str:
    """The name of a run's folder."""
    identity = json.dumps({"settings": determined(chosen), "data": frames.fingerprint}, sort_keys=True)
    digest = blake2b(identity.encode(), digest_size=4).hexdigest()
    return f"{chosen['dataset']}-{chosen['method']}-{chosen['seed']}-{digest}"


def fill(folder: Path, frames: Frames, trained: Mapping[str, Any]) -> None:
    """Train, from the checkpoint where there is one, and put the run into its folder."""
    own = {name: trained[name] for name in settings.DEFAULTS[trained["method"]] if name not in settings.SHAPES}
    if "ess_factor" in own:  # augmented copies are no further data
        own["ess_factor"] /= 1 + trained["augmented"]
    posterior, history = METHODS[trained["method"]](
        network_for(frames, trained),
        frames.part("train"),
        frames.part("validation"),
        epochs=trained["epochs"],
        seed=trained["seed"],
        rate_cost=trained["rate_cost"],
        checkpoint=folder / CHECKPOINT,
        **own,
    )
    posteriors.save(posterior, folder / "posterior.pt")
    with atomic_write(folder / "history.csv") as aside:
        history.to_csv(aside, index=False)
    record = {"settings": trained, "data": frames.fingerprint, "seconds": history["seconds"].sum()}
    write_json(folder / "run.json", record | provenance.here())


def make(folder: Path, frames: Frames, chosen: Mapping[str, Any]) -> None:
    """Put a run that is made of others into its folder; ``seconds`` are with those of their training."""
    methods, method = DERIVED[chosen["method"]]
    bases = []
    for index, base in enumerate(methods):
        # The members of an ensemble differ by their seeds, and no two ensembles share one.
        seed = chosen["seed"] + MEMBER * methods[:index].count(base)
        shared = {name: chosen[name] for name in ("dataset", *settings.RUN_DEFAULTS)}
        one = shared | chosen["bases"][base] | {"method": base, "seed": seed, "results_root": folder.parent}
        bases.append(train(frames, one))
    network, training, validation = network_for(frames, chosen), frames.part("train"), frames.part("validation")
    began = time.perf_counter()
    posterior = method(network, tuple(run.posterior for run in bases), training, validation, chosen["seed"])
    seconds = time.perf_counter() - began + sum(run.record["seconds"] for run in bases)
    samples = posteriors.samples_needed(posterior, VALIDATION_SAMPLES)
    generator = torch.Generator().manual_seed(0)
    predicted = posteriors.predict(network, posterior, validation.features, samples, generator)
    record = {
        "settings": dict(chosen),
        "data": frames.fingerprint,
        "bases": [run.folder.name for run in bases],
        "seconds": seconds,
        "validation_nll": metrics.negative_log_likelihood(predicted, validation.labels),
    }
    posteriors.save(posterior, folder / "posterior.pt")
    write_json(folder / "run.json", record | provenance.here())


def results_folder(chosen: Mapping[str, Any]) -> Path:
    root = chosen.get("results_root")
    return DATA / "runs" if root is None else Path(root)


def find(frames: Frames, chosen: Mapping[str, Any]) -> Run | None:
    """The stored run of this method and seed on this data that was last asked for, whatever its other settings.

    The same recordings split otherwise are other data: a test part would hold what the run was trained on. Where
    the network, its neuron or its readout is named, other networks are left out.
    """
    pattern = f"{chosen['dataset']}-{chosen['method']}-{chosen['seed']}-*/run.json"
    records = sorted(results_folder(chosen).glob(pattern), key=lambda path: path.stat().st_mtime, reverse=True)
    runs = (Run(path.parent) for path in records)
    data = {name: chosen.get(name, default) for name, default in settings.DATA_DEFAULTS.items()}
    named = data | {name: chosen[name] for name in settings.NETWORK if name in chosen}
    return next(
        (
            run
            for run in runs
            if run.record["data"] == frames.fingerprint
            and named.items() <= (settings.RUN_DEFAULTS | run.record["settings"]).items()
        ),
        None,
    )


def runs(chosen: Mapping[str, Any]) -> Iterator[tuple[Run, Frames]]:
    """A run for each of the chosen data sets, methods and seeds: stored, or trained with default settings.

    Those that are ``missing``, each named as in "hd-ivon-2", are left out.
    """
    for dataset in as_list(chosen["dataset"]):
        pairs = itertools.product(as_list(chosen["method"]), as_list(chosen["seed"]))
        there = [pair for pair in pairs if "-".join(map(str, (dataset, *pair))) not in chosen.get("missing", ())]
        if not there:
            continue
        frames = load_frames(chosen, dataset)
        for method, seed in there:
            one = for_dataset(chosen, dataset) | {"method": method, "seed": seed}
            yield find(frames, one) or train(frames, one), frames


def as_list(value: Any) -> list:
    return list(value) if isinstance(value, list | tuple) else [value]


def evaluate(run: Run, frames: Frames, samples: int, bins: int) -> Evaluation:
    """The paper's section 6.1 on the test part, averaged over ``samples`` draws of the weights."""
    path = run.folder / f"test-{samples}-samples-{bins}-bins.json"
    averaged, labels = path.with_suffix(".npy"), frames.part("test").labels
    if not path.exists():
        with exclusive(run.folder):
            if not path.exists():
                measure(run, frames, samples, bins, averaged, path)
    with or_damaged(path, "delete it and evaluate again"):
        record = json.loads(path.read_text(encoding="utf-8"))
        itemgetter(*TABLE[3:])(record["figures"])
    with or_damaged(averaged, f"delete it and {path.name} and evaluate again"):
        probabilities = np.load(averaged)
        if probabilities.shape != (shape := (len(labels), len(frames.class_names))):
            raise ValueError(f"it does not hold an array of shape {shape}")
    return Evaluation(record, torch.from_numpy(probabilities), labels)


def measure(run: Run, frames: Frames, samples: int, bins: int, averaged: Path, path: Path) -> None:
    """Predict the test part, and write the averaged predictions and, last, the figures."""
    test = frames.part("test")
    generator = torch.Generator().manual_seed(run.record["settings"]["seed"])
    samples = posteriors.samples_needed(run.posterior, samples)
    predicted = posteriors.predict(run.network(frames), run.posterior, test.features, samples, generator)
    np.save(written := io.BytesIO(), metrics.model_average(predicted).float().numpy())
    with atomic_write(averaged) as aside:
        aside.write_bytes(written.getbuffer())
    figures = metrics.summary(predicted, test.labels, bins=bins) | {"examples": len(test.labels)}
    produced_by = {"run": run.folder.name, "samples": samples, "bins": bins}
    write_json(path, {"figures": figures} | produced_by | provenance.here())
