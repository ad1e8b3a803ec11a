"""With twelve methods in one picture, what is drawn is what was given, and the methods can be told apart."""

import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color, to_rgb

from lib import figures
from lib.figures.style import looks

SOURCE = "synthetic-hd (synthetic speech)"
METHODS = list(figures.METHOD_LABELS)
SEEDS = (1, 2, 3)


def curve(scale=1.0):
    return pd.DataFrame({"coverage": [0.25, 0.5, 1.0], "risk": [0.0, 0.1 * scale, 0.2 * scale]})


def bins(count=(0, 30, 50, 20)):
    empty = np.array(count) == 0
    confidence = np.where(empty, math.nan, [0.1, 0.3, 0.6, 0.9])
    accuracy = np.where(empty, math.nan, [0.2, 0.4, 0.5, 1.0])
    return pd.DataFrame({"confidence": confidence, "accuracy": accuracy, "count": count})


def differences(methods=METHODS[1:]):
    ends = [(-0.3, -0.1), (0.1, 0.4), (-0.2, 0.1)]
    rows = [(name, sum(ends[place % 3]) / 2, *ends[place % 3]) for place, name in enumerate(methods)]
    return pd.DataFrame(rows, columns=["method", "difference", "from", "to"])


def noisy(methods=METHODS, levels=(20, 10, 0)):
    """The NLL falls with the ratio and is spread by 0.1 over seeds."""
    return pd.DataFrame(
        [
            {"method": name, "seed": seed, "snr": level, "nll": place - level / 10 + seed / 10, "accuracy": level}
            for place, name in enumerate(methods)
            for seed in SEEDS
            for level in levels
        ]
    )


def detected(methods=METHODS, without=("map", "temperature")):
    return pd.DataFrame(
        [
            {"method": name, "seed": seed, "unknown": kind, "measure": measure, "auroc": base + seed / 100}
            for name in methods
            for seed in SEEDS
            for kind, base in (("noise", 0.9), ("words left out", 0.6))
            for measure in ("entropy", "mutual information")
            if measure == "entropy" or name not in without
        ]
    )


def sampled(lines=("ivon", "FSDD, new speaker")):
    return pd.DataFrame(
        [
            {"line": line, "seed": seed, "samples": count, "nll": (place + 1) / count + seed / 10}
            for place, line in enumerate(lines)
            for seed in SEEDS
            for count in (1, 2, 4, 64)
        ]
    )


EVERY_FIGURE = {
    "risk_coverage": lambda: figures.risk_coverage({name: curve() for name in METHODS}, SOURCE),
    "reliability_lines": lambda: figures.reliability_lines({name: bins() for name in METHODS}, SOURCE),
    "intervals": lambda: figures.intervals(differences(), "NLL minus Adam's", SOURCE),
    "under_noise": lambda: figures.under_noise(noisy(), {"nll": "NLL", "accuracy": "Accuracy (%)"}, SOURCE),
    "detection": lambda: figures.detection(detected(), SOURCE),
    "samples": lambda: figures.samples(sampled(METHODS), {"nll": "NLL"}, SOURCE),
}


def texts(figure):
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(plt.Text) if text.get_text()]


def points_by_label(axis):
    """The points [point, (x, y)] of each line, by its label in the legend."""
    return {
        name: np.array((handle.lines[0] if hasattr(handle, "lines") else handle).get_xydata(), dtype=float)
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)
    }


def bars_of(axis):
    """The means that are marked with an upright bar, by the row on which they stand."""
    segments = [segment for collection in axis.collections for segment in collection.get_segments()]
    return {round(float(segment[:, 1].mean()), 3): segment[0, 0] for segment in segments}


@pytest.mark.parametrize("name", EVERY_FIGURE)
def test_every_figure_names_its_data_and_all_methods(name):
    before = dict(plt.rcParams)
    figure = EVERY_FIGURE[name]()
    written = texts(figure)
    assert f"Data: {SOURCE}" in written
    expected = METHODS[1:] if name == "intervals" else METHODS
    # A tick has its label twice, for either side of the axis.
    names = list(dict.fromkeys(text for text in written if text in figures.METHOD_LABELS.values()))
    assert names == [figures.METHOD_LABELS[method] for method in expected]
    assert not plt.get_fignums()
    assert same_color(figure.get_facecolor(), "white")
    assert figure.get_figwidth() * 100 == pytest.approx(720)
    assert dict(plt.rcParams) == before


