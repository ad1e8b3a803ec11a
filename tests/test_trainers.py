"""The trainers against plain PyTorch, closed forms and themselves undisturbed; on toys of a few neurons."""

import copy
import itertools
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ivon import IVON
from torch import nn
from torch.nn.functional import cross_entropy

from lib import posteriors
from lib.networks import SpikingClassifier, build
from lib.posteriors import LowRankGaussian, MeanFieldGaussian, PointMass, network_state
from lib.trainers import METHODS, ivon, loop, train_map

SETTINGS = {
    "map": {"learning_rate": 0.02, "weight_decay": 1e-4},
    "ivon": {
        "learning_rate": 0.2, "weight_decay": 1e-4, "ess_factor": 5.0, "hess_init": 1.0, "beta2": 0.999,
        "freeze_norm_after": None,
    },
    "bbb": {"learning_rate": 0.02, "alpha": 0.1, "initial_std": 0.05},
    "swag": {"learning_rate": 0.02, "weight_decay": 1e-4, "swag_from": 1, "swag_learning_rate": 0.01, "rank": 2},
}  # fmt: skip
# SWAG ends at a rate of its own, and its result is the last epoch's.
FOLLOWING_VALIDATION = ["map", "ivon", "bbb"]
SCHEDULE = {"epochs": 4, "batch_size": 8, "patience": 1, "seed": 3}


