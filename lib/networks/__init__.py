"""The paper's network (its section 4), the baseline's other ones (Bittar & Garner 2022), and their readouts."""

from collections.abc import Callable, Collection, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lib import neurons
from lib.networks.controls import GATES, ControlLayer
from lib.networks.norms import NORMS, normalised, normaliser
from lib.networks.readouts import READOUTS, softmax_of_potentials, softmax_over_units
from lib.networks.spiking import NEURONS, SpikingLayer


class Classifier(nn.Module):
    """Frames to class logits: hidden layers, of which ``layer(inputs, units, ...)`` makes one, and a readout.

    ``readout`` is "rate", the paper's linear map of normalised means over time, or "softmax", the baseline's (see
    ``readouts``); ``norm``, of the readout too, is "batch", "layer" or "none"; ``bias`` gives one to the linear maps
    that otherwise have none. ``bidirectional`` layers hear each sequence backwards too, with the same weights, and
    have two outputs for each unit.

    Raises ``ValueError`` for an unknown name, a size that is not positive or a dropout outside [0, 1).
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        hidden_sizes: Sequence[int],
        layer: Callable[..., nn.Module],
        dropout: float,
        *,
        readout: str = "rate",
        norm: str = "batch",
        bias: bool = False,
        bidirectional: bool = False,
    ):
        super().__init__()
        _known("readout", readout, READOUTS)
        _known("norm", norm, NORMS)
        if not hidden_sizes or min(num_features, num_classes, *hidden_sizes) < 1:
            raise ValueError("a network needs at least one hidden layer, and every size at least 1")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is a probability between 0 and 1, and below 1, not {dropout}")
        self.directions = 2 if bidirectional else 1
        *inputs, outputs = num_features, *(self.directions * units for units in hidden_sizes)
        self.layers = nn.ModuleList(
            layer(*sizes, dropout=dropout, norm=norm, bias=bias) for sizes in zip(inputs, hidden_sizes, strict=True)
        )
        self.reads_rates = readout == "rate"
        self.norm = normaliser(norm, outputs if self.reads_rates else num_classes)
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(outputs, num_classes, bias=bias or self.reads_rates)

    def hidden_spikes(self, features: Float[Tensor, "batch time features"]) -> list[Float[Tensor, "time batch _"]]:
        """The spike trains (of a network without spikes, the outputs) of each hidden layer, first to last."""
        trains = [features.transpose(0, 1)]
        for layer in self.layers:
            trains.append(self._hidden(layer, trains[-1]))
        return trains[1:]

    def classify(self, train: Float[Tensor, "time batch units"]) -> Float[Tensor, "batch classes"]:
        """Logits from the last hidden layer's spikes (equations 3 and 4 for their rates) or outputs."""
        if self.reads_rates:
            return self.readout(self.dropout(self.norm(train.mean(dim=0))))
        return self.summed_softmax(train)

    def forward(
        self, inputs: Float[Tensor, "batch time _"], start: int = 0, stop: int | None = None
    ) -> Float[Tensor, "batch ..."]:
        """Logits.

        With ``stop`` the spikes [batch, time, units] of the first ``stop`` hidden layers' last; with ``start`` these
        are the inputs, and the layers before are left out.
        """
        train = inputs.transpose(0, 1)
        for layer in self.layers[start:stop]:
            train = self._hidden(layer, train)
        if stop is not None:
            return train.transpose(0, 1)
        return self.classify(train)

    def _hidden(self, layer: nn.Module, train: Tensor) -> Tensor:
        if self.directions == 1:
            return layer(train)
        forwards, backwards = layer(torch.cat([train, train.flip(0)], dim=1)).chunk(2, dim=1)
        return torch.cat([forwards, backwards.flip(0)], dim=2)

    def summed_softmax(self, train: Float[Tensor, "time batch units"]) -> Float[Tensor, "batch classes"]:
        """The baseline's readout, which differs with what the layers give."""
        raise NotImplementedError


class SpikingClassifier(Classifier):
    """A network of spiking neurons; ``options`` are ``Classifier``'s."""

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        hidden_sizes: Sequence[int] = (128, 128),
        neuron: str = "lif",
        dropout: float = 0.1,
        **options,
    ):
        _known("neuron", neuron, NEURONS)
        super().__init__(
            num_features, num_classes, hidden_sizes, partial(SpikingLayer, neuron=neuron), dropout, **options
        )
        if not self.reads_rates:
            self.leak = nn.Parameter(torch.empty(num_classes).uniform_(*neurons.LEAK_RANGE))

    def summed_softmax(self, train: Float[Tensor, "time batch units"]) -> Float[Tensor, "batch classes"]:
        current = normalised(self.norm, self.readout(train))
        return softmax_of_potentials(current, self.leak.clamp(*neurons.LEAK_RANGE))


class ControlClassifier(Classifier):
    """A network without spikes, its layers of one ``kind`` (see ``controls``); ``options`` are ``Classifier``'s."""

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        hidden_sizes: Sequence[int],
        kind: str,
        dropout: float = 0.1,
        **options,
    ):
        _known("kind of network without spikes", kind, GATES)
        if kind == "mlp" and options.get("bidirectional"):
            raise ValueError("an MLP has no direction of time: leave bidirectional at False, or choose another network")
        super().__init__(num_features, num_classes, hidden_sizes, partial(ControlLayer, kind=kind), dropout, **options)

    def summed_softmax(self, train: Float[Tensor, "time batch units"]) -> Float[Tensor, "batch classes"]:
        return self.norm(self.readout(softmax_over_units(train)))


def build(
    num_features: int,
    num_classes: int,
    hidden_sizes: Sequence[int] = (128, 128),
    *,
    network: str = "spiking",
    neuron: str = "lif",
    dropout: float = 0.1,
    **options,
) -> Classifier:
    """A network by name: of spiking neurons (``neuron`` says which), or one of the controls, which have none."""
    _known("network", network, ("spiking", *GATES))
    make, kind = (SpikingClassifier, neuron) if network == "spiking" else (ControlClassifier, network)
    return make(num_features, num_classes, hidden_sizes, kind, dropout, **options)


def unmoved_layers(network: nn.Module, moved: Collection[str]) -> int:
    """How many of the network's first hidden layers have none of the ``moved`` parameters; 0 for another network."""
    if not isinstance(network, Classifier):
        return 0
    touched = [any(name.startswith(f"layers.{index}.") for name in moved) for index in range(len(network.layers))]
    return [*touched, True].index(True)


def _known(what: str, name: str, names: Collection[str]) -> None:
    if name not in names:
        raise ValueError(f"unknown {what} {name!r}: choose one of {', '.join(names)}")
