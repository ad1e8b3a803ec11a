"""The loss around a posterior: along lines, over a plane, close by, and where noise is on the weights.

All losses of a run are taken on the same utterances, with the same noise at every point unless said otherwise.
"""

import itertools
from collections.abc import Iterable

import numpy as np
import pandas as pd
from torch import nn

from lib import landscape, slices
from lib.features import Frames
from lib.hardware import perturbed
from lib.posteriors import MeanFieldGaussian, State
from lib.runs import Run
from lib.slices import Batches
from lib.study.measures.common import Place, as_series, over_directions, seeded, test_batches, unit_direction


def of_slices(
    run: Run, frames: Frames, place: Place, *, points: int, directions: int, radius: float, samples: int, examples: int
) -> pd.DataFrame:
    """Roughness and exponent of the point's loss and of a Gaussian's average, over lines through the mean."""
    std = run.posterior.std if isinstance(run.posterior, MeanFieldGaussian) else None
    lines = landscape.curves(
        run.network(frames), {run.setup.method.name: run.posterior.mean}, std, test_batches(frames, examples),
        alphas=np.linspace(-radius, radius, points), directions=directions, samples=samples,
    )  # fmt: skip
    return over_directions(lines.set_index(["loss", "direction", "alpha"])["nll"], _exponent_and_roughness)


