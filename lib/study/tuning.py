"""Choose each method's settings by validation NLL, never on the test part: the same trials and seeds for each.

A trial's loss is that of one seed, and the lowest of many is in part luck: so the best few are trained again with
further seeds, and ranked by the mean over these alone.
"""

import errno
import itertools
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import yaml

from lib import methods, runs
from lib.features import Frames
from lib.files import FULL, atomic_write, exclusive, explaining_os_errors
from lib.methods import Derived
from lib.setup import Setup
from lib.study import ONE, Study, engine
from lib.study.measures.common import Place

# The trials' own seed, and those by which the best are ranked: none that results are reported with, nor an ensemble's.
SEED = 0
RANKED, RANKING_SEEDS = 4, (90_001, 90_002, 90_003)
EDGE = 0.05  # of a searched range, on its logarithmic scale
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
    best, said, trials = {}, {}, []
    for name, (params, table) in engine.on_workers(choose, work, scheduler, folder):
        variant, method = pairs[name]
        best.setdefault(variant, {})[method] = params
        said[name] = in_words(name if variant != ONE else method, params, table, methods.get(method).search_space())
        trials.append(table)
    if trials:
        chosen = yaml.safe_dump(best[ONE] if list(study.variants) == [ONE] else best)
        with atomic_write(study.chosen_path) as aside:
            aside.write_text("".join(said[name] for name in pairs if name in said) + chosen, encoding="utf-8")
        with atomic_write(results / "trials.csv") as aside:
            pd.concat(trials).sort_values(["variant", "method", "trial"]).to_csv(aside, index=False)
    return int(len(trials) < len(pairs))


def choose(study: Study, variant: str, method: str, folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """The best settings of some trials on the validation parts of one set or of several, and all finished trials.

    Of each trial: number, state, validation NLL (pruned: the last seen), of the best few its mean over the ranking
    seeds (``ranked_nll``, by which the best is chosen), and the settings tried.
    """
    names = study.tuning["set"] if isinstance(study.tuning["set"], list) else [study.tuning["set"]]
    given = {name: study.given(name, variant, method) | {"epochs": study.tuning["epochs"]} for name in names}
    frames = {}
    for name in names:
        setup = Setup.of(given[name] | {"method": method, "seed": SEED})
        frames[name] = Place(study.data_root(name), folder).frames(setup)
    journal = folder / "runs" / "tuning" / f"{study.name}-{'+'.join(names)}-{variant}-{method}.log"
    known = study.tuning.get("first", {}).get(method, [])
    searched = search(journal, given, frames, method, study.tuning["trials"], known)
    ranks = ranked(journal, searched, given, frames, method, study.tuning.get("ranked", RANKED))
    table = pd.DataFrame(
        {"variant": variant, "method": method, "trial": trial.number, "state": trial.state.name}
        | {"validation_nll": trial.value, "ranked_nll": ranks.get(trial.number, math.nan)}
        | trial.params
        for trial in searched.get_trials(states=FINISHED)
    )
    return searched.trials[min(ranks, key=ranks.get)].params, table


def search(
    journal: Path,
    given: Given,
    frames: Mapping[str, Frames],
    method: str,
    trials: int,
    known: Sequence[Mapping[str, Any]] = (),
) -> optuna.Study:
    """Go on with a search until it has so many finished trials, the first of them with the default settings.

    The next have those that are ``known`` to be good from elsewhere. Settings that are given for a set are not
    searched. Raises ``ValueError`` where what is known is not what trials try, or the journal is damaged, or of a
    search with other settings, ranges or recordings, and ``OSError`` where the disk is full.
    """
    fixed, space = set().union(*given.values()), methods.get(method).search_space()
    space = {name: values for name, values in space.items() if name not in fixed}
    firsts = [{name: methods.get(method)().as_dict()[name] for name in space}]
    firsts += [within(space, one, method) for one in known]
    of = {"given": given, "trials try": space, "recordings": {name: one.fingerprint for name, one in frames.items()}}
    with exclusive(journal), explaining_os_errors(journal.parent, FULL):
        epochs = max(one["epochs"] for one in given.values())
        study = opened(journal, json.loads(json.dumps(of)), spared=max(10, epochs // 4))
        for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):  # when the search was interrupted
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        begun = study.get_trials(states=(*FINISHED, optuna.trial.TrialState.WAITING))
        for first in firsts:
            if not any(trial.system_attrs.get("fixed_params") == first for trial in begun):
                study.enqueue_trial(first)
        done = len(study.get_trials(states=FINISHED, deepcopy=False))
        try:
            study.optimize(lambda trial: objective(trial, given, frames, method, space), n_trials=max(0, trials - done))
        except AssertionError as error:  # Optuna's own, where it could not write a trial's end
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(journal)) from error
    return study


def within(space: Mapping[str, list | tuple], known: Mapping[str, Any], method: str) -> Mapping[str, Any]:
    """Settings that a study's file names, where a trial can try them; else ``ValueError``."""
    if known.keys() != space.keys():
        raise ValueError(f"'first' must give {method} all that its trials try, and no more: {', '.join(space)}")
    for name, value in known.items():
        values = space[name]
        if not (values[0] <= value <= values[1] if isinstance(values, tuple) else value in values):
            raise ValueError(f"'first' gives {method} {name} = {value}; trials try {values}")
    return known


def ranked(
    journal: Path, searched: optuna.Study, given: Given, frames: Mapping[str, Frames], method: str, many: int = RANKED
) -> dict[int, float]:
    """Of the best few trials by their numbers the mean validation NLL over the ranking seeds, kept in the journal."""
    complete = searched.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    best = sorted(complete, key=lambda trial: trial.value)[:many]
    with exclusive(journal), explaining_os_errors(journal.parent, FULL):
        for trial, seed in itertools.product(best, RANKING_SEEDS):
            if (name := f"trial {trial.number}, seed {seed}") not in searched.user_attrs:
                searched.set_user_attr(name, score(given, frames, method, trial.params, seed))
    found = searched.user_attrs
    return {
        trial.number: sum(found[f"trial {trial.number}, seed {seed}"] for seed in RANKING_SEEDS) / len(RANKING_SEEDS)
        for trial in best
    }


def in_words(name: str, params: Mapping[str, Any], table: pd.DataFrame, space: Mapping[str, list | tuple]) -> str:
    """What stands above chosen settings, as comments: the ranking, and which settings lie at an edge of their range."""
    ranking = table.dropna(subset="ranked_nll").sort_values("ranked_nll")
    places = ", ".join(f"{row.trial} ({row.ranked_nll:.4g})" for row in ranking.itertuples())
    by = f"by their mean validation NLL over {len(RANKING_SEEDS)} further seeds"
    lines = [f"{name}: the best of {len(table)} trials, {by}: {places}"]
    lines += [
        f"  {setting} = {value:g} lies at an edge of {space[setting]}" for setting, value in at_edges(params, space)
    ]
    return "".join(f"# {line}\n" for line in lines)


def at_edges(params: Mapping[str, Any], space: Mapping[str, list | tuple]) -> list[tuple[str, float]]:
    """The chosen numbers at the least or greatest choice, or within ``EDGE`` of an end of a range."""
    found = []
    for setting, value in params.items():
        values = space[setting]
        if isinstance(values, tuple):
            low, high = map(math.log, values)
            inside = EDGE < (math.log(value) - low) / (high - low) < 1 - EDGE
        else:
            numbers = [one for one in values if one is not None]
            inside = isinstance(value, str | bool | None) or min(numbers) < value < max(numbers)
        if not inside:
            found.append((setting, value))
    return found


def opened(journal: Path, of: Mapping[str, Any], spared: int) -> optuna.Study:
    """The search that the journal holds, or a new one; ``of`` is all that determines its trials.

    None is pruned in the epochs that are ``spared``: who begins slowly may win.
    """
    cut_to_whole_lines(journal)
    anew = "move it away, and the search begins anew"
    try:
        backend = optuna.storages.journal.JournalFileBackend(str(journal), lock_obj=Held())
        storage = optuna.storages.JournalStorage(backend)
    except OSError:
        raise
    except Exception as error:  # lines that are whole can still say anything
        raise ValueError(f"{journal} is damaged ({type(error).__name__}: {error}); {anew}") from error
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=spared)
    study = optuna.create_study(study_name=journal.stem, storage=storage, pruner=pruner, load_if_exists=True)
    if study.get_trials(states=FINISHED, deepcopy=False):
        had = study.user_attrs.get("of", {})
        if other := [name for name in of if had.get(name) != of[name]]:
            raise ValueError(f"{journal} is of a search that differs in what is {', '.join(other)}; {anew}")
    study.set_user_attr("of", of)
    return study


