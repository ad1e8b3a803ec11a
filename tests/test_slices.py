"""Slices against PyTorch's cross-entropy at shifted weights, and against closed forms on linear models."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from toys import Noisy, seed

from lib import landscape, posteriors, slices
from lib.posteriors import MeanFieldGaussian, Mixture, PointMass, network_state

ALPHAS = [-1.0, -0.25, 0.0, 0.5, 2.0]


def minibatches():
    noise = torch.Generator().manual_seed(1)
    features = torch.randn(3, 4, 12, 3, generator=noise, dtype=torch.float64)
    return list(zip(features, torch.randint(4, (3, 4), generator=noise), strict=True))


@pytest.fixture
def state(spiking_network):
    return network_state(spiking_network)


@pytest.fixture
def direction(spiking_network, generator):
    return slices.random_direction(spiking_network.named_parameters(), generator)


@pytest.fixture
def posterior(spiking_network, state):
    std = {name: torch.full_like(weight.detach(), 0.2) for name, weight in spiking_network.named_parameters()}
    return MeanFieldGaussian(state, std)


# Directions


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_direction_has_unit_norm_over_all_parameters_together(dtype):
    network = nn.Linear(300, 40, dtype=dtype)
    direction = slices.random_direction(network.named_parameters(), seed(0))
    assert {name: tensor.shape for name, tensor in direction.items()} == {"weight": (40, 300), "bias": (40,)}
    assert all(tensor.dtype == dtype and not tensor.requires_grad for tensor in direction.values())
    squares = {name: float(tensor.double().square().sum()) for name, tensor in direction.items()}
    assert sum(squares.values()) == pytest.approx(1, abs=1e-6)
    # The weights are 300 / 301 of the parameters; the share of the 40 others has a standard deviation of 7e-4.
    assert squares["bias"] == pytest.approx(1 / 301, abs=4e-3)


def test_directions_follow_from_the_generator_and_are_uniform_on_the_sphere():
    model = nn.Linear(2, 1)

    def points(generator):
        found = [slices.random_direction(model.named_parameters(), generator) for _ in range(3_000)]
        return torch.stack([torch.cat([d["weight"].flatten(), d["bias"]]) for d in found])

    found = points(seed(0))
    assert torch.equal(found[:5], points(seed(0))[:5])
    # On the sphere in three dimensions each coordinate is uniform on [-1, 1] (Archimedes): mean 0, variance 1/3.
    assert (found.mean(dim=0).abs() < 5 * (1 / 3 / 3_000) ** 0.5).all()
    for coordinate in found.T:
        quantiles = torch.quantile(coordinate, torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9]))
        torch.testing.assert_close(quantiles, torch.tensor([-0.8, -0.5, 0.0, 0.5, 0.8]), rtol=0, atol=0.06)


# Equation 19


def by_hand(network, state, direction, alpha):
    """The network itself at the shifted weights, in evaluation mode."""
    shifted = copy.deepcopy(network).eval().requires_grad_(False)
    shifted.load_state_dict({name: tensor + alpha * direction.get(name, 0) for name, tensor in state.items()}, False)
    return shifted


def test_the_deterministic_slice_is_pytorch_s_cross_entropy_at_the_shifted_weights(spiking_network, state, direction):
    batches, expected = minibatches(), []
    direction = {name: 5 * tensor for name, tensor in direction.items()}
    losses = slices.deterministic_loss(spiking_network, state, direction, ALPHAS, batches)
    for alpha in ALPHAS:
        shifted = by_hand(spiking_network, state, direction, alpha)
        expected.append(np.mean([cross_entropy(shifted(x), y).item() for x, y in batches]))
    np.testing.assert_allclose(losses, expected, rtol=1e-12)
    assert len(set(losses)) == len(ALPHAS)  # far enough apart for the comparison to say something
    again = slices.deterministic_loss(spiking_network, state, direction, np.array(ALPHAS), batches)
    np.testing.assert_array_equal(losses, again)


def test_a_slice_does_not_depend_on_the_network_s_mode_or_weights(spiking_network, state, direction):
    line = state, direction, ALPHAS, minibatches()
    losses = slices.deterministic_loss(spiking_network.train(), *line)
    assert spiking_network.training
    with torch.no_grad():
        for parameter in spiking_network.parameters():
            parameter.add_(1)
    np.testing.assert_array_equal(slices.deterministic_loss(spiking_network.eval(), *line), losses)
    after = network_state(spiking_network)
    assert all(torch.equal(after[name], tensor) for name, tensor in state.items() if "running" in name)


class Logistic(nn.Module):
    """Logits [w x, 0] for frames of one constant x: the probability of class 0 is sigmoid(w x)."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, features):
        score = self.weight * features[:, 0, 0]
        return torch.stack([score, torch.zeros_like(score)], dim=-1)


