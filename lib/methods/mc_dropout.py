"""MC dropout (Gal & Ghahramani 2016)."""

from dataclasses import dataclass
from typing import ClassVar

from lib.methods.adam import Adam
from lib.methods.base import Derived
from lib.methods.families import NoisyNetwork


@dataclass(frozen=True)
class MCDropout(Derived):
    """The trained network, its dropout left on. Raises ``ValueError`` for a network without dropout."""

    name: ClassVar = "dropout"
    label: ClassVar = "MC dropout"
    colour: ClassVar = "#0D776D"
    marker: ClassVar = "P"
    made_of: ClassVar = (Adam,)

    def derive(self, network, bases, training, validation, seed, copies=0) -> NoisyNetwork:
        if network.dropout.p == 0:
            raise ValueError("MC dropout needs a network that was trained with dropout: choose a dropout above 0")
        (base,) = bases
        return NoisyNetwork(base)
