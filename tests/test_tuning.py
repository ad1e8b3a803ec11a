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

    def go_on(method, trials, frames=toy_frames, given=SMALL, name="toy", known=()):
        return tuning.search(tmp_path / f"{name}.log", {"toy": given}, {"toy": frames}, method, trials, known)

    return go_on


def test_the_space_holds_each_method_s_own_settings_and_its_defaults():
    # What is by default left out is not searched: the fixed prior of Bayes by Backprop, and Adam's frozen norms. Nor is
    # the number of draws, at which a trial would cost more than another's, nor what is as it is for both methods.
    for name in TRAINED:
        defaults, space = METHODS[name]().as_dict(), METHODS[name].search_space()
        none = {name for name, default in defaults.items() if default is None}
        assert set(space) == set(defaults) - none - {"draws", "decay_vectors", "leak_rate"}
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
    # The settings of the second are drawn at random: one that diverges has an infinite loss.
    assert math.isfinite(study.trials[0].value)
    assert not math.isnan(study.trials[1].value)


def test_what_is_known_to_be_good_is_tried_after_the_defaults_once_in_a_search_that_has_begun_too(search):
    known = {"learning_rate": 0.02, "weight_decay": 0.0, "dropout": 0.2, "patience": 4}
    search("map", 1)
    other = known | {"dropout": 0.0}
    for trials, given in ((2, [known]), (4, [known, other]), (5, [known, other])):
        study = search("map", trials, known=given)
        assert [trial.params == known for trial in study.trials] == [False, True, False, False, False][:trials]
        assert [trial.params == other for trial in study.trials] == [False, False, True, False, False][:trials]
    for wrong, words in (
        ({"dropout": 0.2}, r"'first' must give map all that its trials try, and no more: learning_rate, weight_decay"),
        (known | {"dropout": 0.25}, r"'first' gives map dropout = 0.25; trials try \[0.0, 0.1"),
        (known | {"learning_rate": 0.2}, r"'first' gives map learning_rate = 0.2; trials try \(0.001, 0.03\)"),
    ):
        with pytest.raises(ValueError, match=words):
            search("map", 4, known=[wrong])


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


@pytest.mark.parametrize(("epochs", "spared"), [(12, 10), (40, 10), (80, 20)])
def test_a_trial_behind_the_others_is_given_a_quarter_of_its_epochs(search, monkeypatch, epochs, spared):
    trained = []

    def behind_all_before(setup, frames, after_epoch):
        trained.append(0)
        for _ in range(epochs):
            trained[-1] += 1
            after_epoch({"validation_loss": float(len(trained))})

    monkeypatch.setattr(runs, "fit", behind_all_before)
    search("map", 6, given=SMALL | {"epochs": epochs})
    assert trained == [epochs] * 4 + [spared + 1] * 2


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


def test_the_best_few_are_ranked_by_further_seeds_once(search, tmp_path, toy_frames, monkeypatch):
    study, journal = search("map", 6), tmp_path / "toy.log"
    asked, score = [], tuning.score

    def interrupted(given, frames, method, tried, seed):
        if len(asked) == 5:
            raise KeyboardInterrupt
        asked.append(seed)
        return score(given, frames, method, tried, seed)

    how = {"toy": SMALL}, {"toy": toy_frames}, "map"
    with monkeypatch.context() as patched:
        patched.setattr(tuning, "score", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tuning.ranked(journal, study, *how)
    ranks = tuning.ranked(journal, study, *how)
    by_value = sorted(
        (trial for trial in study.trials if trial.state.name == "COMPLETE"), key=lambda trial: trial.value
    )
    assert list(ranks) == [trial.number for trial in by_value[: tuning.RANKED]]
    best = by_value[0]
    losses = []
    for seed in tuning.RANKING_SEEDS:
        setup = Setup.of(SMALL | best.params | {"method": "map", "seed": seed})
        losses.append(runs.fit(setup, toy_frames)[1]["validation_loss"].min())
    assert ranks[best.number] == pytest.approx(sum(losses) / len(losses), rel=1e-12)
    assert len(set(losses)) == len(losses)
    assert not {tuning.SEED, 1, 2, 3, 4, 5} & set(tuning.RANKING_SEEDS)
    monkeypatch.setattr(tuning, "score", None)  # nothing is trained again, in another process neither
    assert tuning.ranked(journal, search("map", 6), *how) == ranks
    few = tuning.ranked(journal, search("map", 6), *how, 2)
    assert list(few) == list(ranks)[:2]


def test_the_chosen_is_the_best_by_the_further_seeds_and_the_file_names_the_others_and_edges(monkeypatch, tmp_path):
    def lucky(given, frames, method, tried, seed, report=None):
        return tried["learning_rate"] * (1 if seed == tuning.SEED else -1)

    study = toy_study.write(
        tmp_path / "toy.yml", toy_study.make_tones(tmp_path / "tones"), method=["map"], variants=None,
        tuning={"set": "tones", "trials": 8, "epochs": 1},
    )  # fmt: skip
    monkeypatch.setattr(engine, "on_workers", toy_study.in_this_process)
    monkeypatch.setattr(tuning, "score", lucky)
    assert tuning.tune(study, tmp_path / "results", folder=tmp_path / "data") == 0
    trials = pd.read_csv(tmp_path / "results/trials.csv")
    fourth = trials.nsmallest(tuning.RANKED, "validation_nll").iloc[-1]
    assert study.chosen["map"]["learning_rate"] == pytest.approx(fourth["learning_rate"])
    assert trials["ranked_nll"].count() == tuning.RANKED
    said = study.chosen_path.read_text().splitlines()
    assert said[0].startswith(
        f"# map: the best of 8 trials, by their mean validation NLL over 3 further seeds: {fourth.trial} ("
    )
    assert said[0].count("(") == tuning.RANKED


def test_a_number_at_an_edge_of_what_is_searched_is_told():
    space = {
        "rate": (1e-3, 1e-1),
        "decay": [0.0, 1e-5, 1e-4],
        "slope": ["straight", "curved"],
        "frozen": [None, 10, 20, 30],
    }
    for rate, decay, edges in (
        (1.2e-3, 1e-5, ["rate"]),
        (0.09, 1e-5, ["rate"]),
        (0.05, 0.0, ["decay"]),
        (1e-2, 1e-4, ["decay"]),
    ):
        params = {"rate": rate, "decay": decay, "slope": "curved", "frozen": None}
        assert tuning.at_edges(params, space) == [(name, params[name]) for name in edges]
    assert [tuning.at_edges({"frozen": epoch}, space) != [] for epoch in space["frozen"]] == [False, True, False, True]
    trials = pd.DataFrame({"trial": [3, 5, 8], "ranked_nll": [0.52, math.nan, 0.51]})
    assert tuning.in_words("LIF, map", {"rate": 0.09}, trials, space) == (
        "# LIF, map: the best of 3 trials, by their mean validation NLL over 3 further seeds: 8 (0.51), 3 (0.52)\n"
        "#   rate = 0.09 lies at an edge of (0.001, 0.1)\n"
    )


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
    assert list(trials)[:6] == ["variant", "method", "trial", "state", "validation_nll", "ranked_nll"]
    assert len(trials) == 2 * len(variants or [ONE])
    for variant, of_variant in trials.groupby("variant"):
        best = of_variant.nsmallest(1, "ranked_nll").iloc[0]
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
