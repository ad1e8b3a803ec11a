"""Why averaging smooths: what is left of a staircase in an average, and where the staircase's steps come from.

A curve's second difference over a distance h is ``L(a + h) - 2 L(a) + L(a - h)``, and ``D(h)`` its mean square along
the line. The laws take and give arrays; what they are compared with is measured in ``study.measures.smoothing``.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.optimize import least_squares
from scipy.special import erfc, erfcx
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lib import posteriors, slices
from lib.network import SpikingLayer, lif_potential, over_time
from lib.neurons.adlif import RANGES, AdLIFLayer, adlif_step
from lib.neurons.rlif import RLIFLayer, rlif_step
from lib.posteriors import State
from lib.slices import Alphas, Batches

THRESHOLD = 1.0
# Potentials so close to the threshold tell their density there; moved so little, hardly a spike changes.
NEAR, MOVED = 0.02, 1e-7
# A spike is brought about, or away, by moving the potential this much further than to the threshold.
BEYOND = 1.001
TOGETHER = 256  # utterances that are driven at once
ROUNDING = 1e-13  # nats: a lower step is none


# Averages of draws


class Moments(NamedTuple):
    """Mean squares of second differences: of one draw, and of the average of infinitely many."""

    first: float
    infinite: float


def moments(differences: Float[np.ndarray, "draws places"]) -> Moments:
    """Both without bias: the second is the mean product of two different draws."""
    draws = len(differences)
    squares = np.square(differences).sum(axis=0)
    products = np.square(differences.sum(axis=0)) - squares
    return Moments(float(squares.mean() / draws), float(products.mean() / (draws * (draws - 1))))


def averaged(found: Moments, draws: float) -> float:
    """D of the average over so many draws, the same at each point: what they do not share falls with their number."""
    return found.infinite + (found.first - found.infinite) / draws


def freshly_averaged(infinite: float, variance: float, draws: float) -> float:
    """D of the average over draws that are others at each point: the noise of three points, weighted 1, -2 and 1."""
    return infinite + 6 * variance / draws


def effective_share(
    probabilities: Float[np.ndarray, "draws places utterances"],
    differences: Float[np.ndarray, "draws places utterances"],
) -> float:
    """How many draws each counts for, where probabilities are averaged and not losses.

    The second difference of ``-log mean p`` is ``sum w l`` of the draws' own, l, to first order, with the weights
    ``w = p / sum p``. In place of the mean of ``l^2`` over S its variance has the mean of ``sum w^2 l^2``.
    """
    weights = probabilities / probabilities.sum(axis=0)
    squares = np.square(differences)
    return float(squares.mean(axis=0).sum() / np.square(weights * differences).sum(axis=0).sum()) / len(weights)


# Averages of infinitely many


class Staircase(NamedTuple):
    """A loss's steps, in nats squared and units of distance, on a bowl of some curvature (nats per unit squared).

    The variance between far points is twice ``variance``, and ``length`` the distance over which steps add up.
    """

    variance: float
    length: float
    curvature: float


def structure(
    h: float | Float[np.ndarray, "..."], stairs: Staircase, reach: float = 0.0
) -> float | Float[np.ndarray, "..."]:
    """D of the loss averaged over noise of length ``reach`` in many coordinates.

    Losses a distance r apart differ by ``2 g(r)`` in the mean square, ``g = variance (1 - exp(-r / length))``. Two
    draws of the noise lie ``sqrt(2) reach`` apart, nearly at right angles to the line: so averages whose means are h
    apart have the covariance of losses ``sqrt(h^2 + 2 reach^2)`` apart. The bowl is averaged to itself.
    """
    return _structure(h, stairs, lambda distance: np.exp(-np.sqrt(distance**2 + 2 * reach**2) / stairs.length))


def structure_along(
    h: float | Float[np.ndarray, "..."], stairs: Staircase, reach: float
) -> float | Float[np.ndarray, "..."]:
    """D of the loss averaged over Gaussian noise of this standard deviation along the line itself.

    Averages whose means are h apart have the mean covariance of losses ``|h + deviation z|`` apart, z a normal number.
    """
    deviation = max(np.sqrt(2) * reach, 1e-12)

    def correlation(distance):
        return (side(distance) + side(-np.asarray(distance))) / 2

    def side(distance):
        """``exp(-x / length)`` on the side of x > 0, twice its mean; the second form where the first overflows."""
        far, ahead = deviation / stairs.length, distance / deviation
        start = (far - ahead) / np.sqrt(2)
        near = erfcx(np.maximum(start, 0)) * np.exp(-(ahead**2) / 2)
        return np.where(start > 0, near, np.exp(np.minimum(far**2 / 2 - far * ahead, 0)) * erfc(start))

    return _structure(h, stairs, correlation)


def _structure(h, stairs: Staircase, correlation: Callable):
    varied = 6 * correlation(0 * h) - 8 * correlation(h) + 2 * correlation(2 * h)
    return stairs.variance * varied + stairs.curvature**2 * h**4


def fitted(h: Alphas, squares: Float[np.ndarray, " steps"]) -> Staircase:
    """The staircase on a bowl whose D is nearest to these, by the squares of logarithms' differences."""
    h = np.asarray(h, dtype=float)

    def off(logarithms: np.ndarray) -> np.ndarray:
        return np.log(structure(h, Staircase(*np.exp(logarithms))) / squares)

    begins = [[np.log(squares.max() / 6), np.log(length), np.log(squares[-1] / h[-1] ** 4) / 2] for length in h]
    return Staircase(*np.exp(min((least_squares(off, begin) for begin in begins), key=lambda found: found.cost).x))


