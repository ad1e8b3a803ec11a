"""The spiking Bayesian neural network (Walker, Khajehnejad & Razi 2025, arXiv:2505.17962)."""

import pandas as pd
import torch
from torch.nn.functional import cross_entropy

from lib.networks import activity
from lib.networks.sbnn import StochasticClassifier, signal_to_noise
from lib.posteriors import NoisyNetwork, PointMass, network_state
from lib.trainers.loop import Examples, Method, fit


def train_sbnn(
    network: StochasticClassifier,
    training: Examples,
    validation: Examples,
    *,
    learning_rate: float,
    aux_weight: float,
    rate_cost: float = 0.0,
    **schedule,
) -> tuple[NoisyNetwork, pd.DataFrame]:
    """Minimise cross-entropy, one draw of the spikes a step, plus ``aux_weight`` times ``signal_to_noise``, by Adam.

    ``rate_cost`` times ``activity.rate_cost`` comes on top; ``schedule`` goes to ``loop.fit``. Returns the posterior,
    with means and deviations of the weights, of which the network itself draws its spikes, and the history.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True)

    def step(features, labels):
        optimizer.zero_grad()
        responses = network.responses(features)
        trains = [response.spikes for response in responses]
        logits = network.classify(trains[-1])
        loss = cross_entropy(logits, labels)
        (loss + aux_weight * signal_to_noise(responses) + rate_cost * activity.rate_cost(trains)).backward()
        optimizer.step()
        return loss.item(), logits.detach()

    method = Method(optimizer, step, posterior=lambda: NoisyNetwork(PointMass(network_state(network))))
    return fit(method, network, training, validation, **schedule)
