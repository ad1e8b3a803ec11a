"""One-dimensional slices of the loss through weight space (the paper's equations 5, 19 and 20)."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call

from lib import metrics, posteriors
from lib.networks import unmoved_layers
from lib.posteriors import MeanFieldGaussian, NoisyNetwork, PointMass, Posterior, State

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

    Each alpha sees the same samples, moved with the centre, and the same noise of a ``NoisyNetwork``: fresh noise would
    add a jitter that is not the landscape's. Hidden layers that the direction does not move are computed once for each
    sample, but for a ``NoisyNetwork``'s, whose noise must be drawn again. Returns one loss for each alpha, in nats.
    """
    if not batches:
        raise ValueError("a slice needs at least one minibatch to take the loss on")
    features = list(posteriors.batches_for(network, torch.cat([features for features, _ in batches])))
    noisy = isinstance(posterior, NoisyNetwork)
    still = 0 if noisy else unmoved_layers(network, direction)
    averaged = [0.0] * len(alphas)
    with torch.no_grad(), posteriors.evaluating(network, noisy):
        for state, seed in posteriors.draws(posterior, samples, generator):
            inputs = features
            if still:
                fixed = posteriors.on_device_of(network, state)
                inputs = [functional_call(network, fixed, batch, {"stop": still}) for batch in features]
            for index, alpha in enumerate(alphas):
                point = posteriors.on_device_of(network, moved(state, direction, float(alpha)))
                if seed is not None:
                    torch.manual_seed(seed)
                averaged[index] += _probabilities(network, point, inputs, still) / samples
    return np.array([_loss(probabilities, batches) for probabilities in averaged])


def curves(
    centres: Mapping[str, State],
    spread: MeanFieldGaussian | None,
    network: nn.Module,
    batches: Batches,
    *,
    alphas: Collection[float],
    directions: int,
    samples: int,
) -> pd.DataFrame:
    """Losses along random unit directions around each centre, of the point and, with a ``spread``, averaged over it.

    Columns: centre, loss ("point" or "averaged"), direction, alpha, nll. The directions, the minibatches and
    the noise are the same for all curves.
    """
    rows = []
    for direction_seed in range(directions):
        generator = torch.Generator().manual_seed(direction_seed)
        direction = random_direction(network.named_parameters(), generator)
        for centre, state in centres.items():
            losses = {"point": deterministic_loss(network, state, direction, alphas, batches)}
            if spread is not None:
                around = MeanFieldGaussian(state, spread.std)
                noise = torch.Generator().manual_seed(0)
                losses["averaged"] = bayesian_loss(network, around, direction, alphas, batches, samples, noise)
            rows += [
                {"centre": centre, "loss": loss, "direction": direction_seed, "alpha": alpha, "nll": nll}
                for loss, curve in losses.items()
                for alpha, nll in zip(alphas, curve, strict=True)
            ]
    return pd.DataFrame(rows)


def roughness(losses: np.ndarray) -> float:
    """Root mean square of the second difference of a curve; it depends on the distance between the curve's points."""
    return float(np.sqrt(np.mean(np.diff(losses, n=2) ** 2)))


def angularity_exponent(alphas: Sequence[float] | np.ndarray, losses: np.ndarray) -> float:
    """How the mean squared second difference of a curve grows with its step h, as the power of h.

    4 for a smooth curve, 3 for one with kinks, 1 for one with jumps, whatever its scale: the slope, by least squares,
    of ``log mean[(L(alpha + h) - 2 L(alpha) + L(alpha - h))^2]`` over ``log h``, h doubling from the distance between
    neighbouring points to a quarter of the range. Every h is averaged over the same alphas, those a quarter or more
    from the ends. NaN for a straight line. Raises ``ValueError`` for fewer than 9 points, or unevenly spaced ones.
    """
    alphas, losses = np.asarray(alphas, dtype=float), np.asarray(losses, dtype=float)
    step = (alphas[-1] - alphas[0]) / (len(alphas) - 1)
    if len(alphas) < 9 or not np.allclose(np.diff(alphas), step, rtol=1e-3):
        raise ValueError("an exponent needs 9 or more evenly spaced points")
    apart = 2 ** np.arange(int(np.log2((len(alphas) - 1) / 4)) + 1)
    inside = np.arange(apart[-1], len(alphas) - apart[-1])
    squares = np.array([np.mean((losses[inside + k] - 2 * losses[inside] + losses[inside - k]) ** 2) for k in apart])
    if squares.min() == 0:
        return float("nan")
    return float(np.polyfit(np.log(apart * step), np.log(squares), 1)[0])


def rise_under_noise(
    network: nn.Module,
    centre: State,
    names: Iterable[str],
    std: float,
    features: Float[Tensor, "batch time features"],
    labels: Int64[Tensor, " batch"],
    samples: int,
    generator: torch.Generator,
) -> float:
    """By how much Gaussian noise of ``std`` on the tensors of these names raises the loss, in nats.

    Each of the samples is a network of its own: the mean of their losses less the loss at the centre.
    """
    noisy = MeanFieldGaussian(centre, {name: torch.full_like(centre[name], std) for name in names})
    drawn = posteriors.predict(network, noisy, features, samples, generator)
    point = posteriors.predict(network, PointMass(centre), features, 1, generator)
    losses = [metrics.negative_log_likelihood(probabilities, labels) for probabilities in drawn]
    return float(np.mean(losses)) - metrics.negative_log_likelihood(point, labels)


def moved(state: State, direction: Mapping[str, Tensor], distance: float) -> State:
    """``state + distance * direction``; tensors that ``direction`` does not name stay where they are."""
    if unknown := direction.keys() - state.keys():
        raise ValueError(f"the direction moves {sorted(unknown)}, which the network does not have")
    return {
        name: tensor + distance * direction[name] if name in direction else tensor for name, tensor in state.items()
    }


def _probabilities(network: nn.Module, state: State, inputs: Iterable[Tensor], start: int) -> Tensor:
    """Class probabilities, in double precision; ``inputs`` are the spikes of the first ``start`` layers."""
    left_out = {"start": start} if start else {}
    logits = torch.cat([functional_call(network, state, batch, left_out) for batch in inputs])
    return logits.softmax(dim=-1).cpu().double()


def _loss(probabilities: Tensor, batches: Batches) -> float:
    of_batches = probabilities.split([len(labels) for _, labels in batches])
    losses = [
        metrics.negative_log_likelihood(of_batch, labels)
        for of_batch, (_, labels) in zip(of_batches, batches, strict=True)
    ]
    return float(np.mean(losses))
