"""Downloads against a server on this machine: what arrives whole, and what is refused with nothing left behind."""

import errno
import functools
import hashlib
import io
import json
import queue
import random
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from full_disk import full_disk

from lib import downloads, files
from lib.downloads import Source, fetch

LAYOUT = {
    "audio/lang-english_speaker-00_trial-0_digit-0.flac": b"sound",
    "train_filenames.txt": b"lang-english_speaker-00_trial-0_digit-0.flac\n",
    "test_filenames.txt": b"",
}


class Server(ThreadingHTTPServer):
    """Serves a folder on this machine."""

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.folder, self.address = folder, f"http://127.0.0.1:{self.server_port}/"
        self.ranges = True  # whether it gives files from where one asks
        self.breaks = []  # of each answer to come, after how many bytes of the file the connection breaks
        self.asked = []  # the ranges asked for, of archives


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        if not self.path.endswith((".gz", ".zip")):
            return super().do_GET()
        self.server.asked.append(self.headers["Range"])
        path = self.server.folder / self.path[1:]
        if not path.exists():
            return self.send_error(404)
        content, first, status = path.read_bytes(), 0, 200
        if self.headers["Range"] and self.server.ranges:
            first, status = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1]), 206
        if first >= len(content):
            return self.send_error(416)
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) - first))
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[first:][: self.server.breaks.pop(0) if self.server.breaks else None])
        self.close_connection = True


@pytest.fixture
def server(tmp_path):
    """A server of the folder "served", in which there is nothing yet."""
    folder = tmp_path / "served"
    folder.mkdir()
    with Server(folder) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield http
        http.shutdown()
        thread.join()


def archive(path, contents, members=()):
    """A gzipped archive of the files in `contents` and of further members as they are."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in members:
            tar.addfile(member)
    return path


def digest(path, algorithm):
    return hashlib.new(algorithm, path.read_bytes()).hexdigest()


@pytest.fixture
def hd(server, monkeypatch):
    """Make HD's source the local server: a function that sets the archive and its published sum."""

    def publish(contents=LAYOUT, members=(), md5=None, folders=(server.address,), space=1_000_000):
        path = archive(server.folder / "hd_audio.tar.gz", contents, members)
        md5 = md5 or digest(path, "md5")
        (server.folder / "md5sums.txt").write_text(f"{'0' * 32}  hd_digits.h5.gz\n{md5}  hd_audio.tar.gz\n")
        source = Source(folders, "hd_audio.tar.gz", "hd_audio.tar.gz", "md5sums.txt", "train_filenames.txt", space)
        monkeypatch.setitem(downloads.SOURCES, "hd", source)
        return path

    return publish


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_left(root, *names):
    """Beside the served folder there is nothing else."""
    assert {path.name for path in root.parent.iterdir()} - {"served"} == set(names)


@pytest.mark.parametrize("prefix", ["", "./", "hd_audio/", "some/where/"])
def test_the_layout_lands_directly_under_root(hd, tmp_path, prefix):
    path = hd({prefix + name: content for name, content in LAYOUT.items()})
    root = tmp_path / "new" / "hd"
    assert fetch("hd", root) == root
    found = contents(root)
    record = json.loads(found.pop("download.json"))
    assert found == LAYOUT
    assert record["checksum"] == "md5:" + digest(path, "md5")
    assert record["url"].endswith("/hd_audio.tar.gz")
    assert [path.name for path in root.parent.iterdir()] == ["hd"]


def test_the_layout_is_the_outermost_that_looks_like_it(hd, tmp_path):
    hd({"hd/aside/train_filenames.txt": b"an older list", "hd/test/aside/train_filenames.txt": b"and another"} | LAYOUT)
    assert contents(fetch("hd", tmp_path / "hd"))["train_filenames.txt"] == LAYOUT["train_filenames.txt"]


