"""Non-spiking baselines: numbers worked out by hand, slow loops from the equations, and PyTorch's own layers."""

import math

import pytest
import torch
from scipy.special import expit
from torch import nn

from lib.networks import biased, normaliser
from lib.networks.baselines import GRU, MLP, RNN, LiGRU

LAYERS = {"mlp": MLP, "rnn": RNN, "ligru": LiGRU, "gru": GRU}
RECURRENT = ("rnn", "ligru", "gru")


def column(*values):
    """One example's course."""
    return torch.tensor(values, dtype=torch.float64).reshape(len(values), 1, -1)


def slow(kind, current, recurrent):
    """The baseline's equations, a step at a time, by autograd."""
    units, outputs = recurrent.shape[1], []
    maps, y = recurrent.split(units), torch.zeros_like(current[0, :, :units])
    for of_step in current:
        parts = of_step.split(units, dim=1)
        if kind == "rnn":
            y = 1 / (1 + torch.exp(-(parts[0] + y @ maps[0].T)))
        else:
            z = 1 / (1 + torch.exp(-(parts[0] + y @ maps[0].T)))
            if kind == "ligru":
                c = (parts[1] + y @ maps[1].T).clamp(min=0)
            else:
                r = 1 / (1 + torch.exp(-(parts[1] + y @ maps[1].T)))
                c = torch.tanh(parts[2] + (r * y) @ maps[2].T)
            y = z * y + (1 - z) * c
        outputs.append(y)
    return torch.stack(outputs)


def drawn(kind, time=9, batch=4, units=5):
    current = torch.randn(time, batch, LAYERS[kind].gates * units, dtype=torch.float64)
    return current, torch.randn(LAYERS[kind].gates * units, units, dtype=torch.float64)


def test_rnn_by_hand():
    # sigmoid(0) = 1/2, then sigmoid(log 3 - 1 + 2/2) = 3/4.
    outputs = RNN.outputs_of(column(0, math.log(3) - 1), torch.full((1, 1), 2.0, dtype=torch.float64))
    torch.testing.assert_close(outputs, column(0.5, 0.75))


def test_ligru_by_hand():
    # From 0: z = 1/2, c = 4, y = 2. Then z = sigmoid(2 log(3) / 2) = 3/4, c = relu(1 - 2) = 0, y = 3/2.
    current = torch.tensor([[[0.0, 4.0]], [[0.0, 1.0]]], dtype=torch.float64)
    recurrent = torch.tensor([[math.log(3) / 2], [-1.0]], dtype=torch.float64)
    torch.testing.assert_close(LiGRU.outputs_of(current, recurrent), column(2, 1.5))


def test_gru_by_hand():
    # From 0: z = 1/2, c = 0.8, y = 0.4. Then r = 3/4, c = tanh(artanh(0.5) - 0.3 + 3/4 of 0.4) = 0.5, z = 1/4 and
    # y = 0.4/4 + 3/4 of 0.5.
    current = [[[0.0, 5.0, math.atanh(0.8)]], [[-math.log(3), math.log(3), math.atanh(0.5) - 0.3]]]
    outputs = GRU.outputs_of(
        torch.tensor(current, dtype=torch.float64), torch.tensor([[0.0], [0.0], [1.0]], dtype=torch.float64)
    )
    torch.testing.assert_close(outputs, column(0.4, 0.475))


@pytest.mark.parametrize("kind", RECURRENT)
@pytest.mark.parametrize(("time", "batch", "units"), [(9, 4, 5), (1, 3, 4), (6, 1, 1)])
def test_outputs_and_gradients_are_those_of_a_slow_loop(kind, time, batch, units):
    current, recurrent = (tensor.requires_grad_() for tensor in drawn(kind, time, batch, units))
    outputs, expected = LAYERS[kind].outputs_of(current, recurrent), slow(kind, current, recurrent)
    torch.testing.assert_close(outputs, expected)
    weights = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(outputs, (current, recurrent), weights),
        torch.autograd.grad(expected, (current, recurrent), weights),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_gru_is_pytorch_s_where_the_reset_gate_s_place_makes_no_difference():
    # Before the candidate's recurrent map here, after it there: the same where that map is diagonal.
    current, recurrent = drawn("gru")
    recurrent[10:] = torch.diag(recurrent[10:].diagonal())
    theirs, order = nn.GRU(15, 5, bias=False).double(), [1, 0, 2]  # PyTorch stacks reset, update, candidate
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(torch.cat([torch.eye(15).split(5)[gate] for gate in order]))
        theirs.weight_hh_l0.copy_(torch.cat([recurrent.split(5)[gate] for gate in order]))
        expected = theirs(current)[0]
    torch.testing.assert_close(GRU.outputs_of(current, recurrent), expected)


def test_an_mlp_layer_is_a_sigmoid_of_its_linear_map():
    layer, inputs = biased(MLP)(3, 4, 0.0), torch.randn(5, 2, 3)
    layer.norm = nn.Identity()
    expected = expit(inputs.numpy() @ layer.linear.weight.detach().numpy().T + layer.linear.bias.detach().numpy())
    torch.testing.assert_close(layer(inputs).detach(), torch.from_numpy(expected))


@pytest.mark.parametrize(("norm", "over"), [("batch", (0, 1)), ("layer", -1)])
@pytest.mark.parametrize("kind", LAYERS)
def test_each_gate_has_a_norm_of_its_own_over_time_and_batch_or_units(kind, norm, over):
    layer, inputs = LAYERS[kind](3, 4, 0.0).double(), torch.randn(6, 5, 3, dtype=torch.float64)
    layer.norm = normaliser(norm, 4 * layer.gates, layer.gates).double()
    weighted = inputs @ layer.linear.weight.T
    parts = [
        (part - part.mean(over, keepdim=True)) / (part.var(over, correction=0, keepdim=True) + 1e-5).sqrt()
        for part in weighted.split(4, dim=-1)
    ]
    current = torch.cat(parts, dim=-1)
    expected = slow(kind, current, layer.recurrent) if kind in RECURRENT else torch.sigmoid(current)
    torch.testing.assert_close(layer(inputs), expected)
    if norm == "batch":
        # from 0, at the momentum of 0.05
        torch.testing.assert_close(layer.norm.running_mean, 0.05 * weighted.mean(dim=(0, 1)))


@pytest.mark.parametrize("kind", RECURRENT)
def test_recurrent_maps_start_orthogonal(kind):
    for square in LAYERS[kind](3, 7).recurrent.split(7):
        torch.testing.assert_close(square @ square.T, torch.eye(7), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", LAYERS)
def test_dropout_is_that_of_training_alone(kind):
    layer, inputs = LAYERS[kind](3, 40, 0.5), torch.randn(6, 5, 3)
    layer.norm = nn.Identity()
    full = layer.eval()(inputs)
    dropped = layer.train()(inputs)
    torch.testing.assert_close(dropped, torch.where(dropped == 0, 0, 2 * full))
    assert 0.3 < (dropped == 0)[full != 0].float().mean() < 0.7
