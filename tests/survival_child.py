"""Lives of one command, each in a process forked off this one, and a fault at one moment of a life.

``python survival_child.py ARCHIVE`` reads lives from its standard input, one as JSON a line, and answers each with its
exit code as ``subprocess`` has it. The command unpacks the archive, extracts features, trains a network, evaluates it
and writes the table. A moment is a step of the command, a line of the library that is about to run, and for the
how-manieth time in this step: whatever line runs can be one, on whatever thread.
"""

import gc
import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType

import torch
from tqdm import tqdm

import lib
from lib import datasets, runs
from lib.setup import setup_of
from lib.study import tables

LIB = str(Path(lib.__file__).parent)
STEPS = ("unpacking", "features", "training", "evaluation")
SETTINGS = {
    "split": "official",
    "num_frames": 20,
    "hidden_sizes": [16],
    "batch_size": 6,
    "dropout": 0.2,
    "patience": 0,
}
# So fast that the schedule has to slow it down, and ends when the best epoch is over.
OF_METHOD = {
    "map": {"learning_rate": 0.5, "epochs": 6},
    "ivon": {"learning_rate": 2.0, "epochs": 10, "freeze_norm_after": 2},
}


def command(folder: Path, archive: Path, method: str, begin: Callable[[str], None]) -> None:
    """All steps; whatever is lost or kept in a life lies in ``folder``."""
    runs.DATA = folder
    checksum, fsdd = hashlib.sha256(archive.read_bytes()).hexdigest(), datasets.SETS["fsdd"]
    source = fsdd.sources[0]._replace(archive=archive.name, checksum=f"sha256:{checksum}", space=2_000_000)
    datasets.SETS["fsdd"] = replace(fsdd, sources=(source,))
    if not folder.exists():
        folder.mkdir()
        shutil.copy(archive, folder)
    setup = setup_of(SETTINGS | OF_METHOD[method], dataset="fsdd", method=method, seed=3)
    begin("unpacking")
    datasets.get("fsdd").prepare(folder / "fsdd")
    begin("features")
    frames = runs.load_frames(setup, folder / "fsdd")
    begin("training")
    run = runs.train(setup, frames)
    begin("evaluation")
    tables.write_table1({run: runs.evaluate(run, frames, samples=3, bins=5)}, folder / "runs")


class Moments:
    """Counts the moments of a life, and lets the fault happen at its own."""

    def __init__(self, fault: dict | None) -> None:
        self.fault = fault
        self.step = ""
        self.counts: Counter[tuple[str, str, int]] = Counter()
        self.lock = threading.Lock()

    def begin(self, step: str) -> None:
        self.step = step

    def __enter__(self) -> "Moments":
        threading.settrace(self.of_call)
        sys.settrace(self.of_call)
        return self

    def __exit__(self, *_) -> None:
        sys.settrace(None)
        threading.settrace(None)

    def of_call(self, frame: FrameType, event: str, argument: object) -> Callable | None:
        return self.of_line if frame.f_code.co_filename.startswith(LIB) else None

    def of_line(self, frame: FrameType, event: str, argument: object) -> Callable:
        if event == "line":
            moment = (self.step, frame.f_code.co_filename.removeprefix(LIB), frame.f_lineno)
            with self.lock:
                self.counts[moment] += 1
                struck = self.fault and [*moment, self.counts[moment]] == self.fault["moment"]
            if struck:
                strike(self.fault["kind"], self.fault["size"])
        return self.of_line


def strike(kind: str, size: int) -> None:
    """End this process, interrupt it, or let no file grow beyond ``size`` bytes."""
    if kind == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind in ("SIGINT", "SIGINT in a notebook"):
        os.kill(os.getpid(), signal.SIGINT)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def live(folder: str, archive: str, method: str, fault: dict | None, moments: str | None) -> int:
    with open(f"{folder}.log", "w") as told:
        os.dup2(told.fileno(), 1)
        os.dup2(told.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
    if fault and fault["kind"] == "SIGXFSZ":  # killed in the middle of a write; Python would get an error from it
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        with Moments(fault) as watch:
            command(Path(folder), Path(archive), method, watch.begin)
    except (Exception, KeyboardInterrupt):
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        traceback.print_exc()
        if fault["kind"] != "SIGINT in a notebook":
            return 1
        command(Path(folder), Path(archive), method, watch.begin)  # whose cell is run once more
    if moments:
        Path(moments).write_text(json.dumps([[*moment, count] for moment, count in sorted(watch.counts.items())]))
    return 0


def main(archive: Path) -> None:
    torch.set_num_threads(1)
    tqdm.monitor_interval = 0  # no thread may be there to be lost in a fork,
    tqdm.set_lock(threading.RLock())  # and no lock be shared with a life that is killed
    for method in OF_METHOD:  # what is compiled or loaded at first use, all lives then share
        command(archive.with_name(f"first-{method}"), archive, method, lambda step: None)
    gc.freeze()
    for line in sys.stdin:
        if not (child := os.fork()):
            os._exit(live(**json.loads(line)))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
