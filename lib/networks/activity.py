"""What goes on in a network: firing rates and what they cost in training, leaks, dead units, and operations."""

import copy
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Real
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu

from lib.metrics import class_indices
from lib.network import SpikingClassifier, SpikingLayer
from lib.networks.readouts import SoftmaxReadout
from lib.trainers import Objective

# Picojoules of one operation on 32-bit floats in 45 nm CMOS (Horowitz, ISSCC 2014).
ADDITION, MULTIPLY_ACCUMULATE = 0.9, 4.6
UTTERANCES_TOGETHER = 256
DEAD = 1e-6  # a norm of incoming weights, which start at 1


def firing_rate_penalty(weight: float) -> Objective:
    """An objective for ``lib.trainers``: the mean cross-entropy plus ``weight`` times ``rates_out_of_bounds``.

    The objective raises ``ValueError`` for a network without spikes.
    """

    def objective(network: nn.Module, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if not network.fires:
            raise ValueError("a network without spikes has no firing rates to penalise: leave firing_rate_penalty at 0")
        trains = network.hidden_spikes(features)
        logits = network.classify(trains[-1])
        return cross_entropy(logits, class_indices(logits, labels)) + weight * rates_out_of_bounds(trains), logits

    return objective


def rates_out_of_bounds(
    trains: Sequence[Float[Tensor, "time batch _"]], low: float = 0.01, high: float = 0.5
) -> Float[Tensor, ""]:
    """By how much the units' firing rates, over time and batch, fall short of ``low`` and exceed ``high``; summed.

    The baseline's regularisers (Bittar & Garner 2022). As there, spikes are those that dropout has left and scaled up.
    """
    rates = torch.cat([train.mean(dim=(0, 1)) for train in trains])
    return (relu(low - rates) + relu(rates - high)).sum()


def leaks(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, float]:
    """The mean ``leak`` of the spiking neurons, and ``leaks_at_bounds``, the share at the ends of its range.

    At an end is what lies within a hundredth of the range of it, or beyond it, where a clamp has no gradient. Without
    such neurons there is neither.
    """
    values, places = [], []
    for name, layer in network.named_modules():
        if isinstance(layer, SpikingLayer):
            low, high = layer.ranges["leak"]
            values.append(layer.within("leak", state[f"{name}.raw_leak"]))
            places.append((values[-1] - low) / (high - low))
    if not values:
        return {}
    at_bounds = (torch.cat(places) - 0.5).abs() > 0.49
    return {"leak": float(torch.cat(values).mean()), "leaks_at_bounds": float(at_bounds.double().mean())}


def dead_units(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, float]:
    """The share of spiking neurons whose incoming weights have decayed to nothing."""
    dead = dead_rows(network, state).values()
    return {"dead_units": float(torch.cat([*dead]).double().mean())} if dead else {}


def dead_rows(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of each spiking layer's weights [units, inputs], by name, which units' have a norm below ``DEAD`` [units].

    Adam's step divides a gradient by its own size. Where the loss has none, as for a unit that nothing follows, what is
    left is that of the decay, and its steps are as long as any.
    """
    spiking = [name for name, layer in network.named_modules() if isinstance(layer, SpikingLayer)]
    return {name: state[name].norm(dim=1) < DEAD for name in (f"{layer}.linear.weight" for layer in spiking)}


class Operations(NamedTuple):
    """The operations of one utterance, or the mean over several."""

    additions: float
    multiply_accumulates: float

    @property
    def energy(self) -> float:
        """In picojoules: an estimate from 45 nm CMOS, which leaves out memory, often the larger part."""
        return ADDITION * self.additions + MULTIPLY_ACCUMULATE * self.multiply_accumulates


def activity(
    network: SpikingClassifier, state: Mapping[str, Tensor], features: Real[Tensor, "utterance time features"]
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
    if network.fires:
        spikes = spikes_per_utterance(network, features)
        places = [time * layer.outputs for layer in network.layers]
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
    """The spikes of each hidden layer; the network must be in evaluation mode, where a spike counts 1."""
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
    """The operations of an utterance of ``time`` steps with that many spikes in each hidden layer.

    A spike is added once for each unit that it goes to, in the next layer or, through recurrent weights, in its own.
    Dense features are multiplied into the first layer; where they are spikes themselves, ``events`` is their number. A
    readout of rates counts spikes and is one product at the end. The norms (batch norm may be merged with the weights)
    and the neurons' own updates are left out.
    """
    additions = multiply_accumulates = 0.0
    for layer, arriving, fired in zip(network.layers, [events, *spikes[:-1]], spikes, strict=True):
        if arriving is None:
            multiply_accumulates += time * layer.outputs * layer.linear.in_features
        else:
            additions += arriving * layer.outputs
        if hasattr(layer, "recurrent"):
            additions += fired * (layer.linear.out_features - 1)
    if isinstance(network, SoftmaxReadout):
        return Operations(additions + spikes[-1] * network.readout.out_features, multiply_accumulates)
    return Operations(additions + spikes[-1], multiply_accumulates + network.readout.weight.numel())


def dense_operations(network: SpikingClassifier, time: int) -> Operations:
    """The operations of an utterance of ``time`` steps through a network without spikes: every weight, every step.

    The last linear map comes after the sum over time, and the gates' own products, one for each unit, are left out.
    """
    multiplied = 0
    for layer in network.layers:
        directions = layer.outputs * layer.gates // layer.linear.out_features
        weights = [layer.linear.weight, *([layer.recurrent] if layer.recurs else [])]
        multiplied += directions * sum(weight.numel() for weight in weights)
    return Operations(0.0, time * multiplied + network.readout.weight.numel())
