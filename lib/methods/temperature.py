"""Temperature scaling (Guo et al. 2017)."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch.nn.functional import cross_entropy

from lib.methods.adam import Adam
from lib.methods.base import Derived
from lib.methods.readout import readout_inputs, readout_of
from lib.posteriors import PointMass

TEMPERATURES = (0.01, 100.0)


@dataclass(frozen=True)
class Temperature(Derived, name="temperature", label="Temperature", colour="#25D8FE", marker="v", made_of=(Adam,)):
    """The network with its logits over the temperature that has the lowest validation NLL.

    The readout is linear, so that it takes the temperature in.
    """

    def derive(self, network, bases, training, validation, seed, copies=0) -> PointMass:
        (base,) = bases
        layer, inputs = readout_of(network, base.mean), readout_inputs(network, base.mean, validation)
        with torch.no_grad():
            logits = layer(inputs).double()
        labels = validation.labels.to(logits.device)
        found = minimize_scalar(
            lambda logarithm: float(cross_entropy(logits / np.exp(logarithm), labels)),
            bounds=np.log(TEMPERATURES),
            method="bounded",
        )
        scaled = {name: base.mean[name] / float(np.exp(found.x)) for name in ("readout.weight", "readout.bias")}
        return PointMass(base.mean | scaled)
