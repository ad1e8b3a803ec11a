"""How angular the loss around a posterior is: along lines, close by, over a plane, and beside what the surrogate says.

Each measure makes a table, which the run's folder keeps and a study can publish, and takes its figures from that. All
losses are taken on the same utterances, with the same noise at every point unless said otherwise.
"""

import itertools
from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from torch import nn

from lib import posteriors, robustness, slices
from lib.experiment import Run
from lib.features import Frames
from lib.measures.common import Choices, kept, test_batches
from lib.posteriors import Posterior, State

# Beside the parts of the network: all of its matrices, by filter-normalised directions.
FILTERS = "filters"


def of_angularity(run: Run, frames: Frames, chosen: Choices, **settings) -> dict[str, float]:
    """The measures of ``slices.angularity`` of the loss averaged over the first 1, 2, ... draws of the posterior.

    Each averaged over the directions of ``lines``, part by part. Columns such as exponent_hidden_of_8.
    """
    found: dict[str, list[float]] = {}
    for (part, count, _), curve in lines(run, frames, **settings).groupby(["part", "count", "direction"]):
        alphas, losses = curve["alpha"].to_numpy(), curve["nll"].to_numpy()
        values = {
            "exponent": slices.angularity_exponent(alphas, losses),
            "roughness": slices.roughness(losses),
            "excess": slices.excess_variation(losses),
            "residual": slices.quadratic_residual(alphas, losses),
        }
        for name, value in values.items():
            found.setdefault(f"{name}_{part}_of_{count}", []).append(value)
    return {name: float(np.nanmean(values)) for name, values in found.items() if not np.isnan(values).all()}


def lines(
    run: Run,
    frames: Frames,
    *,
    directions: dict[str, int],
    points: int,
    radius: float,
    counts: list[int],
    examples: int,
) -> pd.DataFrame:
    """Losses along lines through a run's posterior: part, direction, count, alpha, nll. Of a point there is one draw.

    ``directions`` says how many there are in each part; they have unit norm, so ``radius`` is in the units of the
    weights.
    """

    def compute() -> pd.DataFrame:
        network, batches = run.network(frames), test_batches(frames, examples)
        alphas = np.linspace(-radius, radius, points)
        drawn = [count for count in counts if count <= posteriors.samples_needed(run.posterior, max(counts))]
        tables = []
        for part, number in ((part, number) for part, many in directions.items() for number in range(many)):
            direction = unit_direction(network, posteriors.centre(run.posterior), part, number)
            losses = slices.bayesian_losses(network, run.posterior, direction, alphas, batches, drawn, seeded(0))
            tables += [
                pd.DataFrame({"part": part, "direction": number, "count": count, "alpha": alphas, "nll": curve})
                for count, curve in zip(drawn, losses, strict=True)
            ]
        return pd.concat(tables)

    settings = {"directions": directions, "points": points, "radius": radius}
    return kept(run, "angularity", settings | {"counts": counts, "examples": examples}, compute)


def first_lines(run: Run, frames: Frames, **settings) -> pd.DataFrame:
    """Of ``lines`` those along the first direction of each part: what a picture shows."""
    found = lines(run, frames, **settings)
    return found[found["direction"] == 0]


def unit_direction(network: nn.Module, state: State, part: str, number: int) -> State:
    """A random direction of unit norm, the same for all networks of a shape.

    But for "filters": there the same noise is filter-normalised by the state's weights.
    """
    if part != FILTERS:
        return slices.random_direction(slices.parameters_of(network, part), seeded(number))
    direction = slices.filter_normalised(slices.random_direction(network.named_parameters(), seeded(number)), state)
    norm = slices.length(direction, direction)
    return {name: tensor / norm for name, tensor in direction.items()}


def zoom(run: Run, frames: Frames, chosen: Choices, **settings) -> dict[str, float]:
    """Number and mean size of the jumps of the loss at the run's centre, so close that each stands alone."""
    found: dict[str, list[float]] = {}
    for (part, _), curve in close_lines(run, frames, **settings).groupby(["part", "direction"]):
        jumps = slices.jumps(curve["alpha"].to_numpy(), curve["nll"].to_numpy())
        found.setdefault(f"jumps_{part}", []).append(jumps.number)
        found.setdefault(f"jump_size_{part}", []).append(jumps.size)
    return {name: float(np.nanmean(values)) for name, values in found.items() if not np.isnan(values).all()}


def close_lines(
    run: Run, frames: Frames, *, points: int, directions: int, radius: float, examples: int
) -> pd.DataFrame:
    """Losses at the run's centre along short lines, in double precision: part, direction, alpha, nll."""

    def compute() -> pd.DataFrame:
        network, state, batches = in_double(run, frames, examples)
        alphas = np.linspace(-radius, radius, points)
        tables = []
        for part, number in itertools.product(slices.PARTS, range(directions)):
            direction = unit_direction(network, state, part, number)
            losses = slices.deterministic_loss(network, state, direction, alphas, batches)
            tables.append(pd.DataFrame({"part": part, "direction": number, "alpha": alphas, "nll": losses}))
        return pd.concat(tables)

    settings = {"points": points, "directions": directions, "radius": radius, "examples": examples}
    return kept(run, "zoom", settings, compute)


def precision(run: Run, frames: Frames, chosen: Choices, *, points: int, radius: float, examples: int):
    """The largest difference, in nats, that double precision makes to the loss at the centre along one line."""
    alphas = np.linspace(-radius, radius, points)
    double, state, batches = in_double(run, frames, examples)
    direction = unit_direction(double, state, "all", 0)
    exact = slices.deterministic_loss(double, state, direction, alphas, batches)
    single = {name: tensor.float() for name, tensor in direction.items()}
    centre = posteriors.centre(run.posterior)
    found = slices.deterministic_loss(run.network(frames), centre, single, alphas, test_batches(frames, examples))
    return {"double_precision": float(np.abs(found - exact).max())}


