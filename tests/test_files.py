"""Atomic writes, exclusive locks, and one sentence where the disk or a file is not as it should be."""

import errno
import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from full_disk import full_disk

from lib.files import atomic_write, check_space, exclusive, or_damaged, place_of, write_json


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write(path, content):
    with atomic_write(path) as aside:
        aside.write_bytes(content)


@pytest.mark.parametrize("folder", [False, True])
def test_what_is_written_is_there_whole_or_not_at_all(tmp_path, folder):
    path = tmp_path / "made" / "result"

    def write(interrupted):
        with atomic_write(path) as aside:
            aside.mkdir() if folder else aside.write_text("content")
            assert not path.exists()
            if interrupted:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(interrupted=True)
    assert list(path.parent.iterdir()) == []
    write(interrupted=False)
    assert list(path.parent.iterdir()) == [path]
    assert path.is_dir() == folder


def test_a_disk_that_fills_up_is_said_and_leaves_what_was_there(tmp_path):
    path = tmp_path / "result"
    path.write_text("earlier")
    with full_disk(after=1_000), pytest.raises(OSError, match=f"the disk of {re.escape(str(tmp_path))} is full"):
        write(path, bytes(2_000))
    assert contents(tmp_path) == {"result": b"earlier"}


@pytest.mark.parametrize("begin", [atomic_write, exclusive])
def test_a_file_in_the_place_of_the_folder(tmp_path, begin):
    (tmp_path / "results").write_text("mine")
    with pytest.raises(OSError, match=r"results is no folder; move away what is there"):
        begin(tmp_path / "results" / "table.csv").__enter__()
    assert contents(tmp_path) == {"results": b"mine"}


def test_a_folder_in_the_place_of_the_file_is_left_alone(tmp_path):
    (tmp_path / "table.csv").mkdir()
    (tmp_path / "table.csv" / "mine").touch()
    with pytest.raises(OSError, match=r"table\.csv is a folder that is not empty; move it away"):
        write(tmp_path / "table.csv", b"content")
    assert contents(tmp_path) == {"table.csv/mine": b""}


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
@pytest.mark.parametrize("begin", [atomic_write, exclusive])
def test_a_folder_that_cannot_be_written_to(tmp_path, begin):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="cannot be written to; give another folder"):
        begin(tmp_path / "table.csv").__enter__()
    tmp_path.chmod(0o700)
    assert contents(tmp_path) == {}


def test_what_a_killed_process_left_is_deleted_by_the_next_and_nothing_else(tmp_path):
    path = tmp_path / "run"
    names = [".run.k3j_9x2a.aside/run", "run/.history.csv.abcdefgh.aside/history.csv"]
    others = [".runs.k3j_9x2a.aside/runs", ".run.mine", "run/history.csv", "run/.mine"]
    for name in names + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    with exclusive(path):
        assert contents(tmp_path).keys() == {*others, ".run.lock"}
    assert contents(tmp_path).keys() == set(others)


