"""What it costs: timings of the library beside the matrix products that it cannot do without, and beside its peers.

``python -m lib.benchmark`` measures and writes ``data/results/bench-*.csv``, which the chapter on cost reads. What is
compared is timed in turns, round by round, so that what else the machine does meets all alike. The network is timed as
the book's runs compute it, with the compiled kernels of ``lib.fast``; ``peers`` has it without them, too.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import pandas as pd
import torch
from ivon import IVON
from torch import Tensor, nn
from torch.nn import functional

from lib.network import SpikingClassifier, SpikingLayer
from lib.trainers import VALIDATION_SAMPLES, decaying, sampled_weights

INPUTS, CLASSES, DROPOUT = 40, 35, 0.1
LEAST_ROUNDS = 5
LEARNING_RATE = 1e-9  # so small that a network that is timed for long stays as it was, and fires as often

# What ``book/params/paper.yml`` asks for, and the losses along lines of ``04_slices``: points * directions * examples.
WIDTH, EPOCHS, SAMPLES, LINES = 512, 30, 32, 31 * 2 * 140
BATCH_SIZES = {("hd", "map"): 128, ("hd", "ivon"): 16, ("sc", "map"): 128, ("sc", "ivon"): 32}
# The published counts of training, validation and test. HD has no validation part: its test part's size stands in.
UTTERANCES = {"hd": (8_332, 2_088, 2_088), "sc": (75_466, 9_981, 20_382)}

OPTIMIZERS = {
    "map": partial(torch.optim.Adam, weight_decay=1e-5, fused=True),
    "ivon": partial(IVON, ess=1e4, weight_decay=1e-3, hess_init=0.4, beta2=0.9999),
}


class Case(NamedTuple):
    """What is timed: its row of a table without the times, a call, and how many steps the call makes."""

    row: dict[str, Any]
    run: Callable[[], object]
    steps: int = 1


@dataclass(frozen=True)
class Shape:
    """``batch`` utterances of ``frames`` frames, for two hidden layers of ``width`` units."""

    width: int
    batch: int
    frames: int = 100

    def minibatch(self, device: str = "cpu") -> tuple[Tensor, Tensor]:
        """Noise for features [batch, time, features], and labels at random."""
        features = torch.randn(self.batch, self.frames, INPUTS, device=device)
        return features, torch.randint(CLASSES, (self.batch,), device=device)


PAPERS = Shape(WIDTH, 128)


def timed(cases: Sequence[Case], seconds: float) -> pd.DataFrame:
    """Time the cases in turns, each once a round, for ``seconds`` and at least ``LEAST_ROUNDS`` rounds.

    A first round, which compiles and fills caches, is not counted. Returns the cases' rows with minimum_ms, median_ms
    (of a step) and rounds.
    """
    finish = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    times = [[] for _ in cases]
    for case in cases:
        case.run()
    finish()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[-1]) < LEAST_ROUNDS:
        for case, of_case in zip(cases, times, strict=True):
            began = time.perf_counter()
            case.run()
            finish()
            of_case.append(1000 * (time.perf_counter() - began) / case.steps)
    return pd.DataFrame(
        case.row | {"minimum_ms": min(of_case), "median_ms": statistics.median(of_case), "rounds": len(of_case)}
        for case, of_case in zip(cases, times, strict=True)
    )


# The matrix products, and what follows from their speed


def step_products(shape: Shape, device: str = "cpu") -> list[tuple[Tensor, Tensor]]:
    """The factors of a training step's five products, of which the first two are the forward pass's.

    On the device "meta" they have shapes but take no memory.
    """
    rows, width = shape.batch * shape.frames, shape.width
    features, first = (torch.randn(size, INPUTS, device=device) for size in (rows, width))
    spikes, second, first_grad, second_grad = (
        torch.randn(size, width, device=device) for size in (rows, width, rows, rows)
    )
    forward = [(features, first.T), (spikes, second.T)]
    return [*forward, (second_grad.T, spikes), (second_grad, second), (first_grad.T, features)]


def operations(pairs: Sequence[tuple[Tensor, Tensor]]) -> int:
    """Multiplications and additions of the products."""
    return sum(2 * left.shape[0] * left.shape[1] * right.shape[1] for left, right in pairs)


def multiplied(pairs: Sequence[tuple[Tensor, Tensor]], times: int = 1) -> Callable[[], None]:
    """A call that forms each product ``times`` times, in memory that is there already."""
    outputs = [left.new_empty(left.shape[0], right.shape[1]) for left, right in pairs]

    def run():
        for _ in range(times):
            for (left, right), output in zip(pairs, outputs, strict=True):
                torch.mm(left, right, out=output)

    return run


def matrix_speed(device: str = "cpu", seconds: float = 1.0) -> float:
    """This machine's speed in the products of a step with 512 units and batch 128, in GFlop/s."""
    row = {"device": device, "work": "products"} | asdict(PAPERS)
    return speed(timed([Case(row, multiplied(step_products(PAPERS, device)))], seconds), device)


