"""The fused pass on the CPU, compiled by numba and run on as many threads as torch uses.

Each function takes tensors over [time, batch, units] and [units]; ``level`` and ``gain`` are dropout's, by the
hash of ``lib.network.survivors``.
"""

import ctypes
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import no_type_check

import numba
import numpy as np
import torch
from torch import Tensor

from lib.fast.compiling import compiled

# Below this many elements a second thread costs more than it saves.
ELEMENTS_PER_THREAD = 2**17
# Examples that go through time and back together: as many as have about this many potentials a step, few enough to be
# still in the second-level cache on the way back, enough for memory to be read in long runs.
POTENTIALS = 1024


def statistics(weighted: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each unit, summed in double precision."""
    time, batch, units = weighted.shape
    sums = torch.zeros(batch, 2, units, dtype=torch.float64)
    over_examples(_statistics, weighted.contiguous(), sums)
    distance, square = sums.sum(dim=0) / (time * batch)
    mean, variance = weighted[0, 0] + distance, (square - distance**2).clamp(min=0)
    return mean.to(weighted.dtype), variance.to(weighted.dtype)


def forward(
    weighted: Tensor, factor: Tensor, offset: Tensor, leak: Tensor, threshold: float, seed: int, level: int, gain: float
) -> Tensor:
    """Dropped-out spikes."""
    dropped = torch.empty_like(weighted)
    over_examples(_forward, weighted, factor, offset, leak, threshold, seed, level, gain, dropped)
    return dropped


def backward(
    grad: Tensor, weighted: Tensor, factor: Tensor, offset: Tensor, leak: Tensor, mean: Tensor,
    threshold: float, seed: int, level: int, gain: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The loss's gradient by the weighted input, the norm's statistics held fixed; and sums of it by the potentials.

    The sums, [3, units], are over time and batch, weighted by 1, by the centred input and by what the last reset has
    left of the potential. ``grad`` is [time or 1, batch, units].
    """
    result = torch.empty_like(weighted)
    sums = torch.zeros(weighted.shape[1], 3, weighted.shape[2], dtype=weighted.dtype)
    over_examples(
        _backward, weighted, grad, factor, offset, leak, mean, threshold, seed, level, gain, result, sums
    )  # fmt: skip
    return result, sums.sum(dim=0)


def through_statistics(grad: Tensor, weighted: Tensor, slope: Tensor, constant: Tensor) -> None:
    """Take away, in place, what the gradient by the weighted input is less by where it moves the statistics."""
    over_examples(_through_statistics, weighted, grad, slope, constant)


def norm_gradients(
    sums: Tensor, weighted: Tensor, factor: Tensor, offset: Tensor, leak: Tensor, mean: Tensor,
    reciprocal_std: Tensor, batch_statistics: bool,
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, Tensor]:  # fmt: skip
    """Of ``backward``'s sums: gradients by the norm's scale and shift and by the leak; ``slope`` and ``constant``."""
    of_one, of_centred, of_rest = sums
    by_leak = of_rest - factor * of_centred - (offset + factor * mean) * of_one
    by_shift, by_centred = (1 - leak) * of_one, (1 - leak) * of_centred
    slope = constant = torch.zeros_like(factor)
    if batch_statistics:
        examples = weighted.shape[0] * weighted.shape[1]
        slope = factor * by_centred * reciprocal_std**2 / examples
        constant = factor * by_shift / examples - mean * slope
    return (by_centred * reciprocal_std, by_shift, by_leak), slope, constant


def over_examples(kernel: Callable, weighted: Tensor, *arguments) -> None:
    """Run ``kernel(weighted, *arguments, first, last)`` on several threads, each its share of the batch."""
    over_shares(kernel, weighted.shape[1], weighted.numel(), weighted, *arguments)


def over_shares(kernel: Callable, number: int, elements: int, *arguments) -> None:
    """Run ``kernel(*arguments, first, last)`` on several threads, each its share of ``number`` things.

    Plain threads, since a second OpenMP pool beside torch's own makes the two wait for each other.
    """
    arguments = [argument.numpy() if isinstance(argument, Tensor) else argument for argument in arguments]
    threads = min(torch.get_num_threads(), number, elements // ELEMENTS_PER_THREAD)
    if threads < 2:
        kernel(*arguments, 0, number)
        return
    edges = [number * thread // threads for thread in range(threads + 1)]
    for done in [_pool(threads).submit(kernel, *arguments, *share) for share in itertools.pairwise(edges)]:
        done.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has no threads


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, for the next step: given back, it would be faulted in again page by page."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, which knows no such setting
        return
    trim_threshold, mmap_max = -1, -4
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)


# Run-time type checks, as the tests install them, would stand between numba and the code: hence no_type_check.
@numba.njit(inline="always")
@no_type_check
def _mixed(word):
    """``lib.network.mixed``. Casts keep numba, which widens to 64 bits, from losing the vector instructions."""
    word = np.uint32(word ^ (word >> np.uint32(16)))
    word = np.uint32(word * np.uint32(0x85EBCA6B))
    word = np.uint32(word ^ (word >> np.uint32(13)))
    word = np.uint32(word * np.uint32(0xC2B2AE35))
    return np.uint32(word ^ (word >> np.uint32(16)))


@numba.njit(inline="always")
@no_type_check
def drop_out(row, seed, level, values):
    """Set to zero the dropped ones of a row of ``values``, that of time step and example ``row``."""
    key = _mixed(np.uint32(np.uint32(seed) ^ np.uint32(row)))
    for n in range(len(values)):
        word = _mixed(np.uint32(key + np.uint32(np.uint32(n) * np.uint32(0x9E3779B9))))
        values[n] = values[n] if word >= np.uint32(level) else values.dtype.type(0)


@compiled
@no_type_check
def _statistics(weighted, sums, first, last):
    """Distances from the first example, since squares of large numbers would cancel."""
    time, _, units = weighted.shape
    pivot = weighted[0, 0].astype(np.float64)
    total, squares = np.zeros(units), np.zeros(units)
    for t in range(time):
        for b in range(first, last):
            for n in range(units):
                distance = np.float64(weighted[t, b, n]) - pivot[n]
                total[n] += distance
                squares[n] += distance * distance
    sums[first, 0] = total
    sums[first, 1] = squares


# Several short loops over a row, not one long one: with many arrays LLVM gives up on vector instructions.
@compiled
@no_type_check
def _forward(weighted, factor, offset, leak, threshold, seed, level, gain, dropped, first, last):
    time, batch, units = weighted.shape
    one, zero = weighted.dtype.type(1), weighted.dtype.type(0)
    threshold, gain = weighted.dtype.type(threshold), weighted.dtype.type(gain)
    rests = np.zeros((last - first, units), weighted.dtype)
    for t in range(time):
        for b in range(first, last):
            rest = rests[b - first]
            for n in range(units):
                current = weighted[t, b, n] * factor[n] + offset[n]
                u = (one - leak[n]) * current + leak[n] * rest[n]
                fired = one if u > threshold else zero
                rest[n] = u - fired
                dropped[t, b, n] = fired * gain
            if level > 0:
                drop_out(t * batch + b, seed, level, dropped[t, b])


@compiled
@no_type_check
def _backward(
    weighted, grad, factor, offset, leak, mean, threshold, seed, level, gain, result, sums, first, last
):  # fmt: skip
    """dL/du_t = leak dL/du_{t+1} + window_t (dL/ds_t - leak dL/du_{t+1}), the window being 0 or 1.

    ``result`` holds the potentials until they are replaced by the gradient by the weighted input.
    """
    time, batch, units = weighted.shape
    one, zero, half = weighted.dtype.type(1), weighted.dtype.type(0), weighted.dtype.type(0.5)
    threshold, gain = weighted.dtype.type(threshold), weighted.dtype.type(gain)
    # From an array, since LLVM vectorises nothing inside a loop that counts down.
    backwards = np.arange(time)[::-1].copy()
    rows = max(1, POTENTIALS // units)
    arriving = np.empty(units, weighted.dtype)
    for begin in range(first, last, rows):
        end = min(begin + rows, last)
        rests = np.zeros((rows, units), weighted.dtype)
        for t in range(time):
            for b in range(begin, end):
                rest, potential = rests[b - begin], result[t, b]
                for n in range(units):
                    current = weighted[t, b, n] * factor[n] + offset[n]
                    u = (one - leak[n]) * current + leak[n] * rest[n]
                    rest[n] = u - (one if u > threshold else zero)
                    potential[n] = u
        followings = np.zeros((rows, units), weighted.dtype)
        for t in backwards:
            for b in range(begin, end):
                following, potential = followings[b - begin], result[t, b]
                spike_grad = grad[t if len(grad) > 1 else 0, b]
                for n in range(units):
                    rest_of_it = potential[n] - (one if potential[n] > threshold else zero)
                    sums[b, 2, n] += following[n] * rest_of_it
                    arriving[n] = spike_grad[n] * gain
                if level > 0:
                    drop_out(t * batch + b, seed, level, arriving)
                for n in range(units):
                    inside = abs(potential[n] - threshold) <= half
                    following[n] = arriving[n] if inside else leak[n] * following[n]
                    potential[n] = following[n] * (factor[n] * (one - leak[n]))
                for n in range(units):
                    sums[b, 0, n] += following[n]
                    sums[b, 1, n] += following[n] * (weighted[t, b, n] - mean[n])


@compiled
@no_type_check
def _through_statistics(weighted, grad, slope, constant, first, last):
    time, _, units = weighted.shape
    for t in range(time):
        for b in range(first, last):
            for n in range(units):
                grad[t, b, n] = grad[t, b, n] - constant[n] - weighted[t, b, n] * slope[n]
