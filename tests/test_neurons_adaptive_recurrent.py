"""adLIF, RLIF and RadLIF against voltages worked out by hand, a loop over their equations, and each other."""

import math

import pytest
import torch

from lib import neurons
from lib.neurons.surrogate import fired

ADAPTATION_RANGES = [
    neurons.ADAPTATION_LEAK_RANGE,
    neurons.ADAPTATION_POTENTIAL_RANGE,
    neurons.ADAPTATION_SPIKE_RANGE,
]
FORMS = {
    "lif": (neurons.lif, neurons.lif_potential),
    "adlif": (neurons.adlif, neurons.adlif_potential),
    "rlif": (neurons.rlif, neurons.rlif_potential),
    "radlif": (neurons.radlif, neurons.radlif_potential),
}
NEW = ["adlif", "rlif", "radlif"]


def parameters_of(neuron, units, dtype=torch.float64):
    """Leak, then adaptation's three, then recurrent weights, of those that the neuron has."""
    ranges = [neurons.LEAK_RANGE, *(ADAPTATION_RANGES if "ad" in neuron else [])]
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
    """The issue's equations, step by step: spikes and potentials that autograd can follow."""
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


@pytest.mark.parametrize("neuron", NEW)
def test_potentials_and_spikes_are_those_worked_out_by_hand(neuron):
    current, parameters, potentials, spikes = BY_HAND[neuron]
    current = torch.tensor(current)[:, None].repeat(1, 2, 1)  # two examples, alike
    fires, potential = FORMS[neuron]
    for example in range(2):
        assert potential(current, *parameters)[:, example].tolist() == potentials
        assert fires(current, *parameters)[:, example].tolist() == spikes


def test_gradients_of_adaptation_are_those_worked_out_by_hand():
    # leak 0.5, currents 2.5 and 3, a = 0.5, b = 1: u1 = 1.25, a spike;  w2 = 0.5 * 1.25 + 1 = 1.625;
    # u2 = 0.5 * 0.25 + 0.5 * (3 - 1.625) = 0.8125; both within the boxcar. For s2 alone: dL/du2 = 1, dL/dw2 = -0.5,
    # dL/du1 = 0.5 - 0.5 * 0.5 + (-0.5 - 0.5 * 1) = -0.75: by leak and potential, and by the spike's reset and b.
    current = torch.tensor([2.5, 3.0])[:, None, None].requires_grad_()
    parameters = [parameter.requires_grad_() for parameter in tensors([0.5], [0.25], [0.5], [1.0])]
    _, second = neurons.adlif(current, *parameters).flatten()
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
    spike = neurons.rlif(current, leak, weights)[1, 0, 1]
    of_current, of_leak, of_weights = torch.autograd.grad(spike, (current, leak, weights))
    assert of_current[:, 0].tolist() == [[0.25, 0.0], [0.0, 0.5], [0.0, 0.0], [0.0, 0.0]]
    assert of_weights.tolist() == [[0.0, 0.0], [0.5, 0.0]]
    # Unit 0: 0.5 * (0 - I1) = -1.5; unit 1: u1 - (I2 + 1) = 0.5 - 2.
    assert of_leak.tolist() == [-1.5, -1.5]


@pytest.mark.parametrize("threshold", [1.0, 0.6, -0.2])
@pytest.mark.parametrize("time", [1, 2, 25])
@pytest.mark.parametrize("neuron", NEW)
def test_spikes_and_gradients_are_those_of_the_equations_under_autograd(neuron, time, threshold):
    current, parameters = 12 * torch.randn(time, 4, 5, dtype=torch.float64), parameters_of(neuron, 5)
    weight = torch.randn_like(current)
    results = []
    for form in (FORMS[neuron][0], lambda *given, **more: equations(neuron, *given, **more)[0]):
        inputs = [tensor.clone().requires_grad_() for tensor in (current, *parameters)]
        spikes = form(*inputs, threshold=threshold)
        gradients = torch.autograd.grad((weight * spikes).sum(), inputs, materialize_grads=True)
        results.append((spikes.detach(), gradients))
    (spikes, gradients), (expected, expected_gradients) = results
    assert 0 < expected.sum() < expected.numel()
    assert torch.equal(spikes, expected)
    for gradient, reference in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-10, atol=1e-10 * max(1, float(reference.abs().max())))


