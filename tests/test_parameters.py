"""Parameters of the notebooks: unknown names are refused, and nothing else that stands in the kernel is."""

import pytest

from lib.parameters import EvaluationSettings, SliceSettings, check

DEFAULTS = (
    'dataset = "hd"  # a set\ndata_root = None\nmethod = "ivon"\nseed = 1\nepochs = 30\nhidden_sizes = [128, 128]\n'
    "results_root = None\nsettings = {}"
)
INJECTED = '# Parameters\ndataset = "sc"\nsettings = {"split": "official"}'
CHECK = 'from lib import parameters\n\nparameters.check("02_training")'


@pytest.mark.parametrize(
    "before",
    [
        [DEFAULTS],
        [DEFAULTS, INJECTED],
        ["import sys", DEFAULTS, INJECTED],
        [DEFAULTS, CHECK, "run = 3", CHECK],  # a cell may be run twice, among results
        [DEFAULTS, CHECK, "run = 3", "seed = 2"],  # one parameter alone is changed
        ["epoch = 3", "answer = 42", DEFAULTS],  # what a startup file names is no parameter
        ["epoch = len('abc')", DEFAULTS],
        [DEFAULTS, "network = 1\nprint(network)", "width = 3"],
        ["%matplotlib inline", DEFAULTS],
        [DEFAULTS.replace("seed = 1", "seed: int = 1").replace("None", "str(1)")],
        [DEFAULTS, "epoch = max(1, 2)"],  # computed, as results are
    ],
)
def test_what_is_no_parameter_harms_none(before):
    check("02_training", {"In": [*before, CHECK], "width": 3, "samples": "[3]"})


def test_an_injected_cell_need_not_set_all():
    tagged = "dataset = 'hd'\ndata_root = None\nresults_root = None\nsettings = {}"
    check("01_data", {"In": [tagged, "# Parameters\ndataset = 'sc'\ndata_root = 'x'\nresults_root = 'y'", CHECK]})


def test_a_notebook_that_is_run_as_a_script_is_not_checked():
    check("02_training", {})


@pytest.mark.parametrize("name", ["epoch", "samples"])  # of no notebook, and of another
@pytest.mark.parametrize(
    "cells",
    [["# Parameters\nNAME = 3"], [f"{DEFAULTS}\nNAME = 3", INJECTED], [DEFAULTS, "seed = 2\nNAME = 3"],
     [DEFAULTS, "seed = 2; NAME: int = 3", CHECK], ["import os\nepochs = os.cpu_count()\nNAME = 3"],
     [DEFAULTS, "seed, NAME = 1, 2"]],
)  # fmt: skip
def test_an_unknown_parameter_is_refused(name, cells):
    with pytest.raises(ValueError, match=f"unknown parameter '{name}': 02_training takes dataset, data_root"):
        check("02_training", {"In": [*(cell.replace("NAME", name) for cell in cells), CHECK]})


def test_a_cell_of_one_s_own_that_nearly_sets_a_parameter_is_refused():
    with pytest.raises(ValueError, match="unknown parameter 'epoch': 02_training takes"):
        check("02_training", {"In": [DEFAULTS, "epoch = 3", CHECK]})


def test_a_setting_that_is_no_parameter_is_told_where_it_stands():
    with pytest.raises(ValueError, match="learning_rate stands in settings, for papermill -y"):
        check("02_training", {"In": ["# Parameters\nlearning_rate = 0.1", CHECK]})


@pytest.mark.parametrize("before", [[], [DEFAULTS, CHECK, "run = 3"]])
def test_a_parameter_that_was_taken_out_is_named_and_no_older_value_used(before):
    without = DEFAULTS.replace("\nseed = 1", "\n# seed = 1")
    with pytest.raises(ValueError, match=r"^seed is not set: give it a value in the cell of parameters"):
        check("02_training", {"In": [*before, without, CHECK], "seed": 5})


@pytest.mark.parametrize(
    ("name", "value"), [("hidden_sizes", "[8, 8]"), ("settings", "{split: official}"), ("method", "[map, ivon]")]
)
def test_a_list_or_mapping_that_papermill_left_as_text_is_told_its_option(name, value):
    with pytest.raises(ValueError, match=rf"is text: for papermill write -y '{name}: ") as refusal:
        check("02_training", {"In": [], name: value})
    assert f"-y '{name}: {value}'" in str(refusal.value)


@pytest.mark.parametrize(
    ("settings", "given"),
    [(EvaluationSettings, {"samples": 0}), (EvaluationSettings, {"bins": 0}), (SliceSettings, {"points": 2}),
     (SliceSettings, {"radius": 0.0}), (SliceSettings, {"directions": 0}), (SliceSettings, {"examples": 0})],
)  # fmt: skip
def test_numbers_of_an_evaluation_or_a_slice_have_ranges(settings, given):
    with pytest.raises(ValueError, match="does not fit: it must be"):
        settings(**given)
