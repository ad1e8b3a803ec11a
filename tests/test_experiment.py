"""Runs on disk: named by what determined them, whole or absent, never computed twice."""

import json
import os
import re
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

from lib import downloads, experiment, metrics, posteriors, slices, synthesis, tables
from lib.posteriors import MeanFieldGaussian, PointMass
from lib.trainers import train_ivon, train_map

TRAINERS = {"map": train_map, "ivon": train_ivon}
CHOSEN = {
    "dataset": "synthetic-hd",
    "method": "map",
    "seed": 5,
    "split": None,
    "validation": None,
    "num_frames": 20,
    "hidden_sizes": [6],
    "epochs": 2,
    "batch_size": 40,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data folder of the module's own, in which the synthetic set is a small one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "DATA", tmp_path_factory.mktemp("data"))
        patch.setitem(synthesis.DEFAULT_UTTERANCES, "synthetic-hd", 240)
        yield experiment.DATA


@pytest.fixture(scope="module")
def frames(data):
    return experiment.load_frames(CHOSEN, "synthetic-hd")


@pytest.fixture(params=list(TRAINERS))
def chosen(request, tmp_path):
    return CHOSEN | {"method": request.param, "results_root": tmp_path / "runs"}


@pytest.fixture
def map_chosen(tmp_path):
    return CHOSEN | {"results_root": str(tmp_path / "runs")}


def must_not_be_called(*_, **__):
    raise AssertionError("this was computed before")


def interrupted_after(epoch, method):
    """The method's trainer, but that the user interrupts it after an epoch."""

    def after_epoch(row):
        if row["epoch"] == epoch:
            raise KeyboardInterrupt

    return lambda *given, **settings: TRAINERS[method](*given, **settings, after_epoch=after_epoch)


def entries(folder):
    return sorted(entry.name for entry in folder.iterdir())


# Data


def test_synthetic_speech_is_made_where_it_is_absent(data, frames):
    assert (data / "synthetic-hd" / "train_filenames.txt").is_file()
    assert frames.features.shape == (240, 20, 40)
    assert frames.class_names[:2] == ("zero", "one")
    assert (data / "features").is_dir()


def test_a_folder_of_one_s_own_is_taken_as_it_is(data, frames, tmp_path, monkeypatch):
    own = tmp_path / "own"
    (data / "synthetic-hd").rename(own)
    try:
        monkeypatch.setattr(synthesis, "make", must_not_be_called)
        for root in (own, str(own), {"synthetic-hd": str(own)}):
            speech = experiment.load_speech(CHOSEN | {"data_root": root}, "synthetic-hd")
            assert speech.fingerprint() == frames.fingerprint
    finally:
        own.rename(data / "synthetic-hd")


def test_a_set_that_the_mapping_leaves_out_is_where_it_always_is(data, frames, tmp_path):
    speech = experiment.load_speech(CHOSEN | {"data_root": {"sc": tmp_path}}, "synthetic-hd")
    assert speech.root == data / "synthetic-hd"


def test_a_published_set_is_fetched_once_and_only_to_its_own_place(data, tmp_path, monkeypatch):
    fetched = []

    def fetch(name, root):
        fetched.append((name, root))
        (root / "recordings").mkdir(parents=True)

    monkeypatch.setattr(downloads, "fetch", fetch)
    for _ in range(2):
        with pytest.raises((FileNotFoundError, ValueError)):  # it holds no recordings
            experiment.load_speech({}, "fsdd")
    with pytest.raises(FileNotFoundError):
        experiment.load_speech({"data_root": tmp_path / "absent"}, "fsdd")
    assert fetched == [("fsdd", data / "fsdd")]


# Training


def test_a_run_has_a_folder_of_its_own_that_holds_everything(frames, chosen):
    run = experiment.train(frames, chosen)
    assert re.fullmatch(rf"synthetic-hd-{chosen['method']}-5-[0-9a-f]{{8}}", str(run))
    assert run.folder.parent == chosen["results_root"]
    assert entries(run.folder) == ["history.csv", "posterior.pt", "run.json"]
    assert isinstance(run.posterior, {"map": PointMass, "ivon": MeanFieldGaussian}[chosen["method"]])
    assert run.history["epoch"].tolist() == [1, 2]


def test_the_record_says_what_determined_the_run(frames, map_chosen):
    run = experiment.train(frames, map_chosen | {"data_root": {"synthetic-hd": str(experiment.DATA / "synthetic-hd")}})
    written = (run.folder / "run.json").read_text()
    record = json.loads(written)
    assert record["settings"] == {
        "dataset": "synthetic-hd", "split": None, "validation": None, "method": "map", "seed": 5, "num_frames": 20,
        "filterbank_rate": None, "bin_ms": 14.0, "augmented": 0,
        "hidden_sizes": [6], "network": "spiking", "neuron": "lif", "readout": "rate", "norm": "batch", "bias": False,
        "bidirectional": False, "epochs": 2, "rate_cost": 0.0, "batch_size": 40,
        **{
            name: experiment.settings.DEFAULTS["map"][name]
            for name in ("learning_rate", "weight_decay", "dropout", "patience", "freeze_norm_after")
        },
    }  # fmt: skip
    assert record["data"] == frames.fingerprint
    for name in ("torch", "ivon-opt", "numpy"):
        assert record["versions"][name] == version(name)
    assert record["machine"]["cores"] == os.cpu_count()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", record["finished"])
    assert record["commit"] is None or re.search(r"[0-9a-f]{7}", record["commit"])
    assert record["seconds"] == pytest.approx(run.history["seconds"].sum())
    assert str(Path(map_chosen["results_root"]).parent) not in written
    assert str(experiment.DATA) not in written


def test_a_run_is_what_its_trainer_returns(frames, chosen):
    run = experiment.train(frames, chosen)
    settings = experiment.settings.of_method(chosen["method"], chosen)
    dropout = settings.pop("dropout")
    network = experiment.network_for(frames, {"seed": 5, "hidden_sizes": [6], "dropout": dropout})
    posterior, history = TRAINERS[chosen["method"]](
        network, frames.part("train"), frames.part("validation"), epochs=2, seed=5, **settings
    )
    assert all(torch.equal(run.posterior.mean[name], tensor) for name, tensor in posterior.mean.items())
    pd.testing.assert_frame_equal(run.history.drop(columns="seconds"), history.drop(columns="seconds"))


def test_a_finished_run_is_not_trained_again(frames, chosen, monkeypatch):
    first = experiment.train(frames, chosen)
    before = {name: (first.folder / name).read_bytes() for name in entries(first.folder)}
    monkeypatch.setitem(experiment.METHODS, chosen["method"], must_not_be_called)
    again = experiment.train(frames, chosen)
    assert again == first
    assert {name: (first.folder / name).read_bytes() for name in entries(first.folder)} == before


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 6},
        {"epochs": 1},
        {"hidden_sizes": [7]},
        {"hidden_sizes": [6, 6]},
        {"batch_size": 41},
        {"learning_rate": 0.02},
        {"dropout": 0.5},
        {"patience": 9},
    ],
    ids=str,
)
def test_other_settings_are_another_run(frames, map_chosen, change):
    assert experiment.train(frames, map_chosen).folder != experiment.train(frames, map_chosen | change).folder


