"""``python -m lib.benchmark [--results FOLDER]``: measure all, and write a small table of each."""

import argparse
import os
import platform
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from importlib import import_module
from importlib.metadata import version
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from lib import benchmark, provenance
from lib.benchmark import DROPOUT, INPUTS, Case, Shape, multiplied, ours, peers, step_products, timed, training_step
from lib.benchmark.firing import RATE, SPOKEN, activity, firing, trained
from lib.files import atomic_write
from lib.network import SpikingLayer, fast
from lib.neurons import NEURONS
from lib.neurons.clamped import clamped
from lib.posteriors import MeanFieldGaussian, network_state, predict
from lib.runs import DATA
from lib.settings import folder_argument
from lib.trainers import train_map

SECONDS = 5.0  # for each group of what is timed in turns
BUSY = 0.5  # processes that want to run
SAMPLES = 16
NORM_SCALE = 3.0  # at 1, where norms start, LIF neurons stay silent on noise
WARM = 3  # steps after which a process has taken what memory it needs
TOGETHER = 8  # steps of two processes: so many that one's ending before the other, and what they are told, do not show

# The baseline's layers, and what it calls our parameters.
THEIR_LAYERS = {"lif": "LIFLayer", "adlif": "adLIFLayer", "rlif": "RLIFLayer", "radlif": "RadLIFLayer"}
THEIR_NAMES = {"linear.weight": "W.weight", "raw_leak": "alpha", "raw_adaptation_leak": "beta"}
THEIR_NAMES |= {"raw_adaptation_potential": "a", "raw_adaptation_spike": "b"}


def step_cases(stack: ExitStack, shape: Shape, device: str) -> list[Case]:
    """A training step's products alone, the step with Adam (map) and with IVON, and parts of the former."""
    minibatch, row = shape.minibatch(device), {"device": device} | asdict(shape)
    networks = [ours(shape.width).to(device) for _ in range(2)]
    for network in networks:
        firing(network, minibatch[0])
    (optimizer, of_map), (_, of_ivon) = (
        training_step(method, network, *minibatch) for method, network in zip(("map", "ivon"), networks, strict=True)
    )
    of_map()  # for the optimiser alone to have gradients
    runs = {"products": multiplied(step_products(shape, device)), "map": of_map, "ivon": of_ivon}
    runs |= {"norm, neuron, dropout": between_products(shape, device), "optimiser": optimizer.step}
    return [Case(row | {"work": work}, run) for work, run in runs.items()]


def rate_cases(stack: ExitStack, shape: Shape, rate: float | None) -> list[Case]:
    """A step of a network whose layers fire at that rate on noise, and its products alone as if everything did.

    Without a rate it is a network that was trained, on what it was trained on. ``spikes`` and ``windows`` are the
    shares of places of its first layer with a spike and with an open boxcar.
    """
    if rate is None:
        network, minibatch = trained(shape)
    else:
        network, minibatch = ours(shape.width), shape.minibatch()
        firing(network, minibatch[0], rate)
    row = asdict(shape) | {"features": "noise" if rate else SPOKEN, "rate": rate} | shares(network, minibatch[0])
    _, step = training_step("map", network, *minibatch)
    return [Case(row | {"work": "products"}, multiplied(step_products(shape))), Case(row | {"work": "map"}, step)]


def shares(network: nn.Module, features: Tensor) -> dict[str, float]:
    """Of the places of the first layer: those with a spike, and those with an open boxcar."""
    rates, windows = activity(network, features)
    return {"spikes": rates[0], "windows": windows[0]}


def between_products(shape: Shape, device: str) -> Callable[[], object]:
    """Norm, neurons and dropout of both layers, forward and backward."""
    size, steps = (shape.frames, shape.batch, shape.width), []
    # The readout of firing rates sends the same gradient to each time step of the last layer.
    for grad in (torch.randn(size, device=device), torch.randn(size[1:], device=device).expand(size)):
        layer = SpikingLayer(shape.width, shape.width, DROPOUT).to(device)
        layer.linear = nn.Identity()
        steps.append(layer_step(layer, torch.randn(size, device=device, requires_grad=True), grad))
    return lambda: [step() for step in steps]


def layer_step(layer: nn.Module, inputs: Tensor, grad: Tensor) -> Callable[[], object]:
    """A call that goes through the layer and back, to its parameters and to inputs that want a gradient."""
    wanted = [tensor for tensor in (inputs, *layer.parameters()) if tensor.requires_grad]
    return lambda: torch.autograd.grad(layer(inputs), wanted, grad)


def prediction_cases(stack: ExitStack, shape: Shape, device: str) -> list[Case]:
    """A Bayesian prediction of a minibatch, and its products alone."""
    network, (features, _) = ours(shape.width).to(device), shape.minibatch(device)
    firing(network, features)
    mean = network_state(network)
    std = {name: torch.full_like(mean[name], 0.001) for name, _ in network.named_parameters()}
    posterior, generator = MeanFieldGaussian(mean, std), torch.Generator().manual_seed(0)
    row = {"device": device, "width": shape.width, "utterances": shape.batch, "samples": SAMPLES}
    row |= {"rate": RATE} | shares(network, features)
    return [
        Case(row | {"work": "products"}, multiplied(step_products(shape, device)[:2], SAMPLES)),
        Case(row | {"work": "prediction"}, lambda: predict(network, posterior, features, SAMPLES, generator)),
    ]


def peer_cases(stack: ExitStack, shape: Shape, keep: bool) -> list[Case]:
    """A step of each network in a process of its own, so that what one does to memory neither helps nor harms another.

    Ours keeps what it frees in any case, as runs do. ``peak_mb`` is the most memory that its steps needed.
    """
    row, threads = asdict(shape) | {"freed_memory": "kept" if keep else "returned"}, torch.get_num_threads()
    alone = {"network": "products", "version": None, "peak_mb": None}
    cases = [Case(row | alone, multiplied(step_products(shape)))]
    for name in peers.installed():
        process = stack.enter_context(peers.own_process(name, shape, threads, keep or name == "ours"))
        found = {"version": version(name) if name in peers.LIBRARIES else None, "peak_mb": process(WARM).result()}
        cases.append(Case(row | {"network": name} | found, at_once([process], 1)))
    return cases


