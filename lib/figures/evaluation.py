"""What the predictions are worth: Table 1, calibration, entropies and confusions."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from lib.figures.style import NEUTRAL, colours, grid, label, panels, styled

MEASURES = {
    "accuracy": "Accuracy (%)",
    "nll": "NLL",
    "ece": "ECE",
    "entropy": "Entropy",
    "mutual_information": "MI",
    "brier": "Brier",
}


def table1(ours: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Table 1 as text: our mean ± sample standard deviation over seeds, then the published figures.

    Both have the columns dataset, method, accuracy (percent), nll, ece, entropy, mutual_information and
    brier, with NaN where nothing is reported; ``ours`` has a row for each seed. The index tells the data set,
    the method and where the figures are from.
    """
    rows = [
        (name, label(method), f"here, {len(runs)} seed{'s' if len(runs) > 1 else ''}", *_cells(runs))
        for (name, method), runs in ours.groupby(["dataset", "method"], sort=False)
    ]
    rows += [
        (name, label(method), "published", *_cells(row))
        for (name, method), row in published.groupby(["dataset", "method"], sort=False)
    ]
    names = pd.MultiIndex.from_tuples([row[:3] for row in rows])
    return pd.DataFrame([row[3:] for row in rows], index=names, columns=list(MEASURES.values()))


@styled
def spread(ours: pd.DataFrame, source: str) -> Figure:
    """Each measure by method: a dot for each seed, a bar at their mean. Takes the rows of one data set."""
    if ours["dataset"].nunique() != 1:
        raise ValueError(f"Give the rows of one data set, not of {sorted(ours['dataset'].unique())}.")
    methods = list(ours["method"].unique())
    figure, axes = grid(len(MEASURES), 3, 1.9, source)
    for axis, (measure, title) in zip(axes, MEASURES.items(), strict=True):
        for place, (method, colour) in enumerate(colours(methods).items()):
            values = ours.loc[ours["method"] == method, measure]
            axis.plot(np.full(len(values), place), values, "o", color=colour, alpha=0.6, markersize=5)
            axis.hlines(values.mean(), place - 0.25, place + 0.25, color=colour)
        axis.set(title=title, xlim=(-0.6, len(methods) - 0.4))
        axis.set_xticks(range(len(methods)), map(label, methods))
        axis.grid(True, axis="y")
    return figure


@styled
def reliability(bins_by_method: dict[str, pd.DataFrame], source: str) -> Figure:
    """Accuracy against confidence in equal-width bins, with the number of examples in each bin beneath.

    A frame has a row for each bin, in order, and the columns confidence, accuracy and count (equation 18).
    """
    figure, axes = panels(2, len(bins_by_method), 4.2, source, sharex=True, sharey="row", height_ratios=(3, 1))
    for (above, below), (method, bins), colour in zip(
        axes.T, bins_by_method.items(), colours(bins_by_method).values(), strict=True
    ):
        width = 1 / len(bins)
        centres = (np.arange(len(bins)) + 0.5) * width
        filled = (bins["count"] > 0).to_numpy()
        above.bar(centres[filled], bins["accuracy"][filled], width, color=colour, alpha=0.4, edgecolor="white")
        above.plot(bins["confidence"][filled], bins["accuracy"][filled], "o", color=colour, markersize=4)
        above.plot([0, 1], [0, 1], "--", color=NEUTRAL, linewidth=1)
        above.set(title=label(method), xlim=(0, 1), ylim=(0, 1.02))
        below.bar(centres, bins["count"], width, color=colour, alpha=0.4, edgecolor="white")
        below.set_xlabel("confidence")
    axes[0, 0].set_ylabel("accuracy")
    axes[1, 0].set_ylabel("examples")
    return figure


@styled
def entropies(
    right: dict[str, Float[np.ndarray, " _"]], wrong: dict[str, Float[np.ndarray, " _"]], source: str
) -> Figure:
    """The predictive entropy of each method's right and wrong answers, each as a share of its own kind."""
    largest = max(values.max(initial=0) for values in [*right.values(), *wrong.values()])
    edges = np.linspace(0, largest or 1, 31)
    figure, axes = grid(len(right), 2, 2.6, source, sharex=True, sharey=True)
    for axis, (method, colour) in zip(axes, colours(right).items(), strict=True):
        for name, values, look in (
            ("right", right[method], {"color": colour, "alpha": 0.5}),
            ("wrong", wrong[method], {"color": "black", "histtype": "step"}),
        ):
            share = np.full(values.size, 1 / max(values.size, 1))
            axis.hist(values, edges, weights=share, label=f"{name} ({values.size})", **look)
        axis.set(title=label(method), xlabel="predictive entropy (nats)")
        axis.legend()
    figure.supylabel("share of these answers", fontsize=9)
    return figure


@styled
def confusion(matrix: Int[np.ndarray, "classes classes"], class_names: Sequence[str], source: str) -> Figure:
    """How often each true class (row) got each answer (column), as a share of the row.

    Up to 20 classes the counts are written in the cells.
    """
    classes = len(class_names)
    figure, ((axis,),) = panels(1, 1, 6.4 if classes > 10 else 4.5, source)
    of_class = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    # Errors are rare: a square-root scale keeps them visible beside the diagonal.
    picture = axis.imshow(of_class, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    size = 9 if classes <= 20 else 7
    axis.set_xticks(range(classes), class_names, rotation=90, fontsize=size)
    axis.set_yticks(range(classes), class_names, fontsize=size)
    axis.set(xlabel="answer", ylabel="true class")
    if classes <= 20:
        for row, column in np.argwhere(matrix):
            ink = "white" if of_class[row, column] > 0.4 else "black"
            axis.text(column, row, matrix[row, column], color=ink, ha="center", va="center", fontsize=7)
    figure.colorbar(picture, ax=axis, label="share of the true class", shrink=0.8)
    return figure


def _cells(runs: pd.DataFrame) -> list[str]:
    return [_cell(runs[measure], 2 if measure == "accuracy" else 4) for measure in MEASURES]


def _cell(values: pd.Series, decimals: int) -> str:
    if values.isna().all():
        return "\N{EN DASH}"
    mean = f"{values.mean():.{decimals}f}"
    return mean if len(values) == 1 else f"{mean} ± {values.std():.{decimals}f}"
