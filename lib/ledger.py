"""The ledger of claims: what the stored results say of the paper, as data from which pages take numbers and words.

    python -m lib.ledger    # writes data/results/claims.csv and the findings in README.md anew

``book/claims.yml`` holds the words. Under ``numbers`` it says from which study's table each number comes, and how;
nobody types one. Its sentences name the numbers in braces, and ``when`` says for which of their signs the words were
written: of alternatives the first that fits is shown, and where none does the page says that it wants a human.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import Markdown

from lib import statistics
from lib.files import atomic_write
from lib.runs import DATA
from lib.settings import read_yaml
from lib.study import tables

ROOT = DATA.parent
HUMAN = "This wants a human"
OBSERVED = ("seed", "utterance", "speaker")
BETWEEN = re.compile(r"(?s)(?<=<!-- findings -->\n).*?(?=<!-- end of the findings -->)")


@dataclass(frozen=True)
class Number:
    """What one number is and where it comes from; its values are computed when they are asked for.

    The rows are those of a study's ``table`` for which ``where`` holds, less, with ``less``, those of the same method
    and seed for which that holds, and with ``less_study`` those of another study. Of ``pair`` the first method is
    compared with the second, as their difference or, with ``ratio``, as how many times the second the first is, and in
    the mean over the column ``over``; without a pair it is the mean of ``method``, or with ``against`` (a table and its
    measure) the rank correlation with that over networks. Where ``speakers`` names a column, each of its values is a
    speaker. Without effect it is ``nothing``; ``paper`` names the data set of the paper's own difference.
    """

    name: str
    what: str
    study: str
    measure: str
    table: str = "evaluation"
    where: str = ""
    less: str = ""
    less_study: str = ""
    pair: Sequence[str] | None = None
    ratio: bool = False
    over: str = ""
    method: str = ""
    against: Sequence[str] | None = None
    speakers: str = ""
    nothing: float = 0.0
    unit: str = ""
    paper: str = ""

    @cached_property
    def rows(self) -> pd.DataFrame:
        kept = self._those(self.study, self.where)
        if self.less or self.less_study:
            same = ["method", *kept.columns.intersection(OBSERVED)]
            from_them = self._those(self.less_study or self.study, self.less).set_index(same)[self.measure]
            kept = kept.set_index(same)
            kept = kept.assign(**{self.measure: kept[self.measure] - from_them}).reset_index()
        if self.speakers:
            kept = kept.assign(utterance=kept[self.speakers], speaker=kept[self.speakers])
        return kept

    def _those(self, study: str, where: str) -> pd.DataFrame:
        rows = tables.utterances(study) if self.table == "utterances" else tables.load(study, self.table)
        return rows.query(where) if where else rows

    @cached_property
    def values(self) -> tuple[float, float, float]:
        """The effect, and both ends of its 95 % interval. Raises ``ValueError`` where the rows hold none."""
        if self.against:
            table, measure = self.against
            others = tables.load(self.study, table).sort_values("samples")
            others = others.drop_duplicates(["method", "seed"], keep="last")
            networks = self.rows.merge(others, on=["method", "seed"])
            found = statistics.rank_correlations(networks, [measure], [self.measure])
            found = found.rename(columns={"correlation": "difference"})
        elif self.pair:
            pairs = {self.name: tuple(self.pair)}
            compare = statistics.ratios if self.ratio else statistics.differences
            if self.over:
                found = statistics.pooled(self.rows, self.measure, pairs, self.over)
            else:
                found = compare(self.rows, self.measure, pairs)
        else:
            of = self.rows[self.rows["method"] == self.method]
            of = of.groupby([*of.columns.intersection(OBSERVED)])[[self.measure]].mean().reset_index()
            beside_nothing = pd.concat([of.assign(method="it"), of.assign(method="nothing", **{self.measure: 0.0})])
            found = statistics.differences(beside_nothing, self.measure, {self.name: ("it", "nothing")})
        if len(found) != 1 or found[["difference", "from", "to"]].isna().any(axis=None):
            raise ValueError(f"claims.yml: the tables of '{self.study}' hold no '{self.name}' with an interval")
        return tuple(map(float, found[["difference", "from", "to"]].iloc[0]))

    @property
    def sign(self) -> str:
        _, low, high = self.values
        return "below" if high < self.none else "above" if low > self.none else "none"

    @property
    def none(self) -> float:
        return 1.0 if self.ratio else self.nothing

    @property
    def of_paper(self) -> float:
        """The paper's own difference, or NaN."""
        return tables.published_difference(self.paper, self.measure) if self.paper else float("nan")

    @property
    def excluded(self) -> bool:
        """Whether the paper's difference lies outside of the interval."""
        _, low, high = self.values
        return not low <= self.of_paper <= high

    @property
    def effect(self) -> str:
        return self._written(self.values[0])

    @property
    def interval(self) -> str:
        return " to ".join(map(self._written, self.values[1:]))

    @property
    def inside(self) -> str:
        """As it is written where parentheses are already around it."""
        return f"{self.effect}{self._of}, {self.interval}"

    @property
    def published(self) -> str:
        return f"{self.of_paper:.3f}".replace("-", "−") if self.paper else "–"

    @property
    def verb(self) -> str:
        return "excludes" if self.excluded else "does not exclude"

    @property
    def commits(self) -> list[str]:
        """Those that trained the networks, and those that measured this table on networks which were there."""
        paths = [tables.RESULTS / study / "runs.json" for study in (self.study, self.less_study) if study]
        records = [one for path in paths for one in json.loads(path.read_text(encoding="utf-8"))]
        later = [one for of in records for one in of.get("later", {}).items() if self.table.startswith(one[0])]
        return sorted({of["commit"] for of in records} | {of["commit"] for _, of in later})

    def __str__(self) -> str:
        return f"{self.effect}{self._of} ({self.interval})"

    @property
    def _of(self) -> str:
        return f" {self.unit}" if self.unit else " times" if self.ratio else ""

    def _written(self, value: float) -> str:
        """With two digits of half the interval, and a minus that is one."""
        return f"{value:.{statistics.decimals((self.values[2] - self.values[1]) / 2)}f}".replace("-", "−")


