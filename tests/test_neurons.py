"""The neurons against voltages worked out by hand, a loop over their equations, and each other; and their layers."""

import math
import sys

import pytest
import torch
from torch import nn

from lib import network
from lib.network import LEAK_RANGE, boxcar, lif, lif_potential, over_time
from lib.networks.activity import dead_units, leaks
from lib.neurons import NEURONS
from lib.neurons.adlif import RANGES, adlif, adlif_step
from lib.neurons.clamped import BASELINE_LEAKS, clamped, with_leaks
from lib.neurons.radlif import radlif
from lib.neurons.rlif import rlif

FORMS = {"lif": lif, "adlif": adlif, "rlif": rlif, "radlif": radlif}


def parameters_of(neuron, units, dtype=torch.float64):
    """Leak, then adaptation's three, then recurrent weights, of those that the neuron has."""
    ranges = [LEAK_RANGE, *(RANGES.values() if "ad" in neuron else [])]
    drawn = [torch.empty(units, dtype=dtype).uniform_(*bounds) for bounds in ranges]
    return [*drawn, torch.randn(units, units, dtype=dtype)] if neuron[0] == "r" else drawn


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


def equations(neuron, current, leak, *others, threshold=1.0):
    """The neuron's equations, step by step: spikes and potentials that autograd can follow."""
    others = list(others)
    units = len(leak)
    weights = others.pop() * (1 - torch.eye(units, dtype=leak.dtype)) if neuron[0] == "r" else None
    beta, a, b = others or torch.zeros(3, units, dtype=leak.dtype)
    w = u = s = torch.zeros_like(current[0])
    potentials, spikes = [], []
    for step in current:
        w = beta * w + a * u + b * s
        received = 0 if weights is None else torch.stack([(weights[n] * s).sum(dim=1) for n in range(units)], dim=1)
        u = leak * (u - s) + (1 - leak) * (step + received - w)
        s = Boxcar.apply(u, threshold)
        potentials.append(u)
        spikes.append(s)
    return torch.stack(spikes), torch.stack(potentials)


def tensors(*values):
    return [torch.tensor(value) for value in values]