def toy(utterances, seed, num_classes=3):
    """Each class a constant current into an input of its own, in noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(utterances) % num_classes
    features = torch.randn(utterances, 10, num_classes, generator=generator)
    return SimpleNamespace(features=features + 2 * nn.functional.one_hot(labels)[:, None], labels=labels)


TRAINING, VALIDATION = toy(26, seed=1), toy(9, seed=2)


def network_of(seed=0, dropout=0.2):
    torch.manual_seed(seed)
    network = SpikingClassifier(3, 3, (8, 6), dropout=dropout)
    with torch.no_grad():
        for layer in network.layers:  # fire from the first epoch on
            layer.norm.weight.fill_(6)
            layer.norm.bias.fill_(1)
    return network


def train(method, network=None, training=TRAINING, validation=VALIDATION, **changes):
    network = network_of() if network is None else network
    return METHODS[method](network, training, validation, **{**SETTINGS[method], **SCHEDULE, **changes})


def tensors_of(posterior):
    return {f"{kind} of {name}": tensor for kind, state in vars(posterior).items() for name, tensor in state.items()}


def assert_same_outcome(first, second):
    """Posterior and history to the bit; only the seconds may differ."""
    assert type(first[0]) is type(second[0])
    one, two = tensors_of(first[0]), tensors_of(second[0])
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name
    pd.testing.assert_frame_equal(first[1].drop(columns="seconds"), second[1].drop(columns="seconds"), check_exact=True)


def outcomes_equal(first, second):
    return torch.equal(
        *(torch.cat([t.flatten() for t in tensors_of(outcome[0]).values()]) for outcome in (first, second))
    )


@pytest.fixture(params=list(SETTINGS))
def method(request):
    return request.param


# What the methods share


def test_training_learns_the_toy_and_says_how(method):
    posterior, history = train(method, epochs=15, batch_size=6, patience=5)
    families = {"map": PointMass, "ivon": MeanFieldGaussian, "bbb": MeanFieldGaussian, "swag": LowRankGaussian}
    assert type(posterior) is families[method]
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
    assert_same_outcome(outcome, train(method, copy.deepcopy(network_of())))
    assert not outcomes_equal(outcome, train(method, seed=4))


def test_torch_s_own_generator_is_left_alone(method):
    network = network_of()
    before = torch.get_rng_state()
    train(method, network, epochs=3)
    assert torch.equal(torch.get_rng_state(), before)

    def interrupt(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(method, network, after_epoch=interrupt)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("method", FOLLOWING_VALIDATION)
def test_the_best_epoch_is_returned(method, monkeypatch):
    states = []
    network = network_of()
    nll = iter([3.0, 1.0, 2.0, 1.0])  # of two that are level, the first
    monkeypatch.setattr(loop, "_validate", lambda *_: {"validation_loss": next(nll)})
    posterior, history = train(method, network, after_epoch=lambda row: states.append(network_state(network)))
    assert history["validation_loss"].tolist() == [3.0, 1.0, 2.0, 1.0]
    for name, tensor in posterior.mean.items():
        assert torch.equal(tensor, states[1][name]), name
        assert name.startswith("norm") or not torch.equal(tensor, states[3][name]), name


def test_the_recorded_validation_is_that_of_the_returned_posterior(method):
    posterior, history = train(method)
    network = network_of().eval()
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


def test_recorded_firing_rates_are_those_of_evaluation(method):
    network = network_of()
    _, history = train(method, network)
    for layer, spikes in enumerate(network.eval().hidden_spikes(VALIDATION.features), start=1):
        fired, places = int(spikes.sum()), spikes.numel()
        assert history[f"firing_rate_{layer}"].iloc[-1] == pytest.approx(fired / places, rel=1e-6)


def test_recorded_training_figures_are_means_over_the_utterances(method):
    network, correct, losses = network_of(), [], []

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


@pytest.mark.parametrize("method", FOLLOWING_VALIDATION)
@pytest.mark.parametrize("patience", [0, 2])
def test_the_learning_rate_is_halved_once_patience_runs_out(method, monkeypatch, patience):
    # Lower, then never again: of the epochs after the best, `patience` are let pass and one more halves.
    nll = iter([2.0, 1.0] + [1.5] * 6)
    monkeypatch.setattr(loop, "_validate", lambda *_: {"validation_loss": next(nll)})
    _, history = train(method, epochs=8, patience=patience)
    rates = history["learning_rate"] / SETTINGS[method]["learning_rate"]
    assert rates.tolist() == {0: [1, 1, 1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32], 2: [1] * 5 + [1 / 2] * 3}[patience]


# The cost of firing rates out of bounds


def busy():
    """A network that fires more often than every other step."""
    network = network_of(dropout=0.0)
    with torch.no_grad():
        for layer in network.layers:
            layer.norm.bias.fill_(8)
    return network


def test_gradients_are_those_of_cross_entropy_and_of_the_cost_of_rates():
    network, labels = busy(), VALIDATION.labels
    rates = torch.cat([train.mean(dim=(0, 1)) for train in network.hidden_spikes(VALIDATION.features)])
    outside = sum(max(0.01 - rate, 0) + max(rate - 0.5, 0) for rate in rates)
    assert outside > 0
    entropy = cross_entropy(network(VALIDATION.features), labels)
    expected = torch.autograd.grad(entropy + 0.3 * outside, list(network.parameters()))
    loss, logits = loop.gradients(network, VALIDATION.features, labels, 0.3)
    assert loss == pytest.approx(float(entropy.detach()))
    torch.testing.assert_close(logits, network(VALIDATION.features).detach())
    for gradient, parameter in zip(expected, network.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_a_cost_on_rates_brings_them_down(method):
    def rates(network):
        with torch.no_grad():
            return float(
                torch.stack([train.mean() for train in network.eval().hidden_spikes(TRAINING.features)]).mean()
            )

    free, held = busy(), busy()
    train(method, free, epochs=15)
    train(method, held, epochs=15, rate_cost=5.0)
    assert rates(held) < 0.35 < rates(free)


def test_networks_without_spikes_train_and_have_no_rates_to_record_or_bound(method):
    def control():
        torch.manual_seed(0)
        return build(3, 3, (8, 6), network="ligru")

    _, history = train(method, control(), epochs=8, patience=8)
    assert not any(column.startswith("firing_rate") for column in history)
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    with pytest.raises(ValueError, match="without spikes has no firing rates to keep within bounds"):
        train(method, control(), rate_cost=0.1)


@pytest.mark.parametrize("neuron", ["adlif", "rlif", "radlif"])
@pytest.mark.parametrize("readout", ["rate", "softmax"])
def test_other_neurons_and_the_other_readout_train(method, neuron, readout):
    torch.manual_seed(0)
    network = build(3, 3, (8, 6), neuron=neuron, readout=readout)
    _, history = train(method, network, epochs=6, patience=6)
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]


# Interruption


@pytest.mark.parametrize("interrupted_after", [1, 2, 3])
def test_a_resumed_run_ends_in_the_numbers_of_an_undisturbed_one(method, interrupted_after, tmp_path):
    changes = {"freeze_norm_after": 2} if method == "ivon" else {}
    expected = train(method, **changes)
    checkpoint = tmp_path / "run" / "checkpoint.pt"

    def interrupt(row):
        if row["epoch"] == interrupted_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(method, checkpoint=checkpoint, after_epoch=interrupt, **changes)
    seen = []
    # A network of other weights: what is resumed comes from the checkpoint alone.
    resumed = train(
        method, network_of(seed=77), checkpoint=checkpoint, after_epoch=lambda row: seen.append(row["epoch"]), **changes
    )
    assert seen == list(range(interrupted_after + 1, 5))
    assert_same_outcome(resumed, expected)
    assert [entry.name for entry in checkpoint.parent.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("method", FOLLOWING_VALIDATION)
@pytest.mark.parametrize("interrupted_after", [1, 2, 3, 4])
def test_resuming_remembers_the_best_epoch_and_the_patience_used_up(method, interrupted_after, tmp_path, monkeypatch):
    def scripted():  # the first epoch is the best, and then the rate is halved after every second
        nll = iter([1.0, 2.0, 3.0, 2.5, 2.0, 4.0])
        monkeypatch.setattr(loop, "_validate", lambda *_: {"validation_loss": next(nll)})

    def interrupt(row):
        if row["epoch"] == interrupted_after:
            raise KeyboardInterrupt

    scripted()
    expected = train(method, epochs=6)
    rate = SETTINGS[method]["learning_rate"]
    assert expected[1]["learning_rate"].tolist() == [rate, rate, rate, rate / 2, rate / 2, rate / 4]
    scripted()
    with pytest.raises(KeyboardInterrupt):
        train(method, checkpoint=tmp_path / "checkpoint.pt", epochs=6, after_epoch=interrupt)
    assert_same_outcome(train(method, network_of(77), checkpoint=tmp_path / "checkpoint.pt", epochs=6), expected)


def test_an_epoch_interrupted_half_way_is_run_again_from_its_start(method, tmp_path):
    expected = train(method)
    checkpoint, passes = tmp_path / "checkpoint.pt", []

    def interrupt(*_):
        passes.append(1)
        if len(passes) == 10:  # each epoch trains three minibatches and validates with up to four samples
            raise KeyboardInterrupt

    network = network_of()
    network.readout.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(method, network, checkpoint=checkpoint)
    assert checkpoint.exists()
    assert_same_outcome(train(method, checkpoint=checkpoint), expected)


def test_a_finished_run_is_not_trained_further(method, tmp_path):
    expected = train(method, checkpoint=tmp_path / "checkpoint.pt")

    def trained(row):
        raise AssertionError("an epoch was trained")

    again = train(method, network_of(77), checkpoint=tmp_path / "checkpoint.pt", after_epoch=trained)
    assert_same_outcome(again, expected)
    assert again[1]["seconds"].equals(expected[1]["seconds"])


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(method, tmp_path, monkeypatch):
    checkpoint = tmp_path / "checkpoint.pt"
    write, written = Path.write_bytes, []

    def full_disk(path, content):
        write(path, content[: len(content) if len(written) < 2 else 4])
        if len(written) == 2:
            raise OSError("No space left on device")
        written.append(path)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        train(method, checkpoint=checkpoint)
    monkeypatch.undo()
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert_same_outcome(train(method, checkpoint=checkpoint), train(method))


# Divergence and too little data


def test_a_loss_that_is_not_a_number_stops_with_a_sentence(method, tmp_path):
    network, checkpoint = network_of(), tmp_path / "checkpoint.pt"

    def spoil(row):
        if row["epoch"] == 2:
            network.readout.bias.data[0] = math.nan

    with pytest.raises(FloatingPointError, match=r"^training diverged in epoch 3 \(loss nan\): lower learning_rate$"):
        train(method, network, checkpoint=checkpoint, after_epoch=spoil)
    # The checkpoint is that of the last whole epoch.
    stored = torch.load(checkpoint, weights_only=True)
    assert [row["epoch"] for row in stored["history"]] == [1, 2]
    assert stored["network"]["readout.bias"].isfinite().all()


def test_hidden_weights_that_are_not_numbers_stop_with_a_sentence(method):
    # Neurons whose potential is not a number stay silent, so that the loss alone would not tell.
    network = network_of()

    def spoil(row):
        network.layers[0].linear.weight.data[0] = math.nan

    # The prior of empirical Bayes then spoils the other weights, and with them the loss.
    what = r"loss nan" if method == "bbb" else r"weights .*"
    with pytest.raises(FloatingPointError, match=rf"^training diverged in epoch 2 \({what}\): lower learning_rate$"):
        train(method, network, after_epoch=spoil)


def test_a_loss_beyond_return_stops_with_a_sentence(method):
    with pytest.raises(FloatingPointError, match=r"training diverged in epoch \d \(loss \S+\): lower learning_rate"):
        train(method, learning_rate=1e5, epochs=10)


@pytest.mark.parametrize(("utterances", "validating"), [(1, 9), (26, 0)])
def test_too_few_utterances_are_counted_out(method, utterances, validating):
    def first(examples, count):
        return SimpleNamespace(features=examples.features[:count], labels=examples.labels[:count])

    message = f"2 or more utterances and 1 or more to validate on; here are {utterances} and {validating}"
    with pytest.raises(ValueError, match=message):
        train(method, training=first(TRAINING, utterances), validation=first(VALIDATION, validating))


class Rates(nn.Module):
    """A stand-in for a spiking network: it remembers which utterances were in each minibatch."""

    def __init__(self):
        super().__init__()
        self.readout = nn.Linear(1, 2)
        self.minibatches = []

    def hidden_spikes(self, features):
        return [features.transpose(0, 1)]

    def forward(self, features):
        if self.training:
            self.minibatches.append(features[:, 0, 0].long().tolist())
        return self.readout(features.mean(dim=1) / 1000)


@settings(max_examples=40)
@given(utterances=st.integers(2, 60), batch_size=st.integers(2, 20), seed=st.integers(0, 9))
def test_minibatches_take_every_utterance_once_and_never_one_alone(utterances, batch_size, seed):
    numbers = torch.arange(utterances)
    examples = SimpleNamespace(features=numbers[:, None, None].float(), labels=numbers % 2)
    network = Rates()
    train_map(
        network, examples, examples, learning_rate=1e-3, weight_decay=0.0, epochs=2, batch_size=batch_size,
        patience=1, seed=seed,
    )  # fmt: skip
    count = len(network.minibatches) // 2
    epochs = [list(itertools.chain(*batches)) for batches in (network.minibatches[:count], network.minibatches[count:])]
    assert [sorted(order) for order in epochs] == [list(range(utterances))] * 2
    assert utterances < 10 or epochs[0] != epochs[1]
    sizes = {len(batch) for batch in network.minibatches}
    assert min(sizes) >= min(batch_size, utterances)
    assert max(sizes) < 2 * batch_size
    assert max(sizes) - min(sizes) <= 1


# Maximum a posteriori


def in_double(examples):
    return SimpleNamespace(features=examples.features.double(), labels=examples.labels)


def test_map_is_plain_adam_on_the_cross_entropy():
    # One minibatch an epoch, no dropout: nothing is random but the order of the sums.
    training, validation = in_double(TRAINING), in_double(VALIDATION)
    network = network_of(dropout=0.0).double()
    plain = copy.deepcopy(network).train()
    posterior, history = train(
        "map", network, training, validation, batch_size=26, epochs=3, learning_rate=0.01, weight_decay=0.1
    )
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.01, weight_decay=0.1)
    for epoch in range(3):
        loss = cross_entropy(plain(training.features), training.labels)
        assert history["train_loss"][epoch] == pytest.approx(loss.item(), rel=1e-9)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert history["validation_loss"].idxmin() == 2
    for name, tensor in network_state(plain).items():
        torch.testing.assert_close(posterior.mean[name], tensor, rtol=1e-7, atol=1e-7)


# IVON


@pytest.fixture
def optimizers(monkeypatch):
    """The optimisers that train_ivon makes, first to last."""
    made = []

    class Watched(IVON):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            made.append(self)

    monkeypatch.setattr(ivon, "IVON", Watched)
    return made


def test_the_spread_at_the_start_is_the_closed_form():
    # With beta2 = 1 the Hessian stays at hess_init: 1 / sqrt(5 * 20 * (0.75 + 0.25)) = 0.1 for every weight.
    training = toy(20, seed=1)
    posterior, _ = train("ivon", training=training, hess_init=0.75, weight_decay=0.25, beta2=1.0)
    assert posterior.std.keys() == dict(network_of().named_parameters()).keys()
    for name, std in posterior.std.items():
        assert std.shape == posterior.mean[name].shape
        torch.testing.assert_close(std, torch.full_like(std, 0.1))


def test_the_spread_is_equation_11_of_the_optimiser_s_hessian(optimizers):
    network = network_of()
    posterior, _ = train("ivon", network, epochs=1)
    hess = optimizers[0].param_groups[0]["hess"].double().numpy()
    assert hess.std() > 1e-4  # it has moved, and not by the same everywhere
    expected = 1 / np.sqrt(5 * 26 * (hess + 1e-4))
    std = np.concatenate([posterior.std[name].flatten() for name, _ in network.named_parameters()])
    np.testing.assert_allclose(std, expected, rtol=1e-6)
    assert all(torch.equal(posterior.mean[name], parameter) for name, parameter in network.named_parameters())


def test_resuming_restores_the_step_count(optimizers, tmp_path):
    def interrupt(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("ivon", checkpoint=tmp_path / "checkpoint.pt", after_epoch=interrupt)
    assert optimizers[0].current_step == 6  # 26 utterances in minibatches of 8 or 9: three an epoch
    train("ivon", checkpoint=tmp_path / "checkpoint.pt")
    assert optimizers[1].current_step == 12


def statistics(state):
    return {name: tensor for name, tensor in state.items() if "running" in name}


@pytest.mark.parametrize("method", ["map", "ivon"])
@pytest.mark.parametrize("frozen_after", [1, 2, None])
def test_running_statistics_stop_after_the_named_epoch_and_weights_do_not(frozen_after, method):
    network, states = network_of(), []
    train(
        method, network, freeze_norm_after=frozen_after, after_epoch=lambda row: states.append(network_state(network))
    )
    for epoch, (before, after) in enumerate(itertools.pairwise(states), start=1):
        frozen = frozen_after is not None and epoch >= frozen_after
        for name, tensor in statistics(before).items():
            assert torch.equal(tensor, after[name]) == frozen, (epoch, name)
        assert not torch.equal(before["readout.weight"], after["readout.weight"])


def test_frozen_norms_evaluate_while_the_network_trains(monkeypatch):
    network, modes, step = network_of(), [], IVON.step

    def watched(self, *arguments):
        modes.append((network.training, network.norm.training, network.layers[0].norm.training))
        return step(self, *arguments)

    monkeypatch.setattr(IVON, "step", watched)
    train("ivon", network, epochs=2, freeze_norm_after=1)
    assert modes == [(True, True, True)] * 3 + [(True, False, False)] * 3


def linear_model():
    model = nn.Linear(3, 2).double()
    optimizer = IVON(model.parameters(), lr=0.1, ess=50.0, hess_init=0.5, weight_decay=0.1)
    return model, optimizer


def weights(model):
    return torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])


def test_sampled_weights_have_the_posterior_s_spread_about_the_mean():
    model, optimizer = linear_model()
    mean, std = weights(model), ivon.gaussian(model, optimizer).std
    inputs = torch.ones(4, 3, dtype=torch.float64)
    torch.manual_seed(8)
    with ivon.sampled_weights(optimizer):
        sampled = weights(model)
        model(inputs).sum().backward()
    torch.manual_seed(8)
    noise = torch.randn(8, dtype=torch.float64)
    expected = mean + torch.cat([std["weight"].flatten(), std["bias"]]) * noise
    torch.testing.assert_close(sampled, expected)
    torch.testing.assert_close(std["bias"], torch.full((2,), (50 * 0.6) ** -0.5, dtype=torch.float64))
    assert torch.equal(weights(model), mean)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_the_mean_is_back_whatever_is_raised_between(error):
    model, optimizer = linear_model()
    mean = weights(model)
    sampled = []

    def interrupted():
        with ivon.sampled_weights(optimizer):
            sampled.append(weights(model))
            raise error

    with pytest.raises(error):
        interrupted()
    assert not torch.equal(sampled[0], mean)
    assert torch.equal(weights(model), mean)
    with ivon.sampled_weights(optimizer):  # and training can go on
        model(torch.ones(4, 3, dtype=torch.float64)).square().sum().backward()
    optimizer.step()
    assert weights(model).isfinite().all()


def test_the_mean_is_back_where_a_parameter_had_no_gradient():
    model, optimizer = linear_model()
    mean = weights(model)
    with pytest.raises(AttributeError), ivon.sampled_weights(optimizer):
        pass  # no backward pass: ivon-opt then fails on its way out
    assert torch.equal(weights(model), mean)


def test_an_interrupted_step_leaves_the_network_at_its_mean():
    network = network_of()
    before = network_state(network)

    def interrupt(*_):
        raise KeyboardInterrupt

    network.readout.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        train("ivon", network)
    after = network_state(network)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items() if "running" not in name)


def test_ivon_finds_the_known_posterior_of_a_bayesian_linear_regression():
    # y = X w + noise of variance s2, prior N(0, 1 / (N wd)): the posterior has the precision P = X'X / s2 + N wd I
    # and the mean P^-1 X'y / s2; the closest factorised Gaussian has that mean and the variances 1 / P_jj.
    generator = torch.Generator().manual_seed(5)
    count, variance, decay = 40, 0.25, 0.05
    inputs = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    inputs[:, 1] += 0.5 * inputs[:, 0]
    targets = inputs @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    targets += variance**0.5 * torch.randn(count, generator=generator, dtype=torch.float64)
    design, response = inputs.numpy(), targets.numpy()
    precision = design.T @ design / variance + count * decay * np.eye(3)
    mean = np.linalg.solve(precision, design.T @ response / variance)
    std = 1 / np.sqrt(np.diag(precision))

    model = nn.Linear(3, 1, bias=False).double()
    optimizer = IVON(model.parameters(), lr=0.02, ess=count, hess_init=1.0, beta2=0.998, weight_decay=decay)
    means, stds = [], []
    for step in range(2_000):
        optimizer.zero_grad()
        with ivon.sampled_weights(optimizer):
            loss = (model(inputs).squeeze(-1) - targets).square().mean() / (2 * variance)
            loss.backward()
        optimizer.step()
        if step >= 1_000:
            posterior = ivon.gaussian(model, optimizer)
            means.append(posterior.mean["weight"].flatten().numpy())
            stds.append(posterior.std["weight"].flatten().numpy())
    # The estimates wander about the answer; their mean over the second half comes within a tenth of it.
    np.testing.assert_array_less(np.abs(np.mean(means, axis=0) - mean), 0.1 * std)
    np.testing.assert_allclose(np.mean(stds, axis=0), std, rtol=0.1)


def test_predicting_from_the_ivon_posterior_uses_its_spread():
    posterior, _ = train("ivon", ess_factor=0.5)
    predicted = posteriors.predict(network_of(), posterior, VALIDATION.features, 2, torch.Generator().manual_seed(1))
    assert not torch.equal(predicted[0], predicted[1])


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path):
    checkpoint = tmp_path / "checkpoint.pt"
    train("map", checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"checkpoint\.pt is damaged; delete it"):
        train("map", checkpoint=checkpoint)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_on_a_gpu_ends_in_a_posterior_on_the_cpu(method):
    network = network_of().cuda()
    posterior, _ = train(method, network=network, epochs=3)
    assert all(tensor.device.type == "cpu" for tensor in posterior.mean.values())
    predicted = posteriors.predict(network, posterior, VALIDATION.features, 2, torch.Generator().manual_seed(0))
    assert predicted.device.type == "cpu"