def test_what_training_does_not_see_makes_no_other_run(frames, map_chosen, monkeypatch):
    run = experiment.train(frames, map_chosen)
    monkeypatch.setitem(experiment.METHODS, "map", must_not_be_called)
    same = {"samples": 3, "bins": 2, "radius": 1.0, "learning_rate": None, "hidden_sizes": (6,), "data_root": "x"}
    assert experiment.train(frames, map_chosen | same) == run


def test_choices_given_for_each_data_set_are_those_of_this_one(data, frames, map_chosen):
    single = {"split": "official", "validation": "test", "data_root": str(data / "synthetic-hd")}
    mapped = {name: {"synthetic-hd": value, "sc": "70-10-20"} for name, value in single.items()}
    parts = experiment.load_speech(mapped, "synthetic-hd").parts
    assert (parts == "validation").sum() == (parts == "test").sum() > 0
    run = experiment.train(frames, map_chosen | mapped)
    assert run == experiment.train(frames, map_chosen | single)
    assert run.record["settings"]["validation"] == "test"


def test_other_recordings_are_another_run(frames, map_chosen):
    other = replace(frames, fingerprint="0" * 32)
    assert experiment.train(frames, map_chosen).folder != experiment.train(other, map_chosen).folder


def test_an_interrupted_run_goes_on_and_ends_in_the_same_numbers(frames, chosen, tmp_path, monkeypatch):
    undisturbed = experiment.train(frames, chosen | {"results_root": tmp_path / "undisturbed"})
    with monkeypatch.context() as patch:
        patch.setitem(experiment.METHODS, chosen["method"], interrupted_after(1, chosen["method"]))
        with pytest.raises(KeyboardInterrupt):
            experiment.train(frames, chosen)
    (folder,) = chosen["results_root"].iterdir()
    assert entries(folder) == ["checkpoint.pt"]
    assert experiment.find(frames, chosen) is None

    run = experiment.train(frames, chosen)
    assert run.folder == folder
    assert entries(folder) == ["history.csv", "posterior.pt", "run.json"]
    for kind in ("mean", "std") if chosen["method"] == "ivon" else ("mean",):
        expected = getattr(undisturbed.posterior, kind)
        assert all(torch.equal(tensor, expected[name]) for name, tensor in getattr(run.posterior, kind).items())
    pd.testing.assert_frame_equal(
        run.history.drop(columns="seconds"), undisturbed.history.drop(columns="seconds"), check_exact=True
    )
    assert run.history["seconds"][0] != undisturbed.history["seconds"][0]  # the first epoch was not run again