# Every value is exact in binary. A diagonal of nines is not to be seen.
SENDS = [[9.0, -2.0], [1.0, 9.0]]
BY_HAND = {
    # Two units, of leak 0.5: u1 = 0.5 * 0 + 0.5 * 2 = 1, which is not above the threshold;  u2 = 0.5 * 1 + 1 = 1.5, a
    # spike;  u3 = 0.5 * (1.5 - 1) + 1 = 1.25, a spike;  u4 = 0.5 * (1.25 - 1) + 1 = 1.125, a spike;
    # u5 = 0.5 * (1.125 - 1) - 0.5 = -0.4375;  u6 = 0.5 * -0.4375. And of leak 0.75: u1 = 0.25 * 2 = 0.5;
    # u2 = 0.75 * 0.5 + 0.5 = 0.875;  u3 = 0.75 * 0.875 + 0.5 = 1.15625, a spike;  u4 = 0.75 * 0.15625 + 0.5 =
    # 0.6171875;  u5 = 0.75 * 0.6171875 - 0.25 = 0.212890625;  u6 = 0.75 * u5.
    "lif": (
        [[2.0, 2.0], [2.0, 2.0], [2.0, 2.0], [2.0, 2.0], [-1.0, -1.0], [0.0, 0.0]],
        tensors([0.5, 0.75]),
        [
            [1, 0.5],
            [1.5, 0.875],
            [1.25, 1.15625],
            [1.125, 0.6171875],
            [-0.4375, 0.212890625],
            [-0.21875, 0.15966796875],
        ],
        [[0, 0], [1, 0], [1, 1], [1, 0], [0, 0], [0, 0]],
    ),
    # One unit. w: 0;  0.25 * 2 + 1 = 1.5;  0.75 + 0.25 * 1.75 + 1 = 2.1875;  1.09375 + 0.25 * -0.71875 = 0.9140625.
    # u1 = 0.5 * 4 = 2, a spike;  u2 = 0.5 * (2 - 1) + 0.5 * (4 - 1.5) = 1.75, a spike;
    # u3 = 0.5 * 0.75 + 0.5 * (0 - 2.1875) = -0.71875;  u4 = -0.359375 + 0.5 * (4 - 0.9140625) = 1.18359375, a spike.
    "adlif": (
        [[4.0], [4.0], [0.0], [4.0]],
        tensors([0.5], [0.5], [0.25], [1.0]),
        [[2.0], [1.75], [-0.71875], [1.18359375]],
        [[1], [1], [0], [1]],
    ),
    # Unit 0 receives -2 for a spike of unit 1, which receives 1 for a spike of unit 0.
    # u1 = (1.5, 0.5): 0 fires;  u2 = (0.25 + 1.5, 0.25 + 0.5 * (1 + 1)) = (1.75, 1.25): both fire;
    # u3 = (0.5 * 0.75 + 0.5 * (3 - 2), 0.5 * 0.25 + 0.5 * (3 + 1)) = (0.875, 2.125): 1 fires;
    # u4 = (0.5 * 0.875 + 0.5 * (3 - 2), 0.5 * 1.125 - 0.5) = (0.9375, 0.0625).
    "rlif": (
        [[3.0, 1.0], [3.0, 1.0], [3.0, 3.0], [3.0, -1.0]],
        tensors([0.5, 0.5], SENDS),
        [[1.5, 0.5], [1.75, 1.25], [0.875, 2.125], [0.9375, 0.0625]],
        [[1, 0], [1, 1], [0, 1], [0, 0]],
    ),
    # u1 = (1.5, 0.5): 0 fires;  w2 = (0.25 * 1.5, -0.5 * 0.5) = (0.375, -0.25);
    # u2 = (0.25 + 0.5 * (3 - 0.375), 0.25 + 0.5 * (1 + 1 + 0.25)) = (1.5625, 1.375): both fire;
    # w3 = (0.1875 + 0.25 * 1.5625, -0.125 - 0.5 * 1.375 + 1) = (0.578125, 0.1875);
    # u3 = (0.5 * 0.5625 + 0.5 * (3 - 2 - 0.578125), 0.5 * 0.375 + 0.5 * (3 + 1 - 0.1875)) = (0.4921875, 2.09375).
    "radlif": (
        [[3.0, 1.0], [3.0, 1.0], [3.0, 3.0]],
        tensors([0.5, 0.5], [0.5, 0.5], [0.25, -0.5], [0.0, 1.0], SENDS),
        [[1.5, 0.5], [1.5625, 1.375], [0.4921875, 2.09375]],
        [[1, 0], [1, 1], [0, 1]],
    ),
}


@pytest.mark.parametrize("neuron", FORMS)
def test_potentials_and_spikes_are_those_worked_out_by_hand(monkeypatch, neuron):
    current, parameters, potentials, spikes = BY_HAND[neuron]
    current = torch.tensor(current)[:, None].repeat(1, 2, 1)  # two examples, alike
    found, module = [], sys.modules[FORMS[neuron].__module__]
    monkeypatch.setattr(module, "over_time", lambda *given, **more: found.append(over_time(*given, **more)) or found[0])
    assert torch.equal(FORMS[neuron](current, *parameters), found[0][0])
    for example in range(2):
        assert found[0][1][:, example].tolist() == potentials
        assert found[0][0][:, example].tolist() == spikes
    assert neuron != "lif" or torch.equal(lif_potential(current, *parameters), found[0][1])


def test_gradients_through_the_reset_are_those_worked_out_by_hand():
    # leak 0.5, currents 2.5 and 1: u1 = 1.25 (spike), u2 = 0.5 * 0.25 + 0.5 = 0.625; both within the boxcar.
    # For s2 alone: ds2/du1 = 0.5 * (1 - 1) = 0 through leak and reset, so ds2/dI = [0, 0.5];
    # ds2/dleak = (u1 - s1) - I2 = 0.25 - 1.
    # For s1 alone: ds1/dI = [0.5, 0], ds1/dleak = -I1.
    current = torch.tensor([2.5, 1.0])[:, None, None].requires_grad_()
    leak = torch.tensor([0.5], requires_grad=True)
    first, second = lif(current, leak).flatten()
    of_current, of_leak = torch.autograd.grad(second, (current, leak), retain_graph=True)
    assert (of_current.flatten().tolist(), of_leak.tolist()) == ([0.0, 0.5], [-0.75])
    of_current, of_leak = torch.autograd.grad(first, (current, leak))
    assert (of_current.flatten().tolist(), of_leak.tolist()) == ([0.5, 0.0], [-2.5])


