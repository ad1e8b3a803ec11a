"""Spiking neurons beside the paper's LIF: those of its baseline (Bittar & Garner 2022), one without
a threshold, and SBNN's drawn ones.

A neuron is a file: a pure function from input current to spikes, both [time, batch, units], that starts from rest; and
the layer of such neurons. Adding one is that file, and a line here.
"""

from lib.network import SpikingLayer
from lib.neurons.adlif import AdLIFLayer
from lib.neurons.qif import QIFLayer
from lib.neurons.radlif import RadLIFLayer
from lib.neurons.rlif import RLIFLayer

NEURONS: dict[str, type[SpikingLayer]] = {
    "lif": SpikingLayer,
    "adlif": AdLIFLayer,
    "rlif": RLIFLayer,
    "radlif": RadLIFLayer,
    "qif": QIFLayer,
}
