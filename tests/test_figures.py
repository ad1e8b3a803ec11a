"""What is drawn is what was given, and says where it is from."""

import base64
import io
import itertools
import math
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from matplotlib.colors import same_color, to_rgb
from matplotlib.patches import Rectangle

from lib import figures
from lib.figures.style import looks, order
from lib.methods import METHODS

SOURCE = "synthetic-hd (synthetic speech)"
NAMES = list(METHODS)
LABELS = [method.label for method in METHODS.values()]
BOTH = {"nll": "NLL", "accuracy": "Accuracy (%)"}
GRID = np.linspace(-1, 1, 5)


def rows_of(methods=("map", "ivon"), levels=(1, 2, 4), kinds=("weights", "leaks")):
    """The NLL is 1 + the method's place + the level's place, and 0.1 of standard deviation over seeds."""
    return pd.DataFrame(
        [
            {"method": name, "seed": seed, "level": level, "kind": kind}
            | {"nll": 1 + place + worse + (seed - 2) / 10, "accuracy": 50.0}
            for place, name in enumerate(methods)
            for seed in (1, 2, 3)
            for kind in kinds
            for worse, level in enumerate(levels)
        ]
    )


def differences(methods=("ivon", "bbb", "swag"), kinds=("weights", "leaks")):
    ends = [(-0.3, -0.1), (0.1, 0.4), (-0.2, 0.1)]
    rows = [(kind, name, sum(ends[i % 3]) / 2, *ends[i % 3]) for kind in kinds for i, name in enumerate(methods)]
    return pd.DataFrame(rows, columns=["kind", "method", "difference", "from", "to"])


def history(methods=("map", "ivon"), epochs=3, layers=2):
    epoch = np.arange(1, epochs + 1)
    columns = {"train_loss": 2 / epoch, "validation_loss": 3 / epoch, "validation_accuracy": 1 - 0.5 / epoch}
    columns["learning_rate"] = 0.01 / epoch
    columns |= {f"firing_rate_{layer + 1}": 0.1 + 0 * epoch for layer in range(layers)}
    return pd.concat(pd.DataFrame({"method": name, "epoch": epoch, **columns}) for name in methods)


def bins(methods=("map", "ivon")):
    one = pd.DataFrame({"confidence": [math.nan, 0.3, 0.6, 0.9], "accuracy": [math.nan, 0.4, 0.5, 1.0]})
    return pd.concat(one.assign(count=[0, 30, 50, 20], method=name) for name in methods)


def correlated():
    found = [(0.5, 0.1, 0.8), (0.2, -0.3, 0.6), (-0.7, -0.9, -0.2), (math.nan,) * 3]
    places = itertools.product(["exponent", "sharpness"], ["weights", "bits"])
    rows = [(*place, *numbers) for place, numbers in zip(places, found, strict=True)]
    return pd.DataFrame(rows, columns=["measure", "outcome", "correlation", "from", "to"])


def surface(methods=("map", "ivon"), samples=(1,)):
    """alpha + 10 beta, over the number of samples, and 100 higher for each method."""
    places = itertools.product(enumerate(methods), samples, GRID, GRID)
    rows = [(name, count, b, a, 100 * place + (a + 10 * b) / count) for (place, name), count, b, a in places]
    return pd.DataFrame(rows, columns=["method", "samples", "beta", "alpha", "nll"])


# Each kind of picture with all methods, where it shows methods.
NOISE = np.random.default_rng(0).normal(size=(3, 9, 5))
ANSWERS = np.array([[0.5, 0.25, 0.25], [0.75, 0.25, 0.0]])
OF_ROWS = {
    "lines": (lambda rows: figures.lines(rows, "level", BOTH, SOURCE), rows_of),
    "lines in panels": (lambda rows: figures.lines(rows, "level", {"nll": "NLL"}, SOURCE, panel="kind"), rows_of),
    "learning_curves": (lambda rows: figures.learning_curves(rows, SOURCE), history),
    "histograms": (lambda rows: figures.histograms(rows, "nll", SOURCE, name="kind", panel="method"), rows_of),
    "seed_dots": (lambda rows: figures.seed_dots(rows, BOTH, SOURCE), rows_of),
    "seed_dots of kinds": (lambda rows: figures.seed_dots(rows, BOTH, SOURCE, row="kind"), rows_of),
    "intervals": (lambda rows: figures.intervals(rows, "NLL less Adam's", SOURCE, panel="kind"), differences),
    "scatter": (lambda rows: figures.scatter(rows, {"accuracy": "accuracy"}, "nll", "NLL", SOURCE), rows_of),
    "reliability": (lambda rows: figures.reliability(rows, SOURCE), bins),
    "surfaces": (lambda rows: figures.surfaces(rows, SOURCE), surface),
    "correlations": (lambda rows: figures.correlations(rows, SOURCE), lambda _=(): correlated()),
}
OF_ARRAYS = {
    "waveform": lambda: figures.waveform([NOISE[0, :, 0]], 8000, ["yes"], SOURCE),
    "raster": lambda: figures.raster([np.nonzero(np.eye(6))], ["yes"], SOURCE),
    "pathway": lambda: figures.pathway((NOISE[0, :, 0], 8000), NOISE[0], np.eye(9), ANSWERS, list("abc"), SOURCE),
    "membrane": lambda: figures.membrane(NOISE[0, :, 0], np.zeros(9), NOISE[0, :, 1], 1.0, SOURCE),
    "features": lambda: figures.features(NOISE, list("abc"), SOURCE),
    "confusion": lambda: figures.confusion(np.eye(3, dtype=np.int64), list("abc"), SOURCE),
}


