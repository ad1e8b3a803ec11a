"""A study's results on disk: a table for each measure, and the records of the runs behind them.

A table has the key columns set, variant, method and seed, then the index of its measure, then the numbers. A record
holds all that determined a run, what it was computed with, and the settings of each measure that was taken of it.
"""

import functools
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib.datasets import picked, sc
from lib.files import atomic_write, exclusive, or_damaged, write_json
from lib.runs import DATA, FIGURES, Evaluation, Run
from lib.setup import Setup
from lib.study import KEY, Key, Study, named
from lib.study.measures import CURVES

RESULTS = DATA / "results"
TABLE1 = ["dataset", "method", "seed", *FIGURES]
REMEDY = "move it away and run again"
# Compressed tables, of many rows, to eight digits.
COMPRESSED = {"float_format": "%.8g", "compression": {"method": "gzip", "compresslevel": 6, "mtime": 0}}


class Results:
    """The stored results of a study; ``put`` changes them, and ``save`` writes what was changed."""

    def __init__(self, study: Study, folder: Path):
        self.study, self.folder = study, folder
        self.records: dict[Key, dict[str, Any]] = {}
        self.tables: dict[str, dict[Key, pd.DataFrame]] = {}
        self.changed: set[str] = set()
        path = folder / "runs.json"
        if path.exists():
            with or_damaged(path, REMEDY):
                self.records = {_key_of(record): record for record in json.loads(path.read_text(encoding="utf-8"))}
            # The trials are of no run.
            for table in sorted({path.name.partition(".")[0] for path in folder.glob("[!.]*.csv*")} - {"trials"}):
                self.tables[table] = dict(list(_read(folder, table, KEY).groupby(KEY, sort=False)))

    def put(self, key: Key, record: dict[str, Any], tables: Mapping[str, pd.DataFrame]) -> None:
        """The record of a run, and tables of it as a measure returns them, in the place of those that are stored."""
        self.records[key] = record
        for name, table in tables.items():
            rows = table.reset_index(drop=table.index.names == [None])
            for place, (column, value) in enumerate(zip(KEY, key, strict=True)):
                rows.insert(place, column, value)
            self.tables.setdefault(name, {})[key] = rows
            self.changed.add(name)

    def drop(self, key: Key) -> None:
        self.records.pop(key, None)
        self.changed |= {name for name, of_runs in self.tables.items() if of_runs.pop(key, None) is not None}

    def save(self) -> None:
        """Write the tables that were changed, and then the records: a record never promises what is not there."""
        for name in self.changed:
            path = self.folder / file_name(name)
            rows = [self.tables[name][key] for key in self._ordered(self.tables[name])]
            if rows:
                table = pd.concat([of_run for of_run in rows if len(of_run)] or rows[:1])
                with atomic_write(path) as aside:
                    table.to_csv(aside, index=False, **(COMPRESSED if path.suffix == ".gz" else {}))
            else:
                path.unlink(missing_ok=True)
        self.changed.clear()
        write_json(self.folder / "runs.json", [self.records[key] for key in self._ordered(self.records)])

    def _ordered(self, keys: Iterable[Key]) -> list[Key]:
        order = self.study.order.values()
        return sorted(keys, key=lambda key: [values.index(one) for values, one in zip(order, key, strict=True)])


def is_curve(table: str) -> bool:
    return table.endswith(CURVES)


def file_name(table: str) -> str:
    return f"{table}.csv.gz" if is_curve(table) or table == "utterances" else f"{table}.csv"


def load(study: str, table: str = "evaluation") -> pd.DataFrame:
    """A table of a study's results, whose set, variant and method are ordered as the study's file orders them."""
    rows, order = _read(RESULTS / study, table), named(study).order
    return rows.astype({name: pd.CategoricalDtype(order[name], ordered=True) for name in KEY[:3] if name in rows})


def utterances(study: str) -> pd.DataFrame:
    """A study's scores of each test utterance, with its ``speaker``.

    Who speaks is taken from the list of a set's recordings, ``SET-recordings.txt``, whose order is the set's. Where no
    list is stored each utterance counts as a speaker, and an interval says nothing of other voices.
    """
    rows = load(study, "utterances")
    rows["speaker"] = rows["utterance"].astype(str)
    for name, of_set in named(study).sets.items():
        listed = RESULTS / f"{Path(of_set.get('data_root', name)).name}-recordings.txt"
        if listed.exists():
            own = rows["set"] == name
            rows.loc[own, "speaker"] = _test_speakers(listed)[rows.loc[own, "utterance"]]
    return rows


def published_difference(dataset: str, measure: str) -> float:
    """IVON's figure in the paper's Table 1 less Adam's: of "hd" or "sc", accuracy in percent, NLL in nats."""
    figures = pd.read_csv(DATA / "published" / "table1.csv").set_index(["dataset", "method"])[measure]
    return float(figures[dataset, "ivon"] - figures[dataset, "map"])


