"""Parameters of the notebooks: unknown names are refused, and nothing else that stands in the kernel is."""

import pytest

from lib.parameters import EvaluationSettings, SliceSettings, check

DEFAULTS = 'dataset = "hd"  # a set\ndata_root = None\nseed = 1\nhidden_sizes = [128, 128]\nsettings = {}'
INJECTED = '# Parameters\ndataset = "sc"\nsettings = {"split": "official"}'
CHECK = 'from lib import parameters\n\nparameters.check("02_training")'


@pytest.mark.parametrize(
    "before",
    [
        [DEFAULTS],
        [DEFAULTS, INJECTED],
        ["import sys", DEFAULTS, INJECTED],
        [DEFAULTS, CHECK, "run = 3", CHECK],  # a cell may be run twice, among results
        ["epoch = 3", "answer = 42", DEFAULTS],  # what a startup file names is no parameter
        ["epoch = len('abc')", DEFAULTS],
        [DEFAULTS, "network = 1\nprint(network)"],
        ["%matplotlib inline", DEFAULTS],
    ],
)
def test_what_is_no_parameter_harms_none(before):
    check("02_training", [*before, CHECK])


@pytest.mark.parametrize("name", ["epoch", "samples"])  # of no notebook, and of another
@pytest.mark.parametrize(
    "cells",
    [["# Parameters\nNAME = 3"], [f"{DEFAULTS}\nNAME = 3", INJECTED], [DEFAULTS, "seed = 2\nNAME = 3"]],
)
def test_an_unknown_parameter_is_refused(name, cells):
    with pytest.raises(ValueError, match=f"unknown parameter '{name}': 02_training takes dataset, data_root"):
        check("02_training", [*(cell.replace("NAME", name) for cell in cells), CHECK])


@pytest.mark.parametrize(
    ("settings", "given"),
    [(EvaluationSettings, {"samples": 0}), (EvaluationSettings, {"bins": 0}), (SliceSettings, {"points": 2}),
     (SliceSettings, {"radius": 0.0}), (SliceSettings, {"directions": 0}), (SliceSettings, {"examples": 0})],
)  # fmt: skip
def test_numbers_of_an_evaluation_or_a_slice_have_ranges(settings, given):
    with pytest.raises(ValueError, match="does not fit: it must be"):
        settings(**given)
