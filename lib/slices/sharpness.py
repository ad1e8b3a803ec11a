"""What noise on the weights does to the loss: what sharpness-aware training looks at."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from lib import metrics, posteriors
from lib.posteriors import MeanFieldGaussian, PointMass, State


class Rise(NamedTuple):
    """In nats, over draws of the noise."""

    mean: float
    worst: float


def rise_under_noise(
    network: nn.Module,
    centre: State,
    names: Iterable[str],
    std: float,
    features: Float[Tensor, "batch time features"],
    labels: Int64[Tensor, " batch"],
    samples: int,
    generator: torch.Generator,
) -> Rise:
    """By how much Gaussian noise of ``std`` on the tensors of these names raises the loss.

    Each of the samples is a network of its own: ``L(centre + noise) - L(centre)``, their mean and the worst of them.
    """
    noisy = MeanFieldGaussian(centre, {name: torch.full_like(centre[name], std) for name in names})
    drawn = posteriors.predict(network, noisy, features, samples, generator)
    point = posteriors.predict(network, PointMass(centre), features, 1, generator)
    losses = [metrics.negative_log_likelihood(probabilities, labels) for probabilities in drawn]
    at_centre = metrics.negative_log_likelihood(point, labels)
    return Rise(float(np.mean(losses)) - at_centre, max(losses) - at_centre)