def of_ones(size, label):
    return torch.ones(size, 2, 1, dtype=torch.float64), torch.full((size,), label)


def scalar(value):
    return {"weight": torch.tensor(float(value), dtype=torch.float64)}


def test_a_logistic_slice_has_its_closed_form():
    # Cross-entropy of class 0 at w = 0.5 + 2 alpha is log(1 + exp(-w)).
    losses = slices.deterministic_loss(Logistic(), scalar(0.5), scalar(2), ALPHAS, [of_ones(3, 0)])
    np.testing.assert_allclose(losses, [math.log1p(math.exp(-(0.5 + 2 * alpha))) for alpha in ALPHAS], rtol=1e-13)
    # log(1 + exp(-1)) for class 0 and log(1 + exp(1)) for class 1: minibatches count alike, not one to three.
    batches = [of_ones(1, 0), of_ones(3, 1)]
    (loss,) = slices.deterministic_loss(Logistic(), scalar(1), scalar(1), [0.0], batches)
    assert loss == pytest.approx((0.31326168751822286 + 1.3132616875182228) / 2, rel=1e-13)


# Equation 20


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_bayesian_logistic_slice_is_the_integral_over_the_shifted_gaussian(alpha):
    # -log of the integral of sigmoid(w) over N(0.3 + alpha, 1.5^2), by Gauss-Hermite quadrature.
    nodes, quadrature = np.polynomial.hermite_e.hermegauss(60)
    expected = -np.log(np.sum(quadrature / (1 + np.exp(-(0.3 + alpha + 1.5 * nodes)))) / np.sum(quadrature))
    (loss,) = slices.bayesian_loss(
        Logistic(), MeanFieldGaussian(scalar(0.3), scalar(1.5)), scalar(1), [alpha], [of_ones(2, 0)], 4_000, seed(1)
    )
    # A sigmoid's standard deviation is at most 1/2, so the mean's is below 0.008, relative to 0.35 or more.
    assert loss == pytest.approx(expected, abs=0.05)


def test_the_prediction_is_averaged_before_its_logarithm():
    # Half the samples are surely right, half surely wrong: -log 1/2. The mean of their losses would be 10.
    sure = Mixture((PointMass(scalar(20)), PointMass(scalar(-20))))
    (loss,) = slices.bayesian_loss(Logistic(), sure, scalar(0), [0.0], [of_ones(2, 0)], 2_000, seed(1))
    assert loss == pytest.approx(math.log(2), abs=1e-6)


def test_the_bayesian_slice_is_that_of_the_samples_themselves(spiking_network, posterior, direction):
    batches, noise, expected = minibatches(), seed(5), []
    losses = slices.bayesian_loss(spiking_network, posterior, direction, ALPHAS, batches, 3, seed(5))
    samples = [posterior.sample(noise) for _ in range(3)]
    for alpha in ALPHAS:
        networks = [by_hand(spiking_network, sample, direction, alpha) for sample in samples]
        averaged = [torch.stack([one(x).softmax(-1)[range(len(y)), y] for one in networks]).mean(0) for x, y in batches]
        expected.append(np.mean([-float(of_batch.log().mean()) for of_batch in averaged]))
    np.testing.assert_allclose(losses, expected, rtol=1e-10)


@pytest.mark.parametrize("noisy", [False, True])
def test_every_alpha_sees_the_same_noise_in_whatever_order(spiking_network, posterior, direction, noisy):
    around = Noisy((posterior,)) if noisy else posterior

    def losses(alphas, number=5):
        return slices.bayesian_loss(spiking_network, around, direction, alphas, minibatches(), 4, seed(number))

    before, forwards = torch.get_rng_state(), losses(ALPHAS)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(losses(ALPHAS[::-1])[::-1], forwards)
    np.testing.assert_array_equal([losses([alpha])[0] for alpha in ALPHAS], forwards)
    assert len(set(forwards)) == len(ALPHAS)
    assert (losses(ALPHAS, 6) != forwards).all()


