"""Changed networks against the statistics asked for, and a slow loop of neurons with thresholds of their own."""

import math

import pytest
import torch

from lib import neurons, posteriors, robustness
from lib.networks import ControlClassifier, SpikingClassifier
from lib.networks.sbnn import StochasticClassifier
from lib.posteriors import MeanFieldGaussian, Mixture, NoisyNetwork, PointMass, network_state


def seed(number):
    return torch.Generator().manual_seed(number)


def network_of(neuron="lif", **options):
    """Neurons that fire, in float64."""
    network = SpikingClassifier(3, 4, (6, 5), neuron, **options).double()
    with torch.no_grad():
        for layer in network.layers:
            if options.get("norm") == "none":
                layer.linear.weight.mul_(20)
            else:
                layer.norm.weight.uniform_(5, 10)
                layer.norm.bias.uniform_(0, 2)
    return network.eval()


@pytest.fixture
def network():
    return network_of()


@pytest.fixture
def features():
    return torch.randn(9, 40, 3, dtype=torch.float64)


def logits(network, state, features):
    with torch.no_grad():
        return torch.func.functional_call(network, state, features)


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# All changes of a state


CHANGES = {
    "weights": lambda network, state, noise: robustness.mismatched(state, network, "weights", 0.3, noise),
    "leaks": lambda network, state, noise: robustness.mismatched(state, network, "leaks", 0.3, noise),
    "time constants": lambda network, state, noise: robustness.mismatched(state, network, "time_constants", 0.3, noise),
    "thresholds": lambda network, state, noise: robustness.mismatched(state, network, "thresholds", 0.3, noise),
    "quantised": lambda network, state, noise: robustness.quantised(state, robustness.weight_matrices(network), 3),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_follows_from_the_generator_and_leaves_the_state_alone(network, change):
    state = network_state(network)
    before = {name: tensor.clone() for name, tensor in state.items()}
    first, again, other = (CHANGES[change](network, state, seed(number)) for number in (1, 1, 2))
    assert equal(first, again)
    assert equal(first, other) == (change == "quantised")
    assert not equal(first, state)
    assert equal(state, before)
    assert equal(network_state(network), before)


@pytest.mark.parametrize("what", robustness.KINDS)
@pytest.mark.parametrize("neuron", ["lif", "radlif"])
def test_no_mismatch_changes_nothing(what, neuron, features):
    network = network_of(neuron)
    state = network_state(network)
    assert equal(robustness.mismatched(state, network, what, 0, seed(0)), state)
    state["layers.0.leak"][:2] = torch.tensor([0.1, 2.0])  # which the network takes for the ends of its range
    changed = robustness.mismatched(state, network, what, 0, seed(0))
    assert torch.equal(logits(network, changed, features), logits(network, state, features))


def test_infinitely_many_bits_change_nothing(network):
    state = network_state(network)
    assert equal(robustness.quantised(state, robustness.weight_matrices(network), math.inf), state)


# Mismatch


def test_weights_are_those_between_units():
    hidden = [f"layers.{layer}.{name}" for layer in (0, 1) for name in ("recurrent", "linear.weight")]
    assert set(robustness.weight_matrices(network_of("rlif"))) == {*hidden, "readout.weight"}
    drawn = StochasticClassifier(3, 4, (6, 5), deviations="weight")
    assert set(robustness.weight_matrices(drawn)) == {*hidden, "readout.weight"}


def test_weights_are_multiplied_by_factors_of_the_level():
    network = SpikingClassifier(100, 4, (300, 200)).double()
    state = network_state(network)
    changed = robustness.mismatched(state, network, "weights", 0.2, seed(0))
    named = robustness.weight_matrices(network)
    factors = torch.cat([(changed[name] / state[name]).flatten() for name in named])
    # 90,800 of them: standard errors of 7e-4 and 5e-4.
    assert float(factors.mean()) == pytest.approx(1, abs=3e-3)
    assert float(factors.std()) == pytest.approx(0.2, abs=2e-3)
    assert all(torch.equal(changed[name], state[name]) for name in state.keys() - set(named))


def test_leaks_vary_about_those_that_the_network_uses_and_stay_stable():
    network = SpikingClassifier(3, 4, (20_000,), "adlif").double()
    state = network_state(network)
    small = robustness.mismatched(state, network, "leaks", 0.02, seed(0))["layers.0.leak"]
    factors = (small / state["layers.0.leak"])[state["layers.0.leak"] < 0.9]  # too low for the upper bound
    assert float(factors.mean()) == pytest.approx(1, abs=1e-3)
    assert float(factors.std()) == pytest.approx(0.02, rel=0.03)
    large = robustness.mismatched(state, network, "leaks", 0.5, seed(0))
    for name in ("layers.0.leak", "layers.0.adaptation_leak"):
        assert large[name].min() == 0
        assert large[name].max() == robustness.SLOWEST < 1
    unmoved = state.keys() - {"layers.0.leak", "layers.0.adaptation_leak"}
    assert all(torch.equal(large[name], state[name]) for name in unmoved)


def test_time_constants_are_multiplied_by_factors_of_the_level():
    network = SpikingClassifier(3, 4, (20_000,), "adlif").double()
    state = network_state(network)
    changed = robustness.mismatched(state, network, "time_constants", 0.2, seed(0))
    for name in ("layers.0.leak", "layers.0.adaptation_leak"):
        factors = state[name].log() / changed[name].log()
        assert float(factors.mean()) == pytest.approx(1, abs=5e-3)
        assert float(factors.std()) == pytest.approx(0.2, rel=0.03)
    large = robustness.mismatched(state, network, "time_constants", 0.5, seed(0))["layers.0.leak"]
    torch.testing.assert_close(large.min(), state["layers.0.leak"].min() ** 20, rtol=0.2, atol=0)  # a twentieth of it
    unmoved = state.keys() - {"layers.0.leak", "layers.0.adaptation_leak"}
    assert all(torch.equal(changed[name], state[name]) for name in unmoved)


def test_unbounded_layers_take_leaks_as_they_are(network, features):
    state, unbounded = network_state(network), robustness.unbounded(network)
    assert torch.equal(logits(unbounded, state, features), logits(network, state, features))
    changed = robustness.mismatched(state, network, "leaks", 0.3, seed(0))
    layer = unbounded.layers[0]
    current = (
        changed["layers.0.norm.weight"]
        * torch.rsqrt(layer.norm.running_var + layer.norm.eps)
        * (features.transpose(0, 1) @ changed["layers.0.linear.weight"].T - layer.norm.running_mean)
        + changed["layers.0.norm.bias"]
    )
    expected = neurons.lif(current, changed["layers.0.leak"])
    unbounded.load_state_dict(changed, strict=False)
    assert torch.equal(unbounded.hidden_spikes(features)[0], expected)
    network.load_state_dict(changed, strict=False)
    assert not torch.equal(network.hidden_spikes(features)[0], expected)  # held to its range


def with_own_thresholds(layer, inputs, theta):
    """The layer's spikes, step by step, each neuron with a threshold of its own by which it is reset."""
    weighted = layer.linear(inputs)
    current = layer.norm(weighted.flatten(0, 1)).view_as(weighted)
    leak = layer.leak
    potential = adaptation = spike = torch.zeros_like(current[0])
    spikes = []
    for of_step in current:
        if layer.adaptive:
            adaptation = (
                layer.adaptation_leak * adaptation
                + layer.adaptation_potential * potential
                + layer.adaptation_spike * spike
            )
        if layer.is_recurrent:
            of_step = of_step + spike @ neurons.without_self(layer.recurrent).T
        potential = leak * (potential - theta * spike) + (1 - leak) * (of_step - adaptation)
        spike = (potential > theta).double()
        spikes.append(spike)
    return torch.stack(spikes)


@pytest.mark.parametrize("neuron", ["lif", "adlif", "rlif", "radlif"])
@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@torch.no_grad()
def test_thresholds_are_those_of_neurons_with_their_own(neuron, norm, features):
    network = network_of(neuron, norm=norm, bias=norm == "none")
    state = network_state(network)
    changed = robustness.mismatched(state, network, "thresholds", 0.5, seed(3))
    again = seed(3)
    other = robustness.unbounded(network)
    other.load_state_dict(changed, strict=False)
    inputs = features.transpose(0, 1)
    for layer, divided in zip(network.layers, other.layers, strict=True):
        theta = (1 + 0.5 * torch.randn(layer.leak.shape, generator=again, dtype=torch.float64)).clamp(min=0.05)
        expected = with_own_thresholds(layer, inputs, theta)
        assert torch.equal(divided(inputs), expected)
        assert not torch.equal(layer(inputs), expected)
        assert 0.01 < float(expected.mean()) < 0.9
        inputs = expected


def test_thresholds_stay_above_rest():
    network = SpikingClassifier(3, 4, (20_000,)).double()
    state = network_state(network)
    changed = robustness.mismatched(state, network, "thresholds", 0.5, seed(0))
    theta = state["layers.0.norm.weight"] / changed["layers.0.norm.weight"]
    assert float(theta.min()) == pytest.approx(0.05)
    assert float((theta < 0.0501).double().mean()) == pytest.approx(0.0287, abs=0.005)
    unclamped = theta[theta > 0.0501]
    assert float(unclamped.median()) == pytest.approx(1.018, abs=0.02)  # of a normal without its lowest 2.9 %


@pytest.mark.parametrize("what", ["leaks", "thresholds"])
def test_a_network_without_spiking_neurons_has_none(what):
    network = ControlClassifier(3, 4, (6, 5), "rnn")
    with pytest.raises(ValueError, match="no spiking neurons"):
        robustness.mismatched(network_state(network), network, what, 0.1, seed(0))


@pytest.mark.parametrize(("what", "level", "told"), [("wieghts", 0.1, "unknown kind"), ("weights", -0.1, "0 or more")])
def test_another_kind_and_a_negative_level_are_refused(network, what, level, told):
    with pytest.raises(ValueError, match=told):
        robustness.mismatched(network_state(network), network, what, level, seed(0))


# Quantisation


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_quantised_weights_lie_on_so_many_levels_and_no_further_than_half_a_step(bits):
    network = SpikingClassifier(40, 7, (128, 128)).double()
    state, named = network_state(network), robustness.weight_matrices(network)
    changed = robustness.quantised(state, named, bits)
    for name in named:
        step = state[name].abs().max() / (2 ** (bits - 1) - 1)
        levels = changed[name] / step
        torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-9)
        assert len(levels.round().unique()) <= 2**bits - 1
        assert levels.abs().max() == pytest.approx(2 ** (bits - 1) - 1)
        assert (changed[name] - state[name]).abs().max() <= step * 0.500001
    assert len(changed["layers.1.linear.weight"].unique()) > 0.9 * (2**bits - 1)
    assert all(torch.equal(changed[name], state[name]) for name in state.keys() - set(named))
    torch.testing.assert_close(robustness.quantised(changed, named, bits), changed)


