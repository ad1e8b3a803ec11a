"""The steps on workers in processes of their own, and what is left when a notebook, a worker or the pipeline dies."""

import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import nbformat
import pandas as pd
import papermill
import psutil
import pytest
from bs4 import BeautifulSoup, Tag
from distributed import Client, LocalCluster
from toy_book import PARAMETERS, RECORD, SETTINGS, arguments, declared, ran, write_notebook

from lib.pipeline.__main__ import ROOT, main
from lib.pipeline.display import Display
from lib.pipeline.execution import execute, outcome_of
from lib.pipeline.pages import clean
from lib.pipeline.planning import Step, plan
from lib.pipeline.worker import Outcome, execute_step, watch


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """A cluster of somebody else's: one worker in a process of its own."""
    silent = {"dashboard_address": "127.0.0.1:0", "scheduler_kwargs": {"dashboard": False}}
    with LocalCluster(n_workers=1, threads_per_worker=1, **silent) as cluster:
        yield cluster


def test_bad_settings_end_in_one_sentence_before_anything_is_touched(toy: Path, capsys) -> None:
    assert main(["--params", str(toy / "absent.yml")], toy) == 1
    assert capsys.readouterr().err == f"There is no settings file {toy / 'absent.yml'}.\n"
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
    assert {given["learning_rate"] for given in trained if given["method"] == "map"} == {0.01}
    assert {given["learning_rate"] for given in trained if given["method"] == "ivon"} == {1}
    assert all(given["hidden_sizes"] == [8, 8] for given in trained)
    told = capfd.readouterr().out
    assert "14 notebooks to run." in told
    assert re.search(r"done    02_training-sc-map-2 \(\d+ s, \d\.\d GB\); \d+ of 14", told)

    page = (toy / "_build/html/book/02_training.html").read_text()
    told = BeautifulSoup(page, "html.parser").get_text()
    assert "'dataset': 'hd', 'data_root': None, 'method': 'ivon', 'seed': 1" in told
    assert "from ./book" in told
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
    changes = {"dataset": ["hd"], "seed": [1], "method": ["ivon"], "map": None, "hidden_sizes": [128, 128]}
    settings = {key: value for key, value in (SETTINGS | changes).items() if value is not None}
    settings["ivon"] = {"learning_rate": 0.1}
    steps = [step for step in plan(settings, declared(toy)) if step.notebook == "02_training"]
    assert [step.parameters for step in steps] == [{}]
    notebook = papermill.execute_notebook(
        toy / "book/02_training.ipynb", None, steps[0].parameters, prepare_only=True, progress_bar=False
    )
    committed = nbformat.read(toy / "book/02_training.ipynb", 4)
    assert clean(notebook, toy) == committed


def test_what_each_step_took_is_written_down(toy: Path) -> None:
    write_notebook(toy / "book", "01_data", "1 / 0", parameters=PARAMETERS["01_data"])
    steps = [step for step in plan(SETTINGS, declared(toy)) if step.notebook in ("01_data", "extra")]
    assert execute([steps[0], *steps[2:]], toy) == {"01_data-sc": "failed: ZeroDivisionError: division by zero"}
    table = pd.read_csv(toy / "_build/steps.csv")
    assert list(table.columns) == ["dataset", "step", "seconds", "peak_memory_gb"]
    assert list(table.step) == ["extra"]
    assert table.dataset.isna().all()
    assert table.seconds.between(0.1, 300).all()
    assert table.peak_memory_gb.between(0.01, 1).all()  # an IPython kernel that has imported nothing