def pair_cases(stack: ExitStack, shape: Shape) -> list[Case]:
    """Two networks that train at the same time with half of the threads each, or one after the other with all."""
    row, threads = {"width": shape.width, "batch": shape.batch}, torch.get_num_threads()
    half = max(1, threads // 2)
    *halves, whole = (
        stack.enter_context(peers.own_process("ours", shape, share, keep_memory=True))
        for share in (half, half, threads)
    )
    runs = {"at the same time": at_once(halves, TOGETHER), "one after the other": at_once([whole], 2 * TOGETHER)}
    return [Case(row | {"manner": manner}, run, TOGETHER) for manner, run in runs.items()]


def at_once(processes: Sequence[Callable], steps: int) -> Callable[[], object]:
    """A call that makes so many steps in each of the processes, in all of them at the same time."""
    return lambda: [future.result() for future in [begin(steps) for begin in processes]]


def layer_cases(stack: ExitStack, shape: Shape, neuron: str) -> list[Case]:
    """A step of a first layer on noise, and of the baseline's with the same weights; ``rate`` is the share of spikes.

    Both run in this process, which keeps the memory that is freed, to the baseline's advantage.
    """
    layer, (features, _) = clamped(NEURONS[neuron])(INPUTS, shape.width, DROPOUT), shape.minibatch()
    nn.init.constant_(layer.norm.weight, NORM_SCALE)
    train, grad = features.transpose(0, 1).contiguous(), torch.randn(shape.batch, shape.frames, shape.width)
    steps = {"ours": layer_step(layer, train, grad.transpose(0, 1).contiguous())}
    if "sparch" in peers.installed() and neuron in THEIR_LAYERS:
        steps["sparch"] = layer_step(sparch_layer(layer, neuron, shape.batch), features, grad)
    row = {"threads": torch.get_num_threads(), "inputs": INPUTS} | asdict(shape)
    row |= {"rate": float((layer(train) > 0).double().mean())}
    return [Case({"neuron": neuron, "library": library} | row, run) for library, run in steps.items()]


def sparch_layer(layer: SpikingLayer, neuron: str, batch: int) -> nn.Module:
    """The baseline's layer with our layer's weights; a row of its recurrent weights is what a unit sends."""
    make = getattr(import_module("sparch.models.snns"), THEIR_LAYERS[neuron])
    theirs = make(layer.linear.in_features, layer.linear.out_features, batch, dropout=DROPOUT)
    state = {THEIR_NAMES.get(name, name): tensor for name, tensor in layer.named_parameters()}
    if "recurrent" in state:
        state["V.weight"] = state.pop("recurrent").T
    theirs.load_state_dict(theirs.state_dict() | state)
    return theirs


def growth_cases(stack: ExitStack, along: str, sizes: Sequence[tuple[Shape, int]]) -> list[Case]:
    """Epochs of ``train_map`` on more and more utterances, or longer and longer ones."""
    cases, settings = [], {"learning_rate": benchmark.LEARNING_RATE, "epochs": 1}
    for shape, count in sizes:
        features, labels = Shape(shape.width, count, shape.frames).minibatch()
        parts = [SimpleNamespace(features=features[:n], labels=labels[:n]) for n in (count, 2)]
        run = partial(train_map, ours(shape.width), *parts, batch_size=shape.batch, **settings)
        cases.append(Case({"along": along} | asdict(shape) | {"utterances": count}, run))
    return cases


def machine() -> pd.DataFrame:
    """One row that says what is timed and on what, and how many processes want to run there already."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    row = provenance.machine() | {"memory_gb": round(memory / 1e9, 1), "load": round(os.getloadavg()[0], 1)}
    row |= {"kernels": bool(fast) and fast.proven(SpikingLayer, "cpu"), "commit": provenance.COMMIT}
    versions = {name: version(name) for name in ("torch", "numba", "ivon-opt")}
    return pd.DataFrame([row | {"python": platform.python_version()} | versions])


DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
UTTERANCES = [(Shape(512, 128), count) for count in (256, 512, 1024)]
FRAMES = [(Shape(512, 128, frames), 256) for frames in (50, 100, 200)]
SHAPES = [Shape(*each) for each in ((128, 128), (256, 128), (512, 16), (512, 128), (512, 256), (1024, 128))]
RATES = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5)
TRAINED = [Shape(*each) for each in ((128, 128), (512, 16), (512, 128))]
# For each table its cases, and the groups of what is timed in turns.
TABLES: dict[str, tuple[Callable[..., list[Case]], Sequence[tuple]]] = {
    "steps": (step_cases, [*product([Shape(w, b) for w in (128, 256, 512) for b in (16, 32, 128)], DEVICES)]),
    "rates": (rate_cases, [*product(SHAPES, RATES), *product(TRAINED, [None])]),
    "prediction": (prediction_cases, [*product([Shape(width, 128) for width in (128, 256, 512)], DEVICES)]),
    "peers": (peer_cases, [(Shape(512, 128), False), *product(reversed(TRAINED), [True])]),
    "neurons": (layer_cases, [*product([Shape(512, 128), Shape(128, 128)], THEIR_LAYERS)]),
    "at-once": (pair_cases, [(Shape(width, batch),) for width in (128, 512) for batch in (16, 128)]),
    "growth": (growth_cases, [("utterances", UTTERANCES), ("frames", FRAMES)]),
}


def measured(cases: Callable[..., list[Case]], groups: Sequence[tuple]) -> pd.DataFrame:
    """The times of each group's cases; processes that they enter into a stack end with the group."""
    tables = []
    for group in tqdm(groups, desc=cases.__name__):
        with ExitStack() as stack:
            tables.append(timed(cases(stack, *group), SECONDS))
    return pd.concat(tables)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m lib.benchmark", description=__doc__)
    parser.add_argument("--results", type=folder_argument, default=DATA / "results")
    folder = parser.parse_args(arguments).results
    if os.getloadavg()[0] > BUSY:
        print("This machine is busy: the times will be too long and their ratios off. Run it when nothing else does.")
    if fast:
        fast.keep_freed_memory()
    for older in folder.glob("bench-*.csv"):  # so that all that are there are of one run, even of an interrupted one
        older.unlink()
    write(folder, "machine", machine())
    for name, asked in TABLES.items():
        write(folder, name, measured(*asked))


def write(folder: Path, name: str, table: pd.DataFrame) -> None:
    with atomic_write(folder / f"bench-{name}.csv") as aside:
        table.to_csv(aside, index=False, float_format="%.5g")


if __name__ == "__main__":
    main()
