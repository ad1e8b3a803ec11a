"""Run the steps on the workers of a Dask cluster: this machine's own, or the one at an address."""

import asyncio
import logging
import multiprocessing.resource_tracker
import queue
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import dask
import pandas as pd
from dask.system import CPU_COUNT
from distributed import Client, Future, KilledWorker, LocalCluster
from distributed.comm import connect

from lib.files import atomic_write
from lib.pipeline.display import Display
from lib.pipeline.planning import Step, at_once, without
from lib.pipeline.worker import Outcome, execute_step

# Steps take minutes; Dask's looking after its workers took a twentieth of a core for each.
UNHURRIED = {"distributed.worker.profile.enabled": False, "distributed.admin.tick.interval": "500ms"}


def execute(steps: list[Step], root: Path, scheduler: str | None = None) -> dict[str, str]:
    """Leave each step's notebook in _build/executed, cleaned, and what each took in _build/steps.csv.

    What does not build on a failure is run in spite of it. Returns for each step that was not done what became of it.
    Raises OSError or RuntimeError where the cluster itself does not work.
    """
    reports, executed = root / "_build/reports", root / "_build/executed"
    for folder in (reports, executed):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    mark = reports / f"run-{uuid4().hex}"
    mark.touch()
    waiting, running, undone, costs = list(steps), {}, {}, []
    arrived: queue.SimpleQueue[Future] = queue.SimpleQueue()
    try:
        with workers_for(steps, scheduler) as client, Display(steps, reports) as display:
            if not client.nthreads():
                print("Waiting for the first worker.", flush=True)
            while waiting or running:
                unfinished = {step.name for step in (*waiting, *running.values())}
                for step in [step for step in waiting if step.after.isdisjoint(unfinished)]:
                    waiting.remove(step)
                    failed = [one for one in steps if one.name in step.after & undone.keys()]
                    if given := without(step, failed):
                        key = f"{step.name}-{mark.name}"  # of this pipeline alone, where others share the cluster
                        future = client.submit(execute_step, given, root, mark, key=key, pure=False)
                        running[future] = step
                        future.add_done_callback(arrived.put)
                    else:
                        undone[step.name] = f"was not run for want of {', '.join(one.name for one in failed)}"
                        display.tell(step, None, len(client.nthreads()))
                if not running:
                    continue
                display.redraw(len(client.nthreads()))
                try:
                    future = arrived.get(timeout=1)
                except queue.Empty:
                    continue
                step, outcome = running.pop(future), outcome_of(future)
                display.tell(step, outcome, len(client.nthreads()))
                if outcome.failure:
                    undone[step.name] = f"failed: {outcome.failure.rstrip('.')}"
                else:
                    costs.append((step.along.get("dataset"), step.name, outcome.seconds, outcome.peak_memory / 1e9))
                    store_costs(costs, root / "_build/steps.csv")
    finally:
        mark.unlink(missing_ok=True)
    return undone


def outcome_of(future: Future) -> Outcome:
    """What a worker returned; RuntimeError where none could even begin."""
    try:
        return future.result()
    except KilledWorker as error:
        times = error.allowed_failures + 1
        return Outcome(f"its process was ended from outside {times} times, perhaps for want of memory", 0, 0)
    except CancelledError as error:
        raise RuntimeError(
            "The scheduler was lost: finished work is kept, and the same command goes on from there."
        ) from error
    except Exception as error:
        raise RuntimeError(
            "A worker cannot run the steps: every worker needs this very checkout, at the same place, with its "
            f"environment and data ({' '.join(str(error).split())})."
        ) from error


def store_costs(costs: list[tuple[str | None, str, float, float]], path: Path) -> None:
    columns = ["dataset", "step", "seconds", "peak_memory_gb"]
    with atomic_write(path) as aside:
        pd.DataFrame(costs, columns=columns).round(3).to_csv(aside, index=False)


@contextmanager
def workers_for(steps: list[Step], scheduler: str | None) -> Iterator[Client]:
    """A client of the cluster at an address, or of one that lives here as long as the block.

    Dask has its workers compute with one thread (OMP_NUM_THREADS, unless it is set). More would share a sum out
    otherwise and change its last digits, so that results would depend on how many steps run at once.
    """
    if scheduler:
        try:
            asyncio.run(reach(scheduler))  # by itself, since a client that cannot leaves its threads behind
        except (OSError, ValueError) as error:
            raise ConnectionError(f"No Dask scheduler answers at --scheduler {scheduler}: {error}.") from error
        with Client(scheduler, set_as_default=False) as client:
            yield client
        return
    multiprocessing.resource_tracker.ensure_running()  # it would lift the block if it were started within
    with (
        interruptions(signal.SIG_BLOCK),
        dask.config.set(UNHURRIED),
        LocalCluster(
            n_workers=min(CPU_COUNT, at_once(steps)),
            threads_per_worker=1,
            memory_limit=None,  # the notebooks' memory is their kernels'
            dashboard_address="127.0.0.1:0",  # which the scheduler wants for itself; any free port
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,  # when it closes, nobody wants the steps that still run
        interruptions(signal.SIG_UNBLOCK),
    ):
        yield client


async def reach(address: str) -> None:
    await (await connect(address)).close()


@contextmanager
def interruptions(how: int) -> Iterator[None]:
    """Hold Ctrl-C and its like back, or let them through; the processes started while they are held never hear them."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(how, {signal.SIGINT, signal.SIGTERM})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