def texts(figure):
    """Every text in a figure, as drawn, each once."""
    figure.canvas.draw()
    return list(dict.fromkeys(text.get_text() for text in figure.findobj(plt.Text) if text.get_text()))


def points_by_label(axis):
    """The points [point, (x, y)] of each line that goes through means, by its label."""
    return {bars.get_label(): np.array(bars.lines[0].get_xydata(), dtype=float) for bars in axis.containers}


def titles_of(figure):
    return [axis.get_title() for axis in figure.axes]


def ticks(axis, which):
    return [tick.get_text() for tick in getattr(axis, f"get_{which}ticklabels")()]


# All kinds


@pytest.mark.parametrize("name", [*OF_ROWS, *OF_ARRAYS])
def test_every_figure_names_its_data_and_methods_and_is_closed_and_white(name):
    before = dict(plt.rcParams)
    if name in OF_ROWS:
        draw, made = OF_ROWS[name]
        figure = draw(made(NAMES))
    else:
        figure = OF_ARRAYS[name]()
    written = texts(figure)
    assert f"Data: {SOURCE}" in written
    assert [text for text in written if text in LABELS] == ([] if name in {*OF_ARRAYS, "correlations"} else LABELS)
    assert not plt.get_fignums()
    assert same_color(figure.get_facecolor(), "white")
    assert figure.get_figwidth() * 100 == pytest.approx(720)
    assert dict(plt.rcParams) == before


@pytest.mark.parametrize("name", OF_ROWS)
def test_no_rows_and_a_missing_column_are_refused(name):
    draw, made = OF_ROWS[name]
    rows = made()
    with pytest.raises(ValueError, match="nothing to draw"):
        draw(rows.iloc[:0])
    column = "measure" if name == "correlations" else "method"
    with pytest.raises(ValueError, match=f"lack the columns {column}; they have"):
        draw(rows.drop(columns=column))


def test_no_waveform_and_a_missing_title_are_refused():
    with pytest.raises(ValueError, match="nothing to draw"):
        figures.waveform([], 8000, [], SOURCE)
    with pytest.raises(ValueError, match="shorter"):
        figures.features(NOISE, ["one"], SOURCE)


# Looks

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
def test_any_two_methods_are_told_apart_by_colour_or_are_of_one_base(cones, apart):
    colours = dict.fromkeys(look["color"] for look in looks(NAMES).values())
    for colour in colours:
        first, *alike = (method for method in METHODS.values() if method.colour == colour)
        of_one = [(first,), getattr(first, "made_of", (first,))]
        assert all(other.made_of in of_one for other in alike)
    seen = [lab(colour, np.array(CONES[cones])) for colour in colours]
    assert min(np.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2)) >= apart


def test_methods_have_looks_of_their_own_other_names_the_next_and_synthetic_speech_is_called_so():
    look = looks(["FSDD", *NAMES, "seven words"])
    assert list(look) == ["FSDD", *NAMES, "seven words"]
    assert [look[name]["label"] for name in look] == ["FSDD", *LABELS, "seven words"]
    assert len({look[name]["marker"] for name in NAMES}) == len(NAMES)
    for name, method in METHODS.items():
        assert (look[name]["color"], look[name]["marker"]) == (method.colour, method.marker)
    assert look["FSDD"]["color"] != look["seven words"]["color"]
    assert [figures.source_of(name) for name in ("synthetic-hd", "fsdd")] == [SOURCE, "fsdd"]


def test_categories_keep_their_order_and_numbers_rise():
    assert order(pd.Series([3, 1, 2, 1])) == [1, 2, 3]
    assert order(pd.Series(["b", "a", "b"])) == ["b", "a"]
    assert order(pd.Series(pd.Categorical(["a", "b"], ["c", "b", "a"], ordered=True))) == ["b", "a"]


