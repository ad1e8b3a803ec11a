"""Pictures of the loss around a solution show the losses that they were given."""

import base64
import io
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from matplotlib.colors import same_color

from lib import figures

SOURCE = "synthetic-hd (synthetic speech)"
ALPHAS = np.linspace(-1, 1, 5)


def line(height=0.0):
    return pd.DataFrame({"alpha": ALPHAS, "nll": ALPHAS**2 + height})


def drawn(methods=("noise-ivon", "ivon")):
    """An exponent that stays, and a roughness that falls as the reciprocal of the draws."""
    return pd.DataFrame(
        [
            {"method": name, "seed": seed, "draws": draws, "exponent": 1 + place, "roughness": (seed + place) / draws}
            for place, name in enumerate(methods)
            for seed in (1, 2, 3)
            for draws in (1, 4, 16)
        ]
    )


def sloped(methods=("map", "ivon-mean")):
    generator = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {"method": name, "part": part, "step": step, "surrogate": slope, "finite": 2 * slope + step}
            for name in methods
            for part in ("hidden", "readout")
            for step in (0.01, 0.1, 0.5)
            for slope in generator.normal(size=4)
        ]
    )


def plane(height=0.0, counts=None):
    beta, alpha = (axis.ravel() for axis in np.meshgrid(ALPHAS, ALPHAS, indexing="ij"))
    table = pd.DataFrame({"beta": beta, "alpha": alpha, "nll": height + alpha + 10 * beta})
    return (
        table if counts is None else pd.concat(table.assign(count=count, nll=table["nll"] / count) for count in counts)
    )


EVERY_FIGURE = {
    "along": lambda: figures.along({"all": {"map": line(), "ivon": line(1)}, "hidden": {"map": line(2)}}, SOURCE),
    "by_draws": lambda: figures.by_draws(drawn(["map", "ivon"]), {"exponent": "exponent"}, (), SOURCE),
    "slopes": lambda: figures.slopes(sloped(["map", "ivon"]), SOURCE),
}


def written_on(figure):
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(plt.Text) if text.get_text()]


@pytest.mark.parametrize("name", EVERY_FIGURE)
def test_every_figure_names_its_data_and_methods(name):
    before = dict(plt.rcParams)
    figure = EVERY_FIGURE[name]()
    written = written_on(figure)
    assert any(text.endswith(f"Data: {SOURCE}") for text in written)
    assert {"Adam (MAP)", "IVON"} <= set(written)
    assert not plt.get_fignums()
    assert same_color(figure.get_facecolor(), "white")
    assert figure.get_figwidth() * 100 == pytest.approx(720)
    assert dict(plt.rcParams) == before


def test_curves_are_drawn_in_the_panels_that_name_them():
    figure = EVERY_FIGURE["along"]()
    both, one = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["all", "hidden"]
    curves = [curve for curve in both.get_lines() if len(curve.get_xdata())]
    np.testing.assert_allclose([curve.get_ydata() for curve in curves], [line()["nll"], line(1)["nll"]])
    (curve,) = one.get_lines()
    np.testing.assert_allclose(curve.get_xydata(), line(2))
    assert curve.get_color() == curves[0].get_color() != curves[1].get_color()
    assert both.get_ylim() == one.get_ylim()


def test_curves_can_have_scales_of_their_own_and_one_name_needs_no_legend():
    figure = figures.along({"low": {"map": line()}, "high": {"map": line(9)}}, SOURCE, same_scale=False, line=".")
    low, high = figure.axes
    assert low.get_ylim()[1] < high.get_ylim()[0]
    assert not figure.legends
    assert low.get_lines()[0].get_marker() == "."


def test_draws_have_their_means_and_what_a_square_root_would_make_of_the_first():
    measures = {"exponent": "exponent", "roughness": "roughness (nats)"}
    exponent, roughness = figures.by_draws(drawn(), measures, ("roughness",), SOURCE).axes
    assert [axis.get_title() for axis in (exponent, roughness)] == list(measures.values())
    assert (exponent.get_yscale(), roughness.get_yscale()) == ("linear", "log")
    np.testing.assert_allclose(exponent.containers[1].lines[0].get_xydata()[:, 1], [2, 2, 2])
    np.testing.assert_allclose(roughness.containers[0].lines[0].get_xydata(), [[1, 2], [4, 0.5], [16, 0.125]])
    expected = [curve.get_xydata()[:, 1] for curve in roughness.get_lines() if curve.get_linestyle() == "--"]
    np.testing.assert_allclose(expected, [[2, 1, 0.5], [3, 1.5, 0.75]])
    assert not [curve for curve in exponent.get_lines() if curve.get_linestyle() == "--"]


def test_slopes_stand_against_the_surrogate_s():
    table = sloped()
    figure = figures.slopes(table, SOURCE)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == [f"{part}, h = {step}" for part in ("hidden", "readout") for step in (0.01, 0.1, 0.5)]
    axis = figure.axes[4]
    adam, ivon, equal = axis.get_lines()
    expected = table[(table["part"] == "readout") & (table["step"] == 0.1)]
    for dots, method in ((adam, "map"), (ivon, "ivon-mean")):
        of_method = expected[expected["method"] == method]
        np.testing.assert_allclose(dots.get_xydata(), of_method[["surrogate", "finite"]])
    np.testing.assert_array_equal(equal.get_xdata(), equal.get_ydata())


def test_maps_have_the_same_colours_and_beta_goes_up():
    figure = figures.planes({"low": plane(), "high": plane(100)}, SOURCE)
    low, high, bar = figure.axes
    assert [axis.get_title() for axis in (low, high)] == ["low", "high"]
    first, second = (axis.collections[0] for axis in (low, high))
    assert (first.norm.vmin, first.norm.vmax) == (second.norm.vmin, second.norm.vmax) == (-11, 111)
    np.testing.assert_allclose(second.get_array()[1], 100 + ALPHAS + 10 * ALPHAS[1])
    assert bar.get_ylabel() == "loss (nats)"
    assert f"Data: {SOURCE}" in written_on(figure)


def test_a_page_has_the_maps_of_every_number_of_draws():
    tables = {"Adam's <centre>": plane(counts=[1, 2, 4]), "IVON": plane(5, counts=[1, 2, 4])}
    text = figures.planes_by_draws(tables, SOURCE)
    assert "http" not in re.sub(r"base64,[\w/+=]+", "", text)
    page = BeautifulSoup(text, "html.parser")
    blocks = page.select("[data-draws]")
    assert [(block["data-draws"], block.has_attr("hidden")) for block in blocks] == [
        ("1", False),
        ("2", True),
        ("4", True),
    ]
    assert page.input["max"] == "2"
    assert f"Data: {SOURCE}" in page.get_text()
    for block in blocks:
        assert [caption.get_text() for caption in block.find_all("figcaption")] == list(tables)
        assert all(f"S = {block['data-draws']}: loss" in picture["alt"] for picture in block.find_all("img"))
    # The last block's maps, quartered, and their highest corner, which is up on the right.
    picture = plt.imread(io.BytesIO(base64.b64decode(blocks[2].img["src"].split(",")[1])), format="png")
    assert picture.shape[:2] == (5, 5)
    share = (11 / 4 + 11) / (16 + 11)
    np.testing.assert_allclose(picture[0, -1], plt.get_cmap("viridis")(share), atol=0.02)
    points = [float(point.split(",")[1]) for point in blocks[0].polyline["points"].split()]
    np.testing.assert_allclose(points, 100 * (1 - (ALPHAS + 11) / 27), atol=0.1)


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="nothing to draw"):
        figures.along({}, SOURCE)
