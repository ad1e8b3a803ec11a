"""How angular the loss around a posterior is, along lines and over a plane, and what noise on the weights costs.

All losses of a run are taken on the same utterances, with the same noise at every point unless said otherwise.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from lib import landscape, slices
from lib.features import Frames
from lib.hardware import perturbed
from lib.posteriors import MeanFieldGaussian
from lib.runs import Run
from lib.study.measures.common import Place, first_direction, over_directions, seeded, test_batches, unit_direction


def of_slices(
    run: Run, frames: Frames, place: Place, *, points: int, directions: int, radius: float, samples: int, examples: int
) -> pd.DataFrame:
    """Roughness and exponent of the point's loss and of a Gaussian's average, over lines through the mean."""
    std = run.posterior.std if isinstance(run.posterior, MeanFieldGaussian) else None
    lines = slices.curves(
        run.network(frames), {run.setup.method.name: run.posterior.mean}, std, test_batches(frames, examples),
        alphas=np.linspace(-radius, radius, points), directions=directions, samples=samples,
    )  # fmt: skip
    return over_directions(lines.drop(columns="method"), _exponent_and_roughness)


def angularity(
    run: Run, frames: Frames, place: Place, *, directions: dict[str, int], points: int, radius: float,
    samples: list[int], examples: int,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """Measures of ``lib.landscape`` of the loss averaged over the first 1, 2, ... samples, along lines in each part.

    ``directions`` says how many lines there are in each part; directions have unit norm, so ``radius`` is in the units
    of the weights. Of a point there is one sample. ``angularity_lines`` are those along the first direction.
    """
    network, batches = run.network(frames), test_batches(frames, examples)
    alphas, counts = np.linspace(-radius, radius, points), _distinct(run, samples)
    tables = []
    for part, number in ((part, number) for part, many in directions.items() for number in range(many)):
        direction = unit_direction(network, run.posterior.mean, part, number)
        losses = slices.bayesian_losses(network, run.posterior, direction, alphas, batches, counts, seeded(0))
        tables += [
            pd.DataFrame({"part": part, "direction": number, "samples": count, "alpha": alphas, "nll": line})
            for count, line in zip(counts, losses, strict=True)
        ]
    lines = pd.concat(tables)

    def values(alphas: np.ndarray, losses: np.ndarray) -> dict[str, float]:
        excess, residual = landscape.excess_variation(losses), landscape.quadratic_residual(alphas, losses)
        return _exponent_and_roughness(alphas, losses) | {"excess": excess, "residual": residual}

    drawn = first_direction(lines, ["part", "direction", "samples"])
    return {"angularity": over_directions(lines, values), "angularity_lines": drawn}


def loss_surface(
    run: Run, frames: Frames, place: Place, *, points: int, radius: float, samples: list[int], examples: int
) -> dict[str, pd.DataFrame]:
    """The loss over the plane of the first two directions in all weights, and its range for the most samples."""
    network, batches = run.network(frames), test_batches(frames, examples)
    first, second = (unit_direction(network, run.posterior.mean, "all", number) for number in range(2))
    along, counts = np.linspace(-radius, radius, points), _distinct(run, samples)
    tables = []
    for beta in along:
        there = perturbed(run.posterior, lambda state, _, beta=beta: slices.moved(state, second, float(beta)))
        losses = slices.bayesian_losses(network, there, first, along, batches, counts, seeded(0))
        tables += [
            pd.DataFrame({"samples": count, "beta": beta, "alpha": along, "nll": row})
            for count, row in zip(counts, losses, strict=True)
        ]
    plane = pd.concat(tables)
    of_most = plane[plane["samples"] == max(counts)]["nll"]
    found = pd.DataFrame([{"samples": max(counts), "range": np.ptp(of_most)}]).set_index("samples")
    return {"loss_surface": found, "loss_surface_points": plane.set_index(["samples", "beta", "alpha"])}


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
    lines = pd.concat(
        pd.DataFrame({"noise": noise, "direction": 0, "alpha": alphas, "nll": losses})
        for noise, losses in {"same": loss(alphas, 0), "fresh": fresh}.items()
    )
    drawn = first_direction(lines, ["noise"])[["nll"]]
    return {"noise_comparison": over_directions(lines, _exponent_and_roughness), "noise_comparison_lines": drawn}


def sharpness(run: Run, frames: Frames, place: Place, *, std: float, samples: int, examples: int) -> pd.DataFrame:
    """What the same noise costs in nats on each group of a run's parameters, and on "all", around its mean.

    ``mean`` is over samples of the noise, ``worst`` the worst of them.
    """
    network, test = run.network(frames), frames.part("test")
    groups = {"all": [name for name, _ in network.named_parameters()]} | landscape.parameter_groups(network)
    rows = {
        group: landscape.sharpness(
            network, run.posterior.mean, names, std, test.features[:examples], test.labels[:examples], samples,
            seeded(0),
        )._asdict()
        for group, names in groups.items()
    }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("group")


def _distinct(run: Run, samples: list[int]) -> list[int]:
    return [count for count in samples if count <= run.posterior.distinct(max(samples))]


def _exponent_and_roughness(alphas: np.ndarray, losses: np.ndarray) -> dict[str, float]:
    return {"exponent": landscape.angularity_exponent(alphas, losses), "roughness": slices.roughness(losses)}
