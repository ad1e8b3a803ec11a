"""Execute the steps with papermill, some at once."""

import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path

import nbformat
import papermill
import psutil
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm

from lib.pipeline.pages import clean
from lib.pipeline.planning import Step

WORKERS = 2


def execute(steps: list[Step], root: Path) -> None:
    """Leave each step's notebook in _build/executed, cleaned; RuntimeError says which failed and why.

    After a failure the steps that run are finished and no others are started.
    """
    reports, executed = root / "_build/reports", root / "_build/executed"
    for folder in (reports, executed):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    cores = os.cpu_count() or 1
    workers = min(WORKERS, cores)
    waiting, running, ended, failures = list(steps), {}, set(), []
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, spawn, initializer=prepare_worker, initargs=(cores // workers,))
    shape = "{bar:20} {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
    with tqdm(total=len(steps), bar_format=shape, disable=None) as bar:
        try:
            while running or (waiting and not failures):
                ready = [] if failures else [step for step in waiting if step.after <= ended]
                for step in ready[: workers - len(running)]:
                    waiting.remove(step)
                    running[pool.submit(execute_step, step, root, reports, executed)] = step, time.monotonic()
                bar.set_postfix_str(", ".join(step.name for step, _ in running.values()))
                finished, _ = wait(running, timeout=1, return_when=FIRST_COMPLETED)
                for future in finished:
                    step, started = running.pop(future)
                    if failure := outcome(future):
                        failures.append(describe(step, failure))
                    else:
                        ended.add(step.name)
                        bar.update()
                    seconds = time.monotonic() - started
                    bar.write(f"{'failed' if failure else 'done':6} {step.name} ({seconds:.0f} s)")
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            for worker in multiprocessing.active_children():
                end(worker.pid)
            raise
        finally:
            pool.shutdown(cancel_futures=True)
    if failures:
        unstarted = f" Not started: {', '.join(step.name for step in waiting)}." if waiting else ""
        raise RuntimeError(" ".join(failures) + f" See {reports.relative_to(root)}." + unstarted)


def prepare_worker(threads: int) -> None:
    """Share out the cores, leave Ctrl-C to the pipeline and end with it, prefer this environment's kernel."""
    os.setpgrp()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))
    os.environ["JUPYTER_PATH"] = str(Path(sys.prefix) / "share/jupyter")

    def end_with_pipeline() -> None:
        multiprocessing.parent_process().join()
        end(os.getpid())

    threading.Thread(target=end_with_pipeline, daemon=True).start()


def end(process: int) -> None:
    """Kill a process and what it has started; a stored run is whole at any moment."""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process).children(recursive=True):
            child.kill()
        psutil.Process(process).kill()


def execute_step(step: Step, root: Path, reports: Path, executed: Path) -> str:
    """Execute one notebook; return what went wrong, or nothing. What failed stays in `reports`."""
    report = reports / f"{step.name}.ipynb"
    try:
        notebook = papermill.execute_notebook(
            root / "book" / f"{step.notebook}.ipynb",
            report,
            step.parameters,
            cwd=root / "book",
            kernel_name="python3",
            progress_bar=False,
            coalesce_streams=True,
            extra_arguments=["--log-level=CRITICAL"],  # the kernel's own remarks would break into the display
        )
    except PapermillExecutionError as error:
        lines = error.evalue.strip().splitlines() or [""]
        return f"{error.ename}: {lines[-1]}"
    except Exception as error:  # of whatever kind: not every exception can be sent to the pipeline
        return " ".join(f"{type(error).__name__}: {error}".split())
    aside = executed / f"{step.name}.tmp"
    nbformat.write(clean(notebook, root), aside)
    os.replace(aside, executed / report.name)
    report.unlink()
    return ""


def outcome(future: Future[str]) -> str:
    try:
        return future.result()
    except BrokenProcessPool:
        return "its process was ended from outside, perhaps for want of memory"


def describe(step: Step, failure: str) -> str:
    given = ", ".join(f"{key}={value!r}" for key, value in (step.along | step.parameters).items())
    return f"book/{step.notebook}.ipynb{f' with {given}' if given else ''} failed: {failure.rstrip('.')}."
