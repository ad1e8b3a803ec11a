"""Trainers: from training data to a posterior over the network's weights, and the history of getting there.

``METHODS`` train. ``DERIVED`` names, for each method that needs no training of its own, the methods of the finished
runs that it is made of, and ``make(network, bases, training, validation, seed)``, which returns the posterior. Where a
method is named several times, these are runs of as many seeds.
"""

from lib.trainers import derived, readout
from lib.trainers.bayes_by_backprop import train_bayes_by_backprop
from lib.trainers.ivon import train_ivon
from lib.trainers.map import train_map
from lib.trainers.sbnn import train_sbnn
from lib.trainers.swag import train_swag

METHODS = {
    "map": train_map,
    "ivon": train_ivon,
    "bbb": train_bayes_by_backprop,
    "swag": train_swag,
    "sbnn": train_sbnn,
}

MEMBERS = 5
DERIVED = {
    "temperature": (("map",), readout.temperature),
    "dropout": (("map",), derived.dropout),
    "ensemble": (("map",) * MEMBERS, derived.ensemble),
    "laplace": (("map",), readout.laplace),
    "ivon-mean": (("ivon",), derived.at_the_mean),
    "noise-ivon": (("map", "ivon"), derived.with_its_noise),
    "noise-isotropic": (("map", "ivon"), derived.with_isotropic_noise),
}

__all__ = ["DERIVED", "METHODS", "train_bayes_by_backprop", "train_ivon", "train_map", "train_sbnn", "train_swag"]