# Lines


@pytest.mark.parametrize("levels", [(0, 10, 20), ("5 %", "10 %", "50 %")])
def test_lines_go_through_the_means_with_a_bar_of_one_deviation(levels):
    rows = rows_of(levels=levels, kinds=["leaks"])
    first, second = figures.lines(rows, "level", BOTH, SOURCE, xlabel="SNR (dB)").axes
    adam, ivon = points_by_label(first).values()
    places = levels if isinstance(levels[0], int) else [0, 1, 2]
    # The methods stand on either side of a level.
    np.testing.assert_allclose((adam + ivon)[:, 0] / 2, places)
    assert (adam[:, 0] < ivon[:, 0]).all()
    np.testing.assert_allclose(ivon[:, 1], [2, 3, 4])
    bars = first.containers[1].lines[2][0].get_segments()
    np.testing.assert_allclose([bar[:, 1] for bar in bars], [[1.9, 2.1], [2.9, 3.1], [3.9, 4.1]])
    assert ticks(first, "x") == [str(level) for level in levels]
    assert [axis.get_title() for axis in (first, second)] == list(BOTH.values())
    assert second.get_xlabel() == "SNR (dB)"
    for line, name in zip(first.containers, ("map", "ivon"), strict=True):
        assert same_color(line.lines[0].get_color(), METHODS[name].colour)
        assert line.lines[0].get_marker() == METHODS[name].marker


def test_measured_dots_with_their_errors_lie_on_predicted_lines():
    rows = pd.DataFrame({"draws": [1, 4, 16], "predicted": [4.0, 1.0, 0.25], "error": 0.1, "what": "D"})
    rows["measured"] = [3.9, 1.2, -0.1]
    (axis,) = figures.predictions(rows, "draws", SOURCE, name="what", title="D(h)").axes
    line = axis.get_lines()[0]
    np.testing.assert_allclose(line.get_xydata(), rows[["draws", "predicted"]])
    # What is not above zero has no place on a logarithmic scale.
    np.testing.assert_allclose(axis.containers[0].lines[0].get_xydata(), rows[["draws", "measured"]].head(2))
    bars = axis.containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose([bar[:, 1] for bar in bars], [[3.8, 4.0], [1.1, 1.3]])
    (axis,) = figures.predictions(rows, "predicted", SOURCE, name="what", title="measured", log=()).axes
    np.testing.assert_allclose(axis.get_lines()[0].get_xydata(), [[0.25, 0.25], [4, 4]])
    assert len(axis.containers[0].lines[0].get_xydata()) == 3


def test_lines_on_logarithmic_and_reversed_scales():
    rows = rows_of(levels=(1, 2, 64))
    figure = figures.lines(rows, "level", BOTH, SOURCE, log=("level", "nll"), reverse=True, powers={"nll": -0.5})
    first, second = figure.axes
    assert (first.get_xscale(), first.get_yscale(), second.get_yscale()) == ("log", "log", "linear")
    assert first.xaxis_inverted()
    assert second.xaxis_inverted()
    assert points_by_label(first)["IVON"][:, 0].tolist() == [1, 2, 64]
    dashed = [line.get_xydata() for line in first.get_lines() if line.get_linestyle() == "--"]
    np.testing.assert_allclose(dashed[1], [[1, 2], [2, 2 / math.sqrt(2)], [64, 2 / 8]])
    assert not [line for line in second.get_lines() if line.get_linestyle() == "--"]


def test_a_line_through_medians_has_a_dot_for_each_row():
    rows = pd.DataFrame({"method": "a", "level": [1, 1, 1, 2], "nll": [1.0, 2.0, 9.0, 4.0]})
    (axis,) = figures.lines(rows, "level", {"nll": "NLL"}, SOURCE, median=True).axes
    assert points_by_label(axis)["a"].tolist() == [[1, 2], [2, 4]]
    assert axis.get_lines()[-1].get_xydata().tolist() == rows[["level", "nll"]].to_numpy().tolist()


def test_lines_stand_in_the_panels_that_name_them_and_miss_what_is_not_there():
    rows = rows_of().query("kind == 'weights' or method == 'map'").replace({"nll": {4.0: math.nan}})
    figure = figures.lines(rows, "level", {"nll": "NLL"}, SOURCE, panel="kind")
    weights, leaks = figure.axes
    assert titles_of(figure) == ["weights", "leaks"]
    assert [len(points) for points in points_by_label(leaks).values()] == [3, 0]
    assert len(points_by_label(weights)["IVON"]) == 3
    assert weights.get_ylim() == leaks.get_ylim()
    assert "NLL" in texts(figure)


