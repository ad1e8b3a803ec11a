"""What averaging leaves of a run's loss, and where its steps come from: predictions of ``theory``, and measurements.

Losses are taken on the same number of test utterances of each class. Directions are random and of unit norm.
"""

from collections.abc import Iterator

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
from lib.slices import Batches
from lib.study.measures.common import Place, seeded, unit_direction

POINTS = np.arange(-2, 3)  # of a short line, in its steps: three second differences
BESIDE = 3  # from the middle of the noise to where its average's slope is taken, the noise's length over this
KINDS = ("isotropic", "proportional", "of the posterior", "along the line")


def balanced(frames: Frames, of_class: int, part: str = "test") -> Batches:
    """So many utterances of each class of a part, drawn by chance, as one minibatch."""
    found, generator = frames.part(part), seeded(0)
    order = torch.randperm(len(found.labels), generator=generator)
    chosen = torch.cat([order[found.labels[order] == label][:of_class] for label in found.labels.unique()])
    return [(found.features[chosen], found.labels[chosen])]


def draws(
    run: Run, frames: Frames, place: Place, *, of_class: int, lines: int, places: int, radius: float,
    steps: list[float], counts: list[int], predicting: int,
) -> pd.DataFrame:  # fmt: skip
    """D(h) of the average over S draws of the posterior, beside what other draws, ``predicting``, say of it.

    By ``noise``, "same" at each point or "fresh"; ``average``, of "losses" or of "probabilities"; ``step`` h; and
    ``samples`` S. ``error`` is the standard error over places. ``first`` is the predicting draws' D of one, and
    ``infinite`` that of infinitely many: smooth below the noise's length, it is taken from the last of the ``steps``
    and falls with their fourth power. ``effective`` is how many draws S probabilities count as.
    """
    states = run.posterior.draws(predicting + max(counts), seeded(0))
    found = [
        probabilities for _, probabilities in short_lines(run, frames, states, of_class, lines, places, radius, steps)
    ]
    told, seen = np.split(np.moveaxis(np.concatenate(found, axis=1), 2, 0), [predicting], axis=1)
    rows, last = [], _moments(told[-1])
    for step, predicting, measuring in zip(steps, told, seen, strict=True):
        smooth = [max(of.infinite, 0.0) * (step / steps[-1]) ** 4 for of in last]
        rows += [{"step": step} | row for row in _of_draws(predicting, measuring, counts, smooth)]
    return pd.DataFrame(rows).set_index(["noise", "average", "step", "samples"])


def _moments(told: np.ndarray) -> tuple[theory.Moments, theory.Moments]:
    """Of losses that are averaged, and of losses of averaged probabilities: there two halves of the draws tell."""
    of_losses = theory.moments(_second(_losses(told)).reshape(len(told), -1))
    halves = [_second(_losses(half.mean(axis=0))) for half in np.split(told, 2)]
    return of_losses, theory.Moments(of_losses.first, float(np.mean(halves[0] * halves[1])))