@pytest.mark.parametrize("neuron", NEW)
def test_potentials_are_those_of_the_equations_and_carry_no_gradient(neuron):
    current, parameters = 12 * torch.randn(30, 3, 4, dtype=torch.float64), parameters_of(neuron, 4)
    _, expected = equations(neuron, current, *parameters)
    potentials = FORMS[neuron][1](current.requires_grad_(), *(given.requires_grad_() for given in parameters))
    assert not potentials.requires_grad
    torch.testing.assert_close(potentials, expected, rtol=1e-10, atol=1e-10)


def test_without_gains_adlif_is_lif():
    current, (leak, beta) = 12 * torch.randn(40, 3, 6), torch.rand(2, 6)
    none = torch.zeros(6)
    assert torch.equal(neurons.adlif(current, leak, beta, none, none), neurons.lif(current, leak))


def test_without_connections_rlif_is_lif_and_radlif_is_adlif():
    current = 12 * torch.randn(40, 3, 6)
    leak, *adaptation, _ = parameters_of("radlif", 6, torch.float32)
    none = torch.zeros(6, 6)
    assert torch.equal(neurons.rlif(current, leak, none), neurons.lif(current, leak))
    adaptive = neurons.adlif(current, leak, *adaptation)
    assert torch.equal(neurons.radlif(current, leak, *adaptation, none), adaptive)
    assert not torch.equal(adaptive, neurons.lif(current, leak))


@pytest.mark.parametrize("neuron", ["rlif", "radlif"])
def test_no_neuron_receives_its_own_spikes(neuron):
    current = 12 * torch.randn(30, 3, 5)
    *others, weights = parameters_of(neuron, 5, torch.float32)
    fires, _ = FORMS[neuron]
    other = weights + torch.diag(torch.full((5,), 100.0))
    assert torch.equal(fires(current, *others, weights), fires(current, *others, other))
    fires(current, *others, weights.requires_grad_()).sum().backward()
    assert (weights.grad.diagonal() == 0).all()
    assert weights.grad.any()


@pytest.mark.parametrize("neuron", ["rlif", "radlif"])
def test_a_row_of_weights_is_what_a_unit_receives(neuron):
    # Unit 0 fires at first; unit 2 alone receives that, and fires a step later.
    leak, *adaptation, weights = [0 * parameter for parameter in parameters_of(neuron, 3, torch.float32)]
    weights[2, 0] = 5.0
    current = torch.zeros(3, 1, 3)
    current[0, 0, 0] = 2.0
    assert FORMS[neuron][0](current, leak, *adaptation, weights)[:, 0].tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize("neuron", NEW)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(5, 3, 4), (1, 1, 1), (0, 3, 4), (5, 0, 4)])
def test_types_and_shapes_are_kept(neuron, dtype, shape):
    current, parameters = torch.randn(shape, dtype=dtype), parameters_of(neuron, shape[2], dtype)
    for form in FORMS[neuron]:
        result = form(current, *parameters)
        assert (result.shape, result.dtype) == (shape, dtype)


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
    potentials = neurons.adlif_potential(current, *given, threshold=math.inf).flatten()
    assert float(potentials[-1] / potentials[-2]) == pytest.approx(eigenvalue, rel=1e-6)


def test_the_ranges_are_the_baseline_s():
    # exp(-1/30) and exp(-1/120)
    shortest, longest = neurons.ADAPTATION_LEAK_RANGE
    assert shortest == pytest.approx(0.9672161004820059, abs=1e-15)
    assert longest == pytest.approx(0.9917012926388760, abs=1e-15)
    assert (neurons.ADAPTATION_POTENTIAL_RANGE, neurons.ADAPTATION_SPIKE_RANGE) == ((-1, 1), (0, 2))


def test_a_spike_s_derivative_is_the_boxcar():
    potential = torch.tensor([0.49, 0.5, 1.0, 1.01, 1.5, 1.51], requires_grad=True)
    spikes = fired(potential)
    assert spikes.tolist() == [0, 0, 0, 1, 1, 1]
    spikes.sum().backward()
    assert potential.grad.tolist() == [0, 1, 1, 1, 1, 0]