class Held:
    """In the place of Optuna's lock, which a killed process would leave behind: the journal is locked already."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return None


def cut_to_whole_lines(journal: Path) -> None:
    """Cut what a full disk has left of a line, and what follows: Optuna would not read the journal again."""
    whole, lines = 0, journal.read_bytes().splitlines(keepends=True) if journal.exists() else []
    for line in lines:
        try:
            json.loads(line)["op_code"]
        except (ValueError, TypeError, KeyError):
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
    """The ``score`` of what a trial suggests; it is pruned where others were better after as many epochs."""
    tried = {
        name: trial.suggest_float(name, *values, log=True)
        if isinstance(values, tuple)
        else trial.suggest_categorical(name, values)
        for name, values in space.items()
    }
    steps = itertools.count()

    def report(total: float) -> None:
        trial.report(total, next(steps))
        if trial.should_prune():
            raise optuna.TrialPruned

    return score(given, frames, method, tried, SEED, report)


def score(
    given: Given,
    frames: Mapping[str, Frames],
    method: str,
    tried: Mapping[str, Any],
    seed: int,
    report: Callable[[float], None] = lambda total: None,
) -> float:
    """The lowest validation NLL of a training, averaged over the data sets; infinite where it diverges.

    ``report`` is told the sum over the data sets so far, epoch by epoch.
    """
    lowest: list[float] = []

    def note(row: Mapping[str, Any]) -> None:
        # The lowest so far is the trial's score, unless the posterior is the last epoch's: an epoch that happens to be
        # bad is no reason to end it.
        loss = row["validation_loss"]
        lowest[-1] = loss if methods.get(method).keeps_last else min(lowest[-1], loss)
        report(sum(lowest))

    for name, of_set in given.items():
        setup = Setup.of(of_set | tried | {"method": method, "seed": seed})
        lowest.append(math.inf)
        try:
            runs.fit(setup, frames[name], after_epoch=note)
        except FloatingPointError:
            return math.inf
    return sum(lowest) / len(given)
