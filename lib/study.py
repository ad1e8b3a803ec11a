"""A study: networks of several kinds, trained by several methods on several sets, and all measured alike.

    python -m lib.study book/params/neurons.yml --tune    # choose each one's settings on validation data, once
    python -m lib.study book/params/neurons.yml           # train and measure them

The file names the sets, the variants, the methods and the seeds. What was chosen is written beside it, as
``neurons-chosen.yml``; the results go to a folder of the study's name under data/results. What stands there, or is
stored of a run or a trial, is not computed again: the same command goes on where it was interrupted.
"""

import argparse
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import yaml
from tqdm import tqdm

from lib import experiment, slices, tuning
from lib.experiment import Run
from lib.features import Frames
from lib.files import reading, write_json, written_aside
from lib.networks import activity
from lib.posteriors import MeanFieldGaussian

KEY = ["set", "variant", "method", "seed"]
NEEDED = {"sets": dict, "variants": dict, "method": list, "seed": list, "common": dict, "samples": int, "bins": int}
NEEDED |= {"slices": dict, "noise": dict, "tuning": dict}


class Cell(NamedTuple):
    """One run of a study: its place, and the settings that follow from it."""

    set: str
    variant: str
    method: str
    seed: int
    chosen: dict[str, Any]


# The parameters of the hidden layers by what they do, from a part of their names; the others are the readout's.
GROUPS = {".linear.": "weights", ".norm.": "norm", ".leak": "leak", ".adaptation": "adaptation"}
GROUPS |= {".recurrent": "recurrent"}

Place = tuple[str, str, str, int]
Measured = tuple[dict[str, Any], dict[str, Any]]  # a row of the results, and the record of its run


def read(path: Path) -> dict[str, Any]:
    """The study that a file describes. Raises ``ValueError`` or ``FileNotFoundError`` where it does not."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no study {path}.")
    study = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, kind in NEEDED.items():
        if not isinstance(study, dict) or not isinstance(study.get(name), kind):
            raise ValueError(f"{path}: '{name}' must be a {kind.__name__}.")
    if unknown := study.keys() - NEEDED.keys():
        raise ValueError(f"{path}: {sorted(unknown)[0]!r} is not known; a study has {', '.join(NEEDED)}.")
    return study


def chosen_for(path: Path) -> Path:
    """Where the settings stand that were chosen for a study."""
    return path.with_name(f"{path.stem}-chosen.yml")


def cells(study: Mapping[str, Any], tuned: Mapping[str, Mapping[str, Any]]) -> list[Cell]:
    """All runs of a study, seed by seed, so that an interrupted one has something of everything."""

    def chosen(name: str, variant: str, method: str, seed: int) -> dict[str, Any]:
        found = tuned.get(variant, {}).get(method, {})
        return found | given(study, name, variant, method) | {"method": method, "seed": seed}

    return [
        Cell(name, variant, method, seed, chosen(name, variant, method, seed))
        for seed, name, variant, method in itertools.product(
            study["seed"], study["sets"], study["variants"], study["method"]
        )
    ]


def given(study: Mapping[str, Any], name: str, variant: str, method: str) -> dict[str, Any]:
    """The settings that the study gives to a run: the common ones, its method's, its variant's and its set's."""
    common = {key: value for key, value in study["common"].items() if key not in study["method"]}
    return common | study["common"].get(method, {}) | study["variants"][variant] | study["sets"][name]


def measure(cell: Cell, how: Mapping[str, Mapping[str, Any]]) -> Measured:
    """Train, evaluate and slice one run, or find it done: its row of the results, and the record of the run."""
    frames = experiment.load_frames(cell.chosen, cell.chosen["dataset"])
    run = experiment.train(frames, cell.chosen)
    evaluation = experiment.evaluate(run, frames, **how["evaluation"])
    row = dict(zip(KEY, cell, strict=False)) | evaluation.figures
    row |= progress(run)
    row |= activity.measures(run.network(frames), run.posterior.mean, frames.part("test").features)
    row |= shape_of_slices(sliced(run, frames, **how["slices"]))
    row |= rises(run, frames, **how["noise"])
    return row, {"run": run.folder.name, "set": cell.set, "variant": cell.variant} | run.record | how


