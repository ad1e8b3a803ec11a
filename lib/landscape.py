"""The loss landscape around a network: directions in it, how angular a curve is, and how sharp a minimum.

Measures of a curve take the losses along one line, as ``slices`` computes them, at evenly spaced points.
"""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from lib import metrics, posteriors
from lib.posteriors import MeanFieldGaussian, PointMass, State
from lib.slices import Alphas, Batches, bayesian_loss, deterministic_loss, random_direction

PARTS = ("all", "hidden", "readout")
# Steps on either side of one, whose medians say between what the smooth part of a curve passes there.
NEIGHBOURS = 3
# A jump leaves that range by this many times the range's typical width.
STANDS_OUT = 3


class Jumps(NamedTuple):
    """``size`` is the mean of their absolute heights, in the curve's units; NaN where there are none.

    ``intensity`` is the sum of their squared heights for each unit of alpha, their rate times their second moment: of
    jumps that stand apart the structure function is ``2 intensity h``.
    """

    number: int
    size: float
    intensity: float


class Slopes(NamedTuple):
    """Slopes of the loss along a direction, in nats for each unit of it; ``finite`` has one for each step."""

    surrogate: float
    finite: Float[np.ndarray, " steps"]


class Sharpness(NamedTuple):
    """Rise of the loss under noise on the weights, in nats: the mean over samples of the noise, and the worst."""

    mean: float
    worst: float


# Parts of a network, and directions in them


def curves(
    network: nn.Module, means: Mapping[str, State], std: State | None, batches: Batches, *,
    alphas: Alphas, directions: int, samples: int,
) -> pd.DataFrame:  # fmt: skip
    """Losses along random unit directions through each method's mean, and averaged over Gaussians around it.

    These have the standard deviation ``std``; without one there is the point's loss alone. Directions, minibatches and
    noise are the same for all curves. Columns: method, direction, alpha, loss ("point" or "averaged"), nll.
    """
    tables = []
    for number in range(directions):
        direction = random_direction(network.named_parameters(), torch.Generator().manual_seed(number))
        for method, mean in means.items():
            losses = {"point": deterministic_loss(network, mean, direction, alphas, batches)}
            if std is not None:
                around, noise = MeanFieldGaussian(mean, std), torch.Generator().manual_seed(0)
                losses["averaged"] = bayesian_loss(network, around, direction, alphas, batches, samples, noise)
            of_line = {"method": method, "direction": number, "alpha": alphas}
            tables += [pd.DataFrame(of_line | {"loss": loss, "nll": curve}) for loss, curve in losses.items()]
    return pd.concat(tables, ignore_index=True)


def parameters_of(network: nn.Module, part: str) -> list[tuple[str, nn.Parameter]]:
    """The named parameters of "all" of a classifier, of its "hidden" layers or of its "readout".

    The readout has its norm and, where it integrates, its leaks. Raises ``ValueError`` for another part.
    """
    if part not in PARTS:
        raise ValueError(f"unknown part {part!r} of a network: choose one of {', '.join(PARTS)}")
    return [
        (name, parameter)
        for name, parameter in network.named_parameters()
        if part == "all" or name.startswith("layers.") == (part == "hidden")
    ]


def parameter_groups(network: nn.Module) -> dict[str, list[str]]:
    """The names of a classifier's parameters by what they do in a hidden layer, and those of its readout.

    A layer's class says in ``groups`` to which group a parameter belongs, by its name in the layer or that of the
    module that has it, which may be a pattern. Raises ``ValueError`` for a parameter of which it does not say so.
    """
    groups: dict[str, list[str]] = {}
    for layer_name, layer in network.layers.named_children():
        for name, _ in layer.named_parameters():
            first = name.partition(".")[0]
            found = [group for pattern, group in layer.groups.items() if fnmatchcase(first, pattern)]
            if not found:
                raise ValueError(f"{type(layer).__name__} has no group for its parameter {name!r}: name it in `groups`")
            groups.setdefault(found[0], []).append(f"layers.{layer_name}.{name}")
    groups["readout"] = [name for name, _ in parameters_of(network, "readout")]
    return groups


