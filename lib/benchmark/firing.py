"""Networks that fire at a rate, as trained ones do: left as they begin, they stay silent on noise."""

import torch
from torch import Tensor

from lib.network import SpikingClassifier, boxcar, lif_potential
from lib.neurons.clamped import BASELINE_LEAKS

RATE = 0.05  # spikes a step and unit
HALVINGS = 16  # of the interval in which the norm's weight is sought


@torch.no_grad()
def firing(network: SpikingClassifier, features: Tensor, rate: float = RATE) -> tuple[list[float], list[float]]:
    """Scale each layer's norm until its neurons fire at that rate on the features, in training mode.

    Running statistics become those of the features. Returns the layers' rates, dropout aside, and the shares of places
    with an open boxcar, which are those of LIF neurons; the train that is heard is what dropout leaves.
    """
    train, rates, windows = features.transpose(0, 1), [], []
    for layer in network.layers:
        momentum, layer.norm.momentum = layer.norm.momentum, 1.0
        low, high = 1e-2, 1e2
        for _ in range(HALVINGS):
            weight = (low * high) ** 0.5
            layer.norm.weight.fill_(weight)
            spikes = layer(train)
            rates[len(windows) :] = [float((spikes > 0).double().mean()) / (1 - layer.dropout)]
            low, high = (weight, high) if rates[-1] < rate else (low, weight)
        layer.norm.momentum = momentum
        leak = torch.full((layer.outputs,), sum(BASELINE_LEAKS) / 2) if layer.raw_leak is None else layer.leak
        weighted = layer.norm(layer.linear(train).flatten(0, 1)).view_as(spikes)
        windows.append(float(boxcar(lif_potential(weighted, leak)).double().mean()))
        train = spikes
    return rates, windows
