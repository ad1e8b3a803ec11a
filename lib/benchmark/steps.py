"""One training step, its parts, and a prediction, each beside its matrix products alone."""

from collections.abc import Callable, Sequence

import pandas as pd
import torch
from ivon import IVON
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from lib import posteriors
from lib.benchmark import products
from lib.benchmark.peers import DROPOUT, ours
from lib.benchmark.products import Shape, multiplied
from lib.benchmark.timing import Case, timed
from lib.benchmark.training import LEARNING_RATE, adam_step
from lib.networks import SpikingLayer
from lib.posteriors import MeanFieldGaussian
from lib.trainers.ivon import sampled_weights

SAMPLES = 16


def devices() -> list[str]:
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def steps(shapes: Sequence[Shape], seconds: float) -> pd.DataFrame:
    """Columns device, width, batch, frames, work (products, map, ivon, or a part of map's step) and the times."""
    every = [(shape, device) for device in devices() for shape in shapes]
    return pd.concat(timed(step_cases(*one), seconds) for one in tqdm(every, desc="training steps"))


def prediction(shapes: Sequence[Shape], seconds: float) -> pd.DataFrame:
    """Columns device, width, utterances, samples, work (products or prediction) and the times."""
    every = [(shape, device) for device in devices() for shape in shapes]
    return pd.concat(timed(prediction_cases(*one), seconds) for one in tqdm(every, desc="prediction"))


def step_cases(shape: Shape, device: str) -> list[Case]:
    batch = shape.minibatch(device)
    optimizer, of_adam = adam_step(ours(shape.sizes).to(device), *batch)
    of_adam()  # for there to be gradients
    cases = {
        "products": multiplied(products.of_step(shape, device)),
        "map": of_adam,
        "ivon": ivon_step(ours(shape.sizes).to(device), *batch),
        "norm, neuron, dropout": between_products(shape, device),
        "optimiser": optimizer.step,
    }
    row = {"device": device, "width": shape.width, "batch": shape.batch, "frames": shape.frames}
    return [(row | {"work": work}, run) for work, run in cases.items()]


def ivon_step(
    network: nn.Module, features: Tensor, labels: Tensor, learning_rate: float = LEARNING_RATE
) -> Callable[[], float]:
    """One update, as ``train_ivon`` makes it."""
    optimizer = IVON(network.parameters(), lr=learning_rate, ess=1e4, weight_decay=1e-3, hess_init=0.4, beta2=0.9999)

    def step():
        optimizer.zero_grad()
        with sampled_weights(optimizer):
            loss = cross_entropy(network(features), labels)
            loss.backward()
        optimizer.step()
        return loss.item()

    return step


def between_products(shape: Shape, device: str) -> Callable[[], None]:
    """What stands between the products, forward and backward: norm, neurons and dropout of both layers."""
    size = shape.frames, shape.batch, shape.width
    layers = [SpikingLayer(shape.width, shape.width, "lif", DROPOUT).to(device) for _ in range(2)]
    for layer in layers:
        layer.linear = nn.Identity()
    weighted = [torch.randn(size, device=device, requires_grad=True) for _ in layers]
    # The readout of firing rates sends the same gradient to each time step of the last layer.
    grads = [torch.randn(size, device=device), torch.randn(size[1:], device=device).expand(size)]

    def run():
        for layer, current, grad in zip(layers, weighted, grads, strict=True):
            torch.autograd.grad(layer(current), (current, *layer.parameters()), grad)

    return run


def prediction_cases(shape: Shape, device: str) -> list[Case]:
    network, (features, _) = ours(shape.sizes).to(device), shape.minibatch(device)
    mean = posteriors.network_state(network)
    posterior = MeanFieldGaussian(
        mean, {name: torch.full_like(mean[name], 0.01) for name, _ in network.named_parameters()}
    )
    generator = torch.Generator().manual_seed(0)
    cases = {
        "products": multiplied(products.of_prediction(shape, device), SAMPLES),
        "prediction": lambda: posteriors.predict(network, posterior, features, SAMPLES, generator),
    }
    row = {"device": device, "width": shape.width, "utterances": shape.batch, "samples": SAMPLES}
    return [(row | {"work": work}, run) for work, run in cases.items()]
