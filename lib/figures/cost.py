"""What training and prediction cost: times beside the matrix products alone."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.figures.style import METHOD_COLOURS, NEUTRAL, OTHER_COLOURS, grid, label, panels, styled

PARTS = ("products", "norm, neuron, dropout", "optimiser")
PRODUCTS = "matrix products alone"
NETWORKS = {
    "ours": "this companion",
    "plain": "plain PyTorch",
    "spikingjelly": "SpikingJelly",
    "sparch": "sparch",
    "snntorch": "snnTorch",
}


def measured_on(machine: pd.DataFrame, device: str = "cpu") -> str:
    """The machine in a few words, from its row of the benchmark."""
    (row,) = machine.itertuples()
    return f"measured on {row.gpu if device == 'cuda' else f'{row.processor}, {row.cores} cores'}"


@styled
def step_times(steps: pd.DataFrame, source: str) -> Figure:
    """Milliseconds a training step against batch size, a panel a width. Takes the rows of one device."""
    widths = sorted(steps["width"].unique())
    looks = {
        "products": {"color": NEUTRAL, "linestyle": "--", "label": PRODUCTS},
        **{name: {"color": colour, "label": label(name)} for name, colour in METHOD_COLOURS.items()},
    }
    figure, axes = grid(len(widths), 3, 2.9, source, sharex=True, sharey=True)
    for axis, width in zip(axes, widths, strict=True):
        of_width = steps[steps["width"] == width].sort_values("batch")
        for work, look in looks.items():
            rows = of_width[of_width["work"] == work]
            axis.plot(rows["batch"], rows["median_ms"], marker="o", markersize=4, **look)
        axis.set(title=f"{width} units", xlabel="batch size", xscale="log", yscale="log")
        _whole_ticks(axis, sorted(steps["batch"].unique().tolist()))
        axis.grid(True)
    axes[0].set_ylabel("milliseconds a step")
    axes[0].legend()
    return figure


def step_shares(steps: pd.DataFrame) -> pd.DataFrame:
    """Each part's share of a step with Adam, by [width, batch]; the rest is what was not timed by itself."""
    times = steps.pivot(index=["width", "batch"], columns="work", values="median_ms")
    shares = times[list(PARTS)].div(times["map"], axis=0)
    return shares.assign(rest=1 - shares.sum(axis=1))


@styled
def shares(steps: pd.DataFrame, source: str) -> Figure:
    """What a step with Adam is spent on, as ``step_shares`` has it. Takes the rows of one device."""
    table = step_shares(steps)
    figure, ((axis,),) = panels(1, 1, 0.9 + 0.26 * len(table), source)
    left = np.zeros(len(table))
    for part, colour in zip(table, (NEUTRAL, *OTHER_COLOURS), strict=False):
        # Parts timed by themselves can add up to more than the whole; a bar cannot.
        values = table[part].clip(lower=0).to_numpy()
        axis.barh(np.arange(len(table)), values, left=left, color=colour, label=part)
        left += values
    axis.set_yticks(np.arange(len(table)), [f"{width} units, batch {batch}" for width, batch in table.index])
    axis.invert_yaxis()
    axis.set(xlabel="share of the step", xlim=(0, max(1, left.max())))
    figure.legend(loc="outside upper center", ncols=4)
    return figure


@styled
def peers(table: pd.DataFrame, source: str) -> Figure:
    """A step's time as a multiple of its matrix products, for each network and shape.

    A filled mark is for processes that keep freed memory, an open one for those that return it to the system.
    """
    shapes = list(table.groupby(["width", "batch"], sort=False).groups)
    figure, axes = grid(len(shapes), 3, 2.8, source, sharex=True, sharey=True)
    for axis, (width, batch) in zip(axes, shapes, strict=True):
        of_shape = table[(table["width"] == width) & (table["batch"] == batch)]
        names = [name for name in NETWORKS if name in set(of_shape["network"])]
        for memory, rows in of_shape.groupby("freed_memory"):
            times = rows.set_index("network")["median_ms"]
            axis.plot(
                times[names] / times["products"],
                range(len(names)),
                "o",
                color=METHOD_COLOURS["map"],
                fillstyle="full" if memory == "kept" else "none",
                label=f"freed memory {memory}",
            )
        axis.axvline(1, color=NEUTRAL, linestyle="--", linewidth=1)
        axis.set_yticks(range(len(names)), [NETWORKS[name] for name in names])
        axis.set(title=f"{width} units, batch {batch}", xlabel="times its matrix products", xscale="log")
        _whole_ticks(axis, [1, 2, 5, 10, 20, 50, 100])
        axis.grid(True, axis="x")
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


@styled
def growth(table: pd.DataFrame, source: str) -> Figure:
    """Seconds an epoch against utterances and frames, and the straight line from nothing through the largest."""
    quantities = list(table["along"].unique())
    figure, axes = grid(len(quantities), 2, 2.6, source)
    for axis, along in zip(axes, quantities, strict=True):
        rows = table[table["along"] == along].sort_values(along)
        size, seconds = rows[along].to_numpy(), rows["median_ms"].to_numpy() / 1000
        axis.plot([0, size[-1]], [0, seconds[-1]], "--", color=NEUTRAL, label="in proportion")
        axis.plot(size, seconds, "o", color=METHOD_COLOURS["map"], label=label("map"))
        axis.set(xlabel=along, xlim=(0, None), ylim=(0, None))
        axis.grid(True)
    axes[0].set_ylabel("seconds an epoch")
    axes[0].legend()
    return figure


@styled
def at_once(table: pd.DataFrame, source: str) -> Figure:
    """Milliseconds for a step of each of two runs, one after the other with all threads or at once with half each."""
    shapes = list(table.groupby(["width", "batch"], sort=False).groups)
    figure, axes = grid(len(shapes), 4, 2.4, source)
    for axis, (width, batch) in zip(axes, shapes, strict=True):
        rows = table[(table["width"] == width) & (table["batch"] == batch)]
        axis.bar(rows["manner"].str.replace(" the ", "\nthe "), rows["median_ms"], color=OTHER_COLOURS[:2])
        axis.set_title(f"{width} units, batch {batch}")
        axis.tick_params(axis="x", labelsize=7)
    axes[0].set_ylabel("milliseconds")
    return figure


def _whole_ticks(axis: Axes, values: list[int]) -> None:
    """Marks at these numbers, written out, on a logarithmic x axis."""
    axis.set_xticks(values, [str(value) for value in values])
    axis.minorticks_off()
