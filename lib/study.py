"""A study: networks of several kinds, trained by several methods on several sets, and all measured alike.

    python -m lib.study book/params/neurons.yml --tune    # choose each one's settings on validation data, once
    python -m lib.study book/params/neurons.yml           # train and measure them

The file names the sets, the variants, the methods and the seeds. What was chosen is written beside it, as
``neurons-chosen.yml``, and another study may take it (``tuning: {as: neurons}``); the results go to a folder of the
study's name under data/results. What stands there, or is stored of a run or a trial, is not computed again: the same
command goes on where it was interrupted.
"""

import argparse
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
import yaml
from tqdm import tqdm

from lib import experiment, metrics, tuning
from lib.experiment import Run
from lib.features import Frames
from lib.files import atomic_write, or_damaged, write_json
from lib.measures import MEASURES, TABLES
from lib.settings import BASES, DEFAULTS, METHODS, RUN_DEFAULTS, of_method

KEY = ["set", "variant", "method", "seed"]
NEEDED = {"sets": dict, "variants": dict, "method": list, "seed": list, "common": dict, "tuning": dict}
NEEDED |= {"evaluation": dict, "measures": dict, "tables": list}


class Cell(NamedTuple):
    """One run of a study: its place, and the settings that follow from it."""

    set: str
    variant: str
    method: str
    seed: int
    chosen: dict[str, Any]


Place = tuple[str, str, str, int]
Measured = tuple[dict[str, Any], dict[str, Any]]  # a row of the results, and the record of its run


def read(path: Path) -> dict[str, Any]:
    """The study that a file describes. Raises ``ValueError`` or ``FileNotFoundError`` where it does not."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no study {path}.")
    study = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, kind in NEEDED.items():
        if not isinstance(study, dict) or not isinstance(study.get(name), kind):
            raise ValueError(f"{path}: '{name}' must be a {kind.__name__}.")
    for known, given in ((NEEDED, study), (MEASURES, study["measures"])):
        if unknown := given.keys() - known.keys():
            raise ValueError(f"{path}: {sorted(unknown)[0]!r} is not known; a study has {', '.join(known)}.")
    if unknown := set(study["tables"]) - {"utterances", *(TABLES.keys() & study["measures"].keys())}:
        raise ValueError(f"{path}: there is no table {sorted(unknown)[0]!r}: name 'utterances', or a measure with one.")
    return study | {"name": path.stem}


def chosen_for(study: Mapping[str, Any], path: Path) -> Path:
    """Where the settings stand that were chosen for a study: its own, or another's that its "tuning" names."""
    return path.with_name(f"{study['tuning'].get('as', path.stem)}-chosen.yml")


def cells(study: Mapping[str, Any], tuned: Mapping[str, Mapping[str, Any]]) -> list[Cell]:
    """All runs of a study, seed by seed, so that an interrupted one has something of everything."""

    def chosen(name: str, variant: str, method: str, seed: int) -> dict[str, Any]:
        best = tuned.get(variant, {})
        of_run = best.get(method, {}) | given(study, name, variant, method) | {"method": method, "seed": seed}
        if method in BASES:
            of_run["bases"] = {base: of_base(best, variant, name, base) for base in BASES[method]}
        return of_run

    def of_base(best: Mapping[str, Any], variant: str, name: str, base: str) -> dict[str, Any]:
        asked = study["variants"][variant] | study["sets"][name]
        own = {setting: value for setting, value in asked.items() if setting in DEFAULTS[base]}
        return best.get(base, {}) | study["common"].get(base, {}) | own

    return [
        Cell(name, variant, method, seed, chosen(name, variant, method, seed))
        for seed, name, variant, method in itertools.product(
            study["seed"], study["sets"], study["variants"], study["method"]
        )
    ]


def given(study: Mapping[str, Any], name: str, variant: str, method: str) -> dict[str, Any]:
    """The settings that the study gives to a run: the common ones, its method's, its variant's and its set's."""
    common = {key: value for key, value in study["common"].items() if key not in METHODS}
    return common | study["common"].get(method, {}) | study["variants"][variant] | study["sets"][name]