def test_curves_of_many_points_can_have_scales_of_their_own_or_be_dots():
    alpha = np.linspace(-1, 1, 41)
    rows = [pd.DataFrame({"alpha": alpha, "nll": alpha**2 + high, "width": high}) for high in (0, 9)]
    draw = {"rows": pd.concat(rows), "x": "alpha", "measures": {"nll": "loss"}, "source": SOURCE, "name": None}
    figure = figures.lines(**draw, panel="width", same_scale=False, points=True)
    low, high = figure.axes
    assert titles_of(figure) == ["width 0", "width 9"]
    assert low.get_ylim()[1] < high.get_ylim()[0]
    np.testing.assert_allclose(high.containers[0].lines[0].get_xydata(), rows[1][["alpha", "nll"]])
    assert low.containers[0].lines[0].get_linestyle() == "None"
    assert not figure.legends
    assert not any(axis.containers[0].has_yerr for axis in figure.axes)
    # A line that has its panel to itself needs neither legend nor marks.
    figure = figures.lines(**draw | {"name": "width"}, panel="width")
    assert not figure.legends
    assert [axis.containers[0].lines[0].get_marker() for axis in figure.axes] == ["", ""]


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_learning_curves_draw_every_column(layers):
    rows = history(layers=layers)
    figure = figures.learning_curves(rows, SOURCE)
    assert len(figure.axes) == 4 + layers
    for axis, column in zip(figure.axes, rows.columns[2:], strict=True):
        drawn = points_by_label(axis)
        assert list(drawn) == ["Adam (MAP)", "IVON"]
        np.testing.assert_allclose(drawn["IVON"][:, 1], rows[rows["method"] == "ivon"][column])
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    assert figure.axes[3].get_yscale() == "log"


@pytest.mark.parametrize("log", [False, True])
def test_histograms_are_shares_of_each_name(log):
    rows = pd.DataFrame({"entropy": [0.1, 0.2, 0.2, 2.0], "answer": ["right"] * 3 + ["wrong"]})
    (axis,) = figures.histograms(rows, "entropy", SOURCE, name="answer", log=log).axes
    filled, _, other, _ = axis.patches
    # Each bin's height stands at its two edges, above and below.
    assert [patch.get_xy()[:, 1].sum() / 2 for patch in (filled, other)] == pytest.approx([1, 1])
    assert axis.get_xscale() == ("log" if log else "linear")
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["right (3)", "wrong (1)"]


def test_zero_has_no_place_on_a_logarithmic_scale():
    rows = pd.DataFrame({"std": [0.0, 0.0], "group": "readout"})
    with pytest.raises(ValueError, match="not above zero"):
        figures.histograms(rows, "std", SOURCE, name="group", log=True)
    assert figures.histograms(rows, "std", SOURCE, name="group").axes


# Dots


def test_seeds_are_dots_and_their_mean_is_a_bar():
    rows = rows_of(levels=(1,)).replace({"accuracy": {50.0: math.nan}})
    figure = figures.seed_dots(rows, BOTH, SOURCE, row="kind", log=("nll",), reference=0.5)
    nll, accuracy = figure.axes
    adam, ivon, reference = nll.get_lines()
    np.testing.assert_allclose(np.unique(adam.get_xdata()), [0.9, 1, 1.1])
    np.testing.assert_allclose(np.unique(ivon.get_xdata()), [1.9, 2, 2.1])
    np.testing.assert_allclose((adam.get_ydata() + ivon.get_ydata()) / 2, [0, 1] * 3, atol=1e-9)
    assert set(reference.get_xdata()) == {0.5}
    bars = np.concatenate([bars.get_segments() for bars in nll.collections])
    np.testing.assert_allclose(bars[:, :, 0].mean(axis=1), [1, 1, 2, 2])
    np.testing.assert_allclose(bars[:, :, 1].mean(axis=1), [-0.22, 0.78, 0.22, 1.22])
    assert (nll.get_xscale(), accuracy.get_xscale()) == ("log", "linear")
    assert [len(line.get_xdata()) for line in accuracy.get_lines()[:2]] == [0, 0]
    assert ticks(nll, "y") == ["weights", "leaks"]
    assert nll.yaxis_inverted()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Adam (MAP)", "IVON"]


def test_methods_that_are_rows_need_no_legend():
    figure = figures.seed_dots(rows_of(), {"nll": "NLL"}, SOURCE, panel="kind")
    assert ticks(figure.axes[0], "y") == ["Adam (MAP)", "IVON"]
    assert [(axis.get_title(), axis.get_xlabel()) for axis in figure.axes] == [("weights", "NLL"), ("leaks", "NLL")]
    assert not figure.legends


