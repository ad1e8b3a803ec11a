"""What a study measures of a run, each by its name in the study's file. Another measure is a file, and a line here.

``measure(run, frames, place, **settings)`` is given a run, the frames that it was trained on, the ``Place`` that they
come from, and the settings that stand under its name in the study's file. It returns a table whose index, if it is
named, says what each row is about, and whose columns hold the numbers; or several tables by their names, which begin
with the measure's own. Those whose name ends in one of ``CURVES`` are for pictures, and are stored of the first seed
alone; they and utterances are compressed.
"""

from lib.study.measures import lines, networks, predictions, slopes, smoothing

CURVES = ("_lines", "_points", "_slopes")
# What these measure is the machine's, and does not come out again.
TIMES = ("cost",)

MEASURES = {
    "evaluation": predictions.evaluation,
    "utterances": predictions.utterances,
    "on_validation": predictions.on_validation,
    "snr_sweep": predictions.snr_sweep,
    "out_of_distribution": predictions.out_of_distribution,
    "sample_counts": predictions.sample_counts,
    "posterior_mean_only": predictions.posterior_mean_only,
    "hardware": predictions.hardware,
    "progress": networks.progress,
    "history": networks.history,
    "activity": networks.activity,
    "weight_norms": networks.weight_norms,
    "spread": networks.spread,
    "weight_rms": networks.weight_rms,
    "cost": networks.cost,
    "heard_on": lines.heard_on,
    "slices": lines.of_slices,
    "angularity": lines.angularity,
    "loss_surface": lines.loss_surface,
    "noise_comparison": lines.noise_comparison,
    "sharpness": lines.sharpness,
    "fine_slices": lines.fine_slices,
    "structure": lines.structure,
    "precision": lines.precision,
    "alignment": lines.alignment,
    "draws": smoothing.draws,
    "spreads": smoothing.spreads,
    "surrogate": slopes.surrogate,
    "curvature": slopes.curvature,
    "crossings": slopes.crossings,
}
