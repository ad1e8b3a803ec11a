"""A layer's matrix products spike by spike: the forward one and both of the way back, without the zeros.

Sixteen time steps of a unit are a word: one word's bits say when it fired, another's when its spike wants a gradient,
which is where its boxcar is open and dropout lets it pass. The neurons write both on their way (``Events``), and the
layer that hears them reads these instead of the train. Where too much happens for that to pay, it takes the dense
product, each of the three by itself.

The gradient of the train is formed where one is wanted, and is zero elsewhere. So it is not the train that receives it,
of which somebody might ask the gradient, but ``Events.wanted``, which stands beside it. Where the train itself is asked
to keep its gradient, or has a hook for it, that is formed as a whole.

Sums are taken in an order that does not depend on the number of threads.
"""

import weakref
from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
import torch
from numba.cpython.unsafe.numbers import trailing_zeros
from torch import Tensor, nn
from torch.nn.functional import linear

from lib.fast.cpu import STEPS, by_example, compiled
from lib.fast.threads import over_examples, over_shares
from lib.fast.vectors import add_rows, products, wide

# An event costs some hundreds of multiplications beside those of its row, and these are packed less densely than in a
# matrix product. Up to a share of most * n / (n + ASIDE) of events the three products pay for rows of n units: so
# measured for rows of 128 to 1,024.
FORWARD, BY_WEIGHT, BY_TRAIN, ASIDE = 0.33, 0.33, 0.46, 320
# Of each byte the numbers of its bits that are set, and how many these are.
PLACES = np.array([([n for n in range(8) if byte >> n & 1] + 8 * [0])[:8] for byte in range(256)], np.uint32)
NUMBERS = np.array([byte.bit_count() for byte in range(256)], np.uint32)
of_one, of_two, of_three, of_four = map(products, (1, 2, 3, 4))


