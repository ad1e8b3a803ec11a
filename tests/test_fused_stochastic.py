"""The drawn neurons with their adjoint by hand, against the plain form and autograd."""

from functools import partial

import pytest
import torch

from lib.fused.stochastic import drawn_lif
from lib.neurons.stochastic import SLOPES, bernoulli_spike, stochastic_lif

LEAK = 0.9


def inputs(recurrent, spread, seed=3):
    generator = torch.Generator().manual_seed(seed)
    random = partial(torch.randn, generator=generator, dtype=torch.float64)
    given = [0.6 + 0.5 * random(12, 5, 6), (0.1 + random(12, 5, 6 if spread == "weight" else 1)).square()]
    if recurrent:
        given += [0.5 * random(6, 6), 0.2 * random(6, 6).square()]
    return [tensor.requires_grad_() for tensor in given]


def plain(current, variance, *recurrent, slope):
    def fire(excess, deviation):
        return bernoulli_spike(excess / deviation, SLOPES[slope])

    return stochastic_lif(current, variance, LEAK, recurrent or None, fire)


def fused(current, variance, *recurrent, slope):
    return drawn_lif(current, variance, LEAK, recurrent or None, SLOPES[slope])


def loss_of(response):
    """Of all three outputs, and nonlinear in each."""
    weight = torch.arange(6, dtype=torch.float64) - 2
    return (
        (response.spikes.mean(dim=0) @ weight).square().sum()
        + (response.current.square() / response.variance.clamp(min=0.05)).mean()
        + response.variance.square().mean()
    )


@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize("spread", ["matrix", "weight"])
@pytest.mark.parametrize("recurrent", [False, True])
def test_spikes_and_gradients_are_the_plain_form_s(recurrent, spread, slope):
    found = []
    for form in (plain, fused):
        given = inputs(recurrent, spread)
        torch.manual_seed(1)
        response = form(*given, slope=slope)
        found.append((response, torch.autograd.grad(loss_of(response), given)))
    (expected, gradients), (response, ours) = found
    assert 0 < expected.spikes.mean() < 1
    assert torch.equal(response.spikes, expected.spikes)
    torch.testing.assert_close(response.current, expected.current, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(response.variance.expand_as(expected.variance), expected.variance, rtol=1e-12, atol=0)
    for gradient, reference in zip(ours, gradients, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-9, atol=1e-10)


def test_without_noise_the_variance_has_no_gradient_and_nothing_is_nan():
    current, variance = (torch.full((4, 2, 3), value, dtype=torch.float64, requires_grad=True) for value in (0.4, 0.0))
    response = fused(current, variance, slope="straight-through")
    response.spikes.sum().backward()
    assert current.grad.isfinite().all()
    assert not variance.grad.any()
