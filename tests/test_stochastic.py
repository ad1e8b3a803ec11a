"""Drawn spikes against draws of the weights, closed forms and quadrature; their gradients where they are exact."""

import math
from functools import partial

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch.autograd import grad

from lib.neurons.stochastic import SLOPES, bernoulli_spike, differentiable, relaxed, stochastic_lif, trapezoid

SCORES = [-3.0, -0.7, 0.0, 0.4, 2.5]


def mean_gradient(score, slope, loss):
    """The estimator's exact mean over the two spikes, at one score."""
    total = 0.0
    for spike, probability in ((1.0, norm.cdf(score)), (0.0, norm.cdf(-score))):
        at = torch.tensor(score, dtype=torch.float64, requires_grad=True)
        drawn = differentiable(torch.tensor(spike, dtype=torch.float64), at, slope)
        total += probability * float(grad(loss(drawn), at)[0])
    return total


def exact_gradient(score, loss):
    """Of ``Phi L(1) + (1 - Phi) L(0)``."""
    off, on = (float(loss(torch.tensor(spike))) for spike in (0.0, 1.0))
    return norm.pdf(score) * (on - off)


# The gradients


@pytest.mark.parametrize("score", SCORES)
def test_straight_through_is_exact_for_a_loss_linear_in_the_spike_and_trapezoid_for_a_quadratic_one(score):
    def linear(spike):
        return 3 * spike - 1

    def quadratic(spike):
        return 2 * spike**2 - 5 * spike

    assert mean_gradient(score, SLOPES["straight-through"], linear) == pytest.approx(exact_gradient(score, linear))
    for loss in (linear, quadratic):
        assert mean_gradient(score, SLOPES["trapezoid"], loss) == pytest.approx(exact_gradient(score, loss))
    # Straight-through errs by phi L'' (pi - 1/2), here with L'' = 4: not at all where both spikes are as probable.
    error = mean_gradient(score, SLOPES["straight-through"], quadratic) - exact_gradient(score, quadratic)
    assert error == pytest.approx(norm.pdf(score) * 4 * (norm.cdf(score) - 0.5), abs=1e-12)


@pytest.mark.parametrize("score", SCORES)
def test_trapezoid_errs_by_a_twelfth_of_the_third_derivative(score):
    # Of x^3: half of L'(0) + L'(1) is 3/2, and the integral of 3 x^2 is 1, so the error is L''' / 12 = 1/2.
    error = mean_gradient(score, trapezoid, lambda spike: spike**3) - exact_gradient(score, lambda spike: spike**3)
    assert error == pytest.approx(norm.pdf(score) / 2)


