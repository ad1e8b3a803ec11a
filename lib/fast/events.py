"""What networks of LIF neurons on the CPU answer, spike by spike: predictions, and losses along a line.

No train is written out: an utterance goes through all layers while what it makes there is in the cache. A unit's
outgoing weights are added where it spikes, in a trained network at one step out of fifty or so, where a product would
multiply zeros. Along a line only alpha changes, and what the features weigh in the first layer is linear in it,
``x (W + alpha D)^T = x W^T + alpha x D^T``: two products for the whole line. Sums are taken in another order than a
product takes them, so a potential within rounding of its threshold may fall on its other side.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, no_type_check

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lib.fast.cpu import compiled
from lib.fast.sparse import FORWARD, pays
from lib.fast.threads import over_shares
from lib.fast.vectors import add_rows, wide

State = Mapping[str, Tensor]

# Few enough for the first layer's two products to stay in the cache while alpha goes along the line.
UTTERANCES_TOGETHER = 32
# So many that little is computed again for the next ones, few enough for their weights to fit in memory.
ALPHAS_TOGETHER = 128
# Spikes, a byte each, that are looked at together, as a word.
EIGHT = 8


class Layer(NamedTuple):
    """A hidden layer at each alpha: ``weighted * factor + offset + leak * rest`` is the potential before a reset.

    ``factor`` and ``offset`` are batch norm's in evaluation mode, times what the leak leaves of the current.
    """

    outgoing: Float[np.ndarray, "alphas inputs units"]
    factor: Float[np.ndarray, "alphas units"]
    offset: Float[np.ndarray, "alphas units"]
    leak: Float[np.ndarray, "alphas units"]


def serves_lines(network: nn.Module) -> bool:
    """Is this a network of LIF neurons with batch norm and a readout of rates, on the CPU, its layers without hooks?"""
    return (
        vars(type(network)).get("kernel") == "rates"
        and next(network.parameters()).device.type == "cpu"
        and next(network.parameters()).dtype in (torch.float32, torch.float64)
        and all(
            vars(type(layer)).get("kernel") == "lif"
            and isinstance(layer.norm, nn.BatchNorm1d)
            and not (layer._forward_hooks or layer._forward_pre_hooks)  # which would not be called
            and type(layer.linear) is nn.Linear
            and not (layer.linear._forward_hooks or layer.linear._forward_pre_hooks)
            for layer in network.layers
        )
    )


def logits_along(
    network: nn.Module,
    state: State,
    direction: Mapping[str, Tensor],
    alphas: Collection[float],
    features: Sequence[Float[Tensor, "_ time features"]],
) -> Float[Tensor, "alphas utterances classes"]:
    """Logits at ``state + alpha * direction``, in evaluation mode."""
    many = np.split(np.asarray(alphas, dtype=float), range(ALPHAS_TOGETHER, len(alphas), ALPHAS_TOGETHER))
    return torch.cat([_logits_at(network, state, direction, few, features) for few in many])


def _logits_at(
    network: nn.Module,
    state: State,
    direction: Mapping[str, Tensor],
    alphas: Float[np.ndarray, " alphas"],
    features: Sequence[Float[Tensor, "_ time features"]],
) -> Float[Tensor, "alphas utterances classes"]:
    points = [_moved(state, direction, alpha) for alpha in alphas.tolist()]
    depth, still = len(network.layers), not any(name.startswith("layers.") for name in direction)
    heard = 1 if still else len(points)  # once where only the readout moves
    layers = tuple(_layer(network, points[:heard], index) for index in range(depth))
    weight = "layers.0.linear.weight"
    heard_by = state[weight], direction.get(weight, torch.zeros_like(state[weight]))
    counts = []
    for part in (part for batch in features for part in batch.split(UTTERANCES_TOGETHER)):
        inputs = part.contiguous()
        fixed, moving = ((inputs @ each.T).numpy() for each in heard_by)
        counts.append(_counted(fixed, moving, alphas[:heard].astype(fixed.dtype), layers)[0])
    rates = torch.from_numpy(np.concatenate(counts, axis=1)) / features[0].shape[1]
    return _read(network, points, rates)


def rates(network: nn.Module, features: Float[Tensor, "batch time features"]) -> Float[Tensor, "batch units"] | None:
    """Spikes a step of the last layer's units; None for a network that is not served, trains, or spikes too often."""
    if torch.is_grad_enabled() or any(module.training for module in network.modules()) or not serves_lines(network):
        return None
    state = dict(network.named_parameters()) | dict(network.named_buffers())
    weight, time = state["layers.0.linear.weight"], features.shape[1]
    if features.dtype != weight.dtype or features.numel() == 0 or torch.is_autocast_enabled("cpu"):
        return None
    layers = tuple(_layer(network, [state], index) for index in range(len(network.layers)))
    hidden, counts = sum(layer.leak.shape[1] for layer in layers[:-1]), []
    # The first utterance shows whether the others, too, are worth it.
    for part in (features[:1], *features[1:].split(UTTERANCES_TOGETHER)):
        weighted = (part.contiguous() @ weight.T).numpy()
        counted, spikes = _counted(weighted, weighted, np.zeros(1, weighted.dtype), layers)
        if not counts and hidden and not pays(spikes / (time * hidden), FORWARD, layers[-1].leak.shape[1]):
            return None
        counts.append(counted[0])
    return torch.from_numpy(np.concatenate(counts)) / time


