"""What produced the book's numbers, and whether a committed result comes out again: number by number.

    python -m lib.verification synthetic --method ivon --seed 1

The exit status is 0 where nothing is different, 1 where something is, 2 where nothing could be verified.
"""

import argparse
import ast
import json
import re
import sys
from collections.abc import Collection, Mapping
from fnmatch import fnmatch
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from IPython.core.inputtransformer2 import TransformerManager
from scipy import special

from lib import experiment, provenance, synthesis, tables
from lib.features import Frames

KEY = experiment.TABLE[:3]  # data set, method, seed: what names a run within a result
EVALUATION = {"samples": 16, "bins": 15}  # the notebooks' defaults, for a record that does not say
RECORD = ("settings", "data", "versions", "commit", "machine", "validation_nll")  # without which none is one
SAME = 1e-6  # relative difference
COVERED = 0.95

EXPLANATION = f"""\
same: equal in six digits (relative difference up to {SAME:g}).
within: not the same, but within the stated spread, where this number of one more seed would lie in {COVERED:.0%} of
    cases: from m - w to m + w, with w = t s sqrt(1 + 1/n). Here m and s are mean and standard deviation over the n
    committed seeds of the same data set and method, and t is Student's quantile with n - 1 degrees of freedom.
    With three seeds w is 5.0 s, which is wide: it tells a broken computation from a working one, and little more.
different: outside of it. Of one seed there is no spread, and what is not the same is different."""

Key = tuple[str, str, int]


def results() -> dict[str, tuple[Path, Path]]:
    """The committed results by name: the table, and the records of the runs behind it."""
    records = sorted((experiment.DATA / "results").glob("*-runs.json"))
    names = [path.name.removesuffix("-runs.json") for path in records]
    return {name: (path.with_name(f"{name}.csv"), path) for name, path in zip(names, records, strict=True)}


def read(table: Path, records: Path) -> tuple[pd.DataFrame, dict[Key, dict[str, Any]]]:
    """The numbers of a result, a row a run and a column a measure, and the record of each run.

    Raises ValueError where the files are not such a table and its records.
    """
    try:
        stored = json.loads(records.read_text(encoding="utf-8"))
        of_run = {tuple(record["settings"][name] for name in KEY): record for record in stored}
        for record in stored:
            itemgetter(*RECORD)(record)
        numbers = pd.read_csv(table)[experiment.TABLE].set_index(KEY).astype(float)
        numbers["validation_nll"] = [float(of_run[run]["validation_nll"]) for run in numbers.index]
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{table} and {records.name} are not a table and the records of its rows ({reason})."
        ) from error
    return numbers, of_run


