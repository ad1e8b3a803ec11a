"""What stands between two matrix products, in one pass: normalise, integrate, spike, drop out.

The plain form is ``plain_spikes``, in PyTorch's own operations; ``spikes`` computes the same spikes to the bit,
compiled by numba, on the CPU. It exists because memory traffic, not arithmetic, is what the plain form costs.
"""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import no_type_check

import numba
import numpy as np
import torch
from jaxtyping import Float, UInt16
from torch import Tensor, nn

from lib import neurons

DROP_LEVELS = 2**16
# Below this many elements a second thread costs more than it saves.
ELEMENTS_PER_THREAD = 2**19


def spikes(
    weighted: Float[Tensor, "time batch units"],
    norm: nn.BatchNorm1d,
    leak: Float[Tensor, " units"],
    dropout: float = 0.0,
    threshold: float = 1.0,
) -> Float[Tensor, "time batch units"]:
    """LIF spikes of the batch-normalised input, dropped with probability ``dropout`` and scaled up to make up.

    ``norm`` is used, and its running statistics updated, as ``nn.BatchNorm1d`` itself would. ``dropout`` is
    rounded to a multiple of 2**-16. Falls back on the plain form off the CPU.
    """
    drops = draw_drops(weighted, dropout)
    if weighted.device.type != "cpu":
        return plain_spikes(weighted, norm, leak, drops, dropout, threshold)
    if norm.training:
        # The library's own statistics, so that both forms see the same to the bit; its output is not needed.
        _, mean, reciprocal_std = torch.native_batch_norm(
            weighted.detach().flatten(0, 1),
            norm.weight.detach(), norm.bias.detach(), norm.running_mean, norm.running_var,
            True, norm.momentum, norm.eps,
        )  # fmt: skip
        norm.num_batches_tracked.add_(1)
    else:
        mean, reciprocal_std = norm.running_mean, torch.rsqrt(norm.running_var + norm.eps)
    return _Spikes.apply(
        weighted, norm.weight, norm.bias, leak, mean, reciprocal_std, norm.training, drops, dropout, threshold
    )


def plain_spikes(
    weighted: Float[Tensor, "time batch units"],
    norm: nn.BatchNorm1d,
    leak: Float[Tensor, " units"],
    drops: UInt16[Tensor, "time batch units"] | None,
    dropout: float,
    threshold: float = 1.0,
) -> Float[Tensor, "time batch units"]:
    """The reference: the same in PyTorch's operations."""
    current = norm(weighted.flatten(0, 1)).view_as(weighted)
    fired = neurons.lif(current, leak, threshold)
    if drops is None:
        return fired
    level = drop_level(dropout)
    return fired * (drops.int() >= level) * (DROP_LEVELS / (DROP_LEVELS - level))


def drop_level(dropout: float) -> int:
    """The share of the 16-bit numbers below which a spike is dropped."""
    return round(dropout * DROP_LEVELS)


