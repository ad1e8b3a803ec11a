"""Downloads against a server on this machine: what arrives whole, and what is refused with nothing left behind."""

import errno
import functools
import hashlib
import io
import json
import shutil
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lib import downloads
from lib.downloads import Source, fetch, written_aside

LAYOUT = {
    "audio/lang-english_speaker-00_trial-0_digit-0.flac": b"sound",
    "train_filenames.txt": b"lang-english_speaker-00_trial-0_digit-0.flac\n",
    "test_filenames.txt": b"",
}


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves a folder without writing of it; addresses that start with /short are cut short."""

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        if not self.path.startswith("/short"):
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"too little")
        self.close_connection = True


@pytest.fixture
def server(tmp_path):
    """The folder that is served, and its address."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{http.server_port}/"
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
    folder, address = server

    def publish(contents=LAYOUT, members=(), md5=None, folders=(address,), space=1_000):
        path = archive(folder / "hd_audio.tar.gz", contents, members)
        md5 = md5 or digest(path, "md5")
        (folder / "md5sums.txt").write_text(f"{'0' * 32}  hd_digits.h5.gz\n{md5}  hd_audio.tar.gz\n")
        source = Source(folders, "hd_audio.tar.gz", "hd_audio.tar.gz", "md5sums.txt", "train_filenames.txt", space)
        monkeypatch.setitem(downloads.SOURCES, "hd", source)
        return path

    return publish


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_nothing_left(root, archive_stays=False):
    """Beside the served folder there is nothing but, where it may stay, the archive."""
    names = {path.name for path in root.parent.iterdir()} - {"served"}
    assert names == ({"hd_audio.tar.gz"} if archive_stays else set())


@pytest.mark.parametrize("prefix", ["", "./", "hd_audio/", "some/where/"])
def test_the_layout_lands_directly_under_root(hd, tmp_path, prefix):
    path = hd({prefix + name: content for name, content in LAYOUT.items()})
    root = tmp_path / "new" / "hd"
    assert fetch("hd", root) == root
    found = files(root)
    record = json.loads(found.pop("download.json"))
    assert found == LAYOUT
    assert record["checksum"] == "md5:" + digest(path, "md5")
    assert record["url"].endswith("/hd_audio.tar.gz")
    assert [path.name for path in root.parent.iterdir()] == ["hd"]


def test_the_layout_is_the_outermost_that_looks_like_it(hd, tmp_path):
    hd({"hd/aside/train_filenames.txt": b"an older list", "hd/test/aside/train_filenames.txt": b"and another"} | LAYOUT)
    assert files(fetch("hd", tmp_path / "hd"))["train_filenames.txt"] == LAYOUT["train_filenames.txt"]


def test_a_known_checksum_needs_no_list(server, tmp_path, monkeypatch):
    folder, address = server
    path = archive(folder / "v1.tar.gz", {"digits-1/recordings/0_theo_0.wav": b"sound"})
    source = Source((address,), "v1.tar.gz", "digits.tar.gz", "sha256:" + digest(path, "sha256"), "recordings", 1)
    monkeypatch.setitem(downloads.SOURCES, "fsdd", source)
    fetch("fsdd", tmp_path / "fsdd")
    assert files(tmp_path / "fsdd")["recordings/0_theo_0.wav"] == b"sound"


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
    assert files(tmp_path / "empty").keys() >= LAYOUT.keys()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    with pytest.raises(ValueError, match="does not hold 'hd'"):
        fetch("hd", tmp_path / "thesis")
    assert files(tmp_path / "thesis") == {"chapter.tex": b"precious"}


def test_unknown_name(tmp_path):
    with pytest.raises(ValueError, match=r"No set called 'timit'.*hd, sc, fsdd"):
        fetch("timit", tmp_path / "timit")


def test_a_wrong_checksum_is_refused(hd, tmp_path):
    hd(md5="1" * 32)
    with pytest.raises(ValueError, match="is not the published archive of 'hd'"):
        fetch("hd", tmp_path / "hd")
    assert_nothing_left(tmp_path / "hd")


def test_a_list_without_the_archive_is_refused(hd, server, tmp_path):
    hd()
    (server[0] / "md5sums.txt").write_text("")
    with pytest.raises(ValueError, match=r"md5sums.txt does not list hd_audio.tar.gz"):
        fetch("hd", tmp_path / "hd")
    assert_nothing_left(tmp_path / "hd")


