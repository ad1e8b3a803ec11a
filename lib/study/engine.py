"""Train and measure what a study's stored results lack, on the workers of a Dask cluster."""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from lib import provenance, runs
from lib.setup import Setup
from lib.study.grid import Cell, Key, Study
from lib.study.measures import MEASURES
from lib.study.tables import Results, is_curve
from lib.workers import run_all, workers

How = Mapping[str, Mapping[str, Any]]


class Task(NamedTuple):
    """What is to be measured of a run, and the record to which that is added, where there is one."""

    cell: Cell
    how: How
    record: dict[str, Any] | None


def run(study: Study, results: Path, scheduler: str | None = None, folder: Path = runs.DATA) -> int:
    """Measure what the folder ``results`` lacks; the number of cells that still lack something."""
    stored, cells = Results(study, results), study.cells
    for key in stored.records.keys() - {cell.key for cell in cells}:
        stored.drop(key)
    prints, unread = fingerprints(cells, folder)
    tasks = {
        name_of(cell): task for cell in cells if cell.set not in unread and (task := missing(cell, stored, prints))
    }
    say_what_is_trained_again(tasks.values(), prints, folder)
    work = {name: (task, folder) for name, task in tasks.items()}
    for name, (record, tables) in on_workers(measure, work, scheduler, folder):
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
    of_data: dict[str, str] = {}
    prints, unread = {}, set()
    for cell in cells:
        data = f"{cell.set}: {cell.setup.data} in {cell.data_root}"
        try:
            if cell.set not in unread and data not in of_data:
                of_data[data] = cell.place(folder).frames(cell.setup).fingerprint
        except (OSError, ValueError) as error:
            unread.add(cell.set)
            print(f"{cell.set}: {error}", file=sys.stderr)
        if cell.set not in unread:
            prints[cell.key] = of_data[data]
    return prints, unread


def missing(cell: Cell, stored: Results, prints: Mapping) -> Task | None:
    """What is yet to be measured of a cell: what its record lacks, or has with other settings.

    The record and the numbers of another run are dropped.
    """
    how, record = dict(stored.study.measures), stored.records.get(cell.key)
    if record is not None and (record["data"] != prints[cell.key] or not is_of(record, cell.setup)):
        stored.drop(cell.key)
        record = None
    if record is not None:
        measured = {name: settings for name, settings in record["measures"].items() if name in stored.tables}
        how = {name: settings for name, settings in how.items() if measured.get(name) != settings}
    return Task(cell, how, record) if how else None


def is_of(record: Mapping[str, Any], setup: Setup) -> bool:
    """Whether a stored record is of this run; of settings that were added since, it has those before them."""
    return Setup.from_record(record["settings"]).record() == setup.record()


def say_what_is_trained_again(tasks: Collection[Task], prints: Mapping, folder: Path) -> None:
    gone = [
        task
        for task in tasks
        if task.record and not (folder / "runs" / task.cell.setup.name_of(prints[task.cell.key]) / "run.json").exists()
    ]
    if gone:
        names = ", ".join(dict.fromkeys(name for task in gone for name in task.how))
        print(f"{len(gone)} runs are trained again to measure {names}: their folders are not in {folder / 'runs'}.")


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
    """Train a run, or find it done, and measure it: the record, and the tables by their names."""
    cell, tables = task.cell, {}
    place = cell.place(folder)
    frames = place.frames(cell.setup)
    run = runs.train(cell.setup, frames, folder / "runs")
    for name, settings in task.how.items():
        found = MEASURES[name](run, frames, place, **settings)
        tables |= {name: found} if isinstance(found, pd.DataFrame) else found
    record = {"set": cell.set, "variant": cell.variant, "run": run.folder.name} | run.record
    if task.record is None:
        return record | {"measures": dict(task.how)}, tables
    later = task.record.get("later", {}) | dict.fromkeys(task.how, provenance.here())
    return task.record | {"measures": task.record["measures"] | task.how, "later": later}, tables


def name_of(cell: Cell) -> str:
    return ", ".join(map(str, cell.key))
