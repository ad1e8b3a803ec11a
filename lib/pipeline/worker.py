"""One step, as a worker of a Dask cluster executes it."""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import nbformat
import papermill
import psutil
from distributed import get_worker
from papermill.exceptions import PapermillExecutionError

from lib.files import atomic_write
from lib.pipeline.pages import clean
from lib.pipeline.planning import Step

SAMPLING = 1.0  # seconds, once a step has run for that long
STILLBORN = "Kernel died before replying to kernel_info"  # in jupyter_client's words
ALONE = threading.Lock()  # a worker with several threads, too, runs one step at a time


@dataclass(frozen=True)
class Outcome:
    """What became of a step."""

    failure: str  # nothing where all went well
    seconds: float
    peak_memory: int  # bytes resident at once in the kernel and what it started, as sampled


def execute_step(step: Step, root: Path, mark: Path) -> Outcome:
    """Execute one notebook; its cleaned result comes to _build/executed, what failed stays in _build/reports.

    `mark` is a file that the pipeline has put into _build/reports; FileNotFoundError where this worker does not see it.
    """
    if not mark.exists():
        raise FileNotFoundError(f"the one on {socket.gethostname()} does not see {mark}")
    worker = get_worker()
    key = worker.get_current_task()

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state == "executing"

    with ALONE, ThreadPoolExecutor(1) as pool:
        # This environment's kernel, whatever others the user has.
        os.environ["JUPYTER_PATH"] = str(Path(sys.prefix) / "share/jupyter")
        began, ended = time.monotonic(), threading.Event()
        peak = pool.submit(watch, ended, wanted)
        try:
            failure = run_notebook(step, root)
        finally:
            ended.set()
        return Outcome(failure, time.monotonic() - began, peak.result())


def watch(ended: threading.Event, wanted: Callable[[], bool]) -> int:
    """The most memory in bytes that this process's children had at once; they are killed where nobody waits for them.

    Nobody does when the pipeline was interrupted or killed. A stored run is whole at any moment.
    """
    most, pause = 0, SAMPLING / 16
    while not ended.wait(pause):
        pause = min(2 * pause, SAMPLING)
        resident, unwanted = 0, not wanted()
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if unwanted:
                    child.kill()
                resident += child.memory_info().rss
        most = max(most, resident)
    return most


def run_notebook(step: Step, root: Path, starts: int = 3) -> str:
    """Execute a step's notebook; return what went wrong, or nothing.

    A kernel that dies before it answers has run nothing, and is started anew: kernels that start at the same time may
    choose the same port.
    """
    report = root / "_build/reports" / f"{step.name}.ipynb"
    log = report.with_suffix(".log")  # which the display reads
    try:
        with log.open("w", encoding="utf-8") as told:
            notebook = papermill.execute_notebook(
                root / "book" / f"{step.notebook}.ipynb",
                report,
                step.parameters,
                cwd=root / "book",
                kernel_name="python3",
                progress_bar=False,
                coalesce_streams=True,
                stderr_file=told,
                extra_arguments=["--log-level=CRITICAL"],  # the kernel's own remarks would break into the display
            )
    except PapermillExecutionError as error:
        lines = error.evalue.strip().splitlines() or [""]
        return f"{error.ename}: {lines[-1]}"
    except Exception as error:  # of whatever kind: not every exception can be sent to the pipeline
        if STILLBORN in str(error) and starts > 1:
            return run_notebook(step, root, starts - 1)
        return " ".join(f"{type(error).__name__}: {error}".split())
    finally:
        log.unlink(missing_ok=True)
    with atomic_write(root / "_build/executed" / report.name) as aside:
        nbformat.write(clean(notebook, root), aside)
    report.unlink()
    return ""