def provenance_of(study: str) -> pd.DataFrame:
    """What a study's records say: a column for each set, variant and method, where seeds that differ share a cell."""
    records, columns = Results(named(study), RESULTS / study).records, {}
    for group in dict.fromkeys(key[:3] for key in records):
        flat = pd.json_normalize([record for key, record in records.items() if key[:3] == group])
        columns[group] = flat.agg(lambda values: ", ".join(dict.fromkeys(map(str, values))))
    table = pd.concat(columns, axis=1, names=KEY[:3]).fillna("–")
    return table.rename(lambda name: name.removeprefix("settings.")).drop(index=["set", "variant", "method"])


def write_table1(evaluations: Mapping[Run, Evaluation], folder: Path) -> pd.DataFrame:
    """The rows of the paper's Table 1, one a run; accuracy in percent.

    They are put into ``table1.csv`` in the place of those of the same data set, method and seed, and into ``runs.json``
    beside it the record of each run: what produced the row. Rows that are not to be compared with these leave it, which
    is said, so that no table has networks of several sizes.
    """
    rows = pd.DataFrame([run.record["settings"] | one.figures for run, one in evaluations.items()])[TABLE1]
    rows, new = rows.sort_values(TABLE1[:3], ignore_index=True), []
    for run, one in evaluations.items():
        evaluation = {name: value for name, value in one.record.items() if name not in ("figures", "run")}
        new.append(
            {"run": run.folder.name, "validation_nll": run.validation_nll} | run.record | {"evaluation": evaluation}
        )
    stored, records = folder / "table1.csv", folder / "runs.json"
    with exclusive(stored), exclusive(records):
        with or_damaged(records, REMEDY):
            known = json.loads(records.read_text(encoding="utf-8")) if records.exists() else []
            before = {_row_of(record): record for record in known}
            now = {_row_of(record): record for record in new}
            left = [row for row in before.keys() - now.keys() if not all(_alike(before[row], one) for one in new)]
        with or_damaged(stored, REMEDY):
            table = pd.read_csv(stored) if stored.exists() else rows[:0]
            if list(table) != TABLE1:
                raise ValueError(f"its columns are not {', '.join(TABLE1)}")
            table = table.set_index(TABLE1[:3], drop=False)
            if strange := [row for row in table.index if row not in before.keys() | now.keys()]:
                raise ValueError(f"of its row {strange[0]} there is no record in {records.name}")
        if left:
            names = ", ".join("-".join(map(str, row)) for row in sorted(left))
            print(f"{names}: trained or evaluated with other settings, and no longer in {stored}.", file=sys.stderr)
        kept = table.drop(index=[row for row in table.index if row in left or row in now])
        merged = pd.concat([one for one in (kept, rows) if len(one)]).sort_values(TABLE1[:3])
        with atomic_write(stored) as aside:
            merged.to_csv(aside, index=False)
        write_json(records, [record for row, record in (before | now).items() if row not in left])
    return rows


@functools.cache
def _test_speakers(listed: Path) -> np.ndarray:
    """The speakers of the official test part of Speech Commands among the recordings that are listed."""
    found = (name.partition("/")[2].partition("_nohash_")[0] for name in picked.listed(listed))
    return np.array([speaker for speaker in found if sc.hashed_part(speaker, 10, 20) == "test"])


def _row_of(record: Mapping[str, Any]) -> tuple[str, str, int]:
    return itemgetter(*TABLE1[:3])(record["settings"])


def _alike(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether the rows of two records may stand in one table: of a data set with the same of all but method and seed.

    Of a method the settings and the samples are the same, too.
    """
    if old["settings"]["dataset"] != new["settings"]["dataset"]:
        return True
    try:
        one, other = ((Setup.from_record(of["settings"]), of["data"], of["evaluation"]) for of in (old, new))
    except ValueError:  # settings of another edition
        return False
    of_all, of_method = (
        [(of.data, of.network, of.training, data, how["bins"]) for of, data, how in (one, other)],
        [(of.method, how["samples"]) for of, _, how in (one, other)],
    )
    return of_all[0] == of_all[1] and (one[0].method.name != other[0].method.name or of_method[0] == of_method[1])


def _key_of(record: Mapping[str, Any]) -> Key:
    settings = record["settings"]
    itemgetter("data", "measures", "machine", "versions", "commit")(record)
    return record["set"], record["variant"], settings["method"], settings["seed"]


def _read(folder: Path, table: str, needed: Sequence[str] = ()) -> pd.DataFrame:
    path = folder / file_name(table)
    with or_damaged(path, REMEDY):
        names = dict.fromkeys(KEY[:3], str)
        rows = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=names)
        rows[list(needed)]
    return rows
