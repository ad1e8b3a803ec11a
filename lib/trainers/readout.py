"""Methods that leave the spikes alone, and change the readout of a trained network: temperature, and Laplace."""

import copy
import warnings

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lib import metrics, posteriors
from lib.networks import Classifier
from lib.posteriors import LowRankGaussian, PointMass, State
from lib.trainers.loop import Examples

TEMPERATURES = (0.01, 100.0)
PRIOR_PRECISIONS = (1e-6, 1e6)
PRIOR_SAMPLES = 32


def temperature(
    network: Classifier, bases: tuple[PointMass], training: Examples, validation: Examples, seed: int
) -> PointMass:
    """The network with its logits over the temperature that has the lowest validation NLL (Guo et al. 2017).

    The readout is linear, so that it takes the temperature in.
    """
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


def laplace(
    network: Classifier, bases: tuple[PointMass], training: Examples, validation: Examples, seed: int
) -> LowRankGaussian:
    """A Gaussian over the readout's parameters about the trained ones (Daxberger et al. 2021), the features fixed.

    Its precision is the full Hessian of the training data's NLL, exact for a linear readout, plus that of an isotropic
    prior: the one with the lowest NLL of the averaged prediction on the validation data. (The marginal likelihood would
    do without these; where the readout fits the training data all but perfectly it asks for a prior so wide that the
    average is far too unsure.) The covariance is as large as the square of the parameters' number: 81 MB for 35
    classes and 128 units.
    """
    (base,) = bases
    # In double precision: the Hessian is singular, for a constant added to all logits changes nothing.
    layer, inputs = readout_of(network, base.mean).double(), readout_inputs(network, base.mean, training).double()
    held_out = readout_inputs(network, base.mean, validation).double()
    examples = TensorDataset(inputs, training.labels.to(inputs.device))
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

    # The same noise for each precision, or the search would chase the luck of the draw.
    noise = torch.randn(
        PRIOR_SAMPLES, approximation.n_params, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )

    def root_at(logarithm):
        approximation.prior_precision = inputs.new_tensor(np.exp(logarithm))
        return approximation.posterior_scale

    def cost(logarithm):
        drawn = approximation.mean + noise.to(inputs) @ root_at(logarithm).T
        weights, biases = drawn.split([layer.weight.numel(), layer.bias.numel()], dim=1)
        logits = held_out @ weights.view(-1, *layer.weight.shape).mT + biases[:, None]
        return metrics.negative_log_likelihood(logits.softmax(dim=-1), validation.labels.to(inputs.device))

    with torch.no_grad():
        found = minimize_scalar(cost, bounds=np.log(PRIOR_PRECISIONS), method="bounded")
        root = root_at(found.x)
    # The covariance is root @ root.T: a row for each weight and then each bias, a column for each rank.
    weights, biases = root.T.to(base.mean["readout.weight"]).split([layer.weight.numel(), layer.bias.numel()], dim=1)
    factors = {"readout.weight": weights.reshape(-1, *layer.weight.shape), "readout.bias": biases.clone()}
    return LowRankGaussian(base.mean, {}, factors)


def readout_of(network: Classifier, state: State) -> nn.Linear:
    """A copy of the readout with the parameters of ``state``.

    Raises ``ValueError`` for a readout that does not end in a linear layer.
    """
    if not network.reads_rates:
        raise ValueError("what changes the readout needs a linear one: choose the readout 'rate'")
    layer = copy.deepcopy(network.readout)
    layer.load_state_dict({name: state[f"readout.{name}"] for name in ("weight", "bias")})
    return layer


@torch.no_grad()
def readout_inputs(network: Classifier, state: State, examples: Examples) -> Float[Tensor, "utterance units"]:
    """What the readout is given for each of the examples, in evaluation mode."""
    given: list[Tensor] = []
    handle = network.readout.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    try:
        placed = posteriors.on_device_of(network, state)
        with posteriors.evaluating(network):
            for batch in posteriors.batches_for(network, examples.features):
                functional_call(network, placed, batch)
    finally:
        handle.remove()
    return torch.cat(given)