def test_a_known_checksum_needs_no_list(server, tmp_path, monkeypatch):
    path = archive(server.folder / "v1.tar.gz", {"digits-1/recordings/0_theo_0.wav": b"sound"})
    source = Source(
        (server.address,), "v1.tar.gz", "digits.tar.gz", "sha256:" + digest(path, "sha256"), "recordings", 10**6
    )
    monkeypatch.setitem(downloads.SOURCES, "fsdd", source)
    fetch("fsdd", tmp_path / "fsdd")
    assert contents(tmp_path / "fsdd")["recordings/0_theo_0.wav"] == b"sound"


def test_a_set_that_is_there_is_left_alone(hd, tmp_path, monkeypatch):
    hd()
    root = tmp_path / "hd"
    fetch("hd", root)
    (root / "train_filenames.txt").write_text("mine")
    monkeypatch.setitem(downloads.SOURCES, "hd", downloads.SOURCES["hd"]._replace(folders=()))
    assert fetch("hd", root) == root
    assert (root / "train_filenames.txt").read_text() == "mine"


def test_an_empty_folder_is_filled_and_another_is_refused(hd, tmp_path):
    hd()
    (tmp_path / "empty").mkdir()
    fetch("hd", tmp_path / "empty")
    assert contents(tmp_path / "empty").keys() >= LAYOUT.keys()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    with pytest.raises(ValueError, match="does not hold 'hd'"):
        fetch("hd", tmp_path / "thesis")
    assert contents(tmp_path / "thesis") == {"chapter.tex": b"precious"}


def test_unknown_name(tmp_path):
    with pytest.raises(ValueError, match=r"No set called 'timit'.*hd, sc, fsdd"):
        fetch("timit", tmp_path / "timit")


def test_a_wrong_checksum_is_refused(hd, tmp_path):
    hd(md5="1" * 32)
    with pytest.raises(ValueError, match="is not the published archive of 'hd'"):
        fetch("hd", tmp_path / "hd")
    assert_left(tmp_path / "hd")


def test_a_list_without_the_archive_is_refused(hd, server, tmp_path):
    hd()
    (server.folder / "md5sums.txt").write_text("")
    with pytest.raises(ValueError, match=r"md5sums.txt does not list hd_audio.tar.gz"):
        fetch("hd", tmp_path / "hd")
    assert_left(tmp_path / "hd")


# Archives of several chunks, so that connections can break within them.
LONG = LAYOUT | {"audio/long.flac": random.Random(0).randbytes(5 * downloads.CHUNK)}


@pytest.mark.parametrize("ranges", [True, False])
def test_a_connection_that_breaks_is_taken_up_again_where_the_server_can(hd, server, tmp_path, ranges):
    hd(LONG)
    server.ranges, server.breaks = ranges, [downloads.CHUNK, 2 * downloads.CHUNK]
    assert contents(fetch("hd", tmp_path / "hd")).keys() >= LONG.keys()
    ends = [1, 3] if ranges else [1, 2]
    assert server.asked == [None, *(f"bytes={end * downloads.CHUNK}-" for end in ends)]
    assert_left(tmp_path / "hd", "hd")


def test_what_has_arrived_is_kept_for_the_next_call(hd, server, tmp_path):
    content = hd(LONG).read_bytes()
    server.breaks = [3 * downloads.CHUNK, 0]
    with pytest.raises(ConnectionError, match=r"hd_audio\.tar\.gz breaks off before the end.*run again, which goes on"):
        fetch("hd", tmp_path / "hd")
    assert_left(tmp_path / "hd", "hd_audio.tar.gz.part")
    assert (tmp_path / "hd_audio.tar.gz.part").read_bytes() == content[: 3 * downloads.CHUNK]
    server.asked.clear()
    assert contents(fetch("hd", tmp_path / "hd")).keys() >= LONG.keys()
    assert server.asked == [f"bytes={3 * downloads.CHUNK}-"]
    assert_left(tmp_path / "hd", "hd")


