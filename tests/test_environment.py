"""What the environment lacks is done without: a home, a name, a cache of kernels, a checkout that can be written."""

import errno
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest
import small_world
from full_disk import full_disk

from lib import files, pages, runs
from lib.fast import compiling
from lib.setup import Setup

ROOT = Path(__file__).resolve().parents[1]
# A user of whom the system knows a number alone, in a checkout beside whose source numba cannot write: what is left to
# it is "~/.cache".
NAMELESS = """
import pwd
from numba.core import caching

def getpwuid(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")

pwd.getpwuid = getpwuid
caching.InTreeCacheLocator.from_function = lambda *_: None

import torch
from types import SimpleNamespace
from lib.network import SpikingClassifier, fast
from lib.trainers import train_ivon, train_map

network = SpikingClassifier(5, 3, (8, 8))
examples = SimpleNamespace(features=torch.randn(6, 10, 5), labels=torch.arange(6) % 3)
for train in (train_map, train_ivon):
    train(network, examples, examples, epochs=1)
assert fast.proven(type(network.layers[0]), "cpu")
"""
KERNEL = """
from lib.fast.compiling import compiled

@compiled
def twice(number):
    return 2 * number
"""


def test_training_needs_no_home_no_name_and_no_place_for_a_cache(tmp_path):
    lacking = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in lacking}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    command = [sys.executable, "-c", NAMELESS]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert not list(tmp_path.iterdir())  # above all no folder that is called "~"


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Compiles a kernel as a new process would, and calls it; its cache is in the folder ``cache``."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "kernel.py").write_text(KERNEL)

    def run() -> int:
        compiling.warn_once.cache_clear()
        spec = importlib.util.spec_from_file_location("kernel", tmp_path / "kernel.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.twice(3) == 6
        return sum(module.twice.stats.cache_hits.values())

    return run


def test_kernels_are_kept_and_found_again(kernel):
    assert [kernel(), kernel()] == [0, 1]


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        ("nbi", b""),
        ("nbc", b""),
        ("nbi", b"\x80\x05cut"),
        ("nbc", b"\x80\x05cut"),
        ("nbi", bytes(99)),
        ("nbc", b"I1\n."),
    ],
)
def test_a_damaged_cache_of_kernels_is_written_anew_and_said(kernel, tmp_path, ending, content):
    kernel()
    (damaged,) = (tmp_path / "cache").rglob(f"*.{ending}")
    damaged.write_bytes(content)
    with pytest.warns(UserWarning, match="the cache in .* is damaged: what it lacks is compiled anew"):
        kernel()
    assert kernel() == 1


def test_a_full_disk_under_the_cache_of_kernels_costs_the_cache_alone(kernel):
    with full_disk(), pytest.warns(UserWarning, match="compiled kernels cannot be kept in .*; make room there"):
        kernel()
    assert [kernel(), kernel()] == [0, 1]


def test_kernels_are_compiled_without_a_cache_where_no_folder_can_be_written(kernel, monkeypatch, tmp_path):
    monkeypatch.setattr(compiling.Places, "_locator_classes", [])
    assert [kernel(), kernel()] == [0, 0]
    assert not (tmp_path / "cache").exists()


def test_jupyter_is_given_a_home_where_there_is_none_and_else_left_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    pages.need_a_home()
    assert os.environ["HOME"] == str(tmp_path)

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    pages.need_a_home()
    assert not Path(os.environ["HOME"]).exists()


@pytest.fixture
def read_only(tmp_path, monkeypatch):
    """A checkout's data that cannot be written, for root neither: as on a file system that is mounted so."""
    (tmp_path / "data").mkdir()
    small_world.make(tmp_path / "world")
    monkeypatch.setattr(runs, "DATA", tmp_path / "data")
    access = os.access
    monkeypatch.setattr(
        files.os, "access", lambda path, mode: "data" not in Path(path).parts[-2:] and access(path, mode)
    )
    return tmp_path


def test_in_a_read_only_checkout_features_are_kept_with_the_results(read_only):
    setup, root = Setup.of(small_world.TOY), read_only / "world/sc"
    with pytest.raises(OSError, match=r"data/features cannot be written to; give results_root") as refused:
        runs.load_frames(setup, root)
    assert refused.value.errno == errno.EACCES
    runs.load_frames(setup, root, results_root=read_only / "mine")
    assert list((read_only / "mine/features").glob("sc-*.npy"))
    assert not list((read_only / "data").iterdir())
