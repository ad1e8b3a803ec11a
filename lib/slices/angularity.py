"""How angular a curve is: measures of the losses along one line, at evenly spaced points."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Steps on either side of one, whose medians say between what the smooth part of a curve passes there.
NEIGHBOURS = 3
# A jump leaves that range by this many times the range's typical width.
STANDS_OUT = 3

Alphas = Sequence[float] | np.ndarray


class Jumps(NamedTuple):
    """``size`` is the mean of their absolute heights, in the curve's units; NaN where there are none."""

    number: int
    size: float


def roughness(losses: np.ndarray) -> float:
    """Root mean square of the second difference of a curve; it depends on the distance between the curve's points."""
    return float(np.sqrt(np.mean(np.diff(losses, n=2) ** 2)))


def angularity_exponent(alphas: Alphas, losses: np.ndarray) -> float:
    """How the mean squared second difference of a curve grows with its step h, as the power of h.

    4 for a smooth curve, 3 for one with kinks, 1 for one with jumps, whatever its scale: the slope, by least squares,
    of ``log mean[(L(alpha + h) - 2 L(alpha) + L(alpha - h))^2]`` over ``log h``, h doubling from the distance between
    neighbouring points to a quarter of the range. Every h is averaged over the same alphas, those a quarter or more
    from the ends. NaN for a straight line. Raises ``ValueError`` for fewer than 9 points, or unevenly spaced ones.
    """
    alphas, losses = _evenly_spaced(alphas, losses)
    step = (alphas[-1] - alphas[0]) / (len(alphas) - 1)
    apart = 2 ** np.arange(int(np.log2((len(alphas) - 1) / 4)) + 1)
    inside = np.arange(apart[-1], len(alphas) - apart[-1])
    squares = np.array([np.mean((losses[inside + k] - 2 * losses[inside] + losses[inside - k]) ** 2) for k in apart])
    if squares.min() == 0:
        return float("nan")
    return float(np.polyfit(np.log(apart * step), np.log(squares), 1)[0])


def excess_variation(losses: np.ndarray) -> float:
    """``sum |L_{i+1} - L_i| - |L_end - L_start|``: twice what the curve climbs only to come down again."""
    return float(np.abs(np.diff(losses)).sum() - abs(losses[-1] - losses[0]))


def jumps(alphas: Alphas, losses: np.ndarray) -> Jumps:
    """The steps ``d_i = L_{i+1} - L_i`` that leave the range of those beside them.

    With a the median of the three steps before a step and b that of the three behind, a jump is a step further outside
    the range from a to b than three times the median width ``|b - a|`` of all of them; its height is
    ``|d_i - (a + b) / 2|``. Neither slope nor curvature nor a kink takes a step out of that range, and another jump
    within it does not move a median. The rule has no scale of either axis; 16 units of rounding in the largest loss are
    allowed for. The first and the last step, which may as well be a change of slope, are never jumps.

    Jumps between the same two points count as one. Where they stand at more than about every fifth step, nothing
    stands out any more: then compare exponents, or take a finer grid. Raises ``ValueError`` as ``angularity_exponent``.
    """
    _, losses = _evenly_spaced(alphas, losses)
    steps = np.diff(losses)
    # Beyond its ends the curve goes on as its own image in the end point: its first and last steps are in their range.
    continued = np.pad(steps, NEIGHBOURS, mode="reflect", reflect_type="odd")
    medians = np.median(np.lib.stride_tricks.sliding_window_view(continued, NEIGHBOURS), axis=1)
    before, behind = medians[: len(steps)], medians[-len(steps) :]
    outside = np.abs(steps - np.clip(steps, np.minimum(before, behind), np.maximum(before, behind)))
    rounding = 16 * np.finfo(float).eps * np.abs(losses).max()
    found = outside > STANDS_OUT * np.median(np.abs(behind - before)) + rounding
    heights = np.abs(steps - (before + behind) / 2)[found]
    return Jumps(len(heights), float(heights.mean()) if len(heights) else float("nan"))


def quadratic_residual(alphas: Alphas, losses: np.ndarray) -> float:
    """``sqrt(mean (L - q)^2)``, q being the parabola of least squares."""
    alphas = np.asarray(alphas, dtype=float)
    return float(np.sqrt(np.mean((losses - np.polynomial.Polynomial.fit(alphas, losses, 2)(alphas)) ** 2)))


def _evenly_spaced(alphas: Alphas, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    alphas, losses = np.asarray(alphas, dtype=float), np.asarray(losses, dtype=float)
    step = (alphas[-1] - alphas[0]) / (len(alphas) - 1)
    if len(alphas) < 9 or not np.allclose(np.diff(alphas), step, rtol=1e-3):
        raise ValueError("steps are compared at 9 or more evenly spaced points")
    return alphas, losses
