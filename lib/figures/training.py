"""What training did: learning curves, the posterior's spread, and the loss around the solution."""

from itertools import cycle

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lib.figures.style import NEUTRAL, colours, grid, label, panels, styled

LINES = ("-", "--", ":", "-.")


@styled
def learning_curves(histories: dict[str, pd.DataFrame], source: str) -> Figure:
    """Loss, validation accuracy, learning rate and firing rates by epoch, a colour for each method.

    A history has the columns epoch, train_loss, validation_loss, validation_accuracy, learning_rate and, for
    each spiking layer, firing_rate_1, firing_rate_2, ...: the mean over its units, in spikes per step.
    """
    figure, ((loss, accuracy), (rate, firing)) = panels(2, 2, 4.4, source, sharex=True)
    curves = {
        loss: {"train_loss": "training", "validation_loss": "validation"},
        accuracy: {"validation_accuracy": ""},
        rate: {"learning_rate": ""},
        firing: {
            column: f"layer {column.removeprefix('firing_rate_')}"
            for history in histories.values()
            for column in history
            if column.startswith("firing_rate_")
        },
    }
    for axis, columns in curves.items():
        for (name, history), colour in zip(histories.items(), colours(histories).values(), strict=True):
            for column, line in zip(columns, cycle(LINES)):
                axis.plot(history["epoch"], history[column], line, color=colour, label=label(name))
        if len(columns) > 1:
            axis.legend(handles=_line_handles(columns.values()))
        axis.grid(True)
    loss.set(title="loss (nats)")
    accuracy.set(title="validation accuracy")
    accuracy.legend()
    rate.set(title="learning rate", yscale="log", xlabel="epoch")
    firing.set(title="firing rate (spikes per step)", xlabel="epoch", ylim=(0, None))
    return figure


@styled
def posterior_spread(std_by_group: dict[str, Float[np.ndarray, "..."]], source: str) -> Figure:
    """How the posterior's standard deviations are distributed in each group of parameters, on a log scale."""
    smallest, largest = (end([end(std) for std in std_by_group.values()]) for end in (np.min, np.max))
    if smallest <= 0:
        raise ValueError("A spread of zero has no place on a log scale; draw the groups that have a posterior.")
    figure, ((axis,),) = panels(1, 1, 2.8, source)
    edges = np.geomspace(0.9 * smallest, 1.1 * largest, 61)
    for (name, std), colour, line in zip(std_by_group.items(), colours(std_by_group).values(), cycle(LINES)):
        axis.hist(
            std.ravel(),
            edges,
            weights=np.full(std.size, 1 / std.size),
            histtype="step",
            color=colour,
            linestyle=line,
            label=name,
        )
    axis.set(xscale="log", xlabel="posterior standard deviation", ylabel="share of the group")
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@styled
def slices(
    alphas: Float[np.ndarray, " alphas"],
    losses: dict[str, Float[np.ndarray, "*directions alphas"]],
    xlabel: str,
    source: str,
) -> Figure:
    """The loss along directions (equations 19, 20), a panel for each direction, a colour for each label."""
    curves = {name: np.atleast_2d(loss) for name, loss in losses.items()}
    directions = len(next(iter(curves.values()), ()))
    figure, axes = grid(directions, 3, 2.0 if directions > 1 else 3.0, source, sharey=True)
    for (name, by_direction), colour in zip(curves.items(), colours(curves).values(), strict=True):
        for axis, loss in zip(axes, by_direction, strict=True):
            axis.plot(alphas, loss, color=colour, linewidth=1.2, label=label(name))
    for number, axis in enumerate(axes, start=1):
        axis.grid(True)
        axis.set(xlabel=xlabel, title=f"direction {number}" if directions > 1 else None)
    figure.supylabel("loss (nats)", fontsize=9)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _line_handles(names) -> list[Line2D]:
    return [Line2D([], [], color=NEUTRAL, linestyle=line, label=name) for name, line in zip(names, cycle(LINES))]
