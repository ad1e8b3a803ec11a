"""The fused pass on the CPU, compiled by numba and run on as many threads as torch uses.

Each function takes tensors over [time, batch, units] and [units]; ``level`` and ``gain`` are dropout's, by the
hash of ``lib.network.survivors``. In memory the steps of an example lie together (``by_example``), so that what a
neuron was a step ago is still in the cache, and no two of its steps compete for a place there.
"""

import ctypes
from typing import no_type_check

import numba
import numpy as np
import torch
from torch import Tensor

from lib.fast.compiling import compiled
from lib.fast.threads import over_examples
from lib.fast.vectors import wide

STEPS = 16  # of a word of ``lib.fast.sparse``
NO_WORDS = torch.empty(0, 0, 0, dtype=torch.uint16)


def by_example(tensor: Tensor) -> Tensor:
    """[time, batch, units] as [batch, time, units], in memory too: a copy only where it does not lie so already."""
    return tensor.transpose(0, 1).contiguous()


def statistics(weighted: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each unit, summed in double precision."""
    time, batch, units = weighted.shape
    sums = torch.empty(batch, 2, units, dtype=torch.float64)
    over_examples(_statistics, by_example(weighted), weighted[0, 0].double(), sums)
    distance, square = over_batch(sums) / (time * batch)
    mean, variance = weighted[0, 0] + distance, (square - distance**2).clamp(min=0)
    return mean.to(weighted.dtype), variance.to(weighted.dtype)


def forward(
    weighted: Tensor, factor: Tensor, offset: Tensor, leak: Tensor,
    threshold: float, seed: int, level: int, gain: float, fired: Tensor = NO_WORDS, wanting: Tensor = NO_WORDS,
) -> Tensor:  # fmt: skip
    """Dropped-out spikes; the words of ``lib.fast.sparse`` are written where there is room for them."""
    examples = by_example(weighted)
    dropped = torch.empty_like(examples)
    over_examples(_forward, examples, factor, offset, leak, threshold, seed, level, gain, dropped, fired, wanting)
    return dropped.transpose(0, 1)


def backward(
    grad: Tensor, weighted: Tensor, factor: Tensor, offset: Tensor, leak: Tensor, mean: Tensor,
    threshold: float, seed: int, level: int, gain: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The loss's gradient by the weighted input, the norm's statistics held fixed; and sums of it by the potentials.

    The sums, [3, units], are over time and batch, weighted by 1, by the centred input and by what the last reset has
    left of the potential. ``grad`` is [time or 1, batch, units].
    """
    examples = by_example(weighted)
    result, sums = torch.empty_like(examples), weighted.new_empty(len(examples), 3, weighted.shape[2])
    over_examples(
        _backward, examples, by_example(grad), factor, offset, leak, mean, threshold, seed, level, gain, result, sums
    )  # fmt: skip
    return result.transpose(0, 1), over_batch(sums)


def arriving(grad: Tensor | None, by_wanted: Tensor | None, level: int) -> tuple[Tensor, int]:
    """The gradient of the spikes, a part of which may come by ``lib.fast.sparse``, and dropout's level for it.

    Where a readout of rates sends the same to every time step, it is [1, batch, units], and is not written out.
    """
    if grad is None:
        return by_wanted, 0  # there is none for what was dropped
    if by_wanted is not None:
        grad = grad + by_wanted
    return grad[:1] if grad.stride(0) == 0 else grad, level


def through_statistics(grad: Tensor, weighted: Tensor, slope: Tensor, constant: Tensor) -> None:
    """Take away, in place, what the gradient by the weighted input is less by where it moves the statistics."""
    over_examples(_through_statistics, by_example(weighted), grad.transpose(0, 1), slope, constant)


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


def over_batch(sums: Tensor) -> Tensor:
    """The sum over the first dimension, by one thread: in one order, and without waiting for others."""
    return torch.from_numpy(sums.numpy().sum(axis=0))


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
def golden(units):
    """What the hash of each unit's number begins with. From an array, since a counter would be of 64 bits."""
    multiples = np.empty(units, np.uint32)
    for n in range(units):
        multiples[n] = np.uint32(np.uint32(n) * np.uint32(0x9E3779B9))
    return multiples


@numba.njit(inline="always")
@no_type_check
def drop_out(row, seed, level, multiples, values):
    """Set to zero the dropped ones of a row of ``values``, that of time step and example ``row``."""
    key = _mixed(np.uint32(np.uint32(seed) ^ np.uint32(row)))
    for n in range(len(values)):
        word = _mixed(np.uint32(key + multiples[n]))
        values[n] = values[n] if word >= np.uint32(level) else values.dtype.type(0)


@compiled
@no_type_check
def _statistics(weighted, pivot, sums, first, last):
    """Distances from the pivot, since squares of large numbers would cancel."""
    wide()
    for b in range(first, last):
        sums[b] = 0
        total, squares = sums[b, 0], sums[b, 1]
        for t in range(weighted.shape[1]):
            row = weighted[b, t]
            for n in range(len(pivot)):
                distance = np.float64(row[n]) - pivot[n]
                total[n] += distance
                squares[n] += distance * distance


@numba.njit
@no_type_check
def tell(marks, gain, b, t, dropped, fired, wanting):
    """Write what an example's units do in a step, by their marks: 1 for a spike that passes, 2 for an open boxcar."""
    wide()
    spikes, step = dropped[b, t], np.int32(t % STEPS)
    for n in range(len(marks)):
        spikes[n] = gain if marks[n] & np.int32(1) else spikes.dtype.type(0)
    if len(fired) > 0:
        words = fired[b, t // STEPS]
        for n in range(len(marks)):
            before = words[n] if step > 0 else np.uint16(0)
            words[n] = before | np.uint16((marks[n] & np.int32(1)) << step)
    if len(wanting) > 0:
        words = wanting[b, t // STEPS]
        for n in range(len(marks)):
            before = words[n] if step > 0 else np.uint16(0)
            words[n] = before | np.uint16((marks[n] >> np.int32(1)) << step)


# Several short loops over a row, not one long one: with many arrays LLVM gives up on vector instructions. Nor does it
# see that the rows of an array that is unpacked lie without gaps: each is named by its number.
@compiled
@no_type_check
def _forward(
    weighted, factor, offset, leak, threshold, seed, level, gain, dropped, fired, wanting, first, last
):  # fmt: skip
    wide()
    batch, time, units = weighted.shape
    one, zero, half = weighted.dtype.type(1), weighted.dtype.type(0), weighted.dtype.type(0.5)
    threshold, gain = weighted.dtype.type(threshold), weighted.dtype.type(gain)
    rest, marks, multiples = np.empty(units, weighted.dtype), np.empty(units, np.int32), golden(units)
    for b in range(first, last):
        rest[:] = 0
        for t in range(time):
            row = weighted[b, t]
            for n in range(units):
                current = row[n] * factor[n] + offset[n]
                u = (one - leak[n]) * current + leak[n] * rest[n]
                fires = u > threshold
                rest[n] = u - (one if fires else zero)
                marks[n] = np.int32(fires) + np.int32(2) * np.int32(abs(u - threshold) <= half)
            if level > 0:
                drop_out(t * batch + b, seed, level, multiples, marks)
            tell(marks, gain, b, t, dropped, fired, wanting)


@compiled
@no_type_check
def _backward(
    weighted, grad, factor, offset, leak, mean, threshold, seed, level, gain, result, sums, first, last
):  # fmt: skip
    """dL/du_t = leak dL/du_{t+1} + window_t (dL/ds_t - leak dL/du_{t+1}), the window being 0 or 1.

    ``result`` holds the potentials until they are replaced by the gradient by the weighted input.
    """
    wide()
    batch, time, units = weighted.shape
    one, zero, half = weighted.dtype.type(1), weighted.dtype.type(0), weighted.dtype.type(0.5)
    threshold, gain = weighted.dtype.type(threshold), weighted.dtype.type(gain)
    states = np.empty((3, units), weighted.dtype)
    rest, following, arriving = states[0], states[1], states[2]
    multiples = golden(units)
    for b in range(first, last):
        rest[:] = 0
        sums[b] = 0
        for t in range(time):
            row, potential = weighted[b, t], result[b, t]
            for n in range(units):
                current = row[n] * factor[n] + offset[n]
                u = (one - leak[n]) * current + leak[n] * rest[n]
                rest[n] = u - (one if u > threshold else zero)
                potential[n] = u
        following[:] = 0
        of_one, of_centred, of_rest = sums[b, 0], sums[b, 1], sums[b, 2]
        for back in range(time):  # upward, since LLVM vectorises nothing inside a loop that counts down
            t = time - 1 - back
            row, potential, spike_grad = weighted[b, t], result[b, t], grad[b, t if grad.shape[1] > 1 else 0]
            for n in range(units):
                of_rest[n] += following[n] * (potential[n] - (one if potential[n] > threshold else zero))
            for n in range(units):
                arriving[n] = spike_grad[n] * gain
            if level > 0:
                drop_out(t * batch + b, seed, level, multiples, arriving)
            for n in range(units):
                inside = abs(potential[n] - threshold) <= half
                following[n] = arriving[n] if inside else leak[n] * following[n]
                potential[n] = following[n] * (factor[n] * (one - leak[n]))
            for n in range(units):
                of_one[n] += following[n]
                of_centred[n] += following[n] * (row[n] - mean[n])


@compiled
@no_type_check
def _through_statistics(weighted, grad, slope, constant, first, last):
    wide()
    for b in range(first, last):
        for t in range(weighted.shape[1]):
            row, less = weighted[b, t], grad[b, t]
            for n in range(len(slope)):
                less[n] = less[n] - constant[n] - row[n] * slope[n]