@pytest.mark.parametrize("failing", ["posterior.pt", "history.csv", "run.json"])
def test_a_run_that_cannot_be_written_is_not_finished_and_leaves_no_half(frames, map_chosen, monkeypatch, failing):
    replace_file = os.replace

    def full_disk(source, target):
        if Path(target).name == failing:
            raise OSError("No space left on device")
        replace_file(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full_disk)
        with pytest.raises(OSError, match="No space left"):
            experiment.train(frames, map_chosen)
    (folder,) = Path(map_chosen["results_root"]).iterdir()
    written = ["posterior.pt", "history.csv", "run.json"]
    assert entries(folder) == sorted(["checkpoint.pt", *written[: written.index(failing)]])
    assert experiment.find(frames, map_chosen) is None

    def not_trained(row):
        raise AssertionError("an epoch was trained again")

    monkeypatch.setitem(
        experiment.METHODS, "map", lambda *given, **settings: train_map(*given, **settings, after_epoch=not_trained)
    )
    assert entries(experiment.train(frames, map_chosen).folder) == sorted(written)


def test_another_method_s_setting_is_refused_before_anything_is_written(frames, map_chosen):
    with pytest.raises(ValueError, match="map takes no ess_factor"):
        experiment.train(frames, map_chosen | {"ess_factor": 2.0})
    assert not Path(map_chosen["results_root"]).exists()


def test_a_network_starts_from_its_seed_and_leaves_torch_s_own_generator_alone(frames):
    before = torch.get_rng_state()
    networks = [
        experiment.network_for(frames, {"seed": seed, "hidden_sizes": [6], "dropout": 0.1}) for seed in (1, 1, 2)
    ]
    assert torch.equal(torch.get_rng_state(), before)
    first, again, other = (torch.nn.utils.parameters_to_vector(network.parameters()) for network in networks)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert networks[0](torch.zeros(3, 20, 40)).shape == (3, 20)


# Stored runs


def test_runs_are_stored_beside_the_data_where_no_place_is_named(data, frames):
    run = experiment.train(frames, CHOSEN)
    assert run.folder.parent == data / "runs"


def test_the_run_last_asked_for_is_found(frames, map_chosen):
    older, newer = (experiment.train(frames, map_chosen | {"epochs": epochs}) for epochs in (1, 2))
    for run, age in ((older, 100), (newer, 50)):
        os.utime(run.folder / "run.json", (0, 1_000_000 - age))
    assert experiment.find(frames, map_chosen) == newer
    experiment.train(frames, map_chosen | {"epochs": 1})
    assert experiment.find(frames, map_chosen) == older