def test_methods_have_a_colour_and_a_marker_of_their_own():
    look = looks(METHODS)
    for part in ("color", "marker", "label"):
        assert len({own[part] for own in look.values()}) == len(METHODS) == 12
    # Whatever stands beside it.
    assert looks(["a data set", "sbnn"])["sbnn"] == look["sbnn"]
    assert {method: look[method]["color"] for method in figures.METHOD_COLOURS} == figures.METHOD_COLOURS


# Linear RGB as seen without red or green cones: Machado, Oliveira & Fernandes (2009), at full severity.
CONES = {
    "all": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
# From linear sRGB to CIE XYZ over the white point D65.
TO_XYZ = [[0.412456, 0.357576, 0.180438], [0.212673, 0.715152, 0.072175], [0.019334, 0.119192, 0.950304]]
TO_XYZ /= np.sum(TO_XYZ, axis=1, keepdims=True)


def lab(colour, cones):
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(cones @ linear, 0, 1)
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize(("cones", "apart"), [("all", 40), ("no red", 23), ("no green", 23)])
def test_any_two_methods_are_told_apart_by_colour(cones, apart):
    seen = [lab(look["color"], np.array(CONES[cones])) for look in looks(METHODS).values()]
    assert min(np.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2)) >= apart


def test_other_names_have_looks_as_well():
    names = ["FSDD", "seven words", "synthetic"]
    look = looks(names)
    assert [own["label"] for own in look.values()] == names
    assert len({(own["color"], own["marker"]) for own in look.values()}) == 3


def test_risk_is_drawn_against_coverage():
    (axis,) = figures.risk_coverage({"map": curve(), "swag": curve(2)}, SOURCE).axes
    points = points_by_label(axis)
    assert list(points) == ["Adam (MAP)", "SWAG"]
    np.testing.assert_allclose(points["Adam (MAP)"], [[0.25, 0], [0.5, 0.1], [1, 0.2]])
    np.testing.assert_allclose(points["SWAG"], [[0.25, 0], [0.5, 0.2], [1, 0.4]])
    assert axis.get_xlim() == (0, 1)
    assert axis.get_ylim()[0] == 0


def test_reliability_lines_draw_the_gap_of_filled_bins():
    figure = figures.reliability_lines({"map": bins(), "sbnn": bins(count=(1, 2, 3, 4))}, SOURCE)
    first, second = figure.axes
    zero, line = first.get_lines()
    assert set(zero.get_ydata()) == {0}
    np.testing.assert_allclose(line.get_xydata(), [[0.3, 0.1], [0.6, -0.1], [0.9, 0.1]])
    (dots,) = first.collections
    np.testing.assert_allclose(dots.get_offsets(), line.get_xydata())
    np.testing.assert_allclose(dots.get_sizes() / dots.get_sizes().sum(), [0.3, 0.5, 0.2])
    assert len(second.collections[0].get_offsets()) == 4
    assert [axis.get_title() for axis in figure.axes] == ["Adam (MAP)", "SBNN"]


@pytest.mark.parametrize("count", [1, 4, 5, 12])
def test_the_lowest_panel_of_each_column_has_numbers_and_a_name_beneath(count):
    figure = figures.reliability_lines(dict.fromkeys(METHODS[:count], bins()), SOURCE)
    figure.canvas.draw()
    for place, axis in enumerate(figure.axes):
        lowest = place + 4 >= count
        assert axis.get_xlabel() == ("confidence" if lowest else "")
        assert axis.xaxis.get_tick_params()["labelbottom"] == lowest


