"""Spiking neurons: pure functions from input current to spikes, over [time, batch, units], that start from rest.

Those of the baseline (Bittar & Garner 2022, Frontiers in Neuroscience 16:865897), and the ranges to which it holds
their parameters.
"""

import math

from lib.neurons.adlif import adlif, adlif_potential
from lib.neurons.lif import lif, lif_potential
from lib.neurons.radlif import radlif, radlif_potential
from lib.neurons.recurrence import without_self
from lib.neurons.rlif import rlif, rlif_potential
from lib.neurons.surrogate import boxcar

__all__ = [
    "ADAPTATION_LEAK_RANGE",
    "ADAPTATION_POTENTIAL_RANGE",
    "ADAPTATION_SPIKE_RANGE",
    "LEAK_RANGE",
    "adlif",
    "adlif_potential",
    "boxcar",
    "lif",
    "lif_potential",
    "radlif",
    "radlif_potential",
    "rlif",
    "rlif_potential",
    "without_self",
]

# Membrane time constants of 5 to 25 steps, and the adaptation current's of 30 to 120.
LEAK_RANGE = (math.exp(-1 / 5), math.exp(-1 / 25))
ADAPTATION_LEAK_RANGE = (math.exp(-1 / 30), math.exp(-1 / 120))
# What the adaptation current gains from a unit of potential, and from a spike.
ADAPTATION_POTENTIAL_RANGE = (-1.0, 1.0)
ADAPTATION_SPIKE_RANGE = (0.0, 2.0)
