"""``python -m lib.benchmark [--results FOLDER]``: measure all, and write a small table of each."""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from lib import experiment
from lib.benchmark.layers import neurons
from lib.benchmark.products import Shape
from lib.benchmark.runs import against_peers, at_once, growth
from lib.benchmark.steps import prediction, steps
from lib.benchmark.timing import machine
from lib.files import atomic_write

WIDTHS, BATCHES = (128, 256, 512), (16, 32, 128)
BUSY = 0.5  # processes that want to run
SECONDS = 5.0  # for each group of what is timed in turns
STEPS = [Shape(width, batch) for width in WIDTHS for batch in BATCHES]
PREDICTIONS = [Shape(width, 128) for width in WIDTHS]
PEERS = [Shape(512, 128), Shape(512, 16), Shape(128, 128)]
LAYERS = [Shape(512, 128), Shape(128, 128)]
PAIRS = [Shape(width, batch) for width in (128, 512) for batch in (16, 128)]
GROWTH = {
    "utterances": [(Shape(512, 128), utterances) for utterances in (256, 512, 1024)],
    "frames": [(Shape(512, 128, frames), 256) for frames in (50, 100, 200)],
}

TABLES: dict[str, Callable[[float], pd.DataFrame]] = {
    "machine": lambda seconds: machine(),
    "steps": lambda seconds: steps(STEPS, seconds),
    "prediction": lambda seconds: prediction(PREDICTIONS, seconds),
    "peers": lambda seconds: against_peers(PEERS, seconds),
    "neurons": lambda seconds: neurons(LAYERS, seconds),
    "at-once": lambda seconds: at_once(PAIRS, seconds),
    "growth": lambda seconds: growth(GROWTH, seconds),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m lib.benchmark", description=__doc__)
    parser.add_argument("--results", type=Path, default=experiment.DATA / "results")
    folder = parser.parse_args(arguments).results
    if os.getloadavg()[0] > BUSY:
        print("This machine is busy: the times will be too long and their ratios off. Run it when nothing else does.")
    # Written together at the end: an interrupted benchmark leaves the tables of one run in place.
    measured = {name: measure(SECONDS) for name, measure in TABLES.items()}
    for name, table in measured.items():
        with atomic_write(folder / f"bench-{name}.csv") as aside:
            table.to_csv(aside, index=False, float_format="%.5g")


if __name__ == "__main__":
    main()