def test_intervals_are_filled_where_they_exclude_zero():
    rows = pd.concat([differences(), pd.DataFrame({"kind": ["leaks"], "method": ["map"]})])
    touching = {"kind": "leaks", "method": "sbnn", "difference": 0.0, "from": 0.0, "to": 0.0}
    rows = pd.concat([rows, pd.DataFrame([touching])])
    figure = figures.intervals(rows, "NLL less Adam's", SOURCE, panel="kind")
    assert titles_of(figure) == ["weights", "leaks"]
    for axis, (_, of_kind) in zip(figure.axes, rows.groupby("kind", sort=False), strict=True):
        there = of_kind.reset_index(drop=True).dropna()
        ends = [bars.get_segments()[0].tolist() for bars in axis.collections]
        assert ends == [[[row["from"], place], [row["to"], place]] for place, row in there.iterrows()]
        _, *marks = axis.get_lines()
        assert [mark.get_xdata()[0] for mark in marks] == there["difference"].tolist()
        hollow = [same_color(mark.get_markerfacecolor(), "white") for mark in marks]
        assert hollow == [row["from"] <= 0 <= row["to"] for _, row in there.iterrows()]
        assert same_color(marks[0].get_color(), METHODS["ivon"].colour)
        assert axis.get_xlabel() == "NLL less Adam's"
    rowed = ticks(figure.axes[0], "y")
    assert rowed == ["IVON", "Bayes by Backprop", "SWAG", "Adam (MAP)", "SBNN"]


def test_of_many_lines_a_few_stand_in_front():
    figure = figures.lines(rows_of(NAMES), "level", {"nll": "NLL"}, SOURCE, front=("map", "ivon"))
    colours = [bars.lines[0].get_color() for bars in figure.axes[0].containers]
    own = [METHODS[name].colour if name in ("map", "ivon") else "0.8" for name in NAMES]
    assert all(same_color(one, other) for one, other in zip(colours, own, strict=True))
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(told) == ["Adam (MAP)", "IVON", "the others"]


def test_a_diamond_stands_at_the_published_difference():
    rows = differences()
    rows["published"] = rows["method"].map({"ivon": -0.087})
    figure = figures.intervals(rows, "NLL less Adam's", SOURCE, panel="kind")
    for axis, kind in zip(figure.axes, ("weights", "leaks"), strict=True):
        diamonds = [line.get_xydata().tolist() for line in axis.get_lines() if line.get_marker() == "D"]
        assert diamonds == [[[-0.087, 0]]] * (rows[rows["kind"] == kind].dropna()["method"] == "ivon").sum()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["the paper's difference"]


def test_the_findings_have_curves_above_and_differences_below():
    curves = pd.DataFrame({"curve": list("aabb"), "method": ["map"] * 2 + ["ivon"] * 2, "alpha": [0, 1] * 2})
    curves["nll"] = [1.0, 2.0, 1.5, 1.25]
    rows = (
        differences()
        .query("kind == 'weights'")
        .rename(columns={"method": "what"})
        .assign(published=[0.5, np.nan, np.nan])
    )
    *above, below = figures.findings(curves, rows, ("loss", "less Adam's"), SOURCE).axes
    assert [axis.get_lines()[0].get_ydata().tolist() for axis in above] == [[1, 2], [1.5, 1.25]]
    colours = [METHODS[name].colour for name in ("map", "ivon")]
    assert all(same_color(axis.get_lines()[0].get_color(), one) for axis, one in zip(above, colours, strict=True))
    assert above[0].get_ylim() == above[1].get_ylim()
    assert len(below.collections) == rows["difference"].notna().sum()


@pytest.mark.parametrize(("dots", "kind"), [(5, "image/svg+xml"), (20_000, "image/png")])
def test_a_picture_shows_itself_as_the_smaller_of_two_files(dots, kind):
    def picture():
        rows = pd.DataFrame({"level": np.linspace(0, 1, dots), "nll": NOISE.flat[0], "method": "map"})
        rows["nll"] = np.random.default_rng(0).normal(size=dots)
        return figures.lines(rows, "level", {"nll": "NLL"}, SOURCE, points=True)

    written = picture().written()
    assert list(written) == [kind]
    assert written == picture().written()
    if kind == "image/png":
        drawn = plt.imread(io.BytesIO(base64.b64decode(written[kind])), format="png")
        assert drawn.shape[1] == 2 * 720
    else:
        assert f"Data: {SOURCE}" in written[kind]
        places = re.findall(r"[ML] (\d+\.\d+) (\d+\.\d+)", written[kind])
        assert max(len(number.partition(".")[2]) for place in places for number in place if number[0] != "0") == 2


