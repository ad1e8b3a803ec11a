"""The fused pass of adaptive and recurrent neurons on the CPU: one pair of kernels for adLIF, RLIF and RadLIF.

RadLIF without recurrent weights is adLIF, and with an adaptation of zeros RLIF. A matrix product for each time step
would multiply zeros, mostly: a unit's spike is sent to the others when there is one, and what the gradient needs of
the others is collected where the potential is near the threshold. As for LIF, nothing is kept but the weighted input.
"""

from typing import no_type_check

import numba
import numpy as np
import torch

from lib.fast import cpu
from lib.fast.cpu import compiled, drop_out, golden, tell
from lib.fast.threads import over_examples, over_shares


class RadLIF(torch.autograd.Function):
    """Dropped-out spikes; ``adaptation`` [3, units] (its leak, and its gains by potential and spike) and
    ``recurrent`` [units, units] (with a zero diagonal) may be None."""

    @staticmethod
    def forward(
        ctx, weighted, scale, shift, leak, mean, reciprocal_std, batch_statistics, threshold, seed, level, gain,
        events, adaptation, recurrent,
    ):  # fmt: skip
        examples, leak, units = cpu.by_example(weighted), leak.contiguous(), weighted.shape[2]
        factor = scale * reciprocal_std
        offset = shift - mean * factor
        adaptation = weighted.new_zeros(3, units) if adaptation is None else adaptation.contiguous()
        outgoing = weighted.new_empty(0, units) if recurrent is None else recurrent.T.contiguous()
        ctx.save_for_backward(examples, leak, mean, reciprocal_std, factor, offset, adaptation, outgoing)
        ctx.set_materialize_grads(False)
        ctx.batch_statistics, ctx.settings = batch_statistics, (threshold, seed, level, gain)
        dropped = torch.empty_like(examples)
        over_examples(
            _forward, examples, factor, offset, leak, adaptation, outgoing, threshold, seed, level, gain, dropped,
            *((cpu.NO_WORDS, cpu.NO_WORDS) if events is None else (events.fired, events.wanting)),
        )  # fmt: skip
        train = dropped.transpose(0, 1)
        return train, None if events is None else events.count(train)

    @staticmethod
    def backward(ctx, grad, by_wanted):
        examples, leak, mean, reciprocal_std, factor, offset, adaptation, outgoing = ctx.saved_tensors
        batch, _, units = examples.shape
        threshold, seed, level, gain = ctx.settings
        grad, level = cpu.arriving(grad, by_wanted, level)
        by_potential, sums = torch.empty_like(examples), examples.new_zeros(batch, 6, units)
        spiked = torch.empty(examples.shape if len(outgoing) else (0, 0, 0), dtype=torch.bool)
        over_examples(
            _backward, examples, cpu.by_example(grad), factor, offset, leak, mean, adaptation, outgoing,
            outgoing * (1 - leak), threshold, seed, level, gain, by_potential, spiked, sums,
        )  # fmt: skip
        sums = cpu.over_batch(sums)
        (by_scale, by_shift, by_leak), slope, constant = cpu.norm_gradients(
            sums[:3], examples, factor, offset, leak, mean, reciprocal_std, ctx.batch_statistics
        )
        by_recurrent = None
        if len(outgoing):
            of_pairs = torch.zeros_like(outgoing)
            over_shares(_pairs, units, examples.numel(), spiked, by_potential, of_pairs)
            by_leak -= (outgoing * of_pairs).sum(dim=0)
            by_recurrent = (of_pairs * (1 - leak)).T
        by_adaptation = sums[3:] if ctx.needs_input_grad[12] else None
        over_examples(_by_weighted, examples, factor * (1 - leak), slope, constant, by_potential)
        return by_potential.transpose(0, 1), by_scale, by_shift, by_leak, *[None] * 8, by_adaptation, by_recurrent


@numba.njit
@no_type_check
def _chosen(flags, places):
    """Write the places of true flags to the front of ``places``, without branches; return their number."""
    number = 0
    for n in range(len(flags)):
        places[number] = n
        number += flags[n]
    return number


@numba.njit
@no_type_check
def _advance(
    weighted, factor, offset, leak, adaptation, outgoing, threshold,
    potential, spike, adapting, current, received, flags, places,
):  # fmt: skip
    """Take one example's potentials, spikes and adaptation currents, [units] each, a time step on.

    The last four arrays are there to be written over.
    """
    units = len(weighted)
    one, zero = weighted.dtype.type(1), weighted.dtype.type(0)
    of_itself, of_potential, of_spike = adaptation[0], adaptation[1], adaptation[2]
    for n in range(units):
        adapting[n] = of_itself[n] * adapting[n] + of_potential[n] * potential[n] + of_spike[n] * spike[n]
    for n in range(units):
        current[n] = weighted[n] * factor[n] + offset[n]
    if len(outgoing) > 0:
        received[:] = 0
        for n in range(units):
            flags[n] = spike[n] > zero
        for source in places[: _chosen(flags, places)]:
            weights = outgoing[source]
            for n in range(units):
                received[n] += weights[n]
        for n in range(units):
            current[n] += weighted.dtype.type(received[n])
    for n in range(units):
        potential[n] = (one - leak[n]) * (current[n] - adapting[n]) + leak[n] * (potential[n] - spike[n])
    for n in range(units):
        spike[n] = one if potential[n] > threshold else zero


