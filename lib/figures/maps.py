"""What goes through a network and what comes out: signals over time, features, confusions, loss surfaces."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape

import numpy as np
import pandas as pd
from IPython.display import Audio
from jaxtyping import Float, Int, Real, Shaped
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lib.figures.curves import lines
from lib.figures.dots import excludes_zero
from lib.figures.style import COLOURS, DASHED, NEUTRAL, check, grid, order, panels, styled
from lib.methods import METHODS

POTENTIAL, SPIKE = COLOURS[0], COLOURS[4]
BESIDE = {"loc": "upper left", "bbox_to_anchor": (1, 1)}
# A slider over the number of samples: no script but this handler, which shows one of the blocks, hides the others, and
# tells screen readers the number that is shown.
SLID = (
    "const all = this.closest('.by-samples'), blocks = [...all.querySelectorAll('[data-samples]')];"
    "blocks.forEach((block, place) => block.hidden = place != this.value);"
    "const told = 'S = ' + blocks[this.value].dataset.samples;"
    "this.setAttribute('aria-valuetext', told); all.querySelector('output').value = told"
)


@styled
def waveform(
    waveforms: Sequence[Float[np.ndarray, " samples"]], sample_rate: int, titles: Sequence[str], source: str
) -> Figure:
    """Each recording's amplitude against time in seconds; ``sample_rate`` in Hz."""
    figure, axes = grid(len(waveforms), 3, source, sharey=True)
    for axis, samples, title in zip(axes, waveforms, titles, strict=True):
        axis.plot(np.arange(len(samples)) / sample_rate, samples, color=NEUTRAL, linewidth=0.5)
        axis.set(title=title, xlabel="time (s)")
        axis.margins(x=0)
    figure.supylabel("amplitude")
    return figure


def player(samples: Float[np.ndarray, " samples"], sample_rate: int, told: str) -> str:
    """A piece of a page: a recording to be played under the words that say which it is; ``sample_rate`` in Hz."""
    sound, told = Audio(samples, rate=sample_rate).src_attr(), escape(told)
    return f'<div>{told}<br><audio controls aria-label="{told}" src="{sound}"></audio></div>'


@styled
def raster(
    trains: Sequence[tuple[Shaped[np.ndarray, " _"], Shaped[np.ndarray, " _"]]],
    titles: Sequence[str],
    source: str,
    *,
    xlabel: str = "time (s)",
    ylabel: str = "channel",
    shape: tuple[int, int] | None = None,
) -> Figure:
    """A mark for each spike of each train, given by the spikes' times and their channels; a panel for each train.

    ``numpy.nonzero`` of a layer's spikes [time, units] are the steps and units of a train; with their ``shape`` the
    steps and units without a spike are shown, too.
    """
    figure, axes = grid(len(trains), 3, source, sharey=True)
    for axis, (times, channels), title in zip(axes, trains, titles, strict=True):
        axis.plot(times, channels, "|", color=SPIKE, markersize=3 if len(trains) > 1 else 5)
        axis.set(title=title, xlabel=xlabel)
        if shape is not None:
            axis.set(xlim=(-0.5, shape[0] - 0.5), ylim=(-0.5, shape[1] - 0.5))
    figure.supylabel(ylabel)
    return figure


@styled
def membrane(
    potential: Float[np.ndarray, " time"],
    spikes: Shaped[np.ndarray, " time"],
    current: Float[np.ndarray, " time"],
    threshold: float,
    source: str,
) -> Figure:
    """One neuron's input current; below it the potential, the threshold and the steps at which it spikes."""
    figure, (above, below) = grid(2, 1, source, 1.5, sharex=True, height_ratios=(1, 2))
    above.plot(current, color=NEUTRAL, label="input current")
    above.set_ylabel("current")
    below.plot(potential, color=POTENTIAL, label="potential")
    below.axhline(threshold, **DASHED, label="threshold")
    steps = np.flatnonzero(spikes)
    below.plot(steps, np.full(len(steps), threshold), "|", color=SPIKE, label="spike", markersize=12)
    below.set(xlabel="time step", ylabel="potential")
    below.legend(**BESIDE)
    below.margins(x=0.01)
    return figure


@styled
def surrogate(
    potentials: Float[np.ndarray, " points"], gradient: Float[np.ndarray, " points"], threshold: float
) -> Figure:
    """The step from potential to spike, and the gradient by which it is replaced in the backward pass."""
    figure, (axis,) = grid(1, 1, None, 2.0)
    axis.plot(potentials, potentials > threshold, color=SPIKE, drawstyle="steps-mid", label="spike (forward)")
    axis.plot(potentials, gradient, color=POTENTIAL, label="surrogate gradient\n(backward)")
    axis.axvline(threshold, **DASHED, label="threshold")
    axis.set(xlabel="membrane potential", ylabel="value")
    axis.legend(**BESIDE)
    return figure


