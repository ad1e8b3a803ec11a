"""Directions in weight space: which parameters move, and how far one unit of alpha goes."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from lib.posteriors import State

PARTS = ("all", "hidden", "readout")


def parameters_of(network: nn.Module, part: str) -> list[tuple[str, nn.Parameter]]:
    """The named parameters of "all" of a ``Classifier``, of its "hidden" layers or of its "readout".

    The readout has its norm and, where it integrates, its leaks. Raises ``ValueError`` for another part.
    """
    if part not in PARTS:
        raise ValueError(f"unknown part {part!r} of a network: choose one of {', '.join(PARTS)}")
    return [
        (name, parameter)
        for name, parameter in network.named_parameters()
        if part == "all" or name.startswith("layers.") == (part == "hidden")
    ]


def random_direction(parameters: Iterable[tuple[str, Tensor]], generator: torch.Generator) -> State:
    """A direction of unit norm, uniform over all the named parameters taken together."""
    direction = {
        name: torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) for name, tensor in parameters
    }
    norm = length(direction, direction)
    return {name: tensor / norm for name, tensor in direction.items()}


def filter_normalised(direction: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> State:
    """``d_i |w_i| / |d_i|``, the filters i being the rows of the matrices (Li et al. 2018, section 4).

    So a step changes what arrives at each unit by the same share, whatever the scale of its weights. Vectors (batch
    norm's gains and biases, other biases, leaks) stand still, as theirs do: the direction returned has none. Raises
    ``ValueError`` where it then has nothing.
    """
    matrices = {name: tensor for name, tensor in direction.items() if tensor.ndim >= 2}
    if not matrices:
        raise ValueError("the direction moves no matrix, and only matrices have filters")
    return {name: tensor * _row_norms(state[name]) / _row_norms(tensor) for name, tensor in matrices.items()}


def length(tensors: Mapping[str, Tensor], names: Iterable[str]) -> float:
    """Euclidean norm of those of the tensors that are named, taken together.

    The unit of alpha, for a direction of unit norm: of the ``mean``'s tensors, the norm of the weights that move; of a
    mean-field Gaussian's ``std``, ``sqrt(sum sigma^2)``, the root mean square length of its noise on them.
    """
    named = set(names)
    return sum(float((tensor.double() ** 2).sum()) for name, tensor in tensors.items() if name in named) ** 0.5


def moved(state: State, direction: Mapping[str, Tensor], distance: float) -> State:
    """``state + distance * direction``; tensors that ``direction`` does not name stay where they are."""
    if unknown := direction.keys() - state.keys():
        raise ValueError(f"the direction moves {sorted(unknown)}, which the network does not have")
    return {
        name: tensor + distance * direction[name] if name in direction else tensor for name, tensor in state.items()
    }


def _row_norms(matrix: Tensor) -> Tensor:
    """[rows, 1, ...]; never 0, so that a row of zeros stays one."""
    rows = matrix.flatten(1).norm(dim=1).clamp(min=torch.finfo(matrix.dtype).tiny)
    return rows.view(-1, *[1] * (matrix.ndim - 1))
