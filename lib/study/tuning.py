"""Choose each method's settings: the same number of trials for each, by validation NLL, never on the test part."""

import itertools
import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import yaml

from lib import methods, runs
from lib.features import Frames
from lib.files import atomic_write, exclusive
from lib.methods import Derived
from lib.setup import Setup
from lib.study import ONE, Study, engine
from lib.study.measures.common import Place

# The trials' own seed: none of those that results are reported with.
SEED = 0
FINISHED = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)

Given = Mapping[str, Mapping[str, Any]]  # each set's settings


def tune(study: Study, results: Path, scheduler: str | None = None, folder: Path = runs.DATA) -> int:
    """Choose the settings of every variant and method that trains, and write them and all trials; 1 if some failed."""
    if study.tuning is None or "as" in study.tuning:
        other = f"tune {study.tuning['as']}.yml instead" if study.tuning else "give it the key 'tuning'"
        raise ValueError(f"{study.path} has no trials of its own: {other}")
    trained = [name for name in study.method if not issubclass(methods.get(name), Derived)]
    pairs = {f"{variant}, {method}": (variant, method) for variant in study.variants for method in trained}
    work = {name: (study, *pair, folder) for name, pair in pairs.items()}
    best, trials = {}, []
    for name, (params, table) in engine.on_workers(choose, work, scheduler, folder):
        variant, method = pairs[name]
        best.setdefault(variant, {})[method] = params
        trials.append(table)
    if trials:
        with atomic_write(study.chosen_path) as aside:
            aside.write_text(yaml.safe_dump(best[ONE] if list(study.variants) == [ONE] else best), encoding="utf-8")
        with atomic_write(results / "trials.csv") as aside:
            pd.concat(trials).sort_values(["variant", "method", "trial"]).to_csv(aside, index=False)
    return int(len(trials) < len(pairs))


def choose(study: Study, variant: str, method: str, folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """The best settings of some trials on the validation parts of one set or of several, and all finished trials.

    Of each trial: number, state, validation NLL (pruned: the last seen) and the settings tried.
    """
    names = study.tuning["set"] if isinstance(study.tuning["set"], list) else [study.tuning["set"]]
    given = {name: study.given(name, variant, method) | {"epochs": study.tuning["epochs"]} for name in names}
    frames = {}
    for name in names:
        setup = Setup.of(given[name] | {"method": method, "seed": SEED})
        frames[name] = Place(study.data_root(name), folder).frames(setup)
    journal = folder / "runs" / "tuning" / f"{study.name}-{'+'.join(names)}-{variant}-{method}.log"
    searched = search(journal, given, frames, method, study.tuning["trials"])
    of = {"variant": variant, "method": method}
    table = pd.DataFrame(
        of | {"trial": trial.number, "state": trial.state.name, "validation_nll": trial.value} | trial.params
        for trial in searched.get_trials(states=FINISHED)
    )
    return searched.best_params, table


def search(journal: Path, given: Given, frames: Mapping[str, Frames], method: str, trials: int) -> optuna.Study:
    """Go on with a search until it has so many finished trials, the first of them with the default settings.

    Settings that are given for a set are not searched.
    """
    fixed, space = set().union(*given.values()), methods.get(method).search_space()
    space = {name: values for name, values in space.items() if name not in fixed}
    with exclusive(journal):
        cut_to_whole_lines(journal)
        study = optuna.create_study(
            study_name=journal.stem,
            storage=optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal))),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=10),
            load_if_exists=True,
        )
        defaults = methods.get(method)().as_dict()
        study.enqueue_trial({name: defaults[name] for name in space}, skip_if_exists=True)
        done = len(study.get_trials(states=FINISHED, deepcopy=False))
        study.optimize(lambda trial: objective(trial, given, frames, method, space), n_trials=max(0, trials - done))
    return study


def cut_to_whole_lines(journal: Path) -> None:
    """Cut what a full disk has left of a line, and what follows: Optuna would not read the journal again."""
    whole, lines = 0, journal.read_bytes().splitlines(keepends=True) if journal.exists() else []
    for line in lines:
        try:
            json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n"):
            break
        whole += len(line)
    if whole < sum(map(len, lines)):
        print(f"{journal} is damaged at its end, which is cut off: the trials before it count.", file=sys.stderr)
        os.truncate(journal, whole)


def objective(
    trial: optuna.Trial,
    given: Given,
    frames: Mapping[str, Frames],
    method: str,
    space: Mapping[str, list | tuple[float, float]],
) -> float:
    """The lowest validation NLL of a training, averaged over the data sets; infinite where it diverges."""
    tried = {
        name: trial.suggest_float(name, *values, log=True)
        if isinstance(values, tuple)
        else trial.suggest_categorical(name, values)
        for name, values in space.items()
    }
    lowest: list[float] = []
    steps = itertools.count()

    def report(row: Mapping[str, Any]) -> None:
        # The lowest so far is the trial's score, unless the posterior is the last epoch's: an epoch that happens to be
        # bad is no reason to end it.
        loss = row["validation_loss"]
        lowest[-1] = loss if methods.get(method).keeps_last else min(lowest[-1], loss)
        trial.report(sum(lowest), next(steps))
        if trial.should_prune():
            raise optuna.TrialPruned

    for name, of_set in given.items():
        setup = Setup.of(of_set | tried | {"method": method, "seed": SEED})
        lowest.append(math.inf)
        try:
            runs.fit(setup, frames[name], after_epoch=report)
        except FloatingPointError:
            return math.inf
    return sum(lowest) / len(given)
