"""What a trained network is: how its training ended, its activity, its weights and their spread, what it costs."""

from dataclasses import replace
from timeit import timeit

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib import hardware, landscape, methods, posteriors, runs
from lib.features import Frames
from lib.methods.ivon import IVON
from lib.networks import activity as activities
from lib.posteriors import MeanFieldGaussian, PointMass, network_state
from lib.runs import Run
from lib.study.measures.common import Place

# Epochs over which the end of training is looked at.
LAST = 5


def progress(run: Run, frames: Frames, place: Place) -> pd.DataFrame:
    """Had training come to its end? The best epoch, the losses there, and how far from its end the last epoch was.

    ``rate_left`` is the share of the learning rate that was left, ``slope`` that of the validation loss over the last
    ``LAST`` epochs, in nats an epoch: below zero it still fell. NaN for a single epoch.
    """
    losses, rates = run.history["validation_loss"], run.history["learning_rate"]
    best, last = run.history.loc[losses.idxmin()], losses.tail(LAST)
    found = {"epoch": int(best["epoch"])} | {
        name: best[name] for name in ("train_loss", "validation_loss", "validation_accuracy")
    }
    slope = np.polyfit(range(len(last)), last, 1)[0] if len(last) > 1 else np.nan
    return pd.DataFrame([found | {"rate_left": rates.iloc[-1] / rates.iloc[0], "slope": slope}])


def history(run: Run, frames: Frames, place: Place) -> pd.DataFrame:
    """The losses of each epoch: that of training while the weights moved, and the validation NLL at the epoch's end."""
    return run.history.set_index("epoch")[["train_loss", "validation_loss"]]


def activity(run: Run, frames: Frames, place: Place) -> dict[str, pd.DataFrame]:
    """Parameters, and of an utterance spikes, firing rate, operations and energy, at the posterior's mean.

    ``activity_layers`` has the firing rate of each hidden layer, first to last; without spikes it is empty.
    """
    found = activities.activity(run.network(frames), run.posterior.mean, frames.part("test").features)
    layers = {name: found.pop(name) for name in list(found) if name.startswith("firing_rate_")}
    index = pd.Index([int(name.rpartition("_")[2]) for name in layers], dtype=int, name="layer")
    rates = pd.DataFrame({"firing_rate": list(layers.values())}, index=index)
    return {"activity": pd.DataFrame([found]), "activity_layers": rates}


def weight_norms(run: Run, frames: Frames, place: Place) -> pd.DataFrame:
    """The units of a line: in each part the norm of the weights' means, and of a Gaussian that of their deviations."""
    network, states = run.network(frames), {"mean": run.posterior.mean}
    if isinstance(run.posterior, MeanFieldGaussian):
        states["std"] = run.posterior.std
    parts = [[name for name, _ in landscape.parameters_of(network, part)] for part in landscape.PARTS]
    norms = {name: [landscape.weight_norm(state, part) for part in parts] for name, state in states.items()}
    return pd.DataFrame(norms, index=pd.Index(landscape.PARTS, name="part"))


def spread(run: Run, frames: Frames, place: Place) -> pd.DataFrame:
    """Of a Gaussian the standard deviations, by group of parameters, by hidden layer, and of all; else no row.

    ``std`` is their mean, ``variation`` their standard deviation over it: 0 where they are the ones that were put in.
    ``curvature`` is the mean of IVON's h at the end over ``hess_init``, where it began; without IVON it is NaN.
    """
    posterior, network = run.posterior, run.network(frames)
    stds = posterior.std if isinstance(posterior, MeanFieldGaussian) else {}
    groups = landscape.parameter_groups(network)
    for number, (name, _) in enumerate(network.layers.named_children(), start=1):
        groups[f"layer {number}"] = [one for one in stds if one.startswith(f"layers.{name}.")]
    rows = {}
    for group, names in (groups | {"all": list(stds)}).items():
        if found := [stds[name].double() for name in names if name in stds]:
            std, moved = torch.cat([one.flatten() for one in found]), np.nan
            if isinstance(run.setup.method, IVON):
                moved = float(torch.cat([curvature(run, frames, one).flatten() for one in found]).mean())
            rows[group] = {"std": float(std.mean()), "variation": float(std.std() / std.mean()), "curvature": moved}
    return pd.DataFrame.from_dict(rows, "index", columns=["std", "variation", "curvature"]).rename_axis("group")


def curvature(run: Run, frames: Frames, std: Tensor) -> Tensor:
    """h over ``hess_init``, by equation 11: ``std^2 = 1 / (ess (h + weight_decay))``; vectors do not decay."""
    method, decay = run.setup.method, run.setup.method.weight_decay if std.ndim > 1 else 0.0
    ess = method.ess_factor * len(frames.part("train").labels) / (1 + run.setup.copies)
    return (1 / (ess * std**2) - decay) / method.hess_init


def weight_rms(run: Run, frames: Frames, place: Place) -> pd.DataFrame:
    """At the posterior's mean: the root mean square of all weights between units, and where the leaks stand."""
    network, mean = run.network(frames), run.posterior.mean
    weights = torch.cat([mean[name].flatten() for name in hardware.weight_matrices(network)])
    return pd.DataFrame([{"weights": float(weights.square().mean().sqrt())} | activities.leaks(network, mean)])


def cost(run: Run, frames: Frames, place: Place, *, samples: int, utterances: int, repeats: int) -> pd.DataFrame:
    """Seconds of training, bytes of the posterior, and the time of a prediction over one pass of the plain network.

    Both predictions in turn, the fastest of so many repeats of each.
    """
    features = frames.part("test").features[:utterances]
    plain = runs.network_for(replace(run.setup, method=methods.get("map").from_mapping({"dropout": 0.0})), frames)
    point, network, generator = PointMass(network_state(plain)), run.network(frames), torch.Generator()
    count = run.posterior.distinct(samples)
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(timeit(lambda: posteriors.predict(network, run.posterior, features, count, generator), number=1))
        theirs.append(timeit(lambda: posteriors.predict(plain, point, features, 1, generator), number=1))
    size = (run.folder / "posterior.pt").stat().st_size
    found = {"training_seconds": run.record["seconds"], "posterior_bytes": size}
    return pd.DataFrame([found | {"prediction_ratio": min(ours) / min(theirs)}])