def weight_norm(tensors: Mapping[str, Tensor], names: Iterable[str]) -> float:
    """Euclidean norm of those of the tensors that are named, taken together.

    Of a mean-field Gaussian's ``std`` it is ``sqrt(sum sigma^2)``, the root mean square norm of its noise. A direction
    of unit norm makes alpha a distance in these units.
    """
    named = set(names)
    return sum(float((tensor.double() ** 2).sum()) for name, tensor in tensors.items() if name in named) ** 0.5


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


def _row_norms(matrix: Tensor) -> Tensor:
    """[rows, 1, ...]; never 0, so that a row of zeros stays one."""
    rows = matrix.flatten(1).norm(dim=1).clamp(min=torch.finfo(matrix.dtype).tiny)
    return rows.view(-1, *[1] * (matrix.ndim - 1))


# How angular a curve is


def structure_function(alphas: Alphas, losses: Float[np.ndarray, " points"]) -> pd.DataFrame:
    """``D(h) = mean[(L(alpha + h) - 2 L(alpha) + L(alpha - h))^2]``, how unlike a line a curve is over a distance h.

    Columns: ``step`` (h, doubling from the distance between neighbouring points to a quarter of the range), ``square``
    (D), and ``slope``, that of log D over log h from this step to the next; the last has none (NaN). Where all is
    smooth below h the slope is 4, where kinks stand apart 3, where jumps do 1; a staircase whose jumps take each other
    back has 0 beyond the distance over which they do. So a slope is one at a scale. Every h is averaged over the same
    alphas, those a quarter or more from the ends. Raises ``ValueError`` for fewer than 9 points, or uneven spaces.
    """
    alphas, losses = _evenly_spaced(alphas, losses)
    apart = 2 ** np.arange(int(np.log2((len(alphas) - 1) / 4)) + 1)
    inside = np.arange(apart[-1], len(alphas) - apart[-1])
    squares = [np.mean((losses[inside + k] - 2 * losses[inside] + losses[inside - k]) ** 2) for k in apart]
    found = pd.DataFrame({"step": apart * (alphas[-1] - alphas[0]) / (len(alphas) - 1), "square": squares})
    logarithms = np.log2(found["square"].where(found["square"] > 0))
    return found.assign(slope=logarithms.shift(-1) - logarithms)


def angularity_exponent(alphas: Alphas, losses: Float[np.ndarray, " points"]) -> float:
    """The slope, by least squares, of the logarithm of the structure function over that of its step h.

    It is a summary over the scales of these points: about 4 for a smooth curve, 3 for one with kinks and 1 for one with
    jumps, as far as these stand apart at all of them. NaN for a straight line. Raises as ``structure_function`` does.
    """
    found = structure_function(alphas, losses)
    if found["square"].min() == 0:
        return float("nan")
    return float(np.polyfit(np.log(found["step"]), np.log(found["square"]), 1)[0])


def excess_variation(losses: Float[np.ndarray, " points"]) -> float:
    """``sum |L_{i+1} - L_i| - |L_end - L_start|``: twice what the curve climbs only to come down again."""
    return float(np.abs(np.diff(losses)).sum() - abs(losses[-1] - losses[0]))


def jumps(alphas: Alphas, losses: Float[np.ndarray, " points"]) -> Jumps:
    """The steps ``d_i = L_{i+1} - L_i`` that leave the range of those beside them.

    With a the median of the three steps before a step and b that of the three behind, a jump is a step further outside
    the range from a to b than three times the median width ``|b - a|`` of all of them; its height is
    ``|d_i - (a + b) / 2|``. Neither slope nor curvature nor a kink takes a step out of that range, and another jump
    within it does not move a median. The rule has no scale of either axis; 16 units of rounding in the largest loss are
    allowed for. The first and the last step, which may as well be a change of slope, are never jumps.

    Jumps between the same two points count as one. Where they stand at more than about every fifth step, nothing
    stands out any more: then compare exponents, or take a finer grid. Raises as ``angularity_exponent`` does.
    """
    alphas, losses = _evenly_spaced(alphas, losses)
    steps = np.diff(losses)
    # Beyond its ends the curve goes on as its own image in the end point: its first and last steps are in their range.
    continued = np.pad(steps, NEIGHBOURS, mode="reflect", reflect_type="odd")
    medians = np.median(np.lib.stride_tricks.sliding_window_view(continued, NEIGHBOURS), axis=1)
    before, behind = medians[: len(steps)], medians[-len(steps) :]
    outside = np.abs(steps - np.clip(steps, np.minimum(before, behind), np.maximum(before, behind)))
    rounding = 16 * np.finfo(float).eps * np.abs(losses).max()
    found = outside > STANDS_OUT * np.median(np.abs(behind - before)) + rounding
    heights = np.abs(steps - (before + behind) / 2)[found]
    intensity = float((heights**2).sum() / (alphas[-1] - alphas[0]))
    return Jumps(len(heights), float(heights.mean()) if len(heights) else float("nan"), intensity)