def test_a_transfer_cut_short_is_refused(hd, server, tmp_path):
    path = hd()
    source = downloads.SOURCES["hd"]
    short = source._replace(remote_name="short.tar.gz", checksum="md5:" + digest(path, "md5"))
    downloads.SOURCES["hd"] = short
    with pytest.raises(ConnectionError, match="cannot be downloaded"):
        fetch("hd", tmp_path / "hd")
    assert_nothing_left(tmp_path / "hd")


def test_without_a_server_the_sentence_says_what_to_do(hd, tmp_path):
    hd(folders=("http://127.0.0.1:9/",))  # the discard port, where nothing listens
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:9.*check the network.*by hand"):
        fetch("hd", tmp_path / "hd")
    assert_nothing_left(tmp_path / "hd")


def test_the_next_server_is_tried(hd, server, tmp_path):
    hd(folders=("http://127.0.0.1:9/", server[1]))
    fetch("hd", tmp_path / "hd")
    assert json.loads((tmp_path / "hd" / "download.json").read_text())["url"].startswith(server[1])


def link(name, target, kind=tarfile.SYMTYPE):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
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
    assert_nothing_left(tmp_path / "hd", archive_stays=True)


def test_a_truncated_archive_with_the_published_sum_is_refused(hd, server, tmp_path):
    path = hd(LAYOUT | {"audio/long.flac": bytes(range(256)) * 1000})
    path.write_bytes(path.read_bytes()[:-200])
    (server[0] / "md5sums.txt").write_text(f"{digest(path, 'md5')}  hd_audio.tar.gz\n")
    with pytest.raises(ValueError, match="is not a whole archive"):
        fetch("hd", tmp_path / "hd")
    assert_nothing_left(tmp_path / "hd", archive_stays=True)


def test_an_archive_of_something_else_is_refused(hd, tmp_path):
    hd({"readme.txt": b"hello"})
    with pytest.raises(ValueError, match=r"does not hold 'train_filenames\.txt'"):
        fetch("hd", tmp_path / "hd")
    assert_nothing_left(tmp_path / "hd", archive_stays=True)


def test_too_little_room_is_said_before_anything_is_fetched(hd, tmp_path):
    hd(space=10**18)
    with pytest.raises(OSError, match=r"needs 1e\+09 GB") as raised:
        fetch("hd", tmp_path / "hd")
    assert raised.value.errno == errno.ENOSPC
    assert_nothing_left(tmp_path / "hd")


def test_a_disk_that_fills_up_while_unpacking_leaves_the_archive_alone(hd, tmp_path, monkeypatch):
    hd()
    copy = shutil.copyfileobj

    def full(source, target):
        if not isinstance(source, tarfile.ExFileObject):  # the server's own
            return copy(source, target)
        target.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="is full; 'hd' was not placed"):
        fetch("hd", tmp_path / "hd")
    assert_nothing_left(tmp_path / "hd", archive_stays=True)


def test_an_archive_placed_by_hand_is_not_fetched_again(hd, server, tmp_path):
    path = hd()
    shutil.move(path, tmp_path / "hd_audio.tar.gz")
    fetch("hd", tmp_path / "hd")
    assert files(tmp_path / "hd").keys() >= LAYOUT.keys()


def test_the_published_sources_are_those_of_the_publishers():
    addresses = {name: [f + s.remote_name for f in s.folders] for name, s in downloads.SOURCES.items()}
    assert addresses == {
        "hd": ["https://zenkelab.org/datasets/hd_audio.tar.gz", "https://compneuro.net/datasets/hd_audio.tar.gz"],
        "sc": ["https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz"],
        "fsdd": ["https://github.com/Jakobovski/free-spoken-digit-dataset/archive/v1.0.9.tar.gz"],
    }


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_written_aside_is_there_whole_or_not_at_all(tmp_path, kind):
    path = tmp_path / "made" / "result"

    def write(interrupted):
        with written_aside(path) as aside:
            if kind == "folder":
                aside.mkdir()
            (aside / "inside.txt" if kind == "folder" else aside).write_text("content")
            assert not path.exists()
            if interrupted:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(interrupted=True)
    assert list(path.parent.iterdir()) == []
    write(interrupted=False)
    assert list(path.parent.iterdir()) == [path]
