"""The book made on workers in processes of their own, and what is left when a notebook, a worker or the run dies."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import psutil
import pytest
import toy_book
from bs4 import BeautifulSoup, Tag
from distributed import Client, LocalCluster
from toy_book import RECORD, arguments, ran, settings_file, write_step

from lib import pages
from lib.book import ROOT, Step, execute, main, plan, read_defaults, read_settings

EXTRA = Step("extra", {}, {}, True, (), 0)


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """A cluster of somebody else's: one worker in a process of its own."""
    silent = {"dashboard_address": "127.0.0.1:0", "scheduler_kwargs": {"dashboard": False}}
    with LocalCluster(n_workers=1, threads_per_worker=1, **silent) as cluster:
        yield cluster


def planned(toy: Path, **changes) -> list[Step]:
    return plan(read_settings(settings_file(toy, **changes)), read_defaults(toy))


def test_bad_settings_end_in_one_sentence_before_anything_is_touched(toy: Path, capsys) -> None:
    assert main(["--params", str(toy / "absent.yml")], toy) == 1
    assert capsys.readouterr().err == f"there is no file {toy / 'absent.yml'}\n"
    assert main(arguments(toy, epoch=3), toy) == 1
    error = capsys.readouterr().err
    assert "'epoch'" in error
    assert error.count("\n") == 1
    assert not (toy / "_build").exists()


def test_the_book_is_made_from_executions_and_the_committed_notebooks_stay(toy: Path, capfd) -> None:
    committed = {path.name: path.read_bytes() for path in (toy / "book").iterdir()}
    assert main(arguments(toy), toy) == 0
    assert {path.name: path.read_bytes() for path in (toy / "book").iterdir()} == committed

    order = [stem for stem, _ in ran(toy)]
    assert sorted(order) == sorted([*["01_data", "04_slices"] * 2, *["02_training"] * 8, "03_evaluation"])
    assert order.index("03_evaluation") > max(at for at, stem in enumerate(order) if stem == "02_training")
    trained = [given for stem, given in ran(toy) if stem == "02_training"]
    rates = {(given["method"], given["settings"]["learning_rate"]) for given in trained}
    assert rates == {("map", 0.01), ("ivon", 1)}
    assert all(given["hidden_sizes"] == [8, 8] for given in trained)
    out = capfd.readouterr().out
    assert "14 notebooks to run." in out
    assert re.search(r"02_training-sc-map-2 took \d+ s; \d+ of 14", out)
    table = pd.read_csv(toy / "_build/steps.csv")
    assert list(table.columns) == ["dataset", "step", "seconds"]
    assert len(table) == 14
    assert set(table.dataset.dropna()) == {"hd", "sc"}
    assert table.seconds.between(0.1, 300).all()

    page = (toy / "_build/html/book/02_training.html").read_text()
    shown = BeautifulSoup(page, "html.parser").get_text()
    assert "'dataset': 'hd', 'data_root': None, 'method': 'ivon', 'seed': 1" in shown
    assert "from ./book" in shown
    assert (toy / "_build/html/index.html").is_file()
    assert len(list((toy / "_build/executed").iterdir())) == 14
    assert not list((toy / "_build/reports").iterdir())
    for path in (toy / "_build/executed").iterdir():
        assert str(toy) not in path.read_text()
        assert "duration" not in path.read_text()
    sources = [cell.source for cell in nbformat.read(toy / "book/extra.ipynb", 4).cells]
    staged = nbformat.read(toy / "_build/source/book/extra.ipynb", 4)
    assert [cell.source for cell in staged.cells] == sources
    assert staged.cells[1].outputs[0].text == "as it is\n"


def test_a_default_execution_is_the_committed_notebook_with_outputs(toy: Path) -> None:
    path = toy / "book/02_training.ipynb"
    notebook = papermill.execute_notebook(path, None, {}, prepare_only=True, progress_bar=False)
    assert pages.clean(notebook, toy) == nbformat.read(path, 4)


def test_a_kernel_that_dies_before_it_answers_is_started_anew(toy: Path, monkeypatch) -> None:
    starts = []

    def stillborn(*args, **kwargs):
        starts.append(args)
        raise RuntimeError("Kernel died before replying to kernel_info")

    monkeypatch.setattr(papermill, "execute_notebook", stillborn)
    with pytest.raises(RuntimeError, match="Kernel died before"):
        pages.execute(toy, "extra", "extra", {})
    assert len(starts) == 3


def test_the_kernel_is_this_environment_s_whatever_others_there_are(toy: Path, monkeypatch) -> None:
    elsewhere = toy / "elsewhere/kernels/python3"
    elsewhere.mkdir(parents=True)
    other = {"argv": ["/absent/python"], "display_name": "Python 3", "language": "python"}
    (elsewhere / "kernel.json").write_text(json.dumps(other))
    monkeypatch.setenv("JUPYTER_PATH", str(toy / "elsewhere"))
    write_step(toy, "extra", "import sys\nprint(sys.prefix)")
    execute([EXTRA], toy)
    assert nbformat.read(toy / "_build/executed/extra.ipynb", 4).cells[1].outputs[0].text == "$PREFIX\n"


