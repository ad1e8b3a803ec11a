"""Changed networks against the statistics asked for, and a slow loop of neurons with thresholds of their own."""

import math

import pytest
import torch
from torch import nn
from toys import Noisy, seed

from lib import hardware, posteriors
from lib.network import SpikingClassifier, SpikingLayer, fire
from lib.neurons.clamped import clamped
from lib.posteriors import MeanFieldGaussian, Mixture, PointMass, network_state

ADAPTATION = {"adaptation_leak": (0.97, 0.99), "adaptation_potential": (-1.0, 1.0), "adaptation_spike": (0.0, 2.0)}
LEAKS = ("layers.0.raw_leak", "layers.0.raw_adaptation_leak")


def spikes_of(layer, current, threshold):
    """Step by step; each neuron is reset by its own threshold. Of LIF neurons there is no adaptation current."""
    potential = adaptation = spike = torch.zeros_like(current[0])
    spikes, leak = [], layer.held("leak")
    for step in current:
        if isinstance(layer, RadLIF):
            adaptation = layer.held("adaptation_leak") * adaptation + layer.held("adaptation_potential") * potential
            adaptation = adaptation + layer.held("adaptation_spike") * spike
            step = step + spike @ layer.recurrent.T - adaptation
        potential = leak * (potential - threshold * spike) + (1 - leak) * step
        spike = fire(potential - threshold, 0.0)
        spikes.append(spike)
    return torch.stack(spikes)


class RadLIF(SpikingLayer):
    """Adaptive neurons with recurrent connections."""

    ranges = SpikingLayer.ranges | ADAPTATION

    def __init__(self, num_inputs, num_units, dropout):
        super().__init__(num_inputs, num_units, dropout)
        for name in ADAPTATION:
            setattr(self, f"raw_{name}", self.spread(name, num_units))
        self.recurrent = nn.Parameter(nn.init.orthogonal_(torch.empty(num_units, num_units)))

    def spikes(self, current):
        return spikes_of(self, current, torch.ones_like(current[0, 0]))


LAYERS = [SpikingLayer, RadLIF, clamped(SpikingLayer), clamped(RadLIF)]


def without_spikes(num_inputs, num_units, dropout):
    layer = nn.Linear(num_inputs, num_units)
    layer.outputs = num_units
    return layer


def network_of(layer=SpikingLayer, norm="batch"):
    """Neurons that fire, in float64."""
    network = SpikingClassifier(3, 4, (6, 5), layer=layer)
    for own in network.layers:
        own.linear = nn.Linear(own.linear.in_features, own.outputs, bias=norm == "none")
        own.norm = {"batch": own.norm, "layer": nn.LayerNorm(own.outputs), "none": nn.Identity()}[norm]
        if norm == "none":
            own.linear.weight.data.mul_(20)
        else:
            own.norm.weight.data.uniform_(5, 10)
            own.norm.bias.data.uniform_(0, 2)
    return network.double().eval()


@pytest.fixture
def network():
    return network_of()


@pytest.fixture
def features():
    return torch.randn(9, 40, 3, dtype=torch.float64)


@torch.no_grad()
def logits(network, state, features):
    return torch.func.functional_call(network, state, features)


def equal(first, second, names=None):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in names or first)


@pytest.mark.parametrize("what", hardware.KINDS)
def test_a_mismatch_follows_from_the_generator_and_leaves_the_state_alone(network, what):
    state = network_state(network)
    first, again, other = (hardware.mismatched(state, network, what, 0.3, seed(number)) for number in (1, 1, 2))
    assert [equal(first, each) for each in (again, other, state)] == [True, False, False]
    assert equal(state, network_state(network))


@pytest.mark.parametrize("what", hardware.KINDS)
@pytest.mark.parametrize("layer", LAYERS)
def test_no_mismatch_changes_nothing(what, layer, features):
    network = network_of(layer)
    state = network_state(network)
    state["layers.0.raw_leak"][:2] = torch.tensor([0.1, 2.0])  # which a clamp takes for the ends of its range
    changed = hardware.mismatched(state, network, what, 0, seed(0))
    assert equal(changed, state, [name for name in state if "raw" not in name])
    device = network if what == "weights" else hardware.without_bounds(network)
    assert torch.equal(logits(device, changed, features), logits(network, state, features))


def test_weights_are_multiplied_by_factors_of_the_level():
    network = SpikingClassifier(100, 4, (300, 200)).double()
    state = network_state(network)
    changed = hardware.mismatched(state, network, "weights", 0.2, seed(0))
    named = hardware.weight_matrices(network)
    assert named == ["layers.0.linear.weight", "layers.1.linear.weight", "readout.weight"]
    factors = torch.cat([(changed[name] / state[name]).flatten() for name in named])
    # 90,800 of them: standard errors of 7e-4 and 5e-4.
    assert (float(factors.mean()), float(factors.std())) == pytest.approx((1, 0.2), abs=3e-3)
    assert equal(changed, state, state.keys() - set(named))
    assert "layers.1.recurrent" in hardware.weight_matrices(network_of(RadLIF))


