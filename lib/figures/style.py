"""What all pictures share: size, type, colours, panels, the legend and the line that names the data."""

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from io import BytesIO
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter
from PIL import Image

from lib.methods import METHODS

# How measures are called in print, with their units.
PRINTED = {
    "accuracy": "accuracy (%)",
    "nll": "NLL (nats)",
    "brier": "Brier score",
    "ece": "ECE",
    "entropy": "entropy (nats)",
}
PRINTED |= {"roughness": "roughness (nats)", "excess": "excess variation (nats)", "residual": "residual (nats)"}
MARKERS = "osD^vP*X<>ph"
# From the palette of Okabe and Ito, which readers with any of the common forms of colour blindness can tell apart. The
# last two are those of the paper's methods, for pictures without these.
COLOURS = ("#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#0072B2", "#D55E00")
NEUTRAL = "#555555"
DASHED = {"linestyle": "--", "linewidth": 1, "color": NEUTRAL}

WIDTH = 7.2  # inches; at 100 pixels an inch, the 720 pixels of the book's column
TOO_FINE = re.compile(r"(\b[1-9]\d*\.\d\d)\d+")  # places on the picture, in points, beyond the second decimal
FONTS = ["DejaVu Sans", "Verdana"]  # nearly the same widths
INDENTED = re.compile(r" *\n *")
DPI = 200  # two of a picture's pixels to one of the column

styled = plt.rc_context(
    {
        "axes.axisbelow": True,
        "axes.formatter.useoffset": False,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 10,
        "figure.labelsize": 10,
        "font.size": 10,
        "grid.alpha": 0.3,
        "legend.fontsize": 9,
        "legend.frameon": False,
        "lines.linewidth": 1.2,
        "lines.markersize": 5,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
    }
)


class Picture(Figure):
    """A figure that a notebook shows as SVG, sharp at any size, or as PNG where that is the smaller file."""

    def _ipython_display_(self) -> None:
        display({"text/plain": "<Figure>", **self.written()}, raw=True)

    def written(self) -> dict[str, str]:
        """The picture under its kind, the same for the same drawing: without time, and with names that are fixed."""
        vector, dots = BytesIO(), BytesIO()
        with plt.rc_context({"svg.hashsalt": "companion", "svg.fonttype": "none", "font.sans-serif": FONTS}):
            self.savefig(vector, format="svg", metadata={"Date": None, "Creator": None})
        self.savefig(dots, format="png", metadata={"Software": None})
        drawn, dots = Image.open(dots).convert("RGB"), BytesIO()
        drawn.quantize(256, dither=Image.Dither.NONE).save(dots, "png", optimize=True, dpi=(DPI, DPI))
        text = INDENTED.sub("\n", TOO_FINE.sub(r"\1", vector.getvalue().decode()))
        if len(text) < len(dots.getvalue()):
            return {"image/svg+xml": text}
        return {"image/png": b64encode(dots.getvalue()).decode()}


def canvas(height: float, source: str | None) -> Picture:
    """An empty closed figure, ``height`` inches high, that names its data.

    The ground is white, not transparent, so that the picture reads on a dark page as well.
    """
    look = {"figsize": (WIDTH, height), "dpi": DPI, "facecolor": "white", "layout": "constrained"}
    figure = plt.figure(FigureClass=Picture, **look)
    plt.close(figure)
    if source is not None:
        figure.supxlabel(f"Data: {source}", x=0.995, ha="right", fontsize=8, color=NEUTRAL)
    return figure


