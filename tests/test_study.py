"""Studies: what they run, that each run is measured once, and that one that fails does not stop the others."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from lib import experiment, slices, study
from lib.measures import landscape
from lib.metrics import summary

ROOT = Path(__file__).resolve().parents[1]
TOY = {
    "sets": {"toy": {"dataset": "fsdd"}},
    "variants": {"LIF": {"neuron": "lif"}, "MLP": {"network": "mlp"}},
    "method": ["map", "ivon"],
    "seed": [1, 2],
    "common": {"epochs": 2, "batch_size": 10, "hidden_sizes": [6], "num_frames": 20, "ivon": {"freeze_norm_after": 1}},
    "tuning": {"set": "toy", "trials": 1, "epochs": 1},
    "evaluation": {"samples": 2, "bins": 5},
    "tables": ["utterances"],
    "measures": {
        "progress": {},
        "activity": {},
        "noise": {"std": 0.01, "samples": 2, "examples": 10},
        "slices": {"points": 9, "directions": 2, "radius": 1.0, "samples": 2, "examples": 10},
    },
}


def one_after_the_other(work, arguments, description):
    """``study.at_once`` in this process, where what the tests put in place is seen."""
    for one in arguments:
        yield one, work(*one)


@pytest.fixture
def path(monkeypatch, tmp_path, toy_frames):
    """The file of a toy study whose data, runs and results lie in folders of the test's own."""
    monkeypatch.setattr(experiment, "DATA", tmp_path)
    monkeypatch.setattr(experiment, "load_frames", lambda chosen, dataset: toy_frames)
    monkeypatch.setattr(study, "at_once", one_after_the_other)
    written = tmp_path / "toy.yml"
    written.write_text(yaml.safe_dump(TOY))
    return written


def test_every_run_has_a_row_and_a_record(path, tmp_path):
    assert study.main([str(path)]) == 0
    rows = pd.read_csv(tmp_path / "results/toy/runs.csv")
    assert len(rows) == 8
    assert not rows.duplicated(study.KEY).any()
    records = json.loads((tmp_path / "results/toy/runs.json").read_text())
    assert {(one["variant"], one["settings"]["method"], one["settings"]["seed"]) for one in records} == set(
        rows[["variant", "method", "seed"]].itertuples(index=False, name=None)
    )
    assert {one["settings"].get("freeze_norm_after") for one in records} == {None, 1}
    assert {one["settings"]["network"] for one in records if one["variant"] == "MLP"} == {"mlp"}
    assert all(one["settings"]["epochs"] == 2 and one["commit"] for one in records)
    assert rows.loc[rows["variant"] == "LIF", "firing_rate"].between(0, 1).all()
    assert rows["roughness_averaged"].notna().equals(rows["method"] == "ivon")


def test_a_row_holds_what_the_library_measures(path, toy_frames):
    cell = study.cells(TOY, {})[1]
    row, _ = study.measure(cell, {"evaluation": TOY["evaluation"]} | TOY["measures"])
    run = experiment.train(toy_frames, cell.chosen)
    evaluation = experiment.evaluate(run, toy_frames, 2, 5)
    assert row["nll"] == evaluation.figures["nll"]
    assert row["brier"] == pytest.approx(
        summary(evaluation.probabilities, evaluation.labels, bins=5)["brier"], abs=1e-6
    )
    curves = landscape.sliced(run, toy_frames, **TOY["measures"]["slices"]).query("loss == 'averaged'")
    of_lines = [slices.roughness(curve["nll"].to_numpy()) for _, curve in curves.groupby("direction")]
    assert len(of_lines) == 2
    assert row["roughness_averaged"] == pytest.approx(sum(of_lines) / 2)


def test_nothing_is_computed_twice(path, tmp_path):
    study.main([str(path)])
    results = tmp_path / "results/toy/runs.csv"
    before = {one: one.stat().st_mtime_ns for one in tmp_path.glob("runs/*/[!r]*")}
    numbers = results.read_text()
    assert before
    assert study.main([str(path)]) == 0
    assert {one: one.stat().st_mtime_ns for one in tmp_path.glob("runs/*/[!r]*")} == before
    assert results.read_text() == numbers


