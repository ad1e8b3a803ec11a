"""A notebook's parameters: the wrong ones are each refused in one sentence, the right ones pass unchanged."""

import json
import math
import types
from pathlib import Path

import numpy as np
import pytest

from lib import settings
from lib.trainers import METHODS

TRAINING = {
    "dataset": "synthetic-hd",
    "data_root": None,
    "method": "ivon",
    "seed": 1,
    "results_root": None,
    "split": None,
    "validation": None,
    "num_frames": 100,
    "hidden_sizes": [128, 128],
    "epochs": 30,
    **dict.fromkeys(settings.DEFAULTS["ivon"]),
}
EVALUATION = {
    "dataset": ["synthetic-hd", "sc"],
    "method": ["map", "ivon"],
    "seed": [1, 2, 3],
    "samples": 16,
    "bins": 15,
    "missing": [],
    "num_frames": 100,
}
SLICES = {"dataset": "hd", "method": ["map"], "seed": 1, "points": 41, "directions": 3, "radius": 2.0, "examples": 256}


@pytest.mark.parametrize(
    ("notebook", "parameters"),
    [
        ("01_data", {"dataset": "fsdd", "split": "speaker-theo", "data_root": "speech/fsdd"}),
        ("02_training", TRAINING),
        ("02_training", TRAINING | {"learning_rate": 1, "dropout": 0, "weight_decay": 0.0, "beta2": 1}),
        ("02_training", TRAINING | {"hidden_sizes": (64,), "data_root": Path("speech"), "freeze_norm_after": 1}),
        ("03_evaluation", EVALUATION),
        ("03_evaluation", EVALUATION | {"missing": ["sc-map-1"]}),
        ("03_evaluation", EVALUATION | {"data_root": {"sc": "speech/sc"}, "seed": 0, "validation": "test"}),
        ("04_slices", SLICES),
        ("04_slices", SLICES | {"radius": 1, "method": "ivon"}),
    ],
)
def test_good_parameters_pass_unchanged(notebook, parameters):
    assert settings.checked(parameters, notebook) == parameters


WHOLE, NUMBER = "it must be a whole number from", "it must be a number"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (
            "dataset",
            "timit",
            "it must be one of hd, sc, fsdd, shd, ssc, synthetic-hd, synthetic-sc, synthetic-shd, or a list of such",
        ),
        ("dataset", None, "it must be one of hd"),
        ("dataset", "", "it must be one of hd"),
        ("dataset", [], "it must be one of hd"),
        ("dataset", 3, "it must be one of hd"),
        ("method", "adam", "it must be one of map, ivon"),
        ("method", {"map": 1}, "it must be one of map, ivon"),
        ("data_root", 3, "it must be a folder, or None, or a mapping from data sets to such"),
        ("data_root", "", "it must be a folder"),
        ("data_root", ["speech"], "it must be a folder"),
        ("data_root", {"hdd": "speech"}, "it must be a folder, or None, or a mapping from data sets to such"),
        ("data_root", {"hd": 3}, "it must be a folder, or None, or a mapping from data sets to such"),
        ("results_root", 7, "it must be a folder, or None"),
        ("split", "", "it must be a name, or None"),
        ("split", 70, "it must be a name, or None"),
        ("validation", "train", "it must be one of speaker, test, or None"),
        ("seed", -1, WHOLE + " 0"),
        ("seed", 1.0, WHOLE),
        ("seed", True, WHOLE),
        ("seed", "1", WHOLE),
        ("seed", None, WHOLE),
        ("num_frames", 1, WHOLE + " 2 to 10000"),
        ("num_frames", 100.5, WHOLE),
        ("hidden_sizes", 128, "it must be a list, of each item a whole number from 1"),
        ("hidden_sizes", [], "it must be a list"),
        ("hidden_sizes", [128, 0], "it must be a list"),
        ("hidden_sizes", [128, True], "it must be a list"),
        ("hidden_sizes", "128", "it must be a list"),
        ("epochs", 0, WHOLE + " 1"),
        ("epochs", False, WHOLE),
        ("batch_size", 1, WHOLE + " 2"),
        ("batch_size", math.inf, WHOLE),
        ("learning_rate", 0, NUMBER + " above 0 up to 100"),
        ("learning_rate", "1e-4", NUMBER),  # how YAML reads 1e-4
        ("learning_rate", math.nan, NUMBER),
        ("learning_rate", math.inf, NUMBER),
        ("learning_rate", 1e3, NUMBER),
        ("learning_rate", 10**400, NUMBER),
        ("learning_rate", True, NUMBER),
        ("learning_rate", [0.1], NUMBER),
        ("learning_rate", 1 + 2j, NUMBER),
        ("weight_decay", -1e-9, NUMBER + " from 0 up to 100"),
        ("weight_decay", -math.inf, NUMBER),
        ("dropout", 1.0, NUMBER + " from 0 up to 0.99"),
        ("dropout", -0.1, NUMBER),
        ("patience", -1, WHOLE + " 0"),
        ("patience", 2.5, WHOLE),
        ("ess_factor", 0.0, NUMBER + " above 0"),
        ("hess_init", -1, NUMBER + " above 0"),
        ("beta2", 1.0001, NUMBER + " from 0 up to 1"),
        ("beta2", math.nan, NUMBER),
        ("freeze_norm_after", 0, WHOLE + " 1"),
        ("freeze_norm_after", True, WHOLE),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_value_that_does_not_fit_is_refused_in_one_sentence(name, value, words):
    with pytest.raises(ValueError, match=f"^{name} = ") as refused:
        settings.checked(TRAINING | {name: value}, "02_training")
    message = str(refused.value)
    assert message.startswith(f"{name} = {value!r} does not fit: ")
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("notebook", "name", "value"),
    [
        ("03_evaluation", "samples", 0),
        ("03_evaluation", "samples", None),
        ("03_evaluation", "bins", 0),
        ("03_evaluation", "bins", 15.0),
        ("03_evaluation", "missing", "sc-map-1"),
        ("03_evaluation", "missing", [1]),
        ("03_evaluation", "dataset", ["sc", "timit"]),
        ("03_evaluation", "seed", [1, "2"]),
        ("03_evaluation", "seed", [1, [2]]),
        ("04_slices", "points", 2),
        ("04_slices", "directions", 0),
        ("04_slices", "radius", 0.0),
        ("04_slices", "radius", math.nan),
        ("04_slices", "examples", 0),
    ],
)
def test_the_other_notebooks_refuse_too(notebook, name, value):
    good = {"03_evaluation": EVALUATION, "04_slices": SLICES}[notebook]
    with pytest.raises(ValueError, match=f"^{name} = .* does not fit: it must be"):
        settings.checked(good | {name: value}, notebook)


