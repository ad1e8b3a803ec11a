"""Each road to a posterior against what is known of it: regressions with a closed form, derivatives, grids."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import nn
from torch.nn.functional import cross_entropy

from lib import posteriors
from lib.networks import SpikingClassifier, build
from lib.posteriors import MeanFieldGaussian, Mixture, NoisyNetwork, PointMass, network_state, predict
from lib.trainers import DERIVED, MEMBERS, METHODS, loop, swag
from lib.trainers.bayes_by_backprop import best_prior_scale, kl_divergence

COUNT, PRIOR_SCALE = 40, 1.0


def regression():
    """Whole numbers with an error of variance 1, linear in three inputs; the second goes with the first."""
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(COUNT, 1, 3, generator=generator, dtype=torch.float64)
    inputs[..., 1] += 0.5 * inputs[..., 0]
    targets = inputs[:, 0] @ torch.tensor([2.0, -3.0, 1.0], dtype=torch.float64)
    targets += torch.randn(COUNT, generator=generator, dtype=torch.float64)
    return SimpleNamespace(features=inputs, labels=targets.round().long())


def exact_posterior(examples):
    """Mean and precision: P = X'X + I / prior_scale^2 and P^-1 X'y."""
    design, response = examples.features[:, 0].numpy(), examples.labels.numpy()
    precision = design.T @ design + np.eye(3) / PRIOR_SCALE**2
    return np.linalg.solve(precision, design.T @ response), precision


def fit_regression(method, monkeypatch, epochs, **chosen):
    """A linear network whose loss is a Gaussian's NLL; the learning rate falls, and the last epoch is the result."""

    def gaussian_nll(outputs, labels):
        return (outputs.squeeze(-1) - labels).square().mean() / 2

    losses = iter([1.0] * (epochs - 1) + [0.5])
    monkeypatch.setattr(loop, "cross_entropy", gaussian_nll)
    monkeypatch.setattr(loop, "_validate", lambda *_: {"validation_loss": next(losses)})
    network = nn.Sequential(nn.Flatten(), nn.Linear(3, 1, bias=False)).double()
    examples = regression()
    posterior, _ = METHODS[method](network, examples, examples, epochs=epochs, seed=3, **chosen)
    return posterior, *exact_posterior(examples)


MEAN_FIELD = {
    "ivon": {
        "learning_rate": 0.05, "weight_decay": 1 / COUNT / PRIOR_SCALE**2, "ess_factor": 1.0, "hess_init": 1.0,
        "beta2": 0.998,
    },
    "bbb": {"learning_rate": 0.05, "alpha": 1.0, "initial_std": 0.1, "prior_scale": PRIOR_SCALE},
}  # fmt: skip


@pytest.mark.parametrize("method", MEAN_FIELD)
def test_mean_field_methods_find_the_known_posterior_of_a_linear_regression(method, monkeypatch):
    # The factorised Gaussian that is closest has the posterior's mean and the variances 1 / P_jj.
    posterior, mean, precision = fit_regression(
        method, monkeypatch, 1_500, batch_size=COUNT, patience=200, **MEAN_FIELD[method]
    )
    std = 1 / np.sqrt(np.diag(precision))
    np.testing.assert_array_less(np.abs(posterior.mean["1.weight"].numpy()[0] - mean), 0.2 * std)
    np.testing.assert_allclose(posterior.std["1.weight"].numpy()[0], std, rtol=0.15)


def test_swag_finds_the_mean_of_a_linear_regression_and_roughly_its_spread(monkeypatch):
    # Its spread is that of the iterates, which grows with the learning rate: with this one it is right to a factor of
    # 3, with a tenth of it a sixth of what it should be.
    posterior, mean, precision = fit_regression(
        "swag", monkeypatch, 200, batch_size=8, patience=200, learning_rate=0.1,
        weight_decay=1 / COUNT / PRIOR_SCALE**2, swag_from=50, swag_learning_rate=1.0, rank=150,
    )  # fmt: skip
    covariance = np.linalg.inv(precision)
    factor = posterior.factors["1.weight"].numpy()[:, 0]
    found = np.diag(posterior.std["1.weight"].numpy()[0] ** 2) + factor.T @ factor
    np.testing.assert_array_less(np.abs(posterior.mean["1.weight"].numpy()[0] - mean), np.sqrt(np.diag(covariance)))
    ratio = np.sqrt(np.diag(found) / np.diag(covariance))
    np.testing.assert_array_less(np.abs(np.log(ratio)), np.log(3))


