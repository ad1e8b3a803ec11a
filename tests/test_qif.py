"""QIF neurons against the closed form of their period, an integration of their equation, and continuity."""

import math

import numpy as np
import pytest
import torch

from lib.neurons.qif import QIFLayer, qif

LEAK = torch.tensor([0.9], dtype=torch.float64)


def constant(current, steps=400):
    return torch.full((steps, 1, 1), float(current), dtype=torch.float64)


@pytest.mark.parametrize("current", [0.3, 1.0, 2.0, 40.0])
def test_a_constant_current_gives_the_period_of_the_closed_form(current):
    """From minus infinity to infinity it takes pi tau / sqrt(current - 1/4)."""
    period = math.pi / -math.log(0.9) / math.sqrt(current - 0.25)
    assert float(qif(constant(current, 2_000), LEAK).sum()) == pytest.approx(2_000 / period, abs=1.5)


@pytest.mark.parametrize("current", [-3.0, 0.0, 0.2])
def test_below_a_quarter_it_is_silent(current):
    assert (qif(constant(current), LEAK) == 0).all()


def test_the_first_spike_is_that_of_the_differential_equation():
    """From rest to infinity, by the integral of dv / (v^2 - v + current)."""
    train, root = qif(constant(0.6), LEAK).flatten().numpy(), math.sqrt(0.6 - 0.25)
    time = (math.pi / 2 + math.atan(0.5 / root)) / root / -math.log(0.9)
    step = int(np.flatnonzero(train)[0])
    assert step == math.floor(time)
    assert train[step] == pytest.approx(1 - (time - step), abs=0.02)


def test_trains_are_continuous_in_the_current_and_follow_their_gradient():
    """Where a train moves most it is looked at ten times as closely, again and again."""
    torch.manual_seed(0)
    base, direction = 3 * torch.randn(2, 60, 1, 5, dtype=torch.float64)
    leak, low, high, moved = torch.linspace(0.82, 0.96, 5, dtype=torch.float64), 0.0, 0.5, []
    for _ in range(6):
        alphas = np.linspace(low, high, 21)
        trains = torch.stack([qif(base + alpha * direction, leak) for alpha in alphas])
        moves = trains.diff(dim=0).abs().amax(dim=(1, 2, 3))
        low, high = alphas[int(moves.argmax()) :][:2]
        moved.append(float(moves.max()))
    assert moved[0] > 0.5
    assert moved[-1] < 1e-3
    assert torch.autograd.gradcheck(qif, (base[:20].requires_grad_(), leak.requires_grad_()))


def test_the_series_near_a_drive_of_zero_joins():
    around = 0.25 + torch.linspace(-3e-4, 3e-4, 601, dtype=torch.float64)
    trains = qif(torch.stack([around] * 30)[:, None] * 1.0, torch.full((601,), 0.9, dtype=torch.float64))
    assert (trains == 0).all()


def test_every_parameter_of_a_layer_learns():
    torch.manual_seed(0)
    layer = QIFLayer(4, 6)
    torch.nn.init.constant_(layer.norm.weight, 6)
    layer(torch.randn(30, 8, 4)).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
