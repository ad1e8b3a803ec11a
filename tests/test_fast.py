"""The compiled kernels against the layers' plain form: spikes to the bit, gradients to rounding."""

import copy
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lib import fast
from lib.fast import cpu, sparse
from lib.network import SpikingLayer, lif, lif_potential
from lib.networks import NORMS, normaliser
from lib.neurons import NEURONS
from lib.neurons.rlif import without_self
from lib.neurons.stochastic import SLOPES, SMALLEST_VARIANCE, Response, bernoulli_spike, stochastic_lif

COMPILED = [name for name, kind in NEURONS.items() if "kernel" in vars(kind)]


def layer_of(units, neuron="lif", norm="batch", dtype=torch.float32, training=True):
    """A layer of what is weighted already, whose neurons fire often, with running statistics of its own."""
    layer = NEURONS[neuron](2, units).to(dtype)
    layer.linear = nn.Identity()
    layer.norm = normaliser(norm, units).to(dtype)
    with torch.no_grad():
        for parameter, (low, high) in zip(layer.norm.parameters(), [(-4, 6), (0, 2)], strict=False):
            parameter.uniform_(low, high)
        if norm == "batch":
            layer.norm.running_mean.uniform_(-1, 1)
            layer.norm.running_var.uniform_(0.5, 3)
        if hasattr(layer, "recurrent"):
            layer.recurrent.normal_()
    return layer.train(training)


def identity_layer(units, neuron="lif", leak=0.5):
    layer = layer_of(units, neuron, "none")
    nn.init.constant_(layer.raw_leak, leak)
    layer.bounded = False
    return layer


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


def plain(layer, weighted, seed):
    return layer.plain(weighted, seed)


def run(form, layer, weighted, dropout=0.0, readout="each step", layout="contiguous", seed=3):
    """The spikes and the gradients of one form, input's first and then the parameters', on a copy of the layer."""
    layer, leaf = copy.deepcopy(layer), weighted.clone().requires_grad_()
    layer.dropout = dropout
    spikes = form(layer, LAYOUTS[layout](leaf), seed if dropout > 0 else None)
    weight = torch.linspace(-1, 2, weighted.numel(), dtype=weighted.dtype, device=weighted.device).view_as(weighted)
    names = [name for name, _ in layer.named_parameters()]
    leaves = [leaf, *(layer.get_parameter(name) for name in names)]
    gradients = torch.autograd.grad(READOUTS[readout](spikes, weight), leaves)
    return spikes.detach(), dict(zip(["input", *names], gradients, strict=True)), layer


def assert_same(layer, weighted, *given):
    spikes, gradients, own = run(fast.spikes, layer, weighted, *given)
    expected, expected_gradients, other = run(plain, layer, weighted, *given)
    assert torch.equal(spikes, expected)
    # Sums over time and batch are taken in another order, so the error is relative to the largest of a tensor.
    tolerance = {torch.float32: 2e-5, torch.float64: 1e-12}[weighted.dtype]
    for name, reference in expected_gradients.items():
        scale = float(torch.cat([reference.abs().flatten(), reference.new_ones(1)]).max())
        torch.testing.assert_close(gradients[name], reference, rtol=0, atol=tolerance * scale)
    for name, buffer in other.named_buffers():
        # Both are summed in double precision, in another order.
        tolerance = 1e-14 if buffer.dtype == torch.float64 else 0
        torch.testing.assert_close(own.get_buffer(name), buffer, rtol=tolerance, atol=tolerance)
    return spikes


