"""The paper's network (its section 4): hidden layers of spiking neurons and a spike-rate readout."""

import itertools
from collections.abc import Collection, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from lib.networks.spiking import NEURONS, SpikingLayer


class SpikingClassifier(nn.Module):
    """Log-mel frames to class logits.

    Raises ``ValueError`` for an unknown neuron, a size that is not positive or a dropout outside [0, 1).
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        hidden_sizes: Sequence[int] = (128, 128),
        neuron: str = "lif",
        dropout: float = 0.1,
    ):
        super().__init__()
        if neuron not in NEURONS:
            raise ValueError(f"unknown neuron {neuron!r}: choose one of {', '.join(NEURONS)}")
        if not hidden_sizes or min(num_features, num_classes, *hidden_sizes) < 1:
            raise ValueError("a network needs at least one hidden layer, and every size at least 1")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is a probability between 0 and 1, and below 1, not {dropout}")
        sizes = [num_features, *hidden_sizes]
        self.layers = nn.ModuleList(
            SpikingLayer(inputs, units, neuron, dropout) for inputs, units in itertools.pairwise(sizes)
        )
        self.norm = nn.BatchNorm1d(sizes[-1], momentum=0.05)
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(sizes[-1], num_classes)

    def hidden_spikes(self, features: Float[Tensor, "batch time features"]) -> list[Float[Tensor, "time batch _"]]:
        """The spike trains of each hidden layer, first to last."""
        trains = [features.transpose(0, 1)]
        for layer in self.layers:
            trains.append(layer(trains[-1]))
        return trains[1:]

    def forward(
        self, inputs: Float[Tensor, "batch time _"], start: int = 0, stop: int | None = None
    ) -> Float[Tensor, "batch ..."]:
        """Logits from the mean firing rates of the last hidden layer (equations 3 and 4).

        With ``stop`` the spikes [batch, time, units] of the first ``stop`` hidden layers' last; with ``start`` these
        are the inputs, and the layers before are left out.
        """
        train = inputs.transpose(0, 1)
        for layer in self.layers[start:stop]:
            train = layer(train)
        if stop is not None:
            return train.transpose(0, 1)
        return self.readout(self.dropout(self.norm(train.mean(dim=0))))


def unmoved_layers(network: nn.Module, moved: Collection[str]) -> int:
    """How many of the network's first hidden layers have none of the ``moved`` parameters; 0 for another network."""
    if not isinstance(network, SpikingClassifier):
        return 0
    touched = [any(name.startswith(f"layers.{index}.") for name in moved) for index in range(len(network.layers))]
    return [*touched, True].index(True)
