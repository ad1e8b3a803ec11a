"""What predictions are worth beyond the mean score: in noise, of the never heard, by their number, at their cost."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lib import experiment, metrics, posteriors
from lib.experiment import Run
from lib.features import Frames
from lib.measures.common import Choices, predicted
from lib.posteriors import PointMass, network_state


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


def at_centre(run: Run, frames: Frames, chosen: Choices) -> dict[str, float]:
    """Accuracy (percent) and NLL of the network at the posterior's mean, without any noise; of a mixture the first."""
    test = frames.part("test")
    point = PointMass(posteriors.centre(run.posterior))
    probabilities = posteriors.predict(run.network(frames), point, test.features, 1, torch.Generator())
    figures = metrics.summary(probabilities, test.labels)
    return {f"{name}_at_centre": figures[name] for name in ("accuracy", "nll")}


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
