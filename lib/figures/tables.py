"""Numbers as text: means over seeds, differences with their intervals, and Table 1."""

from collections.abc import Mapping

import pandas as pd

from lib.figures.style import label
from lib.statistics import decimals

# The columns of Table 1, with the paper's headings and digits.
TABLE1 = {"accuracy": ("Accuracy (%)", ".2f"), "nll": ("NLL", ".4f"), "ece": ("ECE", ".4f")}
TABLE1 |= {"entropy": ("Entropy", ".4f"), "mutual_information": ("MI", ".4f"), "brier": ("Brier", ".4f")}
NOTHING = "\N{EN DASH}"


def table1(ours: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Table 1 as text: our mean ± sample standard deviation over seeds, then the published figures.

    Both have the columns dataset, method and those of ``TABLE1``, accuracy in percent, with NaN where nothing is
    reported; ``ours`` has a row for each seed. The index tells the data set, the method and where the figures are from.
    """
    seeds = ours.groupby(["dataset", "method"])["method"].transform("size")
    origin = "here, " + seeds.astype(str) + " seed" + seeds.gt(1).map({True: "s", False: ""})
    both = pd.concat([ours.assign(origin=origin), published.assign(origin="published")])
    return mean_table(both, TABLE1, ["dataset", "method", "origin"])


def mean_table(
    rows: pd.DataFrame,
    measures: Mapping[str, str | tuple[str, str]],
    index: str | list[str] = "method",
    columns: str | None = None,
) -> pd.DataFrame:
    """Mean ± sample standard deviation over seeds, as text: a row for each value of the ``index``.

    ``measures`` maps columns of ``rows`` to a heading, with two digits of the deviation, or to a heading and a format
    such as ".0f" where others are wanted; with ``columns`` each has a column for each value of that one. What is NaN
    shows as a dash.
    """
    groups = rows.groupby([*_listed(index), *_listed(columns)], sort=False, observed=True)
    told = {one: (said, _form(groups[one].std())) if isinstance(said, str) else said for one, said in measures.items()}
    cells = [groups[one].agg(mean_std, form=form) for one, (_, form) in told.items()]
    headings = [heading for heading, _ in told.values()]
    if columns is None:
        return _plain(pd.concat(cells, axis=1).set_axis(headings, axis=1))
    cells = [column.unstack(columns, sort=False) for column in cells]
    return _plain(cells[0] if len(cells) == 1 else pd.concat(cells, axis=1, keys=headings))


def interval_table(
    rows: pd.DataFrame,
    index: str | list[str] = "method",
    columns: str | None = None,
    value: str = "difference",
) -> pd.DataFrame:
    """Differences with their intervals as text, such as "0.012 (0.004, 0.020)": a row for each value of the ``index``.

    ``rows`` have the columns ``value``, from and to; there is a column for each value of ``columns``, with two digits
    of half its intervals. What is NaN shows as a dash, and a difference without an interval stands alone.
    """
    found = rows.set_index([*_listed(index), *_listed(columns)])[[value, "from", "to"]]
    half = (found["to"] - found["from"]) / 2
    of_columns = half.groupby(columns, sort=False, observed=True).transform(_form) if columns else None
    forms = [_form(half)] * len(half) if columns is None else of_columns
    numbers = zip(found.to_numpy(float), forms, strict=True)
    texts = pd.Series([_interval(*three, form) for three, form in numbers], found.index, dtype=object)
    return _plain(texts.to_frame(value) if columns is None else texts.unstack(columns, sort=False))


def mean_std(values: pd.Series, form: str) -> str:
    """Mean ± sample standard deviation, without the latter where there is one value; a dash where one is NaN."""
    if values.isna().any():
        return NOTHING
    return f"{values.mean():{form}}" + (f" ± {values.std():{form}}" if len(values) > 1 else "")


def _interval(difference: float, low: float, high: float, form: str) -> str:
    if pd.isna(difference):
        return NOTHING
    written = f"{difference:{form}}" + ("" if pd.isna(low) else f" ({low:{form}}, {high:{form}})")
    return written.replace("-", "\N{MINUS SIGN}")


def _form(errors: pd.Series) -> str:
    return f".{decimals(*errors)}f"


def _listed(names: str | list[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else names or []


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """With the methods' labels, a dash where there is nothing, and no names above rows and columns."""
    table = table.fillna(NOTHING).rename(index=label, columns=label)
    return table.rename_axis(index=[None] * table.index.nlevels, columns=[None] * table.columns.nlevels)
