"""The fuzzing of readers finds what it is for: a reader that fails, ends the process, never answers or is wrong."""

import os
import random
import time

import fuzz
import pytest
from fuzz_readers import Reader
from mutations import mutated, renamed


@pytest.fixture
def world(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "number.txt").write_text("12345678 1.5e-3")
    return tmp_path


def reader(act):
    """Of a file whose numbers add up to something; what is done where they do not."""

    def read(world):
        path = world / "notes" / "number.txt"
        try:
            return sum(map(float, path.read_text().split()))
        except ValueError:
            return act(path)

    return Reader(("notes",), ("notes/*.txt",), read, lambda value, valid: value != "wrong")


def refuse(path):
    raise ValueError(f"{path} holds no numbers")


def refuse_nameless(path):
    raise ValueError("no numbers")


def fail(path):
    raise KeyError("no numbers")


ACTS = {
    "refusal": (refuse, None),
    "no name": (refuse_nameless, "ValueError that names no file"),
    "another error": (fail, "KeyError: .*no numbers"),
    "the end": (lambda path: os._exit(139), "the process ends with 139"),
    "no answer": (lambda path: time.sleep(60), "no answer in 1 seconds"),
    "wrong": (lambda path: "wrong", "a value that cannot be"),
}


@pytest.mark.parametrize("act", ACTS)
def test_what_is_not_right_is_found_with_its_seed(world, monkeypatch, capsys, act):
    monkeypatch.setattr(fuzz, "SECONDS", 1)
    does, says = ACTS[act]
    found = fuzz.fuzz("toy", reader(does), world, range(5))
    said = capsys.readouterr().out
    assert (found > 0) == (says is not None)
    if says:
        seed = int(fuzz.re.search(rf"first with seed (\d+): {says}", said)[1])
        assert fuzz.fuzz("toy", reader(does), world, range(seed, seed + 1)) == 1
    assert (world / "notes" / "number.txt").read_text() == "12345678 1.5e-3"


def test_damage_follows_from_the_seed_and_is_of_every_kind():
    content = b"epoch,loss\n1,0.5\n"
    first, again = ([mutated(content, random.Random(seed)) for seed in range(200)] for _ in range(2))
    assert first == again
    assert {len(one) < len(content) for one in first} == {len(one) > len(content) for one in first} == {True, False}
    assert any(b"1e999" in one for one in first)
    names = {renamed("0_theo_0.wav", random.Random(seed)) for seed in range(200)}
    assert {"0_theo_0.WAV", "._0_theo_0.wav", "0_theo_0 (1).wav"} <= names
    assert not any("/" in name or "\0" in name or not name for name in names)
