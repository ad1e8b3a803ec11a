"""Averages over trained networks: of several seeds (Lakshminarayanan et al. 2017), of dropout's masks (Gal 2016)."""

from dataclasses import dataclass

from lib.methods.adam import Adam
from lib.methods.base import Derived
from lib.methods.families import NoisyNetwork
from lib.posteriors import Mixture

MEMBERS = 5


@dataclass(frozen=True)
class Ensemble(
    Derived, name="ensemble", label=f"Ensemble of {MEMBERS}", colour="#000000", marker="*", made_of=(Adam,) * MEMBERS
):
    """A deep ensemble: networks of several seeds, averaged."""

    def derive(self, network, bases, training, validation, seed, copies=0) -> Mixture:
        return Mixture(bases)


@dataclass(frozen=True)
class MCDropout(Derived, name="dropout", label="MC dropout", colour="#0D776D", marker="P", made_of=(Adam,)):
    """The trained network, its dropout left on. Raises ``ValueError`` for a network without dropout."""

    def derive(self, network, bases, training, validation, seed, copies=0) -> NoisyNetwork:
        if network.dropout.p == 0:
            raise ValueError("MC dropout needs a network that was trained with dropout: choose a dropout above 0")
        return NoisyNetwork(*bases)
