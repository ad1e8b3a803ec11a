"""The same network in other libraries, those that are installed, and in plain PyTorch.

Each is given what it does fastest on a CPU: products and normalisation over all time steps at once, the neurons in its
own way. Reset, surrogate gradient and readout are each library's own.
"""

import copy
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lib.benchmark import CLASSES, DROPOUT, INPUTS, LEARNING_RATE, Shape, ours, training_step
from lib.benchmark.firing import firing
from lib.network import SpikingClassifier, SpikingLayer, fast
from lib.neurons.clamped import BASELINE_LEAKS

if TYPE_CHECKING:  # what it needs may not be installed
    from lib.benchmark.spyx import Network


class PlainLayer(SpikingLayer):
    """The paper's layer as ``lib.network`` writes it: a subclass does not inherit the compiled form."""


class PeerLayer(SpikingLayer):
    """PyTorch's own normalisation and dropout, and another library's neurons between them, run by ``through``."""

    def __init__(self, inputs: int, units: int, dropout: float, neurons: nn.Module, through: Callable):
        super().__init__(inputs, units, dropout)
        self.raw_leak, self.neurons, self.through = None, copy.deepcopy(neurons), through

    def forward(self, train: Float[Tensor, "time batch inputs"]) -> Float[Tensor, "time batch units"]:
        weighted = self.linear(train)
        spikes = self.through(self.neurons, self.norm(weighted.flatten(0, 1)).view_as(weighted))
        return functional.dropout(spikes, self.dropout, self.training)


def sparch(width: int) -> nn.Module:
    """Bittar & Garner (2022): the whole network is theirs, with its readout of summed softmax outputs."""

    class Logits(import_module("sparch.models.snns").SNN):
        def forward(self, features):
            return super().forward(features)[0]

    sizes = [width, width, CLASSES]
    return Logits((1, None, INPUTS), sizes, neuron_type="LIF", dropout=DROPOUT, normalization="batchnorm")


def snntorch(width: int) -> nn.Module:
    """Eshraghian et al. (2023): ``Leaky``, called for each time step."""
    leaky = import_module("snntorch").Leaky(beta=torch.empty(width).uniform_(*BASELINE_LEAKS), learn_beta=True)

    def through(leaky, current):
        potential, train = leaky.reset_mem(), []
        for step in current:
            spikes, potential = leaky(step, potential)
            train.append(spikes)
        return torch.stack(train)

    return ours(width, partial(PeerLayer, neurons=leaky, through=through))


def spikingjelly(width: int) -> nn.Module:
    """Fang et al. (2023): ``LIFNode`` over all time steps, reset by subtraction, the fastest of its surrogates."""
    neuron, surrogate = (import_module(f"spikingjelly.activation_based.{name}") for name in ("neuron", "surrogate"))
    node = neuron.LIFNode(10.0, v_reset=None, surrogate_function=surrogate.ATan(), step_mode="m")

    def through(node, current):
        node.reset()
        return node(current)

    return ours(width, partial(PeerLayer, neurons=node, through=through))


def spyx(width: int) -> "Network":
    """Heckel & Nowotny (2024): the whole step is compiled by XLA."""
    return import_module("lib.benchmark.spyx").Network(width)


LIBRARIES = {"sparch": sparch, "snntorch": snntorch, "spikingjelly": spikingjelly, "spyx": spyx}


def installed() -> dict[str, Callable[[int], "nn.Module | Network"]]:
    """Makers of networks of a width, by name: ours, plain PyTorch, what is there of other libraries."""
    found = {name: make for name, make in LIBRARIES.items() if find_spec(name)}
    return {"ours": ours, "plain": partial(ours, layer=PlainLayer)} | found


def adam_step(
    network: "nn.Module | Network", features: Tensor, labels: Tensor, learning_rate: float = LEARNING_RATE
) -> Callable[[], float]:
    """A call that makes one update with Adam and returns the loss before it."""
    if isinstance(network, nn.Module):
        return training_step("map", network, features, labels, learning_rate)[1]
    return network.adam_step(features, labels, learning_rate)


@contextmanager
def own_process(name: str, shape: Shape, threads: int, keep_memory: bool) -> Iterator[Callable[[int], Future]]:
    """A process that trains the network ``installed()[name]``: what is yielded begins so many steps.

    The result of these is the most memory (MB) that the process held beyond its libraries, None where the system does
    not tell. With ``keep_memory`` the process keeps what it frees, as runs do; others return it to the system.
    """
    context, arguments = multiprocessing.get_context("spawn"), (name, shape, threads, keep_memory)
    with ProcessPoolExecutor(1, context, initializer=_prepare, initargs=arguments) as process:
        process.submit(_train, 0)  # it starts now, while others do
        yield lambda steps: process.submit(_train, steps)


def _prepare(name: str, shape: Shape, threads: int, keep_memory: bool) -> None:
    global _step, _libraries
    os.environ["NPROC"] = str(threads)  # which XLA asks for
    if keep_memory and fast:
        fast.keep_freed_memory()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    adam_step(installed()[name](1), *Shape(1, 2, 2).minibatch())()  # imports and compiles what it needs
    _libraries = memory("VmRSS")
    network, minibatch = installed()[name](shape.width), shape.minibatch()
    if isinstance(network, SpikingClassifier):
        firing(network, minibatch[0])
    _step = adam_step(network, *minibatch)


def _train(steps: int) -> float | None:
    for _ in range(steps):
        _step()
    return memory("VmHWM") - _libraries if _libraries else None


def memory(line: str) -> float | None:
    """A line of what Linux tells of this process's memory, in MB; other systems tell none.

    The peak that every system tells (``getrusage``) is no less than that of the process which started this one.
    """
    with suppress(OSError):
        for told in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if told.startswith(line):
                return int(told.split()[1]) * 1024 / 1e6
    return None
