"""Runs on disk: whole or absent, trained once, and found by what determined them, never by who ran last."""

import json
import os
import re
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
import torch
from toys import assert_same_outcome

from lib import datasets, metrics, posteriors, runs
from lib.datasets import downloads
from lib.methods import METHODS, Derived
from lib.methods.ensemble import MEMBERS
from lib.methods.families import LowRankGaussian, NoisyNetwork
from lib.posteriors import MeanFieldGaussian, Mixture, PointMass
from lib.setup import Setup
from lib.study.tables import write_table1

FAMILIES = {
    "temperature": PointMass, "dropout": NoisyNetwork, "ensemble": Mixture, "laplace": LowRankGaussian,
    "ivon-mean": PointMass, "noise-ivon": MeanFieldGaussian, "noise-isotropic": MeanFieldGaussian,
    "noise-live": MeanFieldGaussian,
    "ivon-permuted": MeanFieldGaussian, "ivon-temperature": MeanFieldGaussian, "scaled-ivon": MeanFieldGaussian,
    "scaled-isotropic": MeanFieldGaussian, "scaled-filters": MeanFieldGaussian, "ivon-reestimated": MeanFieldGaussian,
}  # fmt: skip
TOY = {"dataset": "fsdd", "method": "map", "seed": 5, "num_frames": 20, "hidden_sizes": [6], "epochs": 2}
WRITTEN = ["history.csv", "posterior.pt", "run.json"]  # in this order

both = pytest.mark.parametrize("method", ["map", "ivon"])


def setup(**changes):
    return Setup.of(TOY | {"batch_size": 10} | changes)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def trained(toy_frames, root):
    """Trains the run of the toy settings, changed."""
    return lambda **changes: runs.train(setup(**changes), toy_frames, root)


def entries(folder):
    return sorted(entry.name for entry in folder.iterdir())


def forbid_training(monkeypatch):
    def train(*given):
        raise AssertionError("this was computed before")

    monkeypatch.setattr(runs, "_train", train)
    monkeypatch.setattr(runs, "_derive", train)


