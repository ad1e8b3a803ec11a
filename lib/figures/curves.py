"""Lines against what was varied, through means over seeds where there are several, and how values are distributed."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from types import MappingProxyType

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pandas.api.types import is_numeric_dtype

from lib.figures.style import DASHED, check, legend, logarithmic, looks, name_columns, order, panels, styled

BEHIND = {"color": "0.8", "marker": "", "zorder": 1, "label": "the others"}
FEW = 8  # places that are named on the axis, and at which names stand side by side


@styled
def lines(
    rows: pd.DataFrame,
    x: str,
    measures: Mapping[str, str],
    source: str,
    *,
    name: str | None = "method",
    panel: str | None = None,
    xlabel: str | None = None,
    log: tuple[str, ...] = (),
    reverse: bool = False,
    median: bool = False,
    powers: Mapping[str, float] = MappingProxyType({}),
    points: bool = False,
    same_scale: bool = True,
    columns: int = 2,
    front: Sequence[str] = (),
) -> Figure:
    """Measures (column to title) against ``x``: a line for each name, through the means of the rows that share both.

    Where several do, a bar is a sample standard deviation to either side; with ``median`` the line goes through the
    medians, and each row is a dot. With ``points`` no line joins the marks. Panels of the column ``panel`` share their
    scale unless ``same_scale`` is False. An ``x`` of numbers rises unless ``reverse``; one of text has a place a level,
    as they come. At few places, unless logarithmic, names stand side by side so that their bars can be told apart.
    ``log`` names the columns with a logarithmic scale; ``powers`` maps measures to a power of ``x``, which is dashed
    through each line's first mean. Of many lines those of ``front`` keep their colours, and the others are grey behind
    them.
    """
    rows, name = (rows.assign(_=""), "_") if name is None else (rows, name)
    check(rows, x, name)
    look, numeric, shared = looks(order(rows[name])), is_numeric_dtype(rows[x]), panel is not None and same_scale
    if front:
        look = {one: own if one in front else own | BEHIND for one, own in look.items()}
    alone = len(look) == 1 or name == panel  # each line has a panel of its own
    figure, parts = panels(rows, measures, panel, columns, source, sharex=shared and numeric, sharey=shared)
    for axis, part, measure in parts:
        levels = order(part[x])
        places = pd.Series(levels if numeric else range(len(levels)), levels, dtype=float)
        few = len(levels) <= FEW
        beside = 0.25 * np.diff(places).min() if 1 < len(levels) <= FEW and not alone and x not in log else 0
        for number, (one, own) in enumerate(look.items()):
            found = part[part[name] == one].dropna(subset=measure)
            where = found[x].map(places).astype(float)
            groups = found.groupby(where)[measure]
            middle = groups.median() if median else groups.mean()
            bars = groups.std() if not median and groups.size().max() > 1 else None
            shift = beside * (2 * number / max(len(look) - 1, 1) - 1)
            # Many marks stand a tenth of the picture apart, and not where those of the other lines do.
            every = None if few else (0.1 * (number + 0.5) / len(look), 0.1)
            marks = {"marker": ""} if alone and not few else {"markevery": every}
            marks = {"marker": ".", "markersize": 3, "linestyle": "none"} if points else marks
            axis.errorbar(middle.index + shift, middle, bars, **own | marks, elinewidth=0.9)
            if median:
                axis.plot(where + shift, found[measure], ".", color=own["color"], alpha=0.4)
            if measure in powers and len(middle):
                axis.plot(middle.index, middle.iloc[0] * (middle.index / middle.index[0]) ** powers[measure], **DASHED)
        logarithmic(axis, x=x in log, y=measure in log)
        if few:
            axis.set_xticks(places, [f"{level:g}" if numeric else str(level) for level in levels])
            axis.tick_params(axis="x", which="minor", bottom=False)
        if reverse and not axis.xaxis_inverted():
            axis.invert_xaxis()
    name_columns(figure, columns, xlabel or x)
    figure.supylabel(*measures.values() if len(measures) == 1 else [""])
    told = {own["label"]: own for own in look.values()}
    legend(figure, {} if alone else told, linestyle="none" if points else "-")
    return figure


@styled
def predictions(
    rows: pd.DataFrame,
    x: str,
    source: str,
    *,
    name: str,
    title: str,
    panel: str | None = None,
    xlabel: str | None = None,
    log: tuple[str, ...] = ("x", "y"),
    same_scale: bool = True,
    columns: int = 2,
) -> Figure:
    """What was measured, dots with their standard errors, on the lines of what was predicted, for each name.

    ``rows`` have the columns measured, error and predicted beside ``x``, ``name`` and ``panel``; where ``x`` is
    predicted itself, the line is the diagonal. A measurement that is not above zero has no dot on a logarithmic scale.
    """
    check(rows, x, name, "measured", "error", "predicted")
    look = looks(order(rows[name]))
    figure, parts = panels(rows, {"measured": title}, panel, columns, source, sharey=panel is not None and same_scale)
    for axis, part, _ in parts:
        if x == "predicted":
            ends = sorted(part["predicted"])[:: max(1, len(part) - 1)]
            axis.plot(ends, ends, **DASHED)
        for one, own in look.items():
            found = part[part[name] == one].sort_values(x)
            axis.plot(found[x], found["predicted"], color=own["color"])
            shown = found[found["measured"] > 0] if "y" in log else found
            bars = shown["error"].clip(upper=0.9 * shown["measured"]) if "y" in log else shown["error"]
            axis.errorbar(shown[x], shown["measured"], bars, **own | {"linestyle": "none"}, elinewidth=0.9)
        logarithmic(axis, **{which: which in log for which in "xy"})
    name_columns(figure, columns, xlabel or x)
    figure.supylabel(title)
    legend(figure, look)
    return figure


def learning_curves(rows: pd.DataFrame, source: str) -> Figure:
    """Losses, validation accuracy, learning rate and firing rates by epoch: the means over seeds of each method.

    ``rows`` are histories with the column method beside those that training writes: epoch, train_loss, validation_loss,
    validation_accuracy, learning_rate and, for each spiking layer, firing_rate_1, ... in spikes per unit and step.
    """
    measures = {"train_loss": "training loss (nats)", "validation_loss": "validation loss (nats)"}
    measures |= {"validation_accuracy": "validation accuracy", "learning_rate": "learning rate"}
    fired = [column for column in rows if column.startswith("firing_rate_")]
    measures |= {column: f"spikes per step, layer {column.rpartition('_')[2]}" for column in fired}
    figure = lines(rows, "epoch", measures, source, log=("learning_rate",), columns=3)
    figure.axes[0].sharey(figure.axes[1])
    return figure


@styled
def histograms(
    rows: pd.DataFrame,
    x: str,
    source: str,
    *,
    name: str,
    panel: str | None = None,
    xlabel: str | None = None,
    log: bool = False,
) -> Figure:
    """How ``x`` is distributed for each value of ``name``, as shares of its rows; a panel for each value of ``panel``.

    Raises ``ValueError`` for what is not above zero where the scale is to be logarithmic.
    """
    check(rows, x, name)
    low, high = rows[x].min(), rows[x].max()
    if log and low <= 0:
        raise ValueError(f"{x} has values that are not above zero; leave them out, or draw without the logarithm")
    edges = np.geomspace(0.9 * low, 1.1 * high, 41) if log else np.linspace(min(low, 0), high or 1, 41)
    figure, parts = panels(rows, {x: ""}, panel, 2, source, sharex=True, sharey=True)
    for axis, part, _ in parts:
        for (one, own), line in zip(looks(order(rows[name])).items(), cycle(("-", "--", ":", "-.")), strict=False):
            values = part.loc[part[name] == one, x]
            drawn = {"color": own["color"], "weights": np.full(len(values), 1 / max(len(values), 1))}
            axis.hist(values, edges, **drawn, histtype="stepfilled", alpha=0.2)
            told = f"{own['label']} ({len(values):,})"
            axis.hist(values, edges, **drawn, histtype="step", linestyle=line, linewidth=1.2, label=told)
        logarithmic(axis, x=log)
        axis.legend()
    name_columns(figure, 2, xlabel or x)
    figure.supylabel("share")
    return figure
