"""What goes on inside the network: potentials, spikes and the gradient that stands in for the step's."""

import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.figure import Figure

from lib.figures.style import NEUTRAL, OTHER_COLOURS, panels, styled

POTENTIAL, SPIKE = OTHER_COLOURS[0], OTHER_COLOURS[4]


@styled
def membrane(
    potential: Float[np.ndarray, " time"],
    spikes: Shaped[np.ndarray, " time"],
    current: Float[np.ndarray, " time"],
    threshold: float,
    source: str,
) -> Figure:
    """One neuron's input current; below it the potential, the threshold and the steps at which it spikes."""
    figure, ((above,), (below,)) = panels(2, 1, 3.2, source, sharex=True, height_ratios=(1, 2))
    above.plot(current, color=NEUTRAL, label="input current")
    above.set_ylabel("current")
    below.plot(potential, color=POTENTIAL, label="potential")
    below.axhline(threshold, color=NEUTRAL, linestyle="--", linewidth=1, label="threshold")
    below.plot(
        np.flatnonzero(spikes),
        np.full(np.count_nonzero(spikes), threshold),
        "|",
        color=SPIKE,
        label="spike",
        markersize=12,
    )
    below.set(xlabel="time step", ylabel="potential")
    below.legend(loc="upper left", bbox_to_anchor=(1, 1))
    below.margins(x=0.01)
    return figure


@styled
def surrogate(
    potentials: Float[np.ndarray, " points"], gradient: Float[np.ndarray, " points"], threshold: float
) -> Figure:
    """The step from potential to spike, and the gradient by which it is replaced in the backward pass."""
    figure, ((axis,),) = panels(1, 1, 2.4)
    axis.plot(potentials, potentials > threshold, color=SPIKE, drawstyle="steps-mid", label="spike (forward)")
    axis.plot(potentials, gradient, color=POTENTIAL, label="surrogate gradient (backward)")
    axis.axvline(threshold, color=NEUTRAL, linestyle="--", linewidth=1, label="threshold")
    axis.set(xlabel="membrane potential", ylabel="value")
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@styled
def raster(spikes: Shaped[np.ndarray, "time units"], source: str) -> Figure:
    """A mark for each spike of each unit of one layer, while one utterance passes."""
    steps, units = spikes.shape
    figure, ((axis,),) = panels(1, 1, 3.2, source)
    axis.plot(*np.nonzero(spikes), "|", color=SPIKE, markersize=min(5, 400 / units), markeredgewidth=1.2)
    axis.set(xlabel="time step", ylabel="unit", xlim=(-0.5, steps - 0.5), ylim=(-0.5, units - 0.5))
    return figure