def progress(run: Run) -> dict[str, float]:
    """Had training come to its end? The best epoch, the losses there, and the share of the rate at the end."""
    best = run.history.loc[run.history["validation_loss"].idxmin()]
    rates = run.history["learning_rate"]
    losses = {name: float(best[name]) for name in ("train_loss", "validation_loss")}
    return {"epoch": int(best["epoch"])} | losses | {"rate_left": float(rates.iloc[-1] / rates.iloc[0])}


def sliced(run: Run, frames: Frames, *, points: int, directions: int, radius: float, samples: int, examples: int):
    """Losses along lines through a run's mean, of the point and, where there is a spread, averaged over it.

    The columns of ``slices.curves``. Kept in the run's folder.
    """
    path = run.folder / f"slices-{points}-{directions}-{radius:g}-{samples}-{examples}.csv"
    if not path.exists():
        test = frames.part("test")
        batches = list(zip(test.features[:examples].split(64), test.labels[:examples].split(64), strict=True))
        spread = run.posterior if isinstance(run.posterior, MeanFieldGaussian) else None
        curves = slices.curves(
            {run.record["settings"]["method"]: run.posterior.mean}, spread, run.network(frames), batches,
            alphas=np.linspace(-radius, radius, points), directions=directions, samples=samples,
        )  # fmt: skip
        with written_aside(path) as aside:
            curves.to_csv(aside, index=False)
    with reading(path, "delete it and run again"):
        return pd.read_csv(path)


def shape_of_slices(curves: pd.DataFrame) -> dict[str, float]:
    """Roughness and angularity exponent of each kind of loss, averaged over the directions."""
    found: dict[str, list[float]] = {}
    for (loss, _), curve in curves.groupby(["loss", "direction"]):
        found.setdefault(f"roughness_{loss}", []).append(slices.roughness(curve["nll"].to_numpy()))
        exponent = slices.angularity_exponent(curve["alpha"].to_numpy(), curve["nll"].to_numpy())
        found.setdefault(f"exponent_{loss}", []).append(exponent)
    return {name: float(np.mean(values)) for name, values in found.items()}


def rises(run: Run, frames: Frames, *, std: float, samples: int, examples: int) -> dict[str, float]:
    """What the same noise costs in nats on each group of a run's parameters, around its mean."""
    network, test = run.network(frames), frames.part("test")
    groups: dict[str, list[str]] = {}
    for name, _ in network.named_parameters():
        group = next((group for part, group in GROUPS.items() if part in name), "readout")
        groups.setdefault(group, []).append(name)
    return {
        f"rise_{group}": slices.rise_under_noise(
            network, run.posterior.mean, names, std, test.features[:examples], test.labels[:examples], samples,
            torch.Generator().manual_seed(0),
        )
        for group, names in groups.items()
    }  # fmt: skip


def choose(study: Mapping[str, Any], variant: str, method: str) -> tuple[dict[str, Any], pd.DataFrame]:
    """The best settings of some trials on the validation part, and all trials."""
    asked = study["tuning"]
    name = asked["set"]
    fixed = given(study, name, variant, method) | {"epochs": asked["epochs"]}
    frames = experiment.load_frames(fixed, fixed["dataset"])
    searched = tuning.search(f"{name}-{variant}-{method}", {fixed["dataset"]: frames}, method, asked["trials"], fixed)
    trials = tuning.trial_table(searched).assign(variant=variant, method=method)
    return searched.best_params, trials


