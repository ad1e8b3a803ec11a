"""Does the surrogate gradient point where the loss falls?"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from lib import posteriors
from lib.posteriors import State
from lib.slices.lines import Batches, deterministic_loss


class Slopes(NamedTuple):
    """Of the loss along a direction, in nats for each unit of it; ``finite`` has one for each step."""

    surrogate: float
    finite: np.ndarray


def gradient_agreement(
    network: nn.Module, centre: State, direction: Mapping[str, Tensor], batches: Batches, steps: Sequence[float]
) -> Slopes:
    """What the surrogate gradient says of the loss along a direction, beside what the loss does.

    ``surrogate`` is ``direction . grad L``, the spikes' derivatives being the boxcar's; ``finite`` is
    ``(L(h) - L(-h)) / 2h`` of the loss of hard spikes for each h of ``steps``, L as in ``deterministic_loss``. Without
    spikes between, as in the readout, they differ by the order of h^2; through hard spikes the second is 0 but for
    jumps, and their agreement over directions is a matter of measurement. In single precision the second is uncertain
    by about 1e-7 / h.
    """
    own = next(network.parameters())
    state = posteriors.on_device_of(network, centre)
    leaves = {name: state[name].detach().requires_grad_() for name in direction}
    with torch.enable_grad(), posteriors.evaluating(network):
        losses = [
            cross_entropy(functional_call(network, state | leaves, features.to(own)), labels.to(own.device))
            for features, labels in batches
        ]
        # Where a parameter has no effect in evaluation mode, its gradient is zero.
        gradients = torch.autograd.grad(torch.stack(losses).mean(), list(leaves.values()), materialize_grads=True)
    surrogate = sum(
        float((gradient.cpu().double() * direction[name].double()).sum())
        for name, gradient in zip(leaves, gradients, strict=True)
    )
    alphas = np.array([*steps, *(-step for step in steps)])
    above, below = np.split(deterministic_loss(network, centre, direction, alphas, batches), 2)
    return Slopes(surrogate, (above - below) / (2 * np.asarray(steps)))