# Losses along lines, one by one


@torch.no_grad()
def true_probabilities(
    network: nn.Module, states: Sequence[State], direction: State, alphas: Alphas, batches: Batches
) -> Float[np.ndarray, "states alphas utterances"]:
    """The probability of each utterance's own class along lines in a direction, one through each state."""
    features = list(posteriors.batches_for(network, torch.cat([features for features, _ in batches])))
    labels = torch.cat([labels for _, labels in batches])
    found = []
    with posteriors.evaluating(network):
        for state in states:
            probabilities = slices.logits_along(network, state, direction, alphas, features).double().softmax(dim=-1)
            found.append(probabilities[:, torch.arange(len(labels)), labels.long()].cpu().numpy())
    return np.stack(found)


# Steps along a line (Kac-Rice)


class Crossings(NamedTuple):
    """Of a layer's potentials along a line: how many cross the threshold in a unit of distance, and of what it is made.

    ``density`` is that of a potential at the threshold, ``speed`` the mean of its absolute derivative there; their
    product times ``potentials`` is ``number``.
    """

    number: float
    density: float
    speed: float
    potentials: int


class Steps(NamedTuple):
    """What crossings do to the loss: which share of them is seen, and the mean square of their heights (nats)."""

    share: float
    square: float


def potentials(layer: SpikingLayer, current: Float[Tensor, "time batch units"]) -> Float[Tensor, "time batch units"]:
    """The membrane potentials of a layer's neurons before each reset; ``ValueError`` for neurons without threshold."""
    if type(layer) is SpikingLayer:
        return lif_potential(current, layer.leak)
    if type(layer) is AdLIFLayer:
        step = adlif_step(layer.leak, *(layer.held(name) for name in RANGES), THRESHOLD)
        return over_time(step, current, memories=1)[1]
    if type(layer) is RLIFLayer:
        return over_time(rlif_step(layer.leak, layer.recurrent, THRESHOLD), current)[1]
    raise ValueError(f"crossings are counted for LIF, adLIF and RLIF neurons, not for {type(layer).__name__}")


class Sample(NamedTuple):
    """Potentials at the threshold, as often as they cross it: at which step, of which utterance and unit, how far."""

    places: Int64[Tensor, "sampled 3"]
    above: Float[Tensor, " sampled"]


