"""Temperature scaling (Guo et al. 2017), of a network and of each of a posterior's."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.nn.functional import nll_loss

from lib.features import Examples
from lib.methods.adam import Adam
from lib.methods.base import Derived
from lib.methods.ivon import IVON
from lib.methods.readout import readout_inputs, readout_of
from lib.posteriors import MeanFieldGaussian, PointMass, Posterior, State

TEMPERATURES = (0.01, 100.0)
SAMPLES = 16


@dataclass(frozen=True)
class Temperature(Derived, name="temperature", label="Temperature", colour="#25D8FE", marker="v", made_of=(Adam,)):
    """The network with its logits over the temperature that has the lowest validation NLL.

    The readout is linear, so that it takes the temperature in.
    """

    def derive(self, network, bases, training, validation, seed, copies=0) -> PointMass:
        (base,) = bases
        return PointMass(cooled(base.mean, best_temperature(network, base, validation)))


@dataclass(frozen=True)
class IVONTemperature(
    Derived, name="ivon-temperature", label="IVON + temperature", colour=IVON.colour, marker="1", made_of=(IVON,)
):
    """IVON's posterior with each sample's logits over one temperature, whose average has the lowest validation NLL.

    The readout takes it in, by its means and its standard deviations.
    """

    def derive(self, network, bases, training, validation, seed, copies=0) -> MeanFieldGaussian:
        (base,) = bases
        temperature = best_temperature(network, base, validation)
        return MeanFieldGaussian(cooled(base.mean, temperature), cooled(base.std, temperature))


def cooled(tensors: State, temperature: float) -> State:
    """The tensors, those of the readout over the temperature."""
    own = {name: tensors[name] / temperature for name in ("readout.weight", "readout.bias") if name in tensors}
    return tensors | own


def best_temperature(network: nn.Module, posterior: Posterior, validation: Examples) -> float:
    """The one of ``TEMPERATURES`` at which the average over samples of softmax(logits / T) has the lowest NLL."""
    generator = torch.Generator().manual_seed(0)
    drawn = [
        sampled_logits(network, state, validation) for state in posterior.draws(posterior.distinct(SAMPLES), generator)
    ]
    logits = torch.stack(drawn)

    def cost(logarithm: float) -> float:
        average = (logits / np.exp(logarithm)).log_softmax(dim=-1).logsumexp(dim=0)  # plus log of the number
        return float(nll_loss(average, validation.labels.to(average.device)))

    return float(np.exp(minimize_scalar(cost, bounds=np.log(TEMPERATURES), method="bounded").x))


@torch.no_grad()
def sampled_logits(network: nn.Module, state: State, examples: Examples) -> Float[Tensor, "utterances classes"]:
    return readout_of(network, state)(readout_inputs(network, state, examples)).double()
