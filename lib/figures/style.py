"""What all pictures share: size, type, colours and the line that names the data."""

from collections.abc import Iterable
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette, which readers with any of the common forms of colour blindness can tell apart.
# The paper's two methods have theirs from it.
METHOD_COLOURS = {"map": "#0072B2", "ivon": "#D55E00"}
# Twelve methods are more than the palette has. These were searched for: any two of the twelve are at least 40 apart in
# CIELAB, and 23 as they are seen without the red or the green cones (after Machado et al., 2009).
ROAD_COLOURS = {
    "bbb": "#DF7FB1",
    "swag": "#C8CA69",
    "temperature": "#25D8FE",
    "dropout": "#0D776D",
    "ensemble": "#000000",
    "laplace": "#703F00",
    "ivon-mean": "#FFB713",
    "noise-ivon": "#7A35D8",
    "noise-isotropic": "#D7A288",
    "sbnn": "#97003C",
}
METHOD_LABELS = {
    "map": "Adam (MAP)",
    "ivon": "IVON",
    "bbb": "Bayes by Backprop",
    "swag": "SWAG",
    "temperature": "Temperature",
    "dropout": "MC dropout",
    "ensemble": "Ensemble of 5",
    "laplace": "Last-layer Laplace",
    "ivon-mean": "IVON's mean",
    "noise-ivon": "Adam + IVON's spread",
    "noise-isotropic": "Adam + isotropic noise",
    "sbnn": "SBNN",
}
MARKERS = "osD^vP*X<>ph"
METHOD_MARKERS = dict(zip(METHOD_LABELS, MARKERS, strict=True))
# The last two are those of the methods, for pictures without these.
OTHER_COLOURS = ("#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#0072B2", "#D55E00")
NEUTRAL = "#555555"

WIDTH = 7.2  # inches; at 100 pixels an inch, the 720 pixels of the book's column
DPI = 144

styled = plt.rc_context(
    {
        "axes.axisbelow": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 9,
        "font.size": 9,
        "grid.alpha": 0.3,
        "legend.fontsize": 8,
        "legend.frameon": False,
        "lines.linewidth": 1.5,
    }
)


def panels(rows: int, columns: int, height: float, source: str | None = None, **options) -> tuple[Figure, np.ndarray]:
    """A closed white figure ``height`` inches high and its axes [rows, columns].

    The ground is white, not transparent, so that the picture reads on a dark page as well.
    """
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(WIDTH, height),
        dpi=DPI,
        facecolor="white",
        layout="constrained",
        squeeze=False,
        **options,
    )
    plt.close(figure)
    if source is not None:
        figure.supxlabel(f"Data: {source}", x=0.995, ha="right", fontsize=7, color=NEUTRAL)
    return figure, axes


def grid(count: int, columns: int, row_height: float, source: str, **options) -> tuple[Figure, list[Axes]]:
    """``count`` panels in rows of at most ``columns``."""
    if count < 1:
        raise ValueError("There is nothing to draw; give at least one item.")
    columns = min(count, columns)
    rows = -(-count // columns)
    figure, axes = panels(rows, columns, 0.3 + row_height * rows, source, **options)
    for unused in axes.flat[count:]:
        unused.remove()
    return figure, list(axes.flat[:count])


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name: a method's own, or the next of the others."""
    own, others = METHOD_COLOURS | ROAD_COLOURS, cycle(OTHER_COLOURS)
    return {name: own.get(name) or next(others) for name in names}


def looks(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Colour, marker and label of each name's line, as ``Axes.plot`` takes them: a method's own, or the next others."""
    others = cycle(MARKERS)
    return {
        name: {"color": colour, "marker": METHOD_MARKERS.get(name) or next(others), "label": label(name)}
        for name, colour in colours(names).items()
    }


def label(name: str) -> str:
    """How a method is called in print; any other name stands for itself."""
    return METHOD_LABELS.get(name, name)


def source_of(dataset: str) -> str:
    """The line that says which data a picture is from; synthetic speech is called synthetic."""
    return f"{dataset} (synthetic speech)" if dataset.startswith("synthetic") else dataset
