"""Posteriors: what weights can be sampled from. Evaluation, slices and every chapter take one as it is.

A *state* is a full set of a network's tensors by name: its parameters and its batch-norm statistics.
``sample`` returns one, and ``torch.func.functional_call`` takes it to the network, which is never changed.
"""

from lib.posteriors.families import (
    LowRankGaussian,
    MeanFieldGaussian,
    Mixture,
    NoisyNetwork,
    PointMass,
    Posterior,
    State,
)
from lib.posteriors.prediction import (
    batches_for,
    centre,
    device_of,
    draws,
    evaluating,
    network_state,
    on_device_of,
    predict,
    samples_needed,
)
from lib.posteriors.storage import FAMILIES, from_dict, load, save, store, to_dict

__all__ = [
    "FAMILIES",
    "LowRankGaussian",
    "MeanFieldGaussian",
    "Mixture",
    "NoisyNetwork",
    "PointMass",
    "Posterior",
    "State",
    "batches_for",
    "centre",
    "device_of",
    "draws",
    "evaluating",
    "from_dict",
    "load",
    "network_state",
    "on_device_of",
    "predict",
    "samples_needed",
    "save",
    "store",
    "to_dict",
]
