"""Downloads against a server on this machine: what arrives whole, and what is refused with nothing left behind."""

import dataclasses
import errno
import functools
import gzip
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
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from full_disk import full_disk

from lib import files
from lib.datasets import SETS, downloads
from lib.datasets.downloads import Source

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
def publish(server):
    """A function that publishes an archive of these files, and returns its path and where it comes from."""

    def make(contents=LAYOUT, members=(), **changes):
        path = archive(server.folder / "hd_audio.tar.gz", contents, members)
        sums = f"{'0' * 32}  hd_digits.h5.gz\n{digest(path, 'md5')}  hd_audio.tar.gz\n"
        (server.folder / "md5sums.txt").write_text(sums)
        source = Source((server.address,), "hd_audio.tar.gz", "md5sums.txt", "train_filenames.txt", 1_000_000)
        return path, source._replace(**changes)

    return make


def fetch(*sources, root):
    downloads.fetch("hd", sources, root)
    return contents(root)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_left(root, *names):
    """Beside the served folder there is nothing else."""
    assert {path.name for path in root.parent.iterdir()} - {"served"} == set(names)


@pytest.mark.parametrize("prefix", ["", "./", "hd_audio/", "some/where/"])
def test_the_outermost_layout_lands_directly_under_root(publish, tmp_path, prefix):
    older = {} if prefix else {"hd/test/aside/train_filenames.txt": b"an older list"}
    path, source = publish(older | {prefix + name: content for name, content in LAYOUT.items()})
    root = tmp_path / "new" / "hd"
    found = fetch(source, root=root)
    record = json.loads(found.pop("download.json"))
    assert found == older | LAYOUT
    assert record["checksum"] == "md5:" + digest(path, "md5")
    assert record["url"].endswith("/hd_audio.tar.gz")
    assert [path.name for path in root.parent.iterdir()] == ["hd"]


def test_a_known_checksum_needs_no_list_and_the_name_here_may_be_another(server, tmp_path):
    path = archive(server.folder / "v1.tar.gz", {"digits-1/recordings/0_theo_0.wav": b"sound"})
    checksum = "sha256:" + digest(path, "sha256")
    source = Source((server.address,), "digits.tar.gz", checksum, "recordings", 10**6, remote_name="v1.tar.gz")
    assert fetch(source, root=tmp_path / "fsdd")["recordings/0_theo_0.wav"] == b"sound"


def test_an_empty_folder_is_filled_and_another_is_refused(publish, tmp_path):
    _, source = publish()
    (tmp_path / "empty").mkdir()
    assert fetch(source, root=tmp_path / "empty").keys() >= LAYOUT.keys()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    with pytest.raises(ValueError, match="does not hold 'hd'"):
        fetch(source, root=tmp_path / "thesis")
    assert contents(tmp_path / "thesis") == {"chapter.tex": b"precious"}


def test_a_data_set_is_downloaded_where_there_is_nothing(publish, server, tmp_path):
    _, source = publish()
    dataset = dataclasses.replace(SETS["hd"], sources=(source,))
    dataset.prepare(tmp_path / "hd")
    assert contents(tmp_path / "hd").keys() >= LAYOUT.keys()
    (tmp_path / "hd" / "train_filenames.txt").write_text("mine")
    assert fetch(source, root=tmp_path / "hd")["train_filenames.txt"] == b"mine"
    (tmp_path / "hd" / "train_filenames.txt").unlink()  # what is placed by hand is for the loader to judge
    dataset.prepare(tmp_path / "hd")
    assert server.asked == [None]


def unlist(path):
    (path.parent / "md5sums.txt").write_text("")


