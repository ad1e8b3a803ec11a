"""SWAG: a Gaussian from the iterates of the last epochs (Maddox et al. 2019)."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib import trainers
from lib.features import Examples
from lib.methods.base import Method, batch_size, decay_vectors, dropout, learning_rate, patience, weight_decay
from lib.methods.families import LowRankGaussian
from lib.posteriors import PointMass, Posterior, State, network_state
from lib.settings import real, setting, whole
from lib.trainers import Objective, decaying


@dataclass(frozen=True)
class SWAG(Method, name="swag", label="SWAG", colour="#C8CA69", marker="^", keeps_last=True):
    """As Adam; after ``swag_from`` epochs at the rate ``swag_learning_rate``, each epoch's weights collected.

    Adam goes on, where the paper has SGD. The posterior is the last epoch's, of all weights collected: half their
    variances, and half the covariance of the last ``rank`` of them. Validation is of the current weights until two are
    collected, and then of the posterior so far. Training raises ``ValueError`` for fewer than two epochs to collect
    from. Where Adam has a setting too, the value is Adam's; the others are customary ones.
    """

    batch_size: int = batch_size(16)
    learning_rate: float = learning_rate(0.0047)
    weight_decay: float = weight_decay(1e-5)
    decay_vectors: bool = decay_vectors()
    dropout: float = dropout()
    patience: int = patience(2)
    swag_from: int = setting(15, whole(0), search=[5, 10, 15])
    swag_learning_rate: float = setting(0.005, real(0, 100, above=True), search=(1e-3, 0.1))
    rank: int = setting(15, whole(2), search=[5, 10, 15])

    def updates(
        self, network: nn.Module, training: Examples, objective: Objective, epochs: int, originals: float
    ) -> trainers.Method:
        if epochs < self.swag_from + 2:
            left = epochs - self.swag_from
            raise ValueError(f"SWAG needs 2 or more epochs after swag_from, not {left}: train for longer")
        optimizer = torch.optim.Adam(
            decaying(network, self.weight_decay, self.decay_vectors), lr=self.learning_rate, fused=True
        )
        iterates, collecting = Iterates(self.rank), False

        def begin_epoch(epoch: int) -> None:
            nonlocal collecting
            collecting = epoch >= self.swag_from
            if collecting:
                for group in optimizer.param_groups:
                    group["lr"] = self.swag_learning_rate

        def step(features: Tensor, labels: Tensor) -> Tensor:
            optimizer.zero_grad()
            loss, logits = objective(network, features, labels)
            loss.backward()
            optimizer.step()
            return logits

        def posterior() -> Posterior:
            if collecting:
                iterates.collect({name: weights.detach() for name, weights in network.named_parameters()})
            if iterates.count < 2:
                return PointMass(network_state(network))
            mean = with_own_statistics(network, iterates.mean, training, self.batch_size)
            return LowRankGaussian(mean, *iterates.deviations())

        return trainers.Method(
            optimizer, step, posterior, begin_epoch,
            stored=lambda: vars(iterates), restore=lambda stored: vars(iterates).update(stored), keeps_last=True,
        )  # fmt: skip


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

    def deviations(self) -> tuple[State, State]:
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
