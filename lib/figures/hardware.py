"""Methods on bad hardware: what each kind of flaw costs them, and whether a landscape's measures said so beforehand."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter

from lib.figures.style import NEUTRAL, colours, grid, label, looks, panels, styled


@styled
def under_flaws(rows: pd.DataFrame, measure: str, title: str, source: str, logarithmic: bool = False) -> Figure:
    """A measure as each kind of flaw gets worse: a panel for each flaw, a line through a method's means over seeds.

    ``rows`` have the columns method, seed, flaw, level and the measure; levels are text, and stand side by side in the
    order in which they come first. A bar is a sample standard deviation over seeds to either side. A method without the
    flaw has no rows for it, or NaN.
    """
    flaws = list(dict.fromkeys(rows["flaw"]))
    figure, axes = grid(len(flaws), 2, 2.5, source, sharey=True)
    names = looks(dict.fromkeys(rows["method"]))
    for axis, flaw in zip(axes, flaws, strict=True):
        of_flaw = rows[rows["flaw"] == flaw]
        levels = list(dict.fromkeys(of_flaw["level"]))
        # Within a level the methods stand side by side, so that their bars can be told apart.
        for (name, look), shift in zip(names.items(), np.linspace(-0.25, 0.25, len(names)), strict=True):
            of_seeds = of_flaw[of_flaw["method"] == name].groupby("level")[measure]
            means, spread = of_seeds.mean().reindex(levels), of_seeds.std().reindex(levels)
            where = np.arange(len(levels)) + shift
            axis.errorbar(where, means, spread, **look, markersize=3.5, linewidth=0.8, elinewidth=0.8)
        axis.set_title(flaw)
        if logarithmic:
            axis.set_yscale("log")
            _in_plain_numbers(axis.yaxis)
        axis.set_xticks(range(len(levels)), levels)
        axis.tick_params(labelleft=True)
        axis.grid(True, axis="y")
    figure.supylabel(title, fontsize=9)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


@styled
def flaw_intervals(rows: pd.DataFrame, title: str, source: str) -> Figure:
    """Methods' differences to a reference with their intervals, a panel for each kind of flaw, each on its own scale.

    ``rows`` have the columns flaw, method, difference, from and to; ``title`` names the measure, its unit and the
    reference. A mark is filled where the interval excludes zero.
    """
    flaws, methods = list(dict.fromkeys(rows["flaw"])), colours(dict.fromkeys(rows["method"]))
    names = list(methods)
    figure, axes = grid(len(flaws), 3, 0.7 + 0.2 * len(names), source, sharey=True)
    for axis, flaw in zip(axes, flaws, strict=True):
        axis.axvline(0, color=NEUTRAL, linestyle="--", linewidth=1)
        for row in rows[rows["flaw"] == flaw].dropna().to_dict("records"):
            place, colour = names.index(row["method"]), methods[row["method"]]
            excludes_zero = row["from"] > 0 or row["to"] < 0
            axis.hlines(place, row["from"], row["to"], color=colour)
            fill = colour if excludes_zero else "white"
            axis.plot(row["difference"], place, "o", color=colour, markerfacecolor=fill, markersize=5)
        axis.set_title(flaw)
        axis.grid(True, axis="x")
    for axis in axes[-3:]:  # the lowest of each column
        axis.set_xlabel(title, fontsize=8)
    axes[0].set_yticks(range(len(names)), [label(name) for name in names])
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    return figure


@styled
def against_measures(
    rows: pd.DataFrame, measures: Mapping[str, str], outcome: str, title: str, source: str, logarithmic: tuple = ()
) -> Figure:
    """An outcome against measures (column to title), a panel each: a mark for each network, in its method's look.

    ``rows`` have the columns method, the measures and the outcome. ``logarithmic`` names the columns that are drawn so.
    """
    figure, axes = grid(len(measures), 2, 3.0, source, sharey=True)
    for axis, (measure, name) in zip(axes, measures.items(), strict=True):
        for method, look in looks(dict.fromkeys(rows["method"])).items():
            of_method = rows[rows["method"] == method]
            axis.plot(of_method[measure], of_method[outcome], **look, linestyle="none", markersize=5)
        axis.set_xlabel(name)
        axis.grid(True)
        for column, scale, line in ((measure, axis.set_xscale, axis.xaxis), (outcome, axis.set_yscale, axis.yaxis)):
            if column in logarithmic:
                scale("log")
                _in_plain_numbers(line)
    axes[0].set_ylabel(title)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


@styled
def correlations(rows: pd.DataFrame, source: str) -> Figure:
    """A map of correlations: a row for each measure, a column for each outcome, the interval under each number.

    ``rows`` have the columns measure, outcome, correlation, from and to. What has an interval without zero is bold and
    framed.
    """
    measures, outcomes = list(dict.fromkeys(rows["measure"])), list(dict.fromkeys(rows["outcome"]))
    wide = rows.pivot(index="measure", columns="outcome", values="correlation").reindex(measures)[outcomes]
    figure, ((axis,),) = panels(1, 1, 0.8 + 0.42 * len(measures), source)
    image = axis.imshow(wide, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    for row in rows.dropna().to_dict("records"):
        x, y = outcomes.index(row["outcome"]), measures.index(row["measure"])
        excludes_zero = row["from"] > 0 or row["to"] < 0
        axis.text(
            x, y, f"{row['correlation']:.2f}\n({row['from']:.2f}, {row['to']:.2f})".replace("-", "−"),
            ha="center", va="center", fontsize=6.5, color="white" if abs(row["correlation"]) > 0.6 else "black",
            fontweight="bold" if excludes_zero else "normal",
        )  # fmt: skip
        if excludes_zero:
            axis.add_patch(Rectangle((x - 0.47, y - 0.46), 0.94, 0.92, fill=False, edgecolor="black"))
    axis.set_xticks(range(len(outcomes)), outcomes)
    axis.set_yticks(range(len(measures)), measures)
    axis.tick_params(length=0, top=True, bottom=False, labeltop=True, labelbottom=False)
    axis.spines[:].set_visible(False)
    figure.colorbar(image, label="rank correlation", pad=0.01)
    return figure


def _in_plain_numbers(axis: Axis) -> None:
    """Of a logarithmic axis: 0.5 and 20 instead of powers of ten."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
