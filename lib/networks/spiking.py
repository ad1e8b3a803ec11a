"""Hidden layers of spiking neurons."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lib import fused, neurons
from lib.networks.norms import normaliser

# Which have an adaptation current, and which recurrent connections.
NEURONS = {"lif": (False, False), "adlif": (True, False), "rlif": (False, True), "radlif": (True, True)}


class SpikingLayer(nn.Module):
    """Linear map, normalisation, spiking neurons, dropout on their spikes.

    ``norm`` is "batch" (over time and batch), "layer" or "none". The neurons' parameters start evenly spread over
    their ranges and are held to them; recurrent weights start orthogonal, and their diagonal has no effect.
    """

    def __init__(
        self, num_inputs: int, num_units: int, neuron: str, dropout: float, *, norm: str = "batch", bias: bool = False
    ):
        super().__init__()
        self.linear = nn.Linear(num_inputs, num_units, bias=bias)
        self.norm = normaliser(norm, num_units)
        self.dropout = dropout
        self.adaptive, self.is_recurrent = NEURONS[neuron]
        self.leak = _spread(num_units, neurons.LEAK_RANGE)
        if self.adaptive:
            self.adaptation_leak = _spread(num_units, neurons.ADAPTATION_LEAK_RANGE)
            self.adaptation_potential = _spread(num_units, neurons.ADAPTATION_POTENTIAL_RANGE)
            self.adaptation_spike = _spread(num_units, neurons.ADAPTATION_SPIKE_RANGE)
        if self.is_recurrent:
            self.recurrent = nn.Parameter(nn.init.orthogonal_(torch.empty(num_units, num_units)))

    def forward(self, inputs: Float[Tensor, "time batch inputs"]) -> Float[Tensor, "time batch units"]:
        return fused.spikes(
            self.linear(inputs), self.norm, self.leak.clamp(*neurons.LEAK_RANGE),
            self.dropout if self.training else 0.0,
            adaptation=self._adaptation() if self.adaptive else None,
            recurrent=self.recurrent if self.is_recurrent else None,
        )  # fmt: skip

    def _adaptation(self) -> Float[Tensor, "3 units"]:
        return torch.stack(
            [
                self.adaptation_leak.clamp(*neurons.ADAPTATION_LEAK_RANGE),
                self.adaptation_potential.clamp(*neurons.ADAPTATION_POTENTIAL_RANGE),
                self.adaptation_spike.clamp(*neurons.ADAPTATION_SPIKE_RANGE),
            ]
        )


def _spread(units: int, bounds: tuple[float, float]) -> nn.Parameter:
    return nn.Parameter(torch.empty(units).uniform_(*bounds))
