"""One-dimensional slices of the loss through weight space (the paper's equations 5, 19 and 20)."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from lib import metrics, posteriors
from lib.networks import unmoved_layers
from lib.posteriors import MeanFieldGaussian, NoisyNetwork, PointMass, Posterior, State
from lib.slices import events
from lib.slices.directions import moved, random_direction

Batches = Sequence[tuple[Tensor, Tensor]]


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
    add a jitter that is not the landscape's. Returns one loss for each alpha, in nats.
    """
    return bayesian_losses(network, posterior, direction, alphas, batches, [samples], generator)[0]


def bayesian_losses(
    network: nn.Module,
    posterior: Posterior,
    direction: Mapping[str, Tensor],
    alphas: Collection[float],
    batches: Batches,
    counts: Collection[int],
    generator: torch.Generator,
) -> np.ndarray:
    """``bayesian_loss`` of the first 1, 2, ... of the same samples, as ``counts`` says; [counts, alphas].

    First hidden layers that the direction does not move are computed once for each sample, but for a
    ``NoisyNetwork``'s, whose noise must be drawn again. Networks of LIF neurons take the quicker way of ``events``,
    which does so where only the readout moves; the losses are the same but for rounding. Raises ``ValueError`` for no
    minibatch, or a count below 1.
    """
    if not batches:
        raise ValueError("a slice needs at least one minibatch to take the loss on")
    if min(counts) < 1:
        raise ValueError(f"a loss is averaged over at least 1 sample of the weights, not {min(counts)}")
    if not len(alphas):
        return np.empty((len(counts), 0))
    features = list(posteriors.batches_for(network, torch.cat([features for features, _ in batches])))
    noisy = isinstance(posterior, NoisyNetwork)
    along = events.logits_along if events.serve(network) and not noisy else _logits_along
    total, losses = 0.0, {}
    with torch.no_grad(), posteriors.evaluating(network, noisy):
        for drawn, (state, seed) in enumerate(posteriors.draws(posterior, max(counts), generator), start=1):
            given = {} if seed is None else {"seed": seed}
            total = total + along(network, state, direction, alphas, features, **given).softmax(dim=-1).cpu().double()
            if drawn in counts:
                losses[drawn] = _losses(total / drawn, batches)
    return np.array([losses[count] for count in counts])


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


def _logits_along(
    network: nn.Module,
    state: State,
    direction: Mapping[str, Tensor],
    alphas: Collection[float],
    features: Sequence[Tensor],
    seed: int | None = None,
) -> Tensor:
    """[alphas, utterances, classes]; ``seed`` is that of the network's own randomness, None where that is off."""
    still = unmoved_layers(network, direction) if seed is None else 0
    inputs, left_out = features, {}
    if still:
        fixed = posteriors.on_device_of(network, state)
        inputs = [functional_call(network, fixed, batch, {"stop": still}) for batch in features]
        left_out = {"start": still}
    along = []
    for alpha in alphas:
        point = posteriors.on_device_of(network, moved(state, direction, float(alpha)))
        if seed is not None:
            torch.manual_seed(seed)
        along.append(torch.cat([functional_call(network, point, batch, left_out) for batch in inputs]))
    return torch.stack(along)


def _losses(probabilities: Float[Tensor, "alphas utterances classes"], batches: Batches) -> list[float]:
    labels = [labels for _, labels in batches]
    nlls = metrics.example_nlls(probabilities.flatten(0, 1), torch.cat(labels).repeat(len(probabilities)))
    of_batches = nlls.view(len(probabilities), -1).split([len(of_batch) for of_batch in labels], dim=1)
    return torch.stack([of_batch.mean(dim=1) for of_batch in of_batches]).mean(dim=0).tolist()
