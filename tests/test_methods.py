"""Every method: the same properties of all, and each against what is known of it; regressions with a closed form."""

import copy
import inspect
import itertools
import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import nn
from torch.nn.functional import cross_entropy
from toys import SETTINGS, TRAINING, VALIDATION, assert_same_outcome, interrupting, network_of, train

from lib import methods, posteriors, trainers
from lib.methods import METHODS, swag
from lib.methods.bayes_by_backprop import best_prior_scale, kl_divergence
from lib.methods.families import LowRankGaussian, NoisyNetwork
from lib.networks import NetworkSettings
from lib.networks.activity import firing_rate_penalty
from lib.networks.sbnn import StochasticClassifier
from lib.posteriors import MeanFieldGaussian, PointMass, network_state
from lib.trainers import likelihood

FAMILIES = {
    "map": PointMass,
    "ivon": MeanFieldGaussian,
    "bbb": MeanFieldGaussian,
    "swag": LowRankGaussian,
    "sgd": PointMass,
    "sbnn": NoisyNetwork,
}
# SWAG ends at a rate of its own, and its result is the last epoch's.
# SBNN draws its spikes, also where it is validated.
OF_ANY_NETWORK = [name for name in SETTINGS if name != "sbnn"]
FOLLOWING_VALIDATION = [name for name in SETTINGS if not METHODS[name].keeps_last]


@pytest.fixture(params=list(SETTINGS))
def method(request):
    return request.param


# What the methods share


def test_training_learns_the_toy_and_says_how(method):
    posterior, history = train(method, epochs=15, batch_size=6, patience=5)
    assert type(posterior) is FAMILIES[method]
    assert list(history) == [
        "epoch", "learning_rate", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy",
        "firing_rate_1", "firing_rate_2", "seconds",
    ]  # fmt: skip
    assert history["epoch"].tolist() == list(range(1, 16))
    assert history["validation_accuracy"].max() == 1
    assert history["validation_loss"].min() < 0.5 * math.log(3)
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    assert history[["firing_rate_1", "firing_rate_2"]].gt(0).all(axis=None)
    assert history["seconds"].gt(0).all()


def test_one_seed_gives_one_outcome(method):
    outcome = train(method)
    torch.manual_seed(1234)  # torch's own generator has no say
    assert_same_outcome(outcome, train(method, copy.deepcopy(network_of(method=method))))
    with pytest.raises(AssertionError):
        assert_same_outcome(outcome, train(method, seed=4))