def test_a_matrix_of_zeros_stays_one(network):
    state = network_state(network)
    state["readout.weight"].zero_()
    assert torch.equal(robustness.quantised(state, ["readout.weight"], 2)["readout.weight"], state["readout.weight"])


def test_one_bit_has_no_symmetric_levels(network):
    with pytest.raises(ValueError, match="2 bits or more"):
        robustness.quantised(network_state(network), ["readout.weight"], 1)


# Lost spikes


def test_spikes_are_lost_with_the_probability_and_count_no_more_than_before(network, features):
    with torch.no_grad():
        whole = network.layers[0](features.transpose(0, 1))
        with robustness.dropping_spikes(network, 0.3, seed(0)):
            trains = [network.layers[0](features.transpose(0, 1)) for _ in range(50)]
    left = torch.stack(trains)
    assert set(left.unique().tolist()) == {0, 1}
    assert (left <= whole).all()
    spikes = 50 * float(whole.sum())
    assert float(left.sum()) / spikes == pytest.approx(0.7, abs=5 * (0.21 / spikes) ** 0.5)


def test_predictions_with_lost_spikes_follow_from_the_generator(network, features):
    point = PointMass(network_state(network))

    def predict(probability, number):
        with robustness.dropping_spikes(network, probability, seed(number)):
            return posteriors.predict(network, point, features, 2, seed(0))

    before = torch.random.get_rng_state()
    without = posteriors.predict(network, point, features, 2, seed(0))
    assert torch.equal(predict(0.4, 1), predict(0.4, 1))
    assert not torch.equal(predict(0.4, 1), predict(0.4, 2))
    assert torch.equal(predict(0.0, 1), without)
    assert torch.equal(posteriors.predict(network, point, features, 2, seed(0)), without)  # nothing is left behind
    assert torch.equal(torch.random.get_rng_state(), before)