@dataclass(frozen=True)
class Claim:
    """One of the paper's claims in our own words, the number that tests it, and what each of its signs means."""

    claim: str
    number: str
    verdicts: Mapping[str, str]
    where: str
    paper: str = ""


@cache
def words(path: Path = ROOT / "book" / "claims.yml") -> dict[str, Any]:
    """What ``claims.yml`` says. Raises ``ValueError`` for a name that the ledger does not know."""
    said = read_yaml(path)
    for kind, known in (("numbers", Number), ("claims", Claim)):
        for name, one in said[kind].items():
            if strange := one.keys() - {field.name for field in fields(known)}:
                raise ValueError(f"{path.name}: {name} says '{min(strange)}', which the ledger does not know")
    return said


@cache
def number(name: str) -> Number:
    numbers = words()["numbers"]
    if name not in numbers:
        raise ValueError(f"claims.yml has no number '{name}'; it has {', '.join(numbers)}")
    return Number(name, **numbers[name])


def claims() -> dict[str, Claim]:
    return {name: Claim(**one) for name, one in words()["claims"].items()}


def named(text: str) -> list[str]:
    """The numbers that a sentence names in braces; double ones are a role's own."""
    return list(dict.fromkeys(re.findall(r"(?<!{){(\w+)", text)))


def say(sentence: str | list[dict[str, Any]]) -> str:
    """A sentence with its numbers: of its alternatives the first whose numbers have the signs that it was written for.

    Where there is none the sentence is that a human is wanted, with the numbers as they are.
    """
    if isinstance(sentence, str):
        return sentence
    for one in sentence:
        if all(number(name).sign in np.atleast_1d(signs) for name, signs in one.get("when", {}).items()):
            return one["say"].format(**{name: number(name) for name in named(one["say"])})
    now = {name: number(name) for name in sentence[0]["when"]}
    return f"**{HUMAN}**: " + "; ".join(f"{name} is now {one}, {one.sign}" for name, one in now.items()) + "."


