"""What a trained network is: how its training ended, what goes on in it, how large its weights are, what it costs."""

from dataclasses import replace
from timeit import timeit

import pandas as pd
import torch

from lib import hardware, landscape, methods, posteriors, runs
from lib.features import Frames
from lib.networks import activity as activities
from lib.posteriors import MeanFieldGaussian, PointMass, network_state
from lib.runs import Run
from lib.study.measures.common import Place


def progress(run: Run, frames: Frames, place: Place) -> pd.DataFrame:
    """Had training come to its end? The best epoch, how good it was, and the share of the learning rate at the end."""
    best = run.history.loc[run.history["validation_loss"].idxmin()]
    rates = run.history["learning_rate"]
    figures = {name: best[name] for name in ("train_loss", "validation_loss", "validation_accuracy")}
    return pd.DataFrame([{"epoch": int(best["epoch"])} | figures | {"rate_left": rates.iloc[-1] / rates.iloc[0]}])


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
