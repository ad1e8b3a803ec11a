"""Who survives the hardware: devices that differ, weights of few bits, spikes that get lost."""

import itertools
from collections.abc import Iterator
from functools import partial

import pandas as pd
import torch
from torch import nn

from lib import hardware as of_device
from lib import metrics, posteriors
from lib.features import Frames
from lib.network import SpikingLayer
from lib.posteriors import Posterior, State
from lib.runs import Run
from lib.study.measures.common import Place, seeded


def hardware(
    run: Run, frames: Frames, place: Place, *, mismatch: list[float], bits: list[int], lost: list[float], samples: int,
    devices: int,
) -> pd.DataFrame:  # fmt: skip
    """Accuracy (percent) and NLL on the test part for each level of mismatch, number of bits and share of lost spikes.

    Means over devices, each of which runs all samples of the weights. Where neurons have no leaks and thresholds of
    their own, only weights are mismatched.
    """
    network, posterior = run.network(frames), run.posterior
    freed = of_device.without_clamping(network)
    spiking = any(isinstance(layer, SpikingLayer) for layer in network.layers)

    def found() -> Iterator[dict]:
        for kind, level in itertools.product(of_device.KINDS if spiking else ("weights",), mismatch):
            for device in range(devices):
                changed = _on_device(posterior, device, partial(_mismatched, network, kind, level))
                yield row(kind, level, network if kind == "weights" else freed, changed)
        matrices = of_device.weight_matrices(network)
        for number in bits:
            changed = _on_device(posterior, 0, partial(_quantised, matrices, number))
            yield row("bits", number, network, changed)
        for probability, device in itertools.product(lost, range(devices)):
            with of_device.dropping_spikes(network, probability, seeded(device)):
                yield row("lost", probability, network, posterior)

    def row(kind: str, level: float, on: nn.Module, changed: Posterior) -> dict:
        test, generator = frames.part("test"), seeded(run.setup.seed)
        probabilities = posteriors.predict(on, changed, test.features, posterior.distinct(samples), generator)
        figures = metrics.summary(probabilities, test.labels)
        return {"non_ideality": kind, "level": level} | {name: figures[name] for name in ("accuracy", "nll")}

    return pd.DataFrame(found()).groupby(["non_ideality", "level"], sort=False).mean()


def _on_device(posterior: Posterior, device: int, change: of_device.Change) -> Posterior:
    """The same change of every sample: a device has the non-idealities that it has."""
    return of_device.perturbed(posterior, lambda state, _: change(state, seeded(device)))


def _mismatched(network: nn.Module, kind: str, level: float, state: State, generator: torch.Generator) -> State:
    return of_device.mismatched(state, network, kind, level, generator)


def _quantised(matrices: list[str], bits: int, state: State, generator: torch.Generator) -> State:
    return of_device.quantised(state, matrices, bits)