def _counted(
    fixed: Float[np.ndarray, "utterances time units"], moving: Float[np.ndarray, "utterances time units"],
    alphas: Float[np.ndarray, " alphas"], layers: tuple[Layer, ...],
) -> tuple[Float[np.ndarray, "alphas utterances outputs"], int]:  # fmt: skip
    """Spikes of the last layer's units, and of all the others together."""
    counts = np.empty((len(alphas), len(fixed), layers[-1].leak.shape[1]), fixed.dtype)
    before = np.zeros(len(fixed), np.int64)
    over_shares(_count, len(fixed), len(alphas) * fixed.size, fixed, moving, alphas, layers, counts, before)
    return counts, int(before.sum())


def _moved(state: State, direction: Mapping[str, Tensor], distance: float) -> State:
    return {
        name: tensor + distance * direction[name] if name in direction else tensor for name, tensor in state.items()
    }


def _layer(network: nn.Module, points: Sequence[State], index: int) -> Layer:
    prefix, at_points = f"layers.{index}.", []
    for point in points:
        factor, offset = _of_norm(point, f"{prefix}norm.", network.layers[index].norm.eps)
        offset = offset + point.get(f"{prefix}linear.bias", 0.0) * factor
        leak = network.layers[index].within("leak", point[f"{prefix}raw_leak"])
        at_points.append((point[f"{prefix}linear.weight"].T, (1 - leak) * factor, (1 - leak) * offset, leak))
    return Layer(*(torch.stack(tensors).numpy() for tensors in zip(*at_points, strict=True)))


def _read(
    network: nn.Module, points: Sequence[State], rates: Float[Tensor, "_ utterances units"]
) -> Float[Tensor, "alphas utterances classes"]:
    """Logits (equations 3 and 4): in evaluation mode the norm before it is a part of the readout's linear map."""
    weights, biases = [], []
    for point in points:
        factor, offset = _of_norm(point, "norm.", network.norm.eps)
        weights.append((point["readout.weight"] * factor).T)
        biases.append(point["readout.bias"] + point["readout.weight"] @ offset)
    return torch.baddbmm(torch.stack(biases)[:, None], rates.expand(len(points), -1, -1), torch.stack(weights))


def _of_norm(point: State, prefix: str, eps: float) -> tuple[Tensor, Tensor]:
    """Batch norm in evaluation mode is ``factor * x + offset``."""
    factor = point[f"{prefix}weight"] * torch.rsqrt(point[f"{prefix}running_var"] + eps)
    return factor, point[f"{prefix}bias"] - point[f"{prefix}running_mean"] * factor


