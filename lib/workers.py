"""Work on the workers of a Dask cluster: processes of this machine, or the cluster at an address."""

import asyncio
import logging
import multiprocessing.resource_tracker
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask
import psutil
from dask.system import CPU_COUNT
from distributed import Client, Future, KilledWorker, LocalCluster, Worker, get_worker
from distributed.comm import connect
from tqdm import tqdm

# Tasks take minutes; Dask's looking after its workers would take a twentieth of a core for each. And a worker that is
# about to start again is not to be given up, as it is after 15 seconds: it was killed, and there may be no other. The
# progress bars of single tasks would break into the one of all.
LOCAL = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
    "distributed.deploy.lost-worker-timeout": "365 days",
    "distributed.nanny.pre-spawn-environ.TQDM_DISABLE": "1",
}
ONE_AT_A_TIME = threading.Lock()  # on a worker with several threads, too: torch's seed is its process's


@dataclass(frozen=True)
class Outcome:
    """What became of a task: the value that its work returned, or its failure in words; and the seconds it took."""

    value: Any = None
    failure: str = ""  # such as "failed: ValueError: ..." or "was not run for want of ..."
    seconds: float = 0.0


@contextmanager
def workers(scheduler: str | None, at_most: int) -> Iterator[Client]:
    """Yield a client of the cluster at an address, or of one of local processes that lives as long as the block.

    Dask has its workers compute with one thread (``OMP_NUM_THREADS``, unless it is set). More would share a sum out
    otherwise and change its last digits, so that results would depend on how many tasks run at once. Raises
    ``ConnectionError`` where no scheduler answers at the address.
    """
    if scheduler:
        try:
            asyncio.run(reach(scheduler))  # by itself, since a client that cannot leaves its threads behind
        except (OSError, ValueError) as error:
            raise ConnectionError(f"no Dask scheduler answers at --scheduler {scheduler}: {error}") from error
        with Client(scheduler, set_as_default=False) as client:
            yield client
        return
    multiprocessing.resource_tracker.ensure_running()  # it would let interruptions through if it were started below
    with (
        interruptions(signal.SIG_BLOCK),
        dask.config.set(LOCAL),
        LocalCluster(
            n_workers=max(1, min(CPU_COUNT, at_most)),
            threads_per_worker=1,
            memory_limit=None,  # a notebook's memory is its kernel's
            dashboard_address="127.0.0.1:0",  # which the scheduler wants for itself; any free port
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
        interruptions(signal.SIG_UNBLOCK),
    ):
        yield client


async def reach(address: str) -> None:
    await (await connect(address)).close()


@contextmanager
def interruptions(how: int) -> Iterator[None]:
    """Hold Ctrl-C and its like back, or let them through. Processes that start while they are held never see them."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(how, {signal.SIGINT, signal.SIGTERM})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def run_all(
    client: Client,
    work: Callable,
    tasks: Mapping[str, tuple],
    after: Mapping[str, Collection[str]] | None = None,
    *,
    shared: Path,
    without: Callable[[str, list[str]], tuple | None] = lambda name, failed: None,
) -> Iterator[tuple[str, Outcome]]:
    """Call ``work(*arguments)`` for each of the named tasks once those that it comes after have ended.

    Yields names and outcomes as tasks end. One that fails stops no other. Where some that a task comes after have
    failed, ``without(name, failed)`` returns the arguments to do without them, or None if it cannot be run, as by
    default. Each worker must see the folder ``shared``. Raises ``RuntimeError`` where the cluster itself does not work.
    """
    after, waiting, running, ended = after or {}, dict(tasks), {}, {}
    arrived: queue.SimpleQueue[tuple[str, Outcome | Future]] = queue.SimpleQueue()
    mark = shared / f".run-{uuid4().hex}"
    mark.touch()
    if not client.nthreads():
        print("Waiting for the first worker.", flush=True)
    try:
        with tqdm(total=len(tasks), disable=None) as bar:
            while len(ended) < len(tasks):
                # No worker is given a second task: where the first ends their process, Dask would blame both.
                free = max(0, len(client.nthreads()) - len(running))
                for name in [name for name in waiting if ended.keys() >= set(after.get(name, ()))][:free]:
                    arguments, failed = waiting.pop(name), [one for one in after.get(name, ()) if ended[one].failure]
                    if failed and (arguments := without(name, failed)) is None:
                        arrived.put((name, Outcome(failure=f"was not run for want of {', '.join(failed)}")))
                        continue
                    key = f"{name}-{mark.name}"  # of this client alone, where others share the cluster
                    running[name] = client.submit(attempt, work, arguments, mark, key=key, pure=False)
                    running[name].add_done_callback(lambda future, name=name: arrived.put((name, future)))
                try:
                    name, result = arrived.get(timeout=1)
                except queue.Empty:  # workers may come while others work
                    continue
                outcome = ended[name] = result if isinstance(result, Outcome) else outcome_of(result)
                running.pop(name, None)
                del result  # what is held on to, Dask does once more if the worker dies that did it
                bar.update()
                end = outcome.failure or f"took {outcome.seconds:.0f} s"
                bar.write(f"{name} {end}; {len(ended)} of {len(tasks)}")
                yield name, outcome
    finally:
        mark.unlink(missing_ok=True)


def attempt(work: Callable, arguments: tuple, mark: Path) -> Outcome:
    """Do the work, on a worker. Raises ``FileNotFoundError`` where that one does not see ``mark``."""
    if not mark.exists():
        raise FileNotFoundError(f"the one on {socket.gethostname()} does not see {mark}")
    worker, ended = get_worker(), threading.Event()
    with ONE_AT_A_TIME, ThreadPoolExecutor(1) as pool:
        pool.submit(end_unwanted, worker, worker.get_current_task(), ended)
        value, failure, began = None, "", time.monotonic()
        try:
            value = work(*arguments)
        except Exception as error:  # as a sentence, for not every exception can be sent
            failure = f"failed: {sentence(error)}"
        finally:
            ended.set()
        return Outcome(value, failure, time.monotonic() - began)


def end_unwanted(worker: Worker, task: str, ended: threading.Event) -> None:
    """Kill what a task has started once nobody waits for it, since who did was interrupted or killed."""
    while not ended.wait(0.5):
        state = worker.state.tasks.get(task)
        if state is None or state.state != "executing":
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()


def outcome_of(future: Future) -> Outcome:
    """What a worker returned. Raises ``RuntimeError`` where none could even begin."""
    try:
        return future.result()
    except KilledWorker as error:
        times = error.allowed_failures + 1
        return Outcome(failure=f"failed: its process was ended from outside {times} times, perhaps for want of memory")
    except CancelledError as error:
        lost = "the scheduler was lost: finished work is kept, and the same command goes on from there"
        raise RuntimeError(lost) from error
    except Exception as error:
        raise RuntimeError(
            "a worker cannot begin: every worker needs this very checkout, at the same place, with its environment "
            f"and data ({sentence(error)})"
        ) from error


def sentence(error: Exception) -> str:
    kind = "" if type(error) is RuntimeError else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error}".split()).rstrip(".")