def in_double(run: Run, frames: Frames, examples: int) -> tuple[nn.Module, State, slices.Batches]:
    """The run's network, its centre and the minibatches, in double precision."""
    centre = posteriors.centre(run.posterior)
    state = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in centre.items()}
    batches = [(features.double(), labels) for features, labels in test_batches(frames, examples)]
    return run.network(frames).double(), state, batches


def surface(run: Run, frames: Frames, chosen: Choices, **settings) -> dict[str, float]:
    """The range of the loss over a plane, in nats, for the largest number of draws; the plane itself is the result."""
    table = plane(run, frames, **settings)
    losses = table[table["count"] == table["count"].max()]["nll"]
    return {"surface_range": float(losses.max() - losses.min())}


def plane(run: Run, frames: Frames, *, points: int, radius: float, counts: list[int], examples: int) -> pd.DataFrame:
    """Losses over the plane of the first two directions in all weights: count, beta, alpha, nll."""

    def compute() -> pd.DataFrame:
        network, batches = run.network(frames), test_batches(frames, examples)
        first, second = (unit_direction(network, posteriors.centre(run.posterior), "all", n) for n in range(2))
        along = np.linspace(-radius, radius, points)
        drawn = [count for count in counts if count <= posteriors.samples_needed(run.posterior, max(counts))]
        tables = []
        for beta in along:
            there = shifted(run.posterior, second, beta)
            losses = slices.bayesian_losses(network, there, first, along, batches, drawn, seeded(0))
            tables += [
                pd.DataFrame({"count": count, "beta": beta, "alpha": along, "nll": row})
                for count, row in zip(drawn, losses, strict=True)
            ]
        return pd.concat(tables)

    settings = {"points": points, "radius": radius, "counts": counts, "examples": examples}
    return kept(run, "surface", settings, compute)


def shifted(posterior: Posterior, direction: State, distance: float) -> Posterior:
    return robustness.disturbed(posterior, lambda state, _: slices.moved(state, direction, float(distance)))


def jitter(run: Run, frames: Frames, chosen: Choices, **settings) -> dict[str, float]:
    """Angularity exponent and roughness of one line, with the same noise at each point or fresh noise."""
    found = {}
    for noise, curve in twice(run, frames, **settings).groupby("noise"):
        alphas, losses = curve["alpha"].to_numpy(), curve["nll"].to_numpy()
        found[f"exponent_{noise}_noise"] = slices.angularity_exponent(alphas, losses)
        found[f"roughness_{noise}_noise"] = slices.roughness(losses)
    return found


def twice(run: Run, frames: Frames, *, points: int, radius: float, samples: int, examples: int) -> pd.DataFrame:
    """The loss along one line in all weights, with the "same" noise and with "fresh" noise: noise, alpha, nll."""

    def compute() -> pd.DataFrame:
        network, batches = run.network(frames), test_batches(frames, examples)
        direction = unit_direction(network, posteriors.centre(run.posterior), "all", 0)
        alphas = np.linspace(-radius, radius, points)

        def loss(where: Iterable[float], seed: int) -> np.ndarray:
            return slices.bayesian_loss(network, run.posterior, direction, where, batches, samples, seeded(seed))

        fresh = np.concatenate([loss([alpha], seed) for seed, alpha in enumerate(alphas)])
        same = pd.DataFrame({"noise": "same", "alpha": alphas, "nll": loss(alphas, 0)})
        return pd.concat([same, pd.DataFrame({"noise": "fresh", "alpha": alphas, "nll": fresh})])

    settings = {"points": points, "radius": radius, "samples": samples, "examples": examples}
    return kept(run, "jitter", settings, compute)


def agreement(run: Run, frames: Frames, chosen: Choices, **settings) -> dict[str, float]:
    """Over directions: the surrogate's slope beside the finite difference's, for each part and each step.

    ``agreement_`` is their correlation, ``slope_`` the finite difference that goes with one unit of the surrogate's,
    by least squares through 0.
    """
    found = {}
    for (part, step), of_step in slopes(run, frames, **settings).groupby(["part", "step"]):
        surrogate, finite = of_step["surrogate"].to_numpy(), of_step["finite"].to_numpy()
        found[f"agreement_{part}_at_{step:g}"] = float(np.corrcoef(surrogate, finite)[0, 1])
        found[f"slope_{part}_at_{step:g}"] = float((surrogate * finite).sum() / (surrogate**2).sum())
    return found


def slopes(run: Run, frames: Frames, *, directions: int, steps: list[float], examples: int) -> pd.DataFrame:
    """Slopes of the loss at the run's centre: part, direction, step, surrogate, finite."""

    def compute() -> pd.DataFrame:
        network, centre, batches = run.network(frames), posteriors.centre(run.posterior), test_batches(frames, examples)
        tables = []
        for part, number in itertools.product(slices.PARTS, range(directions)):
            direction = unit_direction(network, centre, part, number)
            surrogate, finite = slices.gradient_agreement(network, centre, direction, batches, steps)
            found = {"step": steps, "surrogate": surrogate, "finite": finite}
            tables.append(pd.DataFrame({"part": part, "direction": number} | found))
        return pd.concat(tables)

    return kept(run, "agreement", {"directions": directions, "steps": steps, "examples": examples}, compute)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
