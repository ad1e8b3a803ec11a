"""The floor: the matrix products that a step cannot do without, alone."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.benchmark.timing import timed

INPUTS, CLASSES = 40, 35

Pairs = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Shape:
    """``batch`` utterances of ``frames`` frames through two hidden layers of ``width`` units."""

    width: int
    batch: int
    frames: int = 100

    @property
    def sizes(self) -> list[int]:
        return [INPUTS, self.width, self.width, CLASSES]

    def minibatch(self, device: str = "cpu") -> tuple[Tensor, Tensor]:
        """Noise for features [batch, time, features], and labels at random."""
        features = torch.randn(self.batch, self.frames, INPUTS, device=device)
        return features, torch.randint(CLASSES, (self.batch,), device=device)


def of_step(shape: Shape, device: str = "cpu") -> Pairs:
    """The factors of a training step's five products: two forward, two for weights, one for the first layer's spikes.

    On the device "meta" they have shapes but take no memory.
    """
    rows, width = shape.batch * shape.frames, shape.width
    features, spikes, first_grad, second_grad = (
        torch.randn(rows, columns, device=device) for columns in (INPUTS, width, width, width)
    )
    first, second = (torch.randn(width, columns, device=device) for columns in (INPUTS, width))
    return [
        (features, first.T),
        (spikes, second.T),
        (second_grad.T, spikes),
        (second_grad, second),
        (first_grad.T, features),
    ]


def of_prediction(shape: Shape, device: str = "cpu") -> Pairs:
    """The factors of a forward pass's two products."""
    return of_step(shape, device)[:2]


def operations(pairs: Pairs) -> int:
    """Multiplications and additions of the products."""
    return sum(2 * left.shape[0] * left.shape[1] * right.shape[1] for left, right in pairs)


def multiplied(pairs: Pairs, times: int = 1) -> Callable[[], None]:
    """A call that forms each product ``times`` times, in memory that is there already."""
    outputs = [left.new_empty(left.shape[0], right.shape[1]) for left, right in pairs]

    def run():
        for _ in range(times):
            for (left, right), output in zip(pairs, outputs, strict=True):
                torch.mm(left, right, out=output)

    return run


def matrix_speed(device: str = "cpu", seconds: float = 1.0) -> float:
    """This machine's speed in the products of a step with 512 units and batch 128, in GFlop/s."""
    pairs = of_step(Shape(512, 128), device)
    (best,) = timed([({}, multiplied(pairs))], seconds)["median_ms"]
    return operations(pairs) / best / 1e6