def test_gradients_of_adaptation_are_those_worked_out_by_hand():
    # leak 0.5, currents 2.5 and 3, a = 0.5, b = 1: u1 = 1.25, a spike;  w2 = 0.5 * 1.25 + 1 = 1.625;
    # u2 = 0.5 * 0.25 + 0.5 * (3 - 1.625) = 0.8125; both within the boxcar. For s2 alone: dL/du2 = 1, dL/dw2 = -0.5,
    # dL/du1 = 0.5 - 0.5 * 0.5 + (-0.5 - 0.5 * 1) = -0.75: by leak and potential, and by the spike's reset and b.
    current = torch.tensor([2.5, 3.0])[:, None, None].requires_grad_()
    parameters = [parameter.requires_grad_() for parameter in tensors([0.5], [0.25], [0.5], [1.0])]
    _, second = adlif(current, *parameters).flatten()
    of_current, *of_parameters = torch.autograd.grad(second, (current, *parameters))
    assert of_current.flatten().tolist() == [-0.375, 0.5]
    # By the leak: (u1 - s1) - (I2 - w2) = 0.25 - 1.375, and -0.75 * (0 - I1). Then w1, u1 and s1 times dL/dw2.
    assert [float(grad) for grad in of_parameters] == [0.75, 0.0, -0.625, -0.5]


def test_gradients_of_recurrence_are_those_worked_out_by_hand():
    # The second spike of unit 1 (u = 1.25) after the first of unit 0 (u = 1.5), which has sent it V[1, 0] = 1:
    # dL/du2 = (0, 1);  dL/du1 = (1 * 0.5, 0), as unit 1's own reset cancels its leak.
    currents, (leak, weights), *_ = BY_HAND["rlif"]
    current = torch.tensor(currents)[:, None].requires_grad_()
    leak, weights = leak.clone().requires_grad_(), weights.clone().requires_grad_()
    spike = rlif(current, leak, weights)[1, 0, 1]
    of_current, of_leak, of_weights = torch.autograd.grad(spike, (current, leak, weights))
    assert of_current[:, 0].tolist() == [[0.25, 0.0], [0.0, 0.5], [0.0, 0.0], [0.0, 0.0]]
    assert of_weights.tolist() == [[0.0, 0.0], [0.5, 0.0]]
    # Unit 0: 0.5 * (0 - I1) = -1.5; unit 1: u1 - (I2 + 1) = 0.5 - 2.
    assert of_leak.tolist() == [-1.5, -1.5]


@pytest.mark.parametrize("threshold", [1.0, 0.6, -0.2])
@pytest.mark.parametrize("time", [1, 2, 25])
@pytest.mark.parametrize("neuron", FORMS)
def test_spikes_and_gradients_are_those_of_the_equations_under_autograd(neuron, time, threshold):
    current, parameters = 12 * torch.randn(time, 4, 5, dtype=torch.float64), parameters_of(neuron, 5)
    weight = torch.randn_like(current)
    results = []
    for form in (FORMS[neuron], lambda *given, **more: equations(neuron, *given, **more)[0]):
        inputs = [tensor.clone().requires_grad_() for tensor in (current, *parameters)]
        spikes = form(*inputs, threshold=threshold)
        gradients = torch.autograd.grad((weight * spikes).sum(), inputs, materialize_grads=True)
        results.append((spikes.detach(), gradients))
    (spikes, gradients), (expected, expected_gradients) = results
    assert 0 < expected.sum() < expected.numel()
    assert torch.equal(spikes, expected)
    for gradient, reference in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-10, atol=1e-10 * max(1, float(reference.abs().max())))