def test_a_server_that_begins_anew_each_time_is_given_up_where_it_gets_no_further(hd, server, tmp_path):
    hd(LONG)
    server.ranges, server.breaks = False, [3 * downloads.CHUNK, 2 * downloads.CHUNK]
    with pytest.raises(ConnectionError, match="breaks off before the end"):
        fetch("hd", tmp_path / "hd")
    assert len(server.asked) == 2


def test_a_process_that_ended_between_the_last_byte_and_the_check_costs_nothing(hd, server, tmp_path):
    shutil.copy(hd(LONG), tmp_path / "hd_audio.tar.gz.part")
    assert contents(fetch("hd", tmp_path / "hd")).keys() >= LONG.keys()
    assert len(server.asked) == 1


def test_a_part_of_something_else_is_refused_and_the_next_call_begins_anew(hd, server, tmp_path):
    hd(LONG)
    (tmp_path / "hd_audio.tar.gz.part").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"its checksum is not md5:[0-9a-f]{32}; nothing was kept: run again"):
        fetch("hd", tmp_path / "hd")
    assert_left(tmp_path / "hd")
    assert contents(fetch("hd", tmp_path / "hd")).keys() >= LONG.keys()
    assert server.asked == ["bytes=14-", None]


def test_an_interruption_keeps_what_has_arrived(hd, server, tmp_path, monkeypatch):
    hd(LONG)

    class Interrupted(downloads.tqdm):
        def update(self, n=1):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(downloads, "tqdm", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch("hd", tmp_path / "hd")
    assert_left(tmp_path / "hd", "hd_audio.tar.gz.part")
    fetch("hd", tmp_path / "hd")
    assert server.asked == [None, f"bytes={downloads.CHUNK}-"]


def test_a_server_without_the_archive(hd, tmp_path):
    hd().unlink()
    with pytest.raises(ConnectionError, match=r"hd_audio\.tar\.gz answers 404 .*check the network"):
        fetch("hd", tmp_path / "hd")
    assert_left(tmp_path / "hd")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (requests.exceptions.SSLError(), "has a certificate that is not trusted here"),
        (requests.ConnectTimeout(), "does not answer"),
        (requests.ReadTimeout(), "does not answer"),
        (requests.ConnectionError(), "cannot be reached"),
        (requests.exceptions.ChunkedEncodingError(), "breaks off before the end"),
    ],
    ids=repr,
)
def test_what_went_wrong_is_said_in_a_few_words(hd, tmp_path, monkeypatch, error, words):
    hd()

    def get(*_, **__):
        raise error

    monkeypatch.setattr(requests, "get", get)
    with pytest.raises(ConnectionError, match=f"hd_audio.tar.gz {words}"):
        fetch("hd", tmp_path / "hd")


def test_without_a_server_the_sentence_says_what_to_do(hd, tmp_path):
    hd(folders=("http://127.0.0.1:9/",))  # the discard port, where nothing listens
    with pytest.raises(
        ConnectionError, match=r"127\.0\.0\.1:9/hd_audio\.tar\.gz cannot be reached.*check the network.*by hand"
    ):
        fetch("hd", tmp_path / "hd")
    assert_left(tmp_path / "hd")


def test_the_next_server_is_tried(hd, server, tmp_path):
    hd(folders=("http://127.0.0.1:9/", server.address))
    fetch("hd", tmp_path / "hd")
    assert json.loads((tmp_path / "hd" / "download.json").read_text())["url"].startswith(server.address)


def link(name, target, kind=tarfile.SYMTYPE):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def sparse(name, size):
    """A file that is nothing but a hole: no byte of it lies in the archive."""
    member = tarfile.TarInfo(name)
    member.type = tarfile.REGTYPE
    member.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(size)}
    return member


def device(name):
    member = tarfile.TarInfo(name)
    member.type = tarfile.CHRTYPE
    return member