@pytest.mark.parametrize(
    ("damage", "kind", "words"),
    [
        (lambda path: archive(path, {"another": b"set"}), ValueError, "is not the published archive of 'hd'"),
        (unlist, ValueError, r"md5sums\.txt does not list hd_audio\.tar\.gz"),
        (lambda path: path.unlink(), ConnectionError, r"hd_audio\.tar\.gz answers 404 .*check the network"),
    ],
    ids=["another archive", "no checksum", "no archive"],
)
def test_what_is_not_the_published_archive_is_refused(publish, tmp_path, damage, kind, words):
    path, source = publish()
    damage(path)
    with pytest.raises(kind, match=words):
        fetch(source, root=tmp_path / "hd")
    assert_left(tmp_path / "hd")


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("placed", [True, False])
def test_a_link_to_another_disk_is_filled_there(publish, server, tmp_path, there, placed):
    path, source = publish()
    (tmp_path / "disk").mkdir()
    if there:
        (tmp_path / "disk" / "hd").mkdir()
    (tmp_path / "hd").symlink_to("disk/hd")
    server.breaks = [] if placed else [0]
    if placed:
        shutil.copy(path, tmp_path)
    else:
        with pytest.raises(ConnectionError):
            fetch(source, root=tmp_path / "hd")
        assert [one.name for one in (tmp_path / "disk").iterdir() if one.is_file()] == ["hd_audio.tar.gz.part"]
    assert fetch(source, root=tmp_path / "hd").keys() >= LAYOUT.keys()
    assert (tmp_path / "hd").is_symlink()
    assert_left(tmp_path / "hd", "hd", "disk")
    assert_left(tmp_path / "disk" / "hd", "hd")


def test_a_link_to_nowhere_is_said_before_anything_is_fetched(publish, server, tmp_path):
    _, source = publish()
    (tmp_path / "hd").symlink_to("no/disk")
    with pytest.raises(OSError, match="hd is a link to no/disk, for which there is no folder; make one"):
        fetch(source, root=tmp_path / "hd")
    assert server.asked == []


# What breaks off. Archives of several chunks, so that connections can break within them.
LONG = LAYOUT | {"audio/long.flac": random.Random(0).randbytes(5 * downloads.CHUNK)}


@pytest.mark.parametrize("ranges", [True, False])
def test_a_connection_that_breaks_is_taken_up_again_where_the_server_can(publish, server, tmp_path, ranges):
    _, source = publish(LONG)
    server.ranges, server.breaks = ranges, [downloads.CHUNK, 2 * downloads.CHUNK]
    assert fetch(source, root=tmp_path / "hd").keys() >= LONG.keys()
    ends = [1, 3] if ranges else [1, 2]
    assert server.asked == [None, *(f"bytes={end * downloads.CHUNK}-" for end in ends)]
    assert_left(tmp_path / "hd", "hd")


class Interrupted(downloads.tqdm):
    """Ctrl-C after the first two chunks."""

    def update(self, n=1):
        super().update(n)
        if self.n >= 2 * downloads.CHUNK:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("obstacle", "kind", "words"),
    [
        ("connection", ConnectionError, r"hd_audio\.tar\.gz breaks off before the end.*run again, which goes on"),
        ("disk", OSError, r"the disk of .* is full.*make room"),
        ("user", KeyboardInterrupt, None),
    ],
)
def test_what_has_arrived_is_left_for_the_next_call(publish, server, tmp_path, monkeypatch, obstacle, kind, words):
    path, source = publish(LONG)
    server.breaks = [2 * downloads.CHUNK, 0] if obstacle == "connection" else []
    if obstacle == "user":
        monkeypatch.setattr(downloads, "tqdm", Interrupted)
    full = full_disk(after=2 * downloads.CHUNK) if obstacle == "disk" else nullcontext()
    with full, pytest.raises(kind, match=words):
        fetch(source, root=tmp_path / "hd")
    monkeypatch.undo()
    assert_left(tmp_path / "hd", "hd_audio.tar.gz.part")
    assert (tmp_path / "hd_audio.tar.gz.part").read_bytes() == path.read_bytes()[: 2 * downloads.CHUNK]
    server.asked.clear()
    assert fetch(source, root=tmp_path / "hd").keys() >= LONG.keys()
    assert server.asked == [f"bytes={2 * downloads.CHUNK}-"]
    assert_left(tmp_path / "hd", "hd")


