"""Methods: the paper's two, Adam and IVON, and what they are compared with. A method is a file, and a line here."""

from lib.methods.adam import Adam
from lib.methods.base import Derived, Method
from lib.methods.bayes_by_backprop import BayesByBackprop
from lib.methods.ensemble import Ensemble, MCDropout
from lib.methods.ivon import IVON, IsotropicNoise, IVONMean, IVONNoise, IVONNoiseOnLive, IVONPermuted, IVONReestimated
from lib.methods.laplace import LastLayerLaplace
from lib.methods.sbnn import SBNN
from lib.methods.scaled import ScaledFilters, ScaledIsotropic, ScaledIVON
from lib.methods.sgd import SGD
from lib.methods.swag import SWAG
from lib.methods.temperature import IVONTemperature, Temperature

__all__ = ["METHODS", "Derived", "Method", "get"]

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        Adam,
        IVON,
        BayesByBackprop,
        SWAG,
        Temperature,
        MCDropout,
        Ensemble,
        LastLayerLaplace,
        IVONMean,
        IVONNoise,
        IVONNoiseOnLive,
        IsotropicNoise,
        SGD,
        IVONPermuted,
        IVONReestimated,
        IVONTemperature,
        ScaledIVON,
        ScaledIsotropic,
        ScaledFilters,
        SBNN,
    )
}
# Markers differ. Colours are at least 40 apart in CIELAB, and 23 without the red or the green cones (Machado et al.
# 2009), or the same: what changes a posterior's noise or temperature alone may have the colour of what it changes.


def get(name: str) -> type[Method]:
    """The method of this name. Raises ``ValueError`` that lists the names for another."""
    if name not in [*METHODS]:  # a list of names is none of them, and has no hash
        raise ValueError(f"unknown method {name!r}: choose one of {', '.join(METHODS)}")
    return METHODS[name]
