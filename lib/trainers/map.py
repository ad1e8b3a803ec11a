"""The deterministic network: a maximum a posteriori estimate by Adam."""

import pandas as pd
import torch
from torch import nn

from lib.posteriors import PointMass, network_state
from lib.trainers.loop import Examples, Method, fit, gradients


def train_map(
    network: nn.Module,
    training: Examples,
    validation: Examples,
    *,
    learning_rate: float,
    weight_decay: float,
    rate_cost: float = 0.0,
    **schedule,
) -> tuple[PointMass, pd.DataFrame]:
    """Minimise cross-entropy plus ``weight_decay / 2`` times the squared weights, as a Gaussian prior asks.

    ``rate_cost`` times the cost of firing rates out of bounds comes on top (``loop.gradients``); ``schedule`` goes to
    ``loop.fit``. Returns the point estimate and the history.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)

    def step(features, labels):
        optimizer.zero_grad()
        outcome = gradients(network, features, labels, rate_cost)
        optimizer.step()
        return outcome

    method = Method(optimizer, step, posterior=lambda: PointMass(network_state(network)))
    return fit(method, network, training, validation, **schedule)
