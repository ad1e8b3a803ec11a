"""The spiking Bayesian network against its equations, and its trainer against plain PyTorch and itself undisturbed."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import cross_entropy
from toys import TRAINING, VALIDATION, train

from lib import network, posteriors
from lib.methods.families import NoisyNetwork
from lib.networks.activity import firing_rate_penalty
from lib.networks.sbnn import DEVIATIONS, LEAK, StochasticClassifier, signal_to_noise
from lib.neurons.stochastic import SLOPES
from lib.posteriors import MeanFieldGaussian, PointMass, network_state


def network_of(seed=0, **options):
    torch.manual_seed(seed)
    return StochasticClassifier(3, 3, (6, 5), **options)


def perturbed(network):
    """With every parameter somewhere else than where it starts."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def responses_of(network, features):
    with network.recording() as responses:
        network(features)
    return responses


# The network


@pytest.mark.parametrize("recurrent", [True, False])
@pytest.mark.parametrize("deviations", DEVIATIONS)
def test_scores_are_those_of_a_slow_loop_over_the_equations(recurrent, deviations):
    network = perturbed(network_of(recurrent=recurrent, deviations=deviations)).double()
    second = network.layers[1]
    inputs = torch.rand(7, 2, 6, dtype=torch.float64).round()
    forced = torch.rand(7, 2, 5, dtype=torch.float64).round()
    steps, scores = iter(forced), []

    def fire(excess, deviation):
        scores.append(excess / deviation)
        return next(steps)

    response = second.response(inputs, fire)
    assert torch.equal(response.spikes, forced)
    weights = dict(second.named_parameters())
    of_inputs = weights["log_deviation"].exp().expand(5, 7)
    for example in range(2):
        for unit in range(5):
            potential = variance = spike = 0.0
            for step in range(7):
                mean, added = weights["linear.bias"][unit], of_inputs[unit, 6] ** 2
                for index, value in enumerate(inputs[step, example]):
                    mean = mean + weights["gain"][unit] * weights["linear.weight"][unit, index] * value
                    added = added + of_inputs[unit, index] ** 2 * value**2
                if recurrent and step > 0:
                    of_others = weights["recurrent_log_deviation"].exp().expand(5, 5)
                    for other in set(range(5)) - {unit}:
                        value = forced[step - 1, example, other]
                        mean = mean + weights["gain"][unit] * weights["recurrent"][unit, other] * value
                        added = added + of_others[unit, other] ** 2 * value**2
                potential = math.exp(-0.1) * (potential - spike) + mean
                variance = math.exp(-0.2) * variance + added
                spike = forced[step, example, unit]
                torch.testing.assert_close(scores[step][example, unit], (potential - 1) / variance.sqrt())
                torch.testing.assert_close(response.current[step, example, unit], mean)
                ratio = response.variance.expand(-1, -1, 5)[step, example, unit]
                torch.testing.assert_close(ratio, added)


def test_a_spike_squared_has_the_derivative_of_the_spike():
    network = network_of(recurrent=False).double()
    spikes = torch.rand(3, 1, 6, dtype=torch.float64).round().requires_grad_()
    variance = network.layers[1].response(spikes, lambda excess, _: torch.zeros_like(excess)).variance
    (slopes,) = torch.autograd.grad(variance.sum(), spikes)
    torch.testing.assert_close(slopes, torch.full_like(slopes, 0.5**2 / 6))
    features = torch.randn(3, 1, 3, dtype=torch.float64, requires_grad=True)
    variance = network.layers[0].response(features, lambda excess, _: torch.zeros_like(excess)).variance
    torch.testing.assert_close(variance[..., 0], 0.5**2 / 3 * (1 + features.square().sum(dim=-1)))


def test_it_starts_as_settings_known_for_shd_say():
    network = StochasticClassifier(700, 20)
    assert [layer.linear.out_features for layer in network.layers] == [256, 256]
    assert pytest.approx(0.905, abs=5e-4) == LEAK
    for layer, inputs in zip(network.layers, (700, 256), strict=True):
        assert float(layer.log_deviation.detach().exp()) == pytest.approx(0.5 / math.sqrt(inputs))
        assert float(layer.recurrent_log_deviation.detach().exp()) == pytest.approx(0.5 / 16)
        assert layer.linear.weight.abs().max() <= 1 / math.sqrt(inputs)
        assert layer.recurrent.abs().max() <= 1 / 16
        assert layer.gain.eq(1).all()
        assert layer.linear.bias.eq(0).all()
    # Weights, recurrent weights, gains, biases and two deviations of each layer, and the readout.
    trained = sum(parameter.numel() for parameter in network.parameters())
    assert trained == (700 * 256 + 256 * 256 + 2 * 256 + 2) + (2 * 256 * 256 + 2 * 256 + 2) + (256 * 20 + 20)


def test_training_mode_draws_spikes_and_evaluation_mode_does_not():
    network, features = network_of(), VALIDATION.features
    torch.manual_seed(1)
    drawn = network(features)
    assert not torch.equal(network(features), drawn)
    torch.manual_seed(1)
    assert torch.equal(network(features), drawn)
    network.eval()
    before = torch.get_rng_state()
    certain = network(features)
    assert torch.equal(torch.get_rng_state(), before)
    # The deterministic predictions are those of weights without spread.
    network.train()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("log_deviation"):
                parameter.fill_(-50.0)
    torch.testing.assert_close(network(features), certain)