def test_each_network_has_a_mark_where_its_measure_and_its_outcome_are():
    rows = rows_of().assign(sharpness=lambda found: found["nll"] ** 2)
    titles = {"sharpness": "sharpness (nats)", "level": "level"}
    figure = figures.scatter(rows, titles, "nll", "NLL", SOURCE, log=("nll", "level"), equal=True)
    for axis, (measure, title) in zip(figure.axes, titles.items(), strict=True):
        *of_methods, equal = axis.get_lines()
        points = np.concatenate([line.get_xydata() for line in of_methods])
        np.testing.assert_array_equal(points, rows[[measure, "nll"]])
        np.testing.assert_array_equal(equal.get_xdata(), equal.get_ydata())
        assert axis.get_xlabel() == title
        assert (axis.get_xscale(), axis.get_yscale()) == ("log" if measure == "level" else "linear", "log")
    assert (
        titles_of(figures.scatter(rows, titles, "nll", "NLL", SOURCE, panel="kind"))[0] == "weights: sharpness (nats)"
    )


def test_reliability_draws_the_bins_that_are_not_empty():
    axis, _ = figures.reliability(bins(), SOURCE).axes
    gaps, dots = axis.collections
    np.testing.assert_allclose(dots.get_offsets(), [[0.3, 0.4], [0.6, 0.5], [0.9, 1.0]])
    np.testing.assert_allclose(dots.get_sizes() / dots.get_sizes().sum(), [0.3, 0.5, 0.2])
    np.testing.assert_allclose([gap[:, 1] for gap in gaps.get_segments()], [[0.3, 0.4], [0.6, 0.5], [0.9, 1.0]])


@pytest.mark.parametrize("count", [1, 3, 4, 12])
def test_the_lowest_panel_of_each_column_has_numbers_and_a_name_beneath(count):
    figure = figures.reliability(bins(NAMES[:count]), SOURCE)
    figure.canvas.draw()
    for place, axis in enumerate(figure.axes):
        lowest = place + 3 >= count
        assert axis.get_xlabel() == ("confidence" if lowest else "")
        assert axis.xaxis.get_tick_params()["labelbottom"] == lowest


# Maps


def test_features_have_time_to_the_right_and_low_bands_below():
    figure = figures.features(NOISE, list("abc"), SOURCE, channels="channel", values="spikes")
    for axis, frame in zip(figure.axes[:3], NOISE, strict=True):
        np.testing.assert_array_equal(axis.images[0].get_array(), frame.T)
        assert axis.images[0].origin == "lower"
        assert axis.images[0].get_clim() == (NOISE.min(), NOISE.max())
    assert (figure.get_supylabel(), figure.axes[-1].get_ylabel()) == ("channel", "spikes")


@pytest.mark.parametrize("classes", [3, 20, 35])
def test_confusion_draws_shares_of_each_true_class(classes):
    names = [f"word {number}" for number in range(classes)]
    matrix = np.diag([3, 4] + [0] * (classes - 2))
    matrix[0, 1] = 1
    axis = figures.confusion(matrix, names, SOURCE).axes[0]
    shares = axis.images[0].get_array()
    np.testing.assert_array_equal(shares[:3, :3], [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0]])
    assert [text.get_text() for text in axis.texts] == (["3", "1", "4"] if classes <= 20 else [])
    assert ticks(axis, "y") == names


def test_a_correlation_is_framed_where_the_interval_excludes_zero():
    axis = figures.correlations(correlated(), SOURCE).axes[0]
    (image,) = axis.get_images()
    np.testing.assert_allclose(image.get_array().filled(np.nan), [[0.5, 0.2], [-0.7, np.nan]])
    written = {text.get_text().split("\n")[0]: text for text in axis.texts}
    assert list(written) == ["0.50", "0.20", "−0.70"]
    assert [text.get_fontweight() for text in written.values()] == ["bold", "normal", "bold"]
    assert written["−0.70"].get_text() == "−0.70\n(−0.90, −0.20)"
    frames = [patch.get_xy() for patch in axis.patches if isinstance(patch, Rectangle)]
    np.testing.assert_allclose(frames, [(-0.47, -0.46), (-0.47, 0.54)])
    assert ticks(axis, "y") == ["exponent", "sharpness"]
    assert ticks(axis, "x") == ["weights", "bits"]


