"""A study: a grid of runs (sets, variants of the network or the training, methods, seeds), all measured alike.

    python -m lib.study book/studies/neurons.yml --tune      # choose each method's settings on validation data, once
    python -m lib.study book/studies/neurons.yml             # train and measure what the stored results lack
    python -m lib.study book/studies/neurons.yml --verify    # compute a share anew and compare it, number by number

The file names ``sets``, ``variants`` (optional), ``method``, ``seed``, ``common`` settings, ``evaluation`` and further
``measures`` with their settings. ``tuning`` says how trials choose the settings that stand beside the file as
``neurons-chosen.yml`` ({set, trials, epochs}), or whose choices are taken ({as: other study}). The results are tables
in ``data/results/neurons``, one for each measure, and ``runs.json``, the records of the runs. What stands there, or is
stored of a run or a trial, is not computed again: the same command goes on where it was interrupted.
"""
