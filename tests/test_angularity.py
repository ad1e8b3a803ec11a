"""Measures of a curve on curves whose answer is known."""

import math

import numpy as np
import pytest

from lib import slices

ALPHAS = np.linspace(-1, 1, 101)


def close(value):
    return pytest.approx(value, rel=0.05)


def staircase(alphas, generator):
    """Jumps of random heights at random places."""
    places, heights = generator.uniform(-1, 1, 300), generator.normal(size=300)
    return (heights * (alphas[:, None] > places)).sum(axis=1)


def polygon(alphas, generator):
    """Kinks at random places."""
    places, slopes = generator.uniform(-1, 1, 300), generator.normal(size=300)
    return (slopes * np.maximum(alphas[:, None] - places, 0)).sum(axis=1)


def wave(alphas, generator):
    return np.sin(alphas + generator.uniform(0, 6))


def apart(number, generator):
    """Places of jumps, in the middles of steps, not in the first or last, three or more steps apart."""
    steps = 3 * generator.choice(np.arange(1, 32), number, replace=False) + generator.integers(0, 2)
    return (ALPHAS[steps] + ALPHAS[steps + 1]) / 2


SMOOTH = {
    "line": 3 * ALPHAS + 2,
    "parabola": 3 * ALPHAS**2 - ALPHAS + 1,
    "wave": np.sin(7 * ALPHAS),
    "exponential": np.exp(5 * ALPHAS),
    "kinks": sum(np.abs(ALPHAS - place) for place in (-0.61, -0.2, 0.033, 0.47)),
    "flat": np.full(101, 1.7),
}


# The exponent


@pytest.mark.parametrize(("curve", "exponent"), [(wave, 4), (polygon, 3), (staircase, 1)])
def test_the_angularity_exponent_tells_smooth_curves_from_kinks_and_from_jumps(curve, exponent):
    generator = np.random.default_rng(0)
    alphas = np.linspace(-1, 1, 257)
    found = [slices.angularity_exponent(alphas, curve(alphas, generator)) for _ in range(200)]
    assert np.mean(found) == close(exponent)


@pytest.mark.parametrize(("curve", "exponent"), [(wave, 4), (polygon, 3), (staircase, 1)])
@pytest.mark.parametrize("points", [33, 101])
def test_few_points_bring_the_exponent_down_a_little(curve, exponent, points):
    generator = np.random.default_rng(0)
    alphas = np.linspace(-1, 1, points)
    found = [slices.angularity_exponent(alphas, curve(alphas, generator)) for _ in range(200)]
    assert np.mean(found) == pytest.approx(exponent, abs=0.2)


def test_the_angularity_exponent_has_no_scale():
    alphas = np.linspace(-1, 1, 65)
    curve = staircase(alphas, np.random.default_rng(1))
    exponent = slices.angularity_exponent(alphas, curve)
    assert slices.angularity_exponent(1e3 * alphas, 1e-4 * curve + 7) == pytest.approx(exponent, abs=1e-6)


def test_the_exponent_of_a_parabola_is_four_to_the_last_digit():
    alphas = np.linspace(-2, 2, 65)
    assert slices.angularity_exponent(alphas, 3 * alphas**2 - alphas + 1) == pytest.approx(4, abs=1e-9)


def test_a_straight_line_has_no_exponent():
    assert math.isnan(slices.angularity_exponent(np.arange(9), 2.0 * np.arange(9)))


@pytest.mark.parametrize("measure", [slices.angularity_exponent, slices.jumps])
@pytest.mark.parametrize("alphas", [np.linspace(0, 1, 8), np.geomspace(1, 2, 17)])
def test_a_measure_of_steps_needs_enough_evenly_spaced_points(measure, alphas):
    with pytest.raises(ValueError, match="9 or more evenly spaced"):
        measure(alphas, alphas)


# Roughness and variation


def test_roughness_is_the_root_mean_square_second_difference():
    assert slices.roughness(np.array([0.0, 0.0, 3.0, 0.0])) == pytest.approx(math.sqrt((3**2 + 6**2) / 2))
    assert slices.roughness(np.arange(5.0)) == 0


