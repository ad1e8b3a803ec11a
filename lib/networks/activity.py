"""What goes on in a network: firing rates, what they cost in training, and the operations of an utterance."""

import copy
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Real
from torch import Tensor
from torch.nn.functional import relu

from lib.networks import Classifier, SpikingClassifier

# Picojoules of one operation on 32-bit floats in 45 nm CMOS (Horowitz, ISSCC 2014).
ADDITION, MULTIPLY_ACCUMULATE = 0.9, 4.6
UTTERANCES_TOGETHER = 256


def rate_cost(
    trains: Sequence[Float[Tensor, "time batch _"]], low: float = 0.01, high: float = 0.5
) -> Float[Tensor, ""]:
    """By how much the units' firing rates, over time and batch, fall short of ``low`` and exceed ``high``; summed.

    The baseline's regularisers (Bittar & Garner 2022). As there, spikes are those that dropout has left and scaled up.
    """
    rates = torch.cat([train.mean(dim=(0, 1)) for train in trains])
    return (relu(low - rates) + relu(rates - high)).sum()


class Operations(NamedTuple):
    """Of one utterance; or of several, their mean."""

    additions: float
    multiply_accumulates: float

    @property
    def energy(self) -> float:
        """In picojoules: an estimate from 45 nm CMOS, which leaves out memory, often the larger part."""
        return ADDITION * self.additions + MULTIPLY_ACCUMULATE * self.multiply_accumulates


def measures(
    network: Classifier, state: Mapping[str, Tensor], features: Real[Tensor, "utterance time features"]
) -> dict[str, float]:
    """What the network with these parameters and statistics does with these utterances, in evaluation mode.

    ``parameters``; per utterance ``synaptic_operations`` (additions and multiply-accumulates), each of the two alone,
    and ``energy_uj`` (microjoules, see ``Operations.energy``). With spikes also ``spikes`` per utterance,
    ``firing_rate`` (spikes per unit and step) and ``firing_rate_1``, ... of each layer. The network is left as it was.
    """
    network = copy.deepcopy(network).eval()
    network.load_state_dict(network.state_dict() | dict(state))
    found = {"parameters": sum(parameter.numel() for parameter in network.parameters())}
    _, time, _ = features.shape
    if isinstance(network, SpikingClassifier):
        spikes = spikes_per_utterance(network, features)
        places = [time * network.directions * layer.linear.out_features for layer in network.layers]
        found |= {"spikes": sum(spikes), "firing_rate": sum(spikes) / sum(places)}
        found |= {f"firing_rate_{index + 1}": spikes[index] / places[index] for index in range(len(spikes))}
        events = None if features.is_floating_point() else float(features.double().sum()) / len(features)
        operations = spiking_operations(network, time, spikes, events)
    else:
        operations = dense_operations(network, time)
    return found | {
        "synaptic_operations": sum(operations), **operations._asdict(), "energy_uj": operations.energy / 1e6
    }  # fmt: skip


@torch.no_grad()
def spikes_per_utterance(network: SpikingClassifier, features: Real[Tensor, "utterance time features"]) -> list[float]:
    """Of each hidden layer, first to last; the network must be in evaluation mode, where a spike counts 1."""
    own = next(network.parameters())
    totals = torch.zeros(len(network.layers), dtype=torch.float64)
    for batch in features.split(UTTERANCES_TOGETHER):
        totals += torch.tensor(
            [float(train.sum(dtype=torch.float64)) for train in network.hidden_spikes(batch.to(own))]
        )
    return (totals / len(features)).tolist()


def spiking_operations(
    network: SpikingClassifier, time: int, spikes: Sequence[float], events: float | None = None
) -> Operations:
    """Of an utterance of ``time`` steps with that many spikes in each hidden layer.

    A spike is added once for each unit that it goes to, in the next layer or, through recurrent weights, in its own.
    Dense features are multiplied into the first layer; where they are spikes themselves, ``events`` is their number. A
    readout of rates counts spikes and is one product at the end. The norms (batch norm may be merged with the weights)
    and the neurons' own updates are left out.
    """
    additions = multiply_accumulates = 0.0
    for layer, arriving, fired in zip(network.layers, [events, *spikes[:-1]], spikes, strict=True):
        units = layer.linear.out_features
        if arriving is None:
            multiply_accumulates += time * network.directions * layer.linear.weight.numel()
        else:
            additions += arriving * network.directions * units
        if layer.is_recurrent:
            additions += fired * (units - 1)
    if network.reads_rates:
        return Operations(additions + spikes[-1], multiply_accumulates + network.readout.weight.numel())
    return Operations(additions + spikes[-1] * network.readout.out_features, multiply_accumulates)


def dense_operations(network: Classifier, time: int) -> Operations:
    """Of an utterance of ``time`` steps through a network without spikes: every weight, every step.

    The last linear map comes after the sum over time, and the gates' own products, one for each unit, are left out.
    """
    weights = sum(
        weight.numel()
        for name, weight in network.layers.named_parameters()
        if name.endswith(("linear.weight", "recurrent"))
    )
    return Operations(0.0, time * network.directions * weights + network.readout.weight.numel())
