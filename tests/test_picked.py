"""Parts of Speech Commands by their lists: what is picked by content, what is missing, what is refused."""

import shutil
from hashlib import blake2b
from pathlib import Path

import pytest

from lib.datasets import picked
from lib.datasets.sc import SC, hashed_part
from lib.study import tables

ELEVEN = tables.DATA / "sc-11-words"


@pytest.fixture
def world(tmp_path):
    """Two releases that number the same takes otherwise, and a list of what is wanted of them."""
    first, second = tmp_path / "v1", tmp_path / "v2"
    wanted = {}
    for at, (place, word, speaker, take, name) in enumerate((
        (first, "bed", "a1", 0, "bed/a1_nohash_0.wav"),
        (first, "bed", "a1", 1, "bed/a1_nohash_100.wav"),
        (second, "cat", "b2", 7, "cat/b2_nohash_0.wav"),
        (second, "cat", "c3", 0, "cat/c3_nohash_0.wav"),
    )):  # fmt: skip
        path = place / word / f"{speaker}_nohash_{take}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"take %d" % at)
        wanted[name] = blake2b(b"take %d" % at, digest_size=8).hexdigest()
    path = tmp_path / "list.txt"
    path.write_text("".join(f"{of}  {name}\n" for name, of in wanted.items()))
    return tmp_path


def run(world: Path, *archives: str) -> int:
    return picked.main([str(world / "list.txt"), str(world / "part"), *(str(world / one) for one in archives)])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.wav")}


def test_recordings_are_found_by_content_under_whatever_name(world, capsys):
    assert run(world, "v1", "v2") == 0
    assert "part holds 4 of 4 recordings." in capsys.readouterr().out
    assert contents(world / "part") == {
        "bed/a1_nohash_0.wav": b"take 0",
        "bed/a1_nohash_100.wav": b"take 1",
        "cat/b2_nohash_0.wav": b"take 2",
        "cat/c3_nohash_0.wav": b"take 3",
    }
    for part in ("validation", "test"):
        expected = [name for name in contents(world / "part") if hashed_part(name[4:6], 10, 20) == part]
        name = {"validation": "validation_list.txt", "test": "testing_list.txt"}[part]
        assert (world / "part" / name).read_text().split() == sorted(expected)


def test_what_is_in_none_of_the_archives_is_counted_and_comes_with_the_other(world, capsys):
    assert run(world, "v1") == 1
    said = capsys.readouterr()
    assert "part holds 2 of 4 recordings." in said.out
    assert "In none of the archives: cat 2; the first is cat/b2_nohash_0.wav. Give the other release, too." in said.err
    assert run(world, "v2") == 0
    assert len(contents(world / "part")) == 4


def test_a_recording_with_another_content_is_replaced(world):
    run(world, "v1", "v2")
    (world / "part/bed/a1_nohash_0.wav").write_bytes(b"half a t")
    assert run(world, "v1", "v2") == 0
    assert contents(world / "part")["bed/a1_nohash_0.wav"] == b"take 0"


@pytest.mark.parametrize("line", ["bed/a1_nohash_0.wav", "0123456789abcdef  /bed/a.wav", "0123456789abcdef  ../a.wav"])
def test_what_is_no_list_is_refused_with_its_line(world, capsys, line):
    with (world / "list.txt").open("a") as file:
        file.write(f"{line}\n")
    assert run(world, "v1") == 1
    assert "list.txt, line 5: expected 16 digits" in capsys.readouterr().err
    assert not (world / "part").exists()


def test_a_folder_that_is_no_release_is_refused(world, capsys):
    (world / "empty").mkdir()
    assert run(world, "empty") == 1
    assert "empty has none of the folders bed, cat: name where a release was unpacked" in capsys.readouterr().err


@pytest.mark.skipif(not ELEVEN.is_dir(), reason="no real recordings beside the repository")
def test_the_eleven_words_are_picked_whole(tmp_path):
    wanted = picked.listed(tables.RESULTS / "sc-11-words-recordings.txt")
    for name in list(wanted)[::500]:
        other = tmp_path / "archive" / name.replace("_nohash_", "_nohash_7")
        other.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ELEVEN / name, other)
    some = {name: wanted[name] for name in list(wanted)[::500]}
    assert picked.pick(some, tmp_path / "part", [tmp_path / "archive"]) == []
    assert set(SC.load(tmp_path / "part").paths) == set(some)