@pytest.mark.parametrize(
    "change", [{"seed": 6}, {"method": "ivon"}, {"dataset": "hd"}, {"split": "official"}, {"num_frames": 21}], ids=str
)
def test_a_run_of_something_else_is_not_found(frames, map_chosen, change):
    run = experiment.train(frames, map_chosen)
    assert experiment.find(frames, map_chosen) == run
    assert experiment.find(frames, map_chosen | change) is None


def test_a_run_on_other_recordings_is_not_found(frames, map_chosen):
    experiment.train(frames, map_chosen)
    assert experiment.find(replace(frames, fingerprint="0" * 32), map_chosen) is None


def test_a_seed_that_begins_alike_is_not_found(frames, map_chosen):
    experiment.train(frames, map_chosen | {"seed": 51})
    assert experiment.find(frames, map_chosen) is None


def test_all_chosen_runs_are_found_or_trained(frames, map_chosen, monkeypatch):
    asked = map_chosen | {"method": ["map", "ivon"], "seed": [1, 2]}
    done = experiment.train(frames, map_chosen | {"seed": 2, "epochs": 1})
    stored = [run for run, _ in experiment.runs(asked)]
    settings = [run.record["settings"] for run in stored]
    assert [(s["method"], s["seed"]) for s in settings] == [("map", 1), ("map", 2), ("ivon", 1), ("ivon", 2)]
    assert stored[1] == done
    for method in TRAINERS:
        monkeypatch.setitem(experiment.METHODS, method, must_not_be_called)
    for run, of_run in experiment.runs(asked):
        assert run in stored
        assert of_run.fingerprint == frames.fingerprint


def test_missing_runs_are_neither_looked_for_nor_trained(frames, map_chosen, tmp_path):
    done = experiment.train(frames, map_chosen | {"seed": 1})
    names = ["synthetic-hd-map-2", "synthetic-hd-map-12", *(f"sc-map-{seed}" for seed in (1, 2, 12))]
    data_root = {"sc": str(tmp_path / "absent")}  # a set without runs is not even read
    asked = map_chosen | {
        "dataset": ["sc", "synthetic-hd"],
        "seed": [1, 2, 12],
        "missing": names,
        "data_root": data_root,
    }
    assert [run for run, _ in experiment.runs(asked)] == [done]


# Evaluation


@pytest.fixture
def run(frames, chosen):
    return experiment.train(frames, chosen)


def test_an_evaluation_is_the_summary_of_the_averaged_predictions(frames, run):
    evaluation = experiment.evaluate(run, frames, samples=4, bins=7)
    test = frames.part("test")
    network, generator, predicted = run.network(frames).eval(), torch.Generator().manual_seed(5), []
    for _ in range(4 if isinstance(run.posterior, MeanFieldGaussian) else 1):
        network.load_state_dict(run.posterior.sample(generator), strict=False)
        predicted.append(network(test.features).softmax(-1).detach())
    expected = metrics.summary(torch.stack(predicted), test.labels, bins=7)
    assert evaluation.figures == pytest.approx({**expected, "examples": len(test.labels)}, rel=1e-5, abs=1e-9)
    torch.testing.assert_close(evaluation.probabilities, torch.stack(predicted).mean(dim=0))
    assert torch.equal(evaluation.labels, test.labels)
    if isinstance(run.posterior, PointMass):
        assert evaluation.figures["mutual_information"] == 0
    else:
        assert evaluation.figures["mutual_information"] > 0


def test_a_stored_evaluation_says_what_produced_it(frames, run):
    experiment.evaluate(run, frames, samples=4, bins=7)
    stored = json.loads((run.folder / "test-4-samples-7-bins.json").read_text())
    assert stored["run"] == str(run)
    assert stored["samples"] == (4 if isinstance(run.posterior, MeanFieldGaussian) else 1)  # one point, one sample
    assert stored["bins"] == 7
    assert stored["versions"] == run.record["versions"]
    assert stored["machine"] == run.record["machine"]
    assert stored["commit"] == run.record["commit"]
    assert stored["finished"] >= run.record["finished"]


