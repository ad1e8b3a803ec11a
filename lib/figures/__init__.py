"""Pictures and tables of what the other rooms computed, from plain arrays and DataFrames.

A picture comes back as a closed matplotlib figure, so that a notebook shows it once, and names the data set
that it is from in small print.
"""

from lib.figures.comparison import estimators, variant_table, variants
from lib.figures.evaluation import confusion, entropies, reliability, spread, table1
from lib.figures.speech import features, spike_trains, waveform
from lib.figures.spiking import membrane, raster, surrogate
from lib.figures.style import METHOD_COLOURS, METHOD_LABELS, source_of
from lib.figures.training import learning_curves, posterior_spread, slices

__all__ = [
    "METHOD_COLOURS",
    "METHOD_LABELS",
    "confusion",
    "entropies",
    "estimators",
    "features",
    "learning_curves",
    "membrane",
    "posterior_spread",
    "raster",
    "reliability",
    "slices",
    "source_of",
    "spike_trains",
    "spread",
    "surrogate",
    "table1",
    "variant_table",
    "variants",
    "waveform",
]
