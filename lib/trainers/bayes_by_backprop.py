"""Bayes by Backprop: a mean-field Gaussian by reparameterisation (Blundell et al. 2015)."""

import math
from collections.abc import Iterable

import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call

from lib.posteriors import MeanFieldGaussian, network_state
from lib.trainers.loop import Examples, Method, fit, objective


def train_bayes_by_backprop(
    network: nn.Module,
    training: Examples,
    validation: Examples,
    *,
    learning_rate: float,
    alpha: float,
    initial_std: float,
    prior_scale: float | None = None,
    rate_cost: float = 0.0,
    **schedule,
) -> tuple[MeanFieldGaussian, pd.DataFrame]:
    """Minimise, by Adam, cross-entropy plus ``alpha`` times the KL divergence from the prior over the utterances.

    One draw of the weights for each minibatch. The prior is isotropic, about 0, with the standard deviation
    ``prior_scale``; for ``None``, with that of empirical Bayes (``best_prior_scale``) at each step. All parameters have
    ``initial_std`` at the start. ``rate_cost`` times the cost of firing rates out of bounds comes on top
    (``loop.objective``); ``schedule`` goes to ``loop.fit``. Returns the posterior and the history.
    """
    means = dict(network.named_parameters())
    log_stds = {name: torch.full_like(mean, math.log(initial_std), requires_grad=True) for name, mean in means.items()}
    optimizer = torch.optim.Adam([*means.values(), *log_stds.values()], lr=learning_rate, fused=True)
    batch_objective = Objective(network, rate_cost)

    def stds():
        return {name: log_std.exp() for name, log_std in log_stds.items()}

    def step(features, labels):
        optimizer.zero_grad()
        spread = stds()
        weights = {f"network.{name}": mean + spread[name] * torch.randn_like(mean) for name, mean in means.items()}
        loss, cost, logits = functional_call(batch_objective, weights, (features, labels))
        scale = best_prior_scale(means.values(), spread.values()) if prior_scale is None else prior_scale
        divergence = kl_divergence(means.values(), spread.values(), scale)
        (loss + cost + alpha / len(training.labels) * divergence).backward()
        optimizer.step()
        return loss.item(), logits.detach()

    @torch.no_grad()
    def restore(stored):
        for name, log_std in log_stds.items():
            log_std.copy_(stored[name])

    method = Method(
        optimizer,
        step,
        posterior=lambda: MeanFieldGaussian(
            network_state(network), {name: std.detach().cpu() for name, std in stds().items()}
        ),
        stored=lambda: {name: log_std.detach() for name, log_std in log_stds.items()},
        restore=restore,
    )
    return fit(method, network, training, validation, **schedule)


class Objective(nn.Module):
    """``loop.objective`` as a module, so that ``functional_call`` reaches the network's weights in it."""

    def __init__(self, network: nn.Module, rate_cost: float):
        super().__init__()
        self.network, self.rate_cost = network, rate_cost

    def forward(
        self, features: Float[Tensor, "batch time features"], labels: Int64[Tensor, " batch"]
    ) -> tuple[Tensor, Tensor | float, Tensor]:
        return objective(self.network, features, labels, self.rate_cost)


def kl_divergence(
    means: Iterable[Float[Tensor, "..."]], stds: Iterable[Float[Tensor, "..."]], prior_scale: Float[Tensor, ""] | float
) -> Float[Tensor, ""]:
    """From the prior N(0, prior_scale^2) of each weight to its N(mean, std^2), summed, in nats."""
    return sum(
        (((mean**2 + std**2) / prior_scale**2 - 1) / 2 - (std / prior_scale).log()).sum()
        for mean, std in zip(means, stds, strict=True)
    )


def best_prior_scale(means: Iterable[Float[Tensor, "..."]], stds: Iterable[Float[Tensor, "..."]]) -> Float[Tensor, ""]:
    """The standard deviation of the prior that maximises the ELBO, of which only the KL divergence depends on it.

    Detached: where the divergence is stationary in the scale, no gradient passes through it.
    """
    # Zero is the derivative of the divergence, sum of 1 / scale - (mean^2 + std^2) / scale^3.
    squares = [(mean**2 + std**2).detach() for mean, std in zip(means, stds, strict=True)]
    return (sum(square.sum() for square in squares) / sum(square.numel() for square in squares)).sqrt()
