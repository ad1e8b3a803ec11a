"""Non-spiking baselines: the MLP, RNN, LiGRU and GRU of Bittar & Garner (2022), as layers for ``SpikingClassifier``."""

from collections.abc import Iterator
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import dropout

from lib.network import MOMENTUM


class BaselineLayer(nn.Module):
    """Linear maps, each with a norm over time and batch of its own; ``outputs_of`` their sums; dropout.

    ``gates`` counts the maps of its inputs that a layer has: its candidate output's comes last, its gates' before. They
    are stacked into one, and so are the recurrent ones, which have no bias and start orthogonal.
    """

    gates: ClassVar[int] = 1
    recurs: ClassVar[bool] = True
    fires: ClassVar[bool] = False
    bias: ClassVar[bool] = False
    groups: ClassVar[dict[str, str]] = {"linear": "weights", "norm": "norm", "recurrent": "recurrent"}

    def __init__(self, num_inputs: int, num_units: int, dropout: float = 0.1):
        super().__init__()
        self.linear = nn.Linear(num_inputs, self.gates * num_units, bias=self.bias)
        self.norm = nn.BatchNorm1d(self.gates * num_units, momentum=MOMENTUM)
        self.dropout, self.outputs = dropout, num_units
        if self.recurs:
            maps = [nn.init.orthogonal_(torch.empty(num_units, num_units)) for _ in range(self.gates)]
            self.recurrent = nn.Parameter(torch.cat(maps))

    def forward(self, inputs: Float[Tensor, "time batch inputs"]) -> Float[Tensor, "time batch units"]:
        weighted = self.linear(inputs)
        outputs = self.outputs_of(self.norm(weighted.flatten(0, 1)).view_as(weighted))
        return dropout(outputs, self.dropout, self.training)

    def outputs_of(self, current: Float[Tensor, "time batch maps"]) -> Float[Tensor, "time batch units"]:
        raise NotImplementedError


class MLP(BaselineLayer):
    recurs: ClassVar = False

    def outputs_of(self, current: Float[Tensor, "time batch units"]) -> Float[Tensor, "time batch units"]:
        return current.sigmoid()


class RNN(BaselineLayer):
    def outputs_of(self, current: Float[Tensor, "time batch units"]) -> Float[Tensor, "time batch units"]:
        return rnn(current, self.recurrent)


class LiGRU(BaselineLayer):
    gates: ClassVar = 2

    def outputs_of(self, current: Float[Tensor, "time batch two_units"]) -> Float[Tensor, "time batch units"]:
        return ligru(current, self.recurrent)


class GRU(BaselineLayer):
    gates: ClassVar = 3

    def outputs_of(self, current: Float[Tensor, "time batch three_units"]) -> Float[Tensor, "time batch units"]:
        return gru(current, self.recurrent)


def rnn(
    current: Float[Tensor, "time batch units"], recurrent: Float[Tensor, "units units"]
) -> Float[Tensor, "time batch units"]:
    """``y_t = sigmoid(current_t + V y_{t-1})`` from ``y_0 = 0``."""
    return _RNN.apply(current, recurrent)


def ligru(
    current: Float[Tensor, "time batch two_units"], recurrent: Float[Tensor, "two_units units"]
) -> Float[Tensor, "time batch units"]:
    """Light gated recurrent units (Ravanelli et al. 2018): ``y_t = z_t y_{t-1} + (1 - z_t) c_t`` from ``y_0 = 0``.

    ``z_t = sigmoid(current^z_t + V_z y_{t-1})`` and ``c_t = relu(current^c_t + V_c y_{t-1})``; z is stacked before c.
    """
    return _LiGRU.apply(current, recurrent)


def gru(
    current: Float[Tensor, "time batch three_units"], recurrent: Float[Tensor, "three_units units"]
) -> Float[Tensor, "time batch units"]:
    """Gated recurrent units (Cho et al. 2014): ``y_t = z_t y_{t-1} + (1 - z_t) c_t`` from ``y_0 = 0``.

    ``z_t`` and ``r_t`` are as LiGRU's ``z_t`` and ``c_t = tanh(current^c_t + V_c (r_t y_{t-1}))``; stacked z, r, c.
    The reset gate is applied before the recurrent map, where ``torch.nn.GRU`` applies it after.
    """
    return _GRU.apply(current, recurrent)


# The recurrences and their adjoints by hand: in-place steps, no tape, and the gradient of the recurrent map in one
# product at the end. Each keeps its outputs [1 + time, ...], the first being the initial state, and its activations.