def test_surfaces_have_the_same_colours_and_beta_goes_up():
    figure = figures.surfaces(surface(), SOURCE)
    low, high, bar = figure.axes
    assert titles_of(figure)[:2] == ["Adam (MAP)", "IVON"]
    first, second = (axis.images[0] for axis in (low, high))
    assert first.origin == "lower"
    step = GRID[1] - GRID[0]
    np.testing.assert_allclose(first.get_extent(), [GRID[0] - step / 2, GRID[-1] + step / 2] * 2)
    assert (first.norm.vmin, first.norm.vmax) == (second.norm.vmin, second.norm.vmax) == (-11, 111)
    np.testing.assert_allclose(second.get_array()[1], 100 + GRID + 10 * GRID[1])
    assert bar.get_ylabel() == "loss (nats)"


def test_a_page_has_the_surfaces_of_every_number_of_samples():
    text = figures.surface_slider(surface(samples=(1, 2, 4)).query("method == 'map'"), SOURCE)
    assert "http" not in re.sub(r"base64,[\w/+=]+", "", text)
    page = BeautifulSoup(text, "html.parser")
    blocks = page.select("[data-samples]")
    shown = [(block["data-samples"], block.has_attr("hidden")) for block in blocks]
    assert shown == [("1", False), ("2", True), ("4", True)]
    assert page.input["max"] == "2"
    assert (page.input["aria-valuetext"], page.output.get_text()) == ("S = 1", "S = 1")
    alts = [picture["alt"] for picture in page.select("img")]
    assert len(set(alts)) == 6
    assert alts[4] == "average of S = 4: loss over the surface, from -2.75 to 2.75 nats"
    assert alts[5].startswith("average of S = 4: loss along its middle, from ")
    for picture in page.select("img"):
        kind, data = picture["src"].split(";base64,")
        assert (kind, base64.b64decode(data)[:5]) == ("data:image/svg+xml", b"<?xml")
    assert len({picture["src"] for picture in page.select("img")}) == 6


# Signals


def test_the_pathway_ends_in_an_answer_of_each_sample_and_their_mean():
    *_, spikes, answer = figures.pathway((NOISE[0, :, 0], 8000), NOISE[0], np.eye(9), ANSWERS, list("abc"), SOURCE).axes
    assert [bar.get_width() for bar in answer.patches] == [0.625, 0.25, 0.125]
    dots = np.concatenate([line.get_xydata() for line in answer.get_lines()])
    assert sorted(map(tuple, dots)) == [(0, 2), (0.25, 1), (0.25, 1), (0.25, 2), (0.5, 0), (0.75, 0)]
    assert spikes.get_lines()[0].get_xydata().tolist() == [[step, step] for step in range(9)]
    assert titles_of(figures.pathway(None, NOISE[0], np.eye(9), ANSWERS, list("abc"), SOURCE)) == [
        "frames",
        "spikes",
        "answer",
    ]


def test_a_training_ends_in_a_point_or_in_a_cloud():
    rows = pd.DataFrame([(a, b, a * a + b * b) for a in GRID for b in GRID], columns=["first", "second", "loss"])
    cloud = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    left, right = figures.cloud(rows, np.array([0.25, 0.5]), cloud, SOURCE).axes
    assert [axis.get_lines()[0].get_xydata().tolist() for axis in (left, right)] == [[[0.25, 0.5]], cloud.tolist()]
    looks = [axis.get_lines()[0].get_color() for axis in (left, right)]
    assert looks == [METHODS["map"].colour, METHODS["ivon"].colour]


def test_signals_are_drawn_as_they_are():
    potential, current = np.random.default_rng(0).normal(size=(2, 20))
    (axis,) = figures.waveform([potential], 8000, ["yes"], SOURCE).axes
    (line,) = axis.get_lines()
    np.testing.assert_allclose(line.get_xydata(), np.stack([np.arange(20) / 8000, potential], axis=1))
    assert axis.get_title() == "yes"
    above, below = figures.membrane(potential, np.isin(np.arange(20), [3, 11]), current, 0.7, SOURCE).axes
    trace, line, marks = below.get_lines()
    np.testing.assert_array_equal(trace.get_ydata(), potential)
    np.testing.assert_array_equal(above.get_lines()[0].get_ydata(), current)
    assert marks.get_xydata().tolist() == [[3, 0.7], [11, 0.7]]
    assert set(line.get_ydata()) == {0.7}
    (axis,) = figures.surrogate(potential, current, 0.7).axes
    step, backward, threshold = axis.get_lines()
    assert step.get_ydata().tolist() == (potential > 0.7).tolist()
    np.testing.assert_array_equal(backward.get_ydata(), current)
    assert set(threshold.get_xdata()) == {0.7}


