"""Readouts: a leaky integral against SciPy's filter, shares of time worked out by hand, and what they are not."""

import math

import pytest
import torch
from scipy.signal import lfilter
from torch.nn.functional import linear

from lib.networks import NetworkSettings, build
from lib.networks.readouts import leaky_integral, softmax_of_potentials, softmax_over_units
from lib.neurons.clamped import BASELINE_LEAKS


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_the_leaky_integral_by_hand():
    # 0.1 of 10, then 0.9 of that and 0.1 of 20, then 0.9 of that.
    current = double(10, 20, 0).reshape(3, 1, 1)
    torch.testing.assert_close(leaky_integral(current, double(0.9)).flatten(), double(1, 2.9, 2.61))


@pytest.mark.parametrize("time", [1, 2, 250])
def test_the_leaky_integral_is_scipy_s_first_order_filter(time):
    current, leaks = torch.randn(time, 4, 3), (0.82, 0.9, 0.96)
    expected = [lfilter([1 - leak], [1, -leak], current[..., unit].numpy(), axis=0) for unit, leak in enumerate(leaks)]
    found = leaky_integral(current, torch.tensor(leaks))
    torch.testing.assert_close(found, torch.stack([*map(torch.from_numpy, expected)], dim=-1), check_dtype=False)


def test_gradients_of_the_leaky_integral_are_those_of_finite_differences():
    current = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(leaky_integral, (current, double(0.82, 0.9, 0.96).requires_grad_()))


def test_the_softmax_of_potentials_by_hand():
    # Potentials of two classes: 0 and log 3, then 0 and (log 3) / 2 + (log 3) / 2.
    current = double(0, 2 * math.log(3), 0, math.log(3)).reshape(2, 1, 2)
    torch.testing.assert_close(softmax_of_potentials(current, double(0.5, 0.5)), double(0.5, 1.5)[None])


def test_the_softmax_over_units_by_hand():
    outputs = double(0, 0, 0, math.log(3)).reshape(2, 1, 2)
    torch.testing.assert_close(softmax_over_units(outputs), double(0.75, 1.25)[None])


def slow(network, train):
    """The baseline's readout of spikes, a step at a time."""
    norm, potential, shares = network.norm, 0, 0
    leak = network.leak.clamp(math.exp(-1 / 5), math.exp(-1 / 25))
    for spikes in train:
        weighted = linear(spikes, network.readout.weight, network.readout.bias)
        normal = norm.weight * (weighted - norm.running_mean) / (norm.running_var + 1e-5).sqrt() + norm.bias
        potential = leak * potential + (1 - leak) * normal
        shares = shares + potential.exp() / potential.exp().sum(dim=1, keepdim=True)
    return shares


@pytest.fixture
def network():
    network = build(NetworkSettings((6, 5), readout="softmax", bias=True), 3, 4).double()
    with torch.no_grad():
        network.norm.running_mean.normal_()
        network.norm.running_var.uniform_(0.5, 2)
        network.norm.weight.uniform_(1, 5)
        network.norm.bias.normal_()
        network.leak.copy_(double(0.1, 0.85, 0.95, 1.2))  # two of them out of bounds
    return network.eval()


@pytest.fixture
def train():
    return (torch.rand(20, 7, 5, dtype=torch.float64) < 0.3).double()


def test_spikes_are_mapped_normalised_and_integrated_before_the_softmax(network, train):
    shares = network.classify(train)
    torch.testing.assert_close(shares, slow(network, train))
    torch.testing.assert_close(shares.sum(dim=1), torch.full((7,), 20.0, dtype=torch.float64))


def test_without_spikes_a_softmax_over_the_units_is_summed_before_the_linear_map():
    network = build(NetworkSettings((6, 5), "gru", readout="softmax"), 3, 4).double().eval()
    with torch.no_grad():
        network.norm.running_mean.normal_()
    outputs = torch.randn(20, 7, 5, dtype=torch.float64)
    units = sum(step.exp() / step.exp().sum(dim=1, keepdim=True) for step in outputs)
    expected = (units @ network.readout.weight.T - network.norm.running_mean) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(network.classify(outputs), expected)


def test_its_leaks_start_spread_over_their_range():
    leak = build(NetworkSettings(readout="softmax"), 3, 1000).leak
    shortest, longest = BASELINE_LEAKS
    assert shortest <= leak.min() < shortest + 0.01
    assert longest - 0.01 < leak.max() <= longest


@pytest.mark.parametrize("kind", ["spiking", "mlp"])
def test_the_rate_readout_is_of_means_over_time(kind):
    network = build(NetworkSettings((6, 5), kind, norm="none"), 3, 4).double().eval()
    train = torch.rand(20, 7, 5, dtype=torch.float64)
    expected = train.sum(dim=0) / 20 @ network.readout.weight.T + network.readout.bias
    torch.testing.assert_close(network.classify(train), expected)
