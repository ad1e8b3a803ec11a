"""Runs of methods that need no training: what they are made of, and that the notebooks' parameters reach it."""

import pytest
import torch

from lib import experiment, posteriors, settings
from lib.posteriors import LowRankGaussian, MeanFieldGaussian, Mixture, NoisyNetwork, PointMass
from lib.trainers import DERIVED, MEMBERS, METHODS

FAMILIES = {
    "temperature": PointMass,
    "dropout": NoisyNetwork,
    "ensemble": Mixture,
    "laplace": LowRankGaussian,
    "ivon-mean": PointMass,
    "noise-ivon": MeanFieldGaussian,
    "noise-isotropic": MeanFieldGaussian,
}


@pytest.fixture
def chosen(tmp_path):
    shape = {"num_frames": 20, "hidden_sizes": [6], "epochs": 2, "batch_size": 10}
    return {"dataset": "fsdd", "seed": 3, "results_root": tmp_path / "runs"} | shape


def stored(chosen):
    return sorted(path.parent.name for path in chosen["results_root"].glob("*/run.json"))


def same(state, other):
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


def test_settings_and_trainers_name_the_same_methods():
    assert settings.DEFAULTS.keys() == METHODS.keys()
    assert {name: set(bases) for name, (bases, _) in DERIVED.items()} == {
        name: set(bases) for name, bases in settings.BASES.items()
    }


@pytest.mark.parametrize("method", DERIVED)
def test_a_made_run_is_stored_like_any_other(toy_frames, chosen, method, monkeypatch):
    run = experiment.train(toy_frames, chosen | {"method": method})
    assert isinstance(run.posterior, FAMILIES[method])
    assert run.record["settings"]["bases"].keys() == set(settings.BASES[method])
    assert [one.record["settings"]["method"] for one in run.trained] == list(DERIVED[method][0])
    assert run.record["seconds"] >= sum(one.record["seconds"] for one in run.trained)
    assert len(run.history) == 2
    figures = experiment.evaluate(run, toy_frames, 3, 5).figures
    assert figures["nll"] > 0
    before = stored(chosen)
    monkeypatch.setitem(DERIVED, method, (DERIVED[method][0], None))
    again = experiment.train(toy_frames, chosen | {"method": method})
    assert again == run
    assert stored(chosen) == before
    assert experiment.find(toy_frames, chosen | {"method": method}) == run


def test_its_parts_are_the_runs_that_one_would_train(toy_frames, chosen):
    plain = experiment.train(toy_frames, chosen | {"method": "map"})
    ivon = experiment.train(toy_frames, chosen | {"method": "ivon"})
    before = stored(chosen)
    noisy = experiment.train(toy_frames, chosen | {"method": "noise-ivon"})
    assert noisy.trained == [plain, ivon]
    assert stored(chosen) == sorted([*before, noisy.folder.name])
    assert same(noisy.posterior.mean, plain.posterior.mean)
    assert same(noisy.posterior.std, ivon.posterior.std)


def test_ensembles_share_no_member_and_begin_with_the_run_of_their_seed(toy_frames, chosen):
    first, second = (experiment.train(toy_frames, chosen | {"method": "ensemble", "seed": seed}) for seed in (1, 2))
    seeds = [[member.record["settings"]["seed"] for member in run.trained] for run in (first, second)]
    assert [one[0] for one in seeds] == [1, 2]
    assert len({seed for one in seeds for seed in one}) == 2 * MEMBERS
    for part, member in zip(first.posterior.components, first.trained, strict=True):
        assert same(part.mean, member.posterior.mean)
    states = [state for state, _ in posteriors.draws(first.posterior, MEMBERS, torch.Generator())]
    assert not same(states[0], states[1])


def test_what_is_chosen_for_the_parts_reaches_each_of_them(toy_frames, chosen):
    own = {"map": {"learning_rate": 0.011}, "ivon": {"learning_rate": 0.22, "hess_init": 0.3}}
    run = experiment.train(toy_frames, chosen | {"method": "noise-ivon", "bases": own, "weight_decay": 0.001})
    plain, ivon = (one.record["settings"] for one in run.trained)
    assert (plain["learning_rate"], plain["weight_decay"], plain["batch_size"]) == (0.011, 0.001, 10)
    assert (ivon["learning_rate"], ivon["hess_init"], ivon["weight_decay"]) == (0.22, 0.3, 0.001)
    other = experiment.train(toy_frames, chosen | {"method": "noise-ivon"})
    assert other.folder != run.folder


@pytest.mark.parametrize(
    ("method", "given", "told"),
    [
        ("temperature", {"hess_init": 0.3}, "temperature takes no hess_init"),
        ("temperature", {"bases": {"ivon": {}}}, "made of runs of map, and not of 'ivon'"),
        ("map", {"bases": {"map": {}}}, "map is made of no other runs"),
        ("sbnn", {"dropout": 0.1}, "sbnn takes no dropout"),
        ("sbnn", {"neuron": "adlif"}, "sbnn has a network of its own"),
        ("sbnn", {"readout": "softmax"}, "sbnn has a network of its own"),
        ("dropout", {"dropout": 0.0}, "MC dropout needs a network that was trained with dropout"),
    ],
)
def test_what_a_method_cannot_take_is_refused(toy_frames, chosen, method, given, told):
    with pytest.raises(ValueError, match=told):
        experiment.train(toy_frames, chosen | {"method": method} | given)


@pytest.mark.parametrize(
    "bases", ["map", {"temperature": {}}, {"map": 3}, {"map": {"hess_init": 1.0}}, {"map": {"learning_rate": -1}}]
)
def test_the_parts_settings_are_checked(bases):
    with pytest.raises(ValueError, match=r"bases = .* does not fit"):
        settings.checked({"bases": bases}, "02_training")


@pytest.mark.parametrize("neuron", ["lif", "rlif"])
def test_sbnn_is_trained_with_a_network_of_its_own(toy_frames, chosen, neuron):
    run = experiment.train(toy_frames, chosen | {"method": "sbnn", "neuron": neuron, "deviation": 0.7})
    assert isinstance(run.posterior, NoisyNetwork)
    network = run.network(toy_frames)
    assert network.layers[0].is_recurrent == (neuron == "rlif")
    assert experiment.evaluate(run, toy_frames, 2, 5).figures["mutual_information"] > 0
    rates = run.history["firing_rate_1"]
    assert ((rates > 0) & (rates < 1)).all()
