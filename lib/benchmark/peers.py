"""The same network in other libraries and in plain PyTorch, to be timed beside ours; what is not installed is left out.

Each is given what its library does fastest on a CPU: products and normalisation over all time steps at once, the
neurons in the library's own way. None computes quite what ours does: reset, surrogate gradient and readout are theirs.
"""

import itertools
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lib import neurons

MOMENTUM, DROPOUT = 0.05, 0.1


class Layer(nn.Module):
    """Linear map, batch normalisation, ``neuron`` over [time, batch, units], dropout."""

    def __init__(self, inputs: int, units: int, neuron: nn.Module):
        super().__init__()
        self.linear = nn.Linear(inputs, units, bias=False)
        self.norm = nn.BatchNorm1d(units, momentum=MOMENTUM)
        self.neuron = neuron
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, inputs: Float[Tensor, "time batch inputs"]) -> Float[Tensor, "time batch units"]:
        weighted = self.linear(inputs)
        return self.dropout(self.neuron(self.norm(weighted.flatten(0, 1)).view_as(weighted)))


class Network(nn.Module):
    """Layers with a readout of firing rates."""

    def __init__(self, sizes: list[int], neuron: Callable[[int], nn.Module]):
        super().__init__()
        *hidden, classes = sizes
        self.layers = nn.Sequential(*(Layer(i, units, neuron(units)) for i, units in itertools.pairwise(hidden)))
        self.norm = nn.BatchNorm1d(hidden[-1], momentum=MOMENTUM)
        self.dropout = nn.Dropout(DROPOUT)
        self.readout = nn.Linear(hidden[-1], classes)

    def forward(self, features: Float[Tensor, "batch time features"]) -> Float[Tensor, "batch classes"]:
        rates = self.layers(features.transpose(0, 1)).mean(dim=0)
        return self.readout(self.dropout(self.norm(rates)))


def ours(sizes: list[int]) -> nn.Module:
    from lib.networks import SpikingClassifier

    inputs, *hidden, classes = sizes
    return SpikingClassifier(inputs, classes, hidden, dropout=DROPOUT)


def plain(sizes: list[int]) -> nn.Module:
    """PyTorch's own layers, the neurons in a loop over time with in-place steps and a backward pass of their own."""

    class Neuron(nn.Module):
        def __init__(self, units):
            super().__init__()
            self.leak = nn.Parameter(torch.empty(units).uniform_(*neurons.LEAK_RANGE))

        def forward(self, current):
            return neurons.lif(current, self.leak.clamp(*neurons.LEAK_RANGE))

    return Network(sizes, Neuron)


def sparch(sizes: list[int]) -> nn.Module:
    """Bittar & Garner (2022): the whole network is theirs, with its readout of summed softmax outputs."""
    inputs, *layers = sizes

    class Logits(import_module("sparch.models.snns").SNN):
        def forward(self, features):
            return super().forward(features)[0]

    return Logits((1, None, inputs), layers, neuron_type="LIF", dropout=DROPOUT, normalization="batchnorm")


def snntorch(sizes: list[int]) -> nn.Module:
    """Eshraghian et al. (2023): ``Leaky``, called for each time step."""
    leaky = import_module("snntorch").Leaky

    class Neuron(nn.Module):
        def __init__(self, units):
            super().__init__()
            self.leaky = leaky(beta=torch.empty(units).uniform_(*neurons.LEAK_RANGE), learn_beta=True)

        def forward(self, current):
            potential, spikes = self.leaky.reset_mem(), []
            for of_step in current:
                fired, potential = self.leaky(of_step, potential)
                spikes.append(fired)
            return torch.stack(spikes)

    return Network(sizes, Neuron)


def spikingjelly(sizes: list[int]) -> nn.Module:
    """Fang et al. (2023): ``LIFNode`` over all time steps, reset by subtraction, the fastest of its surrogates."""
    neuron, surrogate, functional = (
        import_module(f"spikingjelly.activation_based.{name}") for name in ("neuron", "surrogate", "functional")
    )

    class Neuron(nn.Module):
        def __init__(self, units):
            super().__init__()
            self.node = neuron.LIFNode(10.0, v_reset=None, surrogate_function=surrogate.ATan(), step_mode="m")

        def forward(self, current):
            functional.reset_net(self.node)
            return self.node(current)

    return Network(sizes, Neuron)


LIBRARIES = (sparch, snntorch, spikingjelly)


def installed() -> dict[str, Callable[[list[int]], nn.Module]]:
    """Makers of networks from sizes [inputs, hidden, ..., classes], by name: ours, plain PyTorch, what is there."""
    return {"ours": ours, "plain": plain} | {make.__name__: make for make in LIBRARIES if find_spec(make.__name__)}