def test_a_server_that_begins_anew_each_time_is_given_up_where_it_gets_no_further(publish, server, tmp_path):
    _, source = publish(LONG)
    server.ranges, server.breaks = False, [3 * downloads.CHUNK, 2 * downloads.CHUNK]
    with pytest.raises(ConnectionError, match="breaks off before the end"):
        fetch(source, root=tmp_path / "hd")
    assert len(server.asked) == 2


def test_a_process_that_ended_between_the_last_byte_and_the_check_costs_nothing(publish, server, tmp_path):
    path, source = publish(LONG)
    shutil.copy(path, tmp_path / "hd_audio.tar.gz.part")
    assert fetch(source, root=tmp_path / "hd").keys() >= LONG.keys()
    assert len(server.asked) == 1


def test_a_part_of_something_else_is_refused_and_the_next_call_begins_anew(publish, server, tmp_path):
    _, source = publish(LONG)
    (tmp_path / "hd_audio.tar.gz.part").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"its checksum is not md5:[0-9a-f]{32}, and nothing was kept: run again"):
        fetch(source, root=tmp_path / "hd")
    assert_left(tmp_path / "hd")
    assert fetch(source, root=tmp_path / "hd").keys() >= LONG.keys()
    assert server.asked == ["bytes=14-", None]


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
def test_what_went_wrong_is_said_in_a_few_words(publish, tmp_path, monkeypatch, error, words):
    def get(*_, **__):
        raise error

    monkeypatch.setattr(requests, "get", get)
    with pytest.raises(ConnectionError, match=rf"hd_audio.tar.gz {words}.*check the network.*by hand"):
        fetch(publish()[1], root=tmp_path / "hd")


def test_the_next_server_is_tried(publish, server, tmp_path):
    _, source = publish(folders=("http://127.0.0.1:9/", server.address))  # the discard port, where nothing listens
    assert json.loads(fetch(source, root=tmp_path / "hd")["download.json"])["url"].startswith(server.address)


# What is unpacked


def member(name, kind=tarfile.REGTYPE, **fields):
    one = tarfile.TarInfo(name)
    one.type = kind
    for field, value in fields.items():
        setattr(one, field, value)
    return one


# A file that is nothing but a hole: no byte of it lies in the archive.
HOLE = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(10**15)}
OUTSIDE, LARGE = "a link, a device or outside", r"it takes more than the 0\.001 GB that the set has"
REFUSED = {
    "parent": (LAYOUT | {"../outside.txt": b"x"}, [], OUTSIDE),
    "absolute": (LAYOUT | {"/outside-for-a-test.txt": b"x"}, [], OUTSIDE),
    "symbolic link": (LAYOUT, [member("audio/in.flac", tarfile.SYMTYPE, linkname="../train_filenames.txt")], OUTSIDE),
    "link out": (LAYOUT, [member("audio", tarfile.SYMTYPE, linkname="/")], OUTSIDE),
    "hard link": (LAYOUT, [member("audio/hard.flac", tarfile.LNKTYPE, linkname="train_filenames.txt")], OUTSIDE),
    "device": (LAYOUT, [member("audio/null", tarfile.CHRTYPE)], OUTSIDE),
    "something else": ({"readme.txt": b"hello"}, [], r"there is no 'train_filenames\.txt' in it"),
    "a vast file": (LAYOUT, [member("audio/vast.flac", pax_headers=HOLE)], LARGE),
    "a crowd of empty files": (LAYOUT, [tarfile.TarInfo(f"audio/{number}.flac") for number in range(300)], LARGE),
    "a name twice": (LAYOUT, [tarfile.TarInfo("train_filenames.txt")], r"train_filenames\.txt"),
    "a file as folder": (LAYOUT, [tarfile.TarInfo("train_filenames.txt/inside.flac")], r"train_filenames\.txt"),
}


@pytest.mark.parametrize("archived", REFUSED)
def test_another_content_than_the_set_s_is_refused_and_nothing_is_unpacked(publish, tmp_path, archived):
    contents, members, words = REFUSED[archived]
    _, source = publish(contents, members)
    with pytest.raises(ValueError, match=f"not a whole archive of this set .*{words}.*nothing was unpacked"):
        fetch(source, root=tmp_path / "hd")
    assert_left(tmp_path / "hd", "hd_audio.tar.gz")


