"""A layer's matrix products spike by spike: the forward one and both of the way back, without the zeros.

Sixteen time steps of a unit are a word: one word's bits say when it fired, another's when its spike wants a gradient,
which is where its boxcar is open and dropout lets it pass. The neurons write both on their way (``Events``), and the
layer that hears them reads these instead of the train. Where too much happens for that to pay, it takes the dense
product, each of the three by itself.

The gradient of the train is formed where one is wanted, and nowhere else: a number for each such place, which goes back
through ``Events.wanted``, a tensor of that length. The train itself then receives none from this layer.

Sums are taken in an order that does not depend on the number of threads.
"""

from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
import torch
from numba.cpython.unsafe.numbers import trailing_zeros
from torch import Tensor, nn
from torch.nn.functional import linear

from lib.fast.cpu import STEPS, compiled, over_examples, over_shares

# Up to which share of spikes, and of places that want a gradient, the three products pay (measured in the benchmark).
FORWARD, BY_WEIGHT, BY_TRAIN = 0.25, 0.2, 0.35


@dataclass
class Events:
    """What happened in a train of [time, batch, units], whose spikes are ``gain`` each."""

    fired: Tensor  # words [batch, words, units]
    wanting: Tensor  # the same, of gradients, or none where none go back
    begins: Tensor  # [batch, words]: where each word's first gradient stands in ``wanted``
    gain: float
    wanted: Tensor | None = None
    spiking: float = 1.0  # shares of all places
    opened: float = 1.0
    version: int = 0  # the train's when it was written: a train that is changed in place is another one

    @classmethod
    def of(cls, like: Tensor, gain: float, gradients: bool) -> "Events":
        """Room for what will happen in a train like that."""
        time, batch, units = like.shape
        words = -(-time // STEPS)
        fired = torch.empty(batch, words, units, dtype=torch.uint16)
        wanting = torch.empty_like(fired if gradients else fired[:0])
        return cls(fired, wanting, torch.empty(wanting.shape[:2], dtype=torch.int64), gain)

    def count(self, train: Tensor) -> None:
        """Find how much there is of it."""
        words = torch.zeros(2, *self.fired.shape[:2], dtype=torch.int64)
        over_examples(_count, train, self.fired, self.wanting, words)
        spikes, wanting = words
        size = max(1, train.numel())
        self.spiking, self.version = int(spikes.sum()) / size, train._version
        if len(self.wanting):
            ends = wanting.flatten().cumsum(0)
            self.begins = (ends - wanting.flatten()).view_as(wanting)
            number = int(ends[-1]) if len(ends) else 0
            self.wanted, self.opened = train.new_empty(number), number / size


def weighed(linear_map: nn.Module, train: Tensor) -> Tensor:
    """What the map makes of a train: by its events where they are known and the map is no other than it seems."""
    events = getattr(train, "events", None)
    simple = type(linear_map) is nn.Linear and not (linear_map._forward_hooks or linear_map._forward_pre_hooks)
    if not simple or events is None or events.version != train._version or events.spiking > max(FORWARD, BY_WEIGHT):
        return linear_map(train)
    return _Product.apply(train, events.wanted, linear_map.weight, linear_map.bias, events)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, train, wanted, weight, bias, events):
        ctx.events, outgoing = events, weight.T.contiguous()
        ctx.save_for_backward(train, weight, outgoing)
        if events.spiking > FORWARD:
            return linear(train, weight, bias)
        weighted = train.new_empty(*train.shape[:2], len(weight))
        over_examples(_weigh, weighted, events.fired, outgoing, events.gain)
        return weighted if bias is None else weighted.add_(bias)

    @staticmethod
    def backward(ctx, grad):
        events, (train, weight, outgoing) = ctx.events, ctx.saved_tensors
        grad, by_train, by_wanted, by_weight, by_bias = grad.contiguous(), *[None] * 4
        if ctx.needs_input_grad[1] and events.opened <= BY_TRAIN:
            by_wanted = torch.empty_like(events.wanted)
            over_examples(_by_train, grad, events.wanting, events.begins, outgoing, by_wanted)
        elif ctx.needs_input_grad[0]:
            by_train = grad @ weight
        if ctx.needs_input_grad[2]:
            rows = grad.flatten(0, 1)
            if events.spiking > BY_WEIGHT:
                by_weight = rows.T @ train.flatten(0, 1)
            else:
                by_inputs = torch.zeros_like(outgoing)
                over_shares(_by_weight, len(by_inputs), grad.numel(), events.fired, rows, events.gain, by_inputs)
                by_weight = by_inputs.T
        if ctx.needs_input_grad[3]:
            by_bias = grad.sum(dim=(0, 1))
        return by_train, by_wanted, by_weight, by_bias, None