@contextmanager
def disk_full_for(name):
    replace_file = os.replace

    def full(source, target):
        if Path(target).name.endswith(name):
            raise OSError("No space left on device")
        replace_file(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            yield


# Training


@both
def test_a_run_is_what_its_method_returns_with_a_record_and_trained_once(
    trained, toy_frames, root, monkeypatch, method
):
    run, asked = trained(method=method), setup(method=method)
    assert re.fullmatch(rf"fsdd-{method}-5-[0-9a-f]{{8}}", str(run))
    assert run.folder.parent == root
    assert entries(run.folder) == sorted(WRITTEN)
    parts = [toy_frames.part(name) for name in ("train", "validation")]
    posterior, history = asked.method.train(runs.network_for(asked, toy_frames), *parts, epochs=2, seed=5)
    assert_same_outcome((run.posterior, run.history.round(9)), (posterior, history.round(9)))
    assert run.validation_nll == pytest.approx(history["validation_loss"].min())

    record = json.loads((run.folder / "run.json").read_text())
    assert record["settings"] == asked.record()
    assert run.setup == asked
    assert record["data"] == toy_frames.fingerprint
    leaks = [tensor.sigmoid() for name, tensor in posterior.mean.items() if name.endswith("raw_leak")]
    assert record["leaks_at_bounds"] == pytest.approx(float(((torch.cat(leaks) - 0.5).abs() > 0.49).double().mean()))
    assert 0.3 < record["leak"] < 0.99
    assert record["versions"]["ivon-opt"] == version("ivon-opt")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", record["finished"])
    assert record["seconds"] == pytest.approx(run.history["seconds"].sum())
    assert str(root.parent) not in json.dumps(record)

    before = {path: path.read_bytes() for path in run.folder.iterdir()}
    forbid_training(monkeypatch)
    assert trained(method=method) == run
    assert {path: path.read_bytes() for path in run.folder.iterdir()} == before


@both
def test_an_interrupted_run_goes_on_and_ends_in_the_same_numbers(toy_frames, root, tmp_path, monkeypatch, method):
    undisturbed = runs.train(setup(method=method), toy_frames, tmp_path / "undisturbed")
    predict, calls = posteriors.predict, []

    def interrupted(*given):
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return predict(*given)

    with monkeypatch.context() as patch:
        patch.setattr(posteriors, "predict", interrupted)
        with pytest.raises(KeyboardInterrupt):
            runs.train(setup(method=method), toy_frames, root)
    (folder,) = root.iterdir()
    assert entries(folder) == [runs.CHECKPOINT]
    assert runs.find(setup(method=method), toy_frames, root) is None

    run = runs.train(setup(method=method), toy_frames, root)
    assert entries(folder) == sorted(WRITTEN)
    assert_same_outcome(*[(one.posterior, one.history) for one in (run, undisturbed)])


@pytest.mark.parametrize("failing", WRITTEN)
def test_a_run_that_cannot_be_written_is_not_finished(trained, toy_frames, root, monkeypatch, failing):
    with disk_full_for(failing):
        trained()
    (folder,) = root.iterdir()
    assert entries(folder) == sorted([runs.CHECKPOINT, *WRITTEN[: WRITTEN.index(failing)]])
    assert runs.find(setup(), toy_frames, root) is None
    monkeypatch.setattr(posteriors, "predict", None)  # no epoch is trained again
    assert entries(trained().folder) == sorted(WRITTEN)


def test_in_training_alone_numbers_below_those_of_full_precision_are_zeros(toy_frames, monkeypatch):
    seen, tiny = [], torch.tensor([1e-39])

    def train(*given, **how):
        seen.append(bool(tiny * 1 == 0))
        return PointMass({}), pd.DataFrame()

    monkeypatch.setattr(METHODS["map"], "train", train)
    runs.fit(setup(method="map"), toy_frames)
    assert [*seen, bool(tiny * 1 == 0)] == [True, False]


def test_a_network_starts_from_its_seed_and_leaves_torch_s_own_generator_alone(toy_frames):
    before = torch.get_rng_state()
    weights = [runs.network_for(setup(seed=seed), toy_frames, "cpu").readout.weight for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


# Derived runs


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if issubclass(method, Derived)])
def test_a_derived_run_s_parts_are_the_runs_that_one_would_train(trained, toy_frames, root, monkeypatch, method):
    own = {"learning_rate": 0.011, "weight_decay": 0.001, "bases": {METHODS[method].bases[-1]: {"learning_rate": 0.02}}}
    run = trained(method=method, **own)
    assert isinstance(run.posterior, FAMILIES[method])
    assert [one.setup.method.name for one in run.trained] == list(METHODS[method].bases)
    assert run.record["seconds"] >= sum(one.record["seconds"] for one in run.trained)
    assert len(run.history) == 2
    assert runs.evaluate(run, toy_frames, 3, 5).figures["nll"] > 0
    forbid_training(monkeypatch)
    rates = dict.fromkeys(METHODS[method].bases, 0.011) | {METHODS[method].bases[-1]: 0.02}
    for base, rate in rates.items():  # found, since it was trained
        plain = trained(method=base, learning_rate=rate, weight_decay=0.001)
        assert plain in run.trained
    assert trained(method=method, **own) == runs.find(setup(method=method, **own), toy_frames, root) == run


def test_ensembles_share_no_member_and_begin_with_the_run_of_their_seed(trained):
    first, second = (trained(method="ensemble", seed=seed) for seed in (1, 2))
    seeds = [member.setup.seed for run in (first, second) for member in run.trained]
    assert (seeds[0], seeds[MEMBERS]) == (1, 2)
    assert len(set(seeds)) == 2 * MEMBERS
    for part, member in zip(first.posterior.components, first.trained, strict=True):
        assert_same_outcome((part, member.history), (member.posterior, member.history))


# Found again


def test_a_run_is_found_by_its_settings_whoever_ran_last(trained, toy_frames, root):
    """What a table says of some settings does not depend on which run was trained or touched last."""
    asked = {"epochs": 1}, {"epochs": 2}
    shorter, longer = (trained(**one) for one in asked)
    tables = []
    for last in (shorter, longer):
        for run in (shorter, longer):
            os.utime(run.folder / "run.json", (0, 2_000_000 if run == last else 1_000_000))
        trained(epochs=last.setup.training.epochs)
        assert [runs.find(setup(**one), toy_frames, root) for one in asked] == [shorter, longer]
        found = runs.find(setup(epochs=1), toy_frames, root)
        tables.append(write_table1({found: runs.evaluate(found, toy_frames, 2, 5)}, root))
    pd.testing.assert_frame_equal(*tables)