def quadratic_residual(alphas: Alphas, losses: Float[np.ndarray, " points"]) -> float:
    """``sqrt(mean (L - q)^2)``, q being the parabola of least squares."""
    alphas = np.asarray(alphas, dtype=float)
    return float(np.sqrt(np.mean((losses - np.polynomial.Polynomial.fit(alphas, losses, 2)(alphas)) ** 2)))


def _evenly_spaced(alphas: Alphas, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    alphas, losses = np.asarray(alphas, dtype=float), np.asarray(losses, dtype=float)
    step = (alphas[-1] - alphas[0]) / (len(alphas) - 1)
    if len(alphas) < 9 or not np.allclose(np.diff(alphas), step, rtol=1e-3):
        raise ValueError("steps are compared at 9 or more evenly spaced points")
    return alphas, losses


# The surrogate gradient, and sharpness


def surrogate_alignment(
    network: nn.Module, state: State, direction: Mapping[str, Tensor], batches: Batches, steps: Sequence[float]
) -> Slopes:
    """What the surrogate gradient says of the loss along a direction, beside what the loss does.

    ``surrogate`` is ``direction . grad L``, the spikes' derivatives being the boxcar's; ``finite`` is
    ``(L(h) - L(-h)) / 2h`` of the loss of hard spikes for each h of ``steps``, L as in ``deterministic_loss``. Without
    spikes between, as in the readout, they differ by the order of h^2; through hard spikes the second is 0 but for
    jumps, and their alignment over directions is a matter of measurement. In single precision the second is uncertain
    by about 1e-7 / h.
    """
    own = next(network.parameters())
    placed = posteriors.on_device_of(network, state)
    leaves = {name: placed[name].detach().requires_grad_() for name in direction}
    with torch.enable_grad(), posteriors.evaluating(network):
        losses = [
            cross_entropy(functional_call(network, placed | leaves, features.to(own)), labels.to(own.device).long())
            for features, labels in batches
        ]
        # Where a parameter has no effect in evaluation mode, its gradient is zero.
        gradients = torch.autograd.grad(torch.stack(losses).mean(), list(leaves.values()), materialize_grads=True)
    pairs = zip(direction.values(), gradients, strict=True)
    surrogate = sum(float((gradient.cpu().double() * along.double()).sum()) for along, gradient in pairs)
    alphas = np.array([*steps, *(-step for step in steps)])
    above, below = np.split(deterministic_loss(network, state, direction, alphas, batches), 2)
    return Slopes(surrogate, (above - below) / (2 * np.asarray(steps)))


def sharpness(
    network: nn.Module, state: State, names: Iterable[str], std: float,
    features: Float[Tensor, "batch time features"], labels: Int64[Tensor, " batch"],
    samples: int, generator: torch.Generator,
) -> Sharpness:  # fmt: skip
    """By how much Gaussian noise of the standard deviation ``std`` on the named tensors raises the loss.

    Each of the samples is a network of its own, with the rise ``L(state + noise) - L(state)``.
    """
    noisy = MeanFieldGaussian(state, {name: torch.full_like(state[name], std) for name in names})
    sampled = posteriors.predict(network, noisy, features, samples, generator)
    point = posteriors.predict(network, PointMass(state), features, 1, generator)
    losses = [metrics.negative_log_likelihood(probabilities, labels) for probabilities in sampled]
    still = metrics.negative_log_likelihood(point, labels)
    return Sharpness(float(np.mean(losses)) - still, max(losses) - still)
