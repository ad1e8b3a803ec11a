"""What goes into the network: waveforms or spikes, and the frames made of them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Real
from matplotlib.figure import Figure

from lib.figures.style import NEUTRAL, grid, styled


@styled
def waveform(
    waveforms: Sequence[Float[np.ndarray, " samples"]], sample_rate: int, titles: Sequence[str], source: str
) -> Figure:
    """Each recording's amplitude against time in seconds; ``sample_rate`` in Hz."""
    figure, axes = grid(len(waveforms), 3, 1.5, source, sharey=True)
    for axis, samples, title in zip(axes, waveforms, titles, strict=True):
        axis.plot(np.arange(len(samples)) / sample_rate, samples, color=NEUTRAL, linewidth=0.5)
        axis.set(title=title, xlabel="time (s)")
        axis.margins(x=0)
    figure.supylabel("amplitude", fontsize=9)
    return figure


@styled
def spike_trains(
    utterances: Sequence[tuple[Float[np.ndarray, " _"], Int[np.ndarray, " _"]]],
    titles: Sequence[str],
    source: str,
) -> Figure:
    """Each utterance's spikes, given by their times in seconds and their channels."""
    figure, axes = grid(len(utterances), 3, 1.7, source, sharey=True)
    for axis, (times, units), title in zip(axes, utterances, titles, strict=True):
        axis.plot(times, units, ".", color=NEUTRAL, markersize=1, markeredgewidth=0)
        axis.set(title=title, xlabel="time (s)")
    figure.supylabel("channel", fontsize=9)
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
    figure, axes = grid(len(frames), 3, 1.7, source, sharey=True)
    for axis, frame, title in zip(axes, frames, titles, strict=True):
        picture = axis.imshow(
            frame.T, origin="lower", aspect="auto", cmap="magma", vmin=frames.min(), vmax=frames.max()
        )
        axis.set(title=title, xlabel="frame")
    figure.supylabel(channels, fontsize=9)
    figure.colorbar(picture, ax=axes, label=values, shrink=0.9, pad=0.02)
    return figure
