"""Methods derived from finished runs: the posteriors that they make, and how their parts get their settings."""

import copy
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from toys import TRAINING, network_of, toy, train

from lib.methods import METHODS, Derived
from lib.methods.ensemble import MEMBERS
from lib.methods.families import NoisyNetwork
from lib.metrics import negative_log_likelihood
from lib.networks import NetworkSettings, build
from lib.posteriors import MeanFieldGaussian, Mixture, PointMass, network_state, predict
from lib.settings import real, setting

VALIDATION = toy(18, seed=2)
VALIDATION.labels[:4] = 0  # some that no network gets right


@pytest.fixture(scope="module")
def trained():
    return train("map", validation=VALIDATION, epochs=6, patience=9)[0]


def derive(name, *bases, network=None, training=TRAINING, copies=0):
    method = METHODS[name]()
    assert len(method.bases) == len(bases)
    network = network_of() if network is None else network
    before = copy.deepcopy(network.state_dict())
    random_state = torch.get_rng_state()
    posterior = method.derive(network, bases, training, VALIDATION, 3, copies)
    assert all(torch.equal(before[key], tensor) for key, tensor in network.state_dict().items())
    assert network.training
    assert not network.readout._forward_pre_hooks
    assert torch.equal(torch.get_rng_state(), random_state)
    return posterior


def logits_of(state, examples):
    network = network_of().eval()
    network.load_state_dict(state, strict=False)
    with torch.no_grad():
        return network(examples.features)


@pytest.mark.parametrize("sharpened", [0.2, 1.0, 8.0])
def test_no_temperature_of_a_grid_has_a_lower_validation_nll(trained, sharpened):
    scaled = {name: sharpened * trained.mean[name] for name in ("readout.weight", "readout.bias")}
    posterior = derive("temperature", PointMass(trained.mean | scaled))
    assert isinstance(posterior, PointMass)
    logits = logits_of(trained.mean, VALIDATION)
    grid = [float(cross_entropy(logits / scale, VALIDATION.labels)) for scale in np.geomspace(0.02, 50, 2_000)]
    found = float(cross_entropy(logits_of(posterior.mean, VALIDATION), VALIDATION.labels))
    assert found == pytest.approx(min(grid), rel=1e-4, abs=1e-6)


def test_a_temperature_is_one_number_and_keeps_the_order_of_the_classes(trained):
    posterior = derive("temperature", trained)
    ratio = trained.mean["readout.weight"] / posterior.mean["readout.weight"]
    torch.testing.assert_close(ratio, ratio[:1, :1].expand_as(ratio))
    before, after = logits_of(trained.mean, VALIDATION), logits_of(posterior.mean, VALIDATION)
    torch.testing.assert_close(after * ratio[0, 0], before)
    changed = {name for name, tensor in trained.mean.items() if not torch.equal(tensor, posterior.mean[name])}
    assert changed == {"readout.weight", "readout.bias"}


