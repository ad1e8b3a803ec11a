"""What averaging leaves of a run's loss, and where its steps come from: predictions of ``theory``, and measurements.

Losses are taken on the test utterances of all measures of the loss, balanced over classes. Directions are random and of
unit norm.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch

from lib import landscape, slices, theory
from lib.features import Frames
from lib.posteriors import State
from lib.runs import Run
from lib.study.measures.common import Place, direction_in, seeded, test_batches

POINTS = np.arange(-2, 3)  # of a short line, in its steps: three second differences
ALONG, PROPORTIONAL, OWN = "along the line", "proportional", "of the posterior"  # kinds of noise beside "isotropic"


def draws(
    run: Run, frames: Frames, place: Place, *, examples: int, lines: int, places: int, radius: float,
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
        probabilities for _, probabilities in short_lines(run, frames, states, examples, lines, places, radius, steps)
    ]
    told, seen = np.split(np.moveaxis(np.concatenate(found, axis=1), 2, 0), [predicting], axis=1)
    rows, last = [], _moments(told[-1])
    for step, predicting, measuring in zip(steps, told, seen, strict=True):
        smooth = [max(of.infinite, 0.0) * (step / steps[-1]) ** 4 for of in last]
        rows += [{"step": step} | row for row in _of_draws(predicting, measuring, counts, smooth)]
    return pd.DataFrame(rows).set_index(["noise", "average", "step", "samples"])


def _moments(told: np.ndarray) -> tuple[theory.Moments, theory.Moments]:
    """Of losses that are averaged, and of losses of averaged probabilities: there two halves of the draws tell."""
    of_losses = theory.moments(_second(mean_losses(told)).reshape(len(told), -1))
    halves = [_second(mean_losses(half.mean(axis=0))) for half in np.split(told, 2)]
    return of_losses, theory.Moments(of_losses.first, float(np.mean(halves[0] * halves[1])))


def _of_draws(told: np.ndarray, seen: np.ndarray, counts: list[int], smooth: list[float]) -> Iterator[dict]:
    """Rows of ``draws`` for one step; probabilities are [draws, places, points, utterances]."""
    losses = mean_losses(told)
    of_losses, of_averages = (of._replace(infinite=one) for of, one in zip(_moments(told), smooth, strict=True))
    variance, each = float(losses.var(axis=0, ddof=1).mean()), np.diff(mean_losses(told[..., None]), n=2, axis=2)
    pairs = [part.reshape(len(told), -1, told.shape[-1]) for part in (told[:, :, 1:-1], each)]
    for count in counts:
        together = min(count, len(told) // 2)
        groups = zip(*(np.array_split(part, len(told) // together) for part in pairs), strict=True)
        effective = count * np.mean([theory.effective_share(*group) for group in groups])
        grouped = seen[: len(seen) // count * count].reshape(-1, count, *seen.shape[1:])
        of_draws = mean_losses(grouped).mean(axis=1)
        shown = {
            ("same", "losses"): (of_draws, theory.averaged(of_losses, count), of_losses),
            ("same", "probabilities"): (
                mean_losses(grouped.mean(axis=1)), theory.averaged(of_averages, effective), of_averages
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
    run: Run, frames: Frames, place: Place, *, examples: int, lines: int, places: int, radius: float,
    fit: list[float], kinds: list[str], steps: list[float], lengths: list[float], samples: int,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """How much of D(h) is left in the average over infinitely many draws, for noise of several kinds and lengths.

    ``predicted`` follows from the point's loss alone: from the staircase fitted to its D (``spreads_fit``), and from
    ``relative``, how many times as rough it is along the noise as along a line. ``first`` is D of one draw, and
    ``error`` the standard error over places. Noise is "isotropic", "proportional" to each weight, "of the posterior" or
    "along the line".
    """
    network, mean = run.network(frames), run.posterior.mean
    point = [second for second, _ in short_lines(run, frames, [mean], examples, 2 * lines, 2 * places, radius, fit)]
    squares = np.square(np.concatenate(point, axis=1)).mean(axis=(0, 1, 3))
    stairs = theory.fitted(fit, squares)
    table = pd.DataFrame({"step": fit, "measured": squares, "fitted": theory.structure(np.array(fit), stairs)})
    rows, short = [], fit[len(fit) // 3]
    for kind in kinds:
        relative = _relative(run, frames, kind, examples, places, radius, short)
        for length in lengths:
            found = []
            for number in range(lines):
                along = direction_in(network, mean, "all", number)
                states = noisy_states(run, kind, length, samples, along)
                found += [s for s, _ in short_lines(run, frames, states, examples, [number], places, radius, steps)]
            for step, differences in zip(steps, np.moveaxis(np.concatenate(found, axis=1), 2, 0), strict=True):
                of_places = [theory.moments(differences[:, one]) for one in range(differences.shape[1])]
                first, infinite = np.transpose(of_places)
                left = theory.structure_along if kind == ALONG else theory.structure
                predicted = left(step, stairs, length * relative) / theory.structure(step, stairs)
                rows.append({
                    "kind": kind, "length": length, "step": step, "relative": relative,
                    "measured": infinite.mean() / first.mean(), "predicted": predicted, "first": first.mean(),
                    "error": infinite.std(ddof=1) / len(infinite) ** 0.5 / first.mean(),
                })  # fmt: skip
    fitted = table.assign(**stairs._asdict()).set_index("step")
    return {"spreads": pd.DataFrame(rows).set_index(["kind", "length", "step"]), "spreads_fit": fitted}


def short_lines(
    run: Run, frames: Frames, states: list[State], examples: int, lines: int | list[int], places: int, radius: float,
    steps: list[float],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """Of each line: second differences of the mean loss, and probabilities, at random places within the radius.

    They are [states, places, steps, 3] and [states, places, steps, 5, utterances].
    """
    network, batches = run.network(frames), test_batches(frames, examples)
    for number in range(lines) if isinstance(lines, int) else lines:
        direction = direction_in(network, run.posterior.mean, "all", number)
        where = np.random.default_rng(number).uniform(-radius, radius, places)
        alphas = where[:, None, None] + np.array(steps)[:, None] * POINTS
        found = theory.true_probabilities(network, states, direction, alphas.ravel(), batches)
        probabilities = found.reshape(len(states), *alphas.shape, -1)
        yield _second(mean_losses(probabilities)), probabilities


def noisy_states(run: Run, kind: str, length: float, samples: int, along: State) -> list[State]:
    """The posterior's mean with noise of this root mean square length."""
    mean, generator = run.posterior.mean, seeded(1)
    if kind == ALONG:
        return [slices.moved(mean, along, length * float(torch.randn((), generator=generator))) for _ in range(samples)]
    if kind == OWN:
        size = run.posterior.std
    else:
        size = {name: mean[name].abs() if kind == PROPORTIONAL else torch.ones_like(mean[name]) for name in along}
    factor = length / landscape.weight_norm(size, size)
    states = []
    for _ in range(samples):
        noise = {name: torch.randn(one.shape, generator=generator) * one for name, one in size.items()}
        states.append(slices.moved(mean, noise, factor))
    return states


