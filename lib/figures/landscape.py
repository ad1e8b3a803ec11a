"""The loss around a solution: along lines, against the number of draws, beside its surrogate's slope, over a plane."""

from base64 import b64encode
from collections.abc import Mapping
from html import escape
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from lib.figures.style import NEUTRAL, colours, grid, label, looks, panels, styled

MAP = "viridis"
# A slider over the number of draws: no script but this handler, which shows one of the blocks and hides the others.
SLID = "this.closest('.by-draws').querySelectorAll('[data-draws]').forEach((b, i) => b.hidden = i != this.value)"
PICTURE = "width:100%;image-rendering:pixelated;display:block;margin:0"


@styled
def along(
    curves: Mapping[str, Mapping[str, pd.DataFrame]],
    source: str,
    *,
    columns: int = 2,
    height: float = 1.8,
    same_scale: bool = True,
    line: str = "-",
) -> Figure:
    """The loss against the distance along a line: a panel for each name, and in it a curve for each of its names.

    A frame has the columns alpha and nll. Without the ``same_scale`` each panel's curves fill it.
    """
    names = colours(dict.fromkeys(name for panel in curves.values() for name in panel))
    figure, axes = grid(len(curves), columns, height, source, sharex=same_scale, sharey=same_scale)
    for axis, (title, panel) in zip(axes, curves.items(), strict=True):
        for name, curve in panel.items():
            axis.plot(curve["alpha"], curve["nll"], line, color=names[name], linewidth=1, markersize=2)
        axis.set(title=title)
        axis.ticklabel_format(useOffset=False)
        axis.grid(True)
    for axis in axes[-min(columns, len(axes)) :]:
        axis.set_xlabel("distance α")
        axis.tick_params(labelbottom=True)
    figure.supylabel("loss (nats)", fontsize=9)
    if len(names) > 1:
        handles = [axes[0].plot([], [], color=colour, label=label(name))[0] for name, colour in names.items()]
        figure.legend(handles=handles, loc="outside upper center", ncols=4)
    return figure


@styled
def by_draws(rows: pd.DataFrame, measures: Mapping[str, str], falling: tuple[str, ...], source: str) -> Figure:
    """Measures (column to title) against the number of draws, a line through each method's means.

    ``rows`` have the columns method, seed, draws and the measures; a bar is a sample standard deviation over seeds to
    either side. Those in ``falling`` have a logarithmic scale and, dashed, what 1 / sqrt(draws) makes of the first.
    """
    figure, axes = grid(len(measures), 2, 2.8, source)
    counts = np.sort(rows["draws"].unique())
    for axis, (measure, title) in zip(axes, measures.items(), strict=True):
        for name, look in looks(dict.fromkeys(rows["method"])).items():
            of_seeds = rows[rows["method"] == name].groupby("draws")[measure]
            means = of_seeds.mean()
            axis.errorbar(means.index, means, of_seeds.std(), **look, markersize=4, linewidth=1, elinewidth=0.8)
            if measure in falling:
                expected = means.iloc[0] * np.sqrt(means.index[0] / means.index)
                axis.plot(means.index, expected, "--", color=NEUTRAL, linewidth=1)
        axis.set_xscale("log", base=2)
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.set(title=title, xlabel="draws S", yscale="log" if measure in falling else "linear")
        axis.grid(True)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


@styled
def slopes(table: pd.DataFrame, source: str) -> Figure:
    """The finite difference's slope against the surrogate's: a row for each part, a column for each step.

    ``table`` has the columns method, part, step, surrogate and finite; a dot is a direction, and on the dashed line the
    two are equal.
    """
    parts, steps = list(dict.fromkeys(table["part"])), np.sort(table["step"].unique())
    names = colours(dict.fromkeys(table["method"]))
    figure, axes = panels(len(parts), len(steps), 0.4 + 1.8 * len(parts), source, sharex="row")
    for row, part in zip(axes, parts, strict=True):
        for axis, step in zip(row, steps, strict=True):
            found = table[(table["part"] == part) & (table["step"] == step)]
            for name, colour in names.items():
                of_method = found[found["method"] == name]
                axis.plot(of_method["surrogate"], of_method["finite"], "o", color=colour, alpha=0.5, markersize=2.5)
            ends = np.array([found["surrogate"].min(), found["surrogate"].max()])
            axis.plot(ends, ends, "--", color=NEUTRAL, linewidth=1)
            axis.set(title=f"{part}, h = {step:g}")
            axis.tick_params(labelsize=7)
            axis.grid(True)
    for axis in axes[-1]:
        axis.set_xlabel("surrogate's slope", fontsize=8)
    figure.supylabel("finite difference (nats per unit of distance)", fontsize=8)
    handles = [axes[0, 0].plot([], [], "o", color=c, label=label(name), markersize=4)[0] for name, c in names.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(names))
    return figure


