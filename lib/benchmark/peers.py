"""The same network in other libraries and in plain PyTorch, trained a step at a time.

What is not installed is left out. Each library is given what it does fastest on a CPU: products and normalisation over
all time steps at once, the neurons in its own way. Reset, surrogate gradient and readout are each library's own.
"""

import copy
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib import import_module
from importlib.util import find_spec

import torch
from ivon import IVON
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lib.benchmark import CLASSES, INPUTS, Shape
from lib.network import LEAK_RANGE, SpikingClassifier, SpikingLayer, fast
from lib.trainers import sampled_weights

DROPOUT = 0.1
LEARNING_RATE = 1e-6  # so small that a network that is timed for long stays as it was
OPTIMIZERS = {
    "map": partial(torch.optim.Adam, weight_decay=1e-5, fused=True),
    "ivon": partial(IVON, ess=1e4, weight_decay=1e-3, hess_init=0.4, beta2=0.9999),
}
# The baseline's layers, and what it calls our parameters.
THEIR_LAYERS = {"lif": "LIFLayer", "adlif": "adLIFLayer", "rlif": "RLIFLayer", "radlif": "RadLIFLayer"}
THEIR_NAMES = {"linear.weight": "W.weight", "leak": "alpha", "adaptation_leak": "beta"}
THEIR_NAMES |= {"adaptation_potential": "a", "adaptation_spike": "b"}


class PlainLayer(SpikingLayer):
    """The paper's layer as ``lib.network`` writes it: a subclass does not inherit the compiled form."""


class PeerLayer(SpikingLayer):
    """PyTorch's own normalisation and dropout, and another library's neurons between them, run by ``through``."""

    def __init__(self, inputs: int, units: int, dropout: float, neurons: nn.Module, through: Callable):
        super().__init__(inputs, units, dropout)
        self.leak, self.neurons, self.through = None, copy.deepcopy(neurons), through

    def forward(self, train: Float[Tensor, "time batch inputs"]) -> Float[Tensor, "time batch units"]:
        weighted = self.linear(train)
        spikes = self.through(self.neurons, self.norm(weighted.flatten(0, 1)).view_as(weighted))
        return functional.dropout(spikes, self.dropout, self.training)


def ours(width: int, layer: Callable[[int, int, float], nn.Module] = SpikingLayer) -> nn.Module:
    """The paper's network, its two hidden layers made by ``layer``."""
    return SpikingClassifier(INPUTS, CLASSES, (width, width), DROPOUT, layer)


def sparch(width: int) -> nn.Module:
    """Bittar & Garner (2022): the whole network is theirs, with its readout of summed softmax outputs."""

    class Logits(import_module("sparch.models.snns").SNN):
        def forward(self, features):
            return super().forward(features)[0]

    sizes = [width, width, CLASSES]
    return Logits((1, None, INPUTS), sizes, neuron_type="LIF", dropout=DROPOUT, normalization="batchnorm")


def snntorch(width: int) -> nn.Module:
    """Eshraghian et al. (2023): ``Leaky``, called for each time step."""
    leaky = import_module("snntorch").Leaky(beta=torch.empty(width).uniform_(*LEAK_RANGE), learn_beta=True)

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


LIBRARIES = {"sparch": sparch, "snntorch": snntorch, "spikingjelly": spikingjelly}


def installed() -> dict[str, Callable[[int], nn.Module]]:
    """Makers of networks of a width, by name: ours, plain PyTorch, what is there of other libraries."""
    found = {name: make for name, make in LIBRARIES.items() if find_spec(name)}
    return {"ours": ours, "plain": partial(ours, layer=PlainLayer)} | found


def sparch_layer(layer: SpikingLayer, neuron: str, batch: int) -> nn.Module:
    """The baseline's layer with our layer's weights; a row of its recurrent weights is what a unit sends."""
    make = getattr(import_module("sparch.models.snns"), THEIR_LAYERS[neuron])
    theirs = make(layer.linear.in_features, layer.linear.out_features, batch, dropout=DROPOUT)
    state = {THEIR_NAMES.get(name, name): tensor for name, tensor in layer.named_parameters()}
    if "recurrent" in state:
        state["V.weight"] = state.pop("recurrent").T
    theirs.load_state_dict(theirs.state_dict() | state)
    return theirs


def training_step(
    method: str, network: nn.Module, features: Tensor, labels: Tensor, learning_rate: float = LEARNING_RATE
) -> tuple[torch.optim.Optimizer, Callable[[], float]]:
    """The optimiser, and a call that makes one update of any network as the method's trainer does, for its loss."""
    optimizer = OPTIMIZERS[method](network.parameters(), lr=learning_rate)

    def step():
        optimizer.zero_grad()
        with sampled_weights(optimizer) if method == "ivon" else nullcontext():
            loss = functional.cross_entropy(network(features), labels)
            loss.backward()
        optimizer.step()
        return loss.item()

    return optimizer, step


@contextmanager
def own_process(name: str, shape: Shape, threads: int, keep_memory: bool) -> Iterator[Callable[[int], Future]]:
    """A process that trains the network ``installed()[name]``: what is yielded begins so many steps.

    With ``keep_memory`` the process keeps what it frees, as runs do; others return it to the system.
    """
    context, arguments = multiprocessing.get_context("spawn"), (name, shape, threads, keep_memory)
    with ProcessPoolExecutor(1, context, initializer=_prepare, initargs=arguments) as process:
        process.submit(_train, 0)  # it starts now, while others do
        yield lambda steps: process.submit(_train, steps)


def _prepare(name: str, shape: Shape, threads: int, keep_memory: bool) -> None:
    global _step
    if keep_memory and fast:
        fast.keep_freed_memory()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    _, _step = training_step("map", installed()[name](shape.width), *shape.minibatch())


def _train(steps: int) -> None:
    for _ in range(steps):
        _step()