@settings(max_examples=200)
@given(
    neuron=st.sampled_from(COMPILED),
    norm=st.sampled_from(NORMS),
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
def test_any_neuron_norm_shape_layout_and_mode_gives_what_the_plain_form_gives(
    neuron, norm, time, batch, units, dtype, training, dropout, readout, layout, seed
):
    torch.manual_seed(seed)
    weighted = 2 * torch.randn(time, batch, units, dtype=dtype) + torch.randn(units, dtype=dtype)
    assert_same(layer_of(units, neuron, norm, dtype, training), weighted, dropout, readout, layout, seed)


# The kernels take as many examples together through time as have 1,024 potentials a step.
@pytest.mark.parametrize(("time", "batch", "units"), [(60, 16, 33), (4, 300, 9), (6, 3, 700), (4, 2, 1500)])
@pytest.mark.parametrize("neuron", COMPILED)
def test_large_and_small_layers_give_what_the_plain_form_gives(neuron, time, batch, units):
    spikes = assert_same(layer_of(units, neuron), torch.randn(time, batch, units), 0.2, "mean rate")
    assert 0.02 < (spikes > 0).double().mean() < 0.95  # else the comparison would be of nothing


@pytest.mark.parametrize("neuron", COMPILED)
def test_potentials_exactly_on_an_edge_are_treated_as_the_plain_form_does(neuron):
    # Multiples of a quarter, and parameters of a half, are exact, and often fall on the threshold or a boxcar's edge.
    layer, weighted = identity_layer(5, neuron), torch.randint(-8, 17, (6, 40, 5)) / 4
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_((2 * parameter).round() / 2)
    potential = lif_potential(weighted, layer.leak)
    assert neuron != "lif" or all((potential == edge).any() for edge in (0.5, 1.0, 1.5))
    assert_same(layer, weighted)


@pytest.mark.parametrize("neuron", COMPILED)
@pytest.mark.parametrize("shape", [(0, 4, 3), (4, 0, 3), (1, 1, 3)])
def test_no_time_no_examples_and_a_single_step_are_no_exception(neuron, shape):
    assert_same(layer_of(3, neuron, training=False), torch.ones(shape))


@pytest.mark.parametrize("neuron", COMPILED)
def test_the_input_is_left_as_it_was(neuron):
    layer, weighted = layer_of(3, neuron), torch.randn(6, 4, 3)
    before = [tensor.detach().clone() for tensor in (weighted, *layer.parameters())]
    fast.spikes(layer, weighted, 3)
    assert all(map(torch.equal, (weighted, *layer.parameters()), before))


# Batch norm


@pytest.mark.parametrize(("mean", "std"), [(-1, 3), (1000, 0.05), (0, 1e-4)])
@pytest.mark.parametrize("form", [fast.spikes, plain])
def test_statistics_are_those_of_the_norm_in_double_precision(form, mean, std):
    layer, weighted = layer_of(5), mean + std * torch.randn(50, 8, 5)
    expected = copy.deepcopy(layer.norm).double()
    for _ in range(3):
        form(layer, weighted, None)
        expected(weighted.flatten(0, 1).double())
    assert layer.norm.num_batches_tracked == 3
    torch.testing.assert_close(layer.norm.running_mean, expected.running_mean.float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(layer.norm.running_var, expected.running_var.float(), rtol=1e-6, atol=0)
    batch_mean, variance = cpu.statistics(weighted)
    torch.testing.assert_close(batch_mean, weighted.double().mean(dim=(0, 1)).float())
    torch.testing.assert_close(variance, weighted.double().var(dim=(0, 1), correction=0).float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("form", [fast.spikes, plain])
def test_a_single_value_for_each_unit_is_refused_in_training(form):
    layer = layer_of(3)
    before = copy.deepcopy(layer.norm.state_dict())
    with pytest.raises(ValueError, match="more than one value for each unit"):
        form(layer, torch.zeros(1, 1, 3), None)
    assert form(layer.eval(), torch.zeros(1, 1, 3), None).shape == (1, 1, 3)  # by its own statistics
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.norm.state_dict().items())


# Which layers are served


class Clockwork(SpikingLayer):
    """A neuron that somebody adds: it has the parameters of LIF, and fires at every second step."""

    def spikes(self, current):
        return torch.zeros_like(current).index_fill(0, torch.arange(0, len(current), 2), 1.0)


def test_a_neuron_that_no_kernel_names_never_runs_as_lif():
    layer, train = Clockwork(3, 4, 0.0), torch.randn(6, 2, 3)
    assert fast.spikes(layer, train, None) is None
    assert layer(train)[:, 0, 0].tolist() == [1, 0, 1, 0, 1, 0]


@pytest.fixture
def unproven():
    fast.proven.cache_clear()
    yield
    fast.proven.cache_clear()


def wrong_spikes(forward):
    return lambda *given: 1 - forward(*given)


def wrong_gradients(backward):
    return lambda *given: [2 * result for result in backward(*given)]


def fails(kernel):
    def failing(*given):
        raise RuntimeError("no compiler here")

    return failing


@pytest.mark.parametrize(
    ("kernel", "broken", "why"),
    [
        ("forward", wrong_spikes, "its spikes differ"),
        ("backward", wrong_gradients, "its gradients differ"),
        ("backward", fails, "no compiler here"),
        ("statistics", fails, "no compiler here"),
    ],
)
def test_a_kernel_that_fails_its_proof_steps_aside_with_a_warning(monkeypatch, unproven, kernel, broken, why):
    monkeypatch.setattr(cpu, kernel, broken(getattr(cpu, kernel)))
    layer, train = SpikingLayer(3, 40, 0.0).eval(), 4 * torch.randn(20, 5, 3)
    nn.init.constant_(layer.norm.weight, 4)
    before = torch.get_rng_state()
    with pytest.warns(UserWarning, match=f"the lif kernel steps aside on cpu for the plain form: .*{why}"):
        spikes = layer(train)
    assert torch.equal(torch.get_rng_state(), before)
    expected = lif(layer.normalised(layer.linear(train)), layer.held("leak"))
    assert expected.any()
    assert torch.equal(spikes, expected)
    assert torch.equal(layer(train), expected)  # without a second warning


@pytest.mark.parametrize("neuron", COMPILED)
def test_every_neuron_s_kernel_is_proven_here_with_what_hears_it(monkeypatch, unproven, neuron):
    called = []
    for name in ("_weigh", "_by_weight", "_by_train"):
        kernel = getattr(sparse, name)
        monkeypatch.setattr(
            sparse, name, lambda *given, name=name, kernel=kernel: called.append(name) or kernel(*given)
        )
    assert fast.proven(NEURONS[neuron], "cpu")
    assert set(called) == {"_weigh", "_by_weight", "_by_train"}


@pytest.mark.parametrize("neuron", COMPILED)
def test_other_devices_take_the_plain_form_but_for_lif_on_cuda(neuron):
    layer = layer_of(4, neuron).to("meta")
    spikes = layer(torch.empty(5, 3, 4, device="meta"))
    assert (spikes.device.type, spikes.shape) == ("meta", (5, 3, 4))
    assert neuron == "lif" or not fast.proven.__wrapped__(NEURONS[neuron], "cuda")


def test_cuda_without_triton_takes_the_plain_form(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "lib.fast.cuda", raising=False)
    monkeypatch.delattr(fast, "cuda", raising=False)
    assert fast._kernels.__wrapped__("cuda") is None


# Drawn spikes, with their adjoint by hand


def drawn_inputs(recurrent, each_weight):
    generator = torch.Generator().manual_seed(3)

    def random(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    given = [0.6 + 0.5 * random(12, 5, 6), (0.1 + random(12, 5, 6 if each_weight else 1)).square()]
    given += [0.5 * random(6, 6), 0.2 * random(6, 6).square()] if recurrent else []
    return [tensor.requires_grad_() for tensor in given]


def plainly_drawn(current, variance, *recurrent, slope):
    def fire(excess, deviation):
        return bernoulli_spike(excess / deviation, SLOPES[slope])

    return stochastic_lif(current, variance, 0.9, recurrent or None, fire)


def drawn(current, variance, *recurrent, slope):
    among = tuple(map(without_self, recurrent)) or None
    return Response(*fast.drawn_lif(current, variance, 0.9, among, SLOPES[slope], SMALLEST_VARIANCE))


def loss_of(response):
    """A loss of all three outputs, nonlinear in each."""
    weight = torch.arange(6, dtype=torch.float64) - 2
    return (
        (response.spikes.mean(dim=0) @ weight).square().sum()
        + (response.current.square() / response.variance.clamp(min=0.05)).mean()
        + response.variance.square().mean()
    )


@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize("each_weight", [False, True])
@pytest.mark.parametrize("recurrent", [False, True])
def test_drawn_spikes_and_gradients_are_the_plain_form_s(recurrent, each_weight, slope):
    found = []
    for form in (plainly_drawn, drawn):
        given = drawn_inputs(recurrent, each_weight)
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