def measure(cell: Cell, how: Mapping[str, Mapping[str, Any]]) -> Measured:
    """Train, evaluate and measure one run, or find it done: its row of the results, and the record of the run."""
    frames = experiment.load_frames(cell.chosen, cell.chosen["dataset"])
    run = experiment.train(frames, cell.chosen)
    evaluation = experiment.evaluate(run, frames, **how["evaluation"])
    row = dict(zip(KEY, cell, strict=False)) | evaluation.figures
    for name, settings in how.items():
        if name in MEASURES:
            row |= MEASURES[name](run, frames, cell.chosen, **settings)
    asked = {name: settings for name, settings in how.items() if settings}
    return row, {"run": run.folder.name, "set": cell.set, "variant": cell.variant} | run.record | asked


def choose(study: Mapping[str, Any], variant: str, method: str) -> tuple[dict[str, Any], pd.DataFrame]:
    """The best settings of some trials on the validation part, and all trials."""
    asked = study["tuning"]
    name = asked["set"]
    fixed = given(study, name, variant, method) | {"epochs": asked["epochs"]}
    frames = experiment.load_frames(fixed, fixed["dataset"])
    searched = tuning.search(
        f"{study['name']}-{name}-{variant}-{method}", {fixed["dataset"]: frames}, method, asked["trials"], fixed
    )
    trials = tuning.trial_table(searched).assign(variant=variant, method=method)
    return searched.best_params, trials


