"""What neurons receive from the others of their layer."""

import torch
from jaxtyping import Float
from torch import Tensor


def without_self(recurrent: Float[Tensor, "units units"]) -> Float[Tensor, "units units"]:
    """The weights with a zero diagonal: no neuron receives its own spikes."""
    itself = torch.eye(len(recurrent), dtype=torch.bool, device=recurrent.device)
    return recurrent.masked_fill(itself, 0)


def received(
    spike: Float[Tensor, "*shape units"], recurrent: Float[Tensor, "units units"]
) -> Float[Tensor, "*shape units"]:
    """``V s``, row n of V being what unit n receives.

    Summed in double precision: brought back to single precision, it does not show the order of the terms, in which
    the fused form differs.
    """
    return (spike.double() @ recurrent.double().T).to(spike.dtype)
