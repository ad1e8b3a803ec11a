"""What a run's predictions are worth: on the test part, in noise, on classes held out, by samples, on hardware."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
from torch import Tensor, nn

from lib import hardware as of_device
from lib import metrics, posteriors, runs, statistics
from lib.features import Frames
from lib.network import SpikingLayer
from lib.posteriors import PointMass, Posterior
from lib.runs import Run
from lib.study.measures.common import Place, seeded


def evaluation(run: Run, frames: Frames, place: Place, *, samples: int, bins: int) -> pd.DataFrame:
    """The measures of Table 1: accuracy in percent, the number of correct answers and of utterances, nll, ..."""
    return pd.DataFrame([runs.evaluate(run, frames, samples, bins).figures])


def utterances(run: Run, frames: Frames, place: Place, *, samples: int, bins: int) -> pd.DataFrame:
    """What the averaged prediction of each utterance of the test part is worth, to four digits."""
    found = runs.evaluate(run, frames, samples, bins)
    scores = metrics.utterance_scores(found.probabilities, found.labels).drop(columns="mutual_information")
    return scores.map(lambda value: float(f"{value:.4g}")).astype({"correct": int}).rename_axis("utterance")


def on_validation(run: Run, frames: Frames, place: Place, *, samples: int) -> pd.DataFrame:
    """The measures of the validation part, where settings are chosen: ``validation_nll`` and its like."""
    part = frames.part("validation")
    found = metrics.summary(runs.predicted(run, frames, part.features, samples), part.labels)
    return pd.DataFrame([found]).add_prefix("validation_")


def snr_sweep(run: Run, frames: Frames, place: Place, *, snr: list[float], samples: int) -> pd.DataFrame:
    """Accuracy (percent), NLL, ECE and Brier score where noise is in the test part, at each ratio in dB."""
    rows = []
    for ratio in snr:
        test = place.frames(run.setup, ratio).part("test")
        rows.append(metrics.summary(runs.predicted(run, frames, test.features, samples), test.labels))
    return pd.DataFrame(rows, index=pd.Index(snr, name="snr"))[["accuracy", "nll", "ece", "brier"]]


def out_of_distribution(run: Run, frames: Frames, place: Place, *, samples: int) -> pd.DataFrame:
    """How well entropy and mutual information tell the test part from noise, and from held-out classes: AUROC.

    Noise has the power of the test part's utterances. There are held-out classes where the split leaves some out.
    """
    unknown = {"noise": place.frames(run.setup, -np.inf)}
    if (split := run.setup.data.split or "").startswith("without "):
        others = replace(run.setup.data, split=split.replace("without", "held-out", 1))
        unknown["held-out"] = place.frames(replace(run.setup, data=others))
    known = _uncertainties(runs.predicted(run, frames, frames.part("test").features, samples))
    rows = []
    for name, other in unknown.items():
        found = _uncertainties(runs.predicted(run, frames, other.part("test").features, samples))
        for kind in known:
            auroc = statistics.detection_auroc(known[kind].numpy(), found[kind].numpy())
            rows.append({"unknown": name, "uncertainty": kind, "auroc": auroc})
    return pd.DataFrame(rows).set_index(["unknown", "uncertainty"])


def sample_counts(run: Run, frames: Frames, place: Place, *, samples: list[int], methods: list[str]) -> pd.DataFrame:
    """NLL, Brier score and ECE of the average of the first 1, 2, ... of the same samples, for some of the methods.

    No more samples than there are different ones.
    """
    samples = [count for count in samples if count <= run.posterior.distinct(max(samples))]
    index, columns = pd.Index(samples, name="samples"), ["nll", "brier", "ece"]
    if run.setup.method.name not in methods:
        return pd.DataFrame(columns=columns, index=index[:0])
    test = frames.part("test")
    probabilities = runs.predicted(run, frames, test.features, max(samples))
    rows = [metrics.summary(probabilities[:count], test.labels) for count in samples]
    return pd.DataFrame(rows, index=index)[columns]


def posterior_mean_only(run: Run, frames: Frames, place: Place) -> pd.DataFrame:
    """Accuracy (percent) and NLL of the network at the posterior's mean, without any noise; of a mixture the first."""
    test = frames.part("test")
    point = PointMass(run.posterior.mean)
    probabilities = posteriors.predict(run.network(frames), point, test.features, 1, seeded(0))
    return pd.DataFrame([metrics.summary(probabilities, test.labels)])[["accuracy", "nll"]]


def hardware(
    run: Run, frames: Frames, place: Place, *, mismatch: list[float], bits: list[int], lost: list[float], samples: int,
    devices: int,
) -> pd.DataFrame:  # fmt: skip
    """Accuracy (percent) and NLL on the test part for each level of mismatch, number of bits and share of lost spikes.

    Means over devices, each of which runs all samples of the weights with the non-idealities that it has. Where neurons
    have no leaks and thresholds of their own, only weights are mismatched.
    """
    network, posterior, test = run.network(frames), run.posterior, frames.part("test")
    freed, matrices = of_device.without_bounds(network), of_device.weight_matrices(network)
    spiking = any(isinstance(layer, SpikingLayer) for layer in network.layers)

    def mismatched(kind: str, level: float, device: int) -> Posterior:
        return of_device.perturbed(
            posterior, lambda state, _: of_device.mismatched(state, network, kind, level, seeded(device))
        )

    def quantised(number: int) -> Posterior:
        return of_device.perturbed(posterior, lambda state, _: of_device.quantised(state, matrices, number))

    def row(kind: str, level: float, on: nn.Module, changed: Posterior) -> dict[str, str | float]:
        count, generator = posterior.distinct(samples), seeded(run.setup.seed)
        figures = metrics.summary(posteriors.predict(on, changed, test.features, count, generator), test.labels)
        return {"non_ideality": kind, "level": level} | {name: figures[name] for name in ("accuracy", "nll")}

    kinds = of_device.KINDS if spiking else ("weights",)
    rows = [
        row(kind, level, network if kind == "weights" else freed, mismatched(kind, level, device))
        for kind, level, device in itertools.product(kinds, mismatch, range(devices))
    ]
    rows += [row("bits", number, network, quantised(number)) for number in bits]
    for probability, device in itertools.product(lost, range(devices)):
        with of_device.dropping_spikes(network, probability, seeded(device)):
            rows.append(row("lost", probability, network, posterior))
    return pd.DataFrame(rows).groupby(["non_ideality", "level"], sort=False).mean()


def _uncertainties(probabilities: Tensor) -> dict[str, Tensor]:
    """Of each utterance the entropy, and for more than one sample the mutual information, in nats."""
    found = {"entropy": metrics.example_entropies(probabilities)}
    if len(probabilities) > 1:
        found["mutual_information"] = metrics.example_mutual_informations(probabilities)
    return found
