"""The fused pass on CUDA, compiled by Triton: the same four functions as ``cpu`` has, by the same arithmetic.

A program takes one example and a block of units through time; what it sums, it sums for that example alone, so that
nothing depends on the order in which programs run. Multiplications and additions are kept apart, as on the CPU:
fused, they would round differently, and a spike could come out another way.

What has been run: Triton's interpreter, which gives the CPU's bits, and the compiler, whose code for a GPU fuses none
of them. The tests run the kernels on a GPU too where there is one; none was at hand when they were written, so
neither their results nor their speed have been seen there.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

# A warp takes a unit a thread: its 32 neighbours make one read of 128 bytes, and small layers still fill the GPU.
UNITS = tl.constexpr(32)
OPTIONS = {"num_warps": 1, "enable_fp_fusion": False}


def statistics(weighted: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each unit, summed in double precision: so the sums round as the CPU's do."""
    time, batch, units = weighted.shape
    weighted = weighted.contiguous()
    sums = weighted.new_empty(batch, 2, units, dtype=torch.float64)
    _launch(_statistics, weighted, sums)
    distance, square = sums.sum(dim=0) / (time * batch)
    mean, variance = weighted[0, 0] + distance, (square - distance**2).clamp(min=0)
    return mean.to(weighted.dtype), variance.to(weighted.dtype)


def forward(
    weighted: Tensor, factor: Tensor, offset: Tensor, leak: Tensor, threshold: float, seed: int, level: int, gain: float
) -> Tensor:
    """Dropped-out spikes."""
    weighted = weighted.contiguous()
    dropped = torch.empty_like(weighted)
    _launch(_forward, weighted, factor, offset, leak, threshold, seed, level, gain, dropped)
    return dropped