def speed(steps: pd.DataFrame, device: str = "cpu") -> float:
    """The same from a table of steps."""
    milliseconds = median(steps, device=device, work="products", width=PAPERS.width, batch=PAPERS.batch)
    return operations(step_products(PAPERS, "meta")) / milliseconds / 1e6


def hours(steps: pd.DataFrame, prediction: pd.DataFrame, gflops: float, device: str = "cpu") -> pd.DataFrame:
    """Hours for each data set and method on a machine that multiplies matrices at ``gflops`` GFlop/s.

    ``steps`` and ``prediction`` are the benchmark's tables; the machine is taken to differ from theirs in this speed
    alone. Training includes validation, evaluation is that of the test part, and slices go through the posterior mean.
    """
    each = prediction.assign(median_ms=prediction["median_ms"] / prediction["utterances"] / prediction["samples"])
    forward, rows = median(each, device=device, work="prediction", width=WIDTH), {}
    for (dataset, method), batch in BATCH_SIZES.items():
        training, validation, test = UTTERANCES[dataset]
        drawn, averaged = (VALIDATION_SAMPLES, SAMPLES) if method == "ivon" else (1, 1)
        updates = training // batch * median(steps, device=device, work=method, width=WIDTH, batch=batch)
        rows[dataset, method] = {
            "training": EPOCHS * (updates + validation * drawn * forward),
            "evaluation": test * averaged * forward,
            "slices": LINES * (1 + SAMPLES) * forward,
        }
    milliseconds = pd.DataFrame.from_dict(rows, orient="index").rename_axis(["dataset", "method"])
    return milliseconds * speed(steps, device) / gflops / 3.6e6


def median(table: pd.DataFrame, **values: Any) -> float:
    """The median of the one row that has these values, in milliseconds."""
    (milliseconds,) = table.loc[(table[list(values)] == pd.Series(values)).all(axis=1), "median_ms"]
    return milliseconds


# The network


def training_step(
    method: str, network: nn.Module, features: Tensor, labels: Tensor, learning_rate: float = LEARNING_RATE
) -> tuple[torch.optim.Optimizer, Callable[[], float]]:
    """The optimiser, and a call that makes one update of any network as the method's trainer does, for its loss."""
    make = OPTIMIZERS[method]
    optimizer = make(decaying(network, make.keywords["weight_decay"]), lr=learning_rate)

    def step():
        optimizer.zero_grad()
        with sampled_weights(optimizer) if method == "ivon" else nullcontext():
            loss = functional.cross_entropy(network(features), labels)
            loss.backward()
        optimizer.step()
        return loss.item()

    return optimizer, step


def ours(width: int, layer: Callable[[int, int, float], nn.Module] = SpikingLayer) -> nn.Module:
    """The paper's network, its two hidden layers made by ``layer``."""
    return SpikingClassifier(INPUTS, CLASSES, (width, width), DROPOUT, layer)
