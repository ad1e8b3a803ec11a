"""Dots: one for each seed, a difference with its interval, one measure against another, confidence and accuracy."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lib.figures.style import DASHED, check, label, legend, logarithmic, looks, name_columns, order, panels, styled


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
    published: Mapping[str, float] | None = None,
) -> Figure:
    """Differences with their intervals, a row for each value of ``row``; filled where the interval excludes zero.

    ``rows`` have the columns difference, from and to; a mark has the colour of its ``name``, which is the row unless
    another column is given. ``title`` names the measure, its unit and what it is compared with. ``published`` are the
    paper's own differences by the panel's value ("" where there are no panels): a dotted line stands at each.
    """
    name = name or row
    check(rows, row, name, "from", "to")
    places, look = order(rows[row]), looks(order(rows[name]))
    options = {"height": 0.45 + 0.26 * len(places), "sharex": same_scale, "sharey": True}
    figure, parts = panels(rows, {"difference": ""}, panel, columns, source, **options)
    paper = DASHED | {"linestyle": ":", "linewidth": 2, "label": "published difference"}
    for axis, part, _ in parts:
        axis.axvline(0, **DASHED)
        if (effect := (published or {}).get(part[panel].iloc[0] if panel else "")) is not None:
            axis.axvline(effect, **paper)
        for one in part.dropna(subset=["difference", "from", "to"]).to_dict("records"):
            place, colour = places.index(one[row]), look[one[name]]["color"]
            axis.hlines(place, one["from"], one["to"], color=colour, linewidth=1.5)
            filled = colour if excludes_zero(one) else "white"
            axis.plot(one["difference"], place, "o", color=colour, markerfacecolor=filled, markersize=6)
    name_columns(figure, columns, title)
    _rows(figure.axes[0], places)
    if published:
        figure.legend(handles=[Line2D([], [], **paper)], loc="outside upper center")
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


def excludes_zero(interval: Mapping) -> bool:
    """Whether zero lies outside; an interval that touches it does not exclude it."""
    return interval["from"] > 0 or interval["to"] < 0


def _rows(axis: Axes, names: list) -> None:
    """A row for each name, the first on top."""
    axis.set_yticks(range(len(names)), map(label, names))
    axis.set_ylim(len(names) - 0.5, -0.5)
