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

    A recurrent layer gives its steps and their adjoint by hand, in place and without a tape. ``steps`` writes the
    outputs ``after`` each time step, from those ``before`` it, and its activations; ``back`` writes the loss's gradient
    by ``current`` and returns that by ``recurrent``.
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
        weighted = self.linear(inputs).to(self.linear.weight)  # under autocast it comes in fewer bits
        current = self.norm(weighted.flatten(0, 1)).view_as(weighted)
        outputs = self.outputs_of(current, self.recurrent) if self.recurs else current.sigmoid()
        return dropout(outputs, self.dropout, self.training)

    @classmethod
    def outputs_of(
        cls, current: Float[Tensor, "time batch maps"], recurrent: Float[Tensor, "maps units"]
    ) -> Float[Tensor, "time batch units"]:
        """Of a recurrent layer, from normalised inputs."""
        return _Recurrence.apply(current, recurrent, cls)


class MLP(BaselineLayer):
    """``y_t = sigmoid(current_t)``."""

    recurs: ClassVar = False


class RNN(BaselineLayer):
    """``y_t = sigmoid(current_t + V y_{t-1})`` from ``y_0 = 0``."""

    @staticmethod
    def steps(current, recurrent, activations, before, after):
        for of_step, y, out in zip(current, before, after, strict=True):
            torch.addmm(of_step, y, recurrent.T, out=out).sigmoid_()

    @staticmethod
    def back(grad, recurrent, activations, before, after, by_current):
        slopes, later = after * (1 - after), torch.zeros_like(grad[0])
        for arriving, slope, by_step in _backwards(grad, slopes, by_current):
            torch.mul(arriving + later, slope, out=by_step)
            later = by_step @ recurrent
        return _outer(by_current, before)


class LiGRU(BaselineLayer):
    """Light gated recurrent units (Ravanelli et al. 2018): ``y_t = z_t y_{t-1} + (1 - z_t) c_t`` from ``y_0 = 0``.

    ``z_t = sigmoid(current^z_t + V_z y_{t-1})`` and ``c_t = relu(current^c_t + V_c y_{t-1})``; z is stacked before c.
    """

    gates: ClassVar = 2

    @staticmethod
    def steps(current, recurrent, activations, before, after):
        for of_step, both, z, c, y, out in zip(
            current, activations, *activations.chunk(2, dim=-1), before, after, strict=True
        ):
            torch.addmm(of_step, y, recurrent.T, out=both)
            torch.lerp(c.relu_(), y, z.sigmoid_(), out=out)

    @staticmethod
    def back(grad, recurrent, activations, before, after, by_current):
        zs, cs = activations.chunk(2, dim=-1)
        slopes = torch.stack([_through_update(before, zs, cs), (1 - zs) * (cs > 0)], dim=2)
        later = torch.zeros_like(grad[0])
        for arriving, z, slope, by_step in _backwards(grad, zs, slopes, by_current):
            arriving = arriving + later
            torch.mul(arriving[:, None], slope, out=by_step.view_as(slope))
            later = (arriving * z).addmm_(by_step, recurrent)
        return _outer(by_current, before)


class GRU(BaselineLayer):
    """Gated recurrent units (Cho et al. 2014): ``y_t = z_t y_{t-1} + (1 - z_t) c_t`` from ``y_0 = 0``.

    ``z_t`` and ``r_t`` are as LiGRU's ``z_t`` and ``c_t = tanh(current^c_t + V_c (r_t y_{t-1}))``; stacked z, r, c.
    The reset gate is applied before the recurrent map, where ``torch.nn.GRU`` applies it after.
    """

    gates: ClassVar = 3

    @staticmethod
    def steps(current, recurrent, activations, before, after):
        split = [2 * len(recurrent) // 3, len(recurrent) // 3]
        of_gates, of_candidate = recurrent.T.split(split, dim=1)
        for to_gates, to_candidate, both, z, r, c, y, out in zip(
            *current.split(split, dim=-1), activations.split(split, dim=-1)[0], *activations.chunk(3, dim=-1),
            before, after, strict=True,
        ):  # fmt: skip
            torch.addmm(to_gates, y, of_gates, out=both).sigmoid_()
            torch.addmm(to_candidate, r * y, of_candidate, out=c).tanh_()
            torch.lerp(c, y, z, out=out)

    @staticmethod
    def back(grad, recurrent, activations, before, after, by_current):
        split = [2 * len(recurrent) // 3, len(recurrent) // 3]
        of_gates, of_candidate = recurrent.split(split)
        zs, rs, cs = activations.chunk(3, dim=-1)
        slopes = _through_update(before, zs, cs), before * rs * (1 - rs), (1 - zs) * (1 - cs**2)
        by_gates, by_candidate = by_current.split(split, dim=-1)
        later = torch.zeros_like(grad[0])
        for arriving, z, r, to_z, to_r, to_c, by_z, by_r, by_c, by_both in _backwards(
            grad, zs, rs, *slopes, *by_current.chunk(3, dim=-1), by_gates
        ):
            arriving = arriving + later
            torch.mul(arriving, to_z, out=by_z)
            torch.mul(arriving, to_c, out=by_c)
            remembered = by_c @ of_candidate
            torch.mul(remembered, to_r, out=by_r)
            later = (arriving * z).addcmul_(remembered, r).addmm_(by_both, of_gates)
        return torch.cat([_outer(by_gates, before), _outer(by_candidate, rs * before)])


class _Recurrence(torch.autograd.Function):
    """The outputs of a layer's ``steps``, differentiated by its ``back``."""

    @staticmethod
    def forward(ctx, current, recurrent, layer):
        outputs = current.new_empty(current.shape[0] + 1, current.shape[1], recurrent.shape[1])
        outputs[0] = 0
        ctx.layer, activations = layer, torch.empty_like(current)
        layer.steps(current, recurrent, activations, outputs[:-1], outputs[1:])
        ctx.save_for_backward(recurrent, activations, outputs)
        return outputs[1:]

    @staticmethod
    def backward(ctx, grad):
        recurrent, activations, outputs = ctx.saved_tensors
        by_current = torch.empty_like(activations)
        by_recurrent = ctx.layer.back(grad, recurrent, activations, outputs[:-1], outputs[1:], by_current)
        return by_current, by_recurrent, None


def _backwards(*over_time: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The time steps, last to first."""
    return zip(*(reversed(tensor.unbind()) for tensor in over_time), strict=True)


def _through_update(before: Tensor, updates: Tensor, candidates: Tensor) -> Tensor:
    """The derivative of an output by what its update gate's sigmoid is given."""
    return (before - candidates) * updates * (1 - updates)


def _outer(grad: Tensor, inputs: Tensor) -> Tensor:
    """A linear map's gradient, summed over time and batch in one product."""
    return grad.flatten(0, 1).T @ inputs.flatten(0, 1)