def angularity(
    run: Run, frames: Frames, place: Place, *, directions: dict[str, int], points: int, radius: float,
    samples: list[int], examples: int,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """Measures of ``lib.landscape`` of the loss averaged over the first 1, 2, ... samples, along lines in each part.

    ``directions`` says how many lines there are in each part; directions have unit norm, so ``radius`` is in the units
    of the weights. Of a point there is one sample. ``angularity_lines`` are those along the first direction.
    """
    network, batches, counts = run.network(frames), test_batches(frames, examples), _distinct(run, samples)
    alphas, found = np.linspace(-radius, radius, points), {}
    for part, number in ((part, number) for part, many in directions.items() for number in range(many)):
        direction = unit_direction(network, run.posterior.mean, part, number)
        losses = slices.bayesian_losses(network, run.posterior, direction, alphas, batches, counts, seeded(0))
        found |= {(part, number, count): line for count, line in zip(counts, losses, strict=True)}
    lines = as_series(found, ["part", "direction", "samples"], alphas)

    def values(alphas: np.ndarray, losses: np.ndarray) -> dict[str, float]:
        excess, residual = landscape.excess_variation(losses), landscape.quadratic_residual(alphas, losses)
        return _exponent_and_roughness(alphas, losses) | {"excess": excess, "residual": residual}

    drawn = lines.xs(0, level="direction", drop_level=False).to_frame()
    return {"angularity": over_directions(lines, values), "angularity_lines": drawn}


def loss_surface(
    run: Run, frames: Frames, place: Place, *, points: int, radius: float, samples: list[int], examples: int
) -> dict[str, pd.DataFrame]:
    """The loss over the plane of the first two directions in all weights, and its range for the most samples."""
    network, batches, counts = run.network(frames), test_batches(frames, examples), _distinct(run, samples)
    first, second = (unit_direction(network, run.posterior.mean, "all", number) for number in range(2))
    along, found = np.linspace(-radius, radius, points), {}
    for beta in along:
        there = perturbed(run.posterior, lambda state, _, beta=beta: slices.moved(state, second, float(beta)))
        losses = slices.bayesian_losses(network, there, first, along, batches, counts, seeded(0))
        found |= {(count, beta): line for count, line in zip(counts, losses, strict=True)}
    plane = as_series(found, ["samples", "beta"], along)
    ranges = pd.DataFrame({"range": np.ptp(plane[max(counts)])}, index=pd.Index([max(counts)], name="samples"))
    return {"loss_surface": ranges, "loss_surface_points": plane.to_frame()}


def noise_comparison(
    run: Run, frames: Frames, place: Place, *, points: int, radius: float, samples: int, examples: int
) -> dict[str, pd.DataFrame]:
    """One line in all weights with the "same" noise at each point and with "fresh" noise: exponent and roughness."""
    network, batches = run.network(frames), test_batches(frames, examples)
    direction = unit_direction(network, run.posterior.mean, "all", 0)
    alphas = np.linspace(-radius, radius, points)

    def loss(where: Iterable[float], seed: int) -> np.ndarray:
        return slices.bayesian_loss(network, run.posterior, direction, where, batches, samples, seeded(seed))

    fresh = np.concatenate([loss([alpha], seed) for seed, alpha in enumerate(alphas)])
    lines = as_series({"same": loss(alphas, 0), "fresh": fresh}, ["noise"], alphas)
    found = over_directions(lines, _exponent_and_roughness)
    return {"noise_comparison": found, "noise_comparison_lines": lines.to_frame()}


def sharpness(run: Run, frames: Frames, place: Place, *, std: float, samples: int, examples: int) -> pd.DataFrame:
    """What the same noise costs in nats on each group of a run's parameters, and on "all", around its mean.

    ``mean`` is over samples of the noise, ``worst`` the worst of them.
    """
    network, test = run.network(frames), frames.part("test")
    on = test.features[:examples], test.labels[:examples]
    groups = {"all": [name for name, _ in network.named_parameters()]} | landscape.parameter_groups(network)
    rows = [
        landscape.sharpness(network, run.posterior.mean, names, std, *on, samples, seeded(0))
        for names in groups.values()
    ]
    return pd.DataFrame(rows, index=pd.Index(groups, name="group"))


def fine_slices(
    run: Run, frames: Frames, place: Place, *, points: int, directions: int, radius: float, examples: int
) -> dict[str, pd.DataFrame]:
    """Number and mean size of the jumps along short lines in each part, in double precision; and the lines.

    So close to the mean each jump stands alone.
    """
    network, state, batches = _in_double(run, frames, examples)
    alphas, found = np.linspace(-radius, radius, points), {}
    for part, number in itertools.product(landscape.PARTS, range(directions)):
        direction = unit_direction(network, state, part, number)
        found[part, number] = slices.deterministic_loss(network, state, direction, alphas, batches)
    lines = as_series(found, ["part", "direction"], alphas)

    def values(alphas: np.ndarray, losses: np.ndarray) -> dict[str, float]:
        jumps = landscape.jumps(alphas, losses)
        return {"jumps": jumps.number, "jump_size": jumps.size}

    return {"fine_slices": over_directions(lines, values), "fine_slices_lines": lines.to_frame()}


def precision(run: Run, frames: Frames, place: Place, *, points: int, radius: float, examples: int) -> pd.DataFrame:
    """The largest difference, in nats, that double precision makes to the loss along one line."""
    alphas = np.linspace(-radius, radius, points)
    double, state, batches = _in_double(run, frames, examples)
    direction = unit_direction(double, state, "all", 0)
    exact = slices.deterministic_loss(double, state, direction, alphas, batches)
    single = {name: tensor.float() for name, tensor in direction.items()}
    network, batches = run.network(frames), test_batches(frames, examples)
    found = slices.deterministic_loss(network, run.posterior.mean, single, alphas, batches)
    return pd.DataFrame([{"difference": np.abs(found - exact).max()}])


def alignment(
    run: Run, frames: Frames, place: Place, *, directions: int, steps: list[float], examples: int
) -> dict[str, pd.DataFrame]:
    """The surrogate gradient's slopes beside finite differences, over directions in each part, for each step.

    ``correlation`` is theirs, ``slope`` the finite difference that goes with one unit of the surrogate's, by least
    squares through 0.
    """
    network, mean, batches = run.network(frames), run.posterior.mean, test_batches(frames, examples)
    tables = {}
    for part, number in itertools.product(landscape.PARTS, range(directions)):
        direction = unit_direction(network, mean, part, number)
        slopes = landscape.surrogate_alignment(network, mean, direction, batches, steps)
        tables[part, number] = pd.DataFrame(slopes._asdict(), index=pd.Index(steps, name="step"))
    table = pd.concat(tables, names=["part", "direction"])

    def agreement(rows: pd.DataFrame) -> pd.Series:
        surrogate, finite = rows["surrogate"].to_numpy(), rows["finite"].to_numpy()
        slope = (surrogate * finite).sum() / (surrogate**2).sum()
        return pd.Series({"correlation": np.corrcoef(surrogate, finite)[0, 1], "slope": slope})

    summary = table.groupby(["part", "step"], sort=False).apply(agreement)
    return {"alignment": summary, "alignment_slopes": table}


def _in_double(run: Run, frames: Frames, examples: int) -> tuple[nn.Module, State, Batches]:
    """The run's network, its posterior's mean and the minibatches, in double precision."""
    mean = run.posterior.mean
    state = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in mean.items()}
    batches = [(features.double(), labels) for features, labels in test_batches(frames, examples)]
    return run.network(frames).double(), state, batches


def _distinct(run: Run, samples: list[int]) -> list[int]:
    return [count for count in samples if count <= run.posterior.distinct(max(samples))]


def _exponent_and_roughness(alphas: np.ndarray, losses: np.ndarray) -> dict[str, float]:
    return {"exponent": landscape.angularity_exponent(alphas, losses), "roughness": slices.roughness(losses)}
