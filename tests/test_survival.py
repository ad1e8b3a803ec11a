"""Kill any step at any moment: started again it goes on, and ends in the same bytes as an undisturbed one."""

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import soundfile
from survival_child import OF_METHOD, STEPS

ROOT = Path(__file__).resolve().parents[1]
METHODS = list(OF_METHOD)
ARCHIVE = "digits.tar.gz"
RATE = 8_000  # Hz
# The exit code of a life that ends so, and what it says.
ENDS = {
    "SIGKILL": (-signal.SIGKILL, ""),
    "SIGXFSZ": (-signal.SIGXFSZ, ""),
    "SIGINT": (1, "KeyboardInterrupt"),
    "SIGINT in a notebook": (0, "KeyboardInterrupt"),
    "full disk": (1, "full, or your share of it; make room and run again"),
}
CASES = [*(("SIGKILL", number) for number in range(4)), *((kind, 0) for kind in [*ENDS][1:])]
# What differs between undisturbed lives and is no result.
CIRCUMSTANCES = ("seconds", "finished", "commit")

Live = Callable[..., int]


class Undisturbed(NamedTuple):
    """A life without a fault: what it leaves, the sizes of the files, and how often each line ran in each step."""

    left: dict[str, Any]
    sizes: list[int]
    moments: list[list]


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """FSDD's own layout with one speaker: each digit a tone of its own in noise, twice in training."""
    generator = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("survival") / ARCHIVE
    with tarfile.open(path, "w:gz") as members:
        for digit, index in itertools.product(range(10), (0, 5, 10, 11)):
            tone = np.sin(2 * np.pi * 250 * (digit + 1) * np.arange(RATE // 4) / RATE)
            content = io.BytesIO()
            soundfile.write(content, tone + generator.standard_normal(len(tone)) / 2, RATE, format="WAV")
            member = tarfile.TarInfo(f"digits/recordings/{digit}_theo_{index}.wav")
            member.size = content.tell()
            content.seek(0)
            members.addfile(member, content)
    return path


@pytest.fixture(scope="module")
def live(archive) -> Iterator[Live]:
    """Begins a life in a folder, and returns its exit code."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "TQDM_DISABLE": "1", "PYTHONPATH": str(ROOT)}
    program = [sys.executable, Path(__file__).with_name("survival_child.py"), archive]
    with subprocess.Popen(
        program, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def begin(folder: Path, method: str, fault: dict | None = None, moments: str | None = None) -> int:
            life = {"folder": str(folder), "archive": str(archive), "method": method}
            print(json.dumps(life | {"fault": fault, "moments": moments}), file=process.stdin, flush=True)
            return int(process.stdout.readline())

        yield begin
        process.stdin.close()


@pytest.fixture(scope="module")
def undisturbed(live, tmp_path_factory) -> dict[str, Undisturbed]:
    found = {}
    for method in METHODS:
        folder = tmp_path_factory.mktemp("undisturbed") / "life"
        moments = folder.with_suffix(".json")
        assert live(folder, method, moments=str(moments)) == 0
        sizes = sorted({path.stat().st_size for path in folder.rglob("*") if path.is_file()})
        found[method] = Undisturbed(left_in(folder), sizes, json.loads(moments.read_text()))
    return found


def left_in(folder: Path) -> dict[str, Any]:
    """Every file and what is in it, but for circumstances.

    Left out is what a process that was killed between its last result and its end leaves for good, and nobody reads:
    an empty file that was its lock, and the archive whose files are in their place. So is what the file system says of
    the recordings.
    """
    found = {}
    for path in folder.rglob("*"):
        name, hidden = str(path.relative_to(folder)), path.name.startswith(".")
        if path.is_dir() or (hidden and path.suffix == ".lock" and not path.stat().st_size):
            continue
        if path.suffix == ".fingerprint" or (name == ARCHIVE and (folder / "fsdd").exists()):
            continue
        if path.parent.name.endswith(".aside"):
            found[name] = "unfinished"
        elif path.suffix == ".json":
            found[name] = without_circumstances(json.loads(path.read_text()))
        elif path.name == "history.csv":
            found[name] = pd.read_csv(path, dtype=str).drop(columns="seconds").to_csv()
        else:
            found[name] = path.read_bytes()
    return found


def without_circumstances(value: Any) -> Any:
    if isinstance(value, list):
        return [without_circumstances(item) for item in value]
    if isinstance(value, dict):
        return {key: without_circumstances(item) for key, item in value.items() if key not in CIRCUMSTANCES}
    return value


def whole(left: dict[str, Any]) -> dict[str, Any]:
    """What stands where results stand."""
    return {
        name: content
        for name, content in left.items()
        if ".aside/" not in name and Path(name).name not in (ARCHIVE, "checkpoint.pt")
    }


def draw(generator: np.random.Generator, kind: str, step: str, of: Undisturbed) -> dict:
    """A fault at a random time of a random line of a step: each line is as likely, however often it runs."""
    lines = [line for line in of.moments if line[0] == step]
    *moment, times = lines[generator.integers(len(lines))]
    size = generator.integers(generator.choice(of.sizes))
    return {"kind": kind, "moment": [*moment, int(generator.integers(times)) + 1], "size": int(size)}


def test_what_must_be_gone_on_with_plays_a_part(undisturbed):
    for found in undisturbed.values():
        (history,) = (content for name, content in found.left.items() if name.endswith("history.csv"))
        history = pd.read_csv(io.StringIO(history))
        assert history["learning_rate"].nunique() > 1
        assert history["validation_loss"].nunique() == len(history)
        assert (history["firing_rate_1"] > 0).all()


@pytest.mark.parametrize(("kind", "number"), CASES)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("method", METHODS)
def test_started_again_it_ends_in_the_same_bytes(live, undisturbed, tmp_path, method, step, kind, number):
    generator = np.random.default_rng([METHODS.index(method), STEPS.index(step), [*ENDS].index(kind), number])
    code, said = ENDS[kind]
    for attempt in range(20):
        folder = tmp_path / str(attempt)
        ended = live(folder, method, draw(generator, kind, step, undisturbed[method]))
        told = folder.with_suffix(".log").read_text()
        if ended or (said and said in told):  # a disk that is full after the last file is no fault
            break
    assert ended == code
    assert said in told
    assert whole(left_in(folder)).items() <= undisturbed[method].left.items()

    assert live(folder, method) == 0
    assert left_in(folder) == undisturbed[method].left


@pytest.mark.parametrize("method", METHODS)
def test_killed_in_each_step_it_ends_in_the_same_bytes(live, undisturbed, tmp_path, method):
    generator = np.random.default_rng(METHODS.index(method))
    for step in STEPS:
        fault = draw(generator, "SIGKILL", step, undisturbed[method])
        assert live(tmp_path / "life", method, fault) == -signal.SIGKILL
    assert live(tmp_path / "life", method) == 0
    assert left_in(tmp_path / "life") == undisturbed[method].left


def test_interrupted_wherever_files_are_handled_a_notebook_goes_on(live, undisturbed, tmp_path):
    found = undisturbed["map"]
    lines = [line for line in found.moments if line[0] == "features" and line[1] == "/files.py"]
    assert len(lines) > 20
    for number, (*moment, _) in enumerate(lines):
        folder = tmp_path / str(number)
        fault = {"kind": "SIGINT in a notebook", "moment": [*moment, 1], "size": 0}
        assert live(folder, "map", fault) == 0, folder.with_suffix(".log").read_text()
        assert "KeyboardInterrupt" in folder.with_suffix(".log").read_text()
        assert left_in(folder) == found.left