# Bayes by Backprop


def some_gaussians():
    means = [torch.randn(3, 2, dtype=torch.float64), torch.randn(4, dtype=torch.float64)]
    return means, [torch.rand_like(mean) + 0.1 for mean in means]


def test_the_divergence_is_pytorch_s():
    means, stds = some_gaussians()
    prior = torch.distributions.Normal(0.0, 0.7)
    expected = sum(
        torch.distributions.kl_divergence(torch.distributions.Normal(mean, std), prior).sum()
        for mean, std in zip(means, stds, strict=True)
    )
    torch.testing.assert_close(kl_divergence(means, stds, 0.7), expected)


def test_the_prior_scale_of_empirical_bayes_has_the_least_divergence():
    means, stds = some_gaussians()
    found = minimize_scalar(lambda scale: float(kl_divergence(means, stds, scale)), bounds=(0.01, 10), method="bounded")
    assert float(best_prior_scale(means, stds)) == pytest.approx(found.x, rel=1e-4)


def test_without_an_alpha_there_is_no_prior_and_the_spread_shrinks():
    posterior, _ = train("bbb", alpha=0.0, epochs=20)
    kept, _ = train("bbb", alpha=10.0, epochs=20)
    assert posterior.std["readout.weight"].mean() < 0.05 < 0.06 < kept.std["readout.weight"].mean()


def test_a_smaller_prior_scale_brings_smaller_weights():
    narrow, wide = (train("bbb", alpha=1.0, prior_scale=scale, epochs=20)[0] for scale in (0.02, 1.0))
    assert narrow.mean["readout.weight"].norm() < 0.7 * wide.mean["readout.weight"].norm()


# SWAG