@pytest.mark.parametrize("width", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("spike", [0.0, 1.0])
def test_the_relaxation_s_slope_is_the_ramp_s_mean_over_the_noise_that_gives_the_spike(score, spike, width):
    # The ramp is on |score + noise| < width / 2; the noise that gives a spike is on one side.
    side, probability = ((0, width / 2), norm.cdf(score)) if spike else ((-width / 2, 0), norm.cdf(-score))
    on_ramp, _ = quad(lambda noisy: norm.pdf(noisy - score), *side)
    slope = relaxed(*torch.tensor([score, spike], dtype=torch.float64), width)
    assert float(slope) == pytest.approx(on_ramp / probability / width, rel=1e-8)


def test_a_narrow_ramp_is_the_trapezoid_and_a_wide_one_slopes_everywhere_the_same():
    score = torch.linspace(-5, 5, 11).double().repeat(2)
    spikes = torch.arange(22).lt(11).double()
    torch.testing.assert_close(relaxed(score, spikes, 1e-5), trapezoid(score, spikes), rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(relaxed(score, spikes, 100.0), torch.full_like(score, 0.01))


@pytest.mark.parametrize("slope", [*SLOPES.values(), partial(relaxed, width=0.1), partial(relaxed, width=50.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slopes_are_finite_and_not_negative_however_sure_the_spike(slope, dtype):
    score = torch.tensor([-1e6, -1e3, -40.0, -6.0, 0.0, 6.0, 40.0, 1e3, 1e6], dtype=dtype)
    likely = (score > 0).to(dtype)
    slopes = slope(score, likely)
    assert slopes.isfinite().all()
    assert slopes.ge(-1e-4).all()
    assert slopes.dtype == dtype
    assert slope(score, 1 - likely).isfinite().all()


# The spikes


def test_spikes_come_as_often_as_the_normal_distribution_says():
    score = torch.tensor(SCORES).expand(200_000, -1)
    rates = bernoulli_spike(score).mean(dim=0)
    torch.testing.assert_close(rates, torch.tensor(norm.cdf(SCORES)).float(), rtol=0, atol=4 * 0.5 / math.sqrt(2e5))


def rates_over_draws_of_weights(inputs, mean, deviation, leak, bound, each_step, draws=200_000):
    """One unit without spikes before the last step: how often its last potential is above the bound."""
    time, width = inputs.shape
    shape = (draws, time, width) if each_step else (draws, 1, width)
    weights = mean + deviation * torch.randn(shape, dtype=torch.float64)
    current = (weights * inputs).sum(dim=-1)
    potential = sum(leak ** (time - 1 - step) * current[:, step] for step in range(time))
    return float((potential > bound).double().mean())


def probability_of_last(inputs, mean, deviation, leak):
    """The same by local reparameterisation, spikes held at 0 so that nothing is reset."""
    scores = []

    def silent(excess, spread):
        scores.append(excess / spread)
        return torch.zeros_like(excess)

    current = (inputs @ mean)[:, None, None]
    variance = deviation**2 * inputs.square().sum(dim=1)[:, None, None]
    stochastic_lif(current, variance, leak, fire=silent)
    return float(norm.cdf(scores[-1].item()))


@pytest.mark.parametrize("time", [1, 6])
def test_spike_probabilities_are_those_of_weights_drawn_in_each_step(time):
    inputs = torch.randn(time, 4, dtype=torch.float64)
    mean = torch.tensor([0.3, -0.2, 0.5, 0.1], dtype=torch.float64)
    expected = rates_over_draws_of_weights(inputs, mean, 0.4, 0.9, 1.0, each_step=True)
    assert 0.01 < expected < 0.99
    assert probability_of_last(inputs, mean, 0.4, 0.9) == pytest.approx(expected, abs=4 * 0.5 / math.sqrt(2e5))


def test_weights_drawn_once_for_an_utterance_are_met_in_one_step_and_approximated_in_several():
    # The same input in each of 6 steps, so that the noise of one draw adds up: its variance is deviation^2 |x|^2 times
    # (sum leak^k)^2, in the place of sum leak^2k.
    inputs = torch.tensor([[0.5, -1.0, 0.8, 0.2]], dtype=torch.float64)
    mean = torch.tensor([0.1, 0.0, 0.1, 0.1], dtype=torch.float64)
    once = rates_over_draws_of_weights(inputs, mean, 0.4, 0.9, 1.0, each_step=False)
    assert probability_of_last(inputs, mean, 0.4, 0.9) == pytest.approx(once, abs=5e-3)
    inputs = inputs.expand(6, -1)
    powers = 0.9 ** torch.arange(6.0).double()
    centre, spread = float(inputs[0] @ mean * powers.sum()), 0.4 * float(inputs[0].norm())
    in_phase = norm.sf(1.0, centre, spread * float(powers.sum()))
    independent = norm.sf(1.0, centre, spread * float(powers.square().sum().sqrt()))
    once = rates_over_draws_of_weights(inputs, mean, 0.4, 0.9, 1.0, each_step=False)
    assert once == pytest.approx(in_phase, abs=5e-3)
    assert probability_of_last(inputs, mean, 0.4, 0.9) == pytest.approx(independent, abs=1e-9)
    assert in_phase - independent > 0.05


def test_potentials_and_variances_are_those_worked_out_by_hand():
    # leak 0.5; currents 2, 1, 0 of variances 1, 0, 2; a recurrent weight 3 from unit 1 to unit 0, of variance 4.
    # Unit 0: u = 2, spike; u = 0.5 (2 - 1) + 1 + 3 s = 4.5, spike;  u = 0.5 * 3.5 + 3 s = 1.75, as unit 1 was silent.
    #         q = 1;  q = 0.25 + 0 + 4 = 4.25;  q = 1.0625 + 2 = 3.0625.
    # Unit 1: u = 2, spike; u = 0.5 + 1 = 1.5, silent by force;  u = 0.75.   q = 1, 0.25, 2.0625.
    current = torch.tensor([2.0, 1.0, 0.0])[:, None, None].expand(-1, 1, 2)
    variance = torch.tensor([1.0, 0.0, 2.0])[:, None, None].expand(-1, 1, 2)
    weights = torch.tensor([[7.0, 3.0], [0.0, 7.0]]), torch.tensor([[7.0, 4.0], [0.0, 7.0]])
    forced = iter([torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])])
    seen = []

    def fire(excess, deviation):
        seen.append((excess + 1, deviation**2))
        return next(forced)

    response = stochastic_lif(current, variance, 0.5, weights, fire)
    potentials, variances = (torch.cat(values) for values in zip(*seen, strict=True))
    torch.testing.assert_close(potentials, torch.tensor([[2.0, 2.0], [4.5, 1.5], [1.75, 0.75]]))
    torch.testing.assert_close(variances, torch.tensor([[1.0, 1.0], [4.25, 0.25], [3.0625, 2.0625]]))
    assert response.spikes[:, 0].tolist() == [[1, 1], [1, 0], [0, 1]]
    assert response.current[:, 0].tolist() == [[2, 2], [4, 1], [0, 0]]
    assert response.variance[:, 0].tolist() == [[1, 1], [4, 0], [2, 2]]
