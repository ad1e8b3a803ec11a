"""What is timed over more than a step or in more than one process: whole epochs, runs at once, and the peers."""

import io
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import wait
from contextlib import ExitStack, redirect_stderr
from importlib.metadata import version
from types import SimpleNamespace

import pandas as pd
import torch
from tqdm import tqdm

from lib.benchmark import peers, products
from lib.benchmark.products import Shape
from lib.benchmark.timing import Case, timed
from lib.benchmark.training import OwnProcess
from lib.trainers import train_map

# So many that one process's finishing before the other, and what the two are told and tell, does not show.
STEPS_AT_ONCE = 8


def against_peers(shapes: Sequence[Shape], seconds: float) -> pd.DataFrame:
    """Columns width, batch, frames, freed_memory (kept or returned), network, version and the times of a step.

    Each network trains in a process of its own, so that what one does to memory does not help or harm another.
    "products" is the floor.
    """
    every = [(shape, keep) for shape in shapes for keep in (False, True)]
    tables = []
    for shape, keep in tqdm(every, desc="peers"):
        with ExitStack() as stack:
            tables.append(timed(peer_cases(shape, keep, stack), seconds))
    return pd.concat(tables)


def peer_cases(shape: Shape, keep_memory: bool, stack: ExitStack) -> list[Case]:
    processes = {
        name: stack.enter_context(OwnProcess(name, shape, torch.get_num_threads(), keep_memory))
        for name in peers.installed()
    }
    wait([process.begin() for process in processes.values()])  # start all of them together
    row = {"width": shape.width, "batch": shape.batch, "frames": shape.frames}
    row["freed_memory"] = "kept" if keep_memory else "returned"
    libraries = {make.__name__ for make in peers.LIBRARIES}
    return [
        (row | {"network": "products", "version": None}, products.multiplied(products.of_step(shape))),
        *(
            (row | {"network": name, "version": version(name) if name in libraries else None}, one_step_of(process))
            for name, process in processes.items()
        ),
    ]


def one_step_of(process: OwnProcess) -> Callable[[], None]:
    return lambda: process.begin().result()


def at_once(shapes: Sequence[Shape], seconds: float) -> pd.DataFrame:
    """Columns width, batch, manner and the times of two networks' steps, a step of each.

    They train at the same time with half of the threads each, or one after the other with all of them.
    """
    threads = torch.get_num_threads()
    tables = []
    for shape in tqdm(shapes, desc="two runs"):
        with ExitStack() as stack:
            halves = [
                stack.enter_context(OwnProcess("ours", shape, max(1, threads // 2), keep_memory=True)) for _ in range(2)
            ]
            whole = stack.enter_context(OwnProcess("ours", shape, threads, keep_memory=True))
            row = {"width": shape.width, "batch": shape.batch}
            cases = [
                (row | {"manner": "at the same time"}, two_at_once(halves)),
                (row | {"manner": "one after the other"}, lambda whole=whole: whole.begin(2 * STEPS_AT_ONCE).result()),
            ]
            table = timed(cases, seconds)
        table[["minimum_ms", "median_ms"]] /= STEPS_AT_ONCE
        tables.append(table)
    return pd.concat(tables)


def two_at_once(processes: Sequence[OwnProcess]) -> Callable[[], None]:
    def run():
        for future in [process.begin(STEPS_AT_ONCE) for process in processes]:
            future.result()

    return run


def growth(series: Mapping[str, Sequence[tuple[Shape, int]]], seconds: float) -> pd.DataFrame:
    """Columns along, width, batch, frames, utterances and the times of an epoch of ``train_map``.

    ``series`` holds, for each name of what grows along it, shapes and numbers of utterances.
    """
    tables = []
    for along, sizes in tqdm(series.items(), desc="growth"):
        cases = [
            (
                {"along": along, "width": shape.width, "batch": shape.batch}
                | {"frames": shape.frames, "utterances": utterances},
                epoch_of(shape, utterances),
            )
            for shape, utterances in sizes
        ]
        tables.append(timed(cases, seconds))
    return pd.concat(tables)


def epoch_of(shape: Shape, utterances: int) -> Callable[[], None]:
    features, labels = Shape(shape.width, utterances, shape.frames).minibatch()
    training = SimpleNamespace(features=features, labels=labels)
    validation = SimpleNamespace(features=features[:2], labels=labels[:2])
    network = peers.ours(shape.sizes)

    def run():
        with redirect_stderr(io.StringIO()):  # the trainer's own progress
            train_map(
                network, training, validation, learning_rate=1e-6, weight_decay=1e-5,
                epochs=1, batch_size=shape.batch, patience=2, seed=0,
            )  # fmt: skip

    return run