def test_each_spike_is_a_mark_at_its_time_and_channel():
    trains = [(np.array([0.1, 0.25]), np.array([3, 699])), (np.array([]), np.array([], dtype=int))]
    first, second = figures.raster(trains, ["one", "two"], SOURCE, ylabel="unit").axes
    np.testing.assert_array_equal(first.get_lines()[0].get_xydata(), [[0.1, 3], [0.25, 699]])
    assert second.get_lines()[0].get_xydata().size == 0
    assert first.get_xlabel() == "time (s)"
    assert first.figure.get_supylabel() == "unit"


# Tables


def test_table1_gives_mean_and_deviation_beside_the_published_row():
    measures = ["accuracy", "nll", "ece", "entropy", "mutual_information", "brier"]
    published = pd.DataFrame(
        [["sc", "ivon", 79.93, 0.7191, 0.0133, 0.6829, 0.0711, 0.2838], ["sc", "map", 77.01, *[math.nan] * 5]],
        columns=["dataset", "method", *measures],
    )
    ours = rows_of(levels=(1,), kinds=("leaks",)).assign(dataset="synthetic-sc", **dict.fromkeys(measures[2:], 0.5))
    table = figures.table1(ours, published)
    ours_of_ivon = table.loc[("synthetic-sc", "IVON", "here, 3 seeds")].tolist()
    assert ours_of_ivon[:3] == ["50.00 ± 0.00", "2.0000 ± 0.1000", "0.5000 ± 0.0000"]
    theirs = table.loc[("sc", "IVON", "published")]
    assert theirs.tolist() == ["79.93", "0.7191", "0.0133", "0.6829", "0.0711", "0.2838"]
    assert table.loc[("sc", "Adam (MAP)", "published"), "MI"] == "–"
    assert [row[2] == "published" for row in table.index] == [False, False, True, True]
    one = figures.table1(ours.query("seed == 1"), published.head(0))
    assert one.index.get_level_values(2).unique().tolist() == ["here, 1 seed"]
    assert one["NLL"].tolist() == ["0.9000", "1.9000"]


def test_a_mean_table_has_rows_and_columns_in_the_order_of_the_data():
    rows = rows_of(levels=(1,)).assign(spikes=lambda found: found["nll"].where(found["method"] == "map"))
    measures = {"nll": ("NLL", ".2f"), "spikes": ("spikes", ".0f")}
    table = figures.mean_table(rows, measures, ["kind", "method"])
    assert table.index.tolist() == list(zip(["weights", "leaks"] * 2, np.repeat(LABELS[:2], 2), strict=True))
    assert table.loc[("leaks", "IVON")].tolist() == ["2.00 ± 0.10", "–"]
    wide = figures.mean_table(
        rows.query("kind == 'weights' or method == 'map'"), {"nll": ("NLL", ".1f")}, columns="kind"
    )
    assert wide.to_dict("index") == {
        "Adam (MAP)": {"weights": "1.0 ± 0.1", "leaks": "1.0 ± 0.1"},
        "IVON": {"weights": "2.0 ± 0.1", "leaks": "–"},
    }
    assert list(wide.columns) == ["weights", "leaks"]
    assert figures.mean_table(rows, measures, columns="kind")["NLL", "leaks"]["IVON"] == "2.00 ± 0.10"


def test_means_have_two_digits_of_their_deviation():
    rows = pd.DataFrame(
        {"method": ["map"] * 2 + ["ivon"] * 2, "nll": [1.0, 1.0234, 2.0, 2.0345], "jumps": [80, 120, 3, 4]}
    )
    table = figures.mean_table(rows, {"nll": "NLL (nats)", "jumps": "jumps"})
    assert table.loc["IVON"].tolist() == ["2.017 ± 0.024", "4 ± 1"]
    assert list(table) == ["NLL (nats)", "jumps"]


def test_an_interval_table_has_a_dash_for_what_is_not_there():
    rows = differences(["ivon", "bbb"])
    rows.loc[1, ["from", "to"]] = math.nan
    rows.loc[2, ["difference", "from", "to"]] = math.nan
    table = figures.interval_table(rows, columns="kind")
    assert table.to_dict("index") == {
        "IVON": {"weights": "−0.20 (−0.30, −0.10)", "leaks": "–"},
        "Bayes by Backprop": {"weights": "0.25", "leaks": "0.25 (0.10, 0.40)"},
    }
    long = figures.interval_table(rows.rename(columns={"difference": "ratio"}), ["kind", "method"], value="ratio")
    assert long.loc[("leaks", "Bayes by Backprop"), "ratio"] == "0.25 (0.10, 0.40)"