# Failures


def test_a_failure_stops_what_needs_it_and_nothing_else(toy: Path, capfd) -> None:
    fails = "if (method, seed) == ('map', 2):\n    raise ValueError('The first line.\\nThe speech is `lost`.')"
    write_step(toy, "02_training", f"{fails}\n{RECORD.replace('STEM', repr('02_training'))}")
    assert main(arguments(toy, dataset=["hd"]), toy) == 1
    out, error = capfd.readouterr()
    assert error.splitlines()[-2:] == [
        "The book lacks 1 of 8 executions; see _build/reports.",
        "02_training-hd-map-2 failed: ValueError: The speech is `lost`",
    ]
    assert "02_training-hd-map-2 failed: ValueError: The speech is `lost`; " in out
    report = nbformat.read(toy / "_build/reports/02_training-hd-map-2.ipynb", 4)
    assert any(output.output_type == "error" for cell in report.cells for output in cell.get("outputs", []))
    assert sorted(path.name for path in (toy / "_build/reports").iterdir()) == ["02_training-hd-map-2.ipynb"]

    given = dict(ran(toy))
    assert {"01_data", "03_evaluation", "04_slices"} == given.keys() - {"02_training"}
    assert given["03_evaluation"]["missing"] == ["hd-map-2"]
    warnings = {page: warning(toy, page) for page in ("intro", "01_data", "02_training", "03_evaluation")}
    line = "02_training-hd-map-2 failed: ValueError: The speech is 'lost'.\n"
    assert warnings["intro"].select_one("pre").get_text() == line
    assert warnings["02_training"].select_one("pre").get_text() == line
    assert "earlier run" not in warnings["02_training"].get_text()
    assert warnings["01_data"] is warnings["03_evaluation"] is None


def test_a_data_set_that_fails_leaves_the_book_of_the_others(toy: Path, capfd) -> None:
    write_step(toy, "01_data", "if dataset == 'hd':\n    raise FileNotFoundError('There is no hd.')")
    assert main(arguments(toy, seed=[1]), toy) == 1
    out, error = capfd.readouterr()
    assert "04_slices-hd was not run for want of 02_training-hd-map-1, 02_training-hd-ivon-1\n" in error
    assert "02_training-hd-ivon-1 was not run for want of 01_data-hd; " in out
    assert "lacks 4 of 10 executions" in error
    assert {given["dataset"] for stem, given in ran(toy) if stem == "02_training"} == {"sc"}
    assert dict(ran(toy))["03_evaluation"]["missing"] == ["hd-map-1", "hd-ivon-1"]
    shown = BeautifulSoup((toy / "_build/html/book/04_slices.html").read_text(), "html.parser").get_text()
    assert "'dataset': 'sc'" in shown  # in the place of hd's, the notebook's default


@pytest.mark.parametrize(("victim", "sentence"), [("getpid", "Kernel died"), ("getppid", "ended from outside 4 times")])
def test_a_killed_process_is_a_failure_like_another(toy: Path, capfd, victim: str, sentence: str) -> None:
    write_step(toy, "01_data", f"import os, signal\nos.kill(os.{victim}(), signal.SIGKILL)")
    assert main(arguments(toy, dataset=["hd"]), toy) == 1
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("01_data-hd failed")]
    assert sentence in line
    page = warning(toy, "03_evaluation").get_text()
    assert "03_evaluation was not run for want of 02_training-hd-map-1, " in page
    assert "from an earlier run, as it was committed" in page
    assert warning(toy, "extra") is None


def warning(root: Path, page: str) -> Tag | None:
    html = BeautifulSoup((root / f"_build/html/book/{page}.html").read_text(), "html.parser")
    return html.select_one("h1 + .admonition.warning")


# Workers

LEARNS = """import json, os, random, signal, threading
from pathlib import Path

results = Path(results_root)
results.mkdir(exist_ok=True)
with (results / "workers").open("a") as file:
    file.write(f"{method}-{seed} {os.getppid()}\\n")
checkpoint = results / f"{method}-{seed}.json"
weights = json.loads(checkpoint.read_text()) if checkpoint.exists() else []
resumed = len(weights)
while len(weights) < 5:
    weights.append(random.Random(f"{method} {seed} {weights}").gauss(0, 1))
    checkpoint.write_text(json.dumps(weights))
    if KILL and (method, seed) == ("ivon", 1) and not resumed and len(weights) == 3:
        os.kill(os.getppid(), signal.SIGKILL)
        threading.Event().wait()
print(weights)"""


