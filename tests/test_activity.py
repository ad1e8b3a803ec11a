"""Rates and operations of networks, counted by hand and by loops over the spikes."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

from lib.networks import NetworkSettings, activity, build
from lib.networks.activity import Operations, firing_rate_penalty, rates_out_of_bounds
from lib.posteriors import network_state


def firing(dropout=0.1, **chosen):
    network = build(NetworkSettings((6, 5), **chosen), 3, 4, dropout).eval()
    with torch.no_grad():
        for layer in network.layers:
            layer.norm.weight.uniform_(5, 10)
            layer.norm.bias.uniform_(0, 2)
    return network


def measured(network, features):
    return activity.activity(network, network_state(network), features)


def test_rates_out_of_bounds_by_hand():
    # Rates of 0, 1/2, 1 and 3/4: 0.01 too low, none, 1/2 and 1/4 too high.
    first = torch.tensor([[[0.0, 1.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]])
    second = torch.tensor([[[1.0, 1.0], [1.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]])
    assert float(rates_out_of_bounds([first, second])) == pytest.approx(0.01 + 0.5 + 0.25)
    assert float(rates_out_of_bounds([first, second], low=0.6, high=1.0)) == pytest.approx(0.6 + 0.1)


def test_the_penalty_pushes_each_unit_into_its_bounds():
    train = torch.tensor([[[0.0, 0.5, 1.0]], [[0.0, 0.0, 1.0]]], requires_grad=True)
    rates_out_of_bounds([train]).backward()
    assert train.grad.tolist() == [[[-0.5, 0, 0.5]]] * 2


def test_the_objective_is_cross_entropy_and_the_penalty():
    network, features, labels = firing().train(), torch.randn(7, 12, 3), torch.arange(7) % 4
    network.dropout.p = 0.0
    for layer in network.layers:
        layer.dropout = 0.0
        torch.nn.init.constant_(layer.norm.bias, 8)  # so that units fire more often than every other step
    rates = torch.cat([train.mean(dim=(0, 1)) for train in network.hidden_spikes(features)])
    outside = sum(max(0.01 - rate, 0) + max(rate - 0.5, 0) for rate in rates)
    assert outside > 0
    loss, logits = firing_rate_penalty(0.3)(network, features, labels)
    torch.testing.assert_close(logits, network(features))
    torch.testing.assert_close(loss, cross_entropy(logits, labels) + 0.3 * outside)


def test_a_network_without_spikes_has_no_rates_to_penalise():
    network = build(NetworkSettings((6, 5), "gru"), 3, 4)
    with pytest.raises(ValueError, match="without spikes has no firing rates to penalise"):
        firing_rate_penalty(0.1)(network, torch.randn(7, 12, 3), torch.arange(7) % 4)


@pytest.mark.parametrize("neuron", ["lif", "rlif"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_every_spike_is_counted_where_it_goes(neuron, bidirectional):
    network, features = firing(neuron=neuron, bidirectional=bidirectional), torch.randn(7, 12, 3)
    directions = 2 if bidirectional else 1
    first, second = (int(train.sum()) for train in network.hidden_spikes(features))
    assert first
    assert second
    # Into each of the next layer's units, in each direction; back to all others of its own; and a count of rates.
    additions = first * 5 * directions + second + (first * 5 + second * 4 if neuron == "rlif" else 0)
    found = measured(network, features)
    assert found["additions"] == pytest.approx(additions / 7)
    assert found["multiply_accumulates"] == 12 * directions * 3 * 6 + directions * 5 * 4
    assert found["synaptic_operations"] == found["additions"] + found["multiply_accumulates"]
    assert found["spikes"] == pytest.approx((first + second) / 7)
    assert found["firing_rate_1"] == pytest.approx(first / (7 * 12 * 6 * directions))
    assert found["firing_rate_2"] == pytest.approx(second / (7 * 12 * 5 * directions))
    assert found["firing_rate"] == pytest.approx((first + second) / (7 * 12 * 11 * directions))
    assert found["parameters"] == sum(parameter.numel() for parameter in network.parameters())


def test_features_that_are_spikes_themselves_are_added_and_not_multiplied():
    network = firing(readout="softmax")
    features = torch.randint(0, 3, (7, 12, 3), dtype=torch.uint8)
    first, second = (int(train.sum()) for train in network.hidden_spikes(features.float()))
    found = measured(network, features)
    assert found["additions"] == pytest.approx((int(features.sum()) * 6 + first * 5 + second * 4) / 7)
    assert found["multiply_accumulates"] == 0


@pytest.mark.parametrize(
    ("chosen", "a_step"),
    [
        ({"network": "mlp"}, 3 * 6 + 6 * 5),
        ({"network": "rnn"}, 3 * 6 + 6 * 6 + 6 * 5 + 5 * 5),
        ({"network": "ligru"}, 2 * (3 * 6 + 6 * 6 + 6 * 5 + 5 * 5)),
        ({"network": "gru"}, 3 * (3 * 6 + 6 * 6 + 6 * 5 + 5 * 5)),
        ({"network": "gru", "bidirectional": True}, 2 * 3 * (3 * 6 + 6 * 6 + 12 * 5 + 5 * 5)),
    ],
)
def test_without_spikes_every_weight_is_multiplied_every_step(chosen, a_step):
    network = build(NetworkSettings((6, 5), readout="softmax", **chosen), 3, 4)
    found = measured(network, torch.randn(7, 12, 3))
    assert found["multiply_accumulates"] == found["synaptic_operations"] == 12 * a_step + network.readout.weight.numel()
    assert found["additions"] == 0
    assert not {"spikes", "firing_rate", "firing_rate_1"} & found.keys()


def test_energy_by_hand():
    # 0.9 pJ each of a thousand additions and 4.6 pJ each of a hundred multiply-accumulates.
    assert Operations(1000, 100).energy == pytest.approx(900 + 460)
    found = measured(firing(), torch.randn(7, 12, 3))
    picojoules = 0.9 * found["additions"] + 4.6 * found["multiply_accumulates"]
    assert found["energy_uj"] == pytest.approx(picojoules / 1e6)


def test_the_state_s_weights_are_measured_and_the_network_left_as_it_was(monkeypatch):
    network, other, features = firing(), firing(dropout=0.0), torch.randn(7, 12, 3)
    expected = measured(other, features)
    before = copy.deepcopy(network.train().state_dict())
    assert activity.activity(network, network_state(other), features) == expected
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    monkeypatch.setattr(activity, "UTTERANCES_TOGETHER", 2)
    assert activity.activity(network, network_state(other), features) == pytest.approx(expected)
