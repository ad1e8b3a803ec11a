"""The table of a set of runs, as the paper's Table 1, the records of what produced its rows, and differences in it."""

import itertools
import json
from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any

import pandas as pd
from scipy.special import stdtrit

from lib import metrics
from lib.experiment import TABLE, Evaluation, Run, results_folder
from lib.files import atomic_write, exclusive, or_damaged, write_json


def rows_of(evaluations: Mapping[Run, Evaluation]) -> pd.DataFrame:
    """One row a run, as in the paper's Table 1; accuracy in percent."""
    rows = [run.record["settings"] | evaluation.figures for run, evaluation in evaluations.items()]
    return pd.DataFrame(rows)[TABLE].sort_values(["dataset", "method", "seed"], ignore_index=True)


def paired_differences(rows: pd.DataFrame, method: str, reference: str) -> pd.DataFrame:
    """The method's figures less the reference's, seed by seed: mean and 95 % interval (Student's t) over seeds.

    One row a data set and measure; the interval is NaN for a single seed.
    """
    wide = rows.pivot(index=["dataset", "seed"], columns="method", values=["accuracy", "nll", "brier", "ece"])
    differences = wide.xs(method, axis=1, level=1) - wide.xs(reference, axis=1, level=1)
    long = differences.melt(ignore_index=False, var_name="measure").dropna().reset_index()
    found = long.groupby(["dataset", "measure"])["value"].agg(["mean", "sem", "size"])
    half = found["sem"] * stdtrit(found["size"] - 1, 0.975)
    return pd.DataFrame({"difference": found["mean"], "from": found["mean"] - half, "to": found["mean"] + half})


def write(evaluations: Mapping[Run, Evaluation], chosen: Mapping[str, Any]) -> pd.DataFrame:
    """The evaluations' rows; put into ``table1.csv`` in place of those of the same data set, method and seed.

    ``runs.json`` beside it gets the record of each run: what produced the row.
    """
    rows = rows_of(evaluations)
    folder = results_folder(chosen)
    stored, records = folder / "table1.csv", folder / "runs.json"
    new = [
        {"run": run.folder.name, "validation_nll": run.validation_nll}
        | run.record
        | {"evaluation": {name: value for name, value in one.record.items() if name not in ("figures", "run")}}
        for run, one in evaluations.items()
    ]
    with exclusive(stored), exclusive(records):
        with or_damaged(stored, "move it away and run again"):
            kept = [pd.read_csv(stored)] if stored.exists() else []
            if kept and list(kept[0]) != TABLE:
                raise ValueError(f"its columns are not {', '.join(TABLE)}")
        with or_damaged(records, "move it away and run again"):
            known = json.loads(records.read_text(encoding="utf-8")) if records.exists() else []
            of_rows = {itemgetter(*TABLE[:3])(record["settings"]): record for record in known + new}
        merged = pd.concat([*kept, rows]).drop_duplicates(TABLE[:3], keep="last").sort_values(TABLE[:3])
        with atomic_write(stored) as aside:
            merged.to_csv(aside, index=False)
        write_json(records, list(of_rows.values()))
    return rows


def seed_differences(rows: pd.DataFrame, measure: str, pairs: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """For each pair of methods the first one's measure less the second's, with its 95 % interval over seeds.

    ``rows`` have the columns method, seed and the measure, one row for each method and seed. The seeds are those that
    both methods have; the interval is Student's, and NaN for a single seed. Columns: method, reference, difference,
    from, to.
    """
    wide = rows.pivot(index="seed", columns="method", values=measure)
    found = []
    for method, reference in pairs:
        gap = (wide[method] - wide[reference]).dropna()
        half = gap.sem() * stdtrit(len(gap) - 1, 0.975)
        found.append((method, reference, gap.mean(), gap.mean() - half, gap.mean() + half))
    return pd.DataFrame(found, columns=["method", "reference", "difference", "from", "to"])


def utterance_differences(
    scores: pd.DataFrame, measure: str, pairs: Iterable[tuple[str, str]], resamples: int = 10_000
) -> pd.DataFrame:
    """For each pair of methods the first one's measure less the second's, with its 95 % interval over utterances.

    ``scores`` have the columns method, seed, utterance and the measure, of one data set. The seeds are those that both
    methods have; ``metrics.paired_bootstrap`` says what the interval covers. Columns: method, reference, difference,
    from, to.
    """
    wide = scores.pivot(index="seed", columns=["method", "utterance"], values=measure)
    rows = []
    for method, reference in pairs:
        gap = (wide[method] - wide[reference]).dropna().to_numpy()
        rows.append((method, reference, *metrics.paired_bootstrap(gap, resamples, seed=0)))
    return pd.DataFrame(rows, columns=["method", "reference", "difference", "from", "to"])


def rank_correlations(
    networks: pd.DataFrame, predictors: Iterable[str], outcomes: Iterable[str], resamples: int = 2000
) -> pd.DataFrame:
    """Of each predictor with each outcome, over networks, with the 95 % interval over methods.

    ``networks`` have the column method and those that are named, a row for each network; a network that lacks one of
    the two is left out. ``metrics.grouped_rank_correlation`` says what the interval covers. Columns: measure, outcome,
    correlation, from, to.
    """
    rows = []
    for predictor, outcome in itertools.product(predictors, outcomes):
        have = networks.dropna(subset=[predictor, outcome])
        columns = (have[name] for name in (predictor, outcome, "method"))
        rows.append((predictor, outcome, *metrics.grouped_rank_correlation(*columns, resamples, seed=0)))
    return pd.DataFrame(rows, columns=["measure", "outcome", "correlation", "from", "to"])