def test_a_failure_does_not_keep_others_out(tmp_path):
    with pytest.raises(KeyboardInterrupt), exclusive(tmp_path / "run"):
        raise KeyboardInterrupt
    with exclusive(tmp_path / "run"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_whoever_is_not_to_wait_is_refused_in_the_given_words(tmp_path):
    holds = "import sys; from pathlib import Path; from lib.files import exclusive\n"
    holds += "with exclusive(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", holds, tmp_path / "run"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(RuntimeError, match=r"^It is taken\.$"):
            exclusive(tmp_path / "run", refusal="It is taken.").__enter__()
        first.communicate()
    with exclusive(tmp_path / "run", refusal="It is taken."):
        pass
    assert list(tmp_path.iterdir()) == []


def test_room_is_asked_for_on_the_disk_where_the_folder_will_be(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    check_space("a table", free // 2, tmp_path / "yet" / "to" / "be")
    with pytest.raises(OSError, match=r"a table: 1e\+09 GB are needed on the disk of .*be, where") as raised:
        check_space("a table", 10**18, tmp_path / "yet" / "to" / "be")
    assert raised.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file"), ValueError("no\nJSON"), KeyError("seed")])
def test_a_file_that_is_not_what_it_should_be_is_named_in_a_line(tmp_path, error):
    says = r"run\.json is damaged or missing \(.*\); train again$"
    with pytest.raises(ValueError, match=says) as raised, or_damaged(tmp_path / "run.json", "train again"):
        raise error
    assert raised.value.__cause__ is error


def test_json_is_written_whole(tmp_path):
    write_json(tmp_path / "made" / "run.json", {"seed": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "made" / "run.json", {"seed": object()})
    assert contents(tmp_path) == {"made/run.json": b'{\n  "seed": 1\n}\n'}


# Links


@pytest.mark.parametrize("target", ["empty", "yet", "parent/yet"])
@pytest.mark.parametrize("lock", [False, True])
def test_a_folder_is_made_where_a_link_leads_and_the_link_stays(tmp_path, target, lock):
    (tmp_path / "disk" / "empty").mkdir(parents=True)
    (tmp_path / "parent").symlink_to("disk")
    link = tmp_path / "hd"
    link.symlink_to(target if target.startswith("parent") else f"disk/{target}")
    with exclusive(link), atomic_write(link) as aside:
        assert aside.parents[1] == tmp_path / "disk"  # of the same disk as the target
        aside.mkdir()
        (aside / "list.txt").write_text("x")
    assert link.is_symlink()
    assert contents(tmp_path / "disk") == {f"{Path(target).name}/list.txt": b"x"}
    assert not list(tmp_path.rglob(".*"))


def test_a_file_is_written_where_a_link_leads(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "table.csv").write_text("earlier")
    (tmp_path / "table.csv").symlink_to("disk/table.csv")
    write(tmp_path / "table.csv", b"later")
    assert (tmp_path / "table.csv").is_symlink()
    assert contents(tmp_path / "disk") == {"table.csv": b"later"}


@pytest.mark.parametrize("target", ["no/disk", "hd"])
@pytest.mark.parametrize("begin", [atomic_write, exclusive])
@pytest.mark.parametrize("of", ["hd", "hd/audio"])
def test_a_link_to_nowhere_is_said_before_the_work(tmp_path, target, begin, of):
    (tmp_path / "hd").symlink_to(target)
    with pytest.raises(OSError, match=f"hd is a link to {target}, for which there is no folder; make one or delete"):
        begin(tmp_path / of).__enter__()
    assert os.listdir(tmp_path) == ["hd"]


def test_what_cannot_be_replaced_is_said_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "disk")
    (tmp_path / "hd").symlink_to("disk")
    with pytest.raises(OSError, match=r"hd is a disk's own folder; give one in it, such as .*hd/data"):
        exclusive(tmp_path / "hd").__enter__()
    assert place_of(tmp_path / "hd" / "data") == tmp_path / "disk" / "data"


# Disks without locks


@pytest.fixture
def refused_lock(monkeypatch):
    """A function after which the system refuses locks with this number."""

    def refuse(number):
        def flock(*_):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)

    return refuse


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_that_refuses_locks_is_named_and_nothing_is_left(tmp_path, refused_lock, number):
    refused_lock(number)
    says = f"the disk of {re.escape(str(tmp_path))} does not know locks; give a folder of another, or mount it"
    with pytest.raises(OSError, match=says) as raised:
        exclusive(tmp_path / "run").__enter__()
    assert raised.value.errno == number
    assert os.listdir(tmp_path) == []


@pytest.mark.filterwarnings("ignore:flock not supported")
@pytest.mark.parametrize(
    ("mark", "says"),
    [("123\nnode7\n", "; should process 123 on node7 be no more, delete"), ("", "; should there be none, delete")],
)
def test_a_lock_that_another_host_left_is_named(tmp_path, refused_lock, mark, says):
    refused_lock(errno.ENOSYS)
    with exclusive(tmp_path / "run"):
        assert (tmp_path / ".run.lock").exists()
    (tmp_path / ".run.lock").write_text(mark)
    with pytest.raises(RuntimeError, match=rf"^It is taken{says}.*\.run\.lock$"):
        exclusive(tmp_path / "run", refusal="It is taken").__enter__()


def test_a_file_in_use_is_not_called_damaged(tmp_path):
    with pytest.raises(BlockingIOError, match="in use"), or_damaged(tmp_path / "shd.h5", "restore it"):
        raise BlockingIOError(errno.EAGAIN, "in use")
