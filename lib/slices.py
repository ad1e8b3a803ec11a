"""Slices of the loss along lines through weight space, of a point and of a posterior: equations 5, 19 and 20."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from lib import metrics, posteriors
from lib.network import fast
from lib.posteriors import PointMass, Posterior, State

Batches = Sequence[tuple[Tensor, Tensor]]
Alphas = Sequence[float] | np.ndarray


def random_direction(parameters: Iterable[tuple[str, Tensor]], generator: torch.Generator) -> State:
    """A direction of unit norm, uniform over all the named parameters taken together (equation 5)."""
    noise = {name: torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) for name, tensor in parameters}
    norm = sum(float((tensor.double() ** 2).sum()) for tensor in noise.values()) ** 0.5
    return {name: tensor / norm for name, tensor in noise.items()}


def moved(state: State, direction: Mapping[str, Tensor], distance: float) -> State:
    """``state + distance * direction``; tensors that the direction does not name stay where they are."""
    return state | {name: state[name] + distance * tensor for name, tensor in direction.items()}


def deterministic_loss(
    network: nn.Module, state: State, direction: Mapping[str, Tensor], alphas: Alphas, batches: Batches
) -> Float[np.ndarray, " alphas"]:
    """Cross-entropy at ``state + alpha * direction``, averaged over fixed minibatches (equation 19), in nats.

    Evaluation mode: dropout off, batch norm by its running statistics. Raises as ``sampled_losses`` does.
    """
    return bayesian_loss(network, PointMass(state), direction, alphas, batches, 1, torch.Generator())


def bayesian_loss(
    network: nn.Module, posterior: Posterior, direction: Mapping[str, Tensor], alphas: Alphas, batches: Batches,
    samples: int, generator: torch.Generator,
) -> Float[np.ndarray, " alphas"]:  # fmt: skip
    """Loss of the averaged prediction, the posterior moved by ``alpha * direction`` (equation 20), in nats.

    Each alpha sees the same samples, moved with the posterior's mean, and the same randomness of a noisy network: fresh
    noise would add a jitter that is not the landscape's. Raises as ``sampled_losses`` does.
    """
    return bayesian_losses(network, posterior, direction, alphas, batches, [samples], generator)[0]


def bayesian_losses(
    network: nn.Module, posterior: Posterior, direction: Mapping[str, Tensor], alphas: Alphas, batches: Batches,
    counts: Collection[int], generator: torch.Generator,
) -> Float[np.ndarray, "counts alphas"]:  # fmt: skip
    """``bayesian_loss`` of the first 1, 2, ... of the same samples, by ``counts``; raises as ``sampled_losses``."""
    return sampled_losses(network, posterior, direction, alphas, batches, counts, generator)[0]


def sampled_losses(
    network: nn.Module, posterior: Posterior, direction: Mapping[str, Tensor], alphas: Alphas, batches: Batches,
    counts: Collection[int], generator: torch.Generator,
) -> tuple[Float[np.ndarray, "counts alphas"], Float[np.ndarray, "samples alphas"]]:  # fmt: skip
    """``bayesian_losses``, and the loss of each sample alone.

    Raises ``ValueError`` for no minibatch, a count below 1, or a direction or a posterior of another network.
    """
    if not batches:
        raise ValueError("a slice needs at least one minibatch to take the loss on")
    if min(counts) < 1:
        raise ValueError(f"a loss is averaged over at least 1 sample of the weights, not {min(counts)}")
    if unknown := direction.keys() - network.state_dict().keys():
        raise ValueError(f"the direction moves {sorted(unknown)}, which the network does not have")
    if not len(alphas):
        return np.empty((len(counts), 0)), np.empty((max(counts), 0))
    features = list(posteriors.batches_for(network, torch.cat([features for features, _ in batches])))
    total, losses, single = 0.0, {}, []
    with torch.no_grad(), posteriors.evaluating(network, posterior.noisy):
        drawn = posteriors.seeded_draws(posterior, max(counts), generator)
        for count, (state, seed) in enumerate(drawn, start=1):
            logits = logits_along(network, state, direction, alphas, features, seed)
            probabilities = logits.softmax(dim=-1).cpu().double()
            total = total + probabilities
            single.append(_losses(probabilities, batches))
            if count in counts:
                losses[count] = _losses(total / count, batches)
    return np.array([losses[count] for count in counts]), np.array(single)


def roughness(losses: Float[np.ndarray, " points"]) -> float:
    """Root mean square of the second difference of a curve; it depends on the distance between the curve's points."""
    return float(np.sqrt(np.mean(np.diff(losses, n=2) ** 2)))


def logits_along(
    network: nn.Module, state: State, direction: Mapping[str, Tensor], alphas: Alphas,
    features: Sequence[Float[Tensor, "_ time features"]], seed: int | None = None,
) -> Float[Tensor, "alphas utterances classes"]:  # fmt: skip
    """Logits at ``state + alpha * direction`` in the network's mode; ``seed`` is its noise's, alike at each point."""
    state = posteriors.on_device_of(network, state)
    direction = {name: tensor.to(posteriors.device_of(network)) for name, tensor in direction.items()}
    if seed is None and fast and fast.serves_lines(network):
        return fast.logits_along(network, state, direction, alphas, features)

    def at(point: State) -> Tensor:
        if seed is not None:
            torch.manual_seed(seed)
        return torch.cat([functional_call(network, point, batch) for batch in features])

    return torch.stack([at(moved(state, direction, float(alpha))) for alpha in alphas])


def _losses(probabilities: Float[Tensor, "alphas utterances classes"], batches: Batches) -> list[float]:
    labels = [labels for _, labels in batches]
    nlls = metrics.example_nlls(probabilities.flatten(0, 1), torch.cat(labels).repeat(len(probabilities)))
    of_batches = nlls.view(len(probabilities), -1).split([len(of_batch) for of_batch in labels], dim=1)
    return torch.stack([of_batch.mean(dim=1) for of_batch in of_batches]).mean(dim=0).tolist()
