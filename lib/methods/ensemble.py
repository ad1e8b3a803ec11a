"""Deep ensembles (Lakshminarayanan et al. 2017)."""

from dataclasses import dataclass
from typing import ClassVar

from lib.methods.adam import Adam
from lib.methods.base import Derived
from lib.posteriors import Mixture

MEMBERS = 5


@dataclass(frozen=True)
class Ensemble(Derived):
    """Networks of several seeds, averaged."""

    name: ClassVar = "ensemble"
    label: ClassVar = f"Ensemble of {MEMBERS}"
    colour: ClassVar = "#000000"
    marker: ClassVar = "*"
    made_of: ClassVar = (Adam,) * MEMBERS

    def derive(self, network, bases, training, validation, seed, copies=0) -> Mixture:
        return Mixture(bases)