@torch.no_grad()
def crossings(
    network: nn.Module, state: State, direction: State, features: Float[Tensor, "batch time features"], sampled: int,
    generator: torch.Generator,
) -> list[tuple[Crossings, Sample]]:  # fmt: skip
    """Of each layer the crossings along a direction, counted at one point of it, and a sample of them.

    The zeros of a moving quantity in a unit of distance are its density at zero times its mean absolute speed there
    (Rice 1944). Between crossings no spike moves: the speed is a difference quotient over so short a distance that
    hardly one does, and utterances in which one does are left out. Network, state and features are in double precision.
    Raises ``ValueError`` where none is left, as of adLIF neurons, whose potentials run away.
    """
    here, there = (driven(at(network, point), features) for point in (state, slices.moved(state, direction, MOVED)))
    found = []
    for now, then in zip(here, there, strict=True):
        same = (now.spikes == then.spikes).all(dim=2).all(dim=0)
        potential = potentials(now.layer, now.current)
        above = potential - THRESHOLD
        speed = (potentials(then.layer, then.current) - potential).abs() / MOVED
        near = (above.abs() < NEAR) & same[:, None]
        if not near.any():
            raise ValueError(f"over {MOVED:g} every utterance has a spike that moves: no crossing can be counted")
        weights = (speed * near).flatten()
        density = float(near.sum() / (same.sum() * above[:, 0].numel())) / (2 * NEAR)
        mean = float(weights.sum() / near.sum())
        chosen = torch.multinomial(weights, sampled, replacement=True, generator=generator)
        sample = Sample(torch.stack(torch.unravel_index(chosen, above.shape), dim=1), above.flatten()[chosen])
        found.append((Crossings(density * mean * above.numel(), density, mean, above.numel()), sample))
    return found


@torch.no_grad()
def steps(
    network: nn.Module, state: State, depth: int, sample: Sample, features: Float[Tensor, "batch time features"],
    labels: Int64[Tensor, " batch"],
) -> Steps:  # fmt: skip
    """What the sampled crossings of the layer at this depth do to the mean loss of these utterances.

    Each is made to happen, by a kick of the current that carries the potential across the threshold; what follows from
    the spike that appears or vanishes, in its own layer and behind it, is computed and not estimated.
    """
    placed = at(network, state)
    before = cross_entropy(placed(features), labels.long(), reduction="none")
    layer, heights = placed.layers[depth], []
    for places, above in zip(sample.places.split(TOGETHER), sample.above.split(TOGETHER), strict=True):
        step, utterance, unit = places.T
        current = driven(placed, features[utterance])[depth].current
        gain = 1 - layer.leak[unit]
        current[step, torch.arange(len(unit)), unit] -= BEYOND * above / gain
        train = layer.spikes(current)
        for later in placed.layers[depth + 1 :]:
            train = later(train)
        after = cross_entropy(placed.classify(train), labels[utterance].long(), reduction="none")
        heights.append(after - before[utterance])
    heights = torch.cat(heights) / len(labels)
    return Steps(float((heights.abs() > ROUNDING).double().mean()), float(heights.square().mean()))


class Driven(NamedTuple):
    """A layer in use: its neurons' input current and spikes."""

    layer: SpikingLayer
    current: Float[Tensor, "time batch units"]
    spikes: Float[Tensor, "time batch units"]


def at(network: nn.Module, state: State) -> nn.Module:
    """A copy of the network in this state, in evaluation mode."""
    placed = deepcopy(network).eval()
    placed.load_state_dict(state, strict=False)  # which lacks batch norm's counters
    return placed


def driven(network: nn.Module, features: Float[Tensor, "batch time features"]) -> list[Driven]:
    found, train = [], features.transpose(0, 1)
    for layer in network.layers:
        current = layer.normalised(layer.linear(train))
        train = layer.spikes(current)
        found.append(Driven(layer, current, train))
    return found