def _relative(run: Run, frames: Frames, kind: str, examples: int, places: int, radius: float, step: float) -> float:
    """D over a short step along noise of this kind, over that along a line: the two cross steps as often."""
    if kind == ALONG:
        return 1.0
    network, batches = run.network(frames), test_batches(frames, examples)
    where = np.random.default_rng(0).uniform(-radius, radius, places)
    alphas, found = (where[:, None] + step * POINTS), []
    for number in range(6):
        line = direction_in(network, run.posterior.mean, "all", number)
        noise = noisy_states(run, kind, 1.0, number + 1, line)[-1]
        noise = {name: noise[name] - run.posterior.mean[name] for name in line}
        squares = []
        for direction in (noise, line):
            near = theory.true_probabilities(network, [run.posterior.mean], direction, alphas.ravel(), batches)
            squares.append(np.square(_second(mean_losses(near.reshape(*alphas.shape, -1)))).mean())
        found.append(squares)
    along_noise, along_line = np.mean(found, axis=0)
    return float(along_noise / along_line)


def mean_losses(probabilities: np.ndarray) -> np.ndarray:
    """Mean loss over utterances, the last axis."""
    return -np.log(np.maximum(probabilities, np.finfo(float).tiny)).mean(axis=-1)


def _second(losses: np.ndarray) -> np.ndarray:
    return np.diff(losses, n=2, axis=-1)