@pytest.mark.filterwarnings("error")
def test_laplace_is_the_inverse_hessian_at_the_prior_of_the_lowest_validation_nll(trained):
    posterior = derive("laplace", trained)
    network, given = network_of().eval(), []
    network.load_state_dict(trained.mean, strict=False)
    network.readout.register_forward_hook(lambda _, inputs, output: given.append(inputs[0].detach().double()))
    network(TRAINING.features), network(VALIDATION.features)
    shape = trained.mean["readout.weight"].shape
    centre = torch.cat([trained.mean["readout.weight"].flatten(), trained.mean["readout.bias"]]).double()

    def logits(parameters, inputs):
        return inputs @ parameters[: shape.numel()].view(shape).T + parameters[shape.numel() :]

    def nll(parameters):
        return cross_entropy(logits(parameters, given[0]), TRAINING.labels, reduction="sum")

    hessian = torch.autograd.functional.hessian(nll, centre)
    factors = torch.cat([posterior.factors["readout.weight"].flatten(1), posterior.factors["readout.bias"]], dim=1)
    covariance = (factors.T @ factors).double()
    prior = torch.linalg.inv(covariance) - hessian
    precision = float(prior.diagonal().mean())
    identity = torch.eye(len(centre), dtype=torch.float64)
    expected = torch.linalg.inv(hessian + precision * identity)
    torch.testing.assert_close(covariance, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))

    def validation_nll(precision):
        root = torch.linalg.cholesky(torch.linalg.inv(hessian + precision * identity))
        noise = torch.randn(4_000, len(centre), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        drawn = [logits(centre + root @ one, given[1]).softmax(dim=-1) for one in noise]
        return -float(torch.stack(drawn).mean(dim=0)[range(len(VALIDATION.labels)), VALIDATION.labels].log().mean())

    assert posterior.std == {}
    assert posterior.mean is trained.mean
    assert validation_nll(precision) < min(map(validation_nll, [1e-3, 1e-1, 1e1, 1e3])) + 0.01


def test_laplace_counts_copies_of_the_training_utterances_as_no_further_data(trained):
    tripled = SimpleNamespace(features=TRAINING.features.repeat(3, 1, 1), labels=TRAINING.labels.repeat(3))
    once, thrice = derive("laplace", trained), derive("laplace", trained, training=tripled, copies=2)
    for name, factor in once.factors.items():
        covariance = factor.flatten(1).T @ factor.flatten(1)
        found = thrice.factors[name].flatten(1)
        torch.testing.assert_close(found.T @ found, covariance, rtol=1e-3, atol=1e-4 * float(covariance.abs().max()))


@pytest.mark.parametrize("name", ["temperature", "laplace"])
def test_what_changes_the_readout_refuses_one_that_is_not_linear(name):
    network = build(NetworkSettings((8, 6), readout="softmax"), 3, 3)
    with pytest.raises(ValueError, match="needs a linear one: choose the readout 'rate'"):
        derive(name, PointMass(network_state(network)), network=network)


def test_dropout_stays_on_and_needs_to_be_there(trained):
    posterior = derive("dropout", trained)
    assert posterior == NoisyNetwork(trained)
    first, second = predict(network_of(), posterior, VALIDATION.features, 2, torch.Generator().manual_seed(0))
    assert not torch.equal(first, second)
    with pytest.raises(ValueError, match="choose a dropout above 0"):
        derive("dropout", trained, network=network_of(dropout=0.0))


def test_an_ensemble_is_the_average_of_its_members(trained):
    members = [
        PointMass({name: factor * tensor for name, tensor in trained.mean.items()})
        for factor in np.linspace(0.8, 1.2, MEMBERS)
    ]
    posterior = derive("ensemble", *members)
    assert isinstance(posterior, Mixture)
    samples = posterior.distinct(64)
    averaged = predict(network_of(), posterior, VALIDATION.features, samples, torch.Generator()).mean(dim=0)
    expected = torch.stack([logits_of(member.mean, VALIDATION).softmax(dim=-1) for member in members]).mean(dim=0)
    torch.testing.assert_close(averaged, expected)


def test_one_s_mean_and_the_other_s_noise(trained):
    names = dict(network_of().named_parameters())
    other = {name: 2 * tensor for name, tensor in trained.mean.items()}
    ivon = MeanFieldGaussian(other, {name: torch.rand_like(other[name]) for name in names})
    assert derive("ivon-mean", ivon) == PointMass(other)
    noisy = derive("noise-ivon", trained, ivon)
    assert noisy.mean is trained.mean
    assert noisy.std is ivon.std
    isotropic = derive("noise-isotropic", trained, ivon)
    assert isotropic.mean is trained.mean
    assert {name: std.shape for name, std in isotropic.std.items()} == {
        name: tensor.shape for name, tensor in ivon.std.items()
    }
    flat, matched = (torch.cat([std.flatten() for std in one.std.values()]) for one in (ivon, isotropic))
    assert (matched == matched[0]).all()
    assert float(matched.square().sum()) == pytest.approx(float(flat.square().sum()), rel=1e-5)


def test_ivon_s_noise_on_the_units_that_live(trained):
    names = {name: tensor for name, tensor in trained.mean.items() if name in dict(network_of().named_parameters())}
    ivon = MeanFieldGaussian(trained.mean, {name: torch.full_like(tensor, 0.5) for name, tensor in names.items()})
    weights = trained.mean["layers.0.linear.weight"].clone()
    weights[2] = 1e-9
    decayed = PointMass(trained.mean | {"layers.0.linear.weight": weights})
    spared = derive("noise-live", decayed, ivon)
    assert spared.mean is decayed.mean
    expected = torch.full_like(weights, 0.5)
    expected[2] = 0
    assert torch.equal(spared.std["layers.0.linear.weight"], expected)
    assert all(torch.equal(std, ivon.std[name]) for name, std in spared.std.items() if "layers.0.linear" not in name)
    assert torch.equal(derive("noise-live", trained, ivon).std["layers.0.linear.weight"], torch.full_like(weights, 0.5))


def flat(state):
    return torch.cat([tensor.flatten() for tensor in state.values()])


@pytest.fixture(scope="module")
def ivon(trained):
    """A Gaussian about the trained network, of other deviations in each place."""
    noise = torch.Generator().manual_seed(1)
    shapes = {name: parameter.shape for name, parameter in network_of().named_parameters()}
    return MeanFieldGaussian(
        trained.mean, {name: 0.3 * torch.rand(shape, generator=noise) for name, shape in shapes.items()}
    )


def test_permuted_deviations_are_the_same_numbers_in_other_places(ivon):
    posterior = derive("ivon-permuted", ivon)
    assert posterior.mean is ivon.mean
    assert {name: std.shape for name, std in posterior.std.items()} == {
        name: std.shape for name, std in ivon.std.items()
    }
    before, after = flat(ivon.std), flat(posterior.std)
    assert torch.equal(before.sort().values, after.sort().values)
    assert abs(float(torch.corrcoef(torch.stack([before, after]))[0, 1])) < 0.2
    assert torch.equal(after, flat(derive("ivon-permuted", ivon).std))  # one seed, one order


def validation_nll(posterior, samples=16):
    generator = torch.Generator().manual_seed(0)
    return negative_log_likelihood(
        predict(network_of(), posterior, VALIDATION.features, samples, generator), VALIDATION.labels
    )


def multiplied(posterior, factor, names):
    """The posterior with the means and deviations of some tensors times a factor."""
    mean, std = (
        {name: factor * tensor if name in names else tensor for name, tensor in state.items()}
        for state in (posterior.mean, posterior.std)
    )
    return MeanFieldGaussian(mean, std)


@pytest.mark.parametrize("sharpened", [0.2, 1.0, 8.0])
def test_no_temperature_of_a_grid_gives_the_average_over_samples_a_lower_validation_nll(ivon, sharpened):
    readout = ("readout.weight", "readout.bias")
    posterior = derive("ivon-temperature", multiplied(ivon, sharpened, readout))
    grid = [validation_nll(multiplied(ivon, 1 / scale, readout)) for scale in np.geomspace(0.05, 20, 100)]
    assert validation_nll(posterior) == pytest.approx(min(grid), rel=3e-3)
    changed = {name for name, std in ivon.std.items() if not torch.equal(std, posterior.std[name])}
    assert changed == set(readout)
    ratios = [posterior.std[name] / ivon.std[name] for name in readout]
    ratios += [posterior.mean[name] / ivon.mean[name] for name in readout]
    found = torch.cat([ratio.flatten() for ratio in ratios])
    torch.testing.assert_close(found, found[:1].expand_as(found))


@pytest.mark.parametrize("name", ["scaled-ivon", "scaled-isotropic", "scaled-filters"])
def test_scaled_noise_is_one_factor_of_the_lowest_validation_nll(ivon, name):
    ivon = multiplied(ivon, 8.0, ["readout.weight", "readout.bias"])  # too sure of itself: noise helps
    mean = ivon.mean
    posterior = derive(name, ivon if name == "scaled-ivon" else PointMass(mean))
    assert posterior.mean is mean
    if name == "scaled-ivon":
        shapes = ivon.std
    elif name == "scaled-isotropic":
        shapes = {name: torch.ones_like(std) for name, std in ivon.std.items()}
    else:
        shapes = {
            name: mean[name].norm(dim=1, keepdim=True) / mean[name].shape[1] ** 0.5 * torch.ones_like(std)
            for name, std in ivon.std.items()
            if name.endswith(".weight") and std.ndim == 2
        }
    assert posterior.std.keys() == shapes.keys()
    factors = flat(posterior.std) / flat(shapes)
    torch.testing.assert_close(factors, factors[:1].expand_as(factors))
    size = float(factors[0])
    assert size > 0
    for other in (0, size / 2, size / 2**0.5, size * 2**0.5, size * 2):
        around = MeanFieldGaussian(mean, {name: other * shape for name, shape in shapes.items()})
        assert validation_nll(posterior) <= validation_nll(around) + 1e-6


def test_scaled_noise_may_be_none(trained):
    names = dict(network_of().named_parameters())
    ruinous = MeanFieldGaussian(trained.mean, {name: torch.full_like(trained.mean[name], 1e4) for name in names})
    assert not flat(derive("scaled-ivon", ruinous).std).any()


# Settings


@pytest.mark.parametrize("name", [name for name, kind in METHODS.items() if issubclass(kind, Derived)])
def test_what_is_given_goes_to_each_part_that_takes_it_and_the_part_s_own_first(name):
    kind = METHODS[name]
    base = kind.bases[-1]
    method = kind.from_mapping({"batch_size": 10, "weight_decay": 1e-3, "bases": {base: {"weight_decay": 0.1}}})
    for part in dict.fromkeys(kind.bases):
        expected = {"batch_size": 10, "weight_decay": 0.1 if part == base else 1e-3}
        assert method.base(part) == METHODS[part].from_mapping(expected)
    assert method.as_dict() == {
        "dropout": method.base(kind.bases[0]).dropout,
        "bases": {part: method.base(part).as_dict() for part in kind.bases},
    }
    assert kind.from_mapping(method.as_dict()) == method  # as a run's record gives it


def test_a_setting_added_later_to_a_part_renames_no_derived_run():
    @dataclass(frozen=True)
    class Later(METHODS["map"]):
        momentum: float = setting(0.5, real(0, 1), before=0.0)

    @dataclass(frozen=True)
    class OfLater(METHODS["dropout"]):
        made_of: ClassVar = (Later,)

    stored = METHODS["dropout"]().as_dict()
    older = OfLater.from_mapping(OfLater.before() | stored)
    assert older.base("map").momentum == 0
    assert older.identity() == METHODS["dropout"]().identity()
    assert OfLater().identity()["bases"]["map"]["momentum"] == 0.5
