"""Losses along a line, spike by spike, against those of the network itself."""

import numpy as np
import pytest
import torch
from torch import nn
from toys import seed

from lib import landscape, slices
from lib.network import SpikingClassifier, SpikingLayer
from lib.posteriors import MeanFieldGaussian, network_state

events = pytest.importorskip("lib.fast.events")

ALPHAS = [-1.0, -0.25, 0.0, 0.5, 2.0]


def minibatches(sizes):
    noise = seed(1)
    return [(torch.randn(n, 12, 3, generator=noise, dtype=torch.float64), torch.arange(n) % 4) for n in sizes]


@pytest.mark.parametrize("hidden_sizes", [(6,), (6, 5), (9, 16, 3)])
@pytest.mark.parametrize("part", ["all", "hidden", "readout", "layers.0", "leak"])
def test_spike_by_spike_the_losses_are_those_of_the_network_itself(hidden_sizes, part, monkeypatch):
    network = SpikingClassifier(3, 4, hidden_sizes).double()
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
