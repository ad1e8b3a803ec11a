"""Pictures and tables of what the other rooms computed: a few kinds of picture, and one kind of table.

They take tidy frames, a row for each observation, and the names of columns. A picture comes back as a closed matplotlib
figure, so that a notebook shows it once, and names its data in small print.
"""

# ruff: noqa: F401

from lib.figures.curves import histograms, learning_curves, lines, predictions
from lib.figures.dots import findings, intervals, reliability, scatter, seed_dots
from lib.figures.maps import (
    cloud,
    confusion,
    correlations,
    features,
    membrane,
    pathway,
    player,
    raster,
    surface_slider,
    surfaces,
    surrogate,
    waveform,
)
from lib.figures.style import label, source_of
from lib.figures.tables import TABLE1, interval_table, mean_std, mean_table, table1