def grid(
    count: int, columns: int, source: str | None, height: float | None = None, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A closed figure with ``count`` panels in rows of at most ``columns``; ``height`` inches a row.

    Raises ``ValueError`` for no panel.
    """
    if count < 1:
        raise ValueError("there is nothing to draw; give at least one item")
    columns = min(count, columns)
    rows = -(-count // columns)
    figure = canvas(0.6 + rows * (height or np.clip(5 / columns, 1.6, 3.2)), source)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for unused in axes.flat[count:]:
        unused.remove()
    for axis in axes.flat[: count if columns > 2 else 0]:
        axis.locator_params(nbins=4)
    return figure, list(axes.flat[:count])


def panels(
    rows: pd.DataFrame, measures: Mapping[str, str], panel: str | None, columns: int, source: str, **options: Any
) -> tuple[Figure, list[tuple[Axes, pd.DataFrame, str]]]:
    """A panel for each measure (column to title) and value of the column ``panel``: its axes, rows and measure.

    Its title says which; where there is one measure, whoever draws writes its title along the axis.
    """
    check(rows, *measures, *([panel] if panel else []))
    parts = [("", rows)] if panel is None else [(one, rows[rows[panel] == one]) for one in order(rows[panel])]
    shown = [(title, part, measure) for title, part in parts for measure in measures]
    figure, axes = grid(len(shown), columns, source, **options)
    for axis, (title, _, measure) in zip(axes, shown, strict=True):
        title = f"{panel} {title:g}" if isinstance(title, int | float) else label(title)
        axis.set_title(": ".join(filter(None, (title, measures[measure] if len(measures) > 1 else ""))))
        axis.grid(True)
    return figure, [(axis, part, measure) for axis, (_, part, measure) in zip(axes, shown, strict=True)]


def check(rows: pd.DataFrame, *columns: str) -> None:
    """Raises ``ValueError`` where there are no rows, or where they lack one of the columns."""
    if missing := [name for name in dict.fromkeys(columns) if name not in rows]:
        raise ValueError(f"the rows lack the columns {', '.join(missing)}; they have {', '.join(map(str, rows))}")
    if rows.empty:
        raise ValueError("there is nothing to draw; give at least one row")


def order(column: pd.Series) -> list:
    """The values of a column, each once: numbers sorted, categories in their order, others as they come."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return list(column.cat.remove_unused_categories().cat.categories)
    found = column.dropna().unique().tolist()
    return sorted(found) if pd.api.types.is_numeric_dtype(column) else found


def looks(names: Iterable[Any]) -> dict[Any, dict[str, str]]:
    """Colour, marker and label of each name, as ``Axes.plot`` takes them: a method's own, or the next of the others."""
    others = ({"color": colour, "marker": marker} for colour, marker in zip(cycle(COLOURS), cycle(MARKERS)))
    return {
        name: ({"color": METHODS[name].colour, "marker": METHODS[name].marker} if name in METHODS else next(others))
        | {"label": label(name)}
        for name in names
    }


def label(name: Any) -> str:
    """How a method or a measure is called in print; any other name stands for itself."""
    return METHODS[name].label if name in METHODS else PRINTED.get(name, str(name))


def source_of(dataset: str) -> str:
    """The line that says which data a picture is from; synthetic speech is called synthetic."""
    return f"{dataset} (synthetic speech)" if dataset.startswith("synthetic") else dataset


def legend(figure: Figure, look: Mapping[Any, dict], **options: Any) -> None:
    """One legend above all panels, where there is more than one name."""
    if len(look) > 1:
        handles = [Line2D([], [], **{"linestyle": "none", **own, **options}) for own in look.values()]
        columns = 4 if max(len(own["label"]) for own in look.values()) < 24 else 2
        figure.legend(handles=handles, loc="outside upper center", ncols=columns, columnspacing=1.2, handlelength=1.6)


def name_columns(figure: Figure, columns: int, xlabel: str) -> None:
    """The label and the numbers of the x axis, beneath the lowest panel of each column."""
    for axis in figure.axes[-min(columns, len(figure.axes)) :]:
        axis.set_xlabel(xlabel)
        axis.tick_params(labelbottom=True)


def logarithmic(axis: Axes, **wanted: bool) -> None:
    """Logarithmic scales for the axes (x, y) that are wanted so, with 0.5 and 20 written out, not as powers of ten."""
    for which in (which for which, one in wanted.items() if one):
        axis.set(**{f"{which}scale": "log"})
        line = getattr(axis, f"{which}axis")
        low, high = line.get_view_interval()
        line.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
        line.set_major_formatter("{x:g}")
        line.set_minor_formatter(NullFormatter())