def test_too_little_room_is_said_before_anything_is_fetched(publish, server, tmp_path):
    _, source = publish(space=10**18)
    with pytest.raises(OSError, match=r"'hd': 2e\+09 GB are needed") as raised:
        fetch(source, source._replace(archive="more.tar.gz"), root=tmp_path / "hd")
    assert raised.value.errno == errno.ENOSPC
    assert server.asked == []
    assert_left(tmp_path / "hd")


def test_a_disk_that_fills_up_while_unpacking_leaves_the_archive_alone(publish, tmp_path):
    path, source = publish(LAYOUT | {"audio/silence.flac": bytes(100_000)})  # far smaller as it is packed
    shutil.copy(path, tmp_path)
    full = pytest.raises(OSError, match=f"the disk of {re.escape(str(tmp_path))} is full.*make room and run again")
    with full_disk(after=50_000), full:
        fetch(source, root=tmp_path / "hd")
    assert_left(tmp_path / "hd", "hd_audio.tar.gz")


def test_what_has_arrived_needs_no_more_room(publish, server, tmp_path, monkeypatch):
    path, source = publish(LONG, space=2_000_000)
    usage = shutil.disk_usage(tmp_path)._replace(free=2_000_000 - path.stat().st_size)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match="make room"):
        fetch(source, root=tmp_path / "hd")
    shutil.copy(path, tmp_path / "hd_audio.tar.gz.part")
    assert fetch(source, root=tmp_path / "hd")


def test_what_lies_in_the_archive_s_place_is_taken_or_refused_and_left_alone(publish, server, tmp_path):
    path, source = publish()
    (tmp_path / "hd_audio.tar.gz").write_text("mine")
    with pytest.raises(ValueError, match=r"hd_audio\.tar\.gz is not the published archive of 'hd'.*delete it"):
        fetch(source, root=tmp_path / "hd")
    assert (tmp_path / "hd_audio.tar.gz").read_text() == "mine"
    assert_left(tmp_path / "hd", "hd_audio.tar.gz")
    shutil.move(path, tmp_path / "hd_audio.tar.gz")
    assert fetch(source, root=tmp_path / "hd").keys() >= LAYOUT.keys()
    assert server.asked == []


# Two processes


def test_two_that_want_the_same_set_fetch_it_once(publish, server, tmp_path):
    _, source = publish(LONG)
    with ThreadPoolExecutor(2) as pool:
        first, second = (pool.submit(fetch, source, root=tmp_path / "hd") for _ in range(2))
        assert first.result() == second.result()
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


def test_whoever_waits_for_a_process_says_so_and_goes_on_when_it_is_killed(publish, tmp_path, monkeypatch):
    _, source = publish()
    told = queue.Queue()
    monkeypatch.setattr(files, "print", lambda text, **_: told.put(text), raising=False)
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "hd"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with first, ThreadPoolExecutor(1) as pool:
        assert first.stdout.readline() == "held\n"
        second = pool.submit(fetch, source, root=tmp_path / "hd")
        assert told.get(timeout=60) == f"Another process is making {tmp_path / 'hd'}; this one waits for it."
        assert not second.done()
        assert len([*tmp_path.glob(".hd.*.aside")]) == 1
        first.kill()
        assert second.result(timeout=60).keys() >= LAYOUT.keys()
    assert told.empty()
    assert_left(tmp_path / "hd", "hd")


# Sets whose parts are single compressed files

FILES = {f"set_{part}.h5": random.Random(part).randbytes(3 * downloads.CHUNK) for part in ("train", "test")}


def zipped(contents, **options):
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", **options) as members:
        for name, content in contents.items():
            members.writestr(name, content)
    return written.getvalue()


COMPRESSED = {
    "gz": {f"{name}.gz": gzip.compress(content) for name, content in FILES.items()},
    "zip": {f"{name}.zip": zipped({name: content}) for name, content in FILES.items()},
}