def backward(
    grad: Tensor, weighted: Tensor, factor: Tensor, offset: Tensor, leak: Tensor, mean: Tensor,
    threshold: float, seed: int, level: int, gain: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The loss's gradient by the weighted input, the norm's statistics held fixed; and sums of it by the potentials."""
    _, batch, units = weighted.shape
    weighted, grad = weighted.contiguous(), grad.contiguous()
    result, sums = torch.empty_like(weighted), weighted.new_empty(batch, 3, units)
    grad_rows = batch if len(grad) > 1 else 0
    _launch(
        _backward, weighted, grad, factor, offset, leak, mean, threshold, seed, level, gain, grad_rows, result, sums
    )  # fmt: skip
    return result, sums.sum(dim=0)


def through_statistics(grad: Tensor, weighted: Tensor, slope: Tensor, constant: Tensor) -> None:
    """Take away, in place, what the gradient by the weighted input is less by where it moves the statistics."""
    _launch(_through_statistics, weighted.contiguous(), grad, slope, constant)


def _launch(kernel: triton.runtime.KernelInterface, weighted: Tensor, *arguments) -> None:
    time, batch, units = weighted.shape
    with torch.cuda.device_of(weighted):  # Triton launches on the current device
        kernel[batch, triton.cdiv(units, UNITS.value)](weighted, *arguments, time, batch, units, **OPTIONS)


# Run-time type checks, as the tests install them, would be taken for the code: hence no_type_check. A kernel's floats
# come in double precision and are brought to the tensors' own by ``tl.full``; its seed and level are not specialised,
# else it would be compiled anew for some of their values.


@triton.jit
@no_type_check
def _units():
    """The units that this program takes."""
    return tl.program_id(1) * UNITS + tl.arange(0, UNITS)


@triton.jit
@no_type_check
def _places(row, units):
    """Where they stand in a row; in 64 bits, which a large tensor takes."""
    return row.to(tl.int64) * units + _units()


@triton.jit
@no_type_check
def _mixed(word):
    """``lib.network.mixed``."""
    word = (word ^ (word >> 16)) * 0x85EBCA6B
    word = (word ^ (word >> 13)) * 0xC2B2AE35
    return word ^ (word >> 16)


@triton.jit
@no_type_check
def _kept(row, seed, level):
    """``lib.network.survivors``, for a row of these units."""
    key = _mixed(row.to(tl.uint32) ^ seed.to(tl.uint32))
    return _mixed(_units().to(tl.uint32) * 0x9E3779B9 + key) >= level.to(tl.uint32)


@triton.jit
@no_type_check
def _reset(potential, threshold):
    """What a spike, or none, leaves of the potential."""
    return tl.where(potential > threshold, potential - 1, potential)


@triton.jit
@no_type_check
def _statistics(weighted, sums, time, batch, units):
    """Distances from the first example, since squares of large numbers would cancel."""
    example, real = tl.program_id(0), _units() < units
    pivot = tl.load(weighted + _units(), real).to(tl.float64)
    total = tl.full((UNITS,), 0, tl.float64)
    squares = tl.full((UNITS,), 0, tl.float64)
    for t in range(time):
        distance = tl.load(weighted + _places(t * batch + example, units), real).to(tl.float64) - pivot
        total += distance
        squares += distance * distance
    tl.store(sums + _places(2 * example, units), total, real)
    tl.store(sums + _places(2 * example + 1, units), squares, real)


@triton.jit(do_not_specialize=["seed", "level"])
@no_type_check
def _forward(
    weighted, factor, offset, leak, threshold: tl.float64, seed, level, gain: tl.float64,
    dropped, time, batch, units,
):  # fmt: skip
    example, unit, real = tl.program_id(0), _units(), _units() < units
    factor, offset = tl.load(factor + unit, real), tl.load(offset + unit, real)
    leak = tl.load(leak + unit, real)
    threshold, gain = tl.full((UNITS,), threshold, leak.dtype), tl.full((UNITS,), gain, leak.dtype)
    rest = tl.full((UNITS,), 0, leak.dtype)
    for t in range(time):
        row = t * batch + example
        current = tl.load(weighted + _places(row, units), real) * factor + offset
        potential = (1 - leak) * current + leak * rest
        rest = _reset(potential, threshold)
        passed = (potential > threshold) & _kept(row, seed, level)
        tl.store(dropped + _places(row, units), tl.where(passed, gain, 0), real)


@triton.jit(do_not_specialize=["seed", "level"])
@no_type_check
def _backward(
    weighted, grad, factor, offset, leak, mean,
    threshold: tl.float64, seed, level, gain: tl.float64,
    grad_rows, result, sums, time, batch, units,
):  # fmt: skip
    """dL/du_t = leak dL/du_{t+1} + window_t (dL/ds_t - leak dL/du_{t+1}), the window being 0 or 1.

    ``result`` holds the potentials until they are replaced; ``grad_rows`` is what a time step advances in ``grad``.
    """
    example, unit, real = tl.program_id(0), _units(), _units() < units
    factor, offset = tl.load(factor + unit, real), tl.load(offset + unit, real)
    leak, mean = tl.load(leak + unit, real), tl.load(mean + unit, real)
    threshold, gain = tl.full((UNITS,), threshold, leak.dtype), tl.full((UNITS,), gain, leak.dtype)
    rest = tl.full((UNITS,), 0, leak.dtype)
    for t in range(time):
        places = _places(t * batch + example, units)
        current = tl.load(weighted + places, real) * factor + offset
        potential = (1 - leak) * current + leak * rest
        rest = _reset(potential, threshold)
        tl.store(result + places, potential, real)
    tl.debug_barrier()  # whichever thread has written a potential, another may read it
    following = tl.full((UNITS,), 0, leak.dtype)
    of_one = tl.full((UNITS,), 0, leak.dtype)
    of_centred = tl.full((UNITS,), 0, leak.dtype)
    of_rest = tl.full((UNITS,), 0, leak.dtype)
    for steps in range(time):
        t = time - 1 - steps
        row = t * batch + example
        places = _places(row, units)
        potential = tl.load(result + places, real)
        of_rest += following * _reset(potential, threshold)
        spike_grad = tl.load(grad + _places(t * grad_rows + example, units), real)
        arriving = tl.where(_kept(row, seed, level), spike_grad * gain, 0)
        following = tl.where(tl.abs(potential - threshold) <= 0.5, arriving, leak * following)
        of_one += following
        of_centred += following * (tl.load(weighted + places, real) - mean)
        tl.store(result + places, following * (factor * (1 - leak)), real)
    tl.store(sums + _places(3 * example, units), of_one, real)
    tl.store(sums + _places(3 * example + 1, units), of_centred, real)
    tl.store(sums + _places(3 * example + 2, units), of_rest, real)


@triton.jit
@no_type_check
def _through_statistics(weighted, grad, slope, constant, time, batch, units):
    example, unit, real = tl.program_id(0), _units(), _units() < units
    slope, constant = tl.load(slope + unit, real), tl.load(constant + unit, real)
    for t in range(time):
        places = _places(t * batch + example, units)
        less = tl.load(grad + places, real) - constant - tl.load(weighted + places, real) * slope
        tl.store(grad + places, less, real)