@pytest.fixture
def many():
    """With 20,000 leaks, more than recurrent weights would leave memory for."""
    network = SpikingClassifier(3, 4, (2,), layer=RadLIF).double()
    layer = network.layers[0]
    layer.raw_leak, layer.raw_adaptation_leak = (layer.spread(name, 20_000) for name in ("leak", "adaptation_leak"))
    return network.double()


def used_by(layer):
    """The leaks that the neurons have, by the names of what is learnt of them."""
    return {f"layers.0.raw_{name}": layer.held(name).detach() for name in ("leak", "adaptation_leak")}


def test_leaks_vary_about_those_that_the_network_uses_and_stay_stable(many):
    state, used = network_state(many), used_by(many.layers[0])
    small, large = (hardware.mismatched(state, many, "leaks", level, seed(0)) for level in (0.02, 0.5))
    low = used[LEAKS[0]] < 0.9  # too low for the upper bound
    factors = (small[LEAKS[0]] / used[LEAKS[0]])[low]
    assert (float(factors.mean()), float(factors.std())) == pytest.approx((1, 0.02), rel=0.03)
    for name in LEAKS:
        assert large[name].min() == 0
        assert large[name].max() == hardware.SLOWEST < 1
    assert equal(large, state, [name for name in state if "raw" not in name])


def test_time_constants_are_multiplied_by_factors_of_the_level(many):
    state, used = network_state(many), used_by(many.layers[0])
    small, large = (hardware.mismatched(state, many, "time_constants", level, seed(0)) for level in (0.2, 0.5))
    for name in LEAKS:
        factors = used[name].log() / small[name].log()
        assert (float(factors.mean()), float(factors.std())) == pytest.approx((1, 0.2), rel=0.03)
    lowest = used[LEAKS[0]].min() ** 20  # a twentieth is left
    torch.testing.assert_close(large[LEAKS[0]].min(), lowest, rtol=0.2, atol=0)
    assert equal(small, state, [name for name in state if "raw" not in name])


@pytest.mark.parametrize("layer", LAYERS)
def test_without_bounds_neurons_take_their_parameters_as_they_are(layer, features):
    network = network_of(layer)
    state, free = network_state(network), hardware.without_bounds(network)
    outside = {name: tensor * 3 if name.startswith("layers.0.") else tensor for name, tensor in state.items()}
    assert not torch.equal(logits(free, outside, features), logits(network, outside, features))
    free.load_state_dict(outside, strict=False)
    assert all(torch.equal(free.layers[0].held(name), outside[f"layers.0.raw_{name}"]) for name in layer.ranges)
    assert all(layer.bounded for layer in network.layers)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@torch.no_grad()
def test_thresholds_are_those_of_neurons_with_their_own(layer, norm, features):
    network = network_of(layer, norm)
    changed = hardware.mismatched(network_state(network), network, "thresholds", 0.5, seed(3))
    noise, train = seed(3), features.transpose(0, 1)
    other = hardware.without_bounds(network)
    other.load_state_dict(changed, strict=False)
    for own, divided in zip(network.layers, other.layers, strict=True):
        threshold = (1 + 0.5 * torch.randn(own.leak.shape, generator=noise, dtype=torch.float64)).clamp(min=0.05)
        expected = spikes_of(own, own.normalised(own.linear(train)), threshold)
        assert torch.equal(divided(train), expected)
        assert not torch.equal(own(train), expected)
        assert 0.01 < float(expected.mean()) < 0.9
        train = expected


def test_thresholds_stay_above_rest():
    network = SpikingClassifier(3, 4, (20_000,)).double()
    changed = hardware.mismatched(network_state(network), network, "thresholds", 0.5, seed(0))
    threshold = 1 / changed["layers.0.norm.weight"]
    assert float(threshold.min()) == pytest.approx(0.05)
    assert float((threshold < 0.0501).double().mean()) == pytest.approx(0.0287, abs=0.005)
    # Of a normal without its lowest 2.9 %.
    assert float(threshold[threshold > 0.0501].median()) == pytest.approx(1.018, abs=0.02)