@compiled
@no_type_check
def _count(fixed, moving, alphas, layers, counts, before, first, last):
    """Write into ``counts`` [alphas, batch, units] the last layer's spikes; add to ``before`` [batch] the others'."""
    wide()
    time = fixed.shape[1]
    padded = [layer.leak.shape[1] + -layer.leak.shape[1] % EIGHT for layer in layers]  # by silent ones
    spikes = np.empty((2, time * max(padded)), np.bool_)
    words, places = np.empty(spikes.shape[1] // EIGHT + 1, np.uint64), np.empty(spikes.shape[1] + 1, np.uint64)
    total = np.empty(counts.shape[2], np.int32)
    for a in range(len(alphas)):
        for b in range(first, last):
            train = spikes[0, : time * padded[0]].reshape(time, padded[0])
            _hear_products(fixed[b], moving[b], alphas[a], layers[0], a, train)
            for hidden in range(1, len(layers)):
                before[b] += _find(train.reshape(-1), words, places)
                train = spikes[hidden % 2, : time * padded[hidden]].reshape(time, padded[hidden])
                _hear_spikes(places, padded[hidden - 1], layers[hidden], a, train)
            total[:] = 0
            for t in range(time):
                fired = train[t]
                for n in range(len(total)):
                    total[n] += np.int32(fired[n])
            for n in range(len(total)):
                counts[a, b, n] = total[n]


@compiled
@no_type_check
def _hear_products(fixed, moving, alpha, layer, a, spikes):
    """The spikes [time, units] of the first layer, at the alpha of index ``a``."""
    wide()
    factor, offset, leak = layer.factor[a], layer.offset[a], layer.leak[a]
    rest = np.zeros_like(leak)
    spikes[:, len(leak) :] = False
    for t in range(len(spikes)):
        still, moved, fired = fixed[t], moving[t], spikes[t]
        for n in range(len(leak)):
            weighted = still[n] + alpha * moved[n]
            _fire(weighted * factor[n] + offset[n] + leak[n] * rest[n], n, rest, fired)


@compiled
@no_type_check
def _hear_spikes(places, inputs, layer, a, spikes):
    """The spikes [time, units] of a layer that hears those at ``places``, of ``inputs`` units."""
    wide()
    outgoing, factor, offset, leak = layer.outgoing[a], layer.factor[a], layer.offset[a], layer.leak[a]
    sums, rest, units = np.empty((1, len(leak)), leak.dtype), np.zeros_like(leak), np.empty(inputs, np.uint32)
    spikes[:, len(leak) :] = False
    event, weighted = np.uint64(0), sums[0]
    for t in range(len(spikes)):
        begin, end = np.uint64(t * inputs), np.uint64((t + 1) * inputs)
        weighted[:] = 0
        number = 0
        while places[event] < end:
            units[number] = places[event] - begin
            number += 1
            event += np.uint64(1)
        add_rows(outgoing, units, 0, number, sums, 0)
        fired = spikes[t]
        for n in range(len(leak)):
            _fire(weighted[n] * factor[n] + offset[n] + leak[n] * rest[n], n, rest, fired)


@numba.njit(inline="always")
@no_type_check
def _fire(u, n, rest, fired):
    """A step of unit ``n``; ``rest`` is what the last reset has left of the potentials."""
    spike = u > rest.dtype.type(1)
    rest[n] = u - rest.dtype.type(spike)
    fired[n] = spike


@compiled
@no_type_check
def _find(train, words, places):
    """Write down the places of the spikes in ``train``, and behind them its end. Returns how many there are.

    Without a branch that a processor could guess wrong; unsigned numbers spare the test for negative ones.
    """
    some, number = np.uint64(0), np.uint64(0)
    eights = train.view(np.uint64)
    for eight in range(len(eights)):
        words[some] = EIGHT * eight  # of which the next word's stays, unless it is silent
        some += np.uint64(eights[eight] != 0)
    for word in range(some):
        for n in range(EIGHT):
            place = words[word] + np.uint64(n)
            places[number] = place
            number += np.uint64(train[place])
    places[number] = len(train)
    return np.int64(number)
