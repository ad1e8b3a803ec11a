"""Timing in turns, and the machine that was timed."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import pandas as pd
import torch

from lib import provenance

LEAST_ROUNDS = 3

# What describes a case in its row of a table, and the case itself.
Case = tuple[dict[str, Any], Callable[[], object]]


def timed(cases: Sequence[Case], seconds: float) -> pd.DataFrame:
    """Time the cases in turns, each once a round, for ``seconds`` and at least ``LEAST_ROUNDS`` rounds.

    A first round, which compiles and fills caches, is not counted. Each row describes a case and ends with
    minimum_ms, median_ms and rounds.
    """
    finished = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    times = [[] for _ in cases]
    for _, run in cases:
        run()
    finished()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[-1]) < LEAST_ROUNDS:
        for (_, run), of_case in zip(cases, times, strict=True):
            began = time.perf_counter()
            run()
            finished()
            of_case.append(1000 * (time.perf_counter() - began))
    return pd.DataFrame(
        [
            {**row, "minimum_ms": min(of_case), "median_ms": statistics.median(of_case), "rounds": len(of_case)}
            for (row, _), of_case in zip(cases, times, strict=True)
        ]
    )


def machine() -> pd.DataFrame:
    """One row that says what the timings are taken on, and how many processes want to run there already."""
    return pd.DataFrame(
        [
            provenance.machine()
            | {
                "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
                "load": round(os.getloadavg()[0], 1),
                "python": platform.python_version(),
            }
            | {name: version(name) for name in ("torch", "numba", "ivon-opt")}
        ]
    )
