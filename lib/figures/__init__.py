"""Pictures and tables of what the other rooms computed, from plain arrays and DataFrames.

A picture comes back as a closed matplotlib figure, so that a notebook shows it once, and names the data set
that it is from in small print.
"""

from lib.figures.comparison import estimators, interval_panels, interval_table, spread_of, variant_table, variants
from lib.figures.evaluation import confusion, entropies, reliability, spread, table1
from lib.figures.hardware import against_measures, correlations, flaw_intervals, under_flaws
from lib.figures.landscape import along, by_draws, planes, planes_by_draws, slopes
from lib.figures.roads import detection, intervals, reliability_lines, risk_coverage, samples, under_noise
from lib.figures.speech import features, spike_trains, waveform
from lib.figures.spiking import membrane, raster, surrogate
from lib.figures.style import METHOD_COLOURS, METHOD_LABELS, label, source_of
from lib.figures.training import learning_curves, posterior_spread, slices

__all__ = [
    "METHOD_COLOURS",
    "METHOD_LABELS",
    "against_measures",
    "along",
    "by_draws",
    "confusion",
    "correlations",
    "detection",
    "entropies",
    "estimators",
    "features",
    "flaw_intervals",
    "interval_panels",
    "interval_table",
    "intervals",
    "label",
    "learning_curves",
    "membrane",
    "planes",
    "planes_by_draws",
    "posterior_spread",
    "raster",
    "reliability",
    "reliability_lines",
    "risk_coverage",
    "samples",
    "slices",
    "slopes",
    "source_of",
    "spike_trains",
    "spread",
    "spread_of",
    "surrogate",
    "table1",
    "under_flaws",
    "under_noise",
    "variant_table",
    "variants",
    "waveform",
]
