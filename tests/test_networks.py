"""The network against PyTorch's own layers, sums worked out by hand, and what must not change its answer."""

import copy

import pytest
import torch
from torch.nn.functional import batch_norm, linear

from lib.network import SpikingClassifier, lif
from lib.networks import INTERVAL, NetworkSettings, build
from lib.neurons.clamped import BASELINE_LEAKS, Clamped
from lib.settings import check

NEURONS = ("lif", "adlif", "rlif", "radlif")
KINDS = {neuron: {"neuron": neuron} for neuron in NEURONS}
KINDS |= {network: {"network": network} for network in ("mlp", "rnn", "ligru", "gru")}
# Those of the baseline with two hidden layers and its readout: inputs, units, classes, and the parameters of each kind.
BASELINE = {
    (40, 128, 20): (24_892, 25_660, 57_660, 58_428, 24_616, 57_384, 112_168, 166_952),
    (40, 512, 35): (303_721, 306_793, 828_009, 831_081, 302_662, 826_950, 1_635_910, 2_444_870),
    (700, 128, 20): (109_372, 110_140, 142_140, 142_908, 109_096, 141_864, 281_128, 420_392),
}


def made(num_features, num_classes, hidden_sizes=(128, 128), dropout=0.1, **chosen):
    return build(NetworkSettings(hidden_sizes, **chosen), num_features, num_classes, dropout)


def lively(**chosen):
    """A network whose neurons fire."""
    network = made(3, 4, (6, 5), **chosen).double()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("layers"):
                if "norm" in name and name.endswith("weight"):
                    parameter.uniform_(5, 10) if chosen.get("network", "spiking") == "spiking" else parameter.fill_(1.5)
                elif "norm" in name or "linear.bias" in name:
                    parameter.uniform_(0, 2)
                elif "linear.weight" in name and chosen.get("norm") == "none":
                    parameter.mul_(10)
    return network


