"""One-dimensional slices of the loss through weight space (the paper's equations 5, 19 and 20)."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lib import metrics, posteriors
from lib.posteriors import PointMass, Posterior, State

Batches = Sequence[tuple[Tensor, Tensor]]


def random_direction(parameters: Iterable[tuple[str, Tensor]], generator: torch.Generator) -> State:
    """A direction of unit norm, uniform over all the named parameters taken together."""
    direction = {
        name: torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) for name, tensor in parameters
    }
    length = torch.sqrt(sum((tensor.double() ** 2).sum() for tensor in direction.values()))
    return {name: tensor / length.to(tensor.dtype) for name, tensor in direction.items()}


def deterministic_loss(
    network: nn.Module,
    centre: State,
    direction: Mapping[str, Tensor],
    alphas: Collection[float],
    batches: Batches,
) -> np.ndarray:
    """Cross-entropy at ``centre + alpha * direction``, averaged over fixed minibatches (equation 19).

    Returns one loss for each alpha, in nats. Evaluation mode: dropout off, running batch-norm statistics.
    """
    return bayesian_loss(network, PointMass(centre), direction, alphas, batches, 1, torch.Generator())


def bayesian_loss(
    network: nn.Module,
    posterior: Posterior,
    direction: Mapping[str, Tensor],
    alphas: Collection[float],
    batches: Batches,
    samples: int,
    generator: torch.Generator,
) -> np.ndarray:
    """Loss of the averaged prediction, the posterior's centre moved by ``alpha * direction`` (equation 20).

    Each alpha sees the same noise, whichever order they come in: fresh noise would add a jitter that is
    not the landscape's. Returns one loss for each alpha, in nats.
    """
    if not batches:
        raise ValueError("a slice needs at least one minibatch to take the loss on")
    noise = generator.get_state()
    losses = []
    for alpha in alphas:
        generator.set_state(noise)
        shifted = posterior.shifted(direction, float(alpha))
        losses.append(_loss(network, shifted, batches, samples, generator))
    return np.array(losses)


def _loss(
    network: nn.Module, posterior: Posterior, batches: Batches, samples: int, generator: torch.Generator
) -> float:
    features = torch.cat([features for features, _ in batches])
    probabilities = posteriors.predict(network, posterior, features, samples, generator)
    of_batches = probabilities.split([len(labels) for _, labels in batches], dim=1)
    return float(
        np.mean(
            [
                metrics.negative_log_likelihood(of_batch, labels)
                for of_batch, (_, labels) in zip(of_batches, batches, strict=True)
            ]
        )
    )