def at_once(work: Callable, arguments: list[tuple], description: str) -> Iterator[tuple[tuple, Any]]:
    """What ``work`` returns for each of the arguments, as it ends, from as many processes as the machine has cores.

    One that fails is named on standard error, and the others go on.
    """
    with ProcessPoolExecutor(
        os.cpu_count(), mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        waited = {pool.submit(work, *one): one for one in arguments}
        for done in tqdm(as_completed(waited), desc=description, total=len(waited)):
            try:
                yield waited[done], done.result()
            except (OSError, ValueError, FloatingPointError) as error:
                parts = [part for one in waited[done] for part in (one[:4] if isinstance(one, Cell) else [one])]
                name = ", ".join(str(part) for part in parts if not isinstance(part, Mapping))
                print(f"{description}, {name}: {error}", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m lib.study", description="Train and measure the networks of a study.")
    parser.add_argument("study", type=Path, help="such as book/params/neurons.yml")
    parser.add_argument("--tune", action="store_true", help="choose the settings instead")
    options = parser.parse_args(arguments)
    try:
        study = read(options.study)
        folder = experiment.DATA / "results" / options.study.stem
        return (tune if options.tune else run)(study, options.study, folder)
    except KeyboardInterrupt:
        print("Interrupted: what is done is kept; the same command goes on.", file=sys.stderr)
        return 130
    except (OSError, ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1


def tune(study: Mapping[str, Any], path: Path, folder: Path) -> int:
    if other := study["tuning"].get("as"):
        raise ValueError(f"{path} takes the settings chosen for another study: tune {other}.yml instead.")
    trained = [method for method in study["method"] if method not in BASES]
    pairs = [(study, variant, method) for variant in study["variants"] for method in trained]
    best: dict[str, dict[str, Any]] = {}
    tables = []
    for (_, variant, method), (params, trials) in at_once(choose, pairs, "choosing settings"):
        best.setdefault(variant, {})[method] = params
        tables.append(trials)
    if tables:
        with atomic_write(chosen_for(study, path)) as aside:
            aside.write_text(yaml.safe_dump(best), encoding="utf-8")
        with atomic_write(folder / "tuning.csv") as aside:
            pd.concat(tables).sort_values(["variant", "method", "trial"]).to_csv(aside, index=False)
    return int(len(tables) < len(pairs))


def run(study: Mapping[str, Any], path: Path, folder: Path) -> int:
    there = chosen_for(study, path)
    asked = cells(study, yaml.safe_load(there.read_text(encoding="utf-8")) if there.exists() else {})
    how = {"evaluation": study["evaluation"]} | study["measures"]
    stated = {name: settings for name, settings in how.items() if settings}
    first = {cell.set: cell.chosen for cell in reversed(asked)}
    frames = {name: experiment.load_frames(chosen, chosen["dataset"]) for name, chosen in first.items()}
    cells_at = {cell[:4]: cell for cell in asked}
    found = {
        place: (row, record)
        for place, (row, record) in results(folder).items()
        if place in cells_at and is_of(record, cells_at[place], frames[place[0]]) and stated.items() <= record.items()
    }
    missing = [(cell, how) for cell in asked if cell[:4] not in found]
    for (cell, _), both in at_once(measure, missing, "runs"):
        found[cell[:4]] = both
        write(found, folder)
    write(found, folder)
    for name in study["tables"]:
        write_table(name, study, [cell for cell in asked if cell[:4] in found], frames, folder / f"{name}.csv.gz")
    return int(len(found) < len(asked))


def is_of(record: Mapping[str, Any], cell: Cell, frames: Frames) -> bool:
    """Whether a stored record is of the run that is asked for. A setting that it does not know had its default."""
    stored = RUN_DEFAULTS | of_method(cell.method, {}) | record["settings"]
    if cell.method in BASES:
        stored["bases"] = {base: DEFAULTS[base] | own for base, own in stored["bases"].items()}
    return record["data"] == frames.fingerprint and stored == experiment.determined(cell.chosen)


def results(folder: Path) -> dict[Place, Measured]:
    """The rows and records that are stored, each under its place in the study."""
    table, records = folder / "runs.csv", folder / "runs.json"
    if not table.exists():
        return {}
    with or_damaged(table, "move it away and run again"), or_damaged(records, "move it away and run again"):
        rows = [
            {name: value for name, value in row.items() if not pd.isna(value)}
            for row in pd.read_csv(table).to_dict("records")
        ]
        stored = json.loads(records.read_text(encoding="utf-8"))
        return {tuple(row[name] for name in KEY): (row, record) for row, record in zip(rows, stored, strict=True)}


def write(found: Mapping[Place, Measured], folder: Path) -> None:
    rows, records = zip(*(found[place] for place in sorted(found)), strict=True)
    with atomic_write(folder / "runs.csv") as aside:
        pd.DataFrame(rows).to_csv(aside, index=False)
    write_json(folder / "runs.json", list(records))


def write_table(
    name: str, study: Mapping[str, Any], done: list[Cell], frames: Mapping[str, Frames], path: Path
) -> None:
    """One of a study's tables: "utterances", of all runs and to four digits, or a measure's, of the first seed's runs.

    Runs whose folders are not here keep the rows that are stored.
    """
    of_all = name == "utterances"
    with or_damaged(path, "move it away and run again"):
        stored = dict(list(pd.read_csv(path).groupby(KEY))) if path.exists() else {}
    tables = []
    for cell in done if of_all else [cell for cell in done if cell.seed == study["seed"][0]]:
        run = Run(experiment.results_folder(cell.chosen) / experiment.run_name(frames[cell.set], cell.chosen))
        if (run.folder / "run.json").exists():
            how = study["evaluation"] if of_all else study["measures"][name]
            rows = (of_utterances if of_all else TABLES[name])(run, frames[cell.set], **how)
            tables.append(pd.DataFrame(dict(zip(KEY, cell, strict=False)) | dict(rows.items())))
        elif cell[:4] in stored:
            tables.append(stored[cell[:4]])
    digits = "%.4g" if of_all else "%.8g"
    with atomic_write(path) as aside:
        pd.concat(tables).to_csv(aside, index=False, float_format=digits, compression={"method": "gzip", "mtime": 0})


def of_utterances(run: Run, frames: Frames, **evaluation) -> pd.DataFrame:
    """What a run's averaged prediction of each utterance of the test part is worth."""
    found = experiment.evaluate(run, frames, **evaluation)
    scores = metrics.utterance_scores(found.probabilities, found.labels).drop(columns="mutual_information")
    scores.insert(0, "utterance", range(len(scores)))
    return scores


if __name__ == "__main__":
    sys.exit(main())