@styled
def features(
    frames: Real[np.ndarray, "utterance time channel"],
    titles: Sequence[str],
    source: str,
    channels: str = "mel band",
    values: str = "feature value",
) -> Figure:
    """Each utterance's frames: time to the right, channels upwards, one colour scale for all."""
    figure, axes = grid(len(frames), 3, source, sharey=True)
    scale = Normalize(frames.min(), frames.max())
    for axis, frame, title in zip(axes, frames, titles, strict=True):
        picture = axis.imshow(frame.T, origin="lower", aspect="auto", cmap="magma", norm=scale, interpolation="none")
        axis.set(title=title, xlabel="frame")
    figure.supylabel(channels)
    figure.colorbar(picture, ax=axes, label=values, shrink=0.9, pad=0.02)
    return figure


@styled
def confusion(matrix: Int[np.ndarray, "classes classes"], class_names: Sequence[str], source: str) -> Figure:
    """How often each true class (row) got each answer (column), as a share of the row.

    Up to 20 classes the counts are written in the cells.
    """
    classes = len(class_names)
    figure, (axis,) = grid(1, 1, source, 6.0 if classes > 10 else 4.0)
    of_class = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    # Errors are rare: a square-root scale keeps them visible beside the diagonal.
    picture = axis.imshow(of_class, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    size = 10 if classes <= 20 else 8
    axis.set_xticks(range(classes), class_names, rotation=90, fontsize=size)
    axis.set_yticks(range(classes), class_names, fontsize=size)
    axis.set(xlabel="answer", ylabel="true class")
    for row, column in np.argwhere(matrix) if classes <= 20 else ():
        ink = "white" if of_class[row, column] > 0.4 else "black"
        axis.text(column, row, matrix[row, column], color=ink, ha="center", va="center", fontsize=8)
    figure.colorbar(picture, ax=axis, label="share of the true class", shrink=0.8)
    return figure


@styled
def correlations(rows: pd.DataFrame, source: str) -> Figure:
    """A map of correlations: a row for each measure, a column for each outcome, the interval under each number.

    ``rows`` have the columns measure, outcome, correlation, from and to. What has an interval without zero is bold and
    framed.
    """
    check(rows, "measure", "outcome", "correlation", "from", "to")
    measures, outcomes = order(rows["measure"]), order(rows["outcome"])
    wide = rows.pivot(index="measure", columns="outcome", values="correlation").reindex(measures)[outcomes]
    figure, (axis,) = grid(1, 1, source, 0.3 + 0.46 * len(measures))
    image = axis.imshow(wide, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    for one in rows.dropna().to_dict("records"):
        x, y = outcomes.index(one["outcome"]), measures.index(one["measure"])
        text = f"{one['correlation']:.2f}\n({one['from']:.2f}, {one['to']:.2f})".replace("-", "−")
        ink, weight = "white" if abs(one["correlation"]) > 0.6 else "black", "bold" if excludes_zero(one) else "normal"
        axis.text(x, y, text, ha="center", va="center", fontsize=7.5, color=ink, fontweight=weight)
        if excludes_zero(one):
            axis.add_patch(Rectangle((x - 0.47, y - 0.46), 0.94, 0.92, fill=False, edgecolor="black"))
    axis.set_xticks(range(len(outcomes)), outcomes)
    axis.set_yticks(range(len(measures)), measures)
    axis.tick_params(length=0, top=True, bottom=False, labeltop=True, labelbottom=False)
    axis.spines[:].set_visible(False)
    figure.colorbar(image, label="rank correlation", pad=0.01)
    return figure


@styled
def pathway(
    sound: tuple[Float[np.ndarray, " samples"], int] | None,
    frames: Real[np.ndarray, "time channels"],
    spikes: Shaped[np.ndarray, "time units"],
    answers: Float[np.ndarray, "sampled classes"],
    names: Sequence[str],
    source: str,
) -> Figure:
    """What becomes of one utterance: its sound (with its rate in Hz), its frames, a layer's spikes, and the answers.

    ``answers`` are the probabilities of the classes under each of the weights that were sampled: a dot each, and their
    mean as a bar. Without a sound, as of a spiking set, its panel is left out.
    """
    figure, axes = grid(3 + (sound is not None), 2, source, 1.7)
    if sound is not None:
        samples, rate = sound
        axes[0].plot(np.arange(len(samples)) / rate, samples, color=NEUTRAL, linewidth=0.5)
        axes[0].set(title="sound", xlabel="time (s)", ylabel="amplitude")
    bands, train, words = axes[-3:]
    bands.imshow(frames.T, origin="lower", aspect="auto", cmap="magma", interpolation="none")
    bands.set(title="frames", xlabel="time step", ylabel="band")
    train.plot(*spikes.nonzero(), "|", color=SPIKE, markersize=3)
    train.set(title="spikes", xlabel="time step", ylabel="unit", xlim=(0, len(spikes)))
    words.barh(range(len(names)), answers.mean(axis=0), color=COLOURS[2])
    words.plot(answers.T, np.tile(np.arange(len(names))[:, None], len(answers)), ".", color=SPIKE, markersize=3)
    words.set(title="answer", xlabel="probability", xlim=(0, 1))
    words.set_yticks(range(len(names)), names, fontsize=8 if len(names) < 12 else 5)
    return figure


@styled
def cloud(
    rows: pd.DataFrame, point: Float[np.ndarray, "2"], samples: Float[np.ndarray, "sampled 2"], source: str
) -> Figure:
    """Two ways to end a training over two weights: in a point, and in a distribution, shown by samples of it.

    ``rows`` have the columns first, second (the weights) and loss, a row for each point of a grid.
    """
    check(rows, "first", "second", "loss")
    figure, axes = grid(2, 2, source, 2.6, sharex=True, sharey=True)
    square = rows.pivot(index="second", columns="first", values="loss")
    ends = {"one set of weights": (point[None], "map"), "a cloud of weights": (samples, "ivon")}
    for axis, (title, (ending, method)) in zip(axes, ends.items(), strict=True):
        axis.contour(square.columns, square.index, square, levels=12, colors="0.7", linewidths=0.8)
        axis.plot(*ending.T, "o", color=METHODS[method].colour, markersize=3 if len(ending) > 1 else 7, alpha=0.7)
        axis.set(title=f"{METHODS[method].label}: {title}", xlabel="first weight")
    axes[0].set_ylabel("second weight")
    return figure


@styled
def surfaces(rows: pd.DataFrame, source: str, *, panel: str = "method", scale: Normalize | None = None) -> Figure:
    """The loss over a surface, a map for each value of ``panel``, all in the same colours.

    ``rows`` have the columns alpha, beta and nll, a row for each point of a square grid.
    """
    check(rows, "alpha", "beta")
    figure, parts = panels(rows, {"nll": ""}, panel, 2, source, height=3.3, sharex=True, sharey=True)
    scale = scale or Normalize(rows["nll"].min(), rows["nll"].max())
    for axis, part, _ in parts:
        square = part.pivot(index="beta", columns="alpha", values="nll")
        half = np.ptp(square.columns) / (len(square) - 1) / 2  # of a cell, in whose middle its point lies
        ends = [square.columns[0] - half, square.columns[-1] + half, square.index[0] - half, square.index[-1] + half]
        look = {"cmap": "viridis", "norm": scale, "origin": "lower", "interpolation": "none"}
        drawn = axis.imshow(square, extent=ends, **look)
        axis.set(xlabel="distance α", ylabel="distance β")
        axis.label_outer()
    figure.colorbar(drawn, ax=figure.axes, label="loss (nats)", shrink=0.8)
    return figure


def surface_slider(rows: pd.DataFrame, source: str, *, panel: str = "method") -> str:
    """A piece of a page: the maps of ``surfaces``, the lines through their middles, and a slider over the samples.

    ``rows`` have the column samples besides. The page needs neither network nor server; without scripts it shows the
    first number of samples.
    """
    check(rows, panel, "alpha", "beta", "nll", "samples")
    counts, scale = order(rows["samples"]), Normalize(rows["nll"].min(), rows["nll"].max())
    middle = rows[rows["beta"] == rows["beta"].abs().min()]
    blocks = ""
    for place, count in enumerate(counts):
        maps, through = (table[table["samples"] == count] for table in (rows, middle))
        pictures = [
            surfaces(maps, source, panel=panel, scale=scale),
            lines(through, "alpha", {"nll": "loss (nats)"}, source, name=None, panel=panel, xlabel="distance α, β = 0"),
        ]
        pictures[1].axes[0].set_ylim(middle["nll"].min(), middle["nll"].max())
        blocks += f'<div data-samples="{count}"{" hidden" if place else ""}>'
        for figure, part, where in zip(
            pictures, (maps, through), ("over the surface", "along its middle"), strict=True
        ):
            kind, data = figure.written().popitem()
            data = b64encode(data.encode()).decode() if kind == "image/svg+xml" else data
            told = f"average of S = {count}: loss {where}, from {part.nll.min():.2f} to {part.nll.max():.2f} nats"
            blocks += f'<img src="data:{kind};base64,{data}" alt="{escape(told)}" style="width:100%">'
        blocks += "</div>"
    value = f'aria-valuetext="S = {counts[0]}" oninput="{SLID}"'
    slider = f'<input type="range" min="0" max="{len(counts) - 1}" value="0" step="1" {value}>'
    head = f"<label>number of samples S, from {counts[0]} to {counts[-1]} {slider}</label>"
    head += f"<output>S = {counts[0]}</output>"
    return f'<div class="by-samples" style="max-width:720px">{head}{blocks}</div>'