def test_a_step_computes_with_one_thread_however_many_cores_there_are(toy: Path, monkeypatch) -> None:
    """The numbers of a training depend on the number of threads in their last digits."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    write_notebook(toy / "book", "extra", "import torch\nprint(torch.get_num_threads())")
    execute([Step("extra", {}, {}, True, frozenset(), 0)], toy)
    assert nbformat.read(toy / "_build/executed/extra.ipynb", 4).cells[1].outputs[0].text == "1\n"


def test_the_memory_of_all_that_a_step_has_started_is_watched() -> None:
    """Against 200 MB that a child of a child holds."""
    holds = "b = bytes(range(200)) * 10**6; print(flush=True); input()"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {holds!r}])"
    sampled, ended = threading.Semaphore(0), threading.Event()

    def wanted() -> bool:
        sampled.release()
        return True

    with (
        subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
        ThreadPoolExecutor(1) as pool,
    ):
        assert process.stdout.readline() == b"\n"
        most = pool.submit(watch, ended, wanted)
        for _ in range(2):  # at the second, the first sample has been taken
            assert sampled.acquire(timeout=60)
        ended.set()
        assert 200e6 < most.result() < 300e6
        process.communicate(b"\n")
    assert process.returncode == 0


def test_what_nobody_waits_for_is_ended() -> None:
    program = """if True:
        import subprocess, sys, threading
        from lib.pipeline.worker import watch

        ended = threading.Event()
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
            threading.Thread(target=watch, args=(ended, lambda: False)).start()
            print(process.wait())
        ended.set()"""
    finished = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (finished.stdout, finished.stderr) == (f"{-signal.SIGKILL}\n", "")


# Failures


def test_a_failure_stops_what_needs_it_and_nothing_else(toy: Path, capfd) -> None:
    fails = "if (method, seed) == ('map', 2):\n    raise ValueError('The first line.\\nThe speech is `lost`.')"
    record = RECORD.replace("STEM", "'02_training'")
    write_notebook(toy / "book", "02_training", f"{fails}\n{record}", parameters=PARAMETERS["02_training"])
    assert main(arguments(toy, dataset=["hd"]), toy) == 1
    out, error = capfd.readouterr()
    assert error.splitlines()[-2:] == [
        "book/02_training.ipynb with dataset='hd', method='map', seed=2, "
        f"results_root={str(toy / 'results')!r}, hidden_sizes=[8, 8], learning_rate=0.01 "
        "failed: ValueError: The speech is `lost`.",
        "The book is in _build/html/index.html, without 1 of 8 executions. See _build/reports.",
    ]
    assert "failed  02_training-hd-map-2; " in out
    report = nbformat.read(toy / "_build/reports/02_training-hd-map-2.ipynb", 4)
    assert any(output.output_type == "error" for cell in report.cells for output in cell.get("outputs", []))
    assert sorted(path.name for path in (toy / "_build/reports").iterdir()) == ["02_training-hd-map-2.ipynb"]

    given = dict(ran(toy))
    assert {"01_data", "03_evaluation", "04_slices"} <= given.keys()
    assert given["03_evaluation"]["missing"] == ["hd-map-2"]
    warnings = {page: warning(toy, page) for page in ("intro", "01_data", "02_training", "03_evaluation")}
    line = "02_training-hd-map-2 failed: ValueError: The speech is 'lost'.\n"
    assert warnings["intro"].select_one("pre").get_text() == line
    assert warnings["02_training"].select_one("pre").get_text() == line
    assert "earlier run" not in warnings["02_training"].get_text()
    assert warnings["01_data"] is warnings["03_evaluation"] is None


def test_a_data_set_that_fails_leaves_the_book_of_the_others(toy: Path, capfd) -> None:
    fails = "if dataset == 'hd':\n    raise FileNotFoundError('There is no hd.')"
    write_notebook(toy / "book", "01_data", fails, parameters=PARAMETERS["01_data"])
    assert main(arguments(toy, seed=[1]), toy) == 1
    out, error = capfd.readouterr()
    told = "book/04_slices.ipynb with dataset='hd'"
    (line,) = (line for line in error.splitlines() if line.startswith(told))
    assert line.endswith(" was not run for want of 02_training-hd-map-1, 02_training-hd-ivon-1.")
    assert "not run 02_training-hd-ivon-1; " in out
    assert "without 4 of 10 executions" in error
    assert {given["dataset"] for stem, given in ran(toy) if stem == "02_training"} == {"sc"}
    assert dict(ran(toy))["03_evaluation"]["missing"] == ["hd-map-1", "hd-ivon-1"]
    shown = BeautifulSoup((toy / "_build/html/book/04_slices.html").read_text(), "html.parser").get_text()
    assert "'dataset': 'sc'" in shown  # in the place of hd's, the notebook's default


@pytest.mark.parametrize(("victim", "sentence"), [("getpid", "Kernel died"), ("getppid", "ended from outside 4 times")])
def test_a_killed_process_is_a_failure_like_another(toy: Path, capfd, victim: str, sentence: str) -> None:
    kill = f"import os, signal\nos.kill(os.{victim}(), signal.SIGKILL)"
    write_notebook(toy / "book", "01_data", kill, parameters=PARAMETERS["01_data"])
    assert main(arguments(toy, dataset=["hd"]), toy) == 1
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("book/01_data.ipynb with")]
    assert len(told) == 1
    assert sentence in told[0]
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


def learned(root: Path) -> dict[str, list[float]]:
    return {path.stem: json.loads(path.read_text()) for path in (root / "results").glob("*.json")}


def test_serial_and_distributed_runs_agree_though_a_worker_is_killed_midway(toy: Path, cluster: LocalCluster) -> None:
    settings = SETTINGS | {"dataset": ["hd"], "results_root": str(toy / "results")}
    expected = {}
    for name, weights in ((f"{method}-{seed}", []) for method in ("map", "ivon") for seed in (1, 2)):
        while len(weights) < 5:
            weights.append(random.Random(f"{name.replace('-', ' ')} {weights}").gauss(0, 1))
        expected[name] = weights
    pages = []
    for kill, scheduler in ((False, cluster.scheduler_address), (True, None)):
        shutil.rmtree(toy / "results", ignore_errors=True)
        learns = f"KILL = {kill}", LEARNS
        write_notebook(toy / "book", "02_training", *learns, parameters=PARAMETERS["02_training"])
        assert not execute(plan(settings, declared(toy)), toy, scheduler)
        assert learned(toy) == expected
        pages.append(nbformat.read(toy / "_build/executed/02_training-hd-ivon-1.ipynb", 4).cells[-1])
        began = [line.split() for line in (toy / "results/workers").read_text().splitlines()]
        assert {name for name, _ in began} == expected.keys()
        again = [worker for name, worker in began if name == "ivon-1"]
        assert len(again) == len(set(again)) == 1 + kill
        assert kill or len(began) == 4
    assert pages[0] == pages[1]


def test_a_worker_that_does_not_see_the_checkout_is_told_of(toy: Path, cluster: LocalCluster) -> None:
    with Client(cluster, set_as_default=False) as client:
        step = Step("extra", {}, {}, True, frozenset(), 0)
        blind = client.submit(execute_step, step, toy, toy / "_build/reports/run-absent")
        with pytest.raises(RuntimeError, match=r"every worker needs this very checkout, .* does not see .*run-absent"):
            outcome_of(blind)
    assert not (toy / "_build").exists()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nowhere", "tcp://127.0.0.1:port"])
def test_an_address_without_a_scheduler_ends_in_one_sentence(toy: Path, capfd, address: str) -> None:
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        assert main([*arguments(toy), "--scheduler", address], toy) == 1
    error = capfd.readouterr().err.splitlines()
    assert len(error) == 1
    assert address in error[0]
    assert "--scheduler" in error[0]


def test_the_kernel_is_this_environment_s_whatever_others_there_are(toy: Path, monkeypatch) -> None:
    elsewhere = toy / "elsewhere/kernels/python3"
    elsewhere.mkdir(parents=True)
    other = {"argv": ["/absent/python"], "display_name": "Python 3", "language": "python"}
    (elsewhere / "kernel.json").write_text(json.dumps(other))
    monkeypatch.setenv("JUPYTER_PATH", str(toy / "elsewhere"))
    write_notebook(toy / "book", "extra", "import sys\nprint(sys.prefix)")
    execute([Step("extra", {}, {}, True, frozenset(), 0)], toy)
    assert nbformat.read(toy / "_build/executed/extra.ipynb", 4).cells[1].outputs[0].text == "$PREFIX\n"


SBATCH = """#!/bin/sh
# A stand-in for Slurm: a job is a process, whose number is the job's.
cp "$1" job.sh
setsid sh job.sh > job.log 2>&1 < /dev/null &
echo "Submitted batch job $!"
echo "sbatch $!" >> calls
grep "^#SBATCH" "$1" >> calls"""


def test_the_example_for_slurm_runs_the_book_in_jobs_and_cancels_them(toy: Path) -> None:
    pytest.importorskip("dask_jobqueue")
    for name, script in (("sbatch", SBATCH), ("scancel", '#!/bin/sh\necho "scancel $1" >> calls\nkill -- "-$1"')):
        (toy / "programs").mkdir(exist_ok=True)
        (toy / "programs" / name).write_text(f"{script}\n")
        (toy / "programs" / name).chmod(0o755)
    # The example runs this repository's book; here it is given the toy's.
    program = f"""if True:
        import runpy
        from functools import partial
        from pathlib import Path
        from lib.pipeline import __main__ as pipeline

        pipeline.main = partial(pipeline.main, root=Path.cwd())
        runpy.run_path({str(ROOT / "cluster.py")!r}, run_name="__main__")"""
    given = ["slurm", "--jobs", "1", *arguments(toy, dataset=["hd"], seed=[1])]
    path = f"{toy / 'programs'}:{os.environ['PATH']}"
    finished = subprocess.run(
        [sys.executable, "-c", program, *given],
        cwd=toy,
        env=os.environ | {"PATH": path, "DASK_JOBQUEUE__SLURM__QUEUE": "night"},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    assert (toy / "_build/html/index.html").is_file()
    called = (toy / "calls").read_text().splitlines()
    assert "#SBATCH -p night" in called
    assert "#SBATCH --cpus-per-task=1" in called
    (job,) = (line.split()[1] for line in called if line.startswith("sbatch"))
    assert f"scancel {job}" in called
    assert not psutil.pid_exists(int(job)) or psutil.Process(int(job)).status() == psutil.STATUS_ZOMBIE


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


def waiting(toy: Path) -> Path:
    pipe = toy / "pipe"
    os.mkfifo(pipe)
    waits = WAITS.replace("PIPE", repr(str(pipe)))
    write_notebook(toy / "book", "02_training", waits, parameters=PARAMETERS["02_training"])
    return pipe


def pipeline(toy: Path, given: list[str]) -> subprocess.Popen:
    """The pipeline in a process that leads a group of its own, as a shell starts it."""
    program = (
        "import sys; from pathlib import Path; from lib.pipeline.__main__ import main; "
        f"sys.exit(main({given!r}, Path({str(toy)!r})))"
    )
    command = [sys.executable, "-c", program]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, process_group=0, **streams)


INTERRUPTED = "Interrupted: finished work is kept, and the same command goes on from there."


@pytest.mark.parametrize(
    ("send", "sent", "code"),
    [
        (os.killpg, signal.SIGINT, 130),  # Ctrl-C
        (os.kill, signal.SIGTERM, 130),
        (os.kill, signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_an_interrupted_run_leaves_no_process_and_goes_on_when_started_again(toy: Path, send, sent, code) -> None:
    pipe = waiting(toy)
    given = arguments(toy, dataset=["hd"], seed=[1])
    with pipeline(toy, given) as process:
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


def test_a_second_run_in_a_checkout_is_refused_and_leaves_the_first_alone(toy: Path, capsys) -> None:
    pipe = waiting(toy)
    given = arguments(toy, dataset=["hd"], seed=[1])
    with pipeline(toy, given) as first:
        with pipe.open() as end:
            assert end.readline() == "begun\n"
            marks = list((toy / "_build/reports").glob("run-*"))
            assert main(given, toy) == 1
            assert [path.exists() for path in marks] == [True]
            first.terminate()
        first.communicate()
    out, error = capsys.readouterr()
    assert out == ""
    busy = f"Another run of the pipeline is at work in {toy / '_build'}; wait for its end, or use another checkout."
    assert error == f"{busy}\n"


def test_an_interruption_while_the_workers_start_is_heeded(toy: Path) -> None:
    with pipeline(toy, arguments(toy)) as process:
        assert process.stdout.readline() == "14 notebooks to run.\n"
        os.killpg(process.pid, signal.SIGINT)
        out, error = process.communicate()
    assert process.returncode == 130
    assert (out, error) == ("", f"{INTERRUPTED}\n")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_cluster_of_others_outlives_an_interrupted_run_and_its_step_does_not(
    toy: Path, cluster: LocalCluster, sent: signal.Signals
) -> None:
    pipe = waiting(toy)
    given = [*arguments(toy, dataset=["hd"], seed=[1]), "--scheduler", cluster.scheduler_address]
    with pipeline(toy, given) as process, pipe.open() as end:
        assert end.readline() == "begun\n"
        process.send_signal(sent)
        assert end.read() == ""
        process.communicate()
    with Client(cluster, set_as_default=False) as client:
        assert client.submit(abs, -3).result(timeout=60) == 3


# The display


@pytest.fixture
def display(tmp_path: Path) -> Iterator[Display]:
    steps = [Step("01_data", {}, {}, True, frozenset(), 0)]
    steps += [Step("02_training", {"seed": seed}, {}, True, frozenset(), 0) for seed in range(4)]
    with Display([*steps, Step("03_evaluation", {}, {}, True, frozenset(), 0)], tmp_path) as display:
        yield display


def test_the_time_left_is_estimated_from_what_was_done(display: Display, capsys) -> None:
    data, *trainings, evaluation = display.open.values()
    display.tell(data, Outcome("", 5, 10**9), 2)
    assert capsys.readouterr().out == "done    01_data (5 s, 1.0 GB); 1 of 6\n"
    display.tell(trainings[0], Outcome("", 100, 2 * 10**8), 2)
    # Three more of 100 s on two workers, and what nothing is known of.
    expected = "done    02_training-0 (100 s, 0.2 GB); 2 of 6, about 02:30 more for 3 of the 4 left\n"
    assert capsys.readouterr().out == expected
    display.tell(trainings[1], Outcome("ValueError: no", 1, 0), 8)
    assert capsys.readouterr().out == "failed  02_training-1; 3 of 6, about 01:40 more for 2 of the 3 left\n"
    display.tell(evaluation, None, 8)
    assert capsys.readouterr().out == "not run 03_evaluation; 4 of 6, about 01:40 more\n"


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("", ""),
        ("A warning.\n", ""),
        ("epochs:   0%|          | 0/30 [00:00<?, ?it/s]", "epochs 0/30"),
        ("epochs: 3%|3  | 1/30 [0<?]\repochs:  40%|████      | 12/30 [00:10<00:15,  1.20it/s]", "epochs 12/30"),
        ("epochs: 9%|9  | 9/9 [0<0]\n" + 5_000 * "A warning.\n", ""),
    ],
)
def test_how_far_a_notebook_is_is_read_from_what_it_writes(display: Display, tmp_path: Path, written, told) -> None:
    (tmp_path / "02_training-1.log").write_text(written)
    assert display.told("02_training-1") == told


def test_a_terminal_is_shown_what_runs(tmp_path: Path, monkeypatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    steps = [Step("02_training", {"seed": seed}, {}, True, frozenset(), 0) for seed in range(2)]
    with Display(steps, tmp_path) as display:
        (tmp_path / "02_training-1.log").write_text("epochs:  40%|####      | 12/30 [00:10<00:15,  1.20it/s]")
        display.redraw(2)
        drawn = terminal.getvalue()
        assert re.search(r"02_training-1  00:0\d  epochs 12/30", drawn)
        assert "02_training-0" not in drawn
        assert "2 workers" in drawn
