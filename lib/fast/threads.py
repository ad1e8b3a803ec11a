"""The threads of the kernels on the CPU, as many as torch uses: each takes a share of the work."""

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

# Below this many elements a second thread costs more than it saves.
ELEMENTS_PER_THREAD = 2**17
LOADED_IN = os.getpid()
TASK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def over_examples(kernel: Callable, examples: Tensor, *arguments) -> None:
    """Run ``kernel(examples, *arguments, first, last)`` on several threads, each its share of the batch."""
    over_shares(kernel, len(examples), examples.numel(), examples, *arguments)


def over_shares(kernel: Callable, number: int, elements: int, *arguments) -> None:
    """Run ``kernel(*arguments, first, last)`` on several threads, each its share of ``number`` things."""
    arguments = [argument.numpy() if isinstance(argument, Tensor) else argument for argument in arguments]
    threads = min(torch.get_num_threads(), number, elements // ELEMENTS_PER_THREAD)
    if threads < 2:
        kernel(*arguments, 0, number)
        return
    shares = iter([(number * thread // threads, number * (thread + 1) // threads) for thread in range(threads)])
    errors = []

    def work() -> None:
        try:
            for share in shares:
                kernel(*arguments, *share)
        except BaseException as error:
            errors.append(error)

    together(work, threads)
    for error in errors:
        raise error


def together(work: Callable[[], None], threads: int) -> None:
    """Call it in this thread and at the same time in others, so many in all, or fewer where no more are to be had.

    The others are torch's own, which wait without sleeping for what torch does next, in the way of any beside them; or
    else those of a pool. In a forked process OpenMP would wait forever for threads that only the parent has.
    """
    process = os.getpid()
    if process == LOADED_IN and (openmp := _openmp()):
        openmp.GOMP_parallel(TASK(lambda _: work()), None, threads, 0)
        return
    others = []
    with suppress(RuntimeError):  # the system gives no more threads
        for _ in range(threads - 1):
            others.append(_pool(process, threads - 1).submit(work))
    work()
    for other in others:
        if not other.cancel():  # it has begun
            other.result()


@cache
def _openmp() -> ctypes.CDLL | None:
    """The GNU OpenMP that torch's wheels bring along; None where there is none, as on macOS."""
    found = next((Path(torch.__file__).parent / "lib").glob("libgomp*"), None)
    return found and ctypes.CDLL(str(found))


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)
