"""What a study measures of a run beside Table 1's columns, each by its name in the study's file.

A measure is given the run, the frames that it was trained on, the choices that they and it follow from, and its own
settings; it returns columns of the run's row.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib import experiment, metrics, posteriors, slices
from lib.experiment import Run
from lib.features import Frames
from lib.files import reading, written_aside
from lib.networks import activity
from lib.posteriors import MeanFieldGaussian, PointMass, network_state

# The parameters of the hidden layers by what they do, from a part of their names; the others are the readout's.
GROUPS = {".linear.": "weights", ".norm.": "norm", ".leak": "leak", ".adaptation": "adaptation"}
GROUPS |= {".recurrent": "recurrent"}

Choices = Mapping[str, Any]


def progress(run: Run, frames: Frames, chosen: Choices) -> dict[str, float]:
    """Had training come to its end? The best epoch, the losses there, and the share of the rate at the end."""
    best = run.history.loc[run.history["validation_loss"].idxmin()]
    rates = run.history["learning_rate"]
    losses = {name: float(best[name]) for name in ("train_loss", "validation_loss")}
    return {"epoch": int(best["epoch"])} | losses | {"rate_left": float(rates.iloc[-1] / rates.iloc[0])}


def of_activity(run: Run, frames: Frames, chosen: Choices) -> dict[str, float]:
    """Spikes, operations and energy of an utterance, at the posterior's mean."""
    return activity.measures(run.network(frames), posteriors.centre(run.posterior), frames.part("test").features)


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
        test = frames.part("test")
        batches = list(zip(test.features[:examples].split(64), test.labels[:examples].split(64), strict=True))
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
        )
        for group, names in groups.items()
    }  # fmt: skip


def in_noise(run: Run, frames: Frames, chosen: Choices, *, levels: list[float], samples: int) -> dict[str, float]:
    """Accuracy (percent), NLL, ECE and Brier score where noise is in the test part, at each ratio in dB."""
    row: dict[str, float] = {}
    for level in levels:
        test = experiment.load_frames(chosen, chosen["dataset"], snr=level).part("test")
        figures = metrics.summary(predicted(run, frames, test.features, samples), test.labels)
        row |= {f"{name}_at_{level:g}_db": figures[name] for name in ("accuracy", "nll", "ece", "brier")}
    return row


def unheard(run: Run, frames: Frames, chosen: Choices, *, samples: int) -> dict[str, float]:
    """How well entropy and mutual information tell the test part from noise, and from words never heard: AUROC.

    Noise has the power of the test part's utterances. There are words never heard where the split leaves some out.
    """
    test = frames.part("test").features
    kinds = {"noise": experiment.load_frames(chosen, chosen["dataset"], snr=-np.inf).part("test").features}
    if (split := chosen.get("split") or "").startswith("without "):
        others = chosen | {"split": split.replace("without", "unheard", 1)}
        kinds["words"] = experiment.load_frames(others, chosen["dataset"]).part("test").features
    known = uncertainties(predicted(run, frames, test, samples))
    row: dict[str, float] = {}
    for kind, features in kinds.items():
        unknown = uncertainties(predicted(run, frames, features, samples))
        row |= {
            f"auroc_{kind}_{measure}": metrics.detection_auroc(known[measure].numpy(), unknown[measure].numpy())
            for measure in known
        }
    return row


def uncertainties(probabilities: Tensor) -> dict[str, Tensor]:
    """Of each utterance the entropy, and for more than one sample the mutual information, in nats."""
    found = {"entropy": metrics.example_entropies(probabilities)}
    if len(probabilities) > 1:
        found["mutual_information"] = metrics.example_mutual_informations(probabilities)
    return found


def by_samples(run: Run, frames: Frames, chosen: Choices, *, counts: list[int], methods: list[str]) -> dict[str, float]:
    """NLL, Brier score and ECE of the average of the first 1, 2, … of the same draws, for some of the methods."""
    if run.record["settings"]["method"] not in methods:
        return {}
    test = frames.part("test")
    probabilities = predicted(run, frames, test.features, max(counts))
    return {
        f"{name}_of_{count}": value
        for count in counts
        for name, value in metrics.summary(probabilities[:count], test.labels).items()
        if name in ("nll", "brier", "ece")
    }


def cost(run: Run, frames: Frames, chosen: Choices, *, samples: int, utterances: int, repeats: int) -> dict[str, float]:
    """Seconds of training, bytes of the posterior, and the time of a prediction over one pass of the plain network.

    Both predictions in turn, the fastest of so many repeats of each.
    """
    features = frames.part("test").features[:utterances]
    plain = experiment.network_for(frames, chosen | {"method": "map", "dropout": 0.0})
    point, network, generator = PointMass(network_state(plain)), run.network(frames), torch.Generator()
    count = posteriors.samples_needed(run.posterior, samples)
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(seconds(lambda: posteriors.predict(network, run.posterior, features, count, generator)))
        theirs.append(seconds(lambda: posteriors.predict(plain, point, features, 1, generator)))
    return {
        "training_seconds": run.record["seconds"],
        "posterior_bytes": (run.folder / "posterior.pt").stat().st_size,
        "prediction_ratio": min(ours) / min(theirs),
    }


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def predicted(run: Run, frames: Frames, features: Tensor, samples: int) -> Tensor:
    """Probabilities [samples, utterances, classes], of no more samples than there are different ones."""
    generator = torch.Generator().manual_seed(run.record["settings"]["seed"])
    samples = posteriors.samples_needed(run.posterior, samples)
    return posteriors.predict(run.network(frames), run.posterior, features, samples, generator)


MEASURES = {
    "progress": progress,
    "activity": of_activity,
    "slices": of_slices,
    "noise": rises,
    "in_noise": in_noise,
    "unheard": unheard,
    "by_samples": by_samples,
    "cost": cost,
}