def test_what_the_results_hold_is_not_computed_again_even_where_no_run_is_stored(path, tmp_path, monkeypatch):
    study.main([str(path)])
    shutil.rmtree(tmp_path / "runs")
    written = {name: (tmp_path / "results/toy" / name).read_text() for name in ("runs.csv", "runs.json")}
    monkeypatch.setattr(study, "measure", None)
    assert study.main([str(path)]) == 0
    assert written == {name: (tmp_path / "results/toy" / name).read_text() for name in written}


def test_what_was_computed_otherwise_is_computed_again(path, tmp_path):
    study.main([str(path)])
    path.write_text(yaml.safe_dump(TOY | {"evaluation": {"samples": 3, "bins": 5}, "seed": [2]}))
    assert study.main([str(path)]) == 0
    records = json.loads((tmp_path / "results/toy/runs.json").read_text())
    assert len(records) == 4
    assert {one["evaluation"]["samples"] for one in records} == {3}


def test_what_was_chosen_is_what_is_trained_with(path, tmp_path):
    assert study.main([str(path), "--tune"]) == 0
    chosen = yaml.safe_load((tmp_path / "toy-chosen.yml").read_text())
    assert set(chosen) == set(TOY["variants"])
    assert "batch_size" not in chosen["LIF"]["map"]
    trials = pd.read_csv(tmp_path / "results/toy/tuning.csv")
    assert len(trials) == 4
    chosen["LIF"]["map"]["learning_rate"] = 0.0123
    (tmp_path / "toy-chosen.yml").write_text(yaml.safe_dump(chosen))
    study.main([str(path)])
    records = json.loads((tmp_path / "results/toy/runs.json").read_text())
    rates = {one["settings"]["learning_rate"] for one in records if one["run"].startswith("fsdd-map")}
    assert 0.0123 in rates


def fails_for_two(number):
    if number == 2:
        raise FloatingPointError("training diverged")
    return number**2


def test_one_that_fails_is_named_and_the_others_go_on(capsys):
    done = dict(study.at_once(fails_for_two, [(1,), (2,), (3,)], "squares"))
    assert done == {(1,): 1, (3,): 9}
    assert "squares, 2: training diverged" in capsys.readouterr().err


def test_a_study_that_lacks_a_run_says_so_by_its_status(path, monkeypatch, tmp_path):
    def all_but_one(work, arguments, description):
        yield from one_after_the_other(work, arguments[1:], description)

    monkeypatch.setattr(study, "at_once", all_but_one)
    assert study.main([str(path)]) == 1
    assert len(pd.read_csv(tmp_path / "results/toy/runs.csv")) == 7


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sets": None}, "'sets' must be a dict"),
        ({"seed": 1}, "'seed' must be a list"),
        ({"epochs": 3}, "'epochs' is not known"),
        ({"tables": ["slices"]}, "there is no table 'slices'"),
    ],
)
def test_a_file_that_is_no_study_is_refused_in_one_sentence(path, change, sentence, capsys):
    path.write_text(yaml.safe_dump(TOY | change))
    assert study.main([str(path)]) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


def test_a_study_that_is_not_there_is_named(tmp_path, capsys):
    assert study.main([str(tmp_path / "absent.yml")]) == 1
    assert "There is no study" in capsys.readouterr().err


@pytest.mark.parametrize("file", sorted((ROOT / "book/params").glob("*-chosen.yml")), ids=lambda path: path.stem)
def test_the_committed_choices_are_the_best_trials(file):
    name = file.stem.removesuffix("-chosen")
    trials = pd.read_csv(ROOT / "data/results" / name / "tuning.csv")
    chosen = yaml.safe_load(file.read_text())
    for (variant, method), of_pair in trials.groupby(["variant", "method"]):
        best = of_pair.query("state == 'COMPLETE'").nsmallest(1, "validation_nll").iloc[0]
        for setting, value in chosen[variant][method].items():
            assert best[setting] == pytest.approx(value) if value is not None else pd.isna(best[setting])


