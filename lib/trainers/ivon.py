"""The Bayesian network: a mean-field Gaussian by IVON (Shen et al. 2024; the paper's section 5.2)."""

from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
import torch
from ivon import IVON
from torch import nn

from lib.posteriors import MeanFieldGaussian, network_state
from lib.trainers.loop import Examples, Method, fit, gradients


def train_ivon(
    network: nn.Module,
    training: Examples,
    validation: Examples,
    *,
    learning_rate: float,
    weight_decay: float,
    ess_factor: float,
    hess_init: float,
    beta2: float,
    rate_cost: float = 0.0,
    **schedule,
) -> tuple[MeanFieldGaussian, pd.DataFrame]:
    """One sample of the weights a step; the effective sample size is ``ess_factor`` times the utterances.

    ``rate_cost`` times the cost of firing rates out of bounds is added to the loss (``loop.gradients``); ``schedule``
    goes to ``loop.fit``. Returns the posterior and the history.
    """
    optimizer = IVON(
        network.parameters(),
        lr=learning_rate,
        ess=ess_factor * len(training.labels),
        weight_decay=weight_decay,
        hess_init=hess_init,
        beta2=beta2,
    )

    def step(features, labels):
        optimizer.zero_grad()
        with sampled_weights(optimizer):
            outcome = gradients(network, features, labels, rate_cost)
        optimizer.step()
        return outcome

    method = Method(
        optimizer,
        step,
        posterior=lambda: gaussian(network, optimizer),
        # ivon-opt's state_dict leaves the step count out; without it the momentum would be debiased again.
        stored=lambda: {"current_step": optimizer.current_step},
        restore=lambda stored: setattr(optimizer, "current_step", stored["current_step"]),
    )
    return fit(method, network, training, validation, **schedule)


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
    (group,) = optimizer.param_groups
    std = torch.rsqrt(group["ess"] * (group["hess"] + group["weight_decay"]))
    names, shapes, sizes = zip(
        *((name, parameter.shape, parameter.numel()) for name, parameter in network.named_parameters()),
        strict=True,
    )
    pieces = [piece.view(shape).to("cpu", copy=True) for piece, shape in zip(std.split(sizes), shapes, strict=True)]
    return MeanFieldGaussian(network_state(network), dict(zip(names, pieces, strict=True)))