def at_once(work: Callable, arguments: list[tuple], description: str) -> Iterator[tuple[tuple, Any]]:
    """What ``work`` returns for each of the arguments, as it ends, from as many processes as the machine has cores.

    One that fails is named on standard error, and the others go on.
    """
    with ProcessPoolExecutor(
        os.cpu_count(), mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        waited = {pool.submit(work, *one): one for one in arguments}
        for done in tqdm(as_completed(waited), desc=description, total=len(waited)):
            try:
                yield waited[done], done.result()
            except (OSError, ValueError, FloatingPointError) as error:
                parts = [part for one in waited[done] for part in (one[:4] if isinstance(one, Cell) else [one])]
                name = ", ".join(str(part) for part in parts if not isinstance(part, Mapping))
                print(f"{description}, {name}: {error}", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m lib.study", description="Train and measure the networks of a study.")
    parser.add_argument("study", type=Path, help="such as book/params/neurons.yml")
    parser.add_argument("--tune", action="store_true", help="choose the settings instead")
    options = parser.parse_args(arguments)
    try:
        study = read(options.study)
        folder = experiment.DATA / "results" / options.study.stem
        return (tune if options.tune else run)(study, options.study, folder)
    except KeyboardInterrupt:
        print("Interrupted: what is done is kept; the same command goes on.", file=sys.stderr)
        return 130
    except (OSError, ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1


def tune(study: Mapping[str, Any], path: Path, folder: Path) -> int:
    pairs = [(study, variant, method) for variant in study["variants"] for method in study["method"]]
    best: dict[str, dict[str, Any]] = {}
    tables = []
    for (_, variant, method), (params, trials) in at_once(choose, pairs, "choosing settings"):
        best.setdefault(variant, {})[method] = params
        tables.append(trials)
    if tables:
        with written_aside(chosen_for(path)) as aside:
            aside.write_text(yaml.safe_dump(best), encoding="utf-8")
        with written_aside(folder / "tuning.csv") as aside:
            pd.concat(tables).sort_values(["variant", "method", "trial"]).to_csv(aside, index=False)
    return int(len(tables) < len(pairs))


def run(study: Mapping[str, Any], path: Path, folder: Path) -> int:
    there = chosen_for(path)
    asked = cells(study, yaml.safe_load(there.read_text(encoding="utf-8")) if there.exists() else {})
    how = {
        "evaluation": {"samples": study["samples"], "bins": study["bins"]},
        "slices": study["slices"],
        "noise": study["noise"],
    }
    first = {cell.set: cell.chosen for cell in reversed(asked)}
    frames = {name: experiment.load_frames(chosen, chosen["dataset"]) for name, chosen in first.items()}
    wanted = {cell[:4]: {"run": experiment.run_name(frames[cell.set], cell.chosen)} | how for cell in asked}
    found = {
        place: both
        for place, both in results(folder).items()
        if place in wanted and wanted[place].items() <= both[1].items()
    }
    missing = [(cell, how) for cell in asked if cell[:4] not in found]
    for (cell, _), both in at_once(measure, missing, "runs"):
        found[cell[:4]] = both
        write(found, folder)
    write(found, folder)
    return int(len(found) < len(asked))


def results(folder: Path) -> dict[Place, Measured]:
    """The rows and records that are stored, each under its place in the study."""
    table, records = folder / "runs.csv", folder / "runs.json"
    if not table.exists():
        return {}
    with reading(table, "move it away and run again"), reading(records, "move it away and run again"):
        rows = [
            {name: value for name, value in row.items() if not pd.isna(value)}
            for row in pd.read_csv(table).to_dict("records")
        ]
        stored = json.loads(records.read_text(encoding="utf-8"))
        return {tuple(row[name] for name in KEY): (row, record) for row, record in zip(rows, stored, strict=True)}


def write(found: Mapping[Place, Measured], folder: Path) -> None:
    rows, records = zip(*(found[place] for place in sorted(found)), strict=True)
    with written_aside(folder / "runs.csv") as aside:
        pd.DataFrame(rows).to_csv(aside, index=False)
    write_json(folder / "runs.json", list(records))


if __name__ == "__main__":
    sys.exit(main())
