"""Training a network a step at a time, here or in a process of its own."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lib.benchmark import peers
from lib.benchmark.products import Shape

LEARNING_RATE = 1e-6  # so small that a network that is timed for long stays as it was


def adam_step(
    network: nn.Module, features: Tensor, labels: Tensor, learning_rate: float = LEARNING_RATE
) -> tuple[torch.optim.Optimizer, Callable[[], float]]:
    """The optimiser and one update, as ``train_map`` makes it, of any network."""
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, weight_decay=1e-5)

    def step():
        optimizer.zero_grad()
        loss = cross_entropy(network(features), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return optimizer, step


class OwnProcess(ProcessPoolExecutor):
    """A process that trains one network: ``begin(steps)`` returns at once, its ``result()`` when they are done.

    ``network`` is a name of ``peers.installed()``. With ``keep_memory`` the process keeps what is freed, as those
    that use our layers do (``lib.fused.cpu``); others return it to the system.
    """

    def __init__(self, network: str, shape: Shape, threads: int, keep_memory: bool):
        context = multiprocessing.get_context("spawn")
        super().__init__(1, context, initializer=_prepare, initargs=(network, shape, threads, keep_memory))

    def begin(self, steps: int = 1):
        return self.submit(_train, steps)


def _prepare(network: str, shape: Shape, threads: int, keep_memory: bool) -> None:
    global _step
    if keep_memory:
        import_module("lib.fused.cpu")
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    _, _step = adam_step(peers.installed()[network](shape.sizes), *shape.minibatch())


def _train(steps: int) -> None:
    for _ in range(steps):
        _step()