@styled
def planes(losses: Mapping[str, pd.DataFrame], source: str) -> Figure:
    """The loss over a plane, a map for each name, all in the same colours.

    A frame has the columns alpha, beta and nll, a row for each point of a square grid.
    """
    scale = _range(losses.values())
    figure, axes = grid(len(losses), 2, 2.9, source, sharex=True, sharey=True)
    for axis, (name, table) in zip(axes, losses.items(), strict=True):
        square = _square(table)
        drawn = axis.pcolormesh(square.columns, square.index, square, cmap=MAP, norm=scale, rasterized=True)
        axis.set(title=name, xlabel="distance α", ylabel="distance β", aspect="equal")
        axis.label_outer()
    figure.colorbar(drawn, ax=axes, label="loss (nats)", shrink=0.7)
    return figure


def planes_by_draws(tables: Mapping[str, pd.DataFrame], source: str) -> str:
    """A piece of a page: the maps of ``planes``, each with the line through its middle, and a slider over the draws.

    A frame has the column count besides. The page needs neither network nor server; without scripts it shows the
    first count.
    """
    counts = sorted({count for table in tables.values() for count in table["count"]})
    scale = _range(tables.values())
    slider = f'type="range" min="0" max="{len(counts) - 1}" value="0" step="1" oninput="{SLID}"'
    blocks = []
    for place, count in enumerate(counts):
        maps = "".join(_map(name, table[table["count"] == count], count, scale) for name, table in tables.items())
        hidden = " hidden" if place else ""
        blocks.append(f'<div data-draws="{count}"{hidden}><p>S = {count}</p>{_row(maps)}</div>')
    bar = _picture(np.linspace(scale.vmin, scale.vmax, 128)[None], scale)
    return (
        '<div class="by-draws" style="background:#fff;color:#222;padding:0.5em;max-width:720px;font-size:0.85em">'
        f"<label>number of draws S, from {counts[0]} to {counts[-1]}: <input {slider}></label>"
        f"{''.join(blocks)}"
        f'<p>{scale.vmin:.2f} <img src="{bar}" style="display:inline;height:0.8em;width:40%;margin:0"'
        f' alt="colour scale of the loss"> {scale.vmax:.2f} nats. Data: {escape(source)}</p></div>'
    )


def _map(name: str, table: pd.DataFrame, count: int, scale: Normalize) -> str:
    """One map with the curve through its middle underneath, its axis being that of the colours."""
    square = _square(table)
    middle = square.iloc[len(square) // 2].to_numpy()
    heights = 100 * (1 - np.asarray(scale(middle)))
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(np.linspace(0, 240, len(middle)), heights, strict=True))
    told = (
        f"{name}, average of S = {count}: loss over the plane from {square.min().min():.2f} "
        f"to {square.max().max():.2f} nats, {middle[len(middle) // 2]:.2f} in the middle"
    )
    return (
        f'<figure style="flex:1;min-width:0;margin:0.3em"><figcaption>{escape(name)}</figcaption>'
        f'<img src="{_picture(square.to_numpy()[::-1], scale)}" alt="{escape(told)}" style="{PICTURE}">'
        f'<svg viewBox="0 0 240 100" style="width:100%" role="img" aria-label="the loss along the middle row">'
        f'<polyline points="{points}" fill="none" stroke="{NEUTRAL}" stroke-width="1.2"/></svg></figure>'
    )


def _row(content: str) -> str:
    return f'<div style="display:flex">{content}</div>'


def _picture(values: np.ndarray, scale: Normalize) -> str:
    """An image of one pixel for each value, in a page's own words."""
    written = BytesIO()
    plt.imsave(written, plt.get_cmap(MAP)(scale(values)), format="png", metadata={"Software": None})
    return f"data:image/png;base64,{b64encode(written.getvalue()).decode()}"


def _square(table: pd.DataFrame) -> pd.DataFrame:
    return table.pivot(index="beta", columns="alpha", values="nll")


def _range(tables) -> Normalize:
    losses = pd.concat([table["nll"] for table in tables])
    return Normalize(losses.min(), losses.max())