def spreads(numbers: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """From where to where each number is within its spread (EXPLANATION); NaN where there is one seed."""
    groups = numbers.groupby(KEY[:2])
    seeds = groups["nll"].transform("size")
    quantile = special.stdtrit((seeds - 1).where(seeds > 1), (1 + COVERED) / 2)
    centre, half = groups.transform("mean"), groups.transform("std").mul(quantile * np.sqrt(1 + 1 / seeds), axis=0)
    return centre - half, centre + half


def compare(committed: pd.Series, again: pd.Series, low: pd.Series, high: pd.Series) -> pd.DataFrame:
    """The numbers of one run beside those of its repetition, each with a verdict: same, within or different."""
    same = np.isclose(again, committed, rtol=SAME, atol=1e-12)
    verdict = np.where(same, "same", np.where((low <= again) & (again <= high), "within", "different"))
    return pd.DataFrame({"committed": committed, "again": again, "from": low, "to": high, "verdict": verdict})


def elsewhere(record: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What a record says of machine, versions and commit, where it is not so here."""
    said = [
        f"{name} {value} (here {here[part].get(name)})"
        for part in ("machine", "versions")
        for name, value in record[part].items()
        if value != here[part].get(name)
    ]
    # Two states of the code that each differ from a commit need not be alike.
    if record["commit"] != here["commit"] or str(record["commit"]).endswith("-dirty"):
        said.append(f"commit {record['commit']} (here {here['commit']})")
    return said


def frames_of(result: str, record: Mapping[str, Any], data_root: Path | None, cache: Path) -> Frames:
    """The features of the recordings that a run was trained on, extracted anew.

    Raises:
        FileNotFoundError: if the recordings are not there; synthetic ones are made.
        ValueError: if there are others.
    """
    dataset = record["settings"]["dataset"]
    synthetic = dataset in synthesis.DEFAULT_UTTERANCES
    folders = dict.fromkeys((experiment.DATA / result, experiment.DATA / dataset))
    root = data_root or next(filter(Path.is_dir, folders), None)
    if root is None and not synthetic:
        raise FileNotFoundError(
            f"The recordings of {result!r} are not in {' or '.join(f'data/{folder.name}' for folder in folders)}: get "
            "them as data/README.md says, or name their folder with --data-root."
        )
    speech = experiment.load_speech(record["settings"] | {"data_root": root}, dataset)
    if (fingerprint := speech.fingerprint()) != record["data"]:
        advice = (
            "eSpeak NG of another version, or on another processor, says it otherwise"
            if synthetic
            else "name the folder of the result's own data with --data-root"
        )
        raise ValueError(
            f"{speech.root} holds other data than {result!r} was computed from: the fingerprint is {fingerprint}, "
            f"and the record says {record['data']}; {advice}."
        )
    return experiment.frames_of(speech, record["settings"], cache)


def repeat(record: Mapping[str, Any], frames: Frames, folder: Path) -> pd.Series:
    """Train and evaluate a run anew in an empty folder; its numbers, read as those of a committed result are."""
    chosen = record["settings"] | {"results_root": folder}
    run = experiment.train(frames, chosen)
    how = {name: record.get("evaluation", EVALUATION)[name] for name in EVALUATION}
    tables.write({run: experiment.evaluate(run, frames, **how)}, chosen)
    return read(folder / "table1.csv", folder / "runs.json")[0].iloc[0]


def chosen_runs(result: str, numbers: pd.DataFrame, methods: Collection[str], seeds: Collection[int]) -> list[Key]:
    """The runs of these methods and seeds, of all where none are named; ValueError if there are none such."""
    chosen = [run for run in numbers.index if run[1] in (methods or [run[1]]) and run[2] in (seeds or [run[2]])]
    if not chosen:
        there = ", ".join(" ".join(map(str, run)) for run in numbers.index)
        raise ValueError(f"{result!r} has no run of these methods and seeds; its runs are {there}.")
    return chosen


def verify(
    result: str, methods: Collection[str] = (), seeds: Collection[int] = (), data_root: Path | None = None
) -> pd.DataFrame:
    """Repeat the runs of a result one after the other, and print of each how its numbers compare; all comparisons.

    All the data are looked at before the first training. Raises ValueError or OSError where the result cannot be
    verified, FloatingPointError where a training diverges.
    """
    if result not in results():
        raise ValueError(f"No result is called {result!r}; those in data/results are {', '.join(results())}.")
    numbers, records = read(*results()[result])
    chosen, compared = chosen_runs(result, numbers, methods, seeds), {}
    low, high = spreads(numbers)
    with TemporaryDirectory() as folder:
        frames = {run: frames_of(result, records[run], data_root, Path(folder, "features")) for run in chosen}
        for count, run in enumerate(chosen, start=1):
            # The order in which numbers are added up depends on it.
            torch.set_num_threads(records[run]["machine"].get("threads", torch.get_num_threads()))
            name = " ".join(map(str, run))
            said = ", ".join(elsewhere(records[run], provenance.here())) or "what is here"
            print(f"\n{count} of {len(chosen)}: {name}, computed with {said}", flush=True)
            again = repeat(records[run], frames[run], Path(folder, name))
            compared[run] = compare(numbers.loc[run], again, low.loc[run], high.loc[run])
            print(compared[run].to_string(float_format="{:.6g}".format, na_rep="none"), flush=True)
    return pd.concat(compared, names=KEY)


def runs_of(records: Mapping[Key, Mapping[str, Any]]) -> pd.DataFrame:
    """All that records say of runs: a column for each data set and method, where seeds that differ share a cell."""
    columns = {}
    for group in sorted({run[:2] for run in records}):
        flat = pd.json_normalize([records[run] for run in sorted(records) if run[:2] == group])
        columns[group] = flat.agg(lambda values: ", ".join(dict.fromkeys(map(str, values))))
    table = pd.concat(columns, axis=1, names=KEY[:2]).fillna("–")
    return table.rename(lambda name: name.removeprefix("settings.")).drop(index=KEY[:2])


def figures_of(book: Path) -> pd.DataFrame:
    """The figures and tables that the notebooks of a folder show, and what each notebook takes its numbers from.

    Columns: notebook, shows ("figure" or "table"), what (a figure's caption, the heading above a table), data.
    """
    rows = []
    for path in sorted(book.glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        data = ", ".join(data_of([cell for cell in cells if cell["cell_type"] == "code"])) or "none"
        heading = ""
        for cell in cells:
            if cell["cell_type"] != "code":
                heading = [heading, *re.findall(r"^#+ (.+)$", "".join(cell["source"]), re.MULTILINE)][-1]
                continue
            if figure := cell["metadata"].get("mystnb", {}).get("figure"):
                caption = re.sub(r"{glue:text}`(\w+)[^`]*`", r"[\1]", figure["caption"])
                rows.append((path.stem, "figure", caption, data))
            html = ("".join(output.get("data", {}).get("text/html", "")) for output in cell["outputs"])
            if any("<table" in text for text in html):
                rows.append((path.stem, "table", heading, data))
    return pd.DataFrame(rows, columns=["notebook", "shows", "what", "data"])


def data_of(cells: Collection[Mapping[str, Any]]) -> list[str]:
    """The synthetic sets and the tables in data/ that a notebook's code names, in its strings."""
    named = set()
    for cell in cells:
        for node in ast.walk(ast.parse(TransformerManager().transform_cell("".join(cell["source"])))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named.add(node.value)
            elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
                named.add("".join(part.value if isinstance(part, ast.Constant) else "*" for part in node.values))
    tables = sorted(path.relative_to(experiment.DATA) for path in experiment.DATA.glob("*/*.csv"))
    read = [
        f"data/{path.as_posix()}"
        for path in tables
        if any(path.stem == name or fnmatch(path.name, name) for name in named)
    ]
    studies = sorted(path.relative_to(experiment.DATA) for path in experiment.DATA.glob("results/*/*.csv*"))
    read += [f"data/{path.as_posix()}" for path in studies if {path.name, path.parent.name} <= named]
    return [*sorted(named & synthesis.DEFAULT_UTTERANCES.keys()), *read]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m lib.verification", description="Verify a committed result.")
    parser.add_argument("result", help="the name of a table in data/results, such as synthetic")
    parser.add_argument("--data-root", type=Path, help="the folder that holds the data set's own layout")
    parser.add_argument("--method", nargs="+", default=(), help="fewer methods than all")
    parser.add_argument("--seed", nargs="+", type=int, default=(), help="fewer seeds than all")
    options = parser.parse_args(arguments)
    try:
        verdicts = verify(options.result, options.method, options.seed, options.data_root)["verdict"].tolist()
    except KeyboardInterrupt:
        print("Interrupted: nothing is kept of what was computed.", file=sys.stderr)
        return 130
    except FloatingPointError as error:
        print(f"Different: the {error}.", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in ("same", "within", "different"))
    print(f"\nOf {len(verdicts)} numbers {counts}.\n{EXPLANATION}")
    return int("different" in verdicts)


if __name__ == "__main__":
    sys.exit(main())