def _of_draws(told: np.ndarray, seen: np.ndarray, counts: list[int], smooth: list[float]) -> Iterator[dict]:
    """Rows of ``draws`` for one step; probabilities are [draws, places, points, utterances]."""
    losses = _losses(told)
    of_losses, of_averages = (of._replace(infinite=one) for of, one in zip(_moments(told), smooth, strict=True))
    variance, each = float(losses.var(axis=0, ddof=1).mean()), np.diff(-np.log(told), n=2, axis=2)
    middle = told[:, :, 1:-1]
    for count in counts:
        together = min(count, len(told) // 2)
        groups = [part.reshape(len(part), -1, part.shape[-1]) for part in (middle, each)]
        share = np.mean(
            [
                theory.effective_share(*(part[i : i + together] for part in groups))
                for i in range(0, len(told), together)
            ]
        )
        effective = count * share
        grouped = seen[: len(seen) // count * count].reshape(-1, count, *seen.shape[1:])
        of_draws = _losses(grouped).mean(axis=1)
        shown = {
            ("same", "losses"): (of_draws, theory.averaged(of_losses, count), of_losses),
            ("same", "probabilities"): (
                _losses(grouped.mean(axis=1)), theory.averaged(of_averages, effective), of_averages
            ),
        }  # fmt: skip
        if len(of_draws) >= len(POINTS):
            fresh = np.stack([np.roll(of_draws[..., point], point, axis=0) for point in range(len(POINTS))], axis=-1)
            shown["fresh", "losses"] = fresh, theory.freshly_averaged(of_losses.infinite, variance, count), of_losses
        for (noise, average), (curves, predicted, moments) in shown.items():
            squares = np.square(_second(curves).reshape(len(curves), seen.shape[1], -1)).mean(axis=(0, 2))
            yield {
                "noise": noise, "average": average, "samples": count, "measured": squares.mean(),
                "error": squares.std(ddof=1) / len(squares) ** 0.5, "predicted": predicted, **moments._asdict(),
                "effective": effective if average == "probabilities" else count,
            }  # fmt: skip


def spreads(
    run: Run, frames: Frames, place: Place, *, of_class: int, lines: int, places: int, radius: float,
    fit: list[float], steps: list[float], lengths: list[float], samples: int,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """How much of D(h) is left in the average over infinitely many draws, for noise of several kinds and lengths.

    ``predicted`` follows from the point's loss alone: from the staircase fitted to its D (``spreads_fit``), and from
    ``relative``, how many times as rough it is along the noise as along a line. ``error`` is over places.
    """
    network, mean = run.network(frames), run.posterior.mean
    point = [second for second, _ in short_lines(run, frames, [mean], of_class, 2 * lines, 2 * places, radius, fit)]
    squares = np.square(np.concatenate(point, axis=1)).mean(axis=(0, 1, 3))
    stairs = theory.fitted(fit, squares)
    table = pd.DataFrame({"step": fit, "measured": squares, "fitted": theory.structure(np.array(fit), stairs)})
    rows, short = [], fit[len(fit) // 3]
    for kind in KINDS:
        relative = _relative(run, frames, kind, of_class, places, radius, short)
        for length in lengths:
            found = []
            for number in range(lines):
                along = unit_direction(network, mean, "all", number)
                states = noisy_states(run, kind, length, samples, along)
                found += [s for s, _ in short_lines(run, frames, states, of_class, [number], places, radius, steps)]
            for step, differences in zip(steps, np.moveaxis(np.concatenate(found, axis=1), 2, 0), strict=True):
                of_places = [theory.moments(differences[:, one]) for one in range(differences.shape[1])]
                first, infinite = np.transpose(of_places)
                left = theory.structure_along if kind == KINDS[-1] else theory.structure
                predicted = left(step, stairs, length * relative) / theory.structure(step, stairs)
                rows.append({
                    "kind": kind, "length": length, "step": step, "relative": relative,
                    "measured": infinite.mean() / first.mean(), "predicted": predicted, "first": first.mean(),
                    "error": infinite.std(ddof=1) / len(infinite) ** 0.5 / first.mean(),
                })  # fmt: skip
    fitted = table.assign(**stairs._asdict()).set_index("step")
    return {"spreads": pd.DataFrame(rows).set_index(["kind", "length", "step"]), "spreads_fit": fitted}


def short_lines(
    run: Run, frames: Frames, states: list[State], of_class: int, lines: int | list[int], places: int, radius: float,
    steps: list[float],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """Of each line: second differences of the mean loss, and probabilities, at random places within the radius.

    They are [states, places, steps, 3] and [states, places, steps, 5, utterances].
    """
    network, batches = run.network(frames), balanced(frames, of_class)
    for number in range(lines) if isinstance(lines, int) else lines:
        direction = unit_direction(network, run.posterior.mean, "all", number)
        where = np.random.default_rng(number).uniform(-radius, radius, places)
        alphas = where[:, None, None] + np.array(steps)[:, None] * POINTS
        found = theory.true_probabilities(network, states, direction, alphas.ravel(), batches)
        probabilities = found.reshape(len(states), *alphas.shape, -1)
        yield _second(_losses(probabilities)), probabilities


def noisy_states(run: Run, kind: str, length: float, samples: int, along: State) -> list[State]:
    """The posterior's mean with noise of this root mean square length, of one of the ``KINDS``."""
    mean, generator = run.posterior.mean, seeded(1)
    if kind == KINDS[-1]:
        return [slices.moved(mean, along, length * float(torch.randn((), generator=generator))) for _ in range(samples)]
    if kind == "of the posterior":
        size = run.posterior.std
    else:
        size = {name: mean[name].abs() if kind == "proportional" else torch.ones_like(mean[name]) for name in along}
    factor = length / landscape.weight_norm(size, size)
    states = []
    for _ in range(samples):
        noise = {name: torch.randn(one.shape, generator=generator) * one for name, one in size.items()}
        states.append(slices.moved(mean, noise, factor))
    return states


def _relative(run: Run, frames: Frames, kind: str, of_class: int, places: int, radius: float, step: float) -> float:
    """D over a short step along noise of this kind, over that along a line: the two cross steps as often."""
    if kind == KINDS[-1]:
        return 1.0
    network, batches = run.network(frames), balanced(frames, of_class)
    where = np.random.default_rng(0).uniform(-radius, radius, places)
    alphas, found = (where[:, None] + step * POINTS), []
    for number in range(6):
        line = unit_direction(network, run.posterior.mean, "all", number)
        noise = noisy_states(run, kind, 1.0, number + 1, line)[-1]
        noise = {name: noise[name] - run.posterior.mean[name] for name in line}
        squares = []
        for direction in (noise, line):
            near = theory.true_probabilities(network, [run.posterior.mean], direction, alphas.ravel(), batches)
            squares.append(np.square(_second(_losses(near.reshape(*alphas.shape, -1)))).mean())
        found.append(squares)
    along_noise, along_line = np.mean(found, axis=0)
    return float(along_noise / along_line)


def surrogate(
    run: Run, frames: Frames, place: Place, *, of_class: int, directions: int, lengths: list[float], samples: int
) -> pd.DataFrame:
    """The boxcar's directional derivatives beside the averaged loss's, over isotropic noise of several lengths.

    In each ``part`` the directions are surrogate gradients of a few utterances each, brought to unit norm. ``slope`` is
    the averaged loss's derivative that goes with one unit of the surrogate's, by least squares through 0, and
    ``correlation`` theirs; ``reliability`` is the correlation of two halves of the draws, which bounds it.
    """
    network, mean, (batch,) = run.network(frames), run.posterior.mean, balanced(frames, of_class)
    parts = {f"layer {n + 1}": f"layers.{n}." for n in range(len(network.layers))} | {"hidden": "layers.", "all": ""}
    whole, rows = _gradient(network, mean, *batch), []
    for part, prefix in parts.items():
        generator, pairs = seeded(0), []
        for _ in range(directions):
            few = torch.randperm(len(batch[1]), generator=generator)[:of_class]
            own = {
                n: t for n, t in _gradient(network, mean, batch[0][few], batch[1][few]).items() if n.startswith(prefix)
            }
            norm = landscape.weight_norm(own, own)
            direction = {name: tensor / norm for name, tensor in own.items()}
            pairs.append((direction, sum(float((whole[name] * tensor).sum()) for name, tensor in direction.items())))
        for length in lengths:
            states, h = (
                noisy_states(run, "isotropic", length, samples, dict(network.named_parameters())),
                length / BESIDE,
            )
            slopes = []
            for direction, _ in pairs:
                losses = _losses(theory.true_probabilities(network, states, direction, [-h, h], [batch]))
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
    run: Run, frames: Frames, place: Place, *, of_class: int, samples: int, batch_size: int, lines: int
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
    batches, reach, seconds = (
        balanced(frames, of_class, "train"),
        landscape.weight_norm(posterior.std, posterior.std),
        [],
    )
    for number in range(lines):
        direction, state = unit_direction(network, posterior.mean, "all", number), posterior.sample(generator)
        losses = _losses(theory.true_probabilities(network, [state], direction, reach * np.arange(-1, 2), batches))
        seconds.append(float(np.diff(losses[0], n=2)[0]) / reach**2)
    rows[0] |= {"true": np.mean(seconds), "true_error": np.std(seconds, ddof=1) / lines**0.5}
    return pd.DataFrame(rows).set_index("group")


def crossings(
    run: Run, frames: Frames, place: Place, *, of_class: int, lines: int, places: int, radius: float, points: int,
    sampled: int, apart: float,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """Steps of the loss along lines in the hidden layers: predicted from one batch at the mean, and counted.

    Counted are those along ``lines`` lines at random places, at points so close that a step lies between two of them
    with the probability ``apart``. ``rate`` is in steps a unit of distance, ``intensity`` that times their mean square.
    ``crossings_layers`` has the predicted rate's factors. QIF neurons have no threshold, and no crossings.
    """
    network, state, ((features, labels),) = _in_double(run, frames, of_class)
    if any(isinstance(layer, QIFLayer) for layer in network.layers):
        none = {"predicted_rate": 0.0, "predicted_intensity": 0.0}
        return {"crossings": pd.DataFrame([none]), "crossings_layers": pd.DataFrame(index=pd.Index([], name="layer"))}
    layers, totals, squares, seen, passed = [], np.zeros(2), [], 0, 0.0
    for number in range(lines):
        direction = unit_direction(network, state, "hidden", number)
        for depth, (found, sample) in enumerate(
            theory.crossings(network, state, direction, features, sampled, seeded(number))
        ):
            share, square = theory.steps(network, state, depth, sample, features, labels)
            totals += np.array([found.number * share, found.number * square]) / lines
            layers.append({"layer": depth + 1} | found._asdict() | {"share": share, "square": square})
    for number in range(lines):
        direction = unit_direction(network, state, "hidden", number)
        gap = apart / totals[0]
        for start in np.random.default_rng(number).uniform(-radius, radius, places):
            alphas = start + gap * np.arange(points + 1)
            heights = np.diff(slices.deterministic_loss(network, state, direction, alphas, [(features, labels)]))
            moved = np.abs(heights) > theory.ROUNDING
            # Several steps between two points look like one: of Poisson's, so many intervals have none.
            seen += -points * np.log1p(-moved.mean())
            passed += gap * points
            squares.append(np.square(heights).sum() / (gap * points))
    table = {
        "predicted_rate": totals[0], "rate": seen / passed, "rate_error": seen**0.5 / passed,
        "predicted_intensity": totals[1], "intensity": np.mean(squares),
        "intensity_error": np.std(squares, ddof=1) / len(squares) ** 0.5,
    }  # fmt: skip
    of_layers = pd.DataFrame(layers).groupby("layer").mean()
    return {"crossings": pd.DataFrame([table]), "crossings_layers": of_layers}


def scales(
    run: Run, frames: Frames, place: Place, *, of_class: int, lines: int, places: int, radius: float,
    steps: list[float], length: float, samples: int,
) -> pd.DataFrame:  # fmt: skip
    """D(h) of the point's loss, and of isotropic noise of this length that of one draw and of infinitely many."""
    mean, network = run.posterior.mean, run.network(frames)
    states = [mean, *noisy_states(run, "isotropic", length, samples, dict(network.named_parameters()))]
    found = [second for second, _ in short_lines(run, frames, states, of_class, lines, places, radius, steps)]
    rows = []
    for step, differences in zip(steps, np.moveaxis(np.concatenate(found, axis=1), 2, 0), strict=True):
        flat = differences.reshape(len(states), -1)
        rows.append({"step": step, "point": np.square(flat[0]).mean()} | theory.moments(flat[1:])._asdict())
    return pd.DataFrame(rows).set_index("step")


def _losses(probabilities: np.ndarray) -> np.ndarray:
    """Mean loss over utterances, the last axis."""
    return -np.log(np.maximum(probabilities, np.finfo(float).tiny)).mean(axis=-1)


def _second(losses: np.ndarray) -> np.ndarray:
    return np.diff(losses, n=2, axis=-1)


def _gradient(network: nn.Module, state: State, features: Tensor, labels: Tensor) -> State:
    """The surrogate gradient of the mean loss, in evaluation mode."""
    leaves = {name: state[name].detach().requires_grad_() for name, _ in network.named_parameters()}
    with torch.enable_grad(), posteriors.evaluating(network):
        loss = cross_entropy(torch.func.functional_call(network, state | leaves, features), labels.long())
        gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    return dict(zip(leaves, gradients, strict=True))


def _in_double(run: Run, frames: Frames, of_class: int) -> tuple[nn.Module, State, Batches]:
    state = {name: tensor.double() for name, tensor in run.posterior.mean.items()}
    batches = [(features.double(), labels) for features, labels in balanced(frames, of_class)]
    return run.network(frames).double(), state, batches
