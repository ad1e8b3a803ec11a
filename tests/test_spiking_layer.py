"""A layer of each neuron: its parameters, their ranges and first values, its norms and bias."""

import pytest
import torch
from torch import nn

from lib import fused, neurons
from lib.networks.spiking import NEURONS, SpikingLayer

RANGES = {
    "leak": neurons.LEAK_RANGE,
    "adaptation_leak": neurons.ADAPTATION_LEAK_RANGE,
    "adaptation_potential": neurons.ADAPTATION_POTENTIAL_RANGE,
    "adaptation_spike": neurons.ADAPTATION_SPIKE_RANGE,
}
OF_LIF = ["linear.weight", "norm.weight", "norm.bias", "leak"]
OF_ADAPTATION = ["adaptation_leak", "adaptation_potential", "adaptation_spike"]
PARAMETERS = {
    "lif": OF_LIF,
    "adlif": OF_LIF + OF_ADAPTATION,
    "rlif": [*OF_LIF, "recurrent"],
    "radlif": [*OF_LIF, *OF_ADAPTATION, "recurrent"],
}


def lively(neuron, dropout=0.0, **options):
    """A layer of four inputs and six units that fire often."""
    layer = SpikingLayer(4, 6, neuron, dropout, **options)
    with torch.no_grad():
        (layer.norm if hasattr(layer.norm, "weight") else layer.linear).weight.mul_(6)
    return layer


@pytest.mark.parametrize("neuron", NEURONS)
def test_parameters_have_their_names_shapes_and_ranges(neuron):
    layer = SpikingLayer(40, 300, neuron, 0.1)
    parameters = dict(layer.named_parameters())
    assert sorted(parameters) == sorted(PARAMETERS[neuron])
    for name in set(RANGES) & set(parameters):
        least, most = RANGES[name]
        drawn, width = parameters[name], most - least
        assert drawn.shape == (300,)
        assert least <= drawn.min() < least + 0.05 * width
        assert most - 0.05 * width < drawn.max() <= most
        # The mean of 300 uniform draws has a standard deviation of a sixtieth of their range.
        assert abs(drawn.mean() - (least + most) / 2) < width / 12
    if "recurrent" in parameters:
        weights = parameters["recurrent"]
        torch.testing.assert_close(weights @ weights.T, torch.eye(300), rtol=0, atol=1e-5)


def test_lif_draws_what_it_always_has():
    torch.manual_seed(3)
    layer = SpikingLayer(5, 7, "lif", 0.1)
    torch.manual_seed(3)
    weight = nn.Linear(5, 7, bias=False).weight
    leak = torch.empty(7).uniform_(*neurons.LEAK_RANGE)
    assert torch.equal(layer.linear.weight, weight)
    assert torch.equal(layer.leak, leak)
    assert isinstance(layer.norm, nn.BatchNorm1d)
    assert layer.norm.momentum == 0.05


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("neuron", NEURONS)
def test_spikes_are_those_of_the_neuron_s_function_on_the_normalised_input(neuron, training):
    layer, inputs = lively(neuron).double().train(training), torch.randn(20, 5, 4, dtype=torch.float64)
    weighted = inputs @ layer.linear.weight.T
    statistics = (None, None) if training else (layer.norm.running_mean, layer.norm.running_var)
    current = nn.functional.batch_norm(weighted.flatten(0, 1), *statistics, training=training).view_as(weighted)
    of_neuron = [getattr(layer, name) for name in ("leak", *PARAMETERS[neuron][4:])]
    spikes = layer(inputs)
    assert spikes.any()
    assert torch.equal(spikes, getattr(neurons, neuron)(6 * current, *of_neuron))


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("neuron", NEURONS)
def test_every_parameter_learns(neuron, bias, norm):
    layer = lively(neuron, 0.2, norm=norm, bias=bias)
    spikes = layer(torch.randn(30, 8, 4))
    assert set(spikes.unique().tolist()) == {0.0, 1.25}
    (spikes * torch.randn_like(spikes)).sum().backward()
    assert (layer.linear.bias is not None) == bias
    for name, parameter in layer.named_parameters():
        assert parameter.grad.isfinite().all(), name
        # The norm over the batch takes away what is the same for all of it.
        assert parameter.grad.any() or (name, norm) == ("linear.bias", "batch"), name


@pytest.mark.parametrize("name", OF_LIF[3:] + OF_ADAPTATION)
def test_parameters_are_held_to_their_ranges(name):
    layer, inputs = lively("radlif"), torch.randn(20, 5, 4)
    least, most = RANGES[name]
    for bound, beyond in ((least, least - 0.5), (most, most + 0.5)):
        with torch.no_grad():
            getattr(layer, name).fill_(bound)
            at_bound = layer(inputs)
            getattr(layer, name).fill_(beyond)
        spikes = layer(inputs)
        assert torch.equal(spikes, at_bound)
        layer.zero_grad()
        spikes.sum().backward()
        assert not getattr(layer, name).grad.any()


@pytest.mark.parametrize("neuron", NEURONS)
def test_spikes_are_dropped_in_training_alone(neuron):
    layer, inputs = lively(neuron, 0.5), torch.randn(20, 5, 4)
    assert set(layer(inputs).unique().tolist()) == {0.0, 2.0}
    assert set(layer.eval()(inputs).unique().tolist()) == {0.0, 1.0}


def test_a_layer_fires_alike_with_kernels_and_without(monkeypatch):
    monkeypatch.setattr(fused, "_kernels", lambda device: None)
    layer, inputs = lively("radlif"), torch.randn(20, 5, 4)
    plain = layer(inputs)
    monkeypatch.undo()
    assert torch.equal(layer(inputs), plain)
