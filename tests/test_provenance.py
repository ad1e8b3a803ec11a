"""What a record says of the code and the machine, and what it must not say."""

import json
import os
import platform
import shutil
import subprocess
from importlib.metadata import version

import pytest
import torch

from lib import provenance


def test_the_machine_is_described_and_not_named():
    machine = provenance.machine()
    assert set(machine) == {"system", "processor", "instructions", "cores", "threads", "gpu"}
    assert machine["cores"] == os.cpu_count()
    assert machine["threads"] == torch.get_num_threads()
    assert machine["processor"]
    assert platform.node() not in machine.values()


@pytest.mark.skipif(shutil.which("lscpu") is None, reason="lscpu is not installed")
def test_the_processor_is_the_one_that_the_system_lists():
    told = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout
    assert provenance.processor() in told


def test_the_record_can_be_written_and_holds_no_place():
    record = provenance.here()
    written = json.dumps(record)
    assert json.loads(written) == record
    assert os.getcwd() not in written
    assert record["versions"]["torch"] == version("torch")


def test_the_commit_is_the_repository_s(monkeypatch):
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    if head:
        assert head.startswith(provenance.commit().removesuffix("-dirty"))
    monkeypatch.setattr(shutil, "which", lambda program: None)
    assert provenance.commit() is None


def test_a_commit_is_dirty_where_its_code_was_changed_and_not_where_its_results_were(monkeypatch, tmp_path):
    code, results = tmp_path / "lib" / "code.py", tmp_path / "data" / "results" / "table.csv"
    monkeypatch.setattr(provenance, "__file__", str(code))
    for path in (code, results):
        path.parent.mkdir(parents=True)
        path.write_text("1")
    assert provenance.commit() is None
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b.example"]
    for do in (["init"], ["add", "."], ["commit", "-m", "first"]):
        subprocess.run([*git, *do], check=True, capture_output=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    results.write_text("2")
    (tmp_path / "new").write_text("1")
    assert provenance.commit() == head[:12]
    code.write_text("2")
    assert provenance.commit() == f"{head[:12]}-dirty"
