"""Networks that fire: at a rate on noise, where they stay silent as they begin, or as training leaves them."""

from functools import cache

import torch
from torch import Tensor

from lib.benchmark import Shape, ours
from lib.features import Examples
from lib.network import SpikingClassifier, boxcar, lif_potential
from lib.neurons.clamped import BASELINE_LEAKS
from lib.runs import load_frames
from lib.setup import data_setup
from lib.trainers import train_map

RATE = 0.05  # spikes a step and unit
HALVINGS = 16  # of the interval in which the norm's weight is sought
SPOKEN, EPOCHS = "synthetic-hd", 10  # what a network is trained on, and for how long


@torch.no_grad()
def firing(network: SpikingClassifier, features: Tensor, rate: float = RATE) -> None:
    """Scale each layer's norm until its neurons fire at that rate on the features, in training mode.

    Running statistics become those of the features.
    """
    train = features.transpose(0, 1)
    for layer in network.layers:
        momentum, layer.norm.momentum = layer.norm.momentum, 1.0
        low, high = 1e-2, 1e3
        for _ in range(HALVINGS):
            weight = (low * high) ** 0.5
            layer.norm.weight.fill_(weight)
            spikes = layer(train)
            low, high = (weight, high) if _spiking(layer, spikes) < rate else (low, weight)
        layer.norm.momentum = momentum
        train = spikes


@torch.no_grad()
def activity(network: SpikingClassifier, features: Tensor) -> tuple[list[float], list[float]]:
    """The layers' firing rates in training mode, dropout aside, and the shares of places with an open boxcar.

    The latter are those of LIF neurons; the train that is heard is what dropout leaves.
    """
    train, rates, windows = features.transpose(0, 1), [], []
    for layer in network.layers:
        spikes = layer(train)
        rates.append(_spiking(layer, spikes))
        leak = torch.full((layer.outputs,), sum(BASELINE_LEAKS) / 2) if layer.raw_leak is None else layer.leak
        weighted = layer.norm(layer.linear(train).flatten(0, 1)).view_as(spikes)
        windows.append(float(boxcar(lif_potential(weighted, leak)).double().mean()))
        train = spikes
    return rates, windows


def _spiking(layer: torch.nn.Module, spikes: Tensor) -> float:
    return float((spikes > 0).double().mean()) / (1 - layer.dropout)


def trained(shape: Shape) -> tuple[SpikingClassifier, tuple[Tensor, Tensor]]:
    """A network that Adam trained on synthetic digits, in training mode, and a minibatch of these at random."""
    heard = spoken()
    order = torch.randperm(len(heard.labels))[: shape.batch]
    return trained_network(shape.width).train(), (heard.features[order], heard.labels[order])


@cache
def trained_network(width: int) -> SpikingClassifier:
    """Two layers of that width, after some epochs on the synthetic digits."""
    network = ours(width)
    train_map(network, spoken(), spoken("validation"), epochs=EPOCHS)
    return network


@cache
def spoken(part: str = "train") -> Examples:
    """A part of the synthetic digits."""
    return load_frames(data_setup({}, SPOKEN)).part(part)