@pytest.mark.parametrize(("leak", "beta", "gain"), [(0.8, 0.97, -0.5), (0.9, 0.99, -0.2), (0.8, 0.97, -0.02)])
def test_a_negative_gain_by_potential_lets_potentials_grow_as_the_eigenvalue_says(leak, beta, gain):
    # Below the threshold (u, w) is multiplied by [[leak - (1 - leak) gain, -(1 - leak) beta], [gain, beta]] each step,
    # whose larger eigenvalue is above 1 exactly where gain < -(1 - beta).
    trace, determinant = leak + beta - (1 - leak) * gain, leak * beta
    eigenvalue = (trace + math.sqrt(trace**2 - 4 * determinant)) / 2
    assert (eigenvalue > 1) == (gain < -(1 - beta))
    current = torch.zeros(400, 1, 1, dtype=torch.float64)
    current[0] = 1.0
    given = [torch.tensor([value], dtype=torch.float64) for value in (leak, beta, gain, 0.0)]
    potentials = over_time(adlif_step(*given, math.inf), current, memories=1)[1].flatten()
    assert float(potentials[-1] / potentials[-2]) == pytest.approx(eigenvalue, rel=1e-6)


def test_the_ranges_are_the_baseline_s():
    # exp(-1/5), exp(-1/25), exp(-1/30) and exp(-1/120)
    assert pytest.approx((0.8187307530779818, 0.9607894391523232), abs=1e-15) == BASELINE_LEAKS
    assert RANGES["adaptation_leak"] == pytest.approx((0.9672161004820059, 0.9917012926388760), abs=1e-15)
    assert (RANGES["adaptation_potential"], RANGES["adaptation_spike"]) == ((-1, 1), (0, 2))


@pytest.mark.parametrize(
    ("potential", "height"),
    [(0.5, 1), (0.4999, 0), (1.0, 1), (1.5, 1), (1.5001, 0), (-1.0, 0), (float("nan"), 0)],
)
def test_the_boxcar_is_one_within_half_a_unit_of_the_threshold(potential, height):
    assert boxcar(torch.tensor([potential])).item() == height
    assert boxcar(torch.tensor([potential + 2]), threshold=3.0).item() == height


# Layers

OF_LIF = ["linear.weight", "norm.weight", "norm.bias", "raw_leak"]
OF_ADAPTATION = ["raw_adaptation_leak", "raw_adaptation_potential", "raw_adaptation_spike"]
PARAMETERS = {
    "lif": OF_LIF,
    "adlif": OF_LIF + OF_ADAPTATION,
    "rlif": [*OF_LIF, "recurrent"],
    "radlif": [*OF_LIF, *OF_ADAPTATION, "recurrent"],
}


def lively(neuron, dropout=0.0, kind=lambda layer: layer):
    """A layer of four inputs and six units that fire often."""
    layer = kind(NEURONS[neuron])(4, 6, dropout)
    nn.init.constant_(layer.norm.weight, 6)
    return layer


KINDS = {
    "sigmoid": lambda layer: layer,
    "clamped": clamped,
    "other leaks": lambda layer: with_leaks(layer, 0.2, 0.7),
    "clamped, other leaks": lambda layer: with_leaks(clamped(layer), 0.2, 0.7),
}
LEAKS = {"sigmoid": (0.3, 0.99), "clamped": BASELINE_LEAKS} | dict.fromkeys(list(KINDS)[2:], (0.2, 0.7))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("neuron", PARAMETERS)
def test_a_layer_draws_its_numbers_in_the_order_of_its_parameters(neuron, kind):
    torch.manual_seed(3)
    layer = KINDS[kind](NEURONS[neuron])(5, 7)
    torch.manual_seed(3)
    expected = [nn.Linear(5, 7, bias=False).weight]
    for low, high in (LEAKS[kind], *(RANGES.values() if "ad" in neuron else ())):
        expected.append(low + (high - low) * torch.rand(7))
    expected += [nn.init.orthogonal_(torch.empty(7, 7))] if neuron[0] == "r" else []
    names = [name for name in PARAMETERS[neuron] if not name.startswith("norm")]
    for name, drawn in zip(names, expected, strict=True):
        used = layer.held(name.removeprefix("raw_")) if name.startswith("raw_") else layer.get_parameter(name)
        torch.testing.assert_close(used, drawn, msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["leak", *RANGES])
