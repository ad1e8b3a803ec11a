"""Who survives the hardware: devices that differ, weights of few bits, spikes that get lost."""

import itertools
from functools import partial

import numpy as np
import torch

from lib import metrics, posteriors, robustness
from lib.experiment import Run
from lib.features import Frames
from lib.measures.common import Choices
from lib.networks import Classifier
from lib.networks.spiking import SpikingLayer
from lib.posteriors import Posterior, State


def on_hardware(
    run: Run,
    frames: Frames,
    chosen: Choices,
    *,
    mismatch: list[float],
    bits: list[int],
    lost: list[float],
    samples: int,
    devices: int,
) -> dict[str, float]:
    """Accuracy (percent) and NLL on the test part for each level of mismatch, number of bits and share of lost spikes.

    Means over devices, each of which runs all samples of the weights. Where neurons have no leaks and thresholds of
    their own, only weights are mismatched.
    """  # fmt: skip
    network = run.network(frames)
    freed = robustness.unbounded(network)
    spiking = any(isinstance(layer, SpikingLayer) for layer in network.layers)
    kinds = robustness.KINDS if spiking else ("weights",)
    found = {}
    for what, level in itertools.product(kinds, mismatch):
        changed = [on_device(run.posterior, partial(mismatched, network, what, level), n) for n in range(devices)]
        device = network if what == "weights" else freed
        found[f"{what}_{level:g}"] = [figures_of(run, frames, device, posterior, samples) for posterior in changed]
    for number in bits:
        changed = on_device(run.posterior, partial(quantised, network, number), 0)
        found[f"bits_{number}"] = [figures_of(run, frames, network, changed, samples)]
    for probability in lost:
        of_devices = []
        for device in range(devices):
            with robustness.dropping_spikes(network, probability, torch.Generator().manual_seed(device)):
                of_devices.append(figures_of(run, frames, network, run.posterior, samples))
        found[f"lost_{probability:g}"] = of_devices
    return {
        f"{figure}_{name}": float(value)
        for name, values in found.items()
        for figure, value in zip(("accuracy", "nll"), np.mean(values, axis=0), strict=True)
    }


def sizes(run: Run, frames: Frames, chosen: Choices) -> dict[str, float]:
    """At the posterior's centre: the root mean square of all weights between units, and where the leaks stand.

    ``leak`` is their mean as the network uses them, ``longest_leaks`` the share of them at the upper end of the range.
    """
    network, centre = run.network(frames), posteriors.centre(run.posterior)
    weights = torch.cat([centre[name].flatten() for name in robustness.weight_matrices(network)])
    found = {"weight_size": float(weights.square().mean().sqrt())}
    low, high = robustness.RANGES["leak"]
    if leaks := [tensor for name, tensor in centre.items() if name.endswith(".leak")]:
        held = torch.cat(leaks).clamp(low, high)
        found |= {"leak": float(held.mean()), "longest_leaks": float((held == held.new_tensor(high)).float().mean())}
    return found


def on_device(posterior: Posterior, change: robustness.Change, device: int) -> Posterior:
    """The same change of every sample: a device has the flaws that it has."""
    return robustness.disturbed(posterior, lambda state, _: change(state, torch.Generator().manual_seed(device)))


def mismatched(network: Classifier, what: str, level: float, state: State, generator: torch.Generator) -> State:
    return robustness.mismatched(state, network, what, level, generator)


def quantised(network: Classifier, bits: int, state: State, generator: torch.Generator) -> State:
    return robustness.quantised(state, robustness.weight_matrices(network), bits)


def figures_of(
    run: Run, frames: Frames, network: Classifier, posterior: Posterior, samples: int
) -> tuple[float, float]:
    test = frames.part("test")
    generator = torch.Generator().manual_seed(run.record["settings"]["seed"])
    count = posteriors.samples_needed(run.posterior, samples)
    probabilities = posteriors.predict(network, posterior, test.features, count, generator)
    return 100 * metrics.accuracy(probabilities, test.labels), metrics.negative_log_likelihood(
        probabilities, test.labels
    )
