"""The core's trainers against plain PyTorch and closed forms; what all methods share is in ``test_methods``."""

import copy
import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ivon import IVON
from torch import nn
from torch.nn.functional import cross_entropy
from toys import TRAINING, VALIDATION, assert_same_outcome, network_of, train

from lib import trainers
from lib.networks.activity import firing_rate_penalty
from lib.posteriors import network_state
from lib.trainers import gaussian, sampled_weights, train_map


class Remembering(nn.Module):
    """A network that remembers which utterances were in each minibatch."""

    def __init__(self):
        super().__init__()
        self.readout = nn.Linear(1, 2)
        self.minibatches = []

    def forward(self, features):
        if self.training:
            self.minibatches.append(features[:, 0, 0].long().tolist())
        return self.readout(features.mean(dim=1) / 1000)


@settings(max_examples=40)
@given(utterances=st.integers(2, 60), batch_size=st.integers(2, 20), seed=st.integers(0, 9))
def test_minibatches_take_every_utterance_once_and_never_one_alone(utterances, batch_size, seed):
    numbers = torch.arange(utterances)
    examples = SimpleNamespace(features=numbers[:, None, None].float(), labels=numbers % 2)
    network = Remembering()
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


def test_the_firing_rate_is_that_of_utterances_from_all_over_the_validation_part(monkeypatch):
    monkeypatch.setattr(trainers, "FIRING_RATE_UTTERANCES", 4)
    network, heard = network_of(), []
    spikes = network.hidden_spikes
    monkeypatch.setattr(network, "hidden_spikes", lambda features: heard.append(features) or spikes(features))
    train("map", network, epochs=1)
    assert torch.equal(heard[-1], VALIDATION.features[[0, 3, 6]])


def linear_network():
    return nn.Sequential(nn.Flatten(), nn.Linear(30, 3, bias=False)).double()


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
    matrices, vectors = (
        [one for one in plain.parameters() if (one.ndim > 1) == is_matrix] for is_matrix in (True, False)
    )
    optimizer = torch.optim.Adam([{"params": matrices, "weight_decay": 0.1}, {"params": vectors}], lr=0.01)
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

    monkeypatch.setattr(trainers, "IVON", Watched)
    return made


def test_the_spread_is_equation_11_of_the_optimiser_s_hessian(optimizers):
    network = network_of()
    posterior, _ = train("ivon", network, epochs=1)
    assert posterior.std.keys() == dict(network.named_parameters()).keys()
    names = {parameter: name for name, parameter in network.named_parameters()}
    for group, decay in zip(optimizers[0].param_groups, (1e-4, 0), strict=True):
        hess = group["hess"].double().numpy()
        assert hess.std() > 1e-4  # it has moved, and not by the same everywhere
        assert group["weight_decay"] == decay
        std = np.concatenate([posterior.std[names[parameter]].flatten() for parameter in group["params"]])
        np.testing.assert_allclose(std, 1 / np.sqrt(5 * 26 * (hess + decay)), rtol=1e-6)
    assert all(torch.equal(posterior.mean[name], parameter) for name, parameter in network.named_parameters())


def test_a_step_takes_the_mean_over_its_draws_and_at_beta2_of_1_the_curvature_stays(optimizers):
    network, training = linear_network(), in_double(TRAINING)
    start, gradients = network[1].weight.detach().clone(), []

    def remembering(network, features, labels):
        loss = cross_entropy(network(features), labels)
        gradients.append(torch.autograd.grad(loss, network[1].weight, retain_graph=True)[0])
        return loss, network(features)

    posterior, _ = train(
        "ivon", network, training, in_double(VALIDATION), batch_size=26, epochs=1, draws=3, objective=remembering,
        learning_rate=0.2, weight_decay=0.1, ess_factor=5.0, hess_init=0.5, beta2=1.0,
    )  # fmt: skip
    assert len(gradients) == 3
    assert not torch.equal(gradients[0], gradients[1])
    expected = start - 0.2 * (sum(gradients) / 3 + 0.1 * start)
    torch.testing.assert_close(posterior.mean["1.weight"], expected, rtol=1e-9, atol=1e-12)
    assert all((group["hess"] == 0.5).all() for group in optimizers[0].param_groups)


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