class _RNN(torch.autograd.Function):
    @staticmethod
    def forward(ctx, current, recurrent):
        outputs = _from_zero(current, recurrent)
        for of_step, before, after in zip(current, outputs[:-1], outputs[1:], strict=True):
            torch.addmm(of_step, before, recurrent.T, out=after).sigmoid_()
        ctx.save_for_backward(recurrent, outputs)
        return outputs[1:]

    @staticmethod
    def backward(ctx, grad):
        recurrent, outputs = ctx.saved_tensors
        slopes = outputs[1:] * (1 - outputs[1:])
        grad_current, later = torch.empty_like(slopes), torch.zeros_like(grad[0])
        for arriving, slope, of_step in _backwards(grad, slopes, grad_current):
            torch.mul(arriving + later, slope, out=of_step)
            later = of_step @ recurrent
        return grad_current, _outer(grad_current, outputs[:-1])


class _LiGRU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, current, recurrent):
        outputs, activations = _from_zero(current, recurrent), torch.empty_like(current)
        updates, candidates = activations.chunk(2, dim=-1)
        for of_step, both, update, candidate, before, after in zip(
            current, activations, updates, candidates, outputs[:-1], outputs[1:], strict=True
        ):
            torch.addmm(of_step, before, recurrent.T, out=both)
            torch.lerp(candidate.relu_(), before, update.sigmoid_(), out=after)
        ctx.save_for_backward(recurrent, outputs, activations)
        return outputs[1:]

    @staticmethod
    def backward(ctx, grad):
        recurrent, outputs, activations = ctx.saved_tensors
        updates, candidates = activations.chunk(2, dim=-1)
        slopes = torch.stack([_through_update(outputs, updates, candidates), (1 - updates) * (candidates > 0)], dim=2)
        grad_current, later = torch.empty_like(slopes), torch.zeros_like(grad[0])
        for arriving, update, slope, of_step in _backwards(grad, updates, slopes, grad_current):
            arriving = arriving + later
            torch.mul(arriving[:, None], slope, out=of_step)
            later = (arriving * update).addmm_(of_step.flatten(1), recurrent)
        grad_current = grad_current.flatten(2)
        return grad_current, _outer(grad_current, outputs[:-1])


class _GRU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, current, recurrent):
        outputs, activations = _from_zero(current, recurrent), torch.empty_like(current)
        units = outputs.shape[-1]
        split = [2 * units, units]
        of_gates, of_candidate = recurrent.T.split(split, dim=1)
        gates, _ = activations.split(split, dim=-1)
        for to_gates, to_candidate, both, update, reset, candidate, before, after in zip(
            *current.split(split, dim=-1), gates, *activations.chunk(3, dim=-1), outputs[:-1], outputs[1:], strict=True
        ):
            torch.addmm(to_gates, before, of_gates, out=both).sigmoid_()
            torch.addmm(to_candidate, reset * before, of_candidate, out=candidate).tanh_()
            torch.lerp(candidate, before, update, out=after)
        ctx.save_for_backward(recurrent, outputs, activations)
        return outputs[1:]

    @staticmethod
    def backward(ctx, grad):
        recurrent, outputs, activations = ctx.saved_tensors
        units = outputs.shape[-1]
        split = [2 * units, units]
        of_gates, of_candidate = recurrent.split(split)
        updates, resets, candidates = activations.chunk(3, dim=-1)
        slopes = (
            _through_update(outputs, updates, candidates),
            outputs[:-1] * resets * (1 - resets),
            (1 - updates) * (1 - candidates**2),
        )
        grad_current, later = torch.empty_like(activations), torch.zeros_like(grad[0])
        grad_gates, grad_candidate = grad_current.split(split, dim=-1)
        for arriving, update, reset, *slope, to_update, to_reset, to_candidate, to_gates in _backwards(
            grad, updates, resets, *slopes, *grad_current.chunk(3, dim=-1), grad_gates
        ):
            arriving = arriving + later
            torch.mul(arriving, slope[0], out=to_update)
            torch.mul(arriving, slope[2], out=to_candidate)
            remembered = to_candidate @ of_candidate
            torch.mul(remembered, slope[1], out=to_reset)
            later = (arriving * update).addcmul_(remembered, reset).addmm_(to_gates, of_gates)
        of_recurrent = [_outer(grad_gates, outputs[:-1]), _outer(grad_candidate, resets * outputs[:-1])]
        return grad_current, torch.cat(of_recurrent)


def _backwards(*over_time: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The time steps, last to first."""
    return zip(*(reversed(tensor.unbind()) for tensor in over_time), strict=True)


def _through_update(outputs: Tensor, updates: Tensor, candidates: Tensor) -> Tensor:
    """The derivative of an output by what its update gate's sigmoid is given."""
    return (outputs[:-1] - candidates) * updates * (1 - updates)


def _from_zero(current: Tensor, recurrent: Tensor) -> Tensor:
    """Room for the outputs of all time steps, behind an initial state of zeros."""
    outputs = current.new_empty(current.shape[0] + 1, current.shape[1], recurrent.shape[1])
    outputs[0] = 0
    return outputs


def _outer(grad: Tensor, inputs: Tensor) -> Tensor:
    """A linear map's gradient, summed over time and batch."""
    return grad.flatten(0, 1).T @ inputs.flatten(0, 1)
