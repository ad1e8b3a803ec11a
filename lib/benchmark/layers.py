"""A step of one hidden layer of each neuron, beside the baseline's own layer where that is installed."""

from collections.abc import Callable, Sequence
from importlib import import_module

import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from lib.benchmark.peers import DROPOUT, installed
from lib.benchmark.products import INPUTS, Shape
from lib.benchmark.timing import Case, timed
from lib.networks import SpikingLayer
from lib.networks.spiking import NEURONS

THEIR_LAYERS = {"lif": "LIFLayer", "adlif": "adLIFLayer", "rlif": "RLIFLayer", "radlif": "RadLIFLayer"}
THEIR_NAMES = {
    "linear.weight": "W.weight",
    "leak": "alpha",
    "adaptation_leak": "beta",
    "adaptation_potential": "a",
    "adaptation_spike": "b",
}
NORM_SCALE = 3.0  # at 1, as drawn, LIF neurons stay silent on noise


def neurons(shapes: Sequence[Shape], seconds: float) -> pd.DataFrame:
    """Columns neuron, library, threads, inputs, width, batch, frames, rate (the share of spikes), times of a step.

    A step is a first layer's, forward and backward, on noise; the baseline's has the same weights. All are timed in one
    process, which keeps the memory that is freed, to the baseline's advantage.
    """
    every = [(shape, neuron) for shape in shapes for neuron in NEURONS]
    return pd.concat(timed(layer_cases(*one), seconds) for one in tqdm(every, desc="neurons"))


def layer_cases(shape: Shape, neuron: str) -> list[Case]:
    ours = SpikingLayer(INPUTS, shape.width, neuron, DROPOUT)
    nn.init.constant_(ours.norm.weight, NORM_SCALE)
    features, _ = shape.minibatch()
    train = features.transpose(0, 1).contiguous()
    row = {"neuron": neuron, "library": "ours", "threads": torch.get_num_threads()}
    row |= {
        "inputs": INPUTS,
        "width": shape.width,
        "batch": shape.batch,
        "frames": shape.frames,
        "rate": float((ours(train) > 0).double().mean()),
    }
    cases = [(row, one_step_of(ours, train))]
    if "sparch" in installed():
        cases.append((row | {"library": "sparch"}, one_step_of(theirs(ours, neuron, shape.batch), features)))
    return cases


def theirs(ours: SpikingLayer, neuron: str, batch: int) -> nn.Module:
    """The baseline's layer with our layer's weights; a row of its recurrent weights is what a unit sends."""
    make = getattr(import_module("sparch.models.snns"), THEIR_LAYERS[neuron])
    layer = make(ours.linear.in_features, ours.linear.out_features, batch, dropout=DROPOUT)
    given = dict(ours.named_parameters())
    state = {THEIR_NAMES.get(name, name): tensor for name, tensor in given.items() if name != "recurrent"}
    if "recurrent" in given:
        state["V.weight"] = given["recurrent"].T
    layer.load_state_dict(layer.state_dict() | state)
    return layer


def one_step_of(layer: nn.Module, inputs: torch.Tensor) -> Callable[[], None]:
    parameters, grad = list(layer.parameters()), torch.randn_like(layer(inputs))
    return lambda: torch.autograd.grad(layer(inputs), parameters, grad)