def test_neurons_parameters_start_evenly_spread_over_their_range(name, kind):
    layer = KINDS[kind](NEURONS["adlif"])(1, 4000)
    low, high = layer.ranges[name]
    places = ((layer.held(name) - low) / (high - low)).detach().sort().values
    # Kolmogorov and Smirnov: an even spread of 4000 strays by more than 1.95 / sqrt(4000) once in a thousand times.
    assert (places - torch.linspace(0, 1, 4000)).abs().max() < 0.031


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("neuron", PARAMETERS)
def test_every_parameter_of_a_layer_has_a_group_and_learns(neuron, kind):
    layer = lively(neuron, 0.2, KINDS[kind])
    spikes = layer(torch.randn(30, 8, 4))
    assert set(spikes.unique().tolist()) == {0.0, 1.25}
    (spikes * torch.randn_like(spikes)).sum().backward()
    assert layer.groups.keys() == {name.partition(".")[0] for name, _ in layer.named_parameters()}
    for name, parameter in layer.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_a_layer_without_bounds_takes_its_parameters_as_they_are():
    layer, inputs = lively("radlif"), torch.randn(20, 5, 4)
    nn.init.constant_(layer.raw_leak, 0.2)
    held = layer(inputs)
    layer.bounded = False
    assert not torch.equal(layer(inputs), held)
    assert torch.equal(layer.leak, torch.full((6,), 0.2))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("neuron", PARAMETERS)
def test_spikes_are_those_of_the_neuron_s_function_on_the_normalised_input(neuron, training):
    layer, inputs = lively(neuron).double().train(training), torch.randn(20, 5, 4, dtype=torch.float64)
    weighted = inputs @ layer.linear.weight.T
    statistics = (None, None) if training else (layer.norm.running_mean, layer.norm.running_var)
    current = nn.functional.batch_norm(weighted.flatten(0, 1), *statistics, training=training).view_as(weighted)
    of_neuron = [layer.held(name) for name in layer.ranges] + ([layer.recurrent] if neuron[0] == "r" else [])
    spikes = layer(inputs)
    assert spikes.any()
    assert torch.equal(spikes, FORMS[neuron](6 * current, *of_neuron))


# What is learnt of a neuron's parameters, and the values that it has


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["leak", *RANGES])
def test_a_parameter_never_leaves_its_range_and_has_a_gradient_wherever_it_is(name, dtype):
    layer = NEURONS["adlif"](1, 9).to(dtype)
    low, high = layer.ranges[name]
    raw = torch.tensor([-8.0, -2.0, -0.5, 0.0, 0.5, 2.0, 8.0, -1e4, 1e4], dtype=dtype, requires_grad=True)
    held, rounding = layer.within(name, raw), 2 * torch.finfo(dtype).eps
    assert ((held >= low - rounding) & (held <= high + rounding)).all()
    assert (held.diff()[:6] > 0).all()
    assert held[3].item() == pytest.approx((low + high) / 2)
    assert (held[7:].tolist()) == pytest.approx([low, high])
    held.sum().backward()
    at = raw.detach()[:7].double()
    torch.testing.assert_close(raw.grad[:7].double(), (high - low) * at.exp() / (1 + at.exp()) ** 2, rtol=1e-4, atol=0)
    assert (raw.grad[:7] > 1e-6).all()


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("raw", [-8.0, 8.0])
def test_a_leak_far_out_still_learns_through_the_neurons(monkeypatch, raw, fast):
    monkeypatch.setattr(network, "fast", network.fast if fast else None)
    layer = lively("lif")
    nn.init.constant_(layer.raw_leak, raw)
    nn.init.constant_(layer.norm.weight, 40)  # which also reaches the threshold where a leak of 0.99 takes in little
    train = layer(torch.randn(30, 8, 4))
    (train * torch.randn_like(train)).sum().backward()
    assert (layer.raw_leak.grad != 0).all()


