"""Many roads to a posterior side by side: as many as twelve methods in one picture."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.figures.style import NEUTRAL, colours, grid, label, looks, panels, styled

# Which mark stands for which uncertainty, and how far beside the method's place.
UNCERTAINTIES = {"entropy": ("full", -0.17), "mutual information": ("none", 0.17)}


@styled
def risk_coverage(curves: Mapping[str, pd.DataFrame], source: str) -> Figure:
    """The share of errors among what is answered, against the share that is answered: a line a method.

    A frame has the columns coverage and risk.
    """
    figure, ((axis,),) = panels(1, 1, 4.4, source)
    for place, (name, look) in enumerate(looks(curves).items()):
        # Markers stand a tenth of the picture apart, and not where those of the other methods do.
        where = (0.1 * place / len(curves), 0.1)
        axis.plot(curves[name]["coverage"], curves[name]["risk"], **look, markersize=5, markevery=where)
    axis.set(xlabel="coverage: share of utterances answered, the most certain first", ylabel="risk: share of errors")
    axis.set(xlim=(0, 1), ylim=(0, None))
    axis.grid(True)
    _legend(figure, axis)
    return figure


@styled
def reliability_lines(bins_by_method: Mapping[str, pd.DataFrame], source: str) -> Figure:
    """Accuracy minus confidence against confidence, a panel a method; below the line it is too confident.

    A frame has a row for each bin, in order, and the columns confidence, accuracy and count (equation 18); the area of
    a dot is the bin's share of the utterances.
    """
    figure, axes = grid(len(bins_by_method), 4, 1.5, source, sharex=True, sharey=True)
    for axis, (method, bins), colour in zip(
        axes, bins_by_method.items(), colours(bins_by_method).values(), strict=True
    ):
        filled = bins[bins["count"] > 0]
        gap = filled["accuracy"] - filled["confidence"]
        axis.axhline(0, color=NEUTRAL, linestyle="--", linewidth=1)
        axis.plot(filled["confidence"], gap, color=colour, linewidth=0.8)
        axis.scatter(filled["confidence"], gap, 120 * filled["count"] / filled["count"].sum(), color=colour)
        axis.set(title=label(method), xlim=(0, 1.05))
        axis.grid(True)
    for axis in axes[-4:]:  # the lowest of each column
        axis.set_xlabel("confidence")
        axis.tick_params(labelbottom=True)
    figure.supylabel("accuracy − confidence", fontsize=9)
    return figure


@styled
def intervals(rows: pd.DataFrame, title: str, source: str) -> Figure:
    """A method's difference to the reference with its interval, a row each; filled where the interval excludes zero.

    ``rows`` have the columns method, difference, from and to; ``title`` names the measure, its unit and the reference.
    """
    figure, ((axis,),) = panels(1, 1, 0.8 + 0.26 * len(rows), source)
    axis.axvline(0, color=NEUTRAL, linestyle="--", linewidth=1)
    for place, (row, colour) in enumerate(zip(rows.to_dict("records"), colours(rows["method"]).values(), strict=True)):
        excludes_zero = row["from"] > 0 or row["to"] < 0
        axis.hlines(place, row["from"], row["to"], color=colour)
        axis.plot(row["difference"], place, "o", color=colour, markerfacecolor=colour if excludes_zero else "white")
    _method_rows(axis, rows["method"])
    axis.set_xlabel(title)
    return figure


@styled
def under_noise(rows: pd.DataFrame, measures: Mapping[str, str], source: str) -> Figure:
    """Measures (column to title) against the signal-to-noise ratio, falling: a line through a method's means.

    ``rows`` have the columns method, seed, snr (dB) and the measures. A bar is a sample standard deviation over seeds
    to either side.
    """
    figure, axes = grid(len(measures), 2, 3.0, source)
    names, levels = looks(dict.fromkeys(rows["method"])), np.sort(rows["snr"].unique())
    # Within a level the methods stand side by side, so that their bars can be told apart.
    shifts = np.linspace(-0.03, 0.03, len(names)) * np.ptp(levels)
    for axis, (measure, title) in zip(axes, measures.items(), strict=True):
        for (name, look), shift in zip(names.items(), shifts, strict=True):
            _mean_line(axis, rows[rows["method"] == name], "snr", measure, look, shift)
        axis.set(title=title, xlabel="SNR (dB)", xticks=levels)
        axis.invert_xaxis()
        axis.grid(True, axis="y")
    _legend(figure, axes[0])
    return figure


@styled
def detection(rows: pd.DataFrame, source: str) -> Figure:
    """How well uncertainty tells the unknown from the known: a dot for each seed, a bar at their mean, a row a method.

    A panel for each kind of the unknown. ``rows`` have the columns method, seed, unknown, measure ("entropy" or "mutual
    information") and auroc; a method without a mutual information has no rows for it.
    """
    kinds, methods = list(dict.fromkeys(rows["unknown"])), colours(dict.fromkeys(rows["method"]))
    figure, axes = panels(1, len(kinds), 1.3 + 0.32 * len(methods), source, sharex=True, sharey=True)
    for axis, kind in zip(axes[0], kinds, strict=True):
        for place, (method, colour) in enumerate(methods.items()):
            for measure, (fill, shift) in UNCERTAINTIES.items():
                chosen = (rows["method"] == method) & (rows["unknown"] == kind) & (rows["measure"] == measure)
                found, where = rows.loc[chosen, "auroc"], place + shift
                if len(found) == 0:
                    continue
                axis.plot(found, np.full(len(found), where), "o", color=colour, fillstyle=fill, markersize=4)
                axis.vlines(found.mean(), where - 0.15, where + 0.15, color=colour)
        axis.axvline(0.5, color=NEUTRAL, linestyle="--", linewidth=1)
        axis.set(title=kind, xlabel="AUROC")
        axis.grid(True, axis="x")
    _method_rows(axes[0, 0], methods)
    marks = [
        axes[0, 0].plot([], [], "o", color=NEUTRAL, fillstyle=fill, markersize=4, label=measure)[0]
        for measure, (fill, _) in UNCERTAINTIES.items()
    ]
    figure.legend(handles=marks, loc="outside upper center", ncols=2)
    return figure


@styled
def samples(rows: pd.DataFrame, measures: Mapping[str, str], source: str) -> Figure:
    """Measures (column to title) against the number of samples that are averaged, which doubles from mark to mark.

    ``rows`` have the columns line (a method or a data set), seed, samples and the measures. A line goes through the
    means, and a bar is a sample standard deviation over seeds to either side.
    """
    figure, axes = grid(len(measures), 2, 2.8, source)
    counts = np.sort(rows["samples"].unique())
    for axis, (measure, title) in zip(axes, measures.items(), strict=True):
        for name, look in looks(dict.fromkeys(rows["line"])).items():
            _mean_line(axis, rows[rows["line"] == name], "samples", measure, look)
        axis.set_xscale("log", base=2)
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.set(title=title, xlabel="samples S")
        axis.grid(True)
    _legend(figure, axes[0])
    return figure


def _mean_line(
    axis: Axes, rows: pd.DataFrame, along: str, measure: str, look: dict[str, str], shift: float = 0.0
) -> None:
    """A line through the means over seeds, with a bar of one sample standard deviation where there are several."""
    of_seeds = rows.groupby(along)[measure]
    means = of_seeds.mean()
    axis.errorbar(means.index + shift, means, of_seeds.std(), **look, markersize=4, linewidth=1, elinewidth=0.8)


def _method_rows(axis: Axes, methods: Iterable[str]) -> None:
    """A row for each method, the first on top."""
    names = [label(method) for method in methods]
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)


def _legend(figure: Figure, axis: Axes) -> None:
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=4)
