"""The compiled pass against its plain form in PyTorch's operations: spikes to the bit, gradients to rounding."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lib import fused, neurons


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


def run(form, weighted, norm, leak, dropout, readout="each step", layout="contiguous", seed=3):
    """The spikes and the gradients for input, scale, shift and leak of one form, on its own copies."""
    norm = copy.deepcopy(norm)
    leaves = weighted.clone().requires_grad_(), norm.weight, norm.bias, leak.clone().requires_grad_()
    laid_out = LAYOUTS[layout](leaves[0])
    torch.manual_seed(seed)
    if form is fused.plain_spikes:
        spikes = form(laid_out, norm, leaves[3], fused.draw_drops(laid_out, dropout), dropout)
    else:
        spikes = form(laid_out, norm, leaves[3], dropout)
    weight = torch.linspace(-1, 2, weighted.numel(), dtype=weighted.dtype).view_as(weighted)
    return spikes.detach(), torch.autograd.grad(READOUTS[readout](spikes, weight), leaves), norm


def assert_same(weighted, norm, leak, dropout, readout="each step", layout="contiguous"):
    spikes, gradients, own_norm = run(fused.spikes, weighted, norm, leak, dropout, readout, layout)
    expected, expected_gradients, plain_norm = run(fused.plain_spikes, weighted, norm, leak, dropout, readout, layout)
    assert torch.equal(spikes, expected)
    # Sums over time and batch are taken in another order, so the error is relative to the largest of a tensor.
    tolerance = {torch.float32: 2e-5, torch.float64: 1e-12}[weighted.dtype]
    for gradient, reference in zip(gradients, expected_gradients, strict=True):
        scale = max(1.0, float(reference.abs().max()))
        torch.testing.assert_close(gradient, reference, rtol=0, atol=tolerance * scale)
    for name, buffer in plain_norm.named_buffers():
        assert torch.equal(own_norm.get_buffer(name), buffer), name


@settings(max_examples=200)
@given(
    time=st.integers(1, 9),
    batch=st.integers(2, 7),
    units=st.integers(1, 6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    training=st.booleans(),
    dropout=st.sampled_from([0.0, 0.1, 0.5, 0.9]),
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


def test_statistics_are_those_of_the_norm_itself():
    weighted = 3 * torch.randn(20, 8, 5) - 1
    norm, leak = layer_state(5)
    own = copy.deepcopy(norm)
    for _ in range(3):
        fused.spikes(weighted, norm, leak)
        own(weighted.flatten(0, 1))
    for name, buffer in own.named_buffers():
        assert torch.equal(norm.get_buffer(name), buffer), name
    assert norm.num_batches_tracked == 3


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


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("training", [True, False])
def test_threads_share_the_batch_and_change_nothing(monkeypatch, training, dropout):
    weighted = torch.randn(12, 5, 7)
    norm, leak = layer_state(7, training=training)
    alone, gradients_alone, _ = run(fused.spikes, weighted, norm, leak, dropout)

    used = []

    class Counted(ThreadPoolExecutor):
        def __init__(self, workers):
            used.append(workers)
            super().__init__(workers)

    monkeypatch.setattr(fused, "ThreadPoolExecutor", Counted)
    monkeypatch.setattr(fused, "ELEMENTS_PER_THREAD", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        shared, gradients_shared, _ = run(fused.spikes, weighted, norm, leak, dropout)
    finally:
        torch.set_num_threads(before)
    assert set(used) == {2}
    assert torch.equal(alone, shared)
    # PyTorch itself may sum in another order on two threads.
    torch.testing.assert_close(gradients_alone, gradients_shared, rtol=1e-5, atol=1e-5)


def always_firing(units):
    """Norm and leak under which every neuron fires at every step."""
    norm = nn.BatchNorm1d(units).eval()
    nn.init.constant_(norm.bias, 1000.0)
    return norm, torch.full((units,), 0.9)


def test_dropout_drops_its_share_and_scales_up_the_rest():
    norm, leak = always_firing(40)
    spikes = fused.spikes(torch.zeros(50, 50, 40), norm, leak, dropout=0.3).detach()
    # 0.3 * 65536 = 19660.8, so 19661 of the 65536 numbers drop a spike, and 65536 / 45875 makes up for it.
    assert sorted(set(spikes.unique().tolist())) == [0.0, pytest.approx(65536 / 45875)]
    share = 19661 / 65536
    # Five standard deviations of a binomial share: of all 100,000 spikes, and of each unit's 2,500.
    assert abs(float((spikes == 0).double().mean()) - share) < 5 * (share * (1 - share) / 100_000) ** 0.5
    of_units = (spikes == 0).double().mean(dim=(0, 1))
    assert (of_units - share).abs().max() < 5 * (share * (1 - share) / 2_500) ** 0.5
    assert float(spikes.mean()) == pytest.approx(1, abs=0.02)


def test_drops_in_neighbouring_places_are_independent():
    norm, leak = always_firing(40)
    dropped = fused.spikes(torch.zeros(50, 50, 40), norm, leak, dropout=0.5).detach() == 0
    for dim in range(3):
        length = dropped.shape[dim] - 1
        both = dropped.narrow(dim, 0, length) & dropped.narrow(dim, 1, length)
        assert float(both.double().mean()) == pytest.approx(0.25, abs=0.01)  # 7 standard deviations


@pytest.mark.parametrize("dropout", [0.0, 1e-6])
def test_dropout_below_half_a_level_drops_nothing_and_draws_nothing(dropout):
    norm, leak = always_firing(4)
    before = torch.get_rng_state()
    assert (fused.spikes(torch.zeros(3, 5, 4), norm, leak, dropout) == 1).all()
    assert torch.equal(torch.get_rng_state(), before)


def test_drops_follow_from_the_seed_and_differ_from_call_to_call():
    norm, leak = always_firing(9)
    given = torch.zeros(7, 3, 9), norm, leak, 0.5
    torch.manual_seed(5)
    first, second = fused.spikes(*given), fused.spikes(*given)
    torch.manual_seed(5)
    again = fused.spikes(*given)
    torch.manual_seed(6)
    other = fused.spikes(*given)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_dropped_spike_passes_no_gradient():
    # One step: du/dI = 1 - leak, which comes back scaled up where the spike is kept, and not where it is dropped.
    weighted, leak = torch.full((1, 8, 50), 12.0), torch.full((50,), 0.9)  # u = 0.1 * 12 = 1.2
    spikes, (of_weighted, *_), _ = run(fused.spikes, weighted, identity(50), leak, 0.5, "sum")
    assert 0 < (spikes == 0).sum() < spikes.numel()
    torch.testing.assert_close(of_weighted, (1 - leak) * spikes / 3)


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
