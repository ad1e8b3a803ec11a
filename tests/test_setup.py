"""Setups: each setting belongs to a part of the run and is checked once; what is added later renames no run."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from lib import setup as setups
from lib.datasets import SETS
from lib.methods import METHODS
from lib.methods.adam import Adam
from lib.methods.temperature import Temperature
from lib.networks import NetworkSettings
from lib.settings import real, setting, whole
from lib.setup import Setup, TrainingSettings, data_setup, settings_for, setup_of

RESULTS = sorted(Path(__file__).parents[1].glob("data/results/*/runs.json"))
DATA = "0" * 32
ASKED = {"dataset": "fsdd", "method": "map"}


def test_each_setting_goes_to_its_part_and_the_others_have_their_defaults():
    own = {"split": "official", "neuron": "rlif", "epochs": 3, "learning_rate": 0.1, "seed": 2}
    setup = Setup.of(ASKED | own)
    assert (setup.dataset, setup.seed) == ("fsdd", 2)
    assert setup.data == SETS["fsdd"].settings(split="official")
    assert setup.network == NetworkSettings(neuron="rlif")
    assert setup.training == TrainingSettings(epochs=3)
    assert setup.method == METHODS["map"](learning_rate=0.1)
    assert Setup.of(ASKED | {"augmented": 4}).copies == 4
    assert Setup.of({"dataset": "shd", "method": "map"}).copies == 0


@pytest.mark.parametrize("dataset", SETS)
@pytest.mark.parametrize("method", METHODS)
def test_a_record_holds_every_setting_and_gives_the_setup_back(dataset, method):
    setup = Setup.of({"dataset": dataset, "method": method})
    record = json.loads(json.dumps(setup.record()))
    parts = (setup.data, setup.network, setup.training)
    assert {name for part in parts for name in part.names()} <= record.keys()
    assert ("bin_ms" in record) == ("filterbank_rate" not in record) == (dataset in ("shd", "ssc", "synthetic-shd"))
    assert Setup.of(record) == Setup.from_record(record) == setup
    assert setup.name_of(DATA).startswith(f"{dataset}-{method}-1-")


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.parent.name)
def test_every_committed_run_keeps_its_name(path):
    """A setting that is added without its ``before`` would rename them all, and a default that changes must not."""
    for record in json.loads(path.read_text()):
        assert Setup.from_record(record["settings"]).name_of(record["data"]) == record["run"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"epoch": 3}, "'epoch' is no setting of this run: the data set fsdd takes split.*the network.*the method map"),
        ({"bin_ms": 10.0}, "'bin_ms' is no setting of this run"),
        ({"dataset": "shd", "filterbank_rate": 8_000}, "'filterbank_rate' is no setting"),
        ({"ess_factor": 2.0}, "'ess_factor' is no setting"),
        ({"method": "sbnn", "dropout": 0.1}, "'dropout' is no setting"),
        ({"method": "temperature", "hess_init": 0.3}, "'hess_init' is no setting"),
        ({"bases": {"map": {}}}, "'bases' is no setting"),
        ({"method": "temperature", "bases": {"map": {"hess_init": 1.0}}}, "map takes no hess_init"),
        ({"method": "temperature", "bases": {5: {}, "x": {}}}, "temperature is made of map, not of 5"),
        ({"dataset": None}, "a run needs a dataset: give one"),
        ({"method": None}, "a run needs a method: give one"),
        ({"dataset": "timit"}, "no data set is called 'timit': the sets are hd, sc"),
        ({"method": "adamw"}, "unknown method 'adamw': choose one of map, ivon"),
        ({"seed": -1}, "seed = -1 does not fit"),
        ({"seed": True}, "seed = True does not fit"),
        ({"seed": "one"}, "seed = 'one' does not fit"),
        ({"epochs": 0}, "epochs = 0 does not fit: it must be a whole number from 1"),
        ({"firing_rate_penalty": float("nan")}, "firing_rate_penalty = nan does not fit"),
        ({"hidden_sizes": []}, r"hidden_sizes = \[\] does not fit"),
        ({"network": "mlp", "bidirectional": True}, "an MLP has no direction of time"),
    ],
)
def test_what_belongs_to_nothing_or_does_not_fit_is_refused_in_one_sentence(given, told):
    asked = {name: value for name, value in (ASKED | given).items() if value is not None}
    with pytest.raises(ValueError, match=told) as refusal:
        Setup.of(asked)
    assert "\n" not in str(refusal.value)


OF_OTHER_KINDS = [
    {"epochs": "ten"}, {"epochs": 3.0}, {"dropout": True}, {"hidden_sizes": 128}, {"split": 3}, {"bias": 1},
    {"method": ["map", "ivon"]}, {"dataset": ["fsdd", "sc"]}, {"seed": [1, 2]}, {"hidden_sizes": "[8, 8]"},
    {"learning_rate": "1e-3"}, {"bias": "yes"}, {"split": False},
]  # fmt: skip


def test_a_value_of_another_kind_is_refused_in_one_sentence_where_annotations_are_not_checked():
    asked = [ASKED | {"seed": 1} | change for change in OF_OTHER_KINDS]
    program = "\n".join(
        ["from lib.setup import setup_of", f"for asked in {asked}:", "    try: setup_of({}, **asked)",
         "    except ValueError as refusal: print(refusal)"]
    )  # fmt: skip
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    for change, sentence in zip(OF_OTHER_KINDS, told.splitlines(), strict=True):
        assert repr(*change.values()) in sentence
    remedies = ["-y 'hidden_sizes: [8, 8]'", "write 0.001", "write true", "put it in quotes"]
    assert all(remedy in sentence for remedy, sentence in zip(remedies, told.splitlines()[-4:], strict=True))


# Names


CHANGES = [
    {"seed": 2}, {"epochs": 1}, {"hidden_sizes": [7]}, {"hidden_sizes": [128, 128, 128]}, {"batch_size": 41},
    {"learning_rate": 0.02}, {"dropout": 0.5}, {"patience": 9}, {"split": "official"}, {"num_frames": 21},
    {"augmented": 1}, {"neuron": "adlif"}, {"readout": "softmax"}, {"firing_rate_penalty": 0.1}, {"method": "ivon"},
    {"dataset": "sc"}, {"method": "temperature", "learning_rate": 0.02}, {"method": "temperature"},
]  # fmt: skip


def test_other_settings_or_other_recordings_are_another_run_and_the_same_are_the_same():
    names = [Setup.of(ASKED | change).name_of(DATA) for change in ({}, *CHANGES)]
    names.append(Setup.of(ASKED).name_of("1" * 32))
    assert len(set(names)) == len(names)
    assert Setup.of(ASKED | {"hidden_sizes": (128, 128), "seed": 1, "epochs": 30}).name_of(DATA) == names[0]


@dataclass(frozen=True)
class LaterNetwork(NetworkSettings):
    delays: int = setting(4, whole(0), before=0)


@dataclass(frozen=True)
class LaterAdam(Adam):
    momentum: float = setting(0.5, real(0, 1), before=0.0)


@dataclass(frozen=True)
class OfLaterAdam(Temperature):
    made_of: ClassVar = (LaterAdam,)


@pytest.mark.parametrize("method", ["map", "temperature"])
def test_a_setting_added_later_renames_no_run_that_has_the_value_before_it(method, monkeypatch):
    stored = Setup.of(ASKED | {"method": method})
    record, name = stored.record(), stored.name_of(DATA)
    monkeypatch.setattr(setups, "NetworkSettings", LaterNetwork)
    monkeypatch.setitem(METHODS, method, {"map": LaterAdam, "temperature": OfLaterAdam}[method])
    older = Setup.from_record(record)
    assert older.network.delays == 0
    assert (older.method if method == "map" else older.method.base("map")).momentum == 0
    assert older.name_of(DATA) == name
    newer = Setup.of(ASKED | {"method": method})
    assert newer.network.delays == 4
    assert newer.name_of(DATA) != name
    assert Setup.from_record(newer.record()) == newer


def test_a_default_that_changes_renames_no_run(monkeypatch):
    @dataclass(frozen=True)
    class Longer(TrainingSettings):
        epochs: int = setting(50, whole(1))

    stored = Setup.of(ASKED)
    record, name = stored.record(), stored.name_of(DATA)
    monkeypatch.setattr(setups, "TrainingSettings", Longer)
    assert Setup.from_record(record).name_of(DATA) == name
    assert Setup.of(ASKED).name_of(DATA) != name  # nor is the old run taken for the new default's


# Settings of several runs in one mapping


SEVERAL = {
    "neuron": "rlif",
    "split": {"fsdd": "official", "sc": "70-10-20"},
    "weight_decay": 0.01,
    "map": {"learning_rate": 0.2, "batch_size": {"fsdd": 8}},
    "ivon": {"hess_init": 0.5},
}


def test_a_mapping_s_sections_are_of_methods_and_its_values_of_data_sets():
    assert settings_for(SEVERAL, "fsdd", "map") == {
        "neuron": "rlif", "split": "official", "weight_decay": 0.01, "learning_rate": 0.2, "batch_size": 8,
    }  # fmt: skip
    assert settings_for(SEVERAL, "hd", "ivon") == {"neuron": "rlif", "weight_decay": 0.01, "hess_init": 0.5}
    own = {"temperature": {"batch_size": 64}, "map": {"dropout": 0.2}, "ivon": {"hess_init": 2.0}}
    assert settings_for(own, "hd", "temperature") == {"batch_size": 64, "bases": {"map": {"dropout": 0.2}}}
    setup = setup_of(SEVERAL, dataset="fsdd", method="noise-ivon", seed=3, epochs=2)
    assert (setup.seed, setup.training.epochs, setup.data.split) == (3, 2, "official")
    for base in ("map", "ivon"):  # as one would train them
        plain = setup_of(SEVERAL, dataset="fsdd", method=base, seed=3, epochs=2)
        assert replace(setup, method=setup.method.base(base)) == plain
    own = setup_of({"bases": {"map": {"learning_rate": 0.3}}}, dataset="fsdd", method="temperature", seed=1)
    assert own.method.base("map").learning_rate == 0.3


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"seed": 2}, "seed is given twice: leave it out of settings"), ({"epochs": 2}, "epochs is given twice"),
     ({"map": 3}, "'map' is a method: give its settings as a mapping, not 3"),
     ({"split": {"timit": "x"}}, "split is given for 'timit', which is no data set: hd, sc"),
     ({"map": {"ess_factor": 2.0}}, "'ess_factor' is no setting of this run")],
)  # fmt: skip
def test_a_mapping_that_no_run_can_use_is_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        setup_of(settings, dataset="fsdd", method="map", seed=1, epochs=3)


@pytest.mark.parametrize("pattern", ["(", "(a{99999999999})", "(" * 3000 + "a" + ")" * 3000])
def test_a_pattern_that_no_engine_takes_is_refused(pattern):
    with pytest.raises(ValueError, match="a regular expression with one group"):
        setup_of({"speaker": pattern}, dataset="folder", method="map", seed=1)


def test_bases_that_are_none_leave_the_methods_their_sections():
    given = {"map": {"dropout": 0.2}, "bases": None}
    assert setup_of(given, dataset="fsdd", method="temperature", seed=1).method.dropout == 0.2
    with pytest.raises(ValueError, match="bases = 5 does not fit"):
        setup_of(given | {"bases": 5}, dataset="fsdd", method="temperature", seed=1)


def test_a_notebook_of_data_alone_takes_what_any_run_takes_and_nothing_else():
    setup = data_setup(SEVERAL | {"num_frames": 20, "deviation": 0.7}, "fsdd")
    assert setup.data == SETS["fsdd"].settings(split="official", num_frames=20)
    with pytest.raises(ValueError, match="'frames' is no setting of a run on fsdd: the data set takes split"):
        data_setup({"frames": 20}, "fsdd")
