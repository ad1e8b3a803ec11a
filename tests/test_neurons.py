"""The LIF neuron against voltages worked out by hand, a loop over its equations, and PyTorch's own autograd."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib import neurons


class Boxcar(torch.autograd.Function):
    """One step's spike, with the surrogate derivative as the paper's words have it."""

    @staticmethod
    def forward(ctx, potential, threshold):
        ctx.save_for_backward(potential)
        ctx.threshold = threshold
        return (potential > threshold).to(potential.dtype)

    @staticmethod
    def backward(ctx, grad):
        (potential,) = ctx.saved_tensors
        inside = (potential >= ctx.threshold - 0.5) & (potential <= ctx.threshold + 0.5)
        return grad * inside, None


def equations(current, leak, threshold=1.0):
    """Equations 1 and 2, step by step: spikes and potentials that autograd can follow."""
    potential, spike = torch.zeros_like(current[0]), torch.zeros_like(current[0])
    potentials, spikes = [], []
    for step in current:
        potential = leak * (potential - spike) + (1 - leak) * step
        spike = Boxcar.apply(potential, threshold)
        potentials.append(potential)
        spikes.append(spike)
    return torch.stack(spikes), torch.stack(potentials)


def drawn(time=25, batch=4, units=3, dtype=torch.float64):
    current = 15 * torch.randn(time, batch, units, dtype=dtype)
    leak = torch.empty(units, dtype=dtype).uniform_(*neurons.LEAK_RANGE)
    return current, leak


# Six steps of one example; every value is exact in binary.
CURRENT = [2, 2, 2, 2, -1, 0]
BY_HAND = {
    # u1 = 0.5 * 0 + 0.5 * 2 = 1, which is not above the threshold;  u2 = 0.5 * 1 + 1 = 1.5, a spike;
    # u3 = 0.5 * (1.5 - 1) + 1 = 1.25, a spike;  u4 = 0.5 * (1.25 - 1) + 1 = 1.125, a spike;
    # u5 = 0.5 * (1.125 - 1) - 0.5 = -0.4375;  u6 = 0.5 * -0.4375
    0.5: ([1, 1.5, 1.25, 1.125, -0.4375, -0.21875], [0, 1, 1, 1, 0, 0]),
    # u1 = 0.25 * 2 = 0.5;  u2 = 0.75 * 0.5 + 0.5 = 0.875;  u3 = 0.75 * 0.875 + 0.5 = 1.15625, a spike;
    # u4 = 0.75 * 0.15625 + 0.5 = 0.6171875;  u5 = 0.75 * 0.6171875 - 0.25 = 0.212890625;  u6 = 0.75 * u5
    0.75: ([0.5, 0.875, 1.15625, 0.6171875, 0.212890625, 0.15966796875], [0, 0, 1, 0, 0, 0]),
}


def test_potentials_and_spikes_are_those_worked_out_by_hand():
    current = torch.tensor(CURRENT).float()[:, None, None].expand(-1, 1, 2)
    leak = torch.tensor(list(BY_HAND))
    potentials, spikes = zip(*BY_HAND.values(), strict=True)
    torch.testing.assert_close(neurons.lif_potential(current, leak)[:, 0].T, torch.tensor(potentials), rtol=0, atol=0)
    assert neurons.lif(current, leak)[:, 0].T.tolist() == [list(train) for train in spikes]


def test_a_spike_takes_one_from_the_potential_whatever_the_threshold():
    # u1 = 1 > 0.5;  u2 = 0.5 * (1 - 1) + 1 = 1. Taking the threshold away instead would make it 1.25.
    current, leak = torch.full((2, 1, 1), 2.0), torch.tensor([0.5])
    assert neurons.lif_potential(current, leak, threshold=0.5).flatten().tolist() == [1.0, 1.0]
    assert neurons.lif(current, leak, threshold=0.5).flatten().tolist() == [1.0, 1.0]


@pytest.mark.parametrize("threshold", [1.0, 0.6])
@pytest.mark.parametrize("time", [1, 2, 25])
def test_spikes_and_gradients_are_those_of_the_equations_under_autograd(time, threshold):
    current, leak = drawn(time)
    weight = torch.randn_like(current)
    results = []
    for form in (neurons.lif, lambda *given: equations(*given)[0]):
        inputs = current.clone().requires_grad_(), leak.clone().requires_grad_()
        spikes = form(*inputs, threshold)
        results.append((spikes.detach(), *torch.autograd.grad((weight * spikes).sum(), inputs)))
    (spikes, of_current, of_leak), (expected, expected_of_current, expected_of_leak) = results
    assert 0 < expected.sum() < expected.numel()
    assert torch.equal(spikes, expected)
    torch.testing.assert_close(of_current, expected_of_current, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(of_leak, expected_of_leak, rtol=1e-12, atol=1e-12)


def test_gradients_through_the_reset_are_those_worked_out_by_hand():
    # leak 0.5, currents 2.5 and 1: u1 = 1.25 (spike), u2 = 0.5 * 0.25 + 0.5 = 0.625; both within the boxcar.
    # For s2 alone: ds2/du1 = 0.5 * (1 - 1) = 0 through leak and reset, so ds2/dI = [0, 0.5];
    # ds2/dleak = (u1 - s1) - I2 = 0.25 - 1.
    # For s1 alone: ds1/dI = [0.5, 0], ds1/dleak = -I1.
    current = torch.tensor([2.5, 1.0])[:, None, None].requires_grad_()
    leak = torch.tensor([0.5], requires_grad=True)
    first, second = neurons.lif(current, leak).flatten()
    of_current, of_leak = torch.autograd.grad(second, (current, leak), retain_graph=True)
    assert (of_current.flatten().tolist(), of_leak.tolist()) == ([0.0, 0.5], [-0.75])
    of_current, of_leak = torch.autograd.grad(first, (current, leak))
    assert (of_current.flatten().tolist(), of_leak.tolist()) == ([0.5, 0.0], [-2.5])


def test_gradients_pass_back_through_the_leak_outside_the_boxcar():
    # leak 0.5, currents 0.5 and 2: u1 = 0.25 (outside), u2 = 0.125 + 1 = 1.125 (inside).
    # ds2/dI = [0.5 * 0.5, 0.5];  ds2/dleak = (u1 - I2) + 0.5 * (0 - I1) = -1.75 - 0.25.
    current = torch.tensor([0.5, 2.0])[:, None, None].requires_grad_()
    leak = torch.tensor([0.5], requires_grad=True)
    neurons.lif(current, leak)[1].sum().backward()
    assert (current.grad.flatten().tolist(), leak.grad.tolist()) == ([0.25, 0.5], [-2.0])


@given(
    time=st.integers(1, 6),
    batch=st.integers(1, 4),
    units=st.integers(1, 4),
    transposed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_shape_and_memory_layout_gives_the_spikes_of_the_equations(time, batch, units, transposed, seed):
    torch.manual_seed(seed)
    current, leak = drawn(time, batch, units)
    if transposed:
        current = current.transpose(0, 2).contiguous().transpose(0, 2)
    spikes, potentials = equations(current, leak)
    assert torch.equal(neurons.lif(current, leak), spikes)
    torch.testing.assert_close(neurons.lif_potential(current, leak), potentials, rtol=1e-13, atol=1e-13)


def test_a_gradient_shared_by_all_time_steps_needs_no_memory_of_its_own():
    current, leak = drawn()
    results = []
    for form in (neurons.lif, lambda *given: equations(*given)[0]):
        inputs = current.clone().requires_grad_(), leak.clone().requires_grad_()
        results.append(torch.autograd.grad(form(*inputs).mean(dim=0).square().sum(), inputs))
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("potential", "height"),
    [(0.5, 1), (0.4999, 0), (1.0, 1), (1.5, 1), (1.5001, 0), (-1.0, 0), (float("nan"), 0)],
)
def test_the_boxcar_is_one_within_half_a_unit_of_the_threshold(potential, height):
    assert neurons.boxcar(torch.tensor([potential])).item() == height
    assert neurons.boxcar(torch.tensor([potential + 2]), threshold=3.0).item() == height


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_types_are_kept(dtype):
    current, leak = drawn(dtype=dtype)
    assert neurons.lif(current, leak).dtype == dtype
    assert neurons.lif_potential(current, leak).dtype == dtype
    assert neurons.boxcar(current).dtype == dtype


def test_potentials_carry_no_gradient():
    current, leak = drawn()
    assert not neurons.lif_potential(current.requires_grad_(), leak.requires_grad_()).requires_grad


def test_the_leaks_are_those_of_5_and_25_steps():
    # exp(-0.2) and exp(-0.04)
    shortest, longest = neurons.LEAK_RANGE
    assert shortest == pytest.approx(0.8187307530779818, abs=1e-15)
    assert longest == pytest.approx(0.9607894391523232, abs=1e-15)
