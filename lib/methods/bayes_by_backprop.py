"""Bayes by Backprop: a mean-field Gaussian by reparameterisation (Blundell et al. 2015)."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from lib import trainers
from lib.features import Examples
from lib.methods.base import Method, batch_size, decay_vectors, dropout, learning_rate, patience
from lib.posteriors import MeanFieldGaussian, network_state
from lib.settings import optional, real, setting
from lib.trainers import Objective, learned


@dataclass(frozen=True)
class BayesByBackprop(Method, name="bbb", label="Bayes by Backprop", colour="#DF7FB1", marker="D"):
    """Adam on cross-entropy plus ``alpha`` times the KL divergence from the prior over the number of utterances.

    There is one sample of the weights for each minibatch. The prior is isotropic, about 0 for matrices and about where
    they start for vectors (gains, leaks, biases), unless ``decay_vectors`` says 0 for these, too. Its standard
    deviation is ``prior_scale``; for None, that of empirical Bayes (``best_prior_scale``) at each step. All parameters
    have ``initial_std`` at the start. The values are customary ones, and not searched for.
    """

    batch_size: int = batch_size(32)
    learning_rate: float = learning_rate(0.005)
    dropout: float = dropout()
    patience: int = patience(4)
    alpha: float = setting(0.1, real(0, 1e6), search=(1e-3, 1.0))
    decay_vectors: bool = decay_vectors()
    initial_std: float = setting(0.05, real(0, 100, above=True), search=(0.01, 0.2))
    prior_scale: float | None = setting(None, optional(real(0, 1e6, above=True)))

    def updates(
        self, network: nn.Module, training: Examples, objective: Objective, epochs: int, originals: float
    ) -> trainers.Method:
        means = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
        centres = {name: mean.detach() * (mean.ndim < 2 and not self.decay_vectors) for name, mean in means.items()}
        start = math.log(self.initial_std)
        log_stds = {name: torch.full_like(mean, start, requires_grad=True) for name, mean in means.items()}
        optimizer = torch.optim.Adam(learned([*means.values(), *log_stds.values()]), lr=self.learning_rate, fused=True)
        of_batch = _Objective(network, objective)

        def stds() -> dict[str, Tensor]:
            return {name: log_std.exp() for name, log_std in log_stds.items()}

        def step(features: Tensor, labels: Tensor) -> Tensor:
            optimizer.zero_grad()
            own = stds()
            weights = {f"network.{name}": mean + own[name] * torch.randn_like(mean) for name, mean in means.items()}
            loss, logits = functional_call(of_batch, weights, (features, labels))
            moved = [mean - centres[name] for name, mean in means.items()]
            scale = self.prior_scale or best_prior_scale(moved, own.values())
            divergence = kl_divergence(moved, own.values(), scale)
            (loss + self.alpha / originals * divergence).backward()
            optimizer.step()
            return logits

        @torch.no_grad()
        def restore(stored: dict) -> None:
            for name, log_std in log_stds.items():
                log_std.copy_(stored["log_stds"][name])
            centres.update(stored["centres"])

        def posterior() -> MeanFieldGaussian:
            return MeanFieldGaussian(network_state(network), {name: std.detach().cpu() for name, std in stds().items()})

        return trainers.Method(
            optimizer, step, posterior,
            stored=lambda: {
                "log_stds": {name: log_std.detach() for name, log_std in log_stds.items()},
                "centres": centres,
            },
            restore=restore,
        )  # fmt: skip


class _Objective(nn.Module):
    """An objective as a module, so that ``functional_call`` reaches the network's weights in it."""

    def __init__(self, network: nn.Module, objective: Objective):
        super().__init__()
        self.network, self.objective = network, objective

    def forward(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.objective(self.network, features, labels)


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

    It is detached: where the divergence is stationary in the scale, no gradient passes through it.
    """
    # Zero is the derivative of the divergence, sum of 1 / scale - (mean^2 + std^2) / scale^3.
    squares = [(mean**2 + std**2).detach() for mean, std in zip(means, stds, strict=True)]
    return (sum(square.sum() for square in squares) / sum(square.numel() for square in squares)).sqrt()