def test_intervals_are_filled_where_they_exclude_zero():
    rows = differences(["ivon", "bbb", "swag"])
    (axis,) = figures.intervals(rows, "NLL minus Adam's", SOURCE).axes
    _, *marks = axis.get_lines()
    ends = [collection.get_segments()[0].tolist() for collection in axis.collections]
    assert ends == [[[row["from"], place], [row["to"], place]] for place, row in enumerate(rows.to_dict("records"))]
    assert [mark.get_xdata()[0] for mark in marks] == rows["difference"].tolist()
    hollow = [same_color(mark.get_markerfacecolor(), "white") for mark in marks]
    assert hollow == [False, False, True]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["IVON", "Bayes by Backprop", "SWAG"]
    assert axis.yaxis_inverted()
    assert axis.get_xlabel() == "NLL minus Adam's"


def test_an_interval_that_touches_zero_does_not_exclude_it():
    row = pd.DataFrame({"method": ["ivon"], "difference": [0.0], "from": [0.0], "to": [0.0]})
    (axis,) = figures.intervals(row, "accuracy", SOURCE).axes
    assert same_color(axis.get_lines()[-1].get_markerfacecolor(), "white")


def test_measures_are_drawn_as_the_noise_rises():
    figure = figures.under_noise(noisy(["map", "ivon"]), {"nll": "NLL", "accuracy": "Accuracy (%)"}, SOURCE)
    first, second = figure.axes
    points = points_by_label(first)
    assert list(points) == ["Adam (MAP)", "IVON"]
    # The methods stand on either side of a level.
    np.testing.assert_allclose((points["Adam (MAP)"] + points["IVON"])[:, 0] / 2, [0, 10, 20])
    np.testing.assert_allclose(points["IVON"][:, 0], [0, 10, 20], atol=1)
    np.testing.assert_allclose(points["IVON"][:, 1], [1.2, 0.2, -0.8])
    assert first.xaxis_inverted()
    assert second.xaxis_inverted()
    spread = first.containers[1].lines[2][0].get_segments()
    np.testing.assert_allclose([segment[:, 1] for segment in spread], [[1.1, 1.3], [0.1, 0.3], [-0.9, -0.7]])
    assert [axis.get_title() for axis in figure.axes] == ["NLL", "Accuracy (%)"]


def test_one_seed_has_no_bars():
    (axis,) = figures.under_noise(noisy().query("seed == 1"), {"nll": "NLL"}, SOURCE).axes
    assert len(points_by_label(axis)) == 12
    assert all(segment.size == 0 for bars in axis.collections for segment in bars.get_segments())


def test_detection_has_a_dot_for_each_seed_and_a_bar_at_the_mean():
    figure = figures.detection(detected(["map", "ivon"]), SOURCE)
    noise, words = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["noise", "words left out"]
    assert [tick.get_text() for tick in noise.get_yticklabels()] == ["Adam (MAP)", "IVON"]
    for axis, base in ((noise, 0.9), (words, 0.6)):
        dots = [line for line in axis.get_lines() if len(line.get_xdata()) == 3]
        assert [line.get_xdata().tolist() for line in dots] == [
            pytest.approx([base + 0.01, base + 0.02, base + 0.03])
        ] * 3
        # Adam has no mutual information; IVON's is hollow.
        assert [line.get_fillstyle() for line in dots] == ["full", "full", "none"]
        assert list(bars_of(axis).values()) == pytest.approx([base + 0.02] * 3)
        assert list(bars_of(axis)) == pytest.approx([-0.17, 0.83, 1.17])
        (chance,) = [line for line in axis.get_lines() if set(line.get_xdata()) == {0.5}]
        assert chance.get_linestyle() == "--"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["entropy", "mutual information"]


def test_samples_double_from_mark_to_mark():
    (axis,) = figures.samples(sampled(), {"nll": "NLL"}, SOURCE).axes
    points = points_by_label(axis)
    assert list(points) == ["IVON", "FSDD, new speaker"]
    np.testing.assert_allclose(points["IVON"], [[1, 1.2], [2, 0.7], [4, 0.45], [64, 1 / 64 + 0.2]])
    np.testing.assert_allclose(points["FSDD, new speaker"], [[1, 2.2], [2, 1.2], [4, 0.7], [64, 2 / 64 + 0.2]])
    assert axis.get_xscale() == "log"
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["1", "2", "4", "64"]


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="nothing to draw"):
        figures.reliability_lines({}, SOURCE)
