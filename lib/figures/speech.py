"""What goes into the network: waveforms and log-mel frames."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
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
def features(frames: Float[np.ndarray, "utterance time mel"], titles: Sequence[str], source: str) -> Figure:
    """Each utterance's log-mel frames: time to the right, pitch upwards, one colour scale for all."""
    figure, axes = grid(len(frames), 3, 1.7, source, sharey=True)
    for axis, frame, title in zip(axes, frames, titles, strict=True):
        picture = axis.imshow(
            frame.T, origin="lower", aspect="auto", cmap="magma", vmin=frames.min(), vmax=frames.max()
        )
        axis.set(title=title, xlabel="frame")
    figure.supylabel("mel band", fontsize=9)
    figure.colorbar(picture, ax=axes, label="feature value", shrink=0.9, pad=0.02)
    return figure