@pytest.mark.parametrize("slope", SLOPES)
def test_gradients_are_finite_where_the_noise_is_tiny_and_where_it_is_huge(slope):
    for deviation in (1e-30, 1e-6, 1e6):
        network = network_of(slope=slope, deviation=deviation)
        cross_entropy(network(TRAINING.features), TRAINING.labels).backward()
        assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_the_auxiliary_loss_is_twice_the_divergence_from_currents_of_mean_zero():
    network = perturbed(network_of())
    responses = responses_of(network, VALIDATION.features)
    expected = 0.0
    for response in responses:
        spread = response.variance.expand_as(response.current).sqrt()
        divergence = kl_divergence(Normal(response.current, spread), Normal(0.0, spread))
        expected += 2 * float(divergence.detach().sum()) / len(VALIDATION.labels)
    assert float(signal_to_noise(responses).detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"slope": "boxcar"}, "unknown slope 'boxcar': choose one of straight-through, trapezoid, relaxed"),
        ({"deviations": "layer"}, "unknown deviations 'layer': choose one of matrix, weight"),
        ({"deviation": 0.0}, "standard deviation above 0, not 0.0"),
        ({"deviation": math.inf}, "standard deviation above 0, not inf"),
    ],
)
def test_what_does_not_fit_is_refused(options, says):
    with pytest.raises(ValueError, match=says):
        network_of(**options)


def test_every_parameter_of_a_layer_has_a_group():
    for layer in network_of().layers:
        assert layer.groups.keys() == {name.partition(".")[0] for name, _ in layer.named_parameters()}


def test_with_kernels_and_without_the_same_spikes_are_drawn(monkeypatch):
    network_, features, found = network_of(), VALIDATION.features, []
    for fast in (network.fast, None):
        monkeypatch.setattr(network, "fast", fast)
        torch.manual_seed(1)
        logits = network_(features)
        found.append((logits.detach(), *torch.autograd.grad(logits.square().sum(), list(network_.parameters()))))
    for with_kernels, without in zip(*found, strict=True):
        torch.testing.assert_close(with_kernels, without, rtol=1e-4, atol=1e-5)


# Training


@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize("deviations", DEVIATIONS)
def test_training_learns_the_toy(slope, deviations):
    network = network_of(slope=slope, deviations=deviations)
    posterior, history = train("sbnn", network, epochs=12, batch_size=6, patience=5)
    assert isinstance(posterior, NoisyNetwork)
    assert history["validation_loss"].min() < 0.5 * math.log(3)
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]


def test_a_step_is_adam_s_on_cross_entropy_the_auxiliary_loss_and_the_penalty():
    network, twin = network_of(), network_of()
    train("sbnn", network, aux_weight=0.01, objective=firing_rate_penalty(0.5), epochs=1, batch_size=26)
    weights = list(twin.parameters())
    optimizer = torch.optim.Adam(weights, lr=0.02)
    with torch.random.fork_rng():
        # The loop's own order: the epoch's seed, then the utterances' order, then the network's noise.
        torch.manual_seed(int(np.random.SeedSequence((3, 0)).generate_state(1)[0]))
        order = torch.randperm(26)
        responses = responses_of(twin, TRAINING.features[order])
    loss = cross_entropy(twin.classify(responses[-1].spikes), TRAINING.labels[order])
    for response in responses:
        loss = loss + 0.01 * (response.current**2 / response.variance).sum() / 26
        rates = response.spikes.mean(dim=(0, 1))
        loss = loss + 0.5 * ((0.01 - rates).clamp(min=0) + (rates - 0.5).clamp(min=0)).sum()
    loss.backward()
    optimizer.step()
    for ours, theirs in zip(network.parameters(), weights, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


# The posterior


def test_the_spread_of_predictions_is_that_of_drawn_weights_where_the_approximation_is_exact():
    # One step and no recurrence: one draw of the weights and one of the spikes are the same thing. Two units, each by
    # its own weights, so that their spikes are independent; the readout's probabilities follow.
    torch.manual_seed(0)
    network = StochasticClassifier(3, 2, (2,), recurrent=False)
    features = torch.randn(1, 1, 3)
    with torch.no_grad():
        network.layers[0].linear.bias.fill_(1.0)
        network.readout.weight.mul_(4)
    state = network_state(network)
    spread = state["layers.0.log_deviation"].exp()
    drawn = posteriors.predict(
        network, NoisyNetwork(PointMass(state)), features.expand(4000, -1, -1), 1, torch.Generator().manual_seed(0)
    )
    std = {name: torch.ones_like(state[name]) * spread for name in ("layers.0.linear.weight", "layers.0.linear.bias")}
    by_weights = posteriors.predict(
        network, MeanFieldGaussian(state, std), features, 600, torch.Generator().manual_seed(1)
    )
    assert by_weights.std(dim=0).min() > 0.1
    torch.testing.assert_close(drawn[0].mean(dim=0), by_weights[:, 0].mean(dim=0), rtol=0, atol=0.03)
    torch.testing.assert_close(drawn[0].std(dim=0), by_weights[:, 0].std(dim=0), rtol=0, atol=0.03)
