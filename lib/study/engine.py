"""Train and measure what a study's stored results lack, on the workers of a Dask cluster."""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from lib import provenance, runs
from lib.setup import Setup
from lib.study import Cell, Key, Study
from lib.study.measures import MEASURES
from lib.study.tables import Results, is_curve
from lib.workers import run_all, workers


class Task(NamedTuple):
    """What is to be measured of a run, and the record to which that is added, where there is one."""

    cell: Cell
    how: Mapping[str, Mapping[str, Any]]
    record: dict[str, Any] | None


def run(study: Study, results: Path, scheduler: str | None = None, folder: Path = runs.DATA) -> int:
    """Measure what the folder ``results`` lacks; the number of cells that still lack something."""
    stored, cells = Results(study, results), study.cells
    for key in stored.records.keys() - {cell.key for cell in cells}:
        stored.drop(key)
    prints, unread = fingerprints(cells, folder)
    tasks = [missing(cell, stored, prints) for cell in cells if cell.set not in unread]
    tasks = {task.cell.name: task for task in tasks if task.how}
    gone = [task for task in tasks.values() if task.record and not is_stored(task.cell, prints, folder)]
    if gone:
        names = ", ".join(dict.fromkeys(name for task in gone for name in task.how))
        print(f"{len(gone)} runs are trained again to measure {names}: their folders are not in {folder / 'runs'}.")
    for name, (record, tables) in measured(tasks, scheduler, folder):
        cell = tasks.pop(name).cell
        wanted = {table: rows for table, rows in tables.items() if not is_curve(table) or cell.seed == study.seed[0]}
        stored.put(cell.key, record, wanted)
        stored.save()
    if stored.changed:
        stored.save()
    return len(tasks) + sum(cell.set in unread for cell in cells)


def fingerprints(cells: list[Cell], folder: Path) -> tuple[dict[Key, str], set[str]]:
    """Of each cell the fingerprint of its recordings, and the sets that cannot be read, which it names.

    Features are extracted here, once, before workers want them.
    """
    prints, unread, of_data = {}, set(), {}
    for cell in cells:
        data = f"{cell.set}: {cell.setup.data} in {cell.data_root}"
        try:
            if cell.set not in unread and data not in of_data:
                of_data[data] = cell.place(folder).frames(cell.setup).fingerprint
        except (OSError, ValueError) as error:
            unread.add(cell.set)
            print(f"{cell.set}: {error}", file=sys.stderr)
        if data in of_data:
            prints[cell.key] = of_data[data]
    return prints, unread


def missing(cell: Cell, stored: Results, prints: Mapping[Key, str]) -> Task:
    """What is yet to be measured of a cell: what its record lacks, or has with other settings.

    The record and the numbers of another run are dropped.
    """
    record, measures = stored.records.get(cell.key), stored.study.measures
    if record and (record["data"] != prints[cell.key] or not is_of(record, cell.setup)):
        stored.drop(cell.key)
        record = None
    had = {name: how for name, how in record["measures"].items() if name in stored.tables} if record else {}
    return Task(cell, {name: how for name, how in measures.items() if had.get(name) != how}, record)


def is_of(record: Mapping[str, Any], setup: Setup) -> bool:
    """Whether a stored record is of this run; of settings that were added since, it has those before them."""
    return Setup.from_record(record["settings"]).record() == setup.record()


def is_stored(cell: Cell, prints: Mapping[Key, str], folder: Path) -> bool:
    return (folder / "runs" / cell.setup.name_of(prints[cell.key]) / "run.json").exists()


def measured(tasks: Mapping[str, Task], scheduler: str | None, folder: Path) -> Iterator[tuple[str, tuple]]:
    return on_workers(measure, {name: (task, folder) for name, task in tasks.items()}, scheduler, folder)


def on_workers(
    work: Callable, tasks: Mapping[str, tuple], scheduler: str | None, folder: Path
) -> Iterator[tuple[str, Any]]:
    """Names, and what ``work(*arguments)`` returns, as tasks end; one that fails is named, and the others go on.

    Each worker must see ``folder``.
    """
    if not tasks:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with workers(scheduler, len(tasks)) as client:
        for name, outcome in run_all(client, work, tasks, shared=folder):
            if not outcome.failure:
                yield name, outcome.value


def measure(task: Task, folder: Path) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """Train a run, or find it done, and measure it: the record, and the tables by their names.

    A record's own provenance is its training's; ``later`` has that of measures that other code took.
    """
    cell, tables, place = task.cell, {}, task.cell.place(folder)
    frames = place.frames(cell.setup)
    run = runs.train(cell.setup, frames, folder / "runs")
    for name, settings in task.how.items():
        found = MEASURES[name](run, frames, place, **settings)
        tables |= {name: found} if isinstance(found, pd.DataFrame) else found
    record = task.record or {"set": cell.set, "variant": cell.variant, "run": run.folder.name} | run.record
    here, later = provenance.here(), record.get("later", {})
    if task.record or run.record["commit"] != here["commit"]:
        later = later | dict.fromkeys(task.how, here)
    record = record | {"measures": record.get("measures", {}) | task.how}
    return record | ({"later": later} if later else {}), tables
