"""The network against PyTorch's own layers, sums worked out by hand, and what must not change its answer."""

import copy

import pytest
import torch
from torch.nn.functional import batch_norm, linear

from lib import neurons
from lib.networks import SpikingClassifier


@pytest.fixture
def features():
    return torch.randn(7, 12, 3, dtype=torch.float64)


@pytest.mark.parametrize("hidden_sizes", [(1,), (6, 5), [4, 3, 2]])
def test_shapes(hidden_sizes):
    network = SpikingClassifier(3, 4, hidden_sizes)
    features = torch.randn(5, 8, 3)
    assert network(features).shape == (5, 4)
    assert [train.shape for train in network.hidden_spikes(features)] == [(8, 5, size) for size in hidden_sizes]


def test_parameters_are_counted_in_closed_form():
    # 40 * 128 weights, 2 * 128 of the norm, 128 leaks = 5,504; 128 * 128 + 3 * 128 = 16,768;
    # 2 * 128 of the readout's norm; 128 * 20 + 20 = 2,580. Together 25,108.
    network = SpikingClassifier(40, 20, (128, 128))
    assert sum(parameter.numel() for parameter in network.parameters()) == 25_108


def test_each_layer_is_pytorch_s_linear_map_and_batch_norm_before_lif(spiking_network, features):
    network = spiking_network.eval()
    spikes = features.transpose(0, 1)
    for layer, train in zip(network.layers, network.hidden_spikes(features), strict=True):
        weighted = linear(spikes, layer.linear.weight)
        norm = layer.norm
        normal = batch_norm(
            weighted.flatten(0, 1), norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )
        spikes = neurons.lif(normal.view_as(weighted), layer.leak)
        assert torch.equal(train, spikes)
        assert 0.02 < spikes.mean() < 0.98


def test_logits_are_a_linear_map_of_the_normalised_rates(spiking_network, features):
    network = spiking_network.eval()
    rates = network.hidden_spikes(features)[-1].detach().numpy().sum(axis=0) / 12
    norm = network.norm
    mean, var, scale, shift, weight, bias = (
        tensor.detach().numpy()
        for tensor in (
            norm.running_mean, norm.running_var, norm.weight, norm.bias, network.readout.weight, network.readout.bias,
        )
    )  # fmt: skip
    expected = (scale * (rates - mean) / (var + 1e-5) ** 0.5 + shift) @ weight.T + bias
    torch.testing.assert_close(network(features).detach(), torch.from_numpy(expected))


def test_the_network_may_be_run_in_two_parts(spiking_network, features):
    network = spiking_network.eval()
    for layers in range(3):
        spikes = network(features, stop=layers)
        assert torch.equal(network(spikes, start=layers), network(features))
    for layers, train in enumerate(network.hidden_spikes(features), start=1):
        assert torch.equal(network(features, stop=layers), train.transpose(0, 1))


def test_evaluation_of_an_utterance_does_not_depend_on_its_batch(spiking_network, features):
    network = spiking_network.eval()
    together = network(features)
    alone = torch.cat([network(features[index : index + 1]) for index in range(len(features))])
    torch.testing.assert_close(together, alone)
    order = torch.tensor([3, 0, 6, 5, 1, 2, 4])
    torch.testing.assert_close(network(features[order]), together[order])
    assert not torch.allclose(together[0], together[1])


def test_hidden_units_have_no_order(spiking_network, features):
    network = spiking_network.eval()
    shuffled, order = copy.deepcopy(network), torch.tensor([4, 1, 5, 0, 3, 2])
    first, second = shuffled.layers
    with torch.no_grad():
        for tensor in (
            first.linear.weight, first.leak, first.norm.weight, first.norm.bias,
            first.norm.running_mean, first.norm.running_var,
        ):  # fmt: skip
            tensor.copy_(tensor[order].clone())
        second.linear.weight.copy_(second.linear.weight[:, order].clone())
    torch.testing.assert_close(shuffled(features), network(features))


