"""Of methods on bad hardware, what is drawn is what was given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color
from matplotlib.patches import Rectangle

from lib import figures

SOURCE = "synthetic-hd (synthetic speech)"
METHODS = list(figures.METHOD_LABELS)
LEVELS = {"weights differ": ["5 %", "50 %"], "thresholds differ": ["5 %", "50 %"], "bits": ["8", "4", "2"]}
OUTCOMES = ["weights", "bits"]
MEASURES = ["exponent", "rise"]


def flawed(methods=METHODS):
    """The NLL rises with the level and is spread by 0.1 over seeds; the last method has no thresholds."""
    return pd.DataFrame(
        [
            {"method": name, "seed": seed, "flaw": flaw, "level": level, "nll": 1 + place + harm + seed / 10}
            for place, name in enumerate(methods)
            for seed in (1, 2, 3)
            for flaw, levels in LEVELS.items()
            for harm, level in enumerate(levels)
            if (name, flaw) != (methods[-1], "thresholds differ")
        ]
    )


def differences(methods=METHODS[1:]):
    ends = [(-0.3, -0.1), (0.1, 0.4), (-0.2, 0.1)]
    rows = [
        {"flaw": flaw, "method": name, "difference": sum(ends[place % 3]) / 2}
        | dict(zip(("from", "to"), ends[place % 3], strict=True))
        for flaw in LEVELS
        for place, name in enumerate(methods)
    ]
    return pd.DataFrame(rows)


def networks(methods=METHODS):
    rows = [(name, seed, place + seed / 10, place**2 + 1) for place, name in enumerate(methods) for seed in (1, 2, 3)]
    return pd.DataFrame(rows, columns=["method", "seed", "exponent", "harm"]).assign(rise=0.5)


def correlated():
    found = [(0.5, 0.1, 0.8), (0.2, -0.3, 0.6), (-0.7, -0.9, -0.2), (float("nan"),) * 3]
    places = [(measure, outcome) for measure in MEASURES for outcome in OUTCOMES]
    rows = [(*place, *numbers) for place, numbers in zip(places, found, strict=True)]
    return pd.DataFrame(rows, columns=["measure", "outcome", "correlation", "from", "to"])


EVERY_FIGURE = {
    "under_flaws": lambda: figures.under_flaws(flawed(), "nll", "NLL", SOURCE),
    "flaw_intervals": lambda: figures.flaw_intervals(differences(), "NLL less Adam's", SOURCE),
    "against_measures": lambda: figures.against_measures(
        networks(), dict(zip(MEASURES, MEASURES, strict=True)), "harm", "rise of NLL", SOURCE
    ),
    "correlations": lambda: figures.correlations(correlated(), SOURCE),
}


def texts(figure):
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(plt.Text) if text.get_text()]


@pytest.mark.parametrize("name", EVERY_FIGURE)
def test_every_figure_names_its_data_and_all_methods(name):
    before = dict(plt.rcParams)
    figure = EVERY_FIGURE[name]()
    written = texts(figure)
    assert f"Data: {SOURCE}" in written
    expected = {"flaw_intervals": METHODS[1:], "correlations": []}.get(name, METHODS)
    assert {figures.label(method) for method in expected} == set(figures.METHOD_LABELS.values()) & set(written)
    assert not plt.get_fignums()
    assert same_color(figure.get_facecolor(), "white")
    assert figure.get_figwidth() * 100 == pytest.approx(720)
    assert dict(plt.rcParams) == before


def test_a_line_goes_through_the_means_in_the_order_of_the_levels():
    figure = figures.under_flaws(flawed(["map", "sbnn"]), "nll", "NLL", SOURCE, logarithmic=True)
    assert [axis.get_title() for axis in figure.axes] == list(LEVELS)
    for axis, levels in zip(figure.axes, LEVELS.values(), strict=True):
        assert [tick.get_text() for tick in axis.get_xticklabels()] == levels
        assert axis.get_yscale() == "log"
        adam, sbnn = (bars.lines[0] for bars in axis.containers)
        np.testing.assert_allclose(adam.get_xydata()[:, 1].astype(float), 1.2 + np.arange(len(levels)))
        # Side by side within a level.
        np.testing.assert_allclose((adam.get_xydata() + sbnn.get_xydata())[:, 0] / 2, np.arange(len(levels)))
        spread = axis.containers[0].lines[2][0].get_segments()
        np.testing.assert_allclose([np.ptp(segment[:, 1]) for segment in spread], 0.2)
    assert np.isnan(figure.axes[1].containers[1].lines[0].get_xydata()[:, 1].astype(float)).all()


def test_differences_are_filled_where_the_interval_excludes_zero():
    rows = differences(["ivon", "bbb", "swag"])
    # No network of one method has thresholds.
    rows.loc[rows["flaw"].eq("thresholds differ") & rows["method"].eq("bbb"), ["difference", "from", "to"]] = np.nan
    figure = figures.flaw_intervals(rows, "NLL less Adam's", SOURCE)
    for axis, (flaw, of_flaw) in zip(figure.axes, rows.groupby("flaw", sort=False), strict=True):
        of_flaw = of_flaw.reset_index(drop=True).dropna()
        ends = [collection.get_segments()[0].tolist() for collection in axis.collections]
        assert ends == [[[row["from"], place], [row["to"], place]] for place, row in of_flaw.iterrows()]
        _, *marks = axis.get_lines()
        assert [mark.get_xdata()[0] for mark in marks] == of_flaw["difference"].tolist()
        hollow = [same_color(mark.get_markerfacecolor(), "white") for mark in marks]
        assert hollow == [row["from"] <= 0 <= row["to"] for _, row in of_flaw.iterrows()]
        assert axis.get_title() == flaw
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["IVON", "Bayes by Backprop", "SWAG"]


def test_each_network_has_a_mark_where_its_measure_and_its_outcome_are():
    rows = networks(["map", "ivon"])
    titles = {"exponent": "angularity exponent", "rise": "rise (nats)"}
    figure = figures.against_measures(rows, titles, "harm", "rise of NLL", SOURCE, logarithmic=("rise", "harm"))
    for axis, (measure, title) in zip(figure.axes, titles.items(), strict=True):
        assert axis.get_xlabel() == title
        assert axis.get_xscale() == ("log" if measure == "rise" else "linear")
        assert axis.get_yscale() == "log"
        points = np.concatenate([line.get_xydata() for line in axis.get_lines()])
        np.testing.assert_array_equal(points, rows[[measure, "harm"]])


def test_a_correlation_is_framed_where_the_interval_excludes_zero():
    figure = figures.correlations(correlated(), SOURCE)
    axis = figure.axes[0]
    (image,) = axis.get_images()
    np.testing.assert_allclose(image.get_array().filled(np.nan), [[0.5, 0.2], [-0.7, np.nan]])
    written = {text.get_text().split("\n")[0]: text for text in axis.texts}
    assert list(written) == ["0.50", "0.20", "−0.70"]
    assert [text.get_fontweight() for text in written.values()] == ["bold", "normal", "bold"]
    assert written["−0.70"].get_text() == "−0.70\n(−0.90, −0.20)"
    frames = [patch.get_xy() for patch in axis.patches if isinstance(patch, Rectangle)]
    np.testing.assert_allclose(frames, [(-0.47, -0.46), (-0.47, 0.54)])
    assert [tick.get_text() for tick in axis.get_yticklabels()] == MEASURES
    assert [tick.get_text() for tick in axis.get_xticklabels()] == OUTCOMES
