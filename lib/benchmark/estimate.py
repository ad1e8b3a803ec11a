"""What the tables of the benchmark say: ratios beside their targets, and hours on another machine."""

from typing import Any

import pandas as pd

from lib.benchmark.products import Shape, of_step, operations
from lib.trainers.loop import VALIDATION_SAMPLES

# The published counts. HD has no validation part: as many utterances as in its test part are put in its place.
UTTERANCES = {
    "hd": {"train": 8_332, "validation": 2_088, "test": 2_088},
    "sc": {"train": 75_466, "validation": 9_981, "test": 20_382},
}
# What book/params/paper.yml asks for.
WIDTH, EPOCHS, SAMPLES = 512, 30, 32
BATCH_SIZES = {("hd", "map"): 128, ("hd", "ivon"): 16, ("sc", "map"): 128, ("sc", "ivon"): 32}
# Losses along lines, as 04_slices asks for them: points * directions * examples.
LINES = 31 * 2 * 128


def speed(steps: pd.DataFrame, device: str = "cpu") -> float:
    """The matrix products' speed in a table of steps, in GFlop/s, as ``products.matrix_speed`` measures it."""
    time = median(steps, device=device, work="products", width=512, batch=128)
    return operations(of_step(Shape(512, 128), "meta")) / time / 1e6


def hours(steps: pd.DataFrame, prediction: pd.DataFrame, gflops: float, device: str = "cpu") -> pd.DataFrame:
    """Hours for each data set and method on a machine that multiplies matrices at ``gflops`` GFlop/s.

    ``steps`` and ``prediction`` are the benchmark's tables; the machine is taken to differ from theirs in this speed
    alone. Training includes validation, evaluation is that of the test part, and slices go through the method's centre.
    """
    slower = speed(steps, device) / gflops
    predicted = chosen(prediction, device=device, work="prediction", width=WIDTH)
    forward = float((predicted["median_ms"] / predicted["utterances"] / predicted["samples"]).iloc[0])
    rows = []
    for (dataset, method), batch in BATCH_SIZES.items():
        utterances, bayesian = UTTERANCES[dataset], method == "ivon"
        updates = utterances["train"] // batch * median(steps, device=device, work=method, width=WIDTH, batch=batch)
        validation = utterances["validation"] * (VALIDATION_SAMPLES if bayesian else 1) * forward
        milliseconds = {
            "training": EPOCHS * (updates + validation),
            "evaluation": utterances["test"] * (SAMPLES if bayesian else 1) * forward,
            "slices": LINES * (1 + SAMPLES) * forward,
        }
        rows.append({"dataset": dataset, "method": method} | milliseconds)
    return pd.DataFrame(rows).set_index(["dataset", "method"]) * slower / 3.6e6


def targets(steps: pd.DataFrame, prediction: pd.DataFrame, peers: pd.DataFrame) -> pd.DataFrame:
    """Ratios of medians on the CPU beside what was aimed at. A peer that was not installed has no row.

    Of a peer's two ways with freed memory the one in which its users find it counts: it returns it.
    """
    large, small, narrow = (
        {"device": "cpu", "width": width, "batch": batch} for width, batch in ((512, 128), (512, 16), (128, 128))
    )
    of_prediction = {"device": "cpu", "width": WIDTH}
    rows = [
        (f"step, {of['width']} units, batch {of['batch']} / its products", _ratio(steps, of, "map", "products"), top)
        for of, top in ((large, 1.6), (small, 2.0), (narrow, 3.0))
    ]
    rows.append(("prediction / its products", _ratio(prediction, of_prediction, "prediction", "products"), 1.3))
    rows += [
        (f"IVON's step / Adam's, batch {of['batch']}", _ratio(steps, of, "ivon", "map"), 1.15) for of in (large, small)
    ]
    table = pd.DataFrame(
        [(work, ratio, f"at most {top:g}", ratio <= top) for work, ratio, top in rows],
        columns=["ratio", "measured", "target", "met"],
    )
    returned = peers[peers["freed_memory"] == "returned"]
    times = returned.pivot(index=["width", "batch"], columns="network", values="median_ms")
    least = {"sparch": 8, "snntorch": 8, "spikingjelly": 3.5}
    against = [
        (
            f"{name}'s step / ours, {width} units, batch {batch}",
            ratio,
            f"at least {least[name]:g}",
            ratio >= least[name],
        )
        for name in least
        if name in times
        for (width, batch), ratio in (times[name] / times["ours"]).items()
    ]
    return pd.concat([table, pd.DataFrame(against, columns=table.columns)]).set_index("ratio")


def chosen(table: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows that have these values."""
    return table[(table[list(values)] == pd.Series(values)).all(axis=1)]


def median(table: pd.DataFrame, **values: Any) -> float:
    """The median of the one row that has these values, in milliseconds."""
    (time,) = chosen(table, **values)["median_ms"]
    return time


def _ratio(table: pd.DataFrame, of: dict[str, Any], work: str, to: str) -> float:
    return median(table, **of, work=work) / median(table, **of, work=to)
