"""What the learning curve says of the full Speech Commands, written down before those were run here.

    python -m lib.forecast    # writes data/results/forecast.csv anew

For each protocol a straight line in the logarithm of the number of training recordings goes through the differences
IVON less Adam of the curve's runs, which were trained to their end, and is followed to the paper's number.
``03_evaluation`` holds what a run on the archive gives against it. The archive has 35 words for the curve's 11, and
``make paper`` wider networks: the forecast says what follows if neither matters and the line is straight. Nothing is
forecast of Heidelberg Digits, of which no curve could be measured.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from lib import provenance, statistics
from lib.datasets import picked, sc
from lib.datasets.utterances import place_of
from lib.files import atomic_write
from lib.runs.run import Run
from lib.study import named, tables

# The studies that have the curve of each.
PROTOCOLS = {"the paper's protocol": "curve-paper-end", "matched": "curve-end"}
MEASURES = ["nll", "accuracy", "brier"]
PAIR = {"IVON − Adam": ("ivon", "map")}
BY = ["protocol", "leaks", "measure"]
# What ``make paper`` runs: its data set, and how many seeds its mean is over.
DATASET, TRAINED_ON, SEEDS = "sc", sc.PUBLISHED_COUNTS["70-10-20"]["train"], 3
# The paper's: on its archive more than two and a half times the steps of the curve's forty on all of its recordings.
EPOCHS = 30
PATH = tables.RESULTS / "forecast.csv"


def sizes() -> dict[str, int]:
    """How many training recordings each set of the curve has: those of its share of the speakers."""
    listed = picked.listed(tables.RESULTS / "sc-11-words-recordings.txt")
    speakers = pd.Series([path.partition("/")[2].partition("_")[0] for path in listed])
    places = speakers[speakers.map(lambda one: sc.hashed_part(one, 10, 20)) == "train"].map(place_of)
    return {name: int((places < of.get("share", 1)).sum()) for name, of in named(PROTOCOLS["matched"]).sets.items()}


def forecast() -> pd.DataFrame:
    """The differences to expect, with the intervals in which 95 % of such runs would lie, and the paper's own.

    Only where the curve has enough seeds at its largest size: from smaller ones alone the way is too far.
    """
    rows = []
    for protocol, study in PROTOCOLS.items():
        runs = tables.load(study).astype({"set": str, "variant": str, "method": str})
        runs["size"] = runs["set"].map(sizes())
        for leaks, of_leaks in runs.groupby("variant", sort=False):
            wide = of_leaks.pivot(index=["size", "seed"], columns="method", values=MEASURES).astype(float)
            at_full_size = wide.dropna().index.get_level_values("size") == max(sizes().values())
            for measure in MEASURES if at_full_size.sum() >= SEEDS else ():
                gaps = (wide[measure]["ivon"] - wide[measure]["map"]).dropna()
                line = statistics.extrapolated(gaps.index.get_level_values("size").to_numpy(), gaps, TRAINED_ON, SEEDS)
                paper = tables.published_difference(DATASET, measure)
                rows.append((protocol, leaks, measure, *line, paper, study))
    columns = [*BY, "expected", "from", "to", "paper", "study"]
    return pd.DataFrame(rows, columns=columns)


def beside(runs: Iterable[Run], table: pd.DataFrame) -> pd.DataFrame:
    """The forecast as it was written, and, of the full Speech Commands, what these runs gave: inside or outside.

    ``table`` has the runs' rows of Table 1. A row of the forecast has no ``found`` where one of the runs has other
    settings than its protocol, as with runs on other sets.
    """
    said = pd.read_csv(PATH)
    settings = [run.record["settings"] for run in runs if run.record["settings"]["dataset"] == DATASET]
    compared = [one for one in settings if one["method"] in PAIR["IVON − Adam"]]
    found = statistics.differences(table[table["dataset"] == DATASET], MEASURES, PAIR).set_index("measure")
    followed = [{True} == {follows(one, *of) for one in compared} for of in said[BY[:2]].to_numpy()]
    said["found"] = said["measure"].map(found["difference"]).where(followed)
    verdict = said["found"].between(said["from"], said["to"]).map({True: "inside", False: "outside"})
    return said.assign(verdict=verdict.where(said["found"].notna()))


def follows(settings: Mapping[str, Any], protocol: str, leaks: str) -> bool:
    """Whether a run's settings of its method, its training and its leaks are those of a protocol's curve.

    It may have fewer epochs, but no fewer than the paper's.
    """
    study = named(PROTOCOLS[protocol])
    asked = study.cell(next(iter(study.sets)), leaks, settings["method"], settings["seed"]).setup
    asked_of = asked.method.as_dict() | asked.training.as_dict() | {"leaks": asked.network.leaks}
    del asked_of["epochs"]
    return settings["epochs"] >= EPOCHS and all(settings.get(name) == value for name, value in asked_of.items())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m lib.forecast", description="Write down what the full sets will give.")
    parser.parse_args(arguments)
    written = provenance.here()
    try:
        told = forecast().assign(written=written["finished"][:10], commit=written["commit"])
        with atomic_write(PATH) as aside:
            told.to_csv(aside, index=False, float_format="%.6g")
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
