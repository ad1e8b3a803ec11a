"""The laws of averages against curves whose averages are known, and crossings against a density in closed form."""

import math

import numpy as np
import pytest
import torch
from scipy.signal import fftconvolve
from torch.nn.functional import cross_entropy

from lib import slices, theory
from lib.network import SpikingClassifier
from lib.networks import NetworkSettings, build
from lib.neurons.radlif import RadLIFLayer
from lib.theory import Staircase


def second(curve, apart):
    return curve[2 * apart :] - 2 * curve[apart:-apart] + curve[: -2 * apart]


@pytest.fixture
def random():
    return np.random.default_rng(0)


def test_the_law_of_draws_is_exact_for_all_draws_together(random):
    differences = random.normal(size=(7, 1)) * random.normal(size=5) + random.normal(size=5)
    whole = theory.moments(differences)
    assert whole.first == pytest.approx(np.square(differences).mean())
    assert theory.averaged(whole, 7) == pytest.approx(np.square(differences.mean(axis=0)).mean())
    assert theory.averaged(whole, 1) == whole.first


def test_brownian_motions_around_one_parabola(random):
    """Of steps of variance 1 the second difference over 3 has the variance 6; that of the parabola is 9 everywhere."""
    motions = random.normal(size=(100, 4_000)).cumsum(axis=1) + np.arange(4_000) ** 2 / 2
    found = theory.moments(np.array([second(motion, 3) for motion in motions]))
    assert found == pytest.approx((87, 81), rel=0.01)
    average = np.square(second(motions[:50].mean(axis=0), 3)).mean()
    assert theory.averaged(found, 50) == pytest.approx(average, rel=0.02)


def test_fresh_noise_adds_six_variances(random):
    curve = np.cos(np.arange(100_000) / 10)
    noisy = curve + random.normal(size=(8, 100_000)).mean(axis=0)
    exact = np.square(second(curve, 4)).mean()
    assert theory.freshly_averaged(exact, 1.0, 8) == pytest.approx(np.square(second(noisy, 4)).mean(), rel=0.02)


def test_draws_of_equal_probability_count_in_full_and_one_that_has_it_all_alone(random):
    differences = random.normal(size=(16, 20, 3))
    assert theory.effective_share(np.full((16, 20, 3), 0.3), differences) == pytest.approx(1)
    alone = np.full((16, 20, 3), 1e-9)
    alone[0] = 1
    expected = np.square(differences).mean(axis=0).sum() / np.square(differences[0]).sum() / 16
    assert theory.effective_share(alone, differences) == pytest.approx(expected, rel=1e-6)


def test_the_share_is_that_of_the_averaged_probabilities_curve(random):
    """Probabilities that move a little and alike: the variance of the loss of their mean, by simulation."""
    middle = random.uniform(0.1, 0.9, size=(8, 1, 1))
    moves = random.normal(size=(8, 20_000, 1)) * 1e-4
    loss = -np.log((middle * np.exp(-moves)).mean(axis=0)) + np.log(middle.mean(axis=0))
    share = theory.effective_share(np.broadcast_to(middle, moves.shape), moves)
    assert np.square(moves).mean() / loss.var() == pytest.approx(8 * share, rel=0.03)


def test_a_telegraph_signal(random):
    """It turns from 1 to -1 and back at the rate 5: its correlation is exp(-10 r)."""
    apart, stairs = 0.002, Staircase(1.0, 0.1, 0.0)
    signal = np.where(random.uniform(size=500_000) < 5 * apart, -1, 1).cumprod()
    blurred = fftconvolve(signal, np.exp(-((np.arange(-200, 201) / 50) ** 2) / 2) / (50 * math.sqrt(2 * math.pi)))
    for steps in (3, 30, 150):
        measured = np.square(second(signal, steps)).mean()
        assert theory.structure(steps * apart, stairs) == pytest.approx(measured, rel=0.1)
    for steps in (30, 150):
        measured = np.square(second(blurred, steps)).mean()
        assert theory.structure_along(steps * apart, stairs, 0.1) == pytest.approx(measured, rel=0.1)


def test_a_random_field_of_many_coordinates(random):
    """Waves of Cauchy's wave numbers have the correlation exp(-r / l); noise damps each by exp(-(spread |w|)^2 / 2)."""
    length, reach, z = 0.2, 0.3, np.abs(random.normal(size=400_000))
    along = random.normal(size=400_000) / (z * length)  # a wave number's part along the line
    damped = np.exp(
        -((reach / (z * length)) ** 2)
    )  # squared: of n coordinates |w|^2 is n / (z l)^2, spread^2 reach^2/n
    for h in (0.05, 0.2, 0.8):
        of_waves = np.square(2 - 2 * np.cos(along * h))  # second differences of waves of variance 1
        for factor, spread in ((1, 0.0), (damped, reach)):
            found = theory.structure(h, Staircase(1.0, length, 0.0), spread)
            assert found == pytest.approx((of_waves * factor).mean(), rel=0.05), (h, spread)


@pytest.mark.parametrize("law", [theory.structure, theory.structure_along])
def test_a_bowl_is_averaged_to_itself_and_no_noise_changes_nothing(law):
    h = np.geomspace(0.01, 1, 5)
    assert law(h, Staircase(0.0, 1.0, 3.0), 0.7) == pytest.approx(9 * h**4)
    stairs = Staircase(0.4, 0.2, 0.1)
    point = 0.4 * (6 - 8 * np.exp(-h / 0.2) + 2 * np.exp(-2 * h / 0.2)) + 0.01 * h**4
    assert law(h, stairs, 0.0) == pytest.approx(point)


