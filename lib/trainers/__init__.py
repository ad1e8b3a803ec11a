"""Trainers: from training data to a posterior over the network's weights, and the history of getting there."""

from lib.trainers.ivon import train_ivon
from lib.trainers.map import train_map

METHODS = {"map": train_map, "ivon": train_ivon}

__all__ = ["METHODS", "train_ivon", "train_map"]
