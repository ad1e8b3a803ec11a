"""Hidden layers of spiking neurons."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lib import fused, neurons

# Each from weighted input to dropped-out spikes, over [time, batch, units].
NEURONS = {"lif": fused.spikes}


class SpikingLayer(nn.Module):
    """Linear map, batch normalisation over time and batch, spiking neurons, dropout on their spikes."""

    def __init__(self, num_inputs: int, num_units: int, neuron: str, dropout: float):
        super().__init__()
        self.linear = nn.Linear(num_inputs, num_units, bias=False)
        self.norm = nn.BatchNorm1d(num_units, momentum=0.05)
        self.leak = nn.Parameter(torch.empty(num_units).uniform_(*neurons.LEAK_RANGE))
        self.dropout = dropout
        self.neuron = NEURONS[neuron]

    def forward(self, inputs: Float[Tensor, "time batch inputs"]) -> Float[Tensor, "time batch units"]:
        leak = self.leak.clamp(*neurons.LEAK_RANGE)
        return self.neuron(self.linear(inputs), self.norm, leak, self.dropout if self.training else 0.0)
