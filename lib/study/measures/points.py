"""The loss of the network at the posterior's mean, so close by that each jump stands alone, and its gradient."""

import itertools

import numpy as np
import pandas as pd
from torch import nn

from lib import landscape, slices
from lib.features import Frames
from lib.posteriors import State
from lib.runs import Run
from lib.slices import Batches
from lib.study.measures.common import Place, over_directions, test_batches, unit_direction


def fine_slices(
    run: Run, frames: Frames, place: Place, *, points: int, directions: int, radius: float, examples: int
) -> dict[str, pd.DataFrame]:
    """Number and mean size of the jumps along short lines in each part, in double precision; and the lines."""
    network, state, batches = _in_double(run, frames, examples)
    alphas = np.linspace(-radius, radius, points)
    tables = []
    for part, number in itertools.product(landscape.PARTS, range(directions)):
        direction = unit_direction(network, state, part, number)
        losses = slices.deterministic_loss(network, state, direction, alphas, batches)
        tables.append(pd.DataFrame({"part": part, "direction": number, "alpha": alphas, "nll": losses}))
    lines = pd.concat(tables)

    def values(alphas: np.ndarray, losses: np.ndarray) -> dict[str, float]:
        jumps = landscape.jumps(alphas, losses)
        return {"jumps": jumps.number, "jump_size": jumps.size}

    drawn = lines.set_index(["part", "direction", "alpha"])
    return {"fine_slices": over_directions(lines, values), "fine_slices_lines": drawn}


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
    tables = []
    for part, number in itertools.product(landscape.PARTS, range(directions)):
        direction = unit_direction(network, mean, part, number)
        found = landscape.surrogate_alignment(network, mean, direction, batches, steps)
        tables.append(pd.DataFrame({"part": part, "direction": number, "step": steps} | found._asdict()))
    slopes = pd.concat(tables)
    rows = []
    for (part, step), of_step in slopes.groupby(["part", "step"], sort=False):
        surrogate, finite = of_step["surrogate"].to_numpy(), of_step["finite"].to_numpy()
        correlation = np.corrcoef(surrogate, finite)[0, 1]
        slope = (surrogate * finite).sum() / (surrogate**2).sum()
        rows.append({"part": part, "step": step, "correlation": correlation, "slope": slope})
    summary = pd.DataFrame(rows).set_index(["part", "step"])
    return {"alignment": summary, "alignment_slopes": slopes.set_index(["part", "direction", "step"])}


def _in_double(run: Run, frames: Frames, examples: int) -> tuple[nn.Module, State, Batches]:
    """The run's network, its posterior's mean and the minibatches, in double precision."""
    mean = run.posterior.mean
    state = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in mean.items()}
    batches = [(features.double(), labels) for features, labels in test_batches(frames, examples)]
    return run.network(frames).double(), state, batches