@pytest.mark.parametrize(
    ("contents", "members"),
    [
        ({"../outside.txt": b"x"}, []),
        ({"audio/../../outside.txt": b"x"}, []),
        ({"/outside-for-a-test.txt": b"x"}, []),
        ({}, [link("audio/inside.flac", "../train_filenames.txt")]),
        ({}, [link("audio", "/")]),
        ({}, [link("audio/hard.flac", "train_filenames.txt", tarfile.LNKTYPE)]),
        ({}, [device("audio/null")]),
    ],
    ids=["parent", "hidden parent", "absolute", "symbolic link", "link out", "hard link", "device"],
)
def test_a_member_that_could_leave_the_folder_is_refused(hd, tmp_path, contents, members):
    hd(LAYOUT | contents, members)
    with pytest.raises(ValueError, match="a link, a device or outside"):
        fetch("hd", tmp_path / "hd")
    assert_left(tmp_path / "hd", "hd_audio.tar.gz")


def test_a_truncated_archive_with_the_published_sum_is_refused(hd, server, tmp_path):
    path = hd(LAYOUT | {"audio/long.flac": bytes(range(256)) * 1000})
    path.write_bytes(path.read_bytes()[:-200])
    (server.folder / "md5sums.txt").write_text(f"{digest(path, 'md5')}  hd_audio.tar.gz\n")
    with pytest.raises(ValueError, match="is not a whole archive of this set"):
        fetch("hd", tmp_path / "hd")
    assert_left(tmp_path / "hd", "hd_audio.tar.gz")


def test_an_archive_of_something_else_is_refused(hd, tmp_path):
    hd({"readme.txt": b"hello"})
    with pytest.raises(ValueError, match=r"not a whole archive.*there is no 'train_filenames\.txt' in it"):
        fetch("hd", tmp_path / "hd")
    assert_left(tmp_path / "hd", "hd_audio.tar.gz")


def test_too_little_room_is_said_before_anything_is_fetched(hd, tmp_path):
    hd(space=10**18)
    with pytest.raises(OSError, match=r"'hd': 1e\+09 GB are needed") as raised:
        fetch("hd", tmp_path / "hd")
    assert raised.value.errno == errno.ENOSPC
    assert_left(tmp_path / "hd")


def test_a_disk_that_fills_up_while_unpacking_leaves_the_archive_alone(hd, tmp_path, monkeypatch):
    hd()
    copy = shutil.copyfileobj

    def full(source, target):
        if not isinstance(source, tarfile.ExFileObject):  # the server's own
            return copy(source, target)
        target.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError, match=f"the disk of {re.escape(str(tmp_path))} is full.*make room and run again"):
        fetch("hd", tmp_path / "hd")
    assert_left(tmp_path / "hd", "hd_audio.tar.gz")


def test_what_has_arrived_needs_no_more_room(hd, server, tmp_path, monkeypatch):
    path = hd(LONG, space=2_000_000)
    usage = shutil.disk_usage(tmp_path)._replace(free=2_000_000 - path.stat().st_size)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match="make room"):
        fetch("hd", tmp_path / "hd")
    shutil.move(path, tmp_path / "hd_audio.tar.gz.part")
    path.write_bytes((tmp_path / "hd_audio.tar.gz.part").read_bytes())
    assert fetch("hd", tmp_path / "hd").is_dir()


def test_a_disk_that_fills_up_while_fetching_keeps_what_has_arrived(hd, server, tmp_path):
    hd(LONG)
    with full_disk(after=2 * downloads.CHUNK), pytest.raises(OSError, match=r"the disk of .* is full.*make room"):
        fetch("hd", tmp_path / "hd")
    assert_left(tmp_path / "hd", "hd_audio.tar.gz.part")
    fetch("hd", tmp_path / "hd")
    assert server.asked == [None, f"bytes={2 * downloads.CHUNK}-"]