@compiled
@no_type_check
def _count(train, fired, wanting, numbers, first, last):
    """Set bits of each word of all units: of the spikes, and of the places that want a gradient."""
    for b in range(first, last):
        for word in range(fired.shape[1]):
            numbers[0, b, word] = _bits(fired[b, word])
            if len(wanting) > 0:
                numbers[1, b, word] = _bits(wanting[b, word])


@numba.njit
@no_type_check
def _bits(words):
    total = np.int32(0)
    for n in range(len(words)):
        word = np.uint16(words[n])
        word = np.uint16(word - ((word >> np.uint16(1)) & np.uint16(0x5555)))
        word = np.uint16((word & np.uint16(0x3333)) + ((word >> np.uint16(2)) & np.uint16(0x3333)))
        word = np.uint16((word + (word >> np.uint16(4))) & np.uint16(0x0F0F))
        total += np.int32((word + (word >> np.uint16(8))) & np.uint16(0x1F))
    return total


@numba.njit
@no_type_check
def _add_rows(table, places, number, total):
    """Add to ``total`` the rows of ``table`` at so many places."""
    done = 0
    while done + 4 <= number:
        one, two = table[places[done]], table[places[done + 1]]
        three, four = table[places[done + 2]], table[places[done + 3]]
        for n in range(len(total)):
            total[n] += (one[n] + two[n]) + (three[n] + four[n])
        done += 4
    while done < number:
        one = table[places[done]]
        for n in range(len(total)):
            total[n] += one[n]
        done += 1


@compiled
@no_type_check
def _weigh(weighted, fired, outgoing, gain, first, last):
    """For each row the sum of the weights that leave what fired."""
    time, _, units = weighted.shape
    gain = weighted.dtype.type(gain)
    places, numbers = np.empty((STEPS, fired.shape[2]), np.uint32), np.empty(STEPS, np.int64)
    for b in range(first, last):
        for word in range(fired.shape[1]):
            numbers[:] = 0
            for n in range(fired.shape[2]):
                bits = np.uint32(fired[b, word, n])
                while bits != 0:
                    step = trailing_zeros(bits)
                    places[step, numbers[step]] = n
                    numbers[step] += 1
                    bits &= np.uint32(bits - np.uint32(1))
            for step in range(min(STEPS, time - STEPS * word)):
                row = weighted[STEPS * word + step, b]
                row[:] = 0
                _add_rows(outgoing, places[step], numbers[step], row)
                for n in range(units):
                    row[n] *= gain


@compiled
@no_type_check
def _by_weight(fired, grad, gain, result, first, last):
    """For each input the sum of the gradients of the rows in which it fired; ``grad`` is [time * batch, units]."""
    batch, words, _ = fired.shape
    gain = grad.dtype.type(gain)
    rows = np.empty(STEPS * words, np.uint32)
    for b in range(batch):
        for n in range(first, last):
            number = 0
            for word in range(words):
                bits = np.uint32(fired[b, word, n])
                while bits != 0:
                    rows[number] = (STEPS * word + trailing_zeros(bits)) * batch + b
                    number += 1
                    bits &= np.uint32(bits - np.uint32(1))
            _add_rows(grad, rows, number, result[n])
    for n in range(first, last):
        for to in range(result.shape[1]):
            result[n, to] *= gain


@compiled
@no_type_check
def _by_train(grad, wanting, begins, outgoing, result, first, last):
    """At each place that wants it the product of what arrives behind and the weights that lead there."""
    rows = np.empty(STEPS, np.uint32)
    for b in range(first, last):
        for word in range(wanting.shape[1]):
            place = begins[b, word]
            for n in range(wanting.shape[2]):
                bits, number = np.uint32(wanting[b, word, n]), 0
                while bits != 0:
                    rows[number] = STEPS * word + trailing_zeros(bits)
                    number += 1
                    bits &= np.uint32(bits - np.uint32(1))
                weights, done = outgoing[n], 0
                while done + 4 <= number:
                    result[place], result[place + 1], result[place + 2], result[place + 3] = _four_products(
                        weights, grad[rows[done], b], grad[rows[done + 1], b],
                        grad[rows[done + 2], b], grad[rows[done + 3], b],
                    )  # fmt: skip
                    place, done = place + 4, done + 4
                while done < number:
                    result[place] = product(weights, grad[rows[done], b])
                    place, done = place + 1, done + 1


@numba.njit(fastmath={"reassoc", "nsz", "contract"})
@no_type_check
def _four_products(weights, one, two, three, four):
    of_one = of_two = of_three = of_four = weights.dtype.type(0)
    for n in range(len(weights)):
        of_one += weights[n] * one[n]
        of_two += weights[n] * two[n]
        of_three += weights[n] * three[n]
        of_four += weights[n] * four[n]
    return of_one, of_two, of_three, of_four


@numba.njit(fastmath={"reassoc", "nsz", "contract"})
@no_type_check
def product(left, right):
    total = left.dtype.type(0)
    for n in range(len(left)):
        total += left[n] * right[n]
    return total
