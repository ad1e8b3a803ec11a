"""Whether a study's committed results come out again: runs computed anew, and compared number by number."""

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from lib import provenance
from lib.setup import Setup
from lib.statistics import COVERED, student_intervals
from lib.study import KEY, Cell, Key, Study
from lib.study.engine import Task, fingerprints, measured
from lib.study.measures import TIMES
from lib.study.tables import Results, is_curve

SAME = 1e-6  # relative difference
WITHOUT_ASKING = 600  # seconds of training up to which all runs are verified; of more a tenth
SHOWN = 20
VERDICTS = ["same", "within", "different"]
EXPLANATION = f"""\
same: equal in six digits (relative difference up to {SAME:g}).
within: not the same, but within the stated spread, where this number of one more seed would lie in {COVERED:.0%} of
    cases: from m - w to m + w, with w = t s sqrt(1 + 1/n). Here m and s are mean and standard deviation over the n
    committed seeds of the same set, variant and method, and t is Student's quantile with n - 1 degrees of freedom.
    With three seeds w is 5.0 s, which is wide: it tells a broken computation from a working one, and little more.
different: outside of it. Of one seed there is no spread, and what is not the same is different."""


def verify(study: Study, results: Path, share: float | None = None, scheduler: str | None = None) -> int:
    """Compute a share of a study's runs anew in an empty folder, and print how their numbers compare.

    0 where nothing is different, 1 where something is or a run fails, 2 where nothing can be computed. Raises
    ``ValueError`` for a share that is none, and where there are no results.
    """
    stored = Results(study, results)
    if not stored.records:
        raise ValueError(f"{results} holds no results of {study.name} to verify")
    with TemporaryDirectory() as empty:
        tasks = computable(chosen(stored, share), stored, Path(empty))
        if not tasks:
            return 2
        say_what_it_takes(tasks, stored)
        compared = {
            name: compare(stored, tasks[name].cell.key, tables)
            for name, (_, tables) in measured(tasks, scheduler, Path(empty))
        }
    return report(compared, len(tasks) - len(compared))