def test_the_scores_of_every_utterance_are_written_and_kept(path, tmp_path, toy_frames):
    study.main([str(path)])
    scores = tmp_path / "results/toy/utterances.csv.gz"
    table = pd.read_csv(scores)
    assert len(table) == 8 * len(toy_frames.part("test").labels)
    rows = pd.read_csv(tmp_path / "results/toy/runs.csv").set_index(study.KEY)
    means = table.groupby(study.KEY)[["nll", "brier"]].mean()
    pd.testing.assert_frame_equal(means, rows[["nll", "brier"]].loc[means.index], rtol=1e-3)
    before = scores.read_bytes()
    shutil.rmtree(tmp_path / "runs")
    study.main([str(path)])
    assert scores.read_bytes() == before


def test_a_record_from_before_a_setting_was_known_is_of_its_default(path, tmp_path, monkeypatch):
    path.write_text(yaml.safe_dump(TOY | {"method": ["map", "temperature"], "seed": [1]}))
    study.main([str(path)])
    records = tmp_path / "results/toy/runs.json"
    stored = json.loads(records.read_text())
    for record in stored:
        del record["settings"]["bidirectional"]
        del record["settings"].get("bases", {"map": record["settings"]})["map"]["freeze_norm_after"]
    records.write_text(json.dumps(stored))
    monkeypatch.setattr(study, "measure", None)
    assert study.main([str(path)]) == 0
    for record in stored:
        record["settings"]["norm"] = "layer"
    records.write_text(json.dumps(stored))
    with pytest.raises(TypeError):  # it would compute them again
        study.main([str(path)])


def test_what_a_variant_changes_reaches_the_runs_that_a_method_is_made_of(path):
    variants = {"plain": {}, "without dropout": {"dropout": 0.0, "network": "mlp"}}
    common = TOY["common"] | {"map": {"dropout": 0.3, "learning_rate": 0.01}}
    found = study.cells(TOY | {"variants": variants, "method": ["temperature"], "common": common}, {})
    bases = {cell.variant: experiment.determined(cell.chosen)["bases"]["map"] for cell in found}
    assert [bases["plain"][name] for name in ("dropout", "learning_rate", "batch_size")] == [0.3, 0.01, 10]
    assert [bases["without dropout"][name] for name in ("dropout", "learning_rate", "batch_size")] == [0.0, 0.01, 10]


def test_a_study_can_take_the_settings_chosen_for_another(path, tmp_path, capsys):
    (tmp_path / "other-chosen.yml").write_text(yaml.safe_dump({"LIF": {"map": {"learning_rate": 0.123}}}))
    path.write_text(yaml.safe_dump(TOY | {"method": ["map"], "seed": [1], "tuning": {"as": "other"}}))
    assert study.main([str(path)]) == 0
    records = json.loads((tmp_path / "results/toy/runs.json").read_text())
    rates = {record["variant"]: record["settings"]["learning_rate"] for record in records}
    assert rates["LIF"] == 0.123 != rates["MLP"]
    assert study.main([str(path), "--tune"]) == 1
    assert "tune other.yml instead" in capsys.readouterr().err


LINES = {"directions": {"all": 2}, "points": 9, "radius": 0.5, "counts": [1], "examples": 10}


def test_a_measure_s_table_is_of_the_first_seed_and_is_kept(path, tmp_path, toy_frames):
    path.write_text(yaml.safe_dump(TOY | {"tables": ["angularity"], "measures": {"angularity": LINES}}))
    assert study.main([str(path)]) == 0
    written = tmp_path / "results/toy/angularity.csv.gz"
    table = pd.read_csv(written)
    assert set(table["seed"]) == {1}
    assert len(table) == 4 * 9  # of two variants and two methods the first direction
    run = next((tmp_path / "runs").glob("fsdd-map-1-*"))
    network = json.loads((run / "run.json").read_text())["settings"]["network"]
    variant = {"spiking": "LIF", "mlp": "MLP"}[network]
    expected = pd.read_csv(next(run.glob("angularity-*.csv"))).query("direction == 0")["nll"]
    found = table[(table["variant"] == variant) & (table["method"] == "map")]["nll"]
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-7)
    before = written.read_bytes()
    shutil.rmtree(tmp_path / "runs")
    study.main([str(path)])
    assert written.read_bytes() == before