@dataclass
class Events:
    """What happened in a train of [time, batch, units], whose spikes are ``gain`` each."""

    fired: Tensor  # words [batch, words, units]
    wanting: Tensor  # the same, of gradients, or none where none go back
    gain: float
    wanted: Tensor | None = None  # of the train's shape, but no memory
    spiking: float = 1.0  # shares of all places
    opened: float = 1.0
    version: int = 0  # the train's when it was written: a train that is changed in place is another one

    @classmethod
    def of(cls, like: Tensor, gain: float, gradients: bool) -> "Events":
        """Room for what will happen in a train like that."""
        time, batch, units = like.shape
        fired = torch.empty(batch, -(-time // STEPS), units, dtype=torch.uint16)
        wanting = torch.empty_like(fired if gradients else fired[:0])
        return cls(fired, wanting, gain)

    def count(self, train: Tensor) -> Tensor | None:
        """Find how much there is of it, once it has been written. Returns what is to be ``wanted``, of no memory."""
        size = max(1, train.numel())
        self.spiking, self.opened = _bits(self.fired) / size, _bits(self.wanting) / size
        return train.new_empty(()).expand(train.shape) if len(self.wanting) else None


def _bits(words: Tensor) -> int:
    """How many are set; four words at a time, but for the last ones."""
    flat = words.numpy().reshape(-1)
    parts = flat[: len(flat) // 4 * 4].view(np.uint64), flat[len(flat) // 4 * 4 :]
    return sum(int(np.bitwise_count(part).sum(dtype=np.int64)) for part in parts)


def weighed(linear_map: nn.Module, train: Tensor) -> Tensor:
    """What the map makes of a train: by its events where they are known and the map is no other than it seems."""
    simple = type(linear_map) is nn.Linear and not (linear_map._forward_hooks or linear_map._forward_pre_hooks)
    if not simple or train.device.type != "cpu":
        return linear_map(train)
    events, kind = getattr(train, "events", None), linear_map.weight.dtype
    if events is None or events.version != train._version or train.dtype != kind or torch.is_autocast_enabled("cpu"):
        return linear_map(train.transpose(0, 1)).transpose(0, 1)
    return _Product.apply(train, events.wanted, linear_map.weight, linear_map.bias, events)


def pays(share: float, most: float, units: int) -> bool:
    """Whether so small a share of events is worth its own way, for rows of so many units."""
    return share * (units + ASIDE) <= most * units


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, train, wanted, weight, bias, events):
        ctx.save_for_backward(train, weight)
        ctx.events, ctx.train = events, weakref.ref(train)
        if not pays(events.spiking, FORWARD, len(weight)):
            return linear(by_example(train), weight, bias).transpose(0, 1)
        weighted = train.new_empty(train.shape[1], train.shape[0], len(weight))
        over_examples(_weigh, weighted, events.fired, (events.gain * weight).T.contiguous())
        return (weighted if bias is None else weighted.add_(bias)).transpose(0, 1)

    @staticmethod
    def backward(ctx, grad):
        events, train, (spikes, weight) = ctx.events, ctx.train(), ctx.saved_tensors
        grad, by_train, by_wanted, by_weight, by_bias = by_example(grad), *[None] * 4
        looked_at = train is not None and (train.retains_grad or train._backward_hooks)
        if ctx.needs_input_grad[1] and not looked_at and pays(events.opened, BY_TRAIN, len(weight)):
            by_examples = grad.new_empty(*grad.shape[:2], weight.shape[1])
            over_examples(_by_train, grad, events.wanting, weight.T.contiguous(), by_examples)
            by_wanted = by_examples.transpose(0, 1)
        elif ctx.needs_input_grad[0]:
            by_train = (grad @ weight).transpose(0, 1)
        if ctx.needs_input_grad[2] and pays(events.spiking, BY_WEIGHT, len(weight)):
            by_inputs = grad.new_empty(weight.shape[1], len(weight))
            over_shares(_by_weight, len(by_inputs), grad.numel(), events.fired, grad, events.gain, by_inputs)
            by_weight = by_inputs.T
        elif ctx.needs_input_grad[2]:
            by_weight = grad.flatten(0, 1).T @ by_example(spikes).flatten(0, 1)
        if ctx.needs_input_grad[3]:
            by_bias = grad.sum(dim=(0, 1))
        return by_train, by_wanted, by_weight, by_bias, None


@numba.njit(inline="always")
@no_type_check
def _listed(word, first, places):
    """Write the numbers of a word's bits, ``first`` for its lowest, to the front of ``places``; return how many.

    Without a branch that a processor could guess wrong: some of what lies behind is written over, too.
    """
    low, high = word & np.uint16(255), word >> np.uint16(8)
    number = NUMBERS[low]
    for n in range(8):
        places[n] = first + PLACES[low, n]
    for n in range(8):
        places[number + n] = first + np.uint32(8) + PLACES[high, n]
    return np.int64(number + NUMBERS[high])


@compiled
@no_type_check
def _weigh(weighted, fired, outgoing, first, last):
    """For each row the sum of the weights that leave what fired."""
    wide()
    time, inputs = weighted.shape[1], fired.shape[2]
    result = weighted.reshape(-1, weighted.shape[2])
    places, ends = np.empty(STEPS * inputs, np.uint32), np.empty(STEPS, np.uint64)
    for b in range(first, last):
        for word in range(fired.shape[1]):
            for step in range(STEPS):
                ends[step] = step * inputs
            for n in range(inputs):
                bits = np.uint32(fired[b, word, n])
                while bits != 0:
                    step = np.uint32(trailing_zeros(bits))
                    places[ends[step]] = n
                    ends[step] += np.uint64(1)
                    bits &= np.uint32(bits - np.uint32(1))
            for step in range(min(STEPS, time - STEPS * word)):
                row = b * time + STEPS * word + step
                for n in range(result.shape[1]):
                    result[row, n] = 0
                add_rows(outgoing, places, step * inputs, ends[step], result, row)


@compiled
@no_type_check
def _by_weight(fired, grad, gain, result, first, last):
    """For each input the sum of the gradients of the steps in which it fired."""
    wide()
    time, gain = grad.shape[1], grad.dtype.type(gain)
    result[first:last] = 0
    rows, places = grad.reshape(-1, grad.shape[2]), np.empty(STEPS * (fired.shape[1] + 1), np.uint32)
    for b in range(fired.shape[0]):
        for n in range(first, last):
            number = 0
            for word in range(fired.shape[1]):
                number += _listed(fired[b, word, n], np.uint32(b * time + STEPS * word), places[number:])
            add_rows(rows, places, 0, number, result, n)
    result[first:last] *= gain


@compiled
@no_type_check
def _by_train(grad, wanting, outgoing, result, first, last):
    """At each place that wants it the product of what arrives behind and the weights that lead there."""
    wide()
    time, rows, at = grad.shape[1], grad.reshape(-1, grad.shape[2]), np.empty(2 * STEPS, np.uint32)
    to = result.reshape(-1, result.shape[2])
    for b in range(first, last):
        for word in range(wanting.shape[1]):
            begin = np.uint32(b * time + STEPS * word)
            for row in range(begin, begin + min(STEPS, time - STEPS * word)):
                for n in range(wanting.shape[2]):
                    to[row, n] = 0
            for n in range(wanting.shape[2]):
                number = _listed(wanting[b, word, n], begin, at)
                for done in range(0, number - 3, 4):
                    one, two, three, four = of_four(outgoing, n, rows, at, done)
                    to[at[done], n], to[at[done + 1], n], to[at[done + 2], n], to[at[done + 3], n] = (
                        one,
                        two,
                        three,
                        four,
                    )
                done = number & ~3
                if number - done == 3:
                    to[at[done], n], to[at[done + 1], n], to[at[done + 2], n] = of_three(outgoing, n, rows, at, done)
                elif number - done == 2:
                    to[at[done], n], to[at[done + 1], n] = of_two(outgoing, n, rows, at, done)
                elif number - done == 1:
                    to[at[done], n] = of_one(outgoing, n, rows, at, done)[0]
