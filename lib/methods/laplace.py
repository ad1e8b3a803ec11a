"""A last-layer Laplace approximation (Daxberger et al. 2021)."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lib import metrics
from lib.methods.adam import Adam
from lib.methods.base import Derived
from lib.methods.families import LowRankGaussian
from lib.methods.readout import readout_inputs, readout_of

PRIOR_PRECISIONS = (1e-6, 1e6)
PRIOR_SAMPLES = 32


@dataclass(frozen=True)
class LastLayerLaplace(
    Derived, name="laplace", label="Last-layer Laplace", colour="#703F00", marker="X", made_of=(Adam,)
):
    """A Gaussian over the readout's parameters about the trained ones, the features fixed.

    Its precision is the full Hessian of the training data's NLL, exact for a linear readout, plus that of an isotropic
    prior: the one with the lowest NLL of the averaged prediction on the validation data. (The marginal likelihood would
    do without these; where the readout fits the training data all but perfectly it asks for a prior so wide that the
    average is far too unsure.) The covariance is as large as the square of the parameters' number: 81 MB for 35
    classes and 128 units.
    """

    def derive(self, network, bases, training, validation, seed, copies=0) -> LowRankGaussian:
        (base,) = bases
        # In double precision: the Hessian is singular, for a constant added to all logits changes nothing.
        layer, inputs = readout_of(network, base.mean).double(), readout_inputs(network, base.mean, training).double()
        held_out = readout_inputs(network, base.mean, validation).double()
        approximation = _fitted(layer, TensorDataset(inputs, training.labels.to(inputs.device)))
        approximation.H /= 1 + copies  # which are no further data

        # The same noise for each precision, or the search would chase the luck of the draw.
        noise = torch.randn(
            PRIOR_SAMPLES, approximation.n_params, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
        )

        def root_at(logarithm: float) -> Tensor:
            approximation.prior_precision = inputs.new_tensor(np.exp(logarithm))
            return approximation.posterior_scale

        def cost(logarithm: float) -> float:
            drawn = approximation.mean + noise.to(inputs) @ root_at(logarithm).T
            weights, biases = drawn.split([layer.weight.numel(), layer.bias.numel()], dim=1)
            logits = held_out @ weights.view(-1, *layer.weight.shape).mT + biases[:, None]
            return metrics.negative_log_likelihood(logits.softmax(dim=-1), validation.labels.to(inputs.device))

        with torch.no_grad():
            found = minimize_scalar(cost, bounds=np.log(PRIOR_PRECISIONS), method="bounded")
            root = root_at(found.x)
        # The covariance is root @ root.T: a row for each weight and then each bias, a column for each rank.
        flat = root.T.to(base.mean["readout.weight"])
        weights, biases = flat.split([layer.weight.numel(), layer.bias.numel()], dim=1)
        factors = {"readout.weight": weights.reshape(-1, *layer.weight.shape), "readout.bias": biases.clone()}
        return LowRankGaussian(base.mean, {}, factors)


def _fitted(layer: nn.Linear, examples: TensorDataset):
    with warnings.catch_warnings():
        # The library imports, with all of its back ends, what PyTorch deprecates; and that takes seconds.
        warnings.simplefilter("ignore", DeprecationWarning)
        from laplace import Laplace
        from laplace.curvature.curvature import GGNInterface
    # Of its back ends the one in plain PyTorch, which alone goes through without a warning in double precision.
    approximation = Laplace(
        layer, "classification", subset_of_weights="all", hessian_structure="full", backend=GGNInterface
    )
    approximation.fit(DataLoader(examples, batch_size=32, generator=torch.Generator()))
    return approximation