def chosen(stored: Results, share: float | None) -> list[Key]:
    """The runs to verify, evenly spread over the records: by default all of a small study, and a tenth of others."""
    keys = [key for key in stored.records if key[0] in stored.study.sets]
    if share is None:
        # The oldest records, of small studies, do not say how long their training took.
        seconds = sum(record.get("seconds", 0.0) for record in stored.records.values())
        share = 1.0 if seconds <= WITHOUT_ASKING else 0.1
    if not 0 < share <= 1:
        raise ValueError(f"share = {share} does not fit: it must be a number above 0 up to 1")
    count = math.ceil(share * len(keys))
    return [keys[index * len(keys) // count] for index in range(count)]


def computable(keys: list[Key], stored: Results, folder: Path) -> dict[str, Task]:
    """The tasks whose recordings are here, by name; sets of which they are not, or are others, are named."""
    setups = {key: Setup.from_record(stored.records[key]["settings"]) for key in keys}
    cells, found = [Cell(*key, setup, stored.study.data_root(key[0])) for key, setup in setups.items()], {}
    prints, unread = fingerprints(cells, folder)
    for cell in cells:
        record, here = stored.records[cell.key], prints.get(cell.key)
        if cell.set not in unread and here != record["data"]:
            unread.add(cell.set)
            print(f"{cell.set}: these are other recordings than the results are of (their fingerprint is {here}, and "
                  f"was {record['data']}; eSpeak NG of another version, or on another processor, says synthetic speech "
                  "otherwise)", file=sys.stderr)  # fmt: skip
        if cell.set not in unread:
            how = {name: settings for name, settings in record["measures"].items() if name not in TIMES}
            found[cell.name] = Task(cell, how, None)
    if len(found) < len(cells):
        print(f"{len(cells) - len(found)} of {len(cells)} runs cannot be computed for want of their recordings, which "
              "data/README.md says how to get.", file=sys.stderr)  # fmt: skip
    return found


def say_what_it_takes(tasks: Mapping[str, Task], stored: Results) -> None:
    records = [stored.records[task.cell.key] for task in tasks.values()]
    known = [record["seconds"] for record in records if "seconds" in record]
    took = f"took {sum(known) / 60:.0f} minutes" if len(known) == len(records) else "took a time that is not recorded"
    names = ", ".join(dict.fromkeys(name for task in tasks.values() for name in task.how))
    print(f"{len(tasks)} of {len(stored.records)} runs are computed anew, whose training {took}, "
          f"and measured: {names}.")  # fmt: skip
    here = provenance.here()
    here["machine"]["threads"] = 1  # a worker's
    for said in sorted({line for record in records for line in elsewhere(record, here)}):
        print(f"Computed with {said}.")
    print(flush=True)


def elsewhere(record: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What a record says of machine, versions and commit, where it is not so here."""
    there = record["machine"] | record["versions"] | {"commit": record["commit"]}
    same = here["machine"] | here["versions"] | {"commit": here["commit"]}
    # Two states of the code that each differ from a commit need not be alike.
    dirty = str(record["commit"]).endswith("-dirty")
    return [
        f"{name} {value} (here {same.get(name)})"
        for name, value in there.items()
        if value != same.get(name) or (name == "commit" and dirty)
    ]


def compare(stored: Results, key: Key, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The stored numbers of a run beside those of its repetition, each with a verdict: same, within or different.

    Rows are compared in their order, and columns that are stored.
    """
    found = {}
    for name, table in tables.items():
        of_runs = stored.tables.get(name, {})
        if is_curve(name) and key not in of_runs:
            continue  # curves are stored of the first seed alone
        index = [column for column in table.index.names if column is not None]
        of_seeds = {seed: numbers(rows, index) for (*group, seed), rows in of_runs.items() if tuple(group) == key[:3]}
        new = numbers(table.reset_index(), index)
        spread = student_intervals(pd.DataFrame(of_seeds).T, one_more=True) if of_seeds else pd.DataFrame()
        both = pd.DataFrame({"committed": of_seeds.get(key[3], new * np.nan), "again": new})
        both = both.join(spread.reindex(columns=["from", "to"]))
        columns = {column for rows in of_runs.values() for column in rows} or set(table)
        both = both[both.index.isin(columns, level="number")].dropna(subset=["committed", "again"], how="all")
        same = np.isclose(both["again"], both["committed"], rtol=SAME, atol=1e-12)
        inside = both["again"].between(both["from"], both["to"])
        found[name] = both.assign(verdict=np.select([same, inside], VERDICTS[:2], VERDICTS[2]))
    return pd.concat(found, names=["table"])


def numbers(rows: pd.DataFrame, index: list[str]) -> pd.Series:
    """The numbers of a run's rows by row and column."""
    values = rows.drop(columns=[*KEY, *index, "index"], errors="ignore").reset_index(drop=True).astype(float)
    return values.stack(future_stack=True).rename_axis(["row", "number"])


def report(compared: Mapping[str, pd.DataFrame], failed: int) -> int:
    """Print how many numbers of each table are how, and those that are different; the exit status."""
    if not compared:
        return 1
    found = pd.concat(compared, names=["run"])
    counts = found.groupby(["table", "verdict"]).size().unstack(fill_value=0).reindex(columns=VERDICTS, fill_value=0)
    print(counts.to_string())
    different = found[found["verdict"] == "different"]
    if len(different):
        print(f"\nDifferent{f', the first {SHOWN}' if len(different) > SHOWN else ''}:")
        print(different.head(SHOWN).drop(columns="verdict").to_string(float_format="{:.8g}".format, na_rep="none"))
    said = ", ".join(f"{number} {verdict}" for verdict, number in counts.sum().items())
    print(f"\nOf {len(found)} numbers of {len(compared)} runs {said}.\n{EXPLANATION}")
    return int(len(different) > 0 or failed > 0)
