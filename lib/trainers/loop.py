"""What every trainer shares: epochs, validation, the schedule, the history, checkpoints and divergence."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64, Real
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from lib import metrics, posteriors
from lib.networks import SpikingClassifier, activity
from lib.posteriors import NoisyNetwork, Posterior

VALIDATION_SAMPLES = 4
# Enough for a firing rate to two digits.
FIRING_RATE_UTTERANCES = 256
# A loss this many times that of a uniform guess does not come back.
DIVERGED = 10


@runtime_checkable
class Examples(Protocol):
    """Frames and their labels, such as ``lib.features.Frames``; they may be memory-mapped."""

    features: Real[Tensor, "utterance time features"]
    labels: Int64[Tensor, " utterance"]


@dataclass
class Method:
    """What a trainer gives the loop.

    ``step(features, labels)`` makes one update and returns (mean loss, logits) of the minibatch;
    ``posterior()`` is the distribution reached so far; ``stored`` and ``restore`` carry what else a
    resumed run needs beside the network's and the optimiser's ``state_dict``. Where ``keeps_last``, the last epoch's
    posterior is the result, whatever its validation NLL.
    """

    optimizer: torch.optim.Optimizer
    step: Callable[[Tensor, Tensor], tuple[float, Tensor]]
    posterior: Callable[[], Posterior]
    begin_epoch: Callable[[int], None] = lambda epoch: None
    end_epoch: Callable[[int], None] = lambda epoch: None
    stored: Callable[[], dict] = dict
    restore: Callable[[dict], None] = lambda stored: None
    keeps_last: bool = False


def gradients(
    network: nn.Module,
    features: Float[Tensor, "batch time features"],
    labels: Int64[Tensor, " batch"],
    rate_cost: float,
) -> tuple[float, Float[Tensor, "batch classes"]]:
    """Add to the parameters' gradients those of ``objective``.

    Returns the mean cross-entropy alone, and the logits, as ``Method.step`` does.
    """
    loss, cost, logits = objective(network, features, labels, rate_cost)
    (loss + cost).backward()
    return loss.item(), logits.detach()


def objective(
    network: nn.Module,
    features: Float[Tensor, "batch time features"],
    labels: Int64[Tensor, " batch"],
    rate_cost: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""] | float, Float[Tensor, "batch classes"]]:
    """Cross-entropy, ``rate_cost`` times ``activity.rate_cost``, and the logits.

    Raises ``ValueError`` for a cost on the firing rates of a network that has none.
    """
    if rate_cost == 0:
        logits, cost = network(features), 0.0
    elif isinstance(network, SpikingClassifier):
        trains = network.hidden_spikes(features)
        logits, cost = network.classify(trains[-1]), rate_cost * activity.rate_cost(trains)
    else:
        raise ValueError("a network without spikes has no firing rates to keep within bounds: leave rate_cost at 0")
    return cross_entropy(logits, labels), cost, logits


def fit(
    method: Method,
    network: nn.Module,
    training: Examples,
    validation: Examples,
    *,
    epochs: int,
    batch_size: int,
    patience: int,
    seed: int,
    freeze_norm_after: int | None = None,
    checkpoint: Path | None = None,
    after_epoch: Callable[[dict], None] = lambda row: None,
) -> tuple[Posterior, pd.DataFrame]:
    """Train, and return the posterior of the epoch with the lowest validation NLL (or the last), and the history.

    The learning rate is halved when more than ``patience`` epochs in a row bring no lower validation NLL. Each epoch's
    randomness follows from (seed, epoch) alone, so that a run resumed from ``checkpoint``, which is
    written after each epoch, ends in the same numbers as an undisturbed one.

    After ``freeze_norm_after`` epochs batch normalisation uses its running statistics and no longer updates
    them; ``None`` never freezes them. (Frozen from the start they would be those of an untrained network.)

    Raises ``FloatingPointError`` when the loss or a weight is not finite or the loss has diverged, and ``ValueError``
    for fewer than two training utterances (batch normalisation needs two) or none to validate on.
    """
    if len(training.labels) < 2 or len(validation.labels) < 1:
        raise ValueError(
            f"training needs 2 or more utterances and 1 or more to validate on; "
            f"here are {len(training.labels)} and {len(validation.labels)}"
        )
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(method.optimizer, factor=0.5, patience=patience)
    rows, best, best_loss = [], None, math.inf
    if checkpoint is not None and checkpoint.exists():
        rows, best, best_loss = _resume(checkpoint, method, network, scheduler)

    with torch.random.fork_rng():
        for epoch in tqdm(range(len(rows), epochs), desc="epochs", initial=len(rows), total=epochs):
            began = time.perf_counter()
            torch.manual_seed(int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0]))
            network.train()
            if freeze_norm_after is not None and epoch >= freeze_norm_after:
                for module in network.modules():
                    if isinstance(module, nn.BatchNorm1d):
                        module.eval()
            method.begin_epoch(epoch)
            row = {"epoch": epoch + 1, "learning_rate": method.optimizer.param_groups[0]["lr"]}
            row |= _train_epoch(method, network, training, batch_size, epoch)
            method.end_epoch(epoch)
            posterior = method.posterior()
            row |= _validate(posterior, network, validation)
            scheduler.step(row["validation_loss"])
            row["seconds"] = time.perf_counter() - began
            rows.append(row)
            if method.keeps_last or row["validation_loss"] < best_loss:
                best, best_loss = posterior, row["validation_loss"]
            if checkpoint is not None:
                state = {
                    "network": network.state_dict(),
                    "optimizer": method.optimizer.state_dict(),
                    "scheduler": scheduler.state_dict(),
                    "method": method.stored(),
                    "history": rows,
                    "best": posteriors.to_dict(best),
                    "best_loss": best_loss,
                }
                posteriors.store(state, checkpoint)
            after_epoch(row)
    return best, pd.DataFrame(rows)


def _resume(
    checkpoint: Path,
    method: Method,
    network: nn.Module,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> tuple[list[dict], Posterior, float]:
    """Put everything back to where it was; the history, the best posterior so far and its loss."""
    try:
        stored = torch.load(checkpoint, weights_only=True, map_location=posteriors.device_of(network))
        network.load_state_dict(stored["network"])
        method.optimizer.load_state_dict(stored["optimizer"])
        scheduler.load_state_dict(stored["scheduler"])
        method.restore(stored["method"])
        return stored["history"], posteriors.from_dict(stored["best"]), stored["best_loss"]
    except Exception as error:  # damaged bytes can lead to any
        raise ValueError(f"{checkpoint} is damaged; delete it, and training begins anew.") from error


def _train_epoch(method: Method, network: nn.Module, training: Examples, batch_size: int, epoch: int) -> dict:
    # Near-equal batches: a last batch of one utterance would have no variance to normalise by.
    batches = torch.randperm(len(training.labels)).tensor_split(max(1, len(training.labels) // batch_size))
    total_loss, correct, limit = 0.0, 0, DIVERGED * math.log(max(2, int(training.labels.max()) + 1))
    own = next(network.parameters())
    for batch in batches:
        labels = training.labels[batch].to(own.device)
        loss, logits = method.step(training.features[batch].to(own), labels)
        if not math.isfinite(loss) or loss > limit:
            raise FloatingPointError(f"training diverged in epoch {epoch + 1} (loss {loss:.4g}): lower learning_rate")
        total_loss += loss * len(batch)
        correct += int((logits.argmax(dim=-1) == labels).sum())
    # A potential that is not a number fires no spike, so that such weights need not show in the loss.
    if not all(parameter.isfinite().all() for parameter in network.parameters()):
        raise FloatingPointError(f"training diverged in epoch {epoch + 1} (weights not finite): lower learning_rate")
    return {"train_loss": total_loss / len(training.labels), "train_accuracy": correct / len(training.labels)}


@torch.no_grad()
def _validate(posterior: Posterior, network: nn.Module, validation: Examples) -> dict:
    # The same noise in each epoch, so that the schedule does not chase the noise's luck.
    generator = torch.Generator().manual_seed(0)
    samples = posteriors.samples_needed(posterior, VALIDATION_SAMPLES)
    probabilities = posteriors.predict(network, posterior, validation.features, samples, generator)
    figures = {
        "validation_loss": float(metrics.negative_log_likelihood(probabilities, validation.labels)),
        "validation_accuracy": float(metrics.accuracy(probabilities, validation.labels)),
    }
    if isinstance(network, SpikingClassifier):
        with posteriors.evaluating(network, noisy=isinstance(posterior, NoisyNetwork)):
            spikes = network.hidden_spikes(validation.features[:FIRING_RATE_UTTERANCES].to(next(network.parameters())))
        figures |= {f"firing_rate_{layer}": float(train.mean()) for layer, train in enumerate(spikes, start=1)}
    return figures