def test_torch_s_own_generator_is_left_alone(method):
    network = network_of(method=method)
    before = torch.get_rng_state()
    train(method, network, epochs=3)
    assert torch.equal(torch.get_rng_state(), before)

    with pytest.raises(KeyboardInterrupt):
        train(method, network, after_epoch=interrupting(1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("method", FOLLOWING_VALIDATION)
def test_the_best_epoch_is_returned(method, monkeypatch):
    states = []
    network = network_of(method=method)
    nll = iter([3.0, 1.0, 2.0, 1.0])  # of two that are level, the first
    monkeypatch.setattr(trainers, "_validate", lambda *_: {"validation_loss": next(nll)})
    posterior, history = train(method, network, after_epoch=lambda row: states.append(network_state(network)))
    assert history["validation_loss"].tolist() == [3.0, 1.0, 2.0, 1.0]
    for name, tensor in posterior.mean.items():
        assert torch.equal(tensor, states[1][name]), name
        assert name.startswith("norm") or not torch.equal(tensor, states[3][name]), name


@pytest.mark.parametrize("method", OF_ANY_NETWORK)
def test_the_recorded_validation_is_that_of_the_returned_posterior_and_its_rates_those_of_evaluation(method):
    trained, network = network_of(method=method), network_of(method=method).eval()
    posterior, history = train(method, trained)
    generator, samples = torch.Generator().manual_seed(0), 1 if method == "map" else 4
    probabilities = 0
    for _ in range(samples):
        network.load_state_dict(posterior.sample(generator), strict=False)
        probabilities = probabilities + network(VALIDATION.features).softmax(-1).detach() / samples
    best = history.loc[3 if method == "swag" else history["validation_loss"].idxmin()]
    assert best["validation_loss"] == pytest.approx(
        float(nn.functional.nll_loss(probabilities.log(), VALIDATION.labels)), rel=1e-5
    )
    accuracy = float((probabilities.argmax(-1) == VALIDATION.labels).double().mean())
    assert best["validation_accuracy"] == pytest.approx(accuracy)
    for layer, spikes in enumerate(trained.eval().hidden_spikes(VALIDATION.features), start=1):
        fired, places = int(spikes.sum()), spikes.numel()
        assert history[f"firing_rate_{layer}"].iloc[-1] == pytest.approx(fired / places, rel=1e-6)


@pytest.mark.parametrize("method", OF_ANY_NETWORK)
def test_recorded_training_figures_are_means_over_the_utterances(method):
    network, correct, losses = network_of(method=method), [], []

    def look(_, inputs, logits):
        if network.training:
            same = (inputs[0][:, None] == TRAINING.features).all(dim=(2, 3))
            labels = TRAINING.labels[same.int().argmax(dim=1)]
            losses.extend(cross_entropy(logits.detach(), labels, reduction="none").tolist())
            correct.extend((logits.argmax(dim=1) == labels).tolist())

    network.register_forward_hook(look)
    _, history = train(method, network, epochs=3)
    for epoch in range(3):
        of_epoch = slice(26 * epoch, 26 * (epoch + 1))
        assert history["train_loss"][epoch] == pytest.approx(np.mean(losses[of_epoch]), rel=1e-5)
        assert history["train_accuracy"][epoch] == pytest.approx(np.mean(correct[of_epoch]))


# The objective, and other networks


def test_a_penalty_on_firing_rates_brings_them_down(method):
    rates = []
    for objective in (likelihood, firing_rate_penalty(5.0)):
        network = network_of(dropout=0.0, method=method)
        with torch.no_grad():  # it fires more often than every other step
            for layer in network.layers:
                layer.norm.bias.fill_(3) if hasattr(layer, "norm") else layer.linear.bias.fill_(3)
        train(method, network, epochs=15, objective=objective)
        with torch.no_grad():
            trains = network.eval().hidden_spikes(TRAINING.features)
        rates.append(float(torch.stack([train.mean() for train in trains]).mean()))
    assert rates[1] < 0.93 * rates[0]


@pytest.mark.parametrize("shape", [
    {"network": "ligru"}, {"neuron": "adlif"}, {"neuron": "rlif"}, {"neuron": "radlif", "readout": "softmax"},
])  # fmt: skip
@pytest.mark.parametrize("method", OF_ANY_NETWORK)
def test_other_networks_train(method, shape):
    torch.manual_seed(0)
    network = METHODS[method]().network(NetworkSettings((8, 6), **shape), 3, 3)
    _, history = train(method, network, epochs=12, patience=12)
    assert any(column.startswith("firing_rate") for column in history) == network.fires
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]


# Interruption


@pytest.mark.parametrize("interrupted_after", [1, 2, 3])
def test_a_resumed_run_ends_in_the_numbers_of_an_undisturbed_one(method, interrupted_after, tmp_path):
    changes = {"freeze_norm_after": 2} if method == "ivon" else {}
    expected = train(method, **changes)
    checkpoint = tmp_path / "run" / "checkpoint.pt"

    with pytest.raises(KeyboardInterrupt):
        train(method, checkpoint=checkpoint, after_epoch=interrupting(interrupted_after), **changes)
    seen = []
    # A network of other weights: what is resumed comes from the checkpoint alone.
    resumed = train(
        method,
        network_of(77, method=method),
        checkpoint=checkpoint,
        after_epoch=lambda row: seen.append(row["epoch"]),
        **changes,
    )
    assert seen == list(range(interrupted_after + 1, 5))
    assert_same_outcome(resumed, expected)
    assert [entry.name for entry in checkpoint.parent.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("method", FOLLOWING_VALIDATION)
@pytest.mark.parametrize("interrupted_after", [1, 2, 3, 4])
def test_resuming_remembers_the_best_epoch_and_the_patience_used_up(method, interrupted_after, tmp_path, monkeypatch):
    def scripted():  # the first epoch is the best, and then the rate is halved after every second
        nll = iter([1.0, 2.0, 3.0, 2.5, 2.0, 4.0])
        monkeypatch.setattr(trainers, "_validate", lambda *_: {"validation_loss": next(nll)})

    scripted()
    expected = train(method, epochs=6)
    rate = SETTINGS[method]["learning_rate"]
    assert expected[1]["learning_rate"].tolist() == [rate, rate, rate, rate / 2, rate / 2, rate / 4]
    scripted()
    with pytest.raises(KeyboardInterrupt):
        train(method, checkpoint=tmp_path / "checkpoint.pt", epochs=6, after_epoch=interrupting(interrupted_after))
    assert_same_outcome(
        train(method, network_of(77, method=method), checkpoint=tmp_path / "checkpoint.pt", epochs=6), expected
    )


# Divergence and too little data


@pytest.mark.parametrize(
    ("spoilt", "value", "says"),
    [
        ("readout.bias", math.nan, r"\(loss nan\)"),
        # Two thirds of the utterances are of other classes.
        ("readout.bias", 100.0, r"\(loss \d+\.\d+\)"),
        # Neurons whose potential is not a number stay silent, so that the loss alone would not tell; but the prior of
        # empirical Bayes then spoils the other weights, and with them the loss.
        ("layers.0.linear.weight", math.nan, r"\((weights not finite|loss nan)\)"),
    ],
)
def test_what_does_not_come_back_stops_with_a_sentence(method, tmp_path, spoilt, value, says):
    network, checkpoint = network_of(method=method), tmp_path / "checkpoint.pt"

    def spoil(row):
        if row["epoch"] == 2:
            network.get_parameter(spoilt).data[0] = value

    with pytest.raises(FloatingPointError, match=rf"^training diverged in epoch 3 {says}: lower learning_rate$"):
        train(method, network, checkpoint=checkpoint, after_epoch=spoil)
    # The checkpoint is that of the last whole epoch.
    stored = torch.load(checkpoint, weights_only=True)
    assert [row["epoch"] for row in stored["history"]] == [1, 2]
    assert stored["network"][spoilt].isfinite().all()


@pytest.mark.parametrize(("utterances", "validating"), [(1, 9), (26, 0)])
def test_too_few_utterances_are_counted_out(method, utterances, validating):
    def first(examples, count):
        return SimpleNamespace(features=examples.features[:count], labels=examples.labels[:count])

    message = f"2 or more utterances and 1 or more to validate on; here are {utterances} and {validating}"
    with pytest.raises(ValueError, match=message):
        train(method, training=first(TRAINING, utterances), validation=first(VALIDATION, validating))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_on_a_gpu_ends_in_a_posterior_on_the_cpu(method):
    network = network_of(method=method).cuda()
    posterior, _ = train(method, network=network, epochs=3)
    assert all(tensor.device.type == "cpu" for tensor in posterior.mean.values())
    predicted = posteriors.predict(network, posterior, VALIDATION.features, 2, torch.Generator().manual_seed(0))
    assert predicted.device.type == "cpu"


# Copies of the training utterances are no further data


def tripled(examples):
    return SimpleNamespace(features=examples.features.repeat(3, 1, 1), labels=examples.labels.repeat(3))


def test_ivon_s_effective_sample_size_leaves_copies_out():
    # With beta2 = 1 the Hessian stays at hess_init: the standard deviation is that of 26 utterances.
    given = {"hess_init": 0.75, "weight_decay": 0.25, "beta2": 1.0, "epochs": 1}
    alone, _ = train("ivon", **given)
    posterior, _ = train("ivon", training=tripled(TRAINING), copies=2, **given)
    torch.testing.assert_close(posterior.std, alone.std)


def test_the_divergence_of_bayes_by_backprop_is_over_the_utterances_without_copies():
    # A step of one minibatch from the same start: alpha counts the same where the copies are left out.
    settings = {"epochs": 1, "batch_size": 78, "initial_std": 0.05, "learning_rate": 0.01}
    training, stds = tripled(TRAINING), {}
    for name, given in (("copies", {"alpha": 1.0, "copies": 2}), ("alike", {"alpha": 3.0}), ("other", {"alpha": 1.0})):
        stds[name] = train("bbb", network_of(dropout=0.0), training, **settings, **given)[0].std
    torch.testing.assert_close(stds["copies"], stds["alike"], rtol=0, atol=0)
    assert any(not torch.equal(stds["copies"][name], stds["other"][name]) for name in stds["other"])


# Settings


def test_a_method_s_defaults_are_those_of_the_core_s_trainers():
    for name, trainer in (("map", trainers.train_map), ("ivon", trainers.train_ivon)):
        parameters = inspect.signature(trainer).parameters
        own = METHODS[name]().trainer_settings()
        assert own == {setting: parameters[setting].default for setting in own}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_says_all_about_itself(method):
    kind = METHODS[method]
    assert kind.name == method
    assert kind.title == method
    assert kind.keeps_last == (method == "swag")
    assert json.loads(json.dumps(kind().as_dict())) == kind().as_dict() == kind.from_mapping({}).as_dict()
    assert kind.from_mapping(kind().as_dict()) == kind()
    for name, tried in kind.search_space().items():
        for value in tried:
            assert getattr(kind.from_mapping({name: value}), name) == value
    for of in ("label", "marker"):
        assert len({getattr(other, of) for other in METHODS.values()}) == len(METHODS)


def test_every_setting_of_the_paper_s_methods_is_searched_but_adam_s_freezing_and_what_multiplies_the_cost():
    alike = {"decay_vectors", "leak_rate"}
    assert METHODS["ivon"].search_space().keys() == set(METHODS["ivon"].names()) - {"draws"} - alike
    assert METHODS["map"].search_space().keys() == set(METHODS["map"].names()) - {"freeze_norm_after"} - alike


@pytest.mark.parametrize(
    ("method", "given", "says"),
    [
        ("map", {"ess_factor": 1.0}, "map takes no ess_factor: its settings are batch_size, learning_rate"),
        ("map", {"bases": {}}, "map takes no bases"),
        ("sbnn", {"dropout": 0.1}, "sbnn takes no dropout"),
        ("map", {"learning_rate": 0}, "learning_rate = 0 does not fit: it must be a number above 0 up to 100"),
        ("map", {"batch_size": 1}, "batch_size = 1 does not fit: it must be a whole number from 2"),
        ("map", {"dropout": 1.0}, "dropout = 1.0 does not fit: it must be a number from 0 up to 0.99"),
        ("ivon", {"beta2": 1.0001}, "beta2 = 1.0001 does not fit: it must be a number from 0 up to 1"),
        ("ivon", {"freeze_norm_after": 0}, "freeze_norm_after = 0 does not fit"),
        ("sbnn", {"slope": "boxcar"}, "slope = 'boxcar' does not fit: it must be one of straight-through, trapezoid"),
        ("temperature", {"hess_init": 0.3}, "temperature takes no hess_init: its settings are batch_size"),
        ("temperature", {"bases": {"ivon": {}}}, "temperature is made of map, not of 'ivon'"),
        ("temperature", {"bases": {"map": {"hess_init": 1.0}}}, "map takes no hess_init"),
        ("temperature", {"bases": {"map": {"learning_rate": -1}}}, "learning_rate = -1 does not fit"),
        ("temperature", {"bases": "map"}, "bases = 'map' does not fit: it must be a mapping"),
        ("temperature", {"bases": {"map": 3}}, "bases = {'map': 3} does not fit: it must be a mapping"),
    ],
)
def test_what_a_method_cannot_take_is_refused(method, given, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}"):
        METHODS[method].from_mapping(given)


def test_an_unknown_method_is_refused_with_the_known_ones():
    assert methods.get("ivon") is METHODS["ivon"]
    with pytest.raises(ValueError, match=r"^unknown method 'adam': choose one of map, ivon, bbb"):
        methods.get("adam")


@pytest.mark.parametrize("shape", [{"neuron": "adlif"}, {"readout": "softmax"}, {"norm": "none"}, {"network": "mlp"}])
def test_sbnn_has_a_network_of_its_own(shape):
    network = METHODS["sbnn"](deviation=0.7).network(NetworkSettings([6], neuron="rlif"), 4, 3)
    assert isinstance(network, StochasticClassifier)
    assert hasattr(network.layers[0], "recurrent")
    assert float(network.layers[0].log_deviation.detach().exp()) == pytest.approx(0.7 / 2)
    with pytest.raises(ValueError, match="sbnn has a network of its own"):
        METHODS["sbnn"]().network(NetworkSettings([6], **shape), 4, 3)


# Regressions with a closed form

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

    def gaussian_nll(network, features, labels):
        outputs = network(features)
        return (outputs.squeeze(-1) - labels).square().mean() / 2, outputs

    losses = iter([1.0] * (epochs - 1) + [0.5])
    monkeypatch.setattr(trainers, "cross_entropy", lambda outputs, labels: torch.zeros(()))
    monkeypatch.setattr(trainers, "_validate", lambda *_: {"validation_loss": next(losses)})
    network = nn.Sequential(nn.Flatten(), nn.Linear(3, 1, bias=False)).double()
    examples = regression()
    posterior, _ = (
        METHODS[method]
        .from_mapping(chosen)
        .train(network, examples, examples, epochs=epochs, seed=3, objective=gaussian_nll)
    )
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


def test_the_prior_is_about_0_for_matrices_and_about_the_start_for_vectors():
    """With a prior as narrow as this, and much of it, everything goes there."""
    network = network_of()
    starts = network_state(network)
    settings = {"alpha": 1e3, "prior_scale": 1e-3, "initial_std": 1e-3, "learning_rate": 0.05, "epochs": 40}
    train("bbb", network, **settings)
    for name, mean in network.named_parameters():
        centre = 0 if mean.ndim > 1 else starts[name]
        assert (mean - centre).abs().max() < 0.1, name


# Momentum SGD


def test_momentum_sgd_is_ivon_s_step_without_noise():
    # One minibatch an epoch: nothing is random but the order of the sums.
    training, validation = (
        SimpleNamespace(features=examples.features.double(), labels=examples.labels)
        for examples in (TRAINING, VALIDATION)
    )
    network = nn.Sequential(nn.Flatten(), nn.Linear(30, 3, bias=False)).double()
    weight, momentum = network[1].weight.detach().clone(), 0
    posterior, history = train(
        "sgd", network, training, validation, batch_size=26, epochs=3, learning_rate=0.3, weight_decay=0.1
    )
    for step in (1, 2, 3):
        weight.requires_grad_()
        loss = cross_entropy(training.features.flatten(1) @ weight.T, training.labels)
        assert history["train_loss"][step - 1] == pytest.approx(loss.item(), rel=1e-9)
        momentum = 0.9 * momentum + 0.1 * torch.autograd.grad(loss, weight)[0]
        weight = weight.detach() - 0.3 * (momentum / (1 - 0.9**step) + 0.1 * weight.detach())
    assert history["validation_loss"].idxmin() == 2
    torch.testing.assert_close(posterior.mean["1.weight"], weight, rtol=1e-9, atol=1e-12)


# SWAG


@pytest.mark.parametrize("name", ["readout.weight", "layers.0.raw_leak"])
def test_swag_collects_at_its_own_learning_rate_from_matrices_and_vectors(name):
    network, states = network_of(dropout=0.0), []

    def linear(network, features, labels):  # so that Adam's steps are of the learning rate
        return sum(parameter.sum() for parameter in network.parameters()), network(features)

    train("swag", network, objective=linear, weight_decay=0.0, batch_size=26, epochs=4, swag_from=2,
          after_epoch=lambda row: states.append(network_state(network)[name]))  # fmt: skip
    steps = [float((after - before).abs().mean()) for before, after in itertools.pairwise(states)]
    assert steps == pytest.approx([0.02, 0.01, 0.01], rel=1e-3)


def test_swag_s_moments_are_those_of_the_weights_after_each_epoch():
    network, states = network_of(), []
    posterior, history = train(
        "swag", network, epochs=6, rank=3, after_epoch=lambda row: states.append(network_state(network))
    )
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


def test_statistics_anew_are_those_of_ivon_s_mean_and_nothing_else_changes():
    base = train("ivon")[0]
    found = METHODS["ivon-reestimated"]().derive(network_of(), (base,), TRAINING, VALIDATION, seed=1)
    plain = network_of(dropout=0.0)
    plain.load_state_dict(base.mean)
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = 1.0  # the statistics of the last minibatch, here of all utterances
    plain.train()(TRAINING.features)
    for name, tensor in found.mean.items():
        if "running" in name:
            torch.testing.assert_close(tensor, plain.state_dict()[name], rtol=1e-4, atol=1e-5)
            assert not torch.equal(tensor, base.mean[name])
        elif "num_batches" not in name:
            assert torch.equal(tensor, base.mean[name])
    assert all(torch.equal(found.std[name], std) for name, std in base.std.items())


def test_swag_needs_two_epochs_to_collect_from():
    with pytest.raises(ValueError, match="2 or more epochs after swag_from, not 1"):
        train("swag", epochs=6, swag_from=5)
