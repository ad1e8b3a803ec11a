"""What a study measures of a run beside Table 1's columns, each by its name in the study's file.

A measure is given the run, the frames that it was trained on, the choices that they and it follow from, and its own
settings; it returns columns of the run's row. Some take them from a table (``TABLES``), given the same but the choices.
"""

from lib import posteriors
from lib.experiment import Run
from lib.features import Frames
from lib.measures.angularity import (
    agreement,
    close_lines,
    first_lines,
    jitter,
    of_angularity,
    plane,
    precision,
    slopes,
    surface,
    twice,
    zoom,
)
from lib.measures.common import Choices
from lib.measures.hardware import on_hardware, sizes
from lib.measures.landscape import lengths, of_slices, rises
from lib.measures.predictions import at_centre, by_samples, cost, in_noise, unheard
from lib.networks import activity


def progress(run: Run, frames: Frames, chosen: Choices) -> dict[str, float]:
    """Had training come to its end? The best epoch, the losses there, and the share of the rate at the end."""
    best = run.history.loc[run.history["validation_loss"].idxmin()]
    rates = run.history["learning_rate"]
    losses = {name: float(best[name]) for name in ("train_loss", "validation_loss")}
    return {"epoch": int(best["epoch"])} | losses | {"rate_left": float(rates.iloc[-1] / rates.iloc[0])}


def of_activity(run: Run, frames: Frames, chosen: Choices) -> dict[str, float]:
    """Spikes, operations and energy of an utterance, at the posterior's mean."""
    return activity.measures(run.network(frames), posteriors.centre(run.posterior), frames.part("test").features)


MEASURES = {
    "progress": progress,
    "activity": of_activity,
    "slices": of_slices,
    "noise": rises,
    "lengths": lengths,
    "angularity": of_angularity,
    "zoom": zoom,
    "precision": precision,
    "surface": surface,
    "jitter": jitter,
    "agreement": agreement,
    "on_hardware": on_hardware,
    "sizes": sizes,
    "in_noise": in_noise,
    "unheard": unheard,
    "by_samples": by_samples,
    "at_centre": at_centre,
    "cost": cost,
}
TABLES = {"angularity": first_lines, "zoom": close_lines, "surface": plane, "jitter": twice, "agreement": slopes}