@pytest.mark.parametrize("noisy", [False, True])
def test_where_nothing_moves_the_slice_is_that_of_the_predictions(spiking_network, posterior, direction, noisy):
    around, batches = Noisy((posterior,)) if noisy else posterior, minibatches()
    (loss,) = slices.bayesian_loss(spiking_network, around, direction, [0.0], batches, 3, seed(5))
    features, labels = (torch.cat(part) for part in zip(*batches, strict=True))
    predicted = posteriors.predict(spiking_network, around, features, 3, seed(5)).mean(dim=0)
    of_batches = predicted[range(len(labels)), labels].log().split([len(labels) for _, labels in batches])
    assert loss == pytest.approx(np.mean([-float(part.mean()) for part in of_batches]), rel=1e-10)


def test_the_losses_of_several_numbers_of_samples_are_those_of_the_first_ones(spiking_network, posterior, direction):
    line = direction, ALPHAS, minibatches()
    losses = slices.bayesian_losses(spiking_network, posterior, *line, [1, 4, 2], seed(5))
    assert losses.shape == (3, len(ALPHAS))
    whole = slices.bayesian_loss(spiking_network, posterior, *line, 4, seed(5))
    np.testing.assert_allclose(losses[1], whole, rtol=1e-13)
    first = slices.deterministic_loss(spiking_network, posterior.sample(seed(5)), *line)
    np.testing.assert_allclose(losses[0], first, rtol=1e-13)
    _, single = slices.sampled_losses(spiking_network, posterior, *line, [4], seed(5))
    each = [slices.deterministic_loss(spiking_network, state, *line) for state in posterior.draws(4, seed(5))]
    np.testing.assert_allclose(single, each, rtol=1e-13)


# Curves


def test_curves_are_the_two_losses_along_the_same_directions_through_each_mean(spiking_network, posterior):
    other = {name: tensor + 0.1 for name, tensor in posterior.mean.items()}
    means, batches = {"map": other, "ivon": posterior.mean}, minibatches()
    given = {"alphas": ALPHAS, "directions": 2, "samples": 3}
    table = landscape.curves(spiking_network, means, posterior.std, batches, **given)
    assert len(table) == 2 * 2 * 2 * len(ALPHAS)
    second = slices.random_direction(spiking_network.named_parameters(), seed(1))
    for method, mean in means.items():
        around = MeanFieldGaussian(mean, posterior.std)
        of_method = table[(table["method"] == method) & (table["direction"] == 1)].set_index("loss")
        assert of_method.loc["point", "alpha"].tolist() == ALPHAS
        point = slices.deterministic_loss(spiking_network, mean, second, ALPHAS, batches)
        averaged = slices.bayesian_loss(spiking_network, around, second, ALPHAS, batches, 3, seed(0))
        np.testing.assert_array_equal(of_method.loc["point", "nll"], point)
        np.testing.assert_array_equal(of_method.loc["averaged", "nll"], averaged)
    alone = landscape.curves(spiking_network, means, None, batches, **given)
    assert alone.equals(table[table["loss"] == "point"].reset_index(drop=True))


def test_roughness_is_the_root_mean_square_second_difference():
    assert slices.roughness(np.array([0.0, 0.0, 3.0, 0.0])) == pytest.approx(math.sqrt((3**2 + 6**2) / 2))
    assert slices.roughness(np.arange(5.0)) == 0


# Bad input


def test_what_a_slice_cannot_be_taken_on_is_refused(spiking_network, posterior, direction):
    network, mean, batches = spiking_network, posterior.mean, minibatches()
    with pytest.raises(ValueError, match="at least one minibatch"):
        slices.deterministic_loss(network, mean, direction, ALPHAS, [])
    with pytest.raises(ValueError, match="at least 1 sample"):
        slices.bayesian_losses(network, posterior, direction, ALPHAS, batches, [4, 0], seed(0))
    with pytest.raises(ValueError, match="which the network does not have"):
        slices.deterministic_loss(network, mean, {"height": torch.ones(3)}, ALPHAS, batches)
    with pytest.raises(ValueError, match="another network's"):
        slices.deterministic_loss(network, mean | {"readout.bias": torch.ones(5)}, direction, ALPHAS, batches)
    assert slices.deterministic_loss(network, mean, direction, [], batches).shape == (0,)