@pytest.mark.parametrize(
    ("notebook", "name"),
    [("01_data", "epochs"), ("02_training", "learning_rte"), ("03_evaluation", "dropout"), ("04_slices", "bins")],
)
def test_an_unknown_name_is_refused_with_the_known_ones(notebook, name):
    message = f"^unknown parameter '{name}': {notebook} takes dataset, data_root, method, seed, results_root, split"
    with pytest.raises(ValueError, match=message):
        settings.checked({"dataset": "sc", name: 1}, notebook)


@pytest.mark.parametrize(
    ("notebook", "name", "value"),
    [
        ("01_data", "dataset", ["sc"]),
        ("02_training", "dataset", ["sc", "hd"]),
        ("02_training", "method", ["map"]),
        ("02_training", "seed", (1, 2)),
        ("04_slices", "dataset", ["hd"]),
        ("04_slices", "seed", [1]),
    ],
)
def test_where_one_is_looked_at_a_list_is_refused(notebook, name, value):
    with pytest.raises(ValueError, match=f"{notebook} takes one {name}, not a list"):
        settings.checked({name: value}, notebook)


def test_what_is_not_a_parameter_is_left_out_of_a_namespace():
    def helper():
        pass

    own = {"In": [""], "Out": {}, "exit": 1, "quit": 1, "open": open, "get_ipython": helper}
    hidden = {"_": 3, "__name__": "__main__", "_i1": "x", "_dh": []}
    brought = {"np": np, "helper": helper, "Path": Path, "module": types.ModuleType("module")}
    parameters = {"dataset": "sc", "seed": 1, "typo": 2}
    assert settings.given(own | hidden | brought | parameters) == parameters
    with pytest.raises(ValueError, match="unknown parameter 'typo'"):
        settings.checked(own | hidden | brought | parameters, "01_data")


# Each method's own settings


def test_every_method_has_defaults_in_range():
    assert settings.DEFAULTS.keys() == METHODS.keys()
    for method, defaults in settings.DEFAULTS.items():
        for name, value in defaults.items():
            check, words = settings.PARAMETERS[name]
            assert check(value), (method, name, value, words)


def test_every_parameter_of_a_notebook_has_its_check():
    for notebook, names in settings.NOTEBOOKS.items():
        assert set(names) <= settings.PARAMETERS.keys(), notebook
        assert len(names) == len(set(names)), notebook


@pytest.mark.parametrize("method", list(settings.DEFAULTS))
def test_settings_that_are_absent_or_none_are_the_defaults(method):
    defaults = settings.DEFAULTS[method]
    assert settings.of_method(method, {}) == defaults
    assert settings.of_method(method, dict.fromkeys(TRAINING)) == defaults
    json.dumps(defaults)  # they are stored with the run


def test_settings_that_are_given_replace_the_defaults():
    chosen = settings.of_method("ivon", {"dropout": 0.0, "freeze_norm_after": 4, "epochs": 3, "beta2": None})
    assert chosen == settings.DEFAULTS["ivon"] | {"dropout": 0.0, "freeze_norm_after": 4}


@pytest.mark.parametrize("name", ["ess_factor", "hess_init", "beta2"])
def test_another_method_s_setting_is_refused(name):
    message = f"^map takes no {name}: its settings are batch_size, learning_rate"
    with pytest.raises(ValueError, match=message):
        settings.of_method("map", TRAINING | {name: 1})
