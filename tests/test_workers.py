"""Tasks on workers in processes of their own, one of which is killed, and what becomes of those after it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster

from lib.workers import Outcome, attempt, outcome_of, run_all, workers

ROOT = Path(__file__).resolve().parents[1]
SILENT = {"dashboard_address": "127.0.0.1:0", "scheduler_kwargs": {"dashboard": False}}


def work(log: Path, name: str, does: str = "return") -> int:
    """A task that says when it began and in which process."""
    with log.open("a") as file:
        file.write(f"{name} {os.getpid()}\n")
    begun = sum(line.startswith(f"{name} ") for line in log.read_text().splitlines())
    if does == "die" or (does == "die once" and begun == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if does == "raise":
        raise ValueError(f"{name} is lost.\n")
    return len(name)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A cluster of somebody else's: one worker in a process of its own."""
    with LocalCluster(n_workers=1, threads_per_worker=1, **SILENT) as cluster:
        yield cluster


@pytest.mark.parametrize("elsewhere", [False, True])
def test_one_that_fails_stops_no_other(tmp_path: Path, capsys, cluster: LocalCluster, elsewhere: bool) -> None:
    log = tmp_path / "log"
    does = {"a": "return", "bb": "raise", "ccc": "die once", "after-a": "return", "after-bb": "return"}
    tasks = {name: (log, name, what) for name, what in does.items()} | {"spared": (log, "spared", "raise")}
    after = {"after-a": ["a", "ccc"], "after-bb": ["bb", "a"], "spared": ["a", "bb"]}

    def without(name: str, failed: list[str]) -> tuple | None:
        assert failed == ["bb"]
        return (log, "without bb") if name == "spared" else None

    with workers(cluster.scheduler_address if elsewhere else None, 2) as client:
        outcomes = dict(run_all(client, work, tasks, after, shared=tmp_path, without=without))
    assert {name: outcome.value for name, outcome in outcomes.items()} == {
        "a": 1,
        "bb": None,
        "ccc": 3,
        "after-a": 7,
        "after-bb": None,
        "spared": 10,
    }
    assert outcomes["bb"].failure == "failed: ValueError: bb is lost"
    assert outcomes["after-bb"] == Outcome(failure="was not run for want of bb")
    began = [line.split()[0] for line in log.read_text().splitlines()]
    # A result that the worker of ccc held when it died is computed again, if nobody had fetched it.
    again = began.count("a") - 1
    assert sorted(began) == [*["a"] * again, "a", "after-a", "bb", "ccc", "ccc", "without"]
    assert again in (0, 1)
    assert began.index("after-a") > max(began.index("a"), began.index("ccc"))
    processes = {line.split()[-1] for line in log.read_text().splitlines() if line.startswith("ccc")}
    assert len(processes) == 2
    assert str(os.getpid()) not in processes
    lines = capsys.readouterr().out.splitlines()
    assert "after-bb was not run for want of bb; " in "\n".join(lines)
    assert [line.split("; ")[1] for line in lines] == [f"{number} of 6" for number in range(1, 7)]
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_one_that_kills_its_worker_each_time_is_given_up(tmp_path: Path) -> None:
    with workers(None, 1) as client:
        tasks = {"one": (tmp_path / "log", "one", "die"), "two": (tmp_path / "log", "two")}
        outcomes = dict(run_all(client, work, tasks, shared=tmp_path))
    assert outcomes["one"].failure.startswith("failed: its process was ended from outside 4 times")
    assert outcomes["two"].value == 3


def threads() -> tuple[int, str]:
    import torch

    return torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]


def test_a_task_computes_with_one_thread_however_many_cores_there_are(tmp_path: Path, monkeypatch) -> None:
    """The numbers of a training depend on the number of threads in their last digits."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with workers(None, 1) as client:
        ((_, outcome),) = run_all(client, threads, {"one": ()}, shared=tmp_path)
    assert outcome.value == (1, "1")


def test_a_worker_that_does_not_see_the_folder_is_named(tmp_path: Path, cluster: LocalCluster) -> None:
    with Client(cluster, set_as_default=False) as client:
        blind = client.submit(attempt, work, (tmp_path / "log", "one"), tmp_path / "run-absent")
        with pytest.raises(RuntimeError, match=r"every worker needs this very checkout, .* does not see .*run-absent"):
            outcome_of(blind)
    assert not list(tmp_path.iterdir())


def test_a_task_that_the_scheduler_lost_is_no_failure_of_its_own(cluster: LocalCluster) -> None:
    with Client(cluster, set_as_default=False) as client:
        future = client.submit(abs, -3)
        future.cancel()
        with pytest.raises(RuntimeError, match="the scheduler was lost: finished work is kept"):
            outcome_of(future)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nowhere", "tcp://127.0.0.1:port"])
def test_an_address_without_a_scheduler_is_refused(address: str) -> None:
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(ConnectionError, match=f"no Dask scheduler answers at --scheduler {address}"),
        workers(address, 1),
    ):
        pass


def test_what_a_task_has_started_is_ended_when_nobody_waits_for_it() -> None:
    program = """if True:
        import subprocess, sys, threading
        from types import SimpleNamespace
        from lib.workers import end_unwanted

        ended, worker = threading.Event(), SimpleNamespace(state=SimpleNamespace(tasks={}))
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
            threading.Thread(target=end_unwanted, args=(worker, "one", ended)).start()
            print(process.wait())
        ended.set()"""
    finished = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (finished.stdout, finished.stderr) == (f"{-signal.SIGKILL}\n", "")
