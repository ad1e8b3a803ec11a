"""Training (the paper's section 5): ``train_map`` finds the deterministic network, ``train_ivon`` the Bayesian one.

Both return a posterior over the network's weights and the history of training. ``groups`` makes the optimiser's groups,
``fit`` is the loop that they share, ``loop`` what it takes beside. What needs no gradient stands still, and is certain.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ivon import IVON
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from lib import metrics, posteriors
from lib.features import Examples
from lib.files import serve_the_nameless
from lib.posteriors import MeanFieldGaussian, PointMass, Posterior, network_state

VALIDATION_SAMPLES = 4
FIRING_RATE_UTTERANCES = 256  # at most: enough for two digits
DIVERGED = 10  # a loss this many times that of a uniform guess does not come back

Objective = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]


def likelihood(network: nn.Module, features: Tensor, labels: Tensor) -> tuple[Float[Tensor, ""], Tensor]:
    """Mean cross-entropy, and the logits; another objective adds to the former."""
    logits = network(features)
    return cross_entropy(logits, metrics.class_indices(logits, labels)), logits


def learned(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Those for an optimiser: they require a gradient. Raises ``ValueError`` for none, and for half precision."""
    serve_the_nameless()
    if not (found := [parameter for parameter in parameters if parameter.requires_grad]):
        raise ValueError("no parameter of the network requires a gradient: there is nothing to train")
    if any(parameter.dtype is torch.float16 for parameter in found):  # Adam's least denominator is 0 in it
        raise ValueError("float16 is too coarse to train in: train network.float(), or network.bfloat16()")
    return found


def decaying(network: nn.Module, weight_decay: float, vectors: bool = False) -> list[dict[str, Any]]:
    """Groups for an optimiser: matrices, which decay, and vectors, which only do so if asked, where there are any.

    Towards 0 a gain would silence its unit, a leak be no likelier, and a bias be no simpler.
    """
    found = learned(network.parameters())
    still = [one for one in found if one.ndim < 2 and not vectors]
    parts = (weight_decay, [one for one in found if one.ndim > 1 or vectors]), (0.0, still)
    return [{"params": part, "weight_decay": decay} for decay, part in parts if part]