def test_an_evaluation_is_made_once(frames, run, monkeypatch):
    first = experiment.evaluate(run, frames, samples=4, bins=7)
    assert {"test-4-samples-7-bins.json", "test-4-samples-7-bins.npy"} <= set(entries(run.folder))
    with monkeypatch.context() as patch:
        patch.setattr(posteriors, "predict", must_not_be_called)
        again = experiment.evaluate(experiment.Run(run.folder), frames, samples=4, bins=7)
        with pytest.raises(AssertionError, match="computed before"):
            experiment.evaluate(run, frames, samples=4, bins=8)
    assert again.figures == first.figures
    assert torch.equal(again.probabilities, first.probabilities)


@pytest.mark.parametrize("failing", [".npy", ".json"])
def test_an_evaluation_that_cannot_be_written_is_made_again(frames, map_chosen, monkeypatch, failing):
    run = experiment.train(frames, map_chosen)
    replace_file = os.replace

    def full_disk(source, target):
        if Path(target).suffix == failing:
            raise OSError("No space left on device")
        replace_file(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full_disk)
        with pytest.raises(OSError, match="No space left"):
            experiment.evaluate(run, frames, samples=2, bins=5)
    assert not any(name.startswith(".") or name.endswith("bins.json") for name in entries(run.folder))
    assert experiment.evaluate(run, frames, samples=2, bins=5).figures["examples"] == len(frames.part("test").labels)


# Table 1


def evaluated(frames, chosen, **changes):
    run = experiment.train(frames, chosen | changes)
    return {run: experiment.evaluate(run, frames, samples=2, bins=5)}


COLUMNS = ["dataset", "method", "seed", "accuracy", "nll", "ece", "entropy", "mutual_information", "brier"]


def test_the_table_has_a_row_for_each_run(frames, map_chosen):
    evaluations = evaluated(frames, map_chosen, seed=2) | evaluated(frames, map_chosen, seed=1)
    evaluations |= evaluated(frames, map_chosen, method="ivon", seed=1)
    tables.write(evaluations, map_chosen)
    written = pd.read_csv(Path(map_chosen["results_root"]) / "table1.csv")
    assert written.columns.tolist() == COLUMNS
    assert written[["method", "seed"]].to_numpy().tolist() == [["ivon", 1], ["map", 1], ["map", 2]]
    figures = next(iter(evaluations.values())).figures  # of map with seed 2
    assert written.iloc[2][COLUMNS[3:]].to_dict() == pytest.approx({name: figures[name] for name in COLUMNS[3:]})
    count = len(frames.part("test").labels)
    assert written["accuracy"][2] == pytest.approx(100 * figures["correct"] / count)  # percent


def test_rows_are_replaced_and_others_kept(frames, map_chosen):
    table = Path(map_chosen["results_root"]) / "table1.csv"
    first, other = evaluated(frames, map_chosen, seed=1), evaluated(frames, map_chosen, seed=2)
    tables.write(first | other, map_chosen)
    before = pd.read_csv(table)
    tables.write(first, map_chosen)
    pd.testing.assert_frame_equal(pd.read_csv(table), before)

    better = evaluated(frames, map_chosen, seed=1, epochs=3)
    tables.write(better, map_chosen)
    after = pd.read_csv(table)
    assert after["seed"].tolist() == [1, 2]
    assert after["nll"][0] == pytest.approx(next(iter(better.values())).figures["nll"])
    assert after["nll"][0] != before["nll"][0]
    pd.testing.assert_series_equal(after.iloc[1], before.iloc[1])


def test_the_records_beside_the_table_are_those_of_its_rows(frames, map_chosen):
    first, better = evaluated(frames, map_chosen, seed=1), evaluated(frames, map_chosen, seed=1, epochs=3)
    other = evaluated(frames, map_chosen, seed=2)
    for evaluations in (first | other, better):
        tables.write(evaluations, map_chosen)
    records = json.loads((Path(map_chosen["results_root"]) / "runs.json").read_text())
    assert {record["run"] for record in records} == {str(run) for run in better | other}
    assert len(records) == 2
    for run, evaluation in (better | other).items():
        record = next(record for record in records if record["run"] == str(run))
        assert record.pop("validation_nll") == run.history["validation_loss"].min()
        by = record.pop("evaluation")
        assert (by["samples"], by["bins"], by["finished"]) == (1, 5, evaluation.record["finished"])
        assert record == {"run": str(run)} | run.record


