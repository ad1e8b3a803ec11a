"""Curves whose angularity is known, directions, and slopes and rises of losses against PyTorch's own."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from toys import seed

from lib import landscape, network, posteriors
from lib.network import SpikingClassifier, SpikingLayer
from lib.posteriors import MeanFieldGaussian, network_state
from lib.slices import moved, random_direction

ALPHAS = np.linspace(-1, 1, 101)


def close(value):
    return pytest.approx(value, rel=0.05)


@pytest.fixture
def state(spiking_network):
    return network_state(spiking_network)


@pytest.fixture
def direction(spiking_network):
    return random_direction(spiking_network.named_parameters(), seed(0))


# Curves


def staircase(alphas, generator):
    """Jumps of random heights at random places."""
    places, heights = generator.uniform(-1, 1, 300), generator.normal(size=300)
    return (heights * (alphas[:, None] > places)).sum(axis=1)


def polygon(alphas, generator):
    """Kinks at random places."""
    places, slopes = generator.uniform(-1, 1, 300), generator.normal(size=300)
    return (slopes * np.maximum(alphas[:, None] - places, 0)).sum(axis=1)


def wave(alphas, generator):
    return np.sin(alphas + generator.uniform(0, 6))


def apart(number, generator):
    """Places of jumps, in the middles of steps, not in the first or last, three or more steps apart."""
    steps = 3 * generator.choice(np.arange(1, 32), number, replace=False) + generator.integers(0, 2)
    return (ALPHAS[steps] + ALPHAS[steps + 1]) / 2


SMOOTH = {
    "line": 3 * ALPHAS + 2,
    "parabola": 3 * ALPHAS**2 - ALPHAS + 1,
    "wave": np.sin(7 * ALPHAS),
    "exponential": np.exp(5 * ALPHAS),
    "kinks": sum(np.abs(ALPHAS - place) for place in (-0.61, -0.2, 0.033, 0.47)),
    "flat": np.full(101, 1.7),
}


@pytest.mark.parametrize(("curve", "exponent"), [(wave, 4), (polygon, 3), (staircase, 1)])
@pytest.mark.parametrize(("points", "wrong"), [(257, 0.1), (101, 0.2), (33, 0.2)])
def test_the_angularity_exponent_tells_smooth_curves_from_kinks_and_from_jumps(curve, exponent, points, wrong):
    generator = np.random.default_rng(0)
    alphas = np.linspace(-1, 1, points)
    found = [landscape.angularity_exponent(alphas, curve(alphas, generator)) for _ in range(200)]
    assert np.mean(found) == pytest.approx(exponent, abs=wrong)


def test_the_angularity_exponent_has_no_scale_and_a_straight_line_has_none():
    alphas = np.linspace(-1, 1, 65)
    curve = staircase(alphas, np.random.default_rng(1))
    exponent = landscape.angularity_exponent(alphas, curve)
    assert landscape.angularity_exponent(1e3 * alphas, 1e-4 * curve + 7) == pytest.approx(exponent, abs=1e-6)
    assert landscape.angularity_exponent(alphas, 3 * alphas**2 - alphas + 1) == pytest.approx(4, abs=1e-9)
    assert math.isnan(landscape.angularity_exponent(np.arange(9), 2.0 * np.arange(9)))


def kinked(alphas, number, generator):
    """``number`` kinks of random place, sign and size, whose slopes add up."""
    places, turns = generator.uniform(-1, 1, number), generator.standard_normal(number)
    return (turns * np.abs(alphas[:, None] - places)).sum(axis=1)


def stairs(alphas, number, generator):
    """``number`` jumps likewise."""
    places, heights = generator.uniform(-1, 1, number), generator.standard_normal(number)
    return (heights * (alphas[:, None] > places)).sum(axis=1)


@pytest.mark.parametrize(("curve", "slope"), [(kinked, 3), (stairs, 1), (lambda alphas, *_: np.sin(3 * alphas), 4)])
def test_the_structure_function_has_the_known_slope_where_features_stand_apart(curve, slope):
    """4,001 points and 40 kinks or jumps, 100 points apart in the mean: up to 32 few are within a step of another."""
    alphas, generator = np.linspace(-1, 1, 4001), np.random.default_rng(0)
    found = [landscape.structure_function(alphas, curve(alphas, 40, generator)) for _ in range(20)]
    np.testing.assert_allclose(found[0]["step"], 5e-4 * 2.0 ** np.arange(10))
    assert np.mean([one["slope"][:5] for one in found]) == pytest.approx(slope, rel=0.05)


def test_the_structure_function_of_a_mixture_has_a_slope_at_each_scale():
    """A jump of J adds ``2 J^2 h`` and a curvature c ``c^2 h^4`` to the mean: the one close by, the other far out."""
    alphas = np.linspace(-2, 2, 4001)
    smooth, jump = alphas**2, 1e-2 * (alphas > 0.0003)
    found = landscape.structure_function(alphas, smooth + jump)
    inner = 4 - 2 * found["step"].iloc[-1]  # the range over which the mean is taken
    expected = 4 * found["step"] ** 4 + 2e-4 * found["step"] / inner
    np.testing.assert_allclose(found["square"], expected, rtol=0.02)
    assert found["slope"].iloc[0] == pytest.approx(1, abs=0.01)
    assert found["slope"].iloc[-2] == pytest.approx(4, abs=0.01)
    assert found["slope"].iloc[[-1]].isna().all()


def test_a_staircase_that_goes_back_has_no_slope_beyond_its_correlation_length():
    """Of a signal that changes sign at random, over a length l, D is ``6 - 8 exp(-h/l) + 2 exp(-2h/l)``."""
    generator, alphas, length = np.random.default_rng(0), np.linspace(0, 4000, 200_001), 2.0
    turns = np.sort(generator.uniform(0, 4000, generator.poisson(4000 / (2 * length))))
    found = landscape.structure_function(alphas, (-1.0) ** np.searchsorted(turns, alphas))
    ratio = found["step"] / length
    np.testing.assert_allclose(found["square"][:9], (6 - 8 * np.exp(-ratio) + 2 * np.exp(-2 * ratio))[:9], rtol=0.15)
    assert found["slope"][0] == pytest.approx(1, abs=0.05)
    assert found["slope"][9] == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("measure", [landscape.angularity_exponent, landscape.jumps])
@pytest.mark.parametrize("alphas", [np.linspace(0, 1, 8), np.geomspace(1, 2, 17)])
def test_a_measure_of_steps_needs_enough_evenly_spaced_points(measure, alphas):
    with pytest.raises(ValueError, match="9 or more evenly spaced"):
        measure(alphas, alphas)


@pytest.mark.parametrize(
    ("curve", "twice_the_way_back"),
    [
        (np.exp(ALPHAS), 0),  # only climbs
        (-SMOOTH["line"], 0),
        (ALPHAS**2, 2),  # down by 1 and up by 1, for a net change of 0
        (np.sin(6 * np.pi * ALPHAS), 24),  # six periods of 4 each, but for points that miss the tops
        (np.array([0.0, 5.0, 3.0, 6.0]), 4),
    ],
)
def test_excess_variation_is_twice_the_way_back(curve, twice_the_way_back):
    assert landscape.excess_variation(curve) == pytest.approx(twice_the_way_back, rel=0.05, abs=1e-12)


@pytest.mark.parametrize("smooth", SMOOTH)
@pytest.mark.parametrize("number", [0, 1, 5, 15])
def test_jumps_are_counted_and_measured_on_whatever_they_stand(smooth, number):
    generator = np.random.default_rng(number)
    for _ in range(20):
        heights = generator.uniform(5, 10, number) * generator.choice([-1, 1], number)
        stairs = (heights * (ALPHAS[:, None] > apart(number, generator))).sum(axis=1)
        found = landscape.jumps(1e3 * ALPHAS, 1e-4 * (SMOOTH[smooth] + stairs))  # whatever the scale
        assert found.number == number
        assert found.size == close(1e-4 * np.abs(heights).mean()) if number else math.isnan(found.size)
        assert found.intensity == close(1e-8 * np.square(heights).sum() / 2e3)


def test_what_does_not_stand_out_is_no_jump():
    # From before a step to behind it the parabola gains 3.2e-3; three times that stands out.
    small, large = (ALPHAS**2 + height * (ALPHAS > 0.101) for height in (0.004, 0.012))
    assert landscape.jumps(ALPHAS, small).number == 0
    assert landscape.jumps(ALPHAS, large) == (1, close(0.012), close(0.012**2 / 2))
    generator = np.random.default_rng(0)
    kinks = [landscape.jumps(ALPHAS, polygon(ALPHAS, generator)).number for _ in range(100)]
    assert np.mean(kinks) < 0.05
    for end in (-0.99, 0.99):  # the first and the last step
        assert landscape.jumps(ALPHAS, 1.0 * (end < ALPHAS)).number == 0


def test_the_residual_is_what_a_parabola_leaves():
    assert landscape.quadratic_residual(ALPHAS, SMOOTH["parabola"]) == pytest.approx(0, abs=1e-12)
    assert landscape.quadratic_residual(ALPHAS, SMOOTH["line"]) == pytest.approx(0, abs=1e-12)
    alphas = np.linspace(-1, 1, 1001)
    # x^3 = 3/5 P_1 + 2/5 P_3, and the mean square of P_3 over [-1, 1] is 1/7.
    assert landscape.quadratic_residual(alphas, alphas**3 + alphas**2) == close(0.4 / math.sqrt(7))
    # Of sign(x) the parabola takes 3/2 x, which leaves a mean square of 1 - 3/4.
    assert landscape.quadratic_residual(alphas, 5 * alphas**2 + np.sign(alphas)) == close(0.5)


# Parts and directions


@pytest.mark.parametrize(
    ("part", "prefixes"),
    [("hidden", {"layers"}), ("readout", {"norm", "readout"}), ("all", {"layers", "norm", "readout"})],
)
def test_a_network_has_parts(spiking_network, part, prefixes):
    names = [name for name, _ in landscape.parameters_of(spiking_network, part)]
    assert {name.split(".")[0] for name in names} == prefixes
    with pytest.raises(ValueError, match="unknown part 'hiden' of a network"):
        landscape.parameters_of(spiking_network, "hiden")


class Adaptive(SpikingLayer):
    """With parameters of its own."""

    groups = SpikingLayer.groups | {"adaptation_*": "adaptation"}

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.adaptation_leak, self.adaptation_spike = self.spread("leak", sizes[1]), self.spread("leak", sizes[1])


def test_a_layer_says_in_which_group_each_of_its_parameters_is(monkeypatch):
    network = SpikingClassifier(3, 4, (6,), layer=Adaptive)
    assert landscape.parameter_groups(network) == {
        "weights": ["layers.0.linear.weight"],
        "norm": ["layers.0.norm.weight", "layers.0.norm.bias"],
        "leak": ["layers.0.raw_leak"],
        "adaptation": ["layers.0.adaptation_leak", "layers.0.adaptation_spike"],
        "readout": ["norm.weight", "norm.bias", "readout.weight", "readout.bias"],
    }
    monkeypatch.setattr(Adaptive, "groups", SpikingLayer.groups)
    with pytest.raises(ValueError, match="Adaptive has no group for its parameter 'adaptation_leak'"):
        landscape.parameter_groups(network)


def test_filter_normalisation_gives_each_row_the_norm_of_the_network_s(state, direction):
    state["readout.weight"][2] = 0
    normalised = landscape.filter_normalised(direction, state)
    again = landscape.filter_normalised({name: 1e3 * tensor for name, tensor in direction.items()}, state)
    assert normalised.keys() == {"layers.0.linear.weight", "layers.1.linear.weight", "readout.weight"}
    for name, tensor in normalised.items():
        norms, own = (tensors[name].norm(dim=1, keepdim=True) for tensors in (state, direction))
        torch.testing.assert_close(tensor.norm(dim=1, keepdim=True), norms)
        torch.testing.assert_close(tensor * own, direction[name] * norms)
        torch.testing.assert_close(tensor, again[name])
    with pytest.raises(ValueError, match="moves no matrix"):
        landscape.filter_normalised({"layers.0.raw_leak": direction["layers.0.raw_leak"]}, state)


def test_weight_norms_are_those_of_the_named_weights_and_of_a_posterior_s_noise(state, direction):
    names = ["readout.weight", "readout.bias"]
    expected = torch.cat([state[name].flatten() for name in names]).norm()
    assert landscape.weight_norm(state, names) == pytest.approx(float(expected), rel=1e-12)
    assert landscape.weight_norm(direction, direction) == pytest.approx(1, rel=1e-12)
    posterior, noise = MeanFieldGaussian(state, {name: torch.full_like(state[name], 0.2) for name in names}), seed(0)
    squares = [landscape.weight_norm(moved(posterior.sample(noise), state, -1.0), names) ** 2 for _ in range(2_000)]
    # 24 numbers of 0.2^2 times a chi-square of one degree: a standard error of 0.7 %.
    assert np.mean(squares) == pytest.approx(landscape.weight_norm(posterior.std, names) ** 2, rel=0.035)


# The surrogate gradient


def minibatches():
    noise = seed(1)
    return [(torch.randn(4, 12, 3, generator=noise, dtype=torch.float64), torch.arange(4)) for _ in range(3)]


class Smooth(SpikingLayer):
    """Without spikes."""

    def spikes(self, current):
        return current.tanh()


def test_without_spikes_the_gradient_is_the_limit_of_finite_differences():
    network = SpikingClassifier(3, 4, (6, 5), dropout=0.5, layer=Smooth).double()
    direction = random_direction(network.named_parameters(), seed(0))
    steps = [0.2, 0.1, 0.05]
    slopes = landscape.surrogate_alignment(network, network_state(network), direction, minibatches(), steps)
    wrong = np.abs(slopes.finite - slopes.surrogate)
    assert wrong[-1] < 1e-3 * abs(slopes.surrogate)
    np.testing.assert_allclose(wrong[:-1] / wrong[1:], 4, rtol=0.05)  # the order of h^2
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_readout_s_gradient_is_exact_behind_spikes(spiking_network, state):
    direction = random_direction(landscape.parameters_of(spiking_network, "readout"), seed(0))
    surrogate, finite = landscape.surrogate_alignment(spiking_network, state, direction, minibatches(), [1e-3, 1e-5])
    np.testing.assert_allclose(finite, surrogate, rtol=1e-4)


@pytest.mark.parametrize("part", ["all", "hidden"])
def test_the_surrogate_s_gradient_is_that_of_pytorch_s_own_operations(spiking_network, state, part, monkeypatch):
    direction = random_direction(landscape.parameters_of(spiking_network, part), seed(0))
    line = state, direction, minibatches(), [1e-9]
    surrogate, finite = landscape.surrogate_alignment(spiking_network, *line)
    monkeypatch.setattr(network, "fast", None)
    assert landscape.surrogate_alignment(spiking_network, *line).surrogate == pytest.approx(surrogate, rel=1e-9)
    plain = copy.deepcopy(spiking_network).eval()
    torch.stack([cross_entropy(plain(x), y) for x, y in minibatches()]).mean().backward()
    own = dict(plain.named_parameters())
    expected = sum(float((own[name].grad * tensor).sum()) for name, tensor in direction.items())
    assert surrogate == pytest.approx(expected, rel=1e-9)
    assert surrogate != 0
    # Hidden weights act through spikes alone: the loss of hard spikes has no slope but for jumps.
    assert (finite[0] == 0) == (part == "hidden")


# Sharpness


class OneFrame(nn.Linear):
    """A linear model of an utterance's first frame."""

    def forward(self, features):
        return super().forward(features[:, 0])


