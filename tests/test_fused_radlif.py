"""The fused pass of adLIF, RLIF and RadLIF: against its plain form, and against their equations under autograd."""

import copy
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fused import LAYOUTS, READOUTS, assert_same, identity, layer_state, run
from test_fused_cpu import threads  # noqa: F401, a fixture
from test_neurons_adaptive_recurrent import ADAPTATION_RANGES, NEW, equations
from torch import nn

from lib import fused
from lib.fused import cpu, radlif


def others_of(neuron, units, dtype=torch.float32):
    """The keyword arguments that make the neuron of LIF."""
    others = {}
    if "ad" in neuron:
        others["adaptation"] = torch.stack(
            [torch.empty(units, dtype=dtype).uniform_(*bounds) for bounds in ADAPTATION_RANGES]
        )
    if neuron[0] == "r":
        others["recurrent"] = torch.randn(units, units, dtype=dtype)
    return others


@settings(max_examples=200)
@given(
    neuron=st.sampled_from(NEW),
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
    neuron, time, batch, units, dtype, training, dropout, readout, layout, seed
):
    torch.manual_seed(seed)
    weighted = 2 * torch.randn(time, batch, units, dtype=dtype) + torch.randn(units, dtype=dtype)
    state = layer_state(units, dtype, training)
    assert_same(weighted, *state, dropout, readout, layout, **others_of(neuron, units, dtype))


# The kernels take as many examples together through time as have 1,024 potentials a step.
@pytest.mark.parametrize(("time", "batch", "units"), [(40, 16, 33), (4, 300, 9), (6, 3, 700), (4, 2, 1500)])
@pytest.mark.parametrize("neuron", NEW)
def test_large_and_small_layers_give_what_the_plain_form_gives(neuron, time, batch, units):
    weighted, state, others = torch.randn(time, batch, units), layer_state(units), others_of(neuron, units)
    share = fused.spikes(weighted, copy.deepcopy(state[0]), state[1], **others).detach().mean()
    assert 0.02 < share < 0.95  # else the comparison would be of nothing
    assert_same(weighted, *state, 0.2, "mean rate", **others)


@pytest.mark.parametrize("neuron", NEW)
def test_potentials_exactly_on_an_edge_are_treated_as_the_plain_form_does(neuron):
    # Multiples of a quarter, and parameters of a half, are exact.
    weighted, halves = torch.randint(-8, 17, (5, 40, 5)) / 4, torch.full((5,), 0.5)
    others = {name: (2 * tensor).round() / 2 for name, tensor in others_of(neuron, 5).items()}
    assert_same(weighted, identity(5), halves, 0.0, **others)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("neuron", NEW)
def test_spikes_and_gradients_are_those_of_the_equations_under_autograd(neuron, training, dropout):
    weighted = torch.randn(12, 4, 5, dtype=torch.float64)
    norm, leak = layer_state(5, torch.float64, training)
    others = others_of(neuron, 5, torch.float64)
    spikes, gradients, _ = run(fused.spikes, weighted, norm, leak, dropout, **others)

    own = copy.deepcopy(norm)
    leaves = [tensor.clone().requires_grad_() for tensor in (weighted, leak, *others.values())]
    adaptation = [row for name, rows in zip(others, leaves[2:], strict=True) if name == "adaptation" for row in rows]
    weights = [rows for name, rows in zip(others, leaves[2:], strict=True) if name == "recurrent"]
    current = own(leaves[0].flatten(0, 1)).view_as(weighted)
    fired, _ = equations(neuron, current, leaves[1], *adaptation, *weights)
    torch.manual_seed(3)
    seed = int(torch.randint(fused.WORDS, ())) if dropout > 0 else 0
    expected = fired * fused.kept(seed, dropout, weighted) / (1 - dropout)
    assert 0.02 < fired.mean() < 0.95
    torch.testing.assert_close(spikes, expected, rtol=1e-15, atol=0)

    order = [leaves[0], own.weight, own.bias, *leaves[1:]]
    sent = torch.linspace(-1, 2, weighted.numel(), dtype=torch.float64).view_as(weighted)
    for gradient, reference in zip(gradients, torch.autograd.grad(expected, order, sent), strict=True):
        assert reference.any()
        atol = 1e-12 * max(1.0, float(reference.abs().max()))
        torch.testing.assert_close(gradient, reference, rtol=0, atol=atol)


