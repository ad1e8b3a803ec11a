"""What goes into the network and on inside it: waveforms, spikes, potentials and the gradient in the step's place."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.figure import Figure

from lib.figures.style import COLOURS, DASHED, NEUTRAL, grid, styled

POTENTIAL, SPIKE = COLOURS[0], COLOURS[4]
BESIDE = {"loc": "upper left", "bbox_to_anchor": (1, 1)}


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


@styled
def raster(
    trains: Sequence[tuple[Shaped[np.ndarray, " _"], Shaped[np.ndarray, " _"]]],
    titles: Sequence[str],
    source: str,
    *,
    xlabel: str = "time (s)",
    ylabel: str = "channel",
) -> Figure:
    """A mark for each spike of each train, given by the spikes' times and their channels; a panel for each train.

    ``numpy.nonzero`` of a layer's spikes [time, units] are the steps and units of a train.
    """
    figure, axes = grid(len(trains), 3, source, sharey=True)
    for axis, (times, channels), title in zip(axes, trains, titles, strict=True):
        axis.plot(times, channels, "|", color=SPIKE, markersize=3 if len(trains) > 1 else 5)
        axis.set(title=title, xlabel=xlabel)
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