def parameters_of(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture
def features():
    return torch.randn(7, 12, 3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("sizes", "kind", "parameters"),
    [(sizes, kind, count) for sizes, of_size in BASELINE.items() for kind, count in zip(KINDS, of_size, strict=True)],
)
def test_there_are_as_many_parameters_as_in_the_baseline(sizes, kind, parameters):
    inputs, units, classes = sizes
    assert parameters_of(made(inputs, classes, (units, units), readout="softmax", **KINDS[kind])) == parameters


def test_the_names_of_the_parameters_are_those_that_stored_posteriors_have():
    layer = ("linear.weight", "norm.weight", "norm.bias", "raw_leak")
    names = {f"layers.{index}.{name}" for index in (0, 1) for name in layer}
    names |= {"norm.weight", "norm.bias", "readout.weight", "readout.bias"}
    assert {name for name, _ in SpikingClassifier(3, 4, (6, 5)).named_parameters()} == names


OPTIONS = [
    {**kind, **chosen}
    for kind in KINDS.values()
    for chosen in (
        {},
        {"readout": "softmax", "norm": "layer"},
        {"readout": "softmax", "norm": "none", "bias": True, "bidirectional": True},
        {"bidirectional": True},
    )
    if not (kind.get("network") == "mlp" and chosen.get("bidirectional"))
]


@pytest.fixture(params=OPTIONS, ids=lambda chosen: "-".join(map(str, chosen.values())))
def chosen(request):
    return request.param


def test_every_network_trains_all_its_parameters(chosen, features):
    network = lively(**chosen, dropout=0.2)
    torch.nn.functional.cross_entropy(network(features), torch.arange(7) % 4).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_logits_follow_from_the_last_layer_s_trains(chosen, features):
    network = lively(**chosen).eval()
    trains, logits = network.hidden_spikes(features), network(features)
    directions = 2 if chosen.get("bidirectional") else 1
    assert [train.shape for train in trains] == [(12, 7, directions * units) for units in (6, 5)]
    assert torch.equal(network.classify(trains[-1]), logits)
    assert logits.shape == (7, 4)
    assert network.fires == (chosen.get("network", "spiking") == "spiking")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mlp"])
def test_a_second_direction_is_the_same_layer_on_the_sequence_reversed(kind, features):
    network = lively(**KINDS[kind], bidirectional=True).eval()
    train = features.transpose(0, 1)
    for layer, found in zip(network.layers, network.hidden_spikes(features), strict=True):
        one_way = copy.deepcopy(layer)
        one_way._forward_hooks.clear(), one_way._forward_pre_hooks.clear()
        train = torch.cat([one_way(train), one_way(train.flip(0)).flip(0)], dim=-1)
        torch.testing.assert_close(found, train)
    assert not torch.equal(train[..., :5], train[..., 5:])


def test_each_layer_is_pytorch_s_linear_map_and_batch_norm_before_lif(spiking_network, features):
    network = spiking_network.eval()
    spikes = features.transpose(0, 1)
    for layer, train in zip(network.layers, network.hidden_spikes(features), strict=True):
        weighted = linear(spikes, layer.linear.weight)
        norm = layer.norm
        normal = batch_norm(
            weighted.flatten(0, 1), norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )
        spikes = lif(normal.view_as(weighted), layer.leak)
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


def test_evaluation_of_an_utterance_does_not_depend_on_its_batch(spiking_network, features):
    network = spiking_network.eval()
    together = network(features)
    alone = torch.cat([network(features[index : index + 1]) for index in range(len(features))])
    torch.testing.assert_close(together, alone)
    order = torch.tensor([3, 0, 6, 5, 1, 2, 4])
    torch.testing.assert_close(network(features[order]), together[order])
    assert not torch.allclose(together[0], together[1])


def test_the_readout_drops_out_normalised_rates(spiking_network, features):
    # Half of what the linear map gets is zero, the rest twice what the norm gives.
    normal, dropped = [], []
    spiking_network.norm.register_forward_hook(lambda _, __, output: normal.append(output))
    spiking_network.readout.register_forward_pre_hook(lambda _, inputs: dropped.append(inputs[0]))
    spiking_network.train()(features)
    kept = dropped[0] != 0
    assert 0 < kept.sum() < kept.numel()
    torch.testing.assert_close(dropped[0], 2 * normal[0] * kept)


def test_one_number_is_no_range_of_leaks():
    with pytest.raises(ValueError, match=r"^leak_range = 0\.9 does not fit: it must be two numbers from 0 to 1"):
        check("leak_range", 0.9, INTERVAL)


@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize(
    ("chosen", "leaks"),
    [({}, (0.3, 0.99)), ({"leak_range": [0.0, 0.96]}, (0.0, 0.96)), ({"leaks": "clamp"}, BASELINE_LEAKS),
     ({"leaks": "clamp", "leak_range": [0.5, 1]}, (0.5, 1))],
)  # fmt: skip
def test_the_settings_give_the_neurons_their_leaks(neuron, chosen, leaks):
    network = made(3, 4, (300, 5), neuron=neuron, **chosen)
    for layer in network.layers:
        assert isinstance(layer, Clamped) == ("leaks" in chosen)
        assert layer.ranges["leak"] == leaks
    low, high = leaks
    assert low < network.layers[0].leak.min() < low + 0.05 * (high - low)
    assert high - 0.05 * (high - low) < network.layers[0].leak.max() < high


@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("chosen", [{}, {"leaks": "clamp"}, {"leak_range": [0.5, 1.0]}])
def test_leaks_begin_where_the_settings_say(neuron, chosen):
    everywhere = made(3, 4, (300, 5), neuron=neuron, **chosen).layers[0]
    layer = made(3, 4, (300, 5), neuron=neuron, leak_start=[0.85, 0.9], **chosen).layers[0]
    assert layer.ranges["leak"] == everywhere.ranges["leak"]
    assert 0.85 < layer.leak.min() < 0.852 < 0.898 < layer.leak.max() < 0.9
    assert torch.quantile(layer.leak, 0.5).item() == pytest.approx(0.875, abs=0.005)
    layer.leak.sum().backward()
    assert (layer.raw_leak.grad != 0).all()


def test_runs_of_before_there_was_a_choice_are_of_the_baseline_s_clamp():
    for network in ("spiking", "mlp"):
        older = NetworkSettings(network=network).as_dict()
        del older["leaks"], older["leak_range"], older["leak_start"]
        stored = NetworkSettings(**NetworkSettings.before() | older)
        assert (stored.leaks, stored.leak_range) == ("clamp", None)
        assert stored.identity() == older
        assert NetworkSettings(network=network).identity() == older | {"leaks": "sigmoid"}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [(given, "at least one hidden layer") for given in [(3, 4, ()), (3, 4, (5, 0)), (3, 4, (-1,)), (0, 4), (3, 0)]]
    + [((3, 4, (5,), dropout), "between 0 and 1") for dropout in (-0.1, 1.0, 1.1)],
)
def test_sizes_below_one_and_a_dropout_that_is_no_probability_are_refused(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        SpikingClassifier(*given)


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"network": "cnn"}, "network = 'cnn' does not fit: it must be one of spiking, mlp, rnn, ligru, gru"),
        ({"neuron": "alif"}, "neuron = 'alif' does not fit: it must be one of lif, adlif, rlif, radlif"),
        ({"readout": "sum"}, "readout = 'sum' does not fit: it must be one of rate, softmax"),
        ({"norm": "group"}, "norm = 'group' does not fit: it must be one of batch, layer, none"),
        ({"hidden_sizes": []}, "hidden_sizes = .* does not fit: it must be a list, of each item a whole number"),
        ({"network": "mlp", "bidirectional": True}, "an MLP has no direction of time: leave bidirectional at False"),
        ({"leaks": "tanh"}, "leaks = 'tanh' does not fit: it must be one of sigmoid, clamp"),
        *(
            (
                {"leak_range": given},
                "leak_range = .* does not fit: it must be two numbers from 0 to 1, the lower one first",
            )
            for given in ([0.9, 0.3], [0.5, 0.5], [0.9], [0.1, 0.2, 0.3], [-0.1, 0.5], [0.5, 1.1])
        ),
        *(
            ({"network": "mlp", name: [0.3, 0.9]}, "mlp has no spiking neurons: leave neuron, leak_range and leak_st")
            for name in ("leak_range", "leak_start")
        ),
        ({"leak_start": [0.2, 0.9]}, r"leak_start = \[0.2, 0.9\] must lie in the leaks' range, 0.3 to 0.99"),
        ({"leaks": "clamp", "leak_start": [0.9, 0.99]}, "leak_start = .* the leaks' range, 0.818731 to 0.960789"),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(chosen, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        NetworkSettings(**chosen)
