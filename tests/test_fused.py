"""The compiled pass against its plain form in PyTorch's operations: spikes to the bit, gradients to rounding."""

import copy
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from lib import fused, neurons
from lib.fused import cpu


def layer_state(units, dtype=torch.float32, training=True):
    """A norm that makes the neurons fire often, with running statistics of its own, and leaks."""
    norm = nn.BatchNorm1d(units, momentum=0.05, dtype=dtype)
    with torch.no_grad():
        norm.weight.uniform_(-4, 6)
        norm.bias.uniform_(0, 2)
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 3)
    return norm.train(training), torch.empty(units, dtype=dtype).uniform_(*neurons.LEAK_RANGE)


LAYOUTS = {
    "contiguous": lambda weighted: weighted,
    "batch first": lambda weighted: weighted.transpose(0, 1).contiguous().transpose(0, 1),
    "units first": lambda weighted: weighted.permute(2, 1, 0).contiguous().permute(2, 1, 0),
    "every other": lambda weighted: weighted.repeat_interleave(2, dim=2)[:, :, ::2],
}

# What comes after the spikes decides how the gradient arrives: one for each time step, or one for all.
READOUTS = {
    "each step": lambda spikes, weight: (spikes * weight).sum(),
    "mean rate": lambda spikes, weight: (spikes.mean(dim=0) * weight[0]).sum(),
    "sum": lambda spikes, weight: spikes.sum() / 3,
}


def run(form, weighted, norm, leak, dropout, readout="each step", layout="contiguous", seed=3, **others):
    """The spikes and the gradients for input, norm, leak and other parameters of one form, on its own copies."""
    norm = copy.deepcopy(norm)
    others = {name: tensor.clone().requires_grad_() for name, tensor in others.items()}
    leaves = weighted.clone().requires_grad_(), *norm.parameters(), leak.clone().requires_grad_()
    laid_out = LAYOUTS[layout](leaves[0])
    torch.manual_seed(seed)
    if form is fused.plain_spikes:
        drawn = int(torch.randint(fused.WORDS, ())) if dropout > 0 else 0
        spikes = form(laid_out, norm, leaves[-1], drawn, dropout, **others)
    else:
        spikes = form(laid_out, norm, leaves[-1], dropout, **others)
    weight = torch.linspace(-1, 2, weighted.numel(), dtype=weighted.dtype, device=weighted.device).view_as(weighted)
    gradients = torch.autograd.grad(READOUTS[readout](spikes, weight), [*leaves, *others.values()])
    return spikes.detach(), gradients, norm


def assert_same(weighted, norm, leak, dropout, readout="each step", layout="contiguous", **others):
    given = weighted, norm, leak, dropout, readout, layout
    spikes, gradients, own_norm = run(fused.spikes, *given, **others)
    expected, expected_gradients, plain_norm = run(fused.plain_spikes, *given, **others)
    assert torch.equal(spikes, expected)
    # Sums over time and batch are taken in another order, so the error is relative to the largest of a tensor.
    tolerance = {torch.float32: 2e-5, torch.float64: 1e-12}[weighted.dtype]
    for gradient, reference in zip(gradients, expected_gradients, strict=True):
        scale = float(torch.cat([reference.abs().flatten(), reference.new_ones(1)]).max())
        torch.testing.assert_close(gradient, reference, rtol=0, atol=tolerance * scale)
    for name, buffer in plain_norm.named_buffers():
        # Both are summed in double precision, in another order.
        tolerance = 1e-14 if buffer.dtype == torch.float64 else 0
        torch.testing.assert_close(own_norm.get_buffer(name), buffer, rtol=tolerance, atol=tolerance)


