"""Losses along a line, spike by spike, against those of the network itself."""

import numpy as np
import pytest
import torch
from torch import nn
from toys import seed

from lib import landscape, slices
from lib.network import SpikingClassifier, SpikingLayer
from lib.neurons.clamped import clamped
from lib.posteriors import MeanFieldGaussian, network_state, predict

events = pytest.importorskip("lib.fast.events")

ALPHAS = [-1.0, -0.25, 0.0, 0.5, 2.0]


def minibatches(sizes):
    noise = seed(1)
    return [(torch.randn(n, 12, 3, generator=noise, dtype=torch.float64), torch.arange(n) % 4) for n in sizes]


@pytest.mark.parametrize("hidden_sizes", [(6,), (6, 5), (9, 16, 3)])
@pytest.mark.parametrize("part", ["all", "hidden", "readout", "layers.0", "leak"])
@pytest.mark.parametrize("kind", [SpikingLayer, clamped(SpikingLayer)])
def test_spike_by_spike_the_losses_are_those_of_the_network_itself(hidden_sizes, part, kind, monkeypatch):
    network = SpikingClassifier(3, 4, hidden_sizes, layer=kind).double()
    with torch.no_grad():
        for layer in network.layers:
            layer.norm.weight.uniform_(5, 10)
            layer.norm.running_mean.normal_(0, 0.1)
            layer.norm.running_var.uniform_(0.5, 2)
    whole = part in landscape.PARTS
    chosen = landscape.parameters_of(network, part if whole else "all")
    chosen = [(name, tensor) for name, tensor in chosen if whole or part in name]
    direction = {name: 3 * tensor for name, tensor in slices.random_direction(chosen, seed(0)).items()}
    around = MeanFieldGaussian(network_state(network), {n: torch.full_like(t, 0.05) for n, t in chosen})
    line = network, around, direction, ALPHAS, minibatches((70, 4, 1))

    assert slices.fast.serves_lines(network)
    monkeypatch.setattr(events, "ALPHAS_TOGETHER", 2)
    quick = slices.bayesian_losses(*line, [1, 3], seed(1))
    monkeypatch.setattr(slices, "fast", None)
    np.testing.assert_allclose(quick, slices.bayesian_losses(*line, [1, 3], seed(1)), rtol=1e-11)
    assert (np.ptp(quick, axis=1) > 0).all()


def test_single_precision_takes_the_same_steps():
    network = SpikingClassifier(5, 4, (32, 32))
    with torch.no_grad():
        for layer in network.layers:
            layer.norm.weight.fill_(3)
    direction = slices.random_direction(network.named_parameters(), seed(0))
    batches = [(torch.randn(20, 30, 5, generator=seed(1)), torch.arange(20) % 4)]
    line = network, network_state(network), direction, np.linspace(-2, 2, 21), batches
    single = slices.deterministic_loss(*line)
    handle = network.layers[0].register_forward_hook(lambda *_: None)  # a hook must be called: the network itself runs
    assert not slices.fast.serves_lines(network)
    plain = slices.deterministic_loss(*line)
    handle.remove()
    # A potential within rounding of its threshold is the only difference: few, of the 384,000 of a loss.
    np.testing.assert_allclose(single, plain, atol=2e-3 * np.ptp(plain))


def trained(hidden_sizes, weight=6.0):
    """A network in evaluation mode whose units spike at some steps."""
    network = SpikingClassifier(3, 4, hidden_sizes).double().eval()
    with torch.no_grad():
        for layer in network.layers:
            layer.norm.weight.fill_(weight)
            layer.norm.running_mean.normal_(0, 0.1)
            layer.norm.running_var.uniform_(0.5, 2)
    return network


@pytest.mark.parametrize("utterances", [1, 2, 70])
@pytest.mark.parametrize("hidden_sizes", [(6,), (40, 33), (9, 130, 17)])
def test_predictions_spike_by_spike_are_those_of_the_layers(hidden_sizes, utterances, monkeypatch):
    network, features = trained(hidden_sizes), torch.randn(utterances, 21, 3, dtype=torch.float64)
    monkeypatch.setattr(events, "pays", lambda *_: True)
    with torch.no_grad():
        trains = network.hidden_spikes(features)
        assert all(train.any() for train in trains)
        rates = slices.fast.rates(network, features)
        torch.testing.assert_close(rates, trains[-1].mean(dim=0))
        torch.testing.assert_close(network(features), network.classify(trains[-1]))
    assert slices.fast.rates(network, features) is None  # with gradients


def test_samples_of_the_weights_are_each_heard():
    network, features = trained((30, 20)).float(), torch.randn(5, 21, 3)
    around = MeanFieldGaussian(
        network_state(network), {n: torch.full_like(t, 0.3) for n, t in network.named_parameters()}
    )
    found = predict(network, around, features, 6, seed(0))
    for probabilities, state in zip(found, around.draws(6, seed(0)), strict=True):
        network.load_state_dict(state, strict=False)
        expected = network.classify(network.hidden_spikes(features)[-1]).softmax(dim=-1)  # with gradients: by layers
        torch.testing.assert_close(probabilities, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("why", ["it trains", "a part of it trains", "a hook", "no utterance", "too many spikes"])
def test_predictions_go_layer_by_layer_where_spike_by_spike_would_be_wrong_or_slow(why):
    network, features = trained((16, 12)), torch.randn(3, 10, 3, dtype=torch.float64)
    with torch.no_grad():
        if why == "it trains":
            network.train()
        elif why == "a part of it trains":
            network.layers[1].norm.train()
        elif why == "a hook":
            network.layers[0].linear.register_forward_hook(lambda *_: None)
        elif why == "no utterance":
            features = features[:0]
        else:
            network.layers[0].norm.bias.fill_(90.0)
        assert slices.fast.rates(network, features) is None
        assert network(features).shape == (len(features), 4)


def layer_norm(*sizes):
    layer = SpikingLayer(*sizes)
    layer.norm = nn.LayerNorm(layer.outputs)
    return layer


class AnotherNeuron(SpikingLayer):
    """Fires in every step."""

    def spikes(self, current):
        return torch.ones_like(current)


class AnotherReadout(SpikingClassifier):
    def classify(self, train):
        return self.readout(train.amax(dim=0))


@pytest.mark.parametrize(("kind", "layer"), [
    (SpikingClassifier, AnotherNeuron), (SpikingClassifier, layer_norm), (AnotherReadout, SpikingLayer)
])  # fmt: skip
def test_other_networks_are_run_as_they_are(kind, layer, monkeypatch):
    network = kind(3, 4, (6, 5), layer=layer).double()
    assert not slices.fast.serves_lines(network)
    direction = slices.random_direction(network.named_parameters(), seed(0))
    line = network, network_state(network), direction, ALPHAS, minibatches((4, 4))
    losses = slices.deterministic_loss(*line)
    monkeypatch.setattr(slices, "fast", None)
    np.testing.assert_array_equal(losses, slices.deterministic_loss(*line))