def answer(chapter: str) -> Markdown:
    """What a chapter opens with; a sentence that begins in bold begins a paragraph."""
    first, *others = [say(sentence).strip() for sentence in words()["answers"][chapter]]
    others = [("\n\n" if one.startswith("**") else " ") + one for one in others]
    return Markdown("".join([f"**The answer here.** {first}", *others]))


def verdict(claim: Claim) -> str:
    return claim.verdicts.get(number(claim.number).sign, HUMAN)


def cards() -> Markdown:
    """The first page's cards: each claim with its verdict, one number and the paper's; then what was not tested."""
    lines = ["::::{grid} 1 2 3 3", ":gutter: 2", ":class-container: claims", ""]
    for claim in claims().values():
        tested = number(claim.number)
        lines += [f":::{{grid-item-card}} {verdict(claim)}", f":link: {claim.where}", ":link-type: doc", ""]
        lines += [f"*{claim.claim}*", "", f"**{tested}**", "", f"{tested.what}. Paper: {paper(claim)}", ":::", ""]
    lines += [":::{grid-item-card} What was not tested", "", words()["not tested"], ":::", "::::"]
    return Markdown("\n".join(lines))


def paper(claim: Claim) -> str:
    """What the paper has for it: its own number, and whether ours excludes that, or a few words."""
    tested = number(claim.number)
    return claim.paper or f"{tested.published}, {'outside' if tested.excluded else 'inside'} this interval"


def points(chapter: str) -> Markdown:
    """A chapter's sentences as a numbered list."""
    return Markdown("\n".join(f"1. {say(sentence).strip()}" for sentence in words()["answers"][chapter]))


def forest(page: str) -> pd.DataFrame:
    """The rows of a page's picture, with the paper's own values in the column ``published``."""
    rows = [(what, *number(name).values, number(name).of_paper) for name, what in words()["forests"][page].items()]
    return pd.DataFrame(rows, columns=["what", "difference", "from", "to", "published"])


def findings() -> str:
    """The claims as a table in Markdown, and the first page's answer, for README.md."""
    lines = ["| the paper's claim | found here | in numbers (95 % interval) | the paper |", "| --- | --- | --- | --- |"]
    for claim in claims().values():
        tested = number(claim.number)
        page = f"book/{claim.where}.ipynb"
        lines.append(f"| {claim.claim} | [{verdict(claim)}]({page}) | {tested}: {tested.what} | {paper(claim)} |")
    return "\n".join([*lines, "", *map(say, words()["answers"]["intro"])]) + "\n"


def table() -> pd.DataFrame:
    """The ledger: a row for each number, with the claim that it tests, if any, its verdict, study and commits."""
    claimed = {claim.number: {"claim": name, "verdict": verdict(claim)} for name, claim in claims().items()}
    rows = []
    for one in map(number, words()["numbers"]):
        found = dict(zip(("effect", "from", "to"), one.values, strict=True))
        of = {"number": one.name, "what": one.what} | claimed.get(one.name, {"claim": "", "verdict": ""})
        told = {"sign": one.sign, "paper": one.of_paper, "unit": one.unit, "study": one.study}
        rows.append(of | found | told | {"commits": " ".join(one.commits)})
    return pd.DataFrame(rows)


def wanting() -> list[str]:
    """What wants a human: where a number has another sign than all that the words were written for."""
    answers = [(chapter, say(one)) for chapter, said in words()["answers"].items() for one in said]
    verdicts = [(name, f"{verdict(one)}: {number(one.number)}") for name, one in claims().items()]
    return [f"{where}: {said}" for where, said in answers + verdicts if HUMAN in said]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m lib.ledger", description="Write what is found into its places.")
    parser.parse_args(arguments)
    readme = ROOT / "README.md"
    try:
        with atomic_write(tables.RESULTS / "claims.csv") as aside:
            table().to_csv(aside, index=False, float_format="%.6g")
        with atomic_write(readme) as aside:
            aside.write_text(BETWEEN.sub(lambda _: findings(), readme.read_text(encoding="utf-8")), encoding="utf-8")
        for sentence in wanting():
            print(sentence, file=sys.stderr)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