@settings(max_examples=200)
@given(
    time=st.integers(1, 9),
    batch=st.integers(2, 7),
    units=st.integers(1, 6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    training=st.booleans(),
    dropout=st.just(0.0) | st.floats(0.01, 0.95),
    readout=st.sampled_from(list(READOUTS)),
    layout=st.sampled_from(list(LAYOUTS)),
    seed=st.integers(0, 999),
)
def test_any_shape_layout_and_mode_gives_what_the_plain_form_gives(
    time, batch, units, dtype, training, dropout, readout, layout, seed
):
    torch.manual_seed(seed)
    weighted = 2 * torch.randn(time, batch, units, dtype=dtype) + torch.randn(units, dtype=dtype)
    assert_same(weighted, *layer_state(units, dtype, training), dropout, readout, layout)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_layer_of_ordinary_size_gives_what_the_plain_form_gives(dtype, training):
    weighted = torch.randn(60, 16, 33, dtype=dtype)
    norm, leak = layer_state(33, dtype, training)
    share = fused.spikes(weighted, copy.deepcopy(norm), leak).detach().mean()
    assert 0.05 < share < 0.95  # else the comparison would be of nothing
    assert_same(weighted, norm, leak, 0.2, "mean rate")


# The backward pass takes as many examples together through time and back as have 1,024 potentials a step.
@pytest.mark.parametrize(("batch", "units"), [(300, 9), (3, 700), (2, 1500)])
def test_a_large_batch_and_a_wide_layer_give_what_the_plain_form_gives(batch, units):
    weighted = torch.randn(4, batch, units)
    assert_same(weighted, *layer_state(units), 0.3)


def identity(units):
    """A norm that changes nothing: 1 + eps is 1 in floating point."""
    return nn.BatchNorm1d(units, eps=1e-30).eval()


def test_spikes_are_those_worked_out_by_hand():
    # Leak 0.5: u1 = 0.5 * 2 = 1, not above the threshold;  u2 = 0.5 * 1 + 1 = 1.5, a spike;
    # u3 = 0.5 * (1.5 - 1) + 1 = 1.25, a spike;  u4 = 0.5 * (1.25 - 1) - 0.5 = -0.375.
    weighted = torch.tensor([2.0, 2.0, 2.0, -1.0])[:, None, None]
    assert fused.spikes(weighted, identity(1), torch.tensor([0.5])).flatten().tolist() == [0, 1, 1, 0]


def test_potentials_exactly_on_an_edge_are_treated_as_the_plain_form_does():
    # Multiples of a quarter and a leak of one half are exact, and often fall on the threshold or the boxcar's edges.
    weighted = torch.randint(-8, 17, (6, 40, 5)) / 4
    leak = torch.full((5,), 0.5)
    potential = neurons.lif_potential(weighted, leak)
    assert all((potential == edge).any() for edge in (0.5, 1.0, 1.5))
    assert_same(weighted, identity(5), leak, 0.0)


@pytest.mark.parametrize(("mean", "std"), [(-1, 3), (1000, 0.05), (0, 1e-4)])
def test_statistics_are_those_of_the_norm_in_double_precision(mean, std):
    weighted = mean + std * torch.randn(50, 8, 5)
    norm, leak = layer_state(5)
    expected = copy.deepcopy(norm).double()
    for _ in range(3):
        fused.spikes(weighted, norm, leak)
        expected(weighted.flatten(0, 1).double())
    assert norm.num_batches_tracked == 3
    torch.testing.assert_close(norm.running_mean, expected.running_mean.float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(norm.running_var, expected.running_var.float(), rtol=1e-6, atol=0)
    batch_mean, variance = cpu.statistics(weighted)
    torch.testing.assert_close(batch_mean, weighted.double().mean(dim=(0, 1)).float())
    torch.testing.assert_close(variance, weighted.double().var(dim=(0, 1), correction=0).float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("mean", "std"), [(-1, 3), (1000, 0.05)])
def test_the_plain_form_normalises_as_the_norm_does(monkeypatch, training, mean, std):
    monkeypatch.setattr(neurons, "lif", lambda current, leak, threshold: current)
    weighted = mean + std * torch.randn(50, 8, 5)
    norm, leak = layer_state(5, training=training)
    own = copy.deepcopy(norm).double()
    current = fused.plain_spikes(weighted, norm, leak, 0, 0.0)
    # Each of the two large numbers whose difference the current is, is rounded a few times.
    rounding = 4 * torch.finfo(torch.float32).eps * (1 + abs(mean) / (std if training else 0.5)) * 6
    expected = own(weighted.double().flatten(0, 1)).view_as(weighted)
    torch.testing.assert_close(current, expected.float(), rtol=1e-6, atol=rounding)
    for name, buffer in own.named_buffers():
        torch.testing.assert_close(norm.get_buffer(name), buffer.to(norm.get_buffer(name).dtype), rtol=1e-6, atol=0)


@pytest.mark.parametrize("form", [fused.spikes, fused.plain_spikes])
@pytest.mark.parametrize(("time", "batch"), [(1, 1), (4, 0), (0, 4)])
def test_fewer_than_two_values_for_each_unit_are_refused_in_training(form, time, batch):
    norm, leak = layer_state(3)
    before = copy.deepcopy(norm.state_dict())
    with pytest.raises(ValueError, match="more than one value for each unit"):
        run(form, torch.zeros(time, batch, 3), norm, leak, 0.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in norm.state_dict().items())
    norm.eval()
    assert run(form, torch.zeros(time, batch, 3), norm, leak, 0.0)[0].shape == (time, batch, 3)


def test_evaluation_leaves_the_statistics_alone():
    norm, leak = layer_state(5, training=False)
    before = copy.deepcopy(norm.state_dict())
    fused.spikes(torch.randn(20, 8, 5), norm, leak, 0.3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in norm.state_dict().items())


def test_gradients_are_zero_where_no_potential_comes_near_the_threshold():
    norm, leak = layer_state(4, training=False)
    with torch.no_grad():
        norm.bias.fill_(-1000)
    spikes, gradients, _ = run(fused.spikes, torch.randn(6, 3, 4), norm, leak, 0.0)
    assert not spikes.any()
    assert all(not gradient.any() for gradient in gradients)


def test_gradients_are_the_leaky_sum_s_where_every_potential_is_near_the_threshold():
    # Within the boxcar throughout, du/ds cancels the leak: ds_t/dI_t = 1 - leak, and nothing else.
    # With the norm an identity (scale 1, shift 0, mean 0, variance 1) the current is the input, held at
    # u = 0.9 by I_1 = 0.9 / (1 - leak) and I_t = 0.9.
    leak = torch.tensor([0.85, 0.95], dtype=torch.float64)
    norm = identity(2).double()
    weighted = torch.full((5, 3, 2), 0.9, dtype=torch.float64)
    weighted[0] = 0.9 / (1 - leak)
    spikes, (of_weighted, of_scale, of_shift, of_leak), _ = run(fused.spikes, weighted, norm, leak, 0.0, "sum")
    assert not spikes.any()
    # Each of the 5 * 3 spikes counts a third.
    torch.testing.assert_close(of_weighted, ((1 - leak) / 3).expand(5, 3, 2))
    torch.testing.assert_close(of_shift, 5 * (1 - leak))
    # Of the scale: sum of (1 - leak) I / 3 over 3 examples = 0.9 + 4 * 0.9 (1 - leak)
    torch.testing.assert_close(of_scale, 0.9 + 3.6 * (1 - leak))
    # Of the leak: u_{t-1} - I_t = 0 after the first step, where it is 0 - I_1.
    torch.testing.assert_close(of_leak, -0.9 / (1 - leak))


def potentials_of(current, leak, window=None, reference=None):
    """Equations 1 and 2 step by step; with a window, spikes follow the potential inside it, from the reference on."""
    potentials, spikes = [torch.zeros_like(current[0])], [torch.zeros_like(current[0])]
    for t in range(len(current)):
        potentials.append(leak * (potentials[-1] - spikes[-1]) + (1 - leak) * current[t])
        if window is None:
            spikes.append((potentials[-1] > 1).to(current.dtype))
        else:
            spikes.append((reference[t] > 1) + window[t] * (potentials[-1] - reference[t]))
    return torch.stack(potentials[1:]), torch.stack(spikes[1:])


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_the_true_ones_of_spikes_that_follow_the_potential_within_the_boxcar(training, dropout):
    # The surrogate gradient is the true one of another network: that whose spikes, near the potentials met, rise by
    # what the potential rises wherever it is within half a unit of the threshold, and stay as they are elsewhere.
    # That network is smooth, and is differentiated numerically.
    weighted = 3 * torch.randn(8, 4, 6, dtype=torch.float64)
    norm, leak = layer_state(6, torch.float64, training)
    with torch.no_grad():
        norm.weight.uniform_(4, 8)
        norm.bias.uniform_(2, 4)
    seed = 12
    torch.manual_seed(seed)
    passed = fused.kept(int(torch.randint(fused.WORDS, ())), dropout, weighted).double() / (1 - dropout)

    def current_of(weighted, scale, shift):
        statistics = (None, None) if training else (norm.running_mean, norm.running_var)
        rows = functional.batch_norm(weighted.flatten(0, 1), *statistics, scale, shift, training, eps=norm.eps)
        return rows.view_as(weighted)

    with torch.no_grad():
        reference, fired = potentials_of(current_of(weighted, norm.weight, norm.bias), leak)
    window = ((reference - 1).abs() <= 0.5).double()
    assert 0.1 < window.mean() < 0.9
    assert 0.1 < fired.mean() < 0.9

    class Follows(torch.autograd.Function):
        @staticmethod
        def forward(ctx, weighted, scale, shift, leak):
            ctx.save_for_backward(weighted, scale, shift, leak)
            return potentials_of(current_of(weighted, scale, shift), leak, window, reference)[1] * passed

        @staticmethod
        def backward(ctx, grad):
            leaves = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
            own = copy.deepcopy(norm)
            own.weight, own.bias = nn.Parameter(leaves[1]), nn.Parameter(leaves[2])
            with torch.enable_grad():
                torch.manual_seed(seed)
                spikes = fused.spikes(leaves[0], own, leaves[3], dropout)
                torch.testing.assert_close(spikes.detach(), fired * passed, rtol=1e-15, atol=0)
                return torch.autograd.grad(spikes, (leaves[0], own.weight, own.bias, leaves[3]), grad)

    leaves = weighted, norm.weight.detach().clone(), norm.bias.detach().clone(), leak
    assert torch.autograd.gradcheck(Follows.apply, [leaf.requires_grad_() for leaf in leaves], rtol=1e-6, atol=1e-7)


def test_the_input_is_left_as_it_was():
    weighted = torch.randn(6, 4, 3)
    before = weighted.clone()
    run(fused.spikes, weighted, *layer_state(3), 0.3)
    assert torch.equal(weighted, before)


def test_off_the_cpu_the_plain_form_is_used():
    norm, leak = layer_state(4)
    spikes = fused.spikes(torch.empty(5, 3, 4, device="meta"), norm.to("meta"), leak.to("meta"))
    assert spikes.device.type == "meta"
    assert spikes.shape == (5, 3, 4)


def test_cuda_without_triton_takes_the_plain_form(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "lib.fused.cuda", raising=False)
    monkeypatch.delattr(fused, "cuda", raising=False)
    assert fused._kernels.__wrapped__("cuda") is None
