"""The same losses along a line for networks of LIF neurons on the CPU, spike by spike: several times as fast.

Along a line only alpha changes. What the features weigh in the first layer is linear in it, ``x (W + alpha D)^T =
x W^T + alpha x D^T``: two products for the whole line. Behind it a unit's outgoing weights are added where it spikes,
in a trained network at one step out of fifty or so, where a product would multiply zeros. Sums are taken in another
order than a product takes them, so a potential within rounding of its threshold may fall on its other side.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, no_type_check

import numba
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lib import neurons, posteriors
from lib.fused.cpu import compiled, over_shares
from lib.networks import SpikingClassifier, unmoved_layers
from lib.networks.spiking import SpikingLayer
from lib.posteriors import State
from lib.slices.directions import moved

# Few enough for the first layer's two products to stay in the cache while alpha goes along the line.
UTTERANCES_TOGETHER = 64
# Spikes, a byte each, that are looked at together, as a word.
EIGHT = 8


class Layer(NamedTuple):
    """A hidden layer at one point of the line: ``factor`` and ``offset`` are batch norm's in evaluation mode."""

    outgoing: Float[np.ndarray, "inputs units"]
    factor: Float[np.ndarray, " units"]
    offset: Float[np.ndarray, " units"]
    leak: Float[np.ndarray, " units"]


class Train(NamedTuple):
    """``spikes`` has as many silent units behind as make their number a multiple of eight."""

    spikes: Bool[np.ndarray, "batch time _"]
    counts: Float[np.ndarray, "batch units"]


def serve(network: nn.Module) -> bool:
    """Is this a network of LIF neurons with batch norm and a readout of rates, on the CPU, that nobody listens to?"""
    return (
        type(network) is SpikingClassifier
        and posteriors.device_of(network).type == "cpu"
        and network.reads_rates
        and network.directions == 1
        and all(
            type(layer) is SpikingLayer
            and not (layer.adaptive or layer.is_recurrent)
            and isinstance(layer.norm, nn.BatchNorm1d)
            and not layer._forward_hooks  # which would not be called
            for layer in network.layers
        )
    )


def logits_along(
    network: SpikingClassifier,
    state: State,
    direction: Mapping[str, Tensor],
    alphas: Collection[float],
    features: Sequence[Float[Tensor, "_ time features"]],
) -> Float[Tensor, "alphas utterances classes"]:
    """Logits at ``state + alpha * direction``, in evaluation mode."""
    points = [moved(state, direction, float(alpha)) for alpha in alphas]
    depth, still = len(network.layers), unmoved_layers(network, direction)
    fixed = [_layer(network, posteriors.on_device_of(network, state), index) for index in range(depth)]
    moving = [[_layer(network, point, index) for index in range(still, depth)] for point in points]
    readouts = {
        name: torch.stack([point[name] for point in points]) for name in state if not name.startswith("layers.")
    }

    def classified(readout: State, rates: Tensor) -> Tensor:
        """A train of one step, of which each unit's value is its rate, is read as the whole one is."""
        return functional_call(network, readout, rates[:, None], {"start": depth})

    weight = "layers.0.linear.weight"
    logits = []
    for batch in features:
        for part in batch.split(UTTERANCES_TOGETHER):
            inputs = part.contiguous()
            heard_by = state[weight], direction.get(weight, torch.zeros_like(state[weight]))
            products = [(inputs @ each.T).numpy() for each in heard_by]
            before = None
            for layer in fixed[:still]:
                before = _through(layer, before, products, 0.0)
            counts = []
            for alpha, layers in zip(alphas, moving, strict=True):
                train = before
                for layer in layers:
                    train = _through(layer, train, products, float(alpha))
                counts.append(train.counts)
            rates = torch.from_numpy(np.stack(counts)) / part.shape[1]
            logits.append(vmap(classified)(readouts, rates))
    return torch.cat(logits, dim=1)


def _layer(network: SpikingClassifier, point: State, index: int) -> Layer:
    prefix = f"layers.{index}."
    own = {name.removeprefix(prefix): tensor for name, tensor in point.items() if name.startswith(prefix)}
    factor = own["norm.weight"] * torch.rsqrt(own["norm.running_var"] + network.layers[index].norm.eps)
    offset = own["norm.bias"] + (own.get("linear.bias", 0.0) - own["norm.running_mean"]) * factor
    tensors = own["linear.weight"].T.contiguous(), factor, offset, own["leak"].clamp(*neurons.LEAK_RANGE)
    return Layer(*(tensor.numpy() for tensor in tensors))


def _through(layer: Layer, train: Train | None, products: Sequence[np.ndarray], alpha: float) -> Train:
    """The layer's spikes when it hears ``train``; without one it is the first, which hears the features' products."""
    outgoing, *rest = layer
    (batch, time, _), units = products[0].shape, len(layer.leak)
    spikes = np.empty((batch, time, units + -units % EIGHT), np.bool_)
    spikes[..., units:] = False
    counts = np.zeros((batch, units), layer.leak.dtype)
    if train is None:
        over_shares(_from_products, batch, spikes.size, *products, alpha, *rest, spikes, counts)
    else:
        heard = train.spikes, train.spikes.view(np.int64)
        over_shares(_from_spikes, batch, spikes.size, *heard, outgoing, *rest, spikes, counts)
    return Train(spikes, counts)


@numba.njit(inline="always")
@no_type_check
def _fire(weighted, factor, offset, leak, rest, fired, count):
    """A step of an utterance's units; ``rest`` is what the last reset has left of their potentials."""
    one, zero = weighted.dtype.type(1), weighted.dtype.type(0)
    for n in range(len(leak)):
        u = (one - leak[n]) * (weighted[n] * factor[n] + offset[n]) + leak[n] * rest[n]
        spike = one if u > one else zero
        rest[n] = u - spike
        count[n] += spike
        fired[n] = spike > zero


@compiled
@no_type_check
def _from_products(fixed, moving, alpha, factor, offset, leak, spikes, counts, first, last):
    _, time, units = fixed.shape
    alpha = fixed.dtype.type(alpha)
    weighted, rest = np.empty(units, fixed.dtype), np.empty(units, fixed.dtype)
    for b in range(first, last):
        rest[:] = 0
        for t in range(time):
            still, moved = fixed[b, t], moving[b, t]
            for n in range(units):
                weighted[n] = still[n] + alpha * moved[n]
            _fire(weighted, factor, offset, leak, rest, spikes[b, t], counts[b])


@compiled
@no_type_check
def _from_spikes(arriving, eights, outgoing, factor, offset, leak, spikes, counts, first, last):
    _, time, inputs = arriving.shape
    units = len(leak)
    weighted, rest = np.empty(units, outgoing.dtype), np.empty(units, outgoing.dtype)
    places = np.empty(inputs, np.int64)
    for b in range(first, last):
        rest[:] = 0
        for t in range(time):
            heard, number = arriving[b, t], 0
            for eight in range(inputs // EIGHT):
                if eights[b, t, eight]:  # most of them are silent
                    for n in range(EIGHT * eight, EIGHT * eight + EIGHT):
                        places[number] = n  # of which the next spike's stays
                        number += heard[n]
            weighted[:] = 0
            for source in places[:number]:
                weights = outgoing[source]
                for n in range(units):
                    weighted[n] += weights[n]
            _fire(weighted, factor, offset, leak, rest, spikes[b, t], counts[b])
