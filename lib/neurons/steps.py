"""What the neurons share: the loop over time, and what units of a layer send each other."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn


def over_time(
    advance: Callable[..., tuple[Tensor, ...]], current: Float[Tensor, "time batch units"], memories: int = 0
) -> tuple[Float[Tensor, "time batch units"], Float[Tensor, "time batch units"]]:
    """Spikes of neurons that start from rest, and the potentials before each reset.

    ``advance(step, potential, spike, *memory)`` takes the current of one time step, and the state that the step before
    has left, to the next state of the same form; ``memories`` says how many tensors it has beside the first two.
    """
    state, spikes, potentials = (torch.zeros_like(current[:1]),) * (2 + memories), [], []
    for step in current.split(1):
        state = advance(step, *state)
        potentials.append(state[0])
        spikes.append(state[1])
    return torch.cat(spikes), torch.cat(potentials)


def without_self(recurrent: Float[Tensor, "units units"]) -> Float[Tensor, "units units"]:
    """The weights with a zero diagonal: no neuron receives its own spikes."""
    itself = torch.eye(len(recurrent), dtype=torch.bool, device=recurrent.device)
    return recurrent.masked_fill(itself, 0)


def received(
    spike: Float[Tensor, "*shape units"], recurrent: Float[Tensor, "units units"]
) -> Float[Tensor, "*shape units"]:
    """``V s``, row n of V being what unit n receives.

    It is summed in double precision: brought back to single precision, it does not show the order of the terms, in
    which the kernels differ.
    """
    return (spike.double() @ recurrent.double().T).to(spike.dtype)


def orthogonal(units: int) -> nn.Parameter:
    """New recurrent weights."""
    return nn.Parameter(nn.init.orthogonal_(torch.empty(units, units)))