@compiled
@no_type_check
def _forward(
    weighted, factor, offset, leak, adaptation, outgoing, threshold, seed, level, gain, dropped,
    fired, wanting, first, last,
):  # fmt: skip
    batch, time, units = weighted.shape
    threshold, gain = weighted.dtype.type(threshold), weighted.dtype.type(gain)
    half, marks = weighted.dtype.type(0.5), np.empty(units, np.int32)
    current, received = np.empty(units, weighted.dtype), np.empty(units)
    flags, places, multiples = np.empty(units, np.bool_), np.empty(units, np.int64), golden(units)
    for b in range(first, last):
        state = np.zeros((3, units), weighted.dtype)
        potential, spike, adapting = state[0], state[1], state[2]
        for t in range(time):
            _advance(
                weighted[b, t], factor, offset, leak, adaptation, outgoing, threshold,
                potential, spike, adapting, current, received, flags, places,
            )  # fmt: skip
            for n in range(units):
                marks[n] = np.int32(spike[n]) + np.int32(2) * np.int32(abs(potential[n] - threshold) <= half)
            if level > 0:
                drop_out(t * batch + b, seed, level, multiples, marks)
            tell(marks, gain, b, t, dropped, fired, wanting)


@numba.njit(fastmath={"reassoc", "nsz"})
@no_type_check
def _product(left, right):
    total = left.dtype.type(0)
    for n in range(len(left)):
        total += left[n] * right[n]
    return total


@compiled
@no_type_check
def _backward(
    weighted, grad, factor, offset, leak, mean, adaptation, outgoing, scaled_outgoing,
    threshold, seed, level, gain, result, spiked, sums, first, last,
):  # fmt: skip
    """With p_t = dL/du_t and k_t = dL/dw_t, w being the adaptation current, and c = 1 - leak:

    dL/ds_t = gradient arriving - leak p_{t+1} + adaptation_spike k_{t+1} + V' c p_{t+1},
    p_t = leak p_{t+1} + adaptation_potential k_{t+1} + window_t dL/ds_t and
    k_t = adaptation_leak k_{t+1} - c p_t.

    ``result`` holds the potentials until p replaces them. The sums, [6, units] for each example, are over time: of p_t
    times 1, the centred input, and what the last reset has left of the potential with w_t; and of k_t times w, u and s
    of the step before.
    """
    batch, time, units = weighted.shape
    one, zero, half = weighted.dtype.type(1), weighted.dtype.type(0), weighted.dtype.type(0.5)
    threshold, gain = weighted.dtype.type(threshold), weighted.dtype.type(gain)
    of_itself, of_potential, of_spike = adaptation[0], adaptation[1], adaptation[2]
    backwards = np.arange(time)[::-1].copy()
    kept = np.empty((time, units), weighted.dtype)
    current, received = np.empty(units, weighted.dtype), np.empty(units)
    flags, places, multiples = np.empty(units, np.bool_), np.empty(units, np.int64), golden(units)
    sent = current
    for b in range(first, last):
        state = np.zeros((3, units), weighted.dtype)
        potential, spike, adapting = state[0], state[1], state[2]
        for t in range(time):
            _advance(
                weighted[b, t], factor, offset, leak, adaptation, outgoing, threshold,
                potential, spike, adapting, current, received, flags, places,
            )  # fmt: skip
            result[b, t] = potential
            kept[t] = adapting
            if len(outgoing) > 0:
                for n in range(units):
                    spiked[b, t, n] = spike[n] > zero
        state = np.zeros((2, units), weighted.dtype)
        p, k = state[0], state[1]
        for t in backwards:
            potential, adapting = result[b, t], kept[t]
            spike_grad = grad[b, t if grad.shape[1] > 1 else 0]
            for n in range(units):
                sums[b, 2, n] += p[n] * (potential[n] - (one if potential[n] > threshold else zero))
                sums[b, 5, n] += k[n] if potential[n] > threshold else zero
            for n in range(units):
                sums[b, 3, n] += k[n] * adapting[n]
                sums[b, 4, n] += k[n] * potential[n]
            for n in range(units):
                sent[n] = spike_grad[n] * gain
            if level > 0:
                drop_out(t * batch + b, seed, level, multiples, sent)
            if len(outgoing) > 0:
                for n in range(units):
                    flags[n] = abs(potential[n] - threshold) <= half
                for n in places[: _chosen(flags, places)]:
                    sent[n] += _product(scaled_outgoing[n], p)
            for n in range(units):
                inside = abs(potential[n] - threshold) <= half
                p[n] = (sent[n] + of_spike[n] * k[n] if inside else leak[n] * p[n]) + of_potential[n] * k[n]
            for n in range(units):
                k[n] = of_itself[n] * k[n] - (one - leak[n]) * p[n]
            for n in range(units):
                sums[b, 0, n] += p[n]
                sums[b, 1, n] += p[n] * (weighted[b, t, n] - mean[n])
            for n in range(units):
                sums[b, 2, n] += p[n] * adapting[n]
            result[b, t] = p


@compiled
@no_type_check
def _pairs(spiked, by_potential, of_pairs, first, last):
    """Sums over time and batch of a unit's spike and, a step later, the gradients by the potentials."""
    batch, time, units = spiked.shape
    places = np.empty(units, np.int64)
    for b in range(batch):
        for t in range(1, time):
            grads = by_potential[b, t]
            for source in places[: _chosen(spiked[b, t - 1, first:last], places)]:
                of_source = of_pairs[first + source]
                for n in range(units):
                    of_source[n] += grads[n]


@compiled
@no_type_check
def _by_weighted(weighted, scale, slope, constant, grad, first, last):
    """Replace the gradient by the potential with that by the weighted input."""
    _, time, units = weighted.shape
    for b in range(first, last):
        for t in range(time):
            for n in range(units):
                grad[b, t, n] = grad[b, t, n] * scale[n] - constant[n] - weighted[b, t, n] * slope[n]