def test_without_gains_or_connections_all_are_lif():
    weighted, (norm, leak) = 2 * torch.randn(30, 6, 20), layer_state(20)
    adaptation, recurrent = torch.zeros(3, 20), torch.diag(torch.ones(20))
    kinds = [{}, {"adaptation": adaptation}, {"recurrent": recurrent}]
    kinds.append(kinds[1] | kinds[2])
    lif, *same = [run(fused.spikes, weighted, norm, leak, 0.1, **others) for others in kinds]
    assert lif[0].any()
    for spikes, gradients, _ in same:
        assert torch.equal(spikes, lif[0])
        torch.testing.assert_close(gradients[:4], lif[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("neuron", ["rlif", "radlif"])
def test_the_diagonal_has_no_effect_and_no_gradient(neuron):
    weighted, state, others = torch.randn(20, 6, 9), layer_state(9), others_of(neuron, 9)
    spikes, gradients, _ = run(fused.spikes, weighted, *state, 0.0, **others)
    others["recurrent"] = others["recurrent"] + 100 * torch.eye(9)
    again, _, _ = run(fused.spikes, weighted, *state, 0.0, **others)
    assert torch.equal(spikes, again)
    assert not gradients[-1].diagonal().any()
    assert gradients[-1].any()


@pytest.mark.parametrize("norm", [nn.LayerNorm(6), nn.GroupNorm(2, 6), nn.Identity()])
@pytest.mark.parametrize("neuron", ["lif", *NEW])
def test_any_other_norm_is_applied_by_itself(neuron, norm):
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, 1, 5)
    weighted, (_, leak) = 4 * torch.randn(12, 5, 6), layer_state(6)
    assert_same(weighted, norm, leak, 0.3, **others_of(neuron, 6))
    rows = norm(weighted.flatten(0, 1)).view_as(weighted).detach()
    others = others_of(neuron, 6)
    assert torch.equal(
        fused.spikes(weighted, norm, leak, **others), fused.spikes(rows, identity(6), leak, **others)
    )  # the norm's parameters are not the identity's, but its output is


@pytest.mark.parametrize("neuron", NEW)
@pytest.mark.parametrize("shape", [(0, 4, 3), (4, 0, 3), (1, 1, 3)])
def test_no_time_no_examples_and_a_single_step_are_no_exception(neuron, shape):
    state = layer_state(3, training=False)
    assert_same(torch.ones(shape), *state, 0.0, **others_of(neuron, 3))


@pytest.mark.parametrize("neuron", NEW)
def test_threads_share_the_work_and_change_nothing(threads, neuron):  # noqa: F811
    weighted, state, others = torch.randn(12, 5, 7), layer_state(7), others_of(neuron, 7)
    threads(1)
    alone, gradients_alone, _ = run(fused.spikes, weighted, *state, 0.4, **others)
    for number in (2, 3, 8):
        threads(number)
        shared, gradients_shared, _ = run(fused.spikes, weighted, *state, 0.4, **others)
        assert torch.equal(alone, shared)
        torch.testing.assert_close(gradients_alone, gradients_shared, rtol=1e-5, atol=1e-5)
        if "recurrent" in others:
            assert torch.equal(gradients_alone[-1], gradients_shared[-1])


@pytest.mark.parametrize("kernel", ["_forward", "_backward", "_pairs", "_by_weighted"])
def test_what_goes_wrong_in_a_thread_is_raised(monkeypatch, threads, kernel):  # noqa: F811
    def fails(*_):
        raise RuntimeError("no luck")

    monkeypatch.setattr(radlif, kernel, fails)
    threads(2)
    with pytest.raises(RuntimeError, match="no luck"):
        run(fused.spikes, torch.randn(6, 4, 3), *layer_state(3), 0.0, **others_of("radlif", 3))


@pytest.mark.parametrize("neuron", NEW)
def test_the_input_is_left_as_it_was(neuron):
    weighted, others = torch.randn(6, 4, 3), others_of(neuron, 3)
    before = [tensor.clone() for tensor in (weighted, *others.values())]
    run(fused.spikes, weighted, *layer_state(3), 0.3, **others)
    assert all(map(torch.equal, (weighted, *others.values()), before))


@pytest.mark.parametrize("neuron", NEW)
def test_kernels_other_than_the_cpu_s_are_for_lif_alone(monkeypatch, neuron):
    monkeypatch.setattr(fused, "_kernels", lambda device: SimpleNamespace(statistics=cpu.statistics))
    weighted, (norm, leak), others = torch.randn(8, 4, 3), layer_state(3, training=False), others_of(neuron, 3)
    expected = fused.plain_spikes(weighted, norm, leak, 0, 0.0, **others)
    assert torch.equal(fused.spikes(weighted, norm, leak, **others), expected)
    with pytest.raises(AttributeError, match="forward"):
        fused.spikes(weighted, norm, leak)


@pytest.mark.parametrize("neuron", NEW)
def test_off_the_cpu_the_plain_form_is_used(neuron):
    norm, leak = layer_state(4)
    others = {name: tensor.to("meta") for name, tensor in others_of(neuron, 4).items()}
    spikes = fused.spikes(torch.empty(5, 3, 4, device="meta"), norm.to("meta"), leak.to("meta"), **others)
    assert (spikes.device.type, spikes.shape) == ("meta", (5, 3, 4))
