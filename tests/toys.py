"""What several tests train on: a toy task of a few neurons, and what must be the same of two outcomes."""

from types import SimpleNamespace

import pandas as pd
import torch
from torch import nn

from lib.methods import METHODS
from lib.network import SpikingClassifier
from lib.networks import NetworkSettings
from lib.posteriors import Mixture

# Settings under which a method learns the toy within a few epochs.
SETTINGS = {
    "map": {"learning_rate": 0.02, "weight_decay": 1e-4},
    "ivon": {
        "learning_rate": 0.2, "weight_decay": 1e-4, "ess_factor": 5.0, "hess_init": 1.0, "beta2": 0.999,
        "freeze_norm_after": None,
    },
    "bbb": {"learning_rate": 0.02, "alpha": 0.1, "initial_std": 0.05},
    "swag": {"learning_rate": 0.02, "weight_decay": 1e-4, "swag_from": 1, "swag_learning_rate": 0.01, "rank": 2},
    "sgd": {"learning_rate": 0.2, "weight_decay": 1e-4, "freeze_norm_after": None},
    "sbnn": {"learning_rate": 0.02},
}  # fmt: skip
LOOP = ("epochs", "seed", "objective", "checkpoint", "after_epoch", "copies")


def toy(utterances, seed, num_classes=3):
    """Each class a constant current into an input of its own, in noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(utterances) % num_classes
    features = torch.randn(utterances, 10, num_classes, generator=generator)
    return SimpleNamespace(features=features + 2 * nn.functional.one_hot(labels)[:, None], labels=labels)


def seed(number):
    return torch.Generator().manual_seed(number)


class Noisy(Mixture):
    """Under which the network's own randomness stays on."""

    noisy = True


TRAINING, VALIDATION = toy(26, seed=1), toy(9, seed=2)


def network_of(seed=0, dropout=0.2, method="map"):
    torch.manual_seed(seed)
    if method == "sbnn":
        return METHODS["sbnn"]().network(NetworkSettings((6, 5), neuron="rlif"), 3, 3)
    network = SpikingClassifier(3, 3, (8, 6), dropout=dropout)
    with torch.no_grad():
        for layer in network.layers:  # fire from the first epoch on
            layer.norm.weight.fill_(6)
            layer.norm.bias.fill_(1)
    return network


def train(method, network=None, training=TRAINING, validation=VALIDATION, **changes):
    """``changes`` are settings of the method or of the loop."""
    given = SETTINGS[method] | {"epochs": 4, "batch_size": 8, "patience": 1, "seed": 3} | changes
    loop = {name: given.pop(name) for name in LOOP if name in given}
    network = network or network_of(method=method)
    return METHODS[method].from_mapping(given).train(network, training, validation, **loop)


def tensors_of(posterior):
    posterior = getattr(posterior, "weights", posterior)
    return {f"{kind} of {name}": tensor for kind, state in vars(posterior).items() for name, tensor in state.items()}


def assert_same_outcome(first, second):
    """Posterior and history to the bit; only the seconds may differ."""
    assert type(first[0]) is type(second[0])
    one, two = tensors_of(first[0]), tensors_of(second[0])
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name
    pd.testing.assert_frame_equal(first[1].drop(columns="seconds"), second[1].drop(columns="seconds"), check_exact=True)


def interrupting(epoch):
    """An ``after_epoch`` that raises after this one."""

    def interrupt(row):
        if row["epoch"] == epoch:
            raise KeyboardInterrupt

    return interrupt
