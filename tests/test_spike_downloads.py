"""Downloads of single compressed files: what of them is unpacked, and what is refused with nothing left behind."""

import gzip
import hashlib
import io
import json
import random
import zipfile

import pytest
from test_downloads import assert_left, contents, server  # noqa: F401

from lib import downloads
from lib.downloads import fetch, sources
from lib.downloads.sources import sources_of

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
def publish(server, monkeypatch):  # noqa: F811
    """A function that serves these archives as the set "shd", each with a bound on its size."""

    def serve(archives, space=1_000_000):
        for name, content in archives.items():
            (server.folder / name).write_bytes(content)
        table = {name: (hashlib.md5(content).hexdigest(), space) for name, content in archives.items()}
        monkeypatch.setitem(sources.SPIKE_FILES, "shd", table)
        monkeypatch.setattr(sources, "HEIDELBERG", (server.address,))

    return serve


@pytest.mark.parametrize("kind", COMPRESSED)
def test_the_files_land_directly_under_root(publish, tmp_path, kind):
    publish(COMPRESSED[kind])
    found = contents(fetch("shd", tmp_path / "new" / "shd"))
    record = json.loads(found.pop("download.json"))
    assert found == FILES
    assert [archive["url"].rpartition("/")[2] for archive in record["archives"]] == list(COMPRESSED[kind])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["shd"]


def test_what_has_arrived_is_kept_and_the_set_is_whole_or_absent(publish, server, tmp_path):  # noqa: F811
    publish(COMPRESSED["gz"])
    server.breaks = [None, 2 * downloads.CHUNK, 0]
    with pytest.raises(ConnectionError, match=r"set_test\.h5\.gz breaks off before the end"):
        fetch("shd", tmp_path / "shd")
    assert_left(tmp_path / "shd", "set_train.h5.gz", "set_test.h5.gz.part")
    server.asked.clear()
    assert contents(fetch("shd", tmp_path / "shd")).keys() >= FILES.keys()
    assert server.asked == [f"bytes={2 * downloads.CHUNK}-"]
    assert_left(tmp_path / "shd", "shd")


def test_the_room_for_all_files_is_asked_for_first(publish, server, tmp_path):  # noqa: F811
    publish(COMPRESSED["gz"], space=10**18)
    with pytest.raises(OSError, match=r"'shd': 2e\+09 GB are needed"):
        fetch("shd", tmp_path / "shd")
    assert server.asked == []


DAMAGED = {
    "gzip without its end": ("gz", gzip.compress(FILES["set_test.h5"])[:-20], "ended before the end"),
    "no gzip": ("gz", b"words" * 100, "Not a gzipped file"),
    "a gzip with a byte changed": ("gz", None, "CRC|Error|invalid"),
    "a vast gzip": ("gz", gzip.compress(bytes(3_000_000)), "more than the 0.001 GB that the set has"),
    "a vast file in a ZIP": (
        "zip",
        zipped({"set_test.h5": bytes(3_000_000)}, compression=zipfile.ZIP_DEFLATED),
        "more than the 0.001 GB",
    ),
    "a ZIP without its end": ("zip", zipped({"set_test.h5": b"spikes" * 100})[:-30], "not a zip file"),
    "a ZIP of two files": ("zip", zipped({"set_test.h5": b"1", "readme.txt": b"2"}), "holds 'set_test.h5', 'readme"),
    "a ZIP of another file": ("zip", zipped({"../set_test.h5": b"1"}), r"holds '\.\./set_test\.h5' and not 'set_test"),
    "an empty ZIP": ("zip", zipped({}), "it holds nothing and not 'set_test.h5' alone"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_another_content_is_refused_and_nothing_is_unpacked(publish, tmp_path, damage):
    kind, content, words = DAMAGED[damage]
    if content is None:
        content = bytearray(COMPRESSED["gz"]["set_test.h5.gz"])
        content[5_000] ^= 255
    publish(COMPRESSED[kind] | {f"set_test.h5.{kind}": bytes(content)})
    with pytest.raises(
        ValueError, match=rf"set_test\.h5\.{kind} is not a whole archive .*({words}).*delete it"
    ) as told:
        fetch("shd", tmp_path / "shd")
    assert "\n" not in str(told.value)
    assert_left(tmp_path / "shd", f"set_train.h5.{kind}", f"set_test.h5.{kind}")


def test_a_wrong_checksum_is_refused(publish, server, tmp_path):  # noqa: F811
    publish(COMPRESSED["zip"])
    (server.folder / "set_train.h5.zip").write_bytes(COMPRESSED["zip"]["set_test.h5.zip"])
    with pytest.raises(ValueError, match=r"set_train\.h5\.zip is not the published archive of 'shd'"):
        fetch("shd", tmp_path / "shd")
    assert_left(tmp_path / "shd")


def test_the_published_files_are_those_of_the_publishers():
    addresses = {
        name: [source.folders[0] + source.remote_name for source in sources_of(name)] for name in ("shd", "ssc")
    }
    assert addresses == {
        "shd": [f"https://zenkelab.org/datasets/shd_{part}.h5.gz" for part in ("train", "test")],
        "ssc": [f"https://zenkelab.org/datasets/ssc_{part}.h5.zip" for part in ("train", "valid", "test")],
    }
    assert [source.mark for source in sources_of("ssc")] == ["ssc_train.h5", "ssc_valid.h5", "ssc_test.h5"]