def draw_drops(weighted: Tensor, dropout: float) -> UInt16[Tensor, "time batch units"] | None:
    """Uniform 16-bit numbers, from torch's seed but NumPy's generator, which is ten times as fast."""
    if drop_level(dropout) == 0:
        return None
    seed = int(torch.randint(2**62, ()))
    words = np.random.SFC64(seed).random_raw(-(-weighted.numel() // 4))
    return torch.from_numpy(words.view(np.uint16)[: weighted.numel()]).view(weighted.shape).to(weighted.device)


class _Spikes(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weighted, scale, shift, leak, mean, reciprocal_std, batch_statistics, drops, dropout, threshold):
        weighted, leak = weighted.contiguous(), leak.contiguous()
        factor = scale * reciprocal_std
        offset = shift - mean * factor
        potential, dropped = torch.empty_like(weighted), torch.empty_like(weighted)
        level = drop_level(dropout)
        kept = (
            np.empty((0, 0, 0), np.uint16) if drops is None else drops.numpy(),
            level,
            DROP_LEVELS / (DROP_LEVELS - level),
        )
        _over_examples(
            _forward, factor.numpy(), weighted.numpy(), offset.numpy(), leak.numpy(), threshold, *kept,
            potential.numpy(), dropped.numpy(),
        )  # fmt: skip
        ctx.save_for_backward(weighted, potential, leak, mean, reciprocal_std, factor, offset)
        ctx.kept, ctx.batch_statistics, ctx.threshold = kept, batch_statistics, threshold
        return dropped

    @staticmethod
    def backward(ctx, grad):
        weighted, potential, leak, mean, reciprocal_std, factor, offset = ctx.saved_tensors
        # A readout of firing rates sends the same gradient to every time step; it need not be written out.
        grad = grad[:1] if grad.stride(0) == 0 else grad
        adjoint = torch.empty_like(weighted)
        _over_examples(
            _adjoint, grad.contiguous().numpy(), potential.numpy(), leak.numpy(), ctx.threshold, *ctx.kept,
            adjoint.numpy(),
        )  # fmt: skip
        sums = torch.zeros(weighted.shape[1], 3, weighted.shape[2], dtype=weighted.dtype)
        _over_examples(
            _sums, adjoint.numpy(), weighted.numpy(), potential.numpy(), mean.numpy(), ctx.threshold, sums.numpy()
        )
        of_one, of_centred, of_rest = sums.sum(dim=0)
        grad_leak = of_rest - factor * of_centred - (offset + factor * mean) * of_one
        grad_shift, grad_centred = (1 - leak) * of_one, (1 - leak) * of_centred
        if ctx.batch_statistics:
            examples = weighted.shape[0] * weighted.shape[1]
            slope = factor * grad_centred * reciprocal_std**2 / examples
            constant = factor * grad_shift / examples - mean * slope
            _over_examples(
                _through_statistics, (factor * (1 - leak)).numpy(), weighted.numpy(), slope.numpy(),
                constant.numpy(), adjoint.numpy(),
            )  # fmt: skip
        else:
            adjoint *= factor * (1 - leak)
        return adjoint, grad_centred * reciprocal_std, grad_shift, grad_leak, *[None] * 6


def _over_examples(kernel: Callable, *arrays) -> None:
    """Run ``kernel(*arrays, first, last)`` on as many threads as torch uses, each its share of the batch.

    Plain threads, since a second OpenMP pool beside torch's own makes the two wait for each other.
    """
    time, batch, units = arrays[1].shape
    threads = min(torch.get_num_threads(), batch, time * batch * units // ELEMENTS_PER_THREAD)
    if threads < 2:
        kernel(*arrays, 0, batch)
        return
    edges = [batch * thread // threads for thread in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(kernel, *arrays, *share) for share in itertools.pairwise(edges)]:
            done.result()


# Run-time type checks, as the tests install them, would stand between numba and the code: hence no_type_check.
compiled = numba.njit(cache=True, error_model="numpy", nogil=True)


@compiled
@no_type_check
def _forward(factor, weighted, offset, leak, threshold, drops, level, gain, potential, dropped, first, last):
    time, _, units = weighted.shape
    level = np.uint16(level)
    one, zero = weighted.dtype.type(1), weighted.dtype.type(0)
    threshold, gain = weighted.dtype.type(threshold), weighted.dtype.type(gain)
    for b in range(first, last):
        rest = np.zeros(units, weighted.dtype)
        for t in range(time):
            for n in range(units):
                current = weighted[t, b, n] * factor[n] + offset[n]
                u = (one - leak[n]) * current + leak[n] * rest[n]
                fired = one if u > threshold else zero
                potential[t, b, n] = u
                rest[n] = u - fired
                dropped[t, b, n] = fired * gain
            if level > 0:
                for n in range(units):
                    dropped[t, b, n] = dropped[t, b, n] if drops[t, b, n] >= level else zero


@compiled
@no_type_check
def _adjoint(grad, potential, leak, threshold, drops, level, gain, adjoint, first, last):
    """dL/du_t = leak dL/du_{t+1} + window_t (dL/ds_t - leak dL/du_{t+1}), the window being 0 or 1."""
    time, _, units = potential.shape
    zero, half = potential.dtype.type(0), potential.dtype.type(0.5)
    threshold, gain, level = potential.dtype.type(threshold), potential.dtype.type(gain), np.uint16(level)
    # From an array, since LLVM vectorises nothing inside a loop that counts down.
    backwards = np.arange(time)[::-1].copy()
    for b in range(first, last):
        following = np.zeros(units, potential.dtype)
        arriving = np.zeros(units, potential.dtype)
        for t in backwards:
            g = t if len(grad) > 1 else 0
            for n in range(units):
                arriving[n] = grad[g, b, n] * gain
            if level > 0:
                for n in range(units):
                    arriving[n] = arriving[n] if drops[t, b, n] >= level else zero
            for n in range(units):
                inside = abs(potential[t, b, n] - threshold) <= half
                following[n] = arriving[n] if inside else leak[n] * following[n]
                adjoint[t, b, n] = following[n]


@compiled
@no_type_check
def _sums(adjoint, weighted, potential, mean, threshold, sums, first, last):
    """For each example, the adjoint summed over time, times 1, the centred input, the rest after the last spike."""
    time, _, units = weighted.shape
    one, zero = weighted.dtype.type(1), weighted.dtype.type(0)
    threshold = weighted.dtype.type(threshold)
    for b in range(first, last):
        for t in range(time):
            for n in range(units):
                sums[b, 0, n] += adjoint[t, b, n]
            for n in range(units):
                sums[b, 1, n] += adjoint[t, b, n] * (weighted[t, b, n] - mean[n])
        for t in range(1, time):
            for n in range(units):
                u = potential[t - 1, b, n]
                sums[b, 2, n] += adjoint[t, b, n] * (u - (one if u > threshold else zero))


@compiled
@no_type_check
def _through_statistics(factor, weighted, slope, constant, grad, first, last):
    time, _, units = weighted.shape
    for t in range(time):
        for b in range(first, last):
            for n in range(units):
                grad[t, b, n] = factor[n] * grad[t, b, n] - constant[n] - weighted[t, b, n] * slope[n]
