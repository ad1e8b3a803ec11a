"""SWAG: a Gaussian from the iterates of the last epochs (Maddox et al. 2019)."""

import copy

import pandas as pd
import torch
from torch import nn

from lib.posteriors import LowRankGaussian, PointMass, State, network_state
from lib.trainers.loop import Examples, Method, fit, gradients


def train_swag(
    network: nn.Module,
    training: Examples,
    validation: Examples,
    *,
    learning_rate: float,
    weight_decay: float,
    swag_from: int,
    swag_learning_rate: float,
    rank: int,
    epochs: int,
    batch_size: int,
    rate_cost: float = 0.0,
    **schedule,
) -> tuple[LowRankGaussian, pd.DataFrame]:
    """As ``train_map``; after ``swag_from`` epochs at the rate ``swag_learning_rate``, each epoch's weights collected.

    Adam goes on, where the paper has SGD. The posterior is the last epoch's, of all weights collected: half their
    variances, and half the covariance of the last ``rank`` of them. Validation is of the current weights until two are
    collected, and then of the posterior so far. Returns the posterior and the history.

    Raises ``ValueError`` for fewer than two epochs to collect from.
    """
    if epochs < swag_from + 2:
        raise ValueError(f"SWAG needs 2 or more epochs after swag_from, not {epochs - swag_from}: train for longer")
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)
    iterates = Iterates(rank)

    def begin_epoch(epoch):
        if epoch >= swag_from:
            optimizer.param_groups[0]["lr"] = swag_learning_rate

    def step(features, labels):
        optimizer.zero_grad()
        outcome = gradients(network, features, labels, rate_cost)
        optimizer.step()
        return outcome

    def end_epoch(epoch):
        if epoch >= swag_from:
            iterates.collect({name: weights.detach() for name, weights in network.named_parameters()})

    def posterior():
        if iterates.count < 2:
            return PointMass(network_state(network))
        return LowRankGaussian(with_own_statistics(network, iterates.mean, training, batch_size), *iterates.spread())

    method = Method(
        optimizer,
        step,
        posterior,
        begin_epoch,
        end_epoch,
        stored=lambda: vars(iterates),
        restore=lambda stored: vars(iterates).update(stored),
        keeps_last=True,
    )
    return fit(method, network, training, validation, epochs=epochs, batch_size=batch_size, **schedule)


class Iterates:
    """The running mean and squared deviations of the weights collected, and the last ``rank`` of them."""

    def __init__(self, rank: int):
        self.rank = rank
        self.count = 0
        self.mean: State = {}
        self.squares: State = {}
        self.last: list[State] = []

    def collect(self, weights: State) -> None:
        """Welford's update, which does not lose digits as a running mean of squares does."""
        self.count += 1
        for name, weight in weights.items():
            before = weight - self.mean.get(name, 0)
            self.mean[name] = self.mean.get(name, 0) + before / self.count
            self.squares[name] = self.squares.get(name, 0) + before * (weight - self.mean[name])
        self.last = [*self.last, {name: weight.clone() for name, weight in weights.items()}][-self.rank :]

    def spread(self) -> tuple[State, State]:
        """The standard deviations and the factors of a ``LowRankGaussian``, each with half of the variance.

        Deviations are from the mean of all, where the paper's are from the running one, and variances unbiased.
        """
        stds = {name: (square / (2 * (self.count - 1))).sqrt().cpu() for name, square in self.squares.items()}
        scale = (2 * (len(self.last) - 1)) ** -0.5
        factors = {
            name: torch.stack([scale * (weights[name] - mean) for weights in self.last]).cpu()
            for name, mean in self.mean.items()
        }
        return stds, factors


@torch.no_grad()
def with_own_statistics(network: nn.Module, weights: State, training: Examples, batch_size: int) -> State:
    """The network's state with these weights, and with the batch-norm statistics that they have on the training data.

    Those of the last iterate are not theirs. One pass over the training data, dropout off: each layer's statistics are
    the mean of the minibatches'. The network is left as it was.
    """
    network = copy.deepcopy(network).eval()
    network.load_state_dict(weights, strict=False)
    norms = [module.train() for module in network.modules() if isinstance(module, nn.BatchNorm1d)]
    own = next(network.parameters())
    batches = torch.arange(len(training.labels)).tensor_split(max(1, len(training.labels) // batch_size))
    for count, batch in enumerate(batches if norms else (), start=1):
        for norm in norms:
            norm.momentum = 1 / count
        network(training.features[batch].to(own))
    return network_state(network)
