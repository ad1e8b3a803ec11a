"""The search for settings: its space, what is left out of it, and that it goes on where it was interrupted."""

import math
from dataclasses import replace

import optuna
import pandas as pd
import pytest
import torch
import toy_study
import yaml
from full_disk import full_disk

from lib import runs
from lib.methods import METHODS, Derived
from lib.setup import Setup
from lib.study import ONE, engine, read, tables, tuning
from lib.study import __main__ as command

SMALL = {"dataset": "fsdd", "hidden_sizes": [6], "epochs": 2, "batch_size": 10}
TRAINED = [name for name, method in METHODS.items() if not issubclass(method, Derived)]


@pytest.fixture
def search(tmp_path, toy_frames):
    """Goes on with a search on the toy set until it has so many trials."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def go_on(method, trials, frames=toy_frames, given=SMALL, name="toy"):
        return tuning.search(tmp_path / f"{name}.log", {"toy": given}, {"toy": frames}, method, trials)

    return go_on


def test_the_space_holds_each_method_s_own_settings_and_its_defaults():
    # What is by default left out is not searched: the fixed prior of Bayes by Backprop, and Adam's frozen norms.
    for name in TRAINED:
        defaults, space = METHODS[name]().as_dict(), METHODS[name].search_space()
        assert set(space) == {name for name, default in defaults.items() if default is not None}
        for setting, values in space.items():
            default = defaults[setting]
            assert values[0] <= default <= values[1] if isinstance(values, tuple) else default in values


@pytest.mark.parametrize("method", TRAINED)
def test_what_is_given_is_not_searched_and_the_defaults_come_first(search, method):
    given = SMALL | ({"swag_from": 0} if method == "swag" else {})  # it collects from two epochs at least
    study = search(method, 2, given=given)
    assert [trial.state.name for trial in study.trials[:2]] == ["COMPLETE", "COMPLETE"]
    defaults = METHODS[method]().as_dict()
    assert study.trials[0].params == {
        name: defaults[name] for name in METHODS[method].search_space() if name not in given
    }
    assert all(math.isfinite(trial.value) for trial in study.trials)


def test_a_search_goes_on_where_it_ended_and_past_what_a_full_disk_left(search, tmp_path, capsys):
    first = search("map", 2).trials
    journal = tmp_path / "toy.log"
    whole = journal.read_bytes()
    for damage in (b'{"op_code": 5, "worker', b'\0\0\0\n{"op_code": 4}\n'):
        journal.write_bytes(whole + damage)
        again = search("map", 2).trials
        assert "is damaged at its end" in capsys.readouterr().err
        assert [trial.value for trial in again] == [trial.value for trial in first]
    assert [len(search("map", 3).trials) for _ in range(2)] == [3, 3]
    assert capsys.readouterr().err.count("damaged") == 0


def test_a_journal_without_a_whole_line_begins_anew_and_one_that_says_something_else_is_named(search, tmp_path):
    search("map", 1)
    journal = tmp_path / "toy.log"
    whole = journal.read_bytes()
    for left in (whole[:20], b"", bytes(50), b"[1]\n" + whole):
        journal.write_bytes(left)
        assert len(search("map", 1).get_trials(states=tuning.FINISHED)) == 1
    for line in (b'{"op_code": 0}\n', b'{"op_code": 99, "worker_id": "x"}\n'):
        journal.write_bytes(whole + line)
        with pytest.raises(ValueError, match=r"toy\.log is damaged .*; move it away, and the search begins anew"):
            search("map", 1)


def test_a_journal_of_a_search_with_other_settings_recordings_or_ranges_is_refused(search, toy_frames, monkeypatch):
    search("map", 1)
    with pytest.raises(ValueError, match=r"toy\.log is of a search that differs in what is given; move it away"):
        search("map", 2, given=SMALL | {"epochs": 3})
    with pytest.raises(ValueError, match="differs in what is recordings"):
        search("map", 2, frames=replace(toy_frames, fingerprint="1" * 32))
    space = METHODS["map"].search_space() | {"patience": [2, 3]}
    monkeypatch.setattr(METHODS["map"], "search_space", lambda: space)
    with pytest.raises(ValueError, match="differs in what is trials try"):
        search("map", 2)


def test_the_defaults_are_tried_though_their_trial_was_interrupted(search, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(tuning, "objective", interrupt)
        with pytest.raises(KeyboardInterrupt):
            search("map", 1)
    (trial,) = search("map", 1).get_trials(states=tuning.FINISHED)
    defaults = METHODS["map"]().as_dict()
    assert trial.params == {name: defaults[name] for name in trial.params}


def test_a_full_disk_ends_a_search_in_a_sentence_and_room_lets_it_go_on(search, tmp_path):
    search("map", 1)
    size = (tmp_path / "toy.log").stat().st_size
    with full_disk(after=size + 700), pytest.raises(OSError, match=r"the disk of .* is full.*make room and run again"):
        search("map", 3)
    assert len(search("map", 3).get_trials(states=tuning.FINISHED)) == 3


def test_a_trial_is_the_training_that_its_settings_describe(search, toy_frames):
    study = search("map", 1)
    setup = Setup.of(SMALL | study.trials[0].params | {"method": "map", "seed": tuning.SEED})
    parts = toy_frames.part("train"), toy_frames.part("validation")
    _, history = setup.method.train(runs.network_for(setup, toy_frames), *parts, epochs=2, seed=tuning.SEED)
    assert study.trials[0].value == history["validation_loss"].min()


def test_a_trial_that_diverges_is_the_worst(search, toy_frames):
    broken = replace(toy_frames, features=torch.full_like(toy_frames.features, math.nan))
    assert search("map", 1, frames=broken).trials[0].value == math.inf


def test_the_test_part_is_not_looked_at(search, toy_frames):
    features = toy_frames.features.clone()
    features[torch.from_numpy(toy_frames.parts == "test")] = math.nan
    blind = search("ivon", 1, frames=replace(toy_frames, features=features), name="blind")
    assert blind.trials[0].value == search("ivon", 1).trials[0].value


@pytest.mark.parametrize("variants", [None, {"LIF": {"neuron": "lif"}, "MLP": {"network": "mlp"}}])
def test_what_trials_choose_is_what_is_trained_with(variants, monkeypatch, tmp_path):
    tones = toy_study.make_tones(tmp_path / "tones")
    asked = {"sets": {"tones": {"dataset": "fsdd"}, "again": {"dataset": "fsdd"}}, "method": ["map", "ivon-mean"]}
    changes = asked | {"variants": variants, "tuning": {"set": ["tones", "again"], "trials": 2, "epochs": 1}}
    path = tmp_path / "toy.yml"
    study = toy_study.write(path, tones, **changes)
    with pytest.raises(ValueError, match="choose the settings first"):
        _ = study.cells
    monkeypatch.setattr(engine, "on_workers", toy_study.in_this_process)
    assert tuning.tune(study, tmp_path / "results", folder=tmp_path / "data") == 0
    chosen = yaml.safe_load((tmp_path / "toy-chosen.yml").read_text())
    assert list(chosen) == (["map"] if variants is None else list(variants))
    trials = pd.read_csv(tmp_path / "results/trials.csv", dtype={"variant": str})
    assert list(trials)[:5] == ["variant", "method", "trial", "state", "validation_nll"]
    assert len(trials) == 2 * len(variants or [ONE])
    for variant, of_variant in trials.groupby("variant"):
        best = of_variant.nsmallest(1, "validation_nll").iloc[0]
        assert study.chosen_for(variant, "map")["learning_rate"] == best["learning_rate"]
    with pytest.raises(ValueError, match="has no settings of ivon"):  # of which no trial was asked
        _ = read(path).cells
    found = toy_study.write(path, tones, **changes | {"method": ["map", "temperature"]}).cells[-1].setup.method
    assert found.base("map").learning_rate == best["learning_rate"]


def test_a_study_without_trials_of_its_own_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    for asked, sentence in (({"as": "other"}, "tune other.yml instead"), (None, "give it the key 'tuning'")):
        toy_study.write(tmp_path / "toy.yml", tmp_path, tuning=asked)
        assert command.main([str(tmp_path / "toy.yml"), "--tune"]) == 1
        assert sentence in capsys.readouterr().err