def test_a_parameter_s_deviation_follows_its_own_curvature():
    """The loss is quadratic, and the curvature by each parameter is one that no other has."""
    network = network_of(dropout=0.0)
    numbers = {name: 3.0 + index for index, (name, _) in enumerate(network.named_parameters())}
    starts = network_state(network)

    def quadratic(network, features, labels):
        far = [
            number * (one - starts[name]).square().sum() / 2
            for (name, one), number in zip(network.named_parameters(), numbers.values(), strict=True)
        ]
        return sum(far), network(features)

    posterior, _ = train(
        "ivon",
        network,
        objective=quadratic,
        learning_rate=1e-6,
        beta2=0.98,
        epochs=150,
        hess_init=6.0,
        weight_decay=0.5,
    )
    for name, number in numbers.items():
        decay = 0.5 if posterior.mean[name].ndim > 1 else 0.0
        found = 1 / (5 * 26 * posterior.std[name].double().square()) - decay
        assert float(found.mean()) == pytest.approx(number, abs=0.45 + 3 / found.numel() ** 0.5), name


@pytest.mark.parametrize("method", ["map", "swag", "ivon"])
def test_matrices_decay_and_gains_leaks_and_biases_do_not(method):
    network = network_of()
    before = network_state(network)

    def nothing(network, features, labels):
        return sum(0 * parameter.sum() for parameter in network.parameters()), network(features)

    train(method, network, objective=nothing, weight_decay=0.1)
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            assert parameter.norm() < 0.99 * before[name].norm(), name
        else:
            assert torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("method", ["map", "ivon"])
def test_leaks_learn_at_a_rate_of_their_own(method):
    begun = network_state(network_of())

    def moved(leak_rate):
        network = network_of(dropout=0.0)
        settings = {"epochs": 1, "batch_size": 26, "freeze_norm_after": None}  # a single step
        own = {"learning_rate": 1.0, "ess_factor": 1e9, "hess_init": 1.0, "beta2": 1.0}  # next to no noise
        given = settings | (own if method == "ivon" else {})
        posterior, _ = train(method, network, leak_rate=leak_rate, **given)
        return {name: posterior.mean[name] - begun[name] for name, _ in network.named_parameters()}

    plain, faster, still = moved(1.0), moved(8.0), moved(0.0)
    for name, move in plain.items():
        expected = 8 * move if name.endswith("leak") else move
        torch.testing.assert_close(faster[name], expected, rtol=1e-3, atol=1e-6)
        assert still[name].any() != name.endswith("leak")
        assert move.any()


@pytest.mark.parametrize("part", ["readout.bias", "readout.weight"])
@pytest.mark.parametrize("method", ["map", "ivon"])
def test_vectors_or_matrices_can_learn_alone(method, part):
    network = network_of()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name == part)
    posterior, _ = train(method, network)
    assert not torch.equal(posterior.mean[part], network_state(network_of())[part])
    assert method == "map" or list(posterior.std) == [part]


def linear_model():
    model = nn.Linear(3, 2).double()
    optimizer = IVON(model.parameters(), lr=0.1, ess=50.0, hess_init=0.5, weight_decay=0.1)
    return model, optimizer


def weights(model):
    return torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])