def test_a_curve_that_only_climbs_has_no_excess_variation():
    assert slices.excess_variation(np.exp(ALPHAS)) == pytest.approx(0, abs=1e-12)
    assert slices.excess_variation(-SMOOTH["line"]) == pytest.approx(0, abs=1e-12)


def test_excess_variation_is_twice_the_way_back():
    assert slices.excess_variation(ALPHAS**2) == close(2)  # down by 1 and up by 1, for a net change of 0
    periods = np.sin(6 * np.pi * ALPHAS)  # six periods of 4 each, but for points that miss the tops
    assert slices.excess_variation(periods) == close(24)
    up_and_down = np.array([0.0, 5.0, 3.0, 6.0])
    assert slices.excess_variation(up_and_down) == 4


# Jumps


@pytest.mark.parametrize("name", SMOOTH)
def test_a_curve_without_jumps_has_none(name):
    found = slices.jumps(ALPHAS, SMOOTH[name])
    assert found.number == 0
    assert math.isnan(found.size)


def test_many_kinks_are_no_jumps():
    generator = np.random.default_rng(0)
    found = [slices.jumps(ALPHAS, polygon(ALPHAS, generator)).number for _ in range(100)]
    assert np.mean(found) < 0.05


@pytest.mark.parametrize("smooth", SMOOTH)
@pytest.mark.parametrize("number", [1, 5, 15])
def test_jumps_are_counted_and_measured_on_whatever_they_stand(smooth, number):
    generator = np.random.default_rng(number)
    for _ in range(20):
        heights = generator.uniform(5, 10, number) * generator.choice([-1, 1], number)
        stairs = (heights * (ALPHAS[:, None] > apart(number, generator))).sum(axis=1)
        found = slices.jumps(ALPHAS, SMOOTH[smooth] + stairs)
        assert found.number == number
        assert found.size == close(np.abs(heights).mean())


def test_jumps_have_no_scale():
    generator = np.random.default_rng(0)
    curve = ALPHAS**2 + 0.1 * (ALPHAS[:, None] > apart(6, generator)).sum(axis=1)
    found = slices.jumps(1e3 * ALPHAS, 1e-4 * curve + 1e-3)
    assert found.number == slices.jumps(ALPHAS, curve).number == 6
    assert found.size == close(1e-5)


def test_jumps_too_small_to_be_told_from_curvature_are_not_counted():
    # From before a step to behind it the parabola gains 3.2e-3; three times that stands out.
    small, large = (ALPHAS**2 + height * (ALPHAS > 0.101) for height in (0.004, 0.012))
    assert slices.jumps(ALPHAS, small).number == 0
    assert slices.jumps(ALPHAS, large) == (1, close(0.012))


def test_the_first_and_the_last_step_are_never_jumps():
    assert slices.jumps(ALPHAS, 1.0 * (ALPHAS > -0.99)).number == 0
    assert slices.jumps(ALPHAS, 1.0 * (ALPHAS > 0.99)).number == 0


# The residual


def test_a_parabola_leaves_no_residual():
    assert slices.quadratic_residual(ALPHAS, SMOOTH["parabola"]) == pytest.approx(0, abs=1e-12)
    assert slices.quadratic_residual(ALPHAS, SMOOTH["line"]) == pytest.approx(0, abs=1e-12)


def test_the_residual_of_a_cubic_is_that_of_its_legendre_polynomial():
    # x^3 = 3/5 P_1 + 2/5 P_3, and the mean square of P_3 over [-1, 1] is 1/7.
    alphas = np.linspace(-1, 1, 1001)
    assert slices.quadratic_residual(alphas, alphas**3 + alphas**2) == close(0.4 / math.sqrt(7))


def test_the_residual_does_not_see_a_parabola_under_a_staircase():
    alphas = np.linspace(-1, 1, 1001)
    # Of sign(x) the parabola takes 3/2 x, which leaves a mean square of 1 - 3/4.
    assert slices.quadratic_residual(alphas, 5 * alphas**2 + np.sign(alphas)) == close(0.5)