def test_a_table_that_cannot_be_written_leaves_the_one_before(frames, map_chosen, monkeypatch):
    root = Path(map_chosen["results_root"])
    evaluations = evaluated(frames, map_chosen, seed=1)
    tables.write(evaluations, map_chosen)
    before = (root / "table1.csv").read_bytes()

    def full_disk(rows, path, **_):
        path.write_text("dataset,me")
        raise OSError("No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full_disk)
    with pytest.raises(OSError, match="No space left"):
        tables.write(evaluations, map_chosen)
    assert (root / "table1.csv").read_bytes() == before
    assert not any(name.startswith(".") for name in entries(root))


# Slices


def test_slices_are_taken_along_the_same_lines_around_every_centre(frames, map_chosen):
    point = experiment.train(frames, map_chosen)
    spread = experiment.train(frames, map_chosen | {"method": "ivon"}).posterior
    network = point.network(frames)
    test = frames.part("test")
    batches = [(test.features[:10], test.labels[:10]), (test.features[10:16], test.labels[10:16])]
    centres = {"map": point.posterior.mean, "ivon": spread.mean}
    alphas = np.linspace(-1, 1, 3)
    curves = slices.curves(centres, spread, network, batches, alphas=alphas, directions=2, samples=3)

    assert curves.columns.tolist() == ["centre", "loss", "direction", "alpha", "nll"]
    assert len(curves) == 2 * 2 * 2 * 3  # centres, losses, directions, alphas
    assert not curves.duplicated(["centre", "loss", "direction", "alpha"]).any()
    direction = slices.random_direction(network.named_parameters(), torch.Generator().manual_seed(1))
    for centre, state in centres.items():
        of_line = curves[(curves["centre"] == centre) & (curves["direction"] == 1)].set_index("loss")
        np.testing.assert_array_equal(
            of_line.loc["point", "nll"], slices.deterministic_loss(network, state, direction, alphas, batches)
        )
        around = MeanFieldGaussian(state, spread.std)
        np.testing.assert_array_equal(
            of_line.loc["averaged", "nll"],
            slices.bayesian_loss(network, around, direction, alphas, batches, 3, torch.Generator().manual_seed(0)),
        )
        np.testing.assert_array_equal(of_line.loc["point", "alpha"], alphas)
    at_centre = curves.query("alpha == 0 and loss == 'point'").groupby("centre")["nll"]
    assert (at_centre.nunique() == 1).all()  # every line goes through its centre


# JSON


def test_json_that_cannot_be_written_leaves_the_one_before(tmp_path):
    path = tmp_path / "run.json"
    experiment.write_json(path, {"seed": 1})
    with pytest.raises(TypeError):
        experiment.write_json(path, {"seed": torch.ones(1)})
    assert json.loads(path.read_text()) == {"seed": 1}
    assert entries(tmp_path) == ["run.json"]


def test_paired_differences_are_those_of_scipy() -> None:
    rows = pd.DataFrame(
        [
            ("a", method, seed, *[value] * 4)
            for method, values in {"map": (1.0, 2.0, 4.0), "ivon": (1.5, 2.0, 3.0)}.items()
            for seed, value in enumerate(values)
        ],
        columns=["dataset", "method", "seed", "accuracy", "nll", "brier", "ece"],
    )
    found = tables.paired_differences(rows, "ivon", "map").loc[("a", "nll")]
    expected = scipy.stats.ttest_rel([1.5, 2.0, 3.0], [1.0, 2.0, 4.0])
    assert found["difference"] == pytest.approx(-1 / 6)
    assert (found["from"], found["to"]) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_the_filterbank_can_be_told_another_rate(data, map_chosen):
    own, told = (
        experiment.load_frames(map_chosen | {"filterbank_rate": rate}, "synthetic-hd") for rate in (None, 8_000)
    )
    assert own.fingerprint == told.fingerprint
    assert not torch.equal(own.features, told.features)