def spoken(utterances, seed):
    """Each class a constant current into an input of its own, in noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(utterances) % 3
    features = torch.randn(utterances, 10, 3, generator=generator)
    return SimpleNamespace(features=features + 2 * nn.functional.one_hot(labels)[:, None], labels=labels)


TRAINING, VALIDATION = spoken(26, 1), spoken(18, 2)
VALIDATION.labels[:4] = 0  # some that no network gets right


def network_of(seed=0, dropout=0.2):
    torch.manual_seed(seed)
    network = SpikingClassifier(3, 3, (8, 6), dropout=dropout)
    with torch.no_grad():
        for layer in network.layers:  # fire from the first epoch on
            layer.norm.weight.fill_(6)
            layer.norm.bias.fill_(1)
    return network


CHOSEN = {
    "map": {"learning_rate": 0.02, "weight_decay": 1e-4},
    "bbb": {"learning_rate": 0.02, "initial_std": 0.05},
    "swag": {"learning_rate": 0.02, "weight_decay": 1e-4, "swag_from": 1, "swag_learning_rate": 0.01, "rank": 3},
}


def train(method, network=None, **changes):
    schedule = {"epochs": 6, "batch_size": 8, "patience": 9, "seed": 3}
    network = network_of() if network is None else network
    return METHODS[method](network, TRAINING, VALIDATION, **(schedule | CHOSEN[method] | changes))


def test_swag_s_moments_are_those_of_the_weights_after_each_epoch():
    network, states = network_of(), []
    posterior, history = train("swag", network, after_epoch=lambda row: states.append(network_state(network)))
    assert history["learning_rate"].tolist() == [0.02] + [0.01] * 5
    names = list(dict(network.named_parameters()))
    assert list(posterior.std) == list(posterior.factors) == names

    def flat(state):
        return np.concatenate([state[name].double().numpy().ravel() for name in names])

    collected = np.stack([flat(state) for state in states[1:]])
    mean = collected.mean(axis=0)
    np.testing.assert_allclose(flat(posterior.mean), mean, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(flat(posterior.std), np.sqrt(collected.var(axis=0, ddof=1) / 2), rtol=1e-3, atol=1e-7)
    factors = np.stack([flat({name: factor[rank] for name, factor in posterior.factors.items()}) for rank in range(3)])
    np.testing.assert_allclose(factors, (collected[-3:] - mean) / 2, rtol=1e-3, atol=1e-6)  # sqrt(2 (3 - 1)) = 2


def test_swag_s_whole_covariance_is_that_of_the_iterates_where_all_are_kept():
    iterates = swag.Iterates(rank=9)
    weights = torch.randn(7, 4, dtype=torch.float64)
    for row in weights:
        iterates.collect({"w": row})
    stds, factors = iterates.spread()
    expected = torch.cov(weights.T)
    torch.testing.assert_close(factors["w"].T @ factors["w"], expected / 2)
    torch.testing.assert_close(stds["w"] ** 2, expected.diag() / 2)


def test_the_statistics_of_averaged_weights_are_those_of_their_own_activations():
    network = network_of()
    weights = {name: 0.9 * parameter.detach() for name, parameter in network.named_parameters()}
    before = copy.deepcopy(network.state_dict())
    state = swag.with_own_statistics(network, weights, TRAINING, batch_size=26)  # a single minibatch
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert network.training

    plain = network_of(dropout=0.0)
    plain.load_state_dict(weights, strict=False)
    current = plain.layers[0].linear(TRAINING.features).detach().flatten(0, 1)
    torch.testing.assert_close(state["layers.0.norm.running_mean"], current.mean(dim=0))
    torch.testing.assert_close(state["layers.0.norm.running_var"], current.var(dim=0))
    rates = plain.train().hidden_spikes(TRAINING.features)[-1].detach().mean(dim=0)
    torch.testing.assert_close(state["norm.running_mean"], rates.mean(dim=0))
    torch.testing.assert_close(state["norm.running_var"], rates.var(dim=0))
    for name, tensor in weights.items():
        assert torch.equal(state[name], tensor)


def test_statistics_are_averaged_over_the_minibatches():
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(2), nn.Linear(2, 2))
    features = torch.randn(9, 1, 2)
    examples = SimpleNamespace(features=features, labels=torch.zeros(9, dtype=torch.int64))
    state = swag.with_own_statistics(network, {}, examples, batch_size=3)
    thirds = features[:, 0].view(3, 3, 2)
    torch.testing.assert_close(state["1.running_mean"], thirds.mean(dim=(0, 1)))
    torch.testing.assert_close(state["1.running_var"], thirds.var(dim=1).mean(dim=0))


def test_swag_needs_two_epochs_to_collect_from():
    with pytest.raises(ValueError, match="2 or more epochs after swag_from, not 1"):
        train("swag", swag_from=5)


# Methods derived from finished runs


@pytest.fixture(scope="module")
def trained():
    return train("map")[0]


def derive(name, *bases, network=None):
    needed, make = DERIVED[name]
    assert len(needed) == len(bases)
    network = network_of() if network is None else network
    before = copy.deepcopy(network.state_dict())
    random_state = torch.get_rng_state()
    posterior = make(network, bases, TRAINING, VALIDATION, 3)
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


@pytest.mark.parametrize("name", ["temperature", "laplace"])
def test_what_changes_the_readout_refuses_one_that_is_not_linear(name):
    network = build(3, 3, (8, 6), readout="softmax")
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
    samples = posteriors.samples_needed(posterior, 64)
    averaged = predict(network_of(), posterior, VALIDATION.features, samples, torch.Generator()).mean(dim=0)
    expected = torch.stack([logits_of(member.mean, VALIDATION).softmax(dim=-1) for member in members]).mean(dim=0)
    torch.testing.assert_close(averaged, expected)


def test_one_s_centre_and_the_other_s_spread(trained):
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
