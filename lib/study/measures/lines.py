"""The loss around a posterior: along lines, over a plane, close by, and where noise is on the weights.

All losses of a run are taken on the same utterances of the test part, which are balanced over classes and speakers
(``heard_on`` counts them), with the same noise at every point unless said otherwise.
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
from lib.study.measures.common import (
    Place,
    as_series,
    direction_in,
    over_directions,
    place_along,
    seeded,
    test_batches,
    test_utterances,
)


def heard_on(run: Run, frames: Frames, place: Place, *, examples: int) -> pd.DataFrame:
    """How many utterances of each class, of how many speakers, the losses of so many examples are taken on."""
    chosen = test_utterances(frames, examples)
    table = pd.DataFrame({"class": np.array(frames.class_names)[chosen.labels.numpy()], "speaker": chosen.speakers})
    of_class = table.groupby("class")["speaker"]
    return pd.DataFrame({"utterances": of_class.size(), "speakers": of_class.nunique()})


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
    run: Run, frames: Frames, place: Place, *, directions: dict[str, int], points: int, radius: dict[str, float],
    samples: list[int], examples: int,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """Measures of ``lib.landscape`` of the loss averaged over the first 1, 2, ... samples, along lines in each part.

    ``directions`` says how many lines there are in each part, and ``radius`` how far they go: in the units of the
    weights, but in the part "filters" in shares of each filter's norm. Of a point there is one sample.
    ``angularity_lines`` are those along the first direction.
    """
    network, batches, counts = run.network(frames), test_batches(frames, examples), _distinct(run, samples)
    found = {}
    for part, number in ((part, number) for part, many in directions.items() for number in range(many)):
        direction = direction_in(network, run.posterior.mean, part, number)
        alphas = np.linspace(-radius[part], radius[part], points)
        losses = slices.bayesian_losses(network, run.posterior, direction, alphas, batches, counts, seeded(0))
        found |= {(part, number, count): (alphas, line) for count, line in zip(counts, losses, strict=True)}
    lines = as_series(found, ["part", "direction", "samples"])

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
    first, second = (direction_in(network, run.posterior.mean, "all", number) for number in range(2))
    along, found = np.linspace(-radius, radius, points), {}
    for beta in along:
        there = perturbed(run.posterior, lambda state, _, beta=beta: slices.moved(state, second, float(beta)))
        losses = slices.bayesian_losses(network, there, first, along, batches, counts, seeded(0))
        found |= {(count, beta): (along, line) for count, line in zip(counts, losses, strict=True)}
    plane = as_series(found, ["samples", "beta"])
    ranges = pd.DataFrame({"range": np.ptp(plane[max(counts)])}, index=pd.Index([max(counts)], name="samples"))
    return {"loss_surface": ranges, "loss_surface_points": plane.to_frame()}


def noise_comparison(
    run: Run, frames: Frames, place: Place, *, points: int, radius: float, samples: int, examples: int
) -> dict[str, pd.DataFrame]:
    """One line in all weights with the "same" noise at each point and with "fresh" noise: exponent and roughness."""
    network, batches = run.network(frames), test_batches(frames, examples)
    direction = direction_in(network, run.posterior.mean, "all", 0)
    alphas = np.linspace(-radius, radius, points)

    def loss(where: Iterable[float], seed: int) -> np.ndarray:
        return slices.bayesian_loss(network, run.posterior, direction, where, batches, samples, seeded(seed))

    fresh = np.concatenate([loss([alpha], seed) for seed, alpha in enumerate(alphas)])
    lines = as_series({"same": (alphas, loss(alphas, 0)), "fresh": (alphas, fresh)}, ["noise"])
    found = over_directions(lines, _exponent_and_roughness)
    return {"noise_comparison": found, "noise_comparison_lines": lines.to_frame()}


def sharpness(run: Run, frames: Frames, place: Place, *, std: float, samples: int, examples: int) -> pd.DataFrame:
    """What the same noise costs in nats on each group of a run's parameters, and on "all", around its mean.

    ``mean`` is over samples of the noise, ``worst`` the worst of them.
    """
    network, chosen = run.network(frames), test_utterances(frames, examples)
    groups = {"all": [name for name, _ in network.named_parameters()]} | landscape.parameter_groups(network)
    rows = [
        landscape.sharpness(network, run.posterior.mean, names, std, chosen.features, chosen.labels, samples, seeded(0))
        for names in groups.values()
    ]
    return pd.DataFrame(rows, index=pd.Index(groups, name="group"))


def fine_slices(
    run: Run, frames: Frames, place: Place, *, points: int, directions: int, radius: float, within: float, examples: int
) -> dict[str, pd.DataFrame]:
    """Jumps along short lines in each part, in double precision: number, mean size and intensity; and the lines.

    So short a line has each jump alone. Each goes in a direction of its own, and its alpha is the distance from a place
    of its own in this direction: a random one no further from the mean than ``within``.
    """
    network, state, batches = _in_double(run, frames, examples)
    alphas, found = np.linspace(-radius, radius, points), {}
    for part, number in itertools.product(landscape.PARTS, range(directions)):
        direction, where = direction_in(network, state, part, number), place_along(number, within) + alphas
        found[part, number] = alphas, slices.deterministic_loss(network, state, direction, where, batches)
    lines = as_series(found, ["part", "direction"])

    def values(alphas: np.ndarray, losses: np.ndarray) -> dict[str, float]:
        jumps = landscape.jumps(alphas, losses)
        return {"jumps": jumps.number, "jump_size": jumps.size, "intensity": jumps.intensity}

    return {"fine_slices": over_directions(lines, values), "fine_slices_lines": lines.to_frame()}


def structure(
    run: Run, frames: Frames, place: Place, *, directions: dict[str, int], points: int, radius: dict[str, float],
    zooms: int, samples: int, examples: int,
) -> pd.DataFrame:  # fmt: skip
    """The structure function D(h) over all scales, mean over directions, in double precision.

    Each direction of a part has a line through the mean and, ``zooms`` times, one at a random place that is so much
    shorter that its largest step is half the least of the one before. ``loss`` is "single" (mean of D over samples'
    own losses) and, for more than one sample, "losses averaged" and "probabilities averaged" over them.
    """
    network, state, batches = _in_double(run, frames, examples)
    posterior, count = perturbed(run.posterior, lambda state, _: _doubled(state)), run.posterior.distinct(samples)
    tables = {}
    for part, number in ((part, number) for part, many in directions.items() for number in range(many)):
        direction, middle, reach = direction_in(network, state, part, number), 0.0, radius[part]
        for _ in range(1 + zooms):
            alphas = np.linspace(-reach, reach, points)
            (averaged,), single = slices.sampled_losses(
                network, posterior, direction, middle + alphas, batches, [count], seeded(0)
            )
            lines = [("single", one) for one in single]
            if count > 1:
                lines += [("losses averaged", single.mean(axis=0)), ("probabilities averaged", averaged)]
            found = [landscape.structure_function(alphas, losses).assign(loss=loss) for loss, losses in lines]
            tables[part, number, reach] = pd.concat(found)
            middle, reach = place_along(number, radius[part]), reach / 2 ** len(found[0])
    table = pd.concat(tables, names=["part", "direction", "reach"]).sort_values("step", kind="stable")
    by_step = table.groupby(["part", "loss", "step"], sort=False)["square"].mean()
    return by_step.to_frame()


def precision(run: Run, frames: Frames, place: Place, *, points: int, radius: float, examples: int) -> pd.DataFrame:
    """The largest difference, in nats, that double precision makes to the loss along one line."""
    alphas = np.linspace(-radius, radius, points)
    double, state, batches = _in_double(run, frames, examples)
    direction = direction_in(double, state, "all", 0)
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
        direction = direction_in(network, mean, part, number)
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
    batches = [(features.double(), labels) for features, labels in test_batches(frames, examples)]
    return run.network(frames).double(), _doubled(run.posterior.mean), batches


def _doubled(state: State) -> State:
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _distinct(run: Run, samples: list[int]) -> list[int]:
    return [count for count in samples if count <= run.posterior.distinct(max(samples))]


def _exponent_and_roughness(alphas: np.ndarray, losses: np.ndarray) -> dict[str, float]:
    return {"exponent": landscape.angularity_exponent(alphas, losses), "roughness": slices.roughness(losses)}
