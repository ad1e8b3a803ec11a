"""Networks of several kinds side by side: the measures of a study, for every variant and method."""

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.figures.style import NEUTRAL, colours, grid, label, panels, styled


@styled
def variants(rows: pd.DataFrame, measures: Mapping[str, str], source: str, logarithmic: tuple[str, ...] = ()) -> Figure:
    """A panel for each measure (column to title): a dot for each seed, a bar at their mean, a colour for each method.

    ``rows`` have the columns variant, method and the measures; variants stand in the order in which they come first.
    A measure that a variant does not have is NaN there, and its place is left empty.
    """
    names, methods = list(dict.fromkeys(rows["variant"])), colours(dict.fromkeys(rows["method"]))
    figure, axes = grid(len(measures), 2, 2.3, source)
    for axis, (measure, title) in zip(axes, measures.items(), strict=True):
        for shift, (method, colour) in zip(np.linspace(-0.18, 0.18, len(methods)), methods.items(), strict=True):
            for place, name in enumerate(names):
                values = rows.loc[(rows["variant"] == name) & (rows["method"] == method), measure].dropna()
                if len(values) == 0:
                    continue
                where = place + shift
                axis.plot(np.full(len(values), where), values, "o", color=colour, alpha=0.6, markersize=4)
                axis.hlines(values.mean(), where - 0.15, where + 0.15, color=colour)
        axis.set(title=title, xlim=(-0.6, len(names) - 0.4), yscale="log" if measure in logarithmic else "linear")
        axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axis.grid(True, axis="y")
    handles = [axes[0].plot([], [], "o", color=colour, label=label(method))[0] for method, colour in methods.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(methods))
    return figure


def variant_table(rows: pd.DataFrame, measures: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """Mean ± sample standard deviation over seeds, as text: a row for each variant and method.

    ``measures`` maps columns of ``rows`` to a heading and a format such as ".2f"; what is NaN shows as a dash.
    """
    groups = rows.groupby(["variant", "method"], sort=False)
    cells = {
        heading: groups[measure].agg(lambda values, form=form: spread_of(values, form))
        for measure, (heading, form) in measures.items()
    }
    return pd.DataFrame(cells).rename(index=label, level="method").rename_axis([None, None])


def interval_table(differences: Mapping[str, pd.DataFrame], form: str) -> pd.DataFrame:
    """Differences with their intervals as text, such as "0.012 (0.004, 0.020)": a column for each of the tables.

    Each table's index are the rows, and its columns are difference, from and to.
    """
    return pd.DataFrame(
        {
            heading: [f"{one.difference:{form}} ({one['from']:{form}}, {one.to:{form}})" for _, one in table.iterrows()]
            for heading, table in differences.items()
        },
        index=next(iter(differences.values())).index,
    )


@styled
def interval_panels(rows: pd.DataFrame, title: str, source: str) -> Figure:
    """Differences with their intervals, a panel for each of several comparisons; filled where one excludes zero.

    ``rows`` have the columns panel, row, difference, from and to; ``title`` names the measure and its unit.
    """
    names, comparisons = list(dict.fromkeys(rows["row"])), colours(dict.fromkeys(rows["panel"]))
    figure, axes = panels(1, len(comparisons), 1.0 + 0.26 * len(names), source, sharey=True)
    for axis, (comparison, colour) in zip(axes[0], comparisons.items(), strict=True):
        axis.axvline(0, color=NEUTRAL, linestyle="--", linewidth=1)
        for row in rows[rows["panel"] == comparison].to_dict("records"):
            place, excludes_zero = names.index(row["row"]), row["from"] > 0 or row["to"] < 0
            axis.hlines(place, row["from"], row["to"], color=colour)
            axis.plot(row["difference"], place, "o", color=colour, markerfacecolor=colour if excludes_zero else "white")
        axis.set(title=comparison, xlabel=title)
        axis.grid(True, axis="x")
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
    return figure


def spread_of(values: pd.Series, form: str) -> str:
    """Mean ± sample standard deviation, without the latter where there is one value."""
    if values.isna().any():
        return "–"
    return f"{values.mean():{form}}" + (f" ± {values.std():{form}}" if len(values) > 1 else "")


ROUNDING = 1e-9  # of the exact gradient


@styled
def estimators(rows: pd.DataFrame, source: str) -> Figure:
    """Bias and variance of gradient estimators against the noise: a dot for each network, a line through the medians.

    ``rows`` have the columns deviation, estimator, bias and variance, the latter two in units of the exact gradient.
    What is zero but for rounding is left out.
    """
    figure, axes = grid(2, 2, 3.2, source, sharex=True)
    names = colours(dict.fromkeys(rows["estimator"]))
    for axis, (measure, title) in zip(axes, {"bias": "bias", "variance": "variance"}.items(), strict=True):
        for (name, colour), marker in zip(names.items(), cycle("osD^vP*"), strict=False):
            of = rows[(rows["estimator"] == name) & (rows[measure] > ROUNDING)]
            axis.plot(of["deviation"], of[measure], marker, color=colour, alpha=0.3, markersize=3)
            median = of.groupby("deviation")[measure].median()
            axis.plot(median.index, median, marker=marker, color=colour, markersize=5, label=name)
        axis.set(title=title, xlabel="standard deviation of the weights", xscale="log", yscale="log")
        axis.grid(True)
    axes[0].set_ylabel("in units of the exact gradient")
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure
