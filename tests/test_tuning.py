"""The search for settings: its space, what is left out of it, and that it goes on where it was interrupted."""

import math
from dataclasses import replace

import optuna
import pytest
import torch

from lib import experiment, settings, tuning

SMALL = {"hidden_sizes": [6], "epochs": 2, "batch_size": 10, "num_frames": 20}


@pytest.fixture
def frames(monkeypatch, tmp_path, toy_frames):
    """A toy set, and studies that are stored in a folder of this test's own."""
    monkeypatch.setattr(experiment, "DATA", tmp_path)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return toy_frames


def test_the_space_holds_each_method_s_own_settings_and_its_defaults():
    # What is by default left out is not searched: the fixed prior of Bayes by Backprop, and Adam's frozen norms.
    assert {method: set(space) for method, space in tuning.SPACE.items()} == {
        method: {name for name, default in defaults.items() if default is not None}
        for method, defaults in settings.DEFAULTS.items()
    }
    for method, space in tuning.SPACE.items():
        for name, values in space.items():
            default = settings.DEFAULTS[method][name]
            assert values[0] <= default <= values[1] if isinstance(values, tuple) else default in values


@pytest.mark.parametrize("method", tuning.SPACE)
def test_what_is_fixed_is_not_searched_and_the_defaults_come_first(frames, method):
    fixed = SMALL | ({"swag_from": 0} if method == "swag" else {})  # it collects from two epochs at least
    study = tuning.search("toy", {"toy": frames}, method, 2, fixed)
    assert [trial.state.name for trial in study.trials[:2]] == ["COMPLETE", "COMPLETE"]
    assert study.trials[0].params == {
        name: settings.DEFAULTS[method][name] for name in tuning.SPACE[method] if name not in fixed
    }
    assert all(math.isfinite(trial.value) for trial in study.trials)


def test_a_search_goes_on_where_it_ended(frames):
    first = tuning.search("toy", {"toy": frames}, "map", 1, SMALL).trials
    again = tuning.search("toy", {"toy": frames}, "map", 3, SMALL).trials
    assert len(first) == 1
    assert len(again) == 3
    assert again[0].value == first[0].value
    assert len(tuning.search("toy", {"toy": frames}, "map", 3, SMALL).trials) == 3


def test_a_trial_is_the_training_that_its_settings_describe(frames):
    study = tuning.search("toy", {"toy": frames}, "map", 1, SMALL)
    chosen = settings.of_method("map", study.trials[0].params | {"batch_size": SMALL["batch_size"]})
    network = experiment.network_for(frames, SMALL | {"seed": tuning.SEED, "dropout": chosen.pop("dropout")})
    _, history = tuning.METHODS["map"](
        network, frames.part("train"), frames.part("validation"), epochs=2, seed=tuning.SEED, **chosen
    )
    assert study.trials[0].value == history["validation_loss"].min()


def test_a_trial_that_diverges_is_the_worst(frames):
    broken = replace(frames, features=torch.full_like(frames.features, math.nan))
    study = tuning.search("toy", {"toy": broken}, "map", 1, SMALL)
    assert study.trials[0].value == math.inf


def test_the_test_part_is_not_looked_at(frames):
    features = frames.features.clone()
    features[torch.from_numpy(frames.parts == "test")] = math.nan
    blind = tuning.search("blind", {"toy": replace(frames, features=features)}, "ivon", 1, SMALL)
    assert blind.trials[0].value == tuning.search("toy", {"toy": frames}, "ivon", 1, SMALL).trials[0].value
