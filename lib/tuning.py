"""Choose each method's settings: the same number of trials for each, by validation NLL, never on test.

    python -m lib.tuning --dataset sc --data-root FOLDER --method ivon --trials 20

The study is kept beside the stored runs; the same command goes on with it where it was interrupted.
"""

import argparse
import itertools
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import torch

from lib import experiment, settings
from lib.features import Frames
from lib.files import atomic_write
from lib.trainers import METHODS

# The trials' own seed: none of those that results are reported with.
SEED = 0
# Choices, or the ends of a range that is searched on a logarithmic scale.
SHARED = {"batch_size": [16, 32, 64, 128], "dropout": [0.0, 0.1, 0.2, 0.3], "patience": [2, 4, 6]}
SPACE = {
    "map": SHARED | {"learning_rate": (1e-3, 3e-2), "weight_decay": [0.0, 1e-5, 1e-4]},
    "ivon": SHARED
    | {
        "learning_rate": (0.03, 1.0),
        "weight_decay": [1e-5, 1e-4, 1e-3],
        "ess_factor": (1.0, 30.0),
        "hess_init": (0.1, 3.0),
        "beta2": [0.999, 0.9999, 0.99999],
        "freeze_norm_after": [10, 20, 30],
    },
    "bbb": SHARED | {"learning_rate": (1e-3, 3e-2), "alpha": (1e-3, 1.0), "initial_std": (0.01, 0.2)},
    "swag": SHARED
    | {
        "learning_rate": (1e-3, 3e-2),
        "weight_decay": [0.0, 1e-5, 1e-4],
        "swag_from": [5, 10, 15],
        "swag_learning_rate": (1e-3, 0.1),
        "rank": [5, 10, 15],
    },
    "sbnn": {
        "batch_size": SHARED["batch_size"],
        "patience": SHARED["patience"],
        "learning_rate": (1e-3, 3e-2),
        "aux_weight": (1e-7, 1e-4),
        "deviation": [0.25, 0.5, 1.0],
        "deviations": ["matrix", "weight"],
        "slope": ["straight-through", "trapezoid"],
    },
}
FINISHED = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)


def suggest(trial: optuna.Trial, method: str, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """One draw from the method's search space, without what is ``fixed``."""
    return {
        name: trial.suggest_float(name, *space, log=True)
        if isinstance(space, tuple)
        else trial.suggest_categorical(name, space)
        for name, space in SPACE[method].items()
        if name not in fixed
    }


def objective(trial: optuna.Trial, sets: list[Frames], method: str, fixed: Mapping[str, Any]) -> float:
    """The lowest validation NLL of a training, averaged over the data sets; infinite where it diverges.

    ``fixed`` are settings of the run that are not searched, and of the method's those that are set beforehand.
    """
    run = settings.RUN_DEFAULTS | fixed | {"seed": SEED}
    chosen = settings.of_method(method, suggest(trial, method, fixed) | fixed)
    own = {name: value for name, value in chosen.items() if name not in settings.SHAPES}
    lowest: list[float] = []
    steps = itertools.count()

    def report(row):
        # The lowest so far is the trial's score: an epoch that happens to be bad is no reason to end it. But SWAG's
        # posterior is the last epoch's.
        lowest[-1] = row["validation_loss"] if method == "swag" else min(lowest[-1], row["validation_loss"])
        trial.report(sum(lowest), next(steps))
        if trial.should_prune():
            raise optuna.TrialPruned

    for frames in sets:
        lowest.append(math.inf)
        network = experiment.network_for(frames, run | chosen | {"method": method})
        training, validation = frames.part("train"), frames.part("validation")
        try:
            METHODS[method](
                network, training, validation,
                epochs=run["epochs"], rate_cost=run["rate_cost"], seed=SEED, after_epoch=report, **own,
            )  # fmt: skip
        except FloatingPointError:
            return math.inf
    return sum(lowest) / len(sets)


def search(name: str, sets: Mapping[str, Frames], method: str, trials: int, fixed: Mapping[str, Any]) -> optuna.Study:
    """Go on with the study of this name until it has ``trials`` finished trials, the first with the default settings.

    ``fixed`` is given to every trial (``objective``).
    """
    folder = experiment.DATA / "runs" / "tuning"
    folder.mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / f"{name}.log")))
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=10),
        load_if_exists=True,
    )
    finished = study.get_trials(
        states=(optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED), deepcopy=False
    )
    begin = {name: settings.DEFAULTS[method][name] for name in SPACE[method] if name not in fixed}
    study.enqueue_trial(begin, skip_if_exists=True)
    study.optimize(
        lambda trial: objective(trial, list(sets.values()), method, fixed), n_trials=max(0, trials - len(finished))
    )
    return study


def trial_table(study: optuna.Study) -> pd.DataFrame:
    """One row a finished trial: number, state, validation NLL (pruned: the last seen) and the settings tried."""
    return pd.DataFrame(
        {"trial": trial.number, "state": trial.state.name, "validation_nll": trial.value} | trial.params
        for trial in study.get_trials(states=FINISHED)
    )


def main() -> int:
    parser = argparse.ArgumentParser("python -m lib.tuning", description="Choose settings on validation data.")
    parser.add_argument("--dataset", nargs="+", choices=settings.DATASETS, required=True)
    parser.add_argument("--data-root", type=Path, help="the folder of the set, where only one is named")
    parser.add_argument("--split", help="a named split of the set")
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--trials", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        chosen = {"data_root": options.data_root, "split": options.split}
        sets = {name: experiment.load_frames(chosen, name) for name in options.dataset}
        # A part of SC is another task than the whole: the number of classes belongs to the name.
        name = "+".join(f"{name}-{len(frames.class_names)}" for name, frames in sets.items())
        study = search(f"{name}-{options.method}", sets, options.method, options.trials, {})
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    path = experiment.REPOSITORY / "data" / "results" / f"tuning-{study.study_name}.csv"
    with atomic_write(path) as aside:
        trial_table(study).to_csv(aside, index=False)
    print(f"validation NLL {study.best_value:.4f} with {study.best_params}; all trials in {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
