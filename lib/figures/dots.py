"""Dots: one for each seed, a difference with its interval, one measure against another, confidence and accuracy."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lib.figures.style import (
    DASHED,
    NEUTRAL,
    canvas,
    check,
    label,
    legend,
    logarithmic,
    looks,
    name_columns,
    order,
    panels,
    styled,
)
from lib.methods import METHODS

PUBLISHED = {"marker": "D", "color": NEUTRAL, "linestyle": "none", "label": "the paper's difference"}


@styled
def seed_dots(
    rows: pd.DataFrame,
    measures: Mapping[str, str],
    source: str,
    *,
    row: str = "method",
    name: str = "method",
    panel: str | None = None,
    log: tuple[str, ...] = (),
    reference: float | None = None,
    columns: int = 2,
) -> Figure:
    """Measures (column to title) to the right, a row for each value of ``row``: a dot for each seed, a bar at the mean.

    Colour and marker tell the values of ``name`` apart; what is NaN is left out. ``log`` names the measures that are
    drawn on a logarithmic scale, and a dashed line stands at the ``reference``.
    """
    check(rows, row, name)
    places, look = order(rows[row]), looks(order(rows[name]))
    beside = 0 if row == name or len(look) == 1 else 0.22
    height = 0.45 + (0.16 * len(look) + 0.1 if beside else 0.26) * len(places)
    figure, parts = panels(rows, measures, panel, columns, source, height=height, sharey=True, sharex=panel is not None)
    for axis, part, measure in parts:
        for (one, own), shift in zip(look.items(), np.linspace(-beside, beside, len(look)), strict=True):
            found = part[part[name] == one].dropna(subset=measure)
            where = found[row].map(places.index).astype(float) + shift
            axis.plot(found[measure], where, **own, linestyle="none", alpha=0.6)
            means = found.groupby(where)[measure].mean()
            axis.vlines(means, means.index - 0.2, means.index + 0.2, color=own["color"])
        if reference is not None:
            axis.axvline(reference, **DASHED)
        logarithmic(axis, x=measure in log)
    if len(measures) == 1:
        name_columns(figure, columns, *measures.values())
    _rows(figure.axes[0], places)
    legend(figure, {} if row == name else look)
    return figure


@styled
def intervals(
    rows: pd.DataFrame,
    title: str,
    source: str,
    *,
    row: str = "method",
    name: str | None = None,
    panel: str | None = None,
    same_scale: bool = True,
    columns: int = 3,
) -> Figure:
    """Differences with their intervals, a row for each value of ``row``; filled where the interval excludes zero.

    ``rows`` have the columns difference, from and to; a mark has the colour of its ``name``, which is the row unless
    another column is given. ``title`` names the measure, its unit and what it is compared with. Where there is a column
    ``published``, a diamond stands at the paper's own difference.
    """
    name = name or row
    check(rows, row, name, "from", "to")
    places, look = order(rows[row]), looks(order(rows[name]))
    options = {"height": 0.45 + 0.26 * len(places), "sharex": same_scale, "sharey": True}
    figure, parts = panels(rows, {"difference": ""}, panel, columns, source, **options)
    for axis, part, _ in parts:
        colours = [look[one]["color"] for one in part[name]]
        _differences(axis, part.assign(colour=colours), row, places)
    name_columns(figure, columns, title)
    _rows(figure.axes[0], places)
    if "published" in rows:
        figure.legend(handles=[Line2D([], [], **PUBLISHED)], loc="outside upper center")
    return figure


@styled
def findings(curves: pd.DataFrame, rows: pd.DataFrame, titles: tuple[str, str], source: str) -> Figure:
    """Loss curves beside each other, a panel for each value of ``curve``, above differences with their intervals.

    ``curves`` have the columns curve, method, alpha and nll, ``rows`` the columns what, difference, from, to and
    published, and ``titles`` are those of the loss and of the differences.
    """
    check(curves, "curve", "method", "alpha", "nll")
    check(rows, "what", "difference", "from", "to", "published")
    names, places = order(curves["curve"]), order(rows["what"])
    figure = canvas(2.5 + 0.24 * len(places), source)
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.7, 0.6 + 0.24 * len(places)))
    above, below = upper.subplots(1, len(names), sharey=True, squeeze=False)[0], lower.subplots()
    for axis, one in zip(above, names, strict=True):
        part = curves[curves["curve"] == one]
        axis.plot(part["alpha"], part["nll"], color=looks(part["method"])[part["method"].iloc[0]]["color"])
        axis.set(title=one, xlabel="distance α")
        axis.grid(True)
    above[0].set_ylabel(titles[0])
    _differences(below, rows.assign(colour=METHODS["ivon"].colour), "what", places)
    below.set_xlabel(titles[1])
    below.legend(handles=[Line2D([], [], **PUBLISHED)], loc="best")
    _rows(below, places)
    return figure


@styled
def scatter(
    rows: pd.DataFrame,
    measures: Mapping[str, str],
    outcome: str,
    title: str,
    source: str,
    *,
    name: str = "method",
    panel: str | None = None,
    log: tuple[str, ...] = (),
    equal: bool = False,
    columns: int = 2,
) -> Figure:
    """An outcome against measures (column to title), a panel each: a mark for each row, in its name's look.

    ``log`` names the columns with a logarithmic scale. On a dashed line the two are ``equal``.
    """
    check(rows, outcome, name)
    look = looks(order(rows[name]))
    figure, parts = panels(rows, measures, panel, columns, source, sharey=panel is None)
    for axis, part, measure in parts:
        for one, own in look.items():
            found = part[part[name] == one]
            axis.plot(found[measure], found[outcome], **own, linestyle="none", alpha=0.7)
        if equal:
            ends = part[measure].min(), part[measure].max()
            axis.plot(ends, ends, **DASHED)
        if measure not in log:
            axis.locator_params(axis="x", nbins=12 // columns)  # more labels would meet where panels are narrow
        logarithmic(axis, x=measure in log, y=outcome in log)
        axis.set(xlabel=measures[measure], title=axis.get_title() if panel else "")
    figure.supylabel(title)
    legend(figure, look)
    return figure


@styled
def reliability(rows: pd.DataFrame, source: str, *, panel: str = "method", columns: int = 3) -> Figure:
    """Accuracy against confidence in bins (equation 18), a panel for each method; below the dashed line it is too sure.

    ``rows`` have the columns confidence, accuracy and count, a row for each bin. A dot's area is its bin's share of the
    utterances, and a bar joins it to the dashed line, where the two are equal.
    """
    check(rows, panel, "confidence", "count")
    figure, parts = panels(rows, {"accuracy": ""}, panel, columns, source, sharex=True, sharey=True)
    for (axis, part, _), own in zip(parts, looks(order(rows[panel])).values(), strict=True):
        bins = part[part["count"] > 0]
        axis.plot([0, 1], [0, 1], **DASHED)
        axis.vlines(bins["confidence"], bins["confidence"], bins["accuracy"], color=own["color"], linewidth=2)
        axis.scatter(
            bins["confidence"], bins["accuracy"], 200 * bins["count"] / bins["count"].sum(), own["color"], clip_on=False
        )
        axis.set(xlim=(0, 1.05), ylim=(0, 1.05))
    name_columns(figure, columns, "confidence")
    figure.supylabel("accuracy")
    return figure


def _differences(axis: Axes, rows: pd.DataFrame, row: str, places: list) -> None:
    """A mark and a bar for each difference and its interval, and the paper's own where the rows have one."""
    axis.axvline(0, **DASHED)
    for one in rows.dropna(subset=["difference", "from", "to"]).to_dict("records"):
        place, colour = places.index(one[row]), one["colour"]
        axis.hlines(place, one["from"], one["to"], color=colour, linewidth=1.5)
        filled = colour if excludes_zero(one) else "white"
        axis.plot(one["difference"], place, "o", color=colour, markerfacecolor=filled, markersize=6)
        if not np.isnan(one.get("published", np.nan)):
            axis.plot(one["published"], place, **PUBLISHED)


def excludes_zero(interval: Mapping) -> bool:
    """Whether zero lies outside; an interval that touches it does not exclude it."""
    return interval["from"] > 0 or interval["to"] < 0


def _rows(axis: Axes, names: list) -> None:
    """A row for each name, the first on top."""
    axis.set_yticks(range(len(names)), map(label, names))
    axis.set_ylim(len(names) - 0.5, -0.5)