def test_where_there_are_only_others_they_are_listed_with_what_differs(trained, toy_frames, root):
    others = [trained(), trained(epochs=1)]
    with pytest.raises(ValueError, match="give the settings of one of these, or train the run") as refusal:
        runs.find(setup(neuron="rlif"), toy_frames, root)
    assert f"{others[0]} (with neuron 'lif')" in str(refusal.value)
    assert f"{others[1]} (with neuron 'lif', epochs 1)" in str(refusal.value)
    with pytest.raises(ValueError, match=f"with data '{toy_frames.fingerprint}'"):
        runs.find(setup(), replace(toy_frames, fingerprint="1" * 32), root)
    for other in ({"seed": 55}, {"method": "ivon"}, {"dataset": "sc"}):
        assert runs.find(setup(**other), toy_frames, root) is None


def test_each_run_is_found_or_trained_and_those_missing_are_not_even_read(trained, toy_frames, root, monkeypatch):
    read = []
    monkeypatch.setattr(
        runs, "load_frames", lambda setup, folder, **_: read.append((setup.dataset, folder)) or toy_frames
    )
    done = trained(seed=2)
    shape = {name: TOY[name] for name in ("num_frames", "epochs", "hidden_sizes")} | {"batch_size": 10}
    where = {"data_root": {"fsdd": "here"}, "results_root": root}
    missing = ["fsdd-map-1", "fsdd-map-12", "sc-map-1", "sc-map-2", "sc-map-12"]
    given = {"dataset": ["sc", "fsdd"], "method": "map", "seed": [1, 2, 12], "missing": missing}
    assert [*runs.each(shape, **given, **where)] == [(done, toy_frames)]
    assert read == [("fsdd", {"fsdd": "here"})]
    given = {"dataset": "fsdd", "method": ["map", "ivon"], "seed": [1, 2]}
    found = [run for run, _ in runs.each(shape, **given, **where)]
    names = [f"{run.setup.method.name} {run.setup.seed}" for run in found]
    assert names == ["map 1", "map 2", "ivon 1", "ivon 2"]
    assert found[1] == done
    forbid_training(monkeypatch)
    assert [run for run, _ in runs.each(shape, **given, **where)] == found
    with pytest.raises(ValueError, match="has these settings; there are"):  # another run is not trained in its place
        next(runs.each(shape | {"neuron": "rlif"}, **given, **where))
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError, match="nowhere does not hold the set 'fsdd'"):
        next(runs.each(shape, **given, data_root={"fsdd": "nowhere"}))


def test_nothing_is_trained_beside_what_cannot_be_had_with_it(trained, toy_frames, root, monkeypatch):
    """The small network of one method, and the defaults of the other, which is asked for first."""
    monkeypatch.setattr(runs, "load_frames", lambda *_, **__: toy_frames)
    stored = trained(seed=1, epochs=1)
    asked = {"dataset": "fsdd", "method": ["ivon", "map"], "seed": 1, "results_root": root}
    with pytest.raises(
        ValueError, match=r"no run of fsdd, map, .* \(with hidden_sizes \[6\], epochs 1\): give the set"
    ):
        next(runs.each({"num_frames": 20, "batch_size": 10}, **asked))
    assert entries(root) == [stored.folder.name]
    as_stored = {"hidden_sizes": [6], "epochs": 1}  # as the sentence says
    found = [run for run, _ in runs.each({"num_frames": 20, "batch_size": 10}, **asked, **as_stored)]
    assert found[1] == stored


