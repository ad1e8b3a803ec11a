"""Slopes and steps of a run's loss: the surrogate gradient's and the average's, curvature, and crossings."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lib import landscape, posteriors, slices, theory
from lib.features import Frames
from lib.neurons.qif import QIFLayer
from lib.posteriors import State
from lib.runs import Run
from lib.study.measures.common import Place, balanced, direction_in, seeded, test_utterances
from lib.study.measures.smoothing import mean_losses, noisy_states

BESIDE = 3  # from the middle of the noise to where its average's slope is taken, the noise's length over this


def surrogate(
    run: Run, frames: Frames, place: Place, *, examples: int, few: int, directions: int, lengths: list[float],
    samples: int,
) -> pd.DataFrame:  # fmt: skip
    """The boxcar's directional derivatives beside the averaged loss's, over isotropic noise of several lengths.

    In each ``part`` the directions are surrogate gradients of ``few`` utterances each, brought to unit norm. ``slope``
    is the averaged loss's derivative that goes with one unit of the surrogate's, by least squares through 0, and
    ``correlation`` theirs; ``reliability`` is the correlation of two halves of the draws, which bounds it.
    """
    network, mean, chosen = run.network(frames), run.posterior.mean, test_utterances(frames, examples)
    batch = chosen.features, chosen.labels
    parts = {f"layer {n + 1}": f"layers.{n}." for n in range(len(network.layers))} | {"hidden": "layers.", "all": ""}
    whole, rows = _gradient(network, mean, *batch), []
    for part, prefix in parts.items():
        generator, pairs = seeded(0), []
        for _ in range(directions):
            some = torch.randperm(len(batch[1]), generator=generator)[:few]
            gradient = _gradient(network, mean, batch[0][some], batch[1][some])
            own = {name: tensor for name, tensor in gradient.items() if name.startswith(prefix)}
            norm = landscape.weight_norm(own, own)
            direction = {name: tensor / norm for name, tensor in own.items()}
            pairs.append((direction, sum(float((whole[name] * tensor).sum()) for name, tensor in direction.items())))
        for length in lengths:
            states = noisy_states(run, "isotropic", length, samples, dict(network.named_parameters()))
            h, slopes = length / BESIDE, []
            for direction, _ in pairs:
                losses = mean_losses(theory.true_probabilities(network, states, direction, [-h, h], [batch]))
                slopes.append(np.diff(losses, axis=1)[:, 0] / (2 * h))
            finite, boxcar = np.array(slopes), np.array([slope for _, slope in pairs])
            halves = [finite[:, first::2].mean(axis=1) for first in range(2)]
            averaged = finite.mean(axis=1)
            rows.append({
                "part": part, "length": length, "correlation": np.corrcoef(boxcar, averaged)[0, 1],
                "slope": (boxcar * averaged).sum() / (boxcar**2).sum(),
                "reliability": np.corrcoef(*halves)[0, 1],
            })  # fmt: skip
    return pd.DataFrame(rows).set_index(["part", "length"])


def curvature(
    run: Run, frames: Frames, place: Place, *, examples: int, samples: int, batch_size: int, lines: int
) -> pd.DataFrame:
    """IVON's estimate of the curvature from one draw, noise times gradient over variance, by groups of parameters.

    ``mean`` is over draws and parameters, ``deviation`` that of one parameter's estimate from one draw to the next;
    ``draws`` the number after which a parameter's mean stands out of it. Beside them, for "all", the ``true`` mean
    curvature of the averaged loss, the mean of random lines' through its middle: of as many draws' second differences
    over the noise's length, below which the average is smooth.
    """
    network, posterior, train = run.network(frames), run.posterior, frames.part("train")
    generator, found = seeded(0), {}
    for _ in range(samples):
        few = torch.randperm(len(train.labels), generator=generator)[:batch_size]
        state = posterior.sample(generator)
        for name, gradient in _gradient(network, state, train.features[few], train.labels[few]).items():
            own = gradient * (state[name] - posterior.mean[name]) / posterior.std[name] ** 2
            first, second = found.get(name, (0, 0))
            found[name] = first + own.double(), second + own.double() ** 2
    groups = {"all": list(found)} | landscape.parameter_groups(network)
    rows = []
    for group, names in groups.items():
        means = torch.cat([found[name][0].flatten() for name in names]) / samples
        squares = torch.cat([found[name][1].flatten() for name in names]) / samples
        mean, deviation = float(means.mean()), float((squares - means**2).mean().clamp(min=0).sqrt())
        rows.append({
            "group": group, "mean": mean, "error": float(means.std() / len(means) ** 0.5), "deviation": deviation,
            "draws": (deviation / mean) ** 2,
        })  # fmt: skip
    places = balanced(train.labels.numpy(), train.speakers, examples)
    batches = [(train.features[places], train.labels[places])]
    reach, seconds = landscape.weight_norm(posterior.std, posterior.std), []
    for number in range(lines):
        direction, state = direction_in(network, posterior.mean, "all", number), posterior.sample(generator)
        losses = mean_losses(theory.true_probabilities(network, [state], direction, reach * np.arange(-1, 2), batches))
        seconds.append(float(np.diff(losses[0], n=2)[0]) / reach**2)
    rows[0] |= {"true": np.mean(seconds), "true_error": np.std(seconds, ddof=1) / lines**0.5}
    return pd.DataFrame(rows).set_index("group")


def crossings(
    run: Run, frames: Frames, place: Place, *, examples: int, lines: int, places: int, radius: float, points: int,
    sampled: int, apart: float,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """Steps of the loss along lines in the hidden layers: predicted from one batch at the mean, and counted.

    Counted are those along ``lines`` lines at random places, at points so close that a step lies between two of them
    with the probability ``apart``. ``rate`` is in steps a unit of distance, ``intensity`` that times their mean square.
    ``crossings_layers`` has the predicted rate's factors. QIF neurons have no threshold, and no crossings.
    """
    network, chosen = run.network(frames, "cpu").double(), test_utterances(frames, examples)
    state = {name: tensor.double() for name, tensor in run.posterior.mean.items()}
    features, labels = chosen.features.double(), chosen.labels
    if any(isinstance(layer, QIFLayer) for layer in network.layers):
        none = {"predicted_rate": 0.0, "predicted_intensity": 0.0}
        return {"crossings": pd.DataFrame([none]), "crossings_layers": pd.DataFrame(index=pd.Index([], name="layer"))}
    layers, totals, squares, seen, passed = [], np.zeros(2), [], 0, 0.0
    for number in range(lines):
        direction = direction_in(network, state, "hidden", number)
        for depth, (found, sample) in enumerate(
            theory.crossings(network, state, direction, features, sampled, seeded(number))
        ):
            share, square = theory.steps(network, state, depth, sample, features, labels)
            totals += np.array([found.number * share, found.number * square]) / lines
            layers.append({"layer": depth + 1} | found._asdict() | {"share": share, "square": square})
    for number in range(lines):
        direction = direction_in(network, state, "hidden", number)
        gap = apart / totals[0]
        for start in np.random.default_rng(number).uniform(-radius, radius, places):
            alphas = start + gap * np.arange(points + 1)
            heights = np.diff(slices.deterministic_loss(network, state, direction, alphas, [(features, labels)]))
            level = np.sum(np.abs(heights) <= theory.ROUNDING)
            # Several steps between two points look like one; of Poisson's, so many intervals have none.
            seen += points * np.log(points / max(level, 0.5))
            passed += gap * points
            squares.append(np.square(heights).sum() / (gap * points))
    table = {
        "predicted_rate": totals[0], "rate": seen / passed, "rate_error": seen**0.5 / passed,
        "predicted_intensity": totals[1], "intensity": np.mean(squares),
        "intensity_error": np.std(squares, ddof=1) / len(squares) ** 0.5,
    }  # fmt: skip
    of_layers = pd.DataFrame(layers).groupby("layer").mean()
    return {"crossings": pd.DataFrame([table]), "crossings_layers": of_layers}


def _gradient(network: nn.Module, state: State, features: Tensor, labels: Tensor) -> State:
    """The surrogate gradient of the mean loss, in evaluation mode."""
    leaves = {name: state[name].detach().requires_grad_() for name, _ in network.named_parameters()}
    with torch.enable_grad(), posteriors.evaluating(network):
        loss = cross_entropy(torch.func.functional_call(network, state | leaves, features), labels.long())
        gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    return dict(zip(leaves, gradients, strict=True))
