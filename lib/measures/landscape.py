"""The loss around a posterior: its slices, and what noise on the weights costs."""

import numpy as np
import pandas as pd
import torch

from lib import posteriors, slices
from lib.experiment import Run
from lib.features import Frames
from lib.measures.common import Choices, kept, test_batches
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

    def compute() -> pd.DataFrame:
        spread = run.posterior if isinstance(run.posterior, MeanFieldGaussian) else None
        return slices.curves(
            {run.record["settings"]["method"]: posteriors.centre(run.posterior)}, spread, run.network(frames),
            test_batches(frames, examples), alphas=np.linspace(-radius, radius, points), directions=directions,
            samples=samples,
        )  # fmt: skip

    settings = {"points": points, "directions": directions, "radius": radius, "samples": samples}
    return kept(run, "slices", settings | {"examples": examples}, compute)


def rises(run: Run, frames: Frames, chosen: Choices, *, std: float, samples: int, examples: int) -> dict[str, float]:
    """What the same noise costs in nats on each group of a run's parameters, and on all, around its mean.

    ``rise_`` is the mean over draws of the noise, ``worst_rise_`` the worst of them.
    """
    network, test = run.network(frames), frames.part("test")
    groups: dict[str, list[str]] = {"all": []}
    for name, _ in network.named_parameters():
        group = next((group for part, group in GROUPS.items() if part in name), "readout")
        groups.setdefault(group, []).append(name)
        groups["all"].append(name)
    found = {}
    for group, names in groups.items():
        found[f"rise_{group}"], found[f"worst_rise_{group}"] = slices.rise_under_noise(
            network, posteriors.centre(run.posterior), names, std, test.features[:examples], test.labels[:examples],
            samples, torch.Generator().manual_seed(0),
        )  # fmt: skip
    return found


def lengths(run: Run, frames: Frames, chosen: Choices) -> dict[str, float]:
    """The units of a line: the norm of the weights in each part, and of a Gaussian the length of its noise there."""
    network, posterior, found = run.network(frames), run.posterior, {}
    for part in slices.PARTS:
        names = [name for name, _ in slices.parameters_of(network, part)]
        found[f"norm_{part}"] = slices.length(posteriors.centre(posterior), names)
        if isinstance(posterior, MeanFieldGaussian):
            found[f"spread_{part}"] = slices.length(posterior.std, names)
    return found