def train_map(
    network: nn.Module, training: Examples, validation: Examples, *, objective: Objective = likelihood,
    learning_rate: float = 0.0047, weight_decay: float = 1e-5, batch_size: int = 16, patience: int = 2,
    decay_vectors: bool = False, freeze_norm_after: int | None = None, groups: Callable = decaying, **loop: Any,
) -> tuple[PointMass, pd.DataFrame]:  # fmt: skip
    """The maximum a posteriori estimate, by Adam, and the history; ``weight_decay`` is a Gaussian prior's part."""
    optimizer = torch.optim.Adam(groups(network, weight_decay, decay_vectors), lr=learning_rate, fused=True)

    def step(features: Tensor, labels: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss, logits = objective(network, features, labels)
        loss.backward()
        optimizer.step()
        return logits

    method = Method(optimizer, step, posterior=lambda: PointMass(network_state(network)))
    loop |= {"batch_size": batch_size, "patience": patience, "freeze_norm_after": freeze_norm_after}
    return fit(method, network, training, validation, **loop)


def train_ivon(
    network: nn.Module, training: Examples, validation: Examples, *, objective: Objective = likelihood,
    learning_rate: float = 0.39, weight_decay: float = 1e-3,
    ess_factor: float = 6.5, hess_init: float = 0.42, beta2: float = 0.9999, draws: int = 1,
    batch_size: int = 32, patience: int = 4,
    decay_vectors: bool = False, freeze_norm_after: int | None = 10, groups: Callable = decaying, **loop: Any,
) -> tuple[MeanFieldGaussian, pd.DataFrame]:  # fmt: skip
    """A mean-field Gaussian of high evidence lower bound (equation 7), and the history, by IVON (Shen et al. 2024).

    The mean over ``draws`` samples of the weights a step stands for the expectation (equation 9), ``weight_decay`` for
    the prior (equation 10). The effective sample size is ``ess_factor`` times the training utterances. With ``beta2``
    1 the curvature stays ``hess_init``. Raises ``ValueError`` where the loss does not depend on a parameter.
    """
    ess, parts = ess_factor * len(training.labels), groups(network, weight_decay, decay_vectors)
    optimizer = IVON(parts, lr=learning_rate, ess=ess, hess_init=hess_init, beta2=beta2)

    def step(features: Tensor, labels: Tensor) -> Tensor:
        for _ in range(draws):  # whose gradients the optimiser averages
            optimizer.zero_grad()
            with sampled_weights(optimizer):
                loss, logits = objective(network, features, labels)
                loss.backward()
                for name, parameter in network.named_parameters():
                    if parameter.requires_grad and parameter.grad is None:
                        raise ValueError(f"the loss does not depend on {name!r}: set its requires_grad to False")
        optimizer.step()
        return logits

    # ivon-opt's state_dict leaves the step count out; without it the momentum would be debiased again.
    method = Method(
        optimizer, step, posterior=lambda: gaussian(network, optimizer),
        stored=lambda: {"current_step": optimizer.current_step},
        restore=lambda stored: setattr(optimizer, "current_step", stored["current_step"]),
    )  # fmt: skip
    loop |= {"batch_size": batch_size, "patience": patience, "freeze_norm_after": freeze_norm_after}
    return fit(method, network, training, validation, **loop)


@contextmanager
def sampled_weights(optimizer: IVON) -> Iterator[None]:
    """ivon-opt's ``sampled_params``, which leaves the noisy weights behind when anything is raised inside it."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    means = [parameter.data for parameter in parameters]
    try:
        with optimizer.sampled_params(train=True):
            yield
    except BaseException:
        for parameter, mean in zip(parameters, means, strict=True):
            parameter.data = mean
        raise


def gaussian(network: nn.Module, optimizer: IVON) -> MeanFieldGaussian:
    """The current posterior (equation 11): variance ``1 / (ess (hess + weight_decay))``."""
    names, stds = {parameter: name for name, parameter in network.named_parameters()}, {}
    for group in optimizer.param_groups:
        std = torch.rsqrt(group["ess"] * (group["hess"] + group["weight_decay"]))
        pieces = std.split([parameter.numel() for parameter in group["params"]])
        for parameter, piece in zip(group["params"], pieces, strict=True):
            stds[names[parameter]] = piece.view(parameter.shape).to("cpu", copy=True)
    return MeanFieldGaussian(network_state(network), stds)


@dataclass
class Method:
    """What a trainer gives the loop.

    ``step(features, labels)`` makes one update and returns the minibatch's logits; ``posterior()`` is the distribution
    at an epoch's end; ``stored`` and ``restore`` carry what a resumed run needs beside the ``state_dict`` of network
    and optimiser. Where ``keeps_last``, the last epoch's posterior is the result, whatever its loss.
    """

    optimizer: torch.optim.Optimizer
    step: Callable[[Tensor, Tensor], Tensor]
    posterior: Callable[[], Posterior]
    begin_epoch: Callable[[int], None] = lambda epoch: None
    stored: Callable[[], dict] = dict
    restore: Callable[[dict], None] = lambda stored: None
    keeps_last: bool = False


def fit(
    method: Method, network: nn.Module, training: Examples, validation: Examples, *,
    batch_size: int, patience: int, epochs: int = 30, seed: int = 1, freeze_norm_after: int | None = None,
    checkpoint: Path | None = None, after_epoch: Callable[[dict], None] = lambda row: None,
) -> tuple[Posterior, pd.DataFrame]:  # fmt: skip
    """Train, and return the posterior of the epoch with the lowest validation NLL (or the last), and the history.

    The learning rate is halved when more than ``patience`` epochs in a row bring no lower validation NLL. Randomness
    follows from (seed, epoch) alone: a run resumed from ``checkpoint``, which is written after each epoch, ends in the
    same numbers. After ``freeze_norm_after`` epochs (``None``: never) batch norm's running statistics stand still.

    Raises ``FloatingPointError`` when the loss, a weight or a feature is not finite or the loss has diverged, and
    ``ValueError`` for fewer than two training utterances (batch normalisation needs two) or none to validate on, for
    labels beyond the classes, and where PyTorch takes no gradients.
    """
    if not torch.is_grad_enabled() or any(parameter.is_inference() for parameter in network.parameters()):
        raise ValueError("training needs gradients: leave no_grad and inference_mode, and make the network outside")
    if len(training.labels) < 2 or len(validation.labels) < 1:
        here = f"{len(training.labels)} and {len(validation.labels)}"
        raise ValueError(f"training needs 2 or more utterances and 1 or more to validate on; here are {here}")
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(method.optimizer, factor=0.5, patience=patience)
    begun = checkpoint is not None and checkpoint.exists()
    rows, best, best_loss = _resume(checkpoint, method, network, scheduler) if begun else ([], None, math.inf)
    with torch.random.fork_rng():
        for epoch in tqdm(range(len(rows), epochs), desc="epochs", initial=len(rows), total=epochs):
            began = time.perf_counter()
            torch.manual_seed(int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0]))
            network.train()
            for module in network.modules():
                if isinstance(module, nn.BatchNorm1d) and freeze_norm_after is not None:
                    module.train(epoch < freeze_norm_after)
            method.begin_epoch(epoch)
            row = {"epoch": epoch + 1, "learning_rate": method.optimizer.param_groups[0]["lr"]}
            row |= _train_epoch(method, network, training, batch_size, epoch)
            posterior = method.posterior()
            row |= _validate(posterior, network, validation)
            scheduler.step(row["validation_loss"])
            row["seconds"] = time.perf_counter() - began
            rows.append(row)
            if method.keeps_last or row["validation_loss"] < best_loss:
                best, best_loss = posterior, row["validation_loss"]
            if checkpoint is not None:
                moving = {"network": network, "optimizer": method.optimizer, "scheduler": scheduler}
                stored = {name: part.state_dict() for name, part in moving.items()} | {"method": method.stored()}
                stored |= {"history": rows, "best": posteriors.to_dict(best), "best_loss": best_loss}
                posteriors.store(stored, checkpoint)
            after_epoch(row)
    return best, pd.DataFrame(rows)


def _resume(checkpoint: Path, method: Method, network: nn.Module, scheduler) -> tuple[list[dict], Posterior, float]:
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
    limit, own = DIVERGED * math.log(max(2, int(training.labels.max()) + 1)), next(network.parameters())
    total_loss, correct = 0.0, 0
    for batch in batches:
        labels, features = training.labels[batch].to(own.device).long(), training.features[batch].to(own)
        if not features.isfinite().all():
            raise FloatingPointError("there are training utterances whose features are not finite: take them out")
        logits = method.step(features, labels).detach()
        loss = float(cross_entropy(logits, labels))
        if not loss <= limit:  # or not a number
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
    samples, generator = posterior.distinct(VALIDATION_SAMPLES), torch.Generator().manual_seed(0)
    predicted = posteriors.predict(network, posterior, validation.features, samples, generator)
    figures = {"validation_loss": metrics.negative_log_likelihood(predicted, validation.labels)}
    figures |= {"validation_accuracy": metrics.accuracy(predicted, validation.labels)}
    if getattr(network, "fires", False):
        with posteriors.evaluating(network, posterior.noisy):
            apart = -(-len(validation.labels) // FIRING_RATE_UTTERANCES)  # a set's words and speakers stand in order
            spikes = network.hidden_spikes(validation.features[::apart].to(next(network.parameters())))
        figures |= {f"firing_rate_{layer}": float(train.mean()) for layer, train in enumerate(spikes, start=1)}
    return figures