@pytest.mark.parametrize(("what", "level", "told"), [
    ("wieghts", 0.1, "unknown kind"), ("weights", -0.1, "0 or more"), ("weights", math.nan, "0 or more"),
    ("leaks", 0.1, "no spiking neurons"), ("thresholds", 0.1, "no spiking neurons"),
])  # fmt: skip
def test_a_mismatch_that_there_cannot_be_is_refused(what, level, told):
    network = SpikingClassifier(3, 4, (6, 5), layer=without_spikes)
    with pytest.raises(ValueError, match=told):
        hardware.mismatched(network_state(network), network, what, level, seed(0))


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_quantised_weights_lie_on_so_many_levels_and_no_further_than_half_a_step(bits):
    network = SpikingClassifier(40, 7, (128, 128)).double()
    state, named = network_state(network), hardware.weight_matrices(network)
    changed = hardware.quantised(state, named, bits)
    for name in named:
        step = state[name].abs().max() / (2 ** (bits - 1) - 1)
        levels = changed[name] / step
        torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-9)
        assert levels.abs().max() == pytest.approx(2 ** (bits - 1) - 1)
        assert (changed[name] - state[name]).abs().max() <= step * 0.500001
    assert equal(state, network_state(network))
    assert len(changed["layers.1.linear.weight"].unique()) > 0.9 * (2**bits - 1)
    assert equal(changed, state, state.keys() - set(named))
    torch.testing.assert_close(hardware.quantised(changed, named, bits), changed)


def test_infinitely_many_bits_and_zeros_change_nothing_and_one_bit_is_refused(network):
    state = network_state(network)
    state["readout.weight"].zero_()
    for names, bits in ((hardware.weight_matrices(network), math.inf), (["readout.weight"], 2)):
        assert equal(hardware.quantised(state, names, bits), state)
    with pytest.raises(ValueError, match="2 bits or more"):
        hardware.quantised(state, ["readout.weight"], 1)


def test_spikes_are_lost_with_the_probability_and_count_no_more_than_before(network, features):
    layer, train = network.layers[0].requires_grad_(False), features.transpose(0, 1)
    with hardware.dropping_spikes(network, 0.3, seed(0)):
        left = torch.stack([layer(train) for _ in range(50)])
    assert set(left.unique().tolist()) == {0, 1}
    assert (left <= layer(train)).all()
    spikes = 50 * float(layer(train).sum())
    assert float(left.sum()) / spikes == pytest.approx(0.7, abs=5 * (0.21 / spikes) ** 0.5)


def test_predictions_with_lost_spikes_follow_from_the_generator(network, features):
    point = PointMass(network_state(network))

    def predict(probability, number):
        with hardware.dropping_spikes(network, probability, seed(number)):
            return posteriors.predict(network, point, features, 2, seed(0))

    before = torch.random.get_rng_state()
    without = posteriors.predict(network, point, features, 2, seed(0))
    assert torch.equal(predict(0.4, 1), predict(0.4, 1))
    assert not torch.equal(predict(0.4, 1), predict(0.4, 2))
    assert torch.equal(predict(0.0, 1), without)
    silent = predict(1.0, 1)
    assert torch.equal(silent, silent[:, :1].expand_as(silent))  # whatever the features
    assert torch.equal(posteriors.predict(network, point, features, 2, seed(0)), without)  # nothing is left behind
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("probability", [1.1, -0.1, math.nan])
def test_a_probability_outside_0_to_1_is_refused(network, probability):
    with pytest.raises(ValueError, match="between 0 and 1"), hardware.dropping_spikes(network, probability, seed(0)):
        pass


def test_every_sample_of_a_perturbed_posterior_is_changed_by_one_device_or_by_many(network, features):
    state = network_state(network)
    around = MeanFieldGaussian(state, {"readout.bias": torch.ones_like(state["readout.bias"])})

    def many_devices(state, generator):
        return hardware.mismatched(state, network, "weights", 0.3, generator)

    def one_device(state, _):
        return many_devices(state, seed(7))

    predicted = posteriors.predict(network, hardware.perturbed(around, many_devices), features, 3, seed(4))
    noise = seed(4)
    changed = [many_devices(sample, noise) for sample in around.draws(3, noise)]
    expected = torch.stack([logits(network, state, features) for state in changed])
    torch.testing.assert_close(predicted, expected.softmax(dim=-1))
    assert equal(hardware.perturbed(around, one_device).sample(seed(4)), one_device(around.sample(seed(4)), None))
    same = posteriors.predict(network, hardware.perturbed(PointMass(state), one_device), features, 3, seed(0))
    assert torch.equal(same, same[:1].expand_as(same))


def test_a_perturbed_mixture_takes_turns_and_a_noisy_network_keeps_its_noise(spiking_network, features):
    state = network_state(spiking_network)
    point, other = PointMass(state), PointMass({name: 0 * tensor for name, tensor in state.items()})
    for posterior in (Mixture((point, other)), Noisy((point,)), Noisy((point, other))):
        changed = hardware.perturbed(posterior, lambda state, generator: state)
        assert changed.noisy == posterior.noisy
        predicted = posteriors.predict(spiking_network, posterior, features, 4, seed(0))
        again = posteriors.predict(spiking_network, changed, features, 4, seed(0))
        assert torch.equal(predicted, again)
        assert not torch.equal(predicted[0], predicted[1])