def test_sharpness_is_the_rise_of_single_losses_over_that_without_noise():
    network = OneFrame(2, 3).double()
    state, noise, rises = network_state(network), seed(3), []
    inputs, labels = torch.randn(7, 2, dtype=torch.float64), torch.arange(7) % 3

    def loss(bias):
        return float(cross_entropy(inputs @ state["weight"].T + bias, labels))

    found = landscape.sharpness(network, state, ["bias"], 0.5, inputs[:, None], labels, 4, seed(3))
    for _ in range(4):
        other = state["bias"] + 0.5 * torch.randn(3, generator=noise, dtype=torch.float64)
        rises.append(loss(other) - loss(state["bias"]))
    assert found == (pytest.approx(np.mean(rises), abs=1e-9), pytest.approx(max(rises), abs=1e-9))


def test_no_noise_raises_nothing_and_the_network_stays_as_it_was(spiking_network, state):
    features, labels = torch.randn(6, 10, 3, dtype=torch.float64), torch.arange(6) % 4
    before = posteriors.network_state(spiking_network)
    still = landscape.sharpness(spiking_network, state, list(state), 0.0, features, labels, 2, seed(0))
    assert still == (0, 0)
    noisy = landscape.sharpness(spiking_network, state, ["readout.weight"], 0.5, features, labels, 2, seed(0))
    assert noisy.worst > noisy.mean != 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in network_state(spiking_network).items())