def test_a_folder_of_runs_is_named_from_the_home_too(toy_frames, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    run = runs.train(setup(), toy_frames, "~/runs")
    assert run.folder.parent == tmp_path / "home/runs"
    assert runs.find(setup(), toy_frames, "~/runs") == run
    assert entries(tmp_path) == ["home"]
    with pytest.raises(ValueError, match="that is no folder's name"):
        runs.train(setup(), toy_frames, "")


def test_table_1_never_mixes_rows_of_other_settings(trained, toy_frames, root, capsys):
    def write(bins=5, **changes):
        run = trained(**changes)
        capsys.readouterr()
        write_table1({run: runs.evaluate(run, toy_frames, 2, bins)}, root)
        table = pd.read_csv(root / "table1.csv")
        recorded = [Setup.of(record["settings"]) for record in json.loads((root / "runs.json").read_text())]
        rows = [(one.method.name, one.seed) for one in recorded]
        assert sorted(rows) == [*table[["method", "seed"]].itertuples(index=False, name=None)]
        return sorted(rows), capsys.readouterr().err

    write(seed=1), write(seed=2)
    assert write(method="ivon", seed=1) == ([("ivon", 1), ("map", 1), ("map", 2)], "")
    rows, said = write(seed=1, hidden_sizes=[5])  # another network: the others leave
    assert rows == [("map", 1)]
    assert "fsdd-ivon-1, fsdd-map-2: trained or evaluated with other settings, and no longer in" in said
    assert write(seed=2, hidden_sizes=[5])[0] == [("map", 1), ("map", 2)]
    assert write(method="ivon", seed=1, hidden_sizes=[5], learning_rate=0.1)[0] == [("ivon", 1), ("map", 1), ("map", 2)]
    assert write(seed=2, hidden_sizes=[5], learning_rate=0.01)[0] == [("ivon", 1), ("map", 2)]  # of a method, too
    assert write(seed=2, hidden_sizes=[5], learning_rate=0.01, bins=7)[0] == [("map", 2)]


# Evaluation


@both
def test_an_evaluation_is_of_the_averaged_predictions_and_made_once(trained, toy_frames, monkeypatch, method):
    run, test, count = trained(method=method), toy_frames.part("test"), 4 if method == "ivon" else 1
    evaluation = runs.evaluate(run, toy_frames, samples=4, bins=7)
    network, generator, predicted = run.network(toy_frames, "cpu").eval(), torch.Generator().manual_seed(5), []
    for _ in range(count):
        network.load_state_dict(run.posterior.sample(generator), strict=False)
        predicted.append(network(test.features).softmax(-1).detach())
    expected = metrics.summary(torch.stack(predicted), test.labels, bins=7) | {"examples": len(test.labels)}
    assert evaluation.figures == pytest.approx(expected, rel=1e-5, abs=1e-9)
    torch.testing.assert_close(evaluation.probabilities, torch.stack(predicted).mean(dim=0))
    assert torch.equal(evaluation.labels, test.labels)
    assert (evaluation.figures["mutual_information"] > 0) == (method == "ivon")
    assert (evaluation.record["run"], evaluation.record["samples"], evaluation.record["bins"]) == (str(run), count, 7)
    monkeypatch.setattr(posteriors, "predict", None)
    again = runs.evaluate(runs.Run(run.folder), toy_frames, samples=4, bins=7)
    assert again.figures == evaluation.figures
    assert torch.equal(again.probabilities, evaluation.probabilities)
    with pytest.raises(TypeError):
        runs.evaluate(run, toy_frames, samples=4, bins=8)


@pytest.mark.parametrize("failing", [".npy", "bins.json"])
def test_an_evaluation_that_cannot_be_written_is_made_again(trained, toy_frames, failing):
    run = trained()
    with disk_full_for(failing):
        runs.evaluate(run, toy_frames, 2, 5)
    assert not any(name.startswith(".") or name.endswith("bins.json") for name in entries(run.folder))
    assert runs.evaluate(run, toy_frames, 2, 5).figures["examples"] == 20


# Data


def test_data_are_prepared_in_their_own_place_alone_and_features_extracted_once(tmp_path, monkeypatch):
    made, small = [], partial(datasets.SETS["synthetic-hd"].make, utterances=240)
    monkeypatch.setattr(runs, "DATA", tmp_path / "data")
    dataset = replace(datasets.SETS["synthetic-hd"], make=lambda root: made.append(root) or small(root))
    monkeypatch.setitem(datasets.SETS, "synthetic-hd", dataset)
    asked = setup(dataset="synthetic-hd")
    frames = runs.load_frames(asked)
    assert frames.features.shape == (240, 20, 40)
    assert made == [tmp_path / "data/synthetic-hd"]
    own = tmp_path / "own"
    (tmp_path / "data/synthetic-hd").rename(own)
    assert runs.load_frames(asked, str(own)).fingerprint == frames.fingerprint
    assert len(list((tmp_path / "data/features").glob("*.npy"))) == 1
    assert runs.train(asked, frames) == runs.find(asked, frames, tmp_path / "data/runs")

    monkeypatch.setattr(downloads, "fetch", lambda name, sources, root: made.append(root))
    for folder in (tmp_path / "absent", None):
        with pytest.raises(FileNotFoundError, match="does not hold the set 'fsdd'"):
            runs.load_utterances(setup(), folder)
    assert made[1:] == [tmp_path / "data/fsdd"]