def test_sampled_weights_have_the_posterior_s_spread_about_the_mean():
    model, optimizer = linear_model()
    mean, std = weights(model), gaussian(model, optimizer).std
    inputs = torch.ones(4, 3, dtype=torch.float64)
    torch.manual_seed(8)
    with sampled_weights(optimizer):
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
        with sampled_weights(optimizer):
            sampled.append(weights(model))
            raise error

    with pytest.raises(error):
        interrupted()
    assert not torch.equal(sampled[0], mean)
    assert torch.equal(weights(model), mean)
    with sampled_weights(optimizer):  # and training can go on
        model(torch.ones(4, 3, dtype=torch.float64)).square().sum().backward()
    optimizer.step()
    assert weights(model).isfinite().all()


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


# What stands still, and what cannot be trained on


@pytest.mark.parametrize("method", ["map", "ivon", "bbb", "swag"])
def test_frozen_parameters_stand_still_and_are_certain(method):
    network = network_of()
    frozen = [network.layers[0].linear.weight, *network.readout.parameters()]
    for parameter in frozen:
        parameter.requires_grad_(False)
    before = [parameter.clone() for parameter in frozen]
    posterior, _ = train(method, network)
    sample = posterior.sample(torch.Generator().manual_seed(0))
    for name, was in zip(("layers.0.linear.weight", "readout.weight", "readout.bias"), before, strict=True):
        assert torch.equal(sample[name], was), name
    assert all(torch.equal(parameter, was) for parameter, was in zip(frozen, before, strict=True))
    assert not torch.equal(sample["layers.1.linear.weight"], network_of().layers[1].linear.weight)
    with pytest.raises(ValueError, match="no parameter of the network requires a gradient"):
        train(method, network.requires_grad_(False))


def test_a_parameter_without_an_effect_is_left_alone_by_adam_and_named_by_ivon():
    network = network_of()
    network.extra = nn.Parameter(torch.ones(3))
    posterior, _ = train("map", network)
    assert torch.equal(posterior.mean["extra"], torch.ones(3))
    with pytest.raises(ValueError, match=r"does not depend on 'extra': set its requires_grad to False"):
        train("ivon", network)


@pytest.mark.parametrize("method", ["map", "ivon"])
def test_coarse_numbers_are_trained_in_or_named(method):
    _, history = train(method, network_of().bfloat16())
    assert history["train_loss"].iloc[-1] < 1.2
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, history = train(method, network_of())
    assert history["train_loss"].iloc[-1] < 1.2
    with pytest.raises(ValueError, match=r"float16 is too coarse to train in"):
        train(method, network_of().half())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite_are_named_and_not_the_learning_rate(value):
    broken = SimpleNamespace(features=TRAINING.features.clone(), labels=TRAINING.labels)
    broken.features[3, 2, 1] = value
    with pytest.raises(FloatingPointError, match="training utterances whose features are not finite"):
        train("map", training=broken)
    with pytest.raises(ValueError, match="utterances whose features are not finite"):
        train("map", validation=broken)


@pytest.mark.parametrize("penalised", [False, True])
def test_labels_beyond_the_classes_are_named_and_small_types_are_taken(penalised):
    how = {"objective": firing_rate_penalty(0.1)} if penalised else {}
    for labels in (TRAINING.labels + 1, TRAINING.labels - 100):
        with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2"):
            train("map", training=SimpleNamespace(features=TRAINING.features, labels=labels), **how)
    small = SimpleNamespace(features=TRAINING.features, labels=TRAINING.labels.to(torch.uint8))
    assert_same_outcome(train("map", training=small, **how), train("map", **how))


def test_training_without_gradients_is_refused():
    for without in (torch.no_grad, torch.inference_mode):
        with without(), pytest.raises(ValueError, match="leave no_grad and inference_mode"):
            train("map", network_of())
        network = without()(network_of)()
        if any(parameter.is_inference() for parameter in network.parameters()):
            with pytest.raises(ValueError, match="leave no_grad and inference_mode"):
                train("map", network)


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path):
    checkpoint = tmp_path / "checkpoint.pt"
    train("map", checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"checkpoint\.pt is damaged; delete it"):
        train("map", checkpoint=checkpoint)