@pytest.mark.parametrize("name", ["leak", *RANGES])
def test_a_clamped_parameter_is_held_to_its_range_and_beyond_it_has_no_gradient(name):
    layer, inputs = lively("radlif", kind=clamped), torch.randn(20, 5, 4)
    low, high = layer.ranges[name]
    raw = getattr(layer, f"raw_{name}")
    for bound, beyond in ((low, low - 0.5), (high, high + 0.5)):
        nn.init.constant_(raw, bound)
        at_bound = layer(inputs)
        nn.init.constant_(raw, beyond)
        spikes = layer(inputs)
        assert torch.equal(spikes, at_bound)
        layer.zero_grad()
        spikes.sum().backward()
        assert not raw.grad.any()
    nn.init.constant_(raw, (low + high) / 2)
    assert torch.equal(layer.held(name), raw)
    layer(inputs).sum().backward()
    assert raw.grad.any()


@pytest.mark.parametrize("kind", list(KINDS)[1:])
@pytest.mark.parametrize("neuron", PARAMETERS)
def test_a_layer_of_another_kind_is_compiled_as_its_neurons_are_and_computes_the_same(monkeypatch, neuron, kind):
    layer, inputs = lively(neuron, kind=KINDS[kind]), torch.randn(30, 8, 4)
    assert vars(type(layer))["kernel"] == neuron
    assert layer.ranges == NEURONS[neuron].ranges | {"leak": LEAKS[kind]}
    assert network.fast.proven(type(layer), "cpu")
    weight, found = torch.randn(30, 8, 6), []
    monkeypatch.setattr(type(layer), "plain", lambda *_: pytest.fail("the plain form was asked"))
    for _ in range(2):
        layer.zero_grad()
        train = layer(inputs)
        (train * weight).sum().backward()
        found.append((train.detach(), {name: one.grad.clone() for name, one in layer.named_parameters()}))
        monkeypatch.undo()
        monkeypatch.setattr(network, "fast", None)
    (compiled, of_compiled), (plain, of_plain) = found
    assert torch.equal(compiled, plain)
    torch.testing.assert_close(of_compiled, of_plain, rtol=1e-3, atol=1e-4)


def test_kinds_of_layers_are_made_once():
    assert clamped(NEURONS["lif"]) is clamped(NEURONS["lif"])
    assert with_leaks(NEURONS["lif"], 0.2, 0.7) is with_leaks(NEURONS["lif"], 0.2, 0.7)
    assert NEURONS["lif"].ranges == {"leak": LEAK_RANGE}


@pytest.mark.parametrize(
    ("kind", "raw", "at_bounds", "mean"),
    [
        # A hundredth of the way is a logit of -4.6.
        ("sigmoid", [-9.0, -4.7, -4.5, 0.0, 4.5, 4.7], 0.5, None),
        (
            "clamped, other leaks",
            [-3.0, 0.204, 0.206, 0.4, 0.694, 0.696],
            0.5,
            (0.2 + 0.204 + 0.206 + 0.4 + 0.694 + 0.696) / 6,
        ),
        ("clamped, other leaks", [0.3, 0.4, 0.5, 0.6, 0.5, 0.1], 1 / 6, 2.5 / 6),
    ],
)
def test_the_share_of_leaks_at_the_ends_of_their_range_is_that_counted_by_hand(kind, raw, at_bounds, mean):
    made = network.SpikingClassifier(4, 3, (6, 6), layer=KINDS[kind](NEURONS["radlif"]))
    state = made.state_dict() | {"layers.1.raw_leak": torch.full((6,), 0.5)}  # none of the second layer's
    found = leaks(made, state | {"layers.0.raw_leak": torch.tensor(raw)})
    assert found["leaks_at_bounds"] == pytest.approx(at_bounds / 2)
    second = 0.5 if mean else 0.3 + 0.69 / (1 + math.exp(-0.5))
    first = mean or sum(0.3 + 0.69 / (1 + math.exp(-one)) for one in raw) / 6
    assert found["leak"] == pytest.approx((first + second) / 2)


def test_without_spiking_neurons_there_are_no_leaks_to_count():
    assert leaks(nn.Linear(3, 4), {}) == {}


def test_units_whose_weights_are_gone_are_dead():
    made = network.SpikingClassifier(4, 3, (6, 6))
    state = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    assert dead_units(made, state) == {"dead_units": 0}
    state["layers.1.linear.weight"][:3] *= 1e-20
    assert dead_units(made, state) == {"dead_units": 0.25}
