"""The baseline's readouts (Bittar & Garner 2022), which sum a softmax over time.

Behind spikes the outputs are not logits. They are shares of the time steps, between 0 and their number, which is their
sum; the baseline hands them to the cross-entropy as if they were logits, and so do we. A class ahead by a twentieth of
100 time steps is then given e^5 times the other's probability: such networks are confident by construction. Without
spikes the softmax stands before a linear map, which gives logits.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lib.network import MOMENTUM, SpikingClassifier
from lib.neurons.clamped import BASELINE_LEAKS


def leaky_integral(
    current: Float[Tensor, "time batch units"], leak: Float[Tensor, " units"]
) -> Float[Tensor, "time batch units"]:
    """Potentials of neurons that never fire: ``u_t = leak u_{t-1} + (1 - leak) current_t`` from ``u_0 = 0``.

    It is one product for each unit, with the powers of its leak: quadratic in time, and still quicker for a few units
    over hundreds of steps than the loop.
    """
    steps = torch.arange(len(current), device=current.device)
    lags = steps[:, None] - steps
    response = ((1 - leak)[:, None, None] * leak[:, None, None] ** lags.clamp(min=0)).tril()
    return (response @ current.permute(2, 0, 1)).permute(1, 2, 0)


def softmax_of_potentials(
    current: Float[Tensor, "time batch classes"], leak: Float[Tensor, " classes"]
) -> Float[Tensor, "batch classes"]:
    """How long each class is the likely one: the softmax over classes of their potentials, summed over time."""
    return leaky_integral(current, leak).softmax(dim=-1).sum(dim=0)


def softmax_over_units(outputs: Float[Tensor, "time batch units"]) -> Float[Tensor, "batch units"]:
    """What the baseline's networks without spikes give to their last linear map."""
    return outputs.softmax(dim=-1).sum(dim=0)


class NonSpikingSoftmaxReadout(SpikingClassifier):
    """A classifier of layers without spikes, read out by a linear map of the softmax over their units."""

    bias: ClassVar[bool] = False

    def make_readout(self, inputs: int, num_classes: int) -> None:
        self.norm = nn.BatchNorm1d(num_classes, momentum=MOMENTUM)
        self.readout = nn.Linear(inputs, num_classes, bias=self.bias)

    def classify(self, train: Float[Tensor, "time batch units"]) -> Float[Tensor, "batch classes"]:
        return self.norm(self.readout(softmax_over_units(train)))


class SoftmaxReadout(NonSpikingSoftmaxReadout):
    """A ``SpikingClassifier`` read out by the softmax of its classes' potentials."""

    def make_readout(self, inputs: int, num_classes: int) -> None:
        super().make_readout(inputs, num_classes)
        self.leak = nn.Parameter(torch.empty(num_classes).uniform_(*BASELINE_LEAKS))

    def classify(self, train: Float[Tensor, "time batch units"]) -> Float[Tensor, "batch classes"]:
        weighted = self.readout(train)
        current = self.norm(weighted.flatten(0, 1)).view_as(weighted)
        return softmax_of_potentials(current, self.leak.clamp(*BASELINE_LEAKS))