def test_the_order_of_frames_matters(spiking_network, features):
    network = spiking_network.eval()
    assert not torch.allclose(network(features), network(features.flip(1)))


def test_what_comes_later_leaves_earlier_spikes_alone(spiking_network, features):
    network = spiking_network.eval()
    changed = features.clone()
    changed[:, 8:] = 5
    for before, after in zip(network.hidden_spikes(features), network.hidden_spikes(changed), strict=True):
        assert torch.equal(before[:8], after[:8])


def test_evaluation_is_deterministic_and_training_drops_out(spiking_network, features):
    network = spiking_network.eval()
    assert torch.equal(network(features), network(features))
    without = SpikingClassifier(3, 4, (6, 5), dropout=0.0).double()
    without.load_state_dict(network.state_dict())
    assert torch.equal(without.eval()(features), network(features))
    network.train(), without.train()
    assert not torch.equal(network(features), network(features))
    assert torch.equal(without(features), without(features))


def test_dropout_falls_on_every_layer_s_spikes(spiking_network, features):
    # Kept spikes count twice at a dropout of one half.
    for train in spiking_network.train().hidden_spikes(features):
        assert set(train.unique().tolist()) == {0.0, 2.0}


def test_the_readout_drops_out_normalised_rates(spiking_network, features):
    # Half of what the linear map gets is zero, the rest twice what the norm gives.
    normal, dropped = [], []
    spiking_network.norm.register_forward_hook(lambda _, __, output: normal.append(output))
    spiking_network.readout.register_forward_pre_hook(lambda _, inputs: dropped.append(inputs[0]))
    spiking_network.train()(features)
    kept = dropped[0] != 0
    assert 0 < kept.sum() < kept.numel()
    torch.testing.assert_close(dropped[0], 2 * normal[0] * kept)


def test_leaks_are_kept_in_their_range(spiking_network, features):
    network = spiking_network.eval()
    shortest, longest = neurons.LEAK_RANGE
    outcomes = []
    for low, high in ((-1.0, 2.0), (shortest, longest)):
        with torch.no_grad():
            for layer in network.layers:
                layer.leak[::2], layer.leak[1::2] = low, high
        outcomes.append(network(features))
    assert torch.equal(*outcomes)


def test_leaks_start_spread_over_their_range():
    leak = SpikingClassifier(3, 4, (1000,)).layers[0].leak
    shortest, longest = neurons.LEAK_RANGE
    assert shortest <= leak.min() < shortest + 0.01
    assert longest - 0.01 < leak.max() <= longest


def test_every_parameter_gets_a_gradient(spiking_network, features):
    logits = spiking_network.train()(features)
    torch.nn.functional.cross_entropy(logits, torch.arange(7) % 4).backward()
    for name, parameter in spiking_network.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_the_same_seed_gives_the_same_network():
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(torch.nn.utils.parameters_to_vector(SpikingClassifier(3, 4).parameters()))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_an_unknown_neuron_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"^unknown neuron 'alif': choose one of lif, adlif, rlif, radlif$"):
        SpikingClassifier(3, 4, neuron="alif")


@pytest.mark.parametrize(
    ("num_features", "num_classes", "hidden_sizes"),
    [(3, 4, ()), (3, 4, (5, 0)), (3, 4, (-1,)), (0, 4, (5,)), (3, 0, (5,))],
)
def test_sizes_below_one_are_refused(num_features, num_classes, hidden_sizes):
    with pytest.raises(ValueError, match="at least one hidden layer, and every size at least 1"):
        SpikingClassifier(num_features, num_classes, hidden_sizes)


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 1.1])
def test_a_dropout_that_is_no_probability_is_refused(dropout):
    with pytest.raises(ValueError, match="between 0 and 1"):
        SpikingClassifier(3, 4, dropout=dropout)
