"""The loss around a posterior: its slices, how angular they are, and what noise on the weights costs."""

import itertools

import numpy as np
import pandas as pd
import torch

from lib import posteriors, slices
from lib.experiment import Run
from lib.features import Frames
from lib.files import reading, written_aside
from lib.measures.common import Choices, test_batches
from lib.posteriors import MeanFieldGaussian

# The parameters of the hidden layers by what they do, from a part of their names; the others are the readout's.
GROUPS = {".linear.": "weights", ".norm.": "norm", ".leak": "leak", ".adaptation": "adaptation"}
GROUPS |= {".recurrent": "recurrent"}


def of_slices(run: Run, frames: Frames, chosen: Choices, **settings) -> dict[str, float]:
    """Roughness and angularity exponent of each kind of loss, averaged over the directions."""
    found: dict[str, list[float]] = {}
    for (loss, _), curve in sliced(run, frames, **settings).groupby(["loss", "direction"]):
        found.setdefault(f"roughness_{loss}", []).append(slices.roughness(curve["nll"].to_numpy()))
        exponent = slices.angularity_exponent(curve["alpha"].to_numpy(), curve["nll"].to_numpy())
        found.setdefault(f"exponent_{loss}", []).append(exponent)
    return {name: float(np.mean(values)) for name, values in found.items()}


def sliced(run: Run, frames: Frames, *, points: int, directions: int, radius: float, samples: int, examples: int):
    """Losses along lines through a run's mean, of the point and, where there is a spread, averaged over it.

    The columns of ``slices.curves``. Kept in the run's folder.
    """
    path = run.folder / f"slices-{points}-{directions}-{radius:g}-{samples}-{examples}.csv"
    if not path.exists():
        batches = test_batches(frames, examples)
        spread = run.posterior if isinstance(run.posterior, MeanFieldGaussian) else None
        curves = slices.curves(
            {run.record["settings"]["method"]: posteriors.centre(run.posterior)}, spread, run.network(frames), batches,
            alphas=np.linspace(-radius, radius, points), directions=directions, samples=samples,
        )  # fmt: skip
        with written_aside(path) as aside:
            curves.to_csv(aside, index=False)
    with reading(path, "delete it and run again"):
        return pd.read_csv(path)


def rises(run: Run, frames: Frames, chosen: Choices, *, std: float, samples: int, examples: int) -> dict[str, float]:
    """What the same noise costs in nats on each group of a run's parameters, around its mean."""
    network, test = run.network(frames), frames.part("test")
    groups: dict[str, list[str]] = {}
    for name, _ in network.named_parameters():
        group = next((group for part, group in GROUPS.items() if part in name), "readout")
        groups.setdefault(group, []).append(name)
    return {
        f"rise_{group}": slices.rise_under_noise(
            network, posteriors.centre(run.posterior), names, std, test.features[:examples], test.labels[:examples],
            samples, torch.Generator().manual_seed(0),
        ).mean
        for group, names in groups.items()
    }  # fmt: skip


def angularity(
    run: Run,
    frames: Frames,
    chosen: Choices,
    *,
    points: int,
    directions: int,
    radius: float,
    counts: list[int],
    examples: int,
) -> dict[str, float]:
    """The measures of ``slices.angularity`` of the loss averaged over the first 1, 2, ... draws of the posterior.

    Each averaged over random directions of unit norm in all weights, in the hidden layers' and in the readout's, the
    same for all networks of a shape; of a point there is one draw. Columns such as exponent_hidden_of_8.
    """
    curves = angular_curves(
        run, frames, points=points, directions=directions, radius=radius, counts=counts, examples=examples
    )
    found: dict[str, list[float]] = {}
    for (part, count, _), curve in curves.groupby(["part", "count", "direction"]):
        alphas, losses = curve["alpha"].to_numpy(), curve["nll"].to_numpy()
        jumps = slices.jumps(alphas, losses)
        values = {
            "exponent": slices.angularity_exponent(alphas, losses),
            "roughness": slices.roughness(losses),
            "excess": slices.excess_variation(losses),
            "jumps": jumps.number,
            "jump_size": jumps.size,
            "residual": slices.quadratic_residual(alphas, losses),
        }
        for name, value in values.items():
            found.setdefault(f"{name}_{part}_of_{count}", []).append(value)
    return {name: float(np.nanmean(values)) for name, values in found.items() if not np.isnan(values).all()}


def angular_curves(
    run: Run, frames: Frames, *, points: int, directions: int, radius: float, counts: list[int], examples: int
) -> pd.DataFrame:
    """Losses along lines through a run's posterior: part, direction, count, alpha, nll. Kept in the run's folder."""
    path = run.folder / f"angularity-{points}-{directions}-{radius:g}-{'-'.join(map(str, counts))}-{examples}.csv"
    if not path.exists():
        network, batches = run.network(frames), test_batches(frames, examples)
        alphas = np.linspace(-radius, radius, points)
        kept = [count for count in counts if count <= posteriors.samples_needed(run.posterior, max(counts))]
        rows = []
        for part, number in itertools.product(slices.PARTS, range(directions)):
            generator = torch.Generator().manual_seed(number)
            direction = slices.random_direction(slices.parameters_of(network, part), generator)
            drawn = torch.Generator().manual_seed(0)
            losses = slices.bayesian_losses(network, run.posterior, direction, alphas, batches, kept, drawn)
            rows += [
                {"part": part, "direction": number, "count": count, "alpha": alpha, "nll": nll}
                for count, curve in zip(kept, losses, strict=True)
                for alpha, nll in zip(alphas, curve, strict=True)
            ]
        with written_aside(path) as aside:
            pd.DataFrame(rows).to_csv(aside, index=False)
    with reading(path, "delete it and run again"):
        return pd.read_csv(path)