def test_with_all_spikes_lost_nothing_is_heard(network, features):
    with robustness.dropping_spikes(network, 1.0, seed(0)):
        predicted = posteriors.predict(network, PointMass(network_state(network)), features, 1, seed(0))
    assert torch.equal(predicted, predicted[:, :1].expand_as(predicted))


def test_a_share_outside_0_to_1_is_refused(network):
    with pytest.raises(ValueError, match="between 0 and 1"), robustness.dropping_spikes(network, 1.1, seed(0)):
        pass


# Disturbed posteriors


def test_every_sample_of_a_disturbed_posterior_is_changed(network, features):
    state = network_state(network)
    around = MeanFieldGaussian(state, {"readout.bias": torch.ones_like(state["readout.bias"])})

    def change(state, generator):
        return robustness.mismatched(state, network, "weights", 0.3, generator)

    predicted = posteriors.predict(network, robustness.disturbed(around, change), features, 3, seed(4))
    again = seed(4)
    for of_sample in predicted:
        sample = change(around.sample(again), again)
        torch.testing.assert_close(of_sample, logits(network, sample, features).softmax(dim=-1))
    assert not torch.equal(predicted[0], predicted[1])


def test_one_device_may_run_all_samples(network, features):
    def one_device(state, _):
        return robustness.mismatched(state, network, "weights", 0.3, seed(7))

    point = robustness.disturbed(PointMass(network_state(network)), one_device)
    predicted = posteriors.predict(network, point, features, 3, seed(0))
    assert torch.equal(predicted, predicted[:1].expand_as(predicted))


def test_a_disturbed_mixture_takes_turns_and_a_noisy_network_keeps_its_noise(spiking_network, features):
    state = network_state(spiking_network)
    point, other = PointMass(state), PointMass({name: 0 * tensor for name, tensor in state.items()})

    def nothing(state, generator):
        return state

    for posterior in (Mixture((point, other)), NoisyNetwork(point)):
        predicted = posteriors.predict(spiking_network, posterior, features, 4, seed(0))
        again = posteriors.predict(spiking_network, robustness.disturbed(posterior, nothing), features, 4, seed(0))
        assert torch.equal(predicted, again)
        assert not torch.equal(predicted[0], predicted[1])