def test_serial_and_distributed_runs_agree_though_a_worker_is_killed_midway(toy: Path, cluster: LocalCluster) -> None:
    expected = {}
    for name, weights in ((f"{method}-{seed}", []) for method in ("map", "ivon") for seed in (1, 2)):
        while len(weights) < 5:
            weights.append(random.Random(f"{name.replace('-', ' ')} {weights}").gauss(0, 1))
        expected[name] = weights
    trained = []
    for kill, scheduler in ((False, cluster.scheduler_address), (True, None)):
        shutil.rmtree(toy / "results", ignore_errors=True)
        write_step(toy, "02_training", f"KILL = {kill}", LEARNS)
        assert not execute(planned(toy, dataset=["hd"], results_root=str(toy / "results")), toy, scheduler)
        learned = {path.stem: json.loads(path.read_text()) for path in (toy / "results").glob("*.json")}
        assert learned == expected
        trained.append(nbformat.read(toy / "_build/executed/02_training-hd-ivon-1.ipynb", 4).cells[-1])
        began = [line.split() for line in (toy / "results/workers").read_text().splitlines()]
        again = [worker for name, worker in began if name == "ivon-1"]
        assert len(again) == len(set(again)) == 1 + kill
        assert len(began) == 4 + kill
    assert trained[0] == trained[1]


# Interruptions

# The notebook holds the end of a pipe while it waits: reading blocks until it has begun, and ends when its kernel is
# gone.
WAITS = """import threading
from pathlib import Path

if method == "ivon" and Path(PIPE).exists():
    with open(PIPE, "w") as end:
        end.write("begun\\n")
        end.flush()
        threading.Event().wait()"""
INTERRUPTED = "Interrupted: finished work is kept, and the same command goes on from there."


@pytest.fixture
def pipe(toy: Path) -> Path:
    pipe = toy / "pipe"
    os.mkfifo(pipe)
    write_step(toy, "02_training", WAITS.replace("PIPE", repr(str(pipe))))
    return pipe


def start(toy: Path, given: list[str]) -> subprocess.Popen:
    """The command in a process that leads a group of its own, as a shell starts it."""
    command = [sys.executable, toy_book.__file__, str(toy), *given]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, process_group=0, **streams)


@pytest.mark.parametrize(
    ("send", "sent", "code"),
    [
        (os.killpg, signal.SIGINT, 130),  # Ctrl-C
        (os.kill, signal.SIGTERM, 130),
        (os.kill, signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_an_interrupted_run_leaves_no_process_and_goes_on_when_started_again(toy, pipe, send, sent, code) -> None:
    given = arguments(toy, dataset=["hd"], seed=[1])
    with start(toy, given) as process:
        with pipe.open() as end:
            assert end.readline() == "begun\n"
            started = psutil.Process(process.pid).children(recursive=True)
            assert len(started) > 2
            send(process.pid, sent)
            assert end.read() == ""
        error = process.communicate()[1]
    assert process.returncode == code
    assert not psutil.wait_procs(started, timeout=60)[1]
    if code == 130:
        assert error.splitlines()[-1] == INTERRUPTED
        assert "Traceback" not in error
    assert not (toy / "_build/html").exists()

    pipe.unlink()
    assert main(given, toy) == 0
    assert (toy / "_build/html/index.html").is_file()
    assert not list((toy / "_build/reports").iterdir())


def test_a_second_run_in_a_checkout_is_refused_and_leaves_the_first_alone(toy: Path, pipe: Path, capsys) -> None:
    given = arguments(toy, dataset=["hd"], seed=[1])
    with start(toy, given) as first:
        with pipe.open() as end:
            assert end.readline() == "begun\n"
            (mark,) = (toy / "_build/reports").glob(".run-*")
            assert main(given, toy) == 1
            assert mark.exists()
            first.terminate()
        first.communicate()
    out, error = capsys.readouterr()
    assert out == ""
    busy = f"another run of the book is at work in {toy / '_build'}; wait for its end, or use another checkout"
    assert error == f"{busy}\n"


def test_an_interruption_while_the_workers_start_is_heeded(toy: Path) -> None:
    with start(toy, arguments(toy)) as process:
        assert process.stdout.readline() == "14 notebooks to run.\n"
        os.killpg(process.pid, signal.SIGINT)
        out, error = process.communicate()
    assert process.returncode == 130
    assert (out, error) == ("", f"{INTERRUPTED}\n")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_cluster_of_others_outlives_an_interrupted_run_and_its_step_does_not(toy, pipe, cluster, sent) -> None:
    given = [*arguments(toy, dataset=["hd"], seed=[1]), "--scheduler", cluster.scheduler_address]
    with start(toy, given) as process, pipe.open() as end:
        assert end.readline() == "begun\n"
        process.send_signal(sent)
        assert end.read() == ""
        process.communicate()
    with Client(cluster, set_as_default=False) as client:
        assert client.submit(abs, -3).result(timeout=60) == 3