def test_a_staircase_is_found_again():
    h, stairs = 2.0 ** np.arange(-11, 1), Staircase(3e-4, 0.11, 0.05)
    assert theory.fitted(h, theory.structure(h, stairs)) == pytest.approx(stairs, rel=1e-3)


def one_step_network(units=3):
    """One layer without norm's effect, one time step: a potential is (1 - leak) times a weighted sum of features."""
    torch.manual_seed(0)
    network = SpikingClassifier(4, 2, (units,), dropout=0.0).double().eval()
    network.layers[0].bounded = False
    with torch.no_grad():
        network.layers[0].raw_leak.fill_(0.9)
        network.layers[0].norm.weight.fill_(12.0)
    return network


def test_crossings_of_gaussian_potentials():
    """Rice's formula: density at the threshold times the mean size of an independent Gaussian speed."""
    network, count = one_step_network(), 100_000
    state = {name: tensor.clone() for name, tensor in network.state_dict().items() if tensor.is_floating_point()}
    with torch.no_grad():
        weight = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0.5, 0]], dtype=torch.float64)
        state["layers.0.linear.weight"] = weight
    direction = {"layers.0.linear.weight": torch.zeros(3, 4, dtype=torch.float64)}
    direction["layers.0.linear.weight"][:, 3] = 0.7
    features = torch.randn(count, 1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ((found, sample),) = theory.crossings(network, state, direction, features, 50, torch.Generator().manual_seed(2))
    gain = 0.1 * 12 / math.sqrt(1 + 1e-5)
    deviations = gain * weight.norm(dim=1).numpy()
    densities = np.exp(-((1 / deviations) ** 2) / 2) / (deviations * math.sqrt(2 * math.pi))
    speed = gain * 0.7 * math.sqrt(2 / math.pi)
    assert found.density == pytest.approx(densities.mean(), rel=0.03)
    assert found.speed == pytest.approx(speed, rel=0.03)
    assert found.number == pytest.approx(count * densities.sum() * speed, rel=0.04)
    assert found.number == pytest.approx(found.density * found.speed * found.potentials)
    assert (sample.above.abs() < theory.NEAR).all()
    assert sample.places[:, 0].max() == 0


def test_steps_are_the_losses_on_both_sides_of_a_crossing():
    network = one_step_network()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items() if tensor.is_floating_point()}
    features = torch.randn(40, 1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(40) % 2
    places = torch.tensor([[0, 5, 1]])
    network.requires_grad_(False)
    current = theory.driven(theory.at(network, state), features)[0].current
    above = theory.potentials(network.layers[0], current)[0, 5, 1] - 1
    found = theory.steps(network, state, 0, theory.Sample(places, above[None]), features, labels)
    train = network.layers[0].spikes(current)
    flipped = train.clone()
    flipped[0, 5, 1] = 1 - flipped[0, 5, 1]
    before, after = (cross_entropy(network.classify(one), labels) for one in (train, flipped))
    assert found.share == 1
    assert found.square == pytest.approx(float((after - before) ** 2))


def test_predicted_steps_of_a_network_are_those_along_a_fine_line():
    torch.manual_seed(0)
    network = SpikingClassifier(4, 3, (12, 12), dropout=0.0).double().eval().requires_grad_(False)
    for layer in network.layers:
        layer.norm.weight.fill_(6)
        layer.norm.bias.fill_(1)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items() if tensor.is_floating_point()}
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(300, 20, 4, dtype=torch.float64, generator=generator)
    labels = torch.arange(300) % 3
    hidden = [(name, tensor) for name, tensor in network.named_parameters() if name.startswith("layers")]
    direction = slices.random_direction(hidden, generator)
    predicted = sum(
        found.number * theory.steps(network, state, depth, sample, features, labels).share
        for depth, (found, sample) in enumerate(theory.crossings(network, state, direction, features, 500, generator))
    )
    alphas = np.linspace(-100, 100, 1001) / predicted
    heights = np.diff(slices.deterministic_loss(network, state, direction, alphas, [(features, labels)]))
    seen = -1_000 * math.log((np.abs(heights) <= theory.ROUNDING).mean())
    assert seen == pytest.approx(predicted * (alphas[-1] - alphas[0]), rel=0.25)


def test_neurons_whose_potential_is_not_known_are_refused():
    with pytest.raises(ValueError, match="crossings are counted for LIF, adLIF and RLIF neurons, not for RadLIFLayer"):
        theory.potentials(RadLIFLayer(2, 3), torch.zeros(4, 1, 3))


def test_of_neurons_that_run_away_no_crossing_is_counted():
    torch.manual_seed(1)
    network = build(NetworkSettings(neuron="adlif"), 40, 7).double().eval().requires_grad_(False)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items() if tensor.is_floating_point()}
    generator = torch.Generator().manual_seed(0)
    hidden = [(name, tensor) for name, tensor in network.named_parameters() if name.startswith("layers")]
    features = 3 * torch.rand(20, 100, 40, dtype=torch.float64, generator=generator)
    with pytest.raises(ValueError, match="over 1e-07 every utterance has a spike that moves"):
        theory.crossings(network, state, slices.random_direction(hidden, generator), features, 50, generator)