@pytest.fixture
def publish_files(server):
    """A function that publishes these compressed files, and returns where they come from."""

    def make(archives):
        for name, content in archives.items():
            (server.folder / name).write_bytes(content)
        return [
            Source((server.address,), name, f"md5:{hashlib.md5(content).hexdigest()}", name.rpartition(".")[0], 10**6)
            for name, content in archives.items()
        ]

    return make


@pytest.mark.parametrize("kind", COMPRESSED)
def test_the_files_land_directly_under_root(publish_files, tmp_path, kind):
    found = fetch(*publish_files(COMPRESSED[kind]), root=tmp_path / "new" / "shd")
    record = json.loads(found.pop("download.json"))
    assert found == FILES
    assert [archive["url"].rpartition("/")[2] for archive in record["archives"]] == list(COMPRESSED[kind])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["shd"]


def test_a_set_of_several_files_is_whole_or_absent(publish_files, server, tmp_path):
    sources = publish_files(COMPRESSED["gz"])
    server.breaks = [None, 2 * downloads.CHUNK, 0]
    with pytest.raises(ConnectionError, match=r"set_test\.h5\.gz breaks off before the end"):
        fetch(*sources, root=tmp_path / "shd")
    assert_left(tmp_path / "shd", "set_train.h5.gz", "set_test.h5.gz.part")
    server.asked.clear()
    assert fetch(*sources, root=tmp_path / "shd").keys() >= FILES.keys()
    assert server.asked == [f"bytes={2 * downloads.CHUNK}-"]
    assert_left(tmp_path / "shd", "shd")


VAST = zipped({"set_test.h5": bytes(3_000_000)}, compression=zipfile.ZIP_DEFLATED)
DAMAGED = {
    "gzip without its end": ("gz", gzip.compress(FILES["set_test.h5"])[:-20], "ended before the end"),
    "a vast gzip": ("gz", gzip.compress(bytes(3_000_000)), LARGE),
    "a vast file in a ZIP": ("zip", VAST, LARGE),
    "a ZIP without its end": ("zip", zipped({"set_test.h5": b"spikes" * 100})[:-30], "not a zip file"),
    "a ZIP of two files": ("zip", zipped({"set_test.h5": b"1", "readme.txt": b"2"}), "holds 'set_test.h5', 'readme"),
    "a ZIP of another file": ("zip", zipped({"../set_test.h5": b"1"}), r"holds '\.\./set_test\.h5' and not 'set_test"),
    "an empty ZIP": ("zip", zipped({}), "it holds nothing and not 'set_test.h5' alone"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_refused_and_nothing_is_unpacked(publish_files, tmp_path, damage):
    kind, content, words = DAMAGED[damage]
    sources = publish_files(COMPRESSED[kind] | {f"set_test.h5.{kind}": content})
    match = rf"set_test\.h5\.{kind} is not a whole archive .*({words}).*delete it"
    with pytest.raises(ValueError, match=match) as told:
        fetch(*sources, root=tmp_path / "shd")
    assert "\n" not in str(told.value)
    assert_left(tmp_path / "shd", f"set_train.h5.{kind}", f"set_test.h5.{kind}")


def test_the_published_sources_are_those_of_the_publishers():
    heidelberg = ("https://zenkelab.org/datasets/", "https://compneuro.net/datasets/")
    folders = {name: {source.folders for source in one.sources} for name, one in SETS.items() if one.sources}
    assert folders == {
        **{name: {heidelberg} for name in ("hd", "shd", "ssc")},
        "sc": {("https://storage.googleapis.com/download.tensorflow.org/data/",)},
        "fsdd": {("https://github.com/Jakobovski/free-spoken-digit-dataset/archive/",)},
    }
    assert [source.mark for source in SETS["ssc"].sources] == ["ssc_train.h5", "ssc_valid.h5", "ssc_test.h5"]
    packed = {
        name: {source.archive.removeprefix(source.mark) for source in SETS[name].sources} for name in ("shd", "ssc")
    }
    assert packed == {"shd": {".gz"}, "ssc": {".zip"}}
