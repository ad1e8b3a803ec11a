"""What training and prediction cost: times beside the matrix products alone, from the benchmark's tables."""

import pandas as pd
from matplotlib.figure import Figure

from lib.figures.curves import lines
from lib.figures.dots import seed_dots

PARTS = ["products", "norm, neuron, dropout", "optimiser"]
PRODUCTS = "matrix products alone"
NETWORKS = {"ours": "this companion", "plain": "plain PyTorch", "spikingjelly": "SpikingJelly", "snntorch": "snnTorch"}


def measured_on(machine: pd.DataFrame, device: str = "cpu") -> str:
    """The machine in a few words, from its row of the benchmark."""
    (row,) = machine.itertuples()
    return f"measured on {row.gpu if device == 'cuda' else f'{row.processor}, {row.cores} cores'}"


def step_times(steps: pd.DataFrame, source: str) -> Figure:
    """Milliseconds a training step against batch size, a panel a width. Takes the rows of one device."""
    rows = steps[steps["work"].isin(["products", "map", "ivon"])].replace({"work": {"products": PRODUCTS}})
    rows = rows.rename(columns={"batch": "batch size"}).assign(panel=_words(rows, "{width} units"))
    title, log = {"median_ms": "milliseconds a step"}, ("batch size", "median_ms")
    return lines(rows, "batch size", title, source, name="work", panel="panel", log=log, columns=3)


def step_shares(steps: pd.DataFrame) -> pd.DataFrame:
    """Each part's share of a step with Adam, by [width, batch]; the rest is what was not timed by itself."""
    times = steps.pivot(index=["width", "batch"], columns="work", values="median_ms")
    shares = times[PARTS].div(times["map"], axis=0)
    return shares.assign(rest=1 - shares.sum(axis=1))


def shares(steps: pd.DataFrame, source: str) -> Figure:
    """What a step with Adam is spent on, as ``step_shares`` has it. Takes the rows of one device."""
    rows = step_shares(steps).melt(ignore_index=False, var_name="part").sort_index().reset_index()
    return seed_dots(rows.assign(row=_words(rows)), {"value": "share of the step"}, source, row="row", name="part")


def peers(table: pd.DataFrame, source: str) -> Figure:
    """A step's time as a multiple of its matrix products, a row for each network, a panel for each shape.

    Colours tell processes that keep freed memory from those that return it to the system.
    """
    key = ["width", "batch", "freed_memory"]
    floors = table[table["network"] == "products"].set_index(key)["median_ms"].rename("floor")
    rows = table[table["network"] != "products"].join(floors, on=key)
    rows = rows.assign(
        multiple=rows["median_ms"] / rows["floor"],
        network=rows["network"].replace(NETWORKS),
        memory="freed memory " + rows["freed_memory"],
        panel=_words(rows),
    )
    title, names = {"multiple": "times its matrix products"}, {"row": "network", "name": "memory", "panel": "panel"}
    return seed_dots(rows, title, source, **names, log=("multiple",), reference=1, columns=3)


def growth(table: pd.DataFrame, source: str) -> Figure:
    """Seconds an epoch against utterances and frames, and dashed what is in proportion to the smallest."""
    size = table["utterances"].where(table["along"] == "utterances", table.get("frames"))
    rows = table.assign(number=size, seconds=table["median_ms"] / 1000, method="map")
    title = {"seconds": "seconds an epoch"}
    return lines(rows, "number", title, source, panel="along", powers={"seconds": 1}, same_scale=False)


def at_once(table: pd.DataFrame, source: str) -> Figure:
    """Milliseconds for a step of each of two runs, one after the other with all threads or at once with half each."""
    rows = table.assign(panel=_words(table))
    return seed_dots(rows, {"median_ms": "milliseconds"}, source, row="manner", name="manner", panel="panel")


def _words(rows: pd.DataFrame, words: str = "{width} units, batch {batch}") -> list[str]:
    return [words.format(**row) for row in rows.to_dict("records")]