@pytest.mark.parametrize(
    "members",
    [[sparse("audio/vast.flac", size=10**15)], [tarfile.TarInfo(f"audio/{number}.flac") for number in range(300)]],
    ids=["a vast file", "a crowd of empty files"],
)
def test_an_archive_of_more_than_the_set_has_is_refused(hd, tmp_path, members):
    hd(LAYOUT, members)
    with pytest.raises(ValueError, match=r"it takes more than the 0\.001 GB that the set has\); nothing was unpacked"):
        fetch("hd", tmp_path / "hd")
    assert_left(tmp_path / "hd", "hd_audio.tar.gz")


@pytest.mark.parametrize("again", ["train_filenames.txt", "train_filenames.txt/inside.flac"])
def test_an_archive_that_holds_a_name_twice_is_refused(hd, tmp_path, again):
    hd(LAYOUT, [tarfile.TarInfo(again)])
    with pytest.raises(ValueError, match=r"not a whole archive.*train_filenames\.txt.*nothing was unpacked"):
        fetch("hd", tmp_path / "hd")
    assert_left(tmp_path / "hd", "hd_audio.tar.gz")


def test_an_archive_placed_by_hand_is_not_fetched_again(hd, server, tmp_path):
    path = hd()
    shutil.move(path, tmp_path / "hd_audio.tar.gz")
    fetch("hd", tmp_path / "hd")
    assert contents(tmp_path / "hd").keys() >= LAYOUT.keys()


def test_another_file_in_the_archive_s_place_is_refused_and_left_alone(hd, tmp_path):
    hd()
    (tmp_path / "hd_audio.tar.gz").write_text("mine")
    with pytest.raises(ValueError, match=r"hd_audio\.tar\.gz is not the published archive of 'hd'.*delete it"):
        fetch("hd", tmp_path / "hd")
    assert (tmp_path / "hd_audio.tar.gz").read_text() == "mine"
    assert_left(tmp_path / "hd", "hd_audio.tar.gz")


def test_two_that_want_the_same_set_fetch_it_once(hd, server, tmp_path):
    hd(LONG)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(fetch, ["hd"] * 2, [tmp_path / "hd"] * 2)) == [tmp_path / "hd"] * 2
    assert server.asked == [None]
    assert_left(tmp_path / "hd", "hd")


HOLD = """
import sys
from pathlib import Path
from lib.files import exclusive, atomic_write
with exclusive(Path(sys.argv[1])), atomic_write(Path(sys.argv[1])) as aside:
    aside.write_text("half")
    print("held", flush=True)
    sys.stdin.read()
"""


def test_whoever_waits_for_a_process_says_so_and_goes_on_when_it_is_killed(hd, tmp_path, monkeypatch):
    hd()
    told = queue.Queue()
    monkeypatch.setattr(files, "print", lambda text, **_: told.put(text), raising=False)
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "hd"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with first, ThreadPoolExecutor(1) as pool:
        assert first.stdout.readline() == "held\n"
        second = pool.submit(fetch, "hd", tmp_path / "hd")
        assert told.get(timeout=60) == f"Another process is making {tmp_path / 'hd'}; this one waits for it."
        assert not second.done()
        assert len([*tmp_path.glob(".hd.*.aside")]) == 1
        first.kill()
        assert contents(second.result(timeout=60)).keys() >= LAYOUT.keys()
    assert told.empty()
    assert_left(tmp_path / "hd", "hd")


def test_the_published_sources_are_those_of_the_publishers():
    addresses = {name: [f + s.remote_name for f in s.folders] for name, s in downloads.SOURCES.items()}
    assert addresses == {
        "hd": ["https://zenkelab.org/datasets/hd_audio.tar.gz", "https://compneuro.net/datasets/hd_audio.tar.gz"],
        "sc": ["https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz"],
        "fsdd": ["https://github.com/Jakobovski/free-spoken-digit-dataset/archive/v1.0.9.tar.gz"],
    }
