"""Settings: what does not fit is refused in one sentence, and what fits is there as it was given."""

import argparse
import json
import math
import re
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, dataclass
from datetime import date
from pathlib import Path
from typing import ClassVar

import pytest

from lib.settings import (
    BOOLEAN,
    FOLDER,
    TEXT,
    Settings,
    choice,
    folder_argument,
    folder_named,
    optional,
    read_yaml,
    real,
    setting,
    several,
    whole,
)

WHOLE, NUMBER = "it must be a whole number from 1 up", "it must be a number above 0 up to 100"


@dataclass(frozen=True)
class Bread(Settings):
    title: ClassVar[str] = "bread"

    loaves: int = setting(2, whole(1), search=[1, 2, 4])
    rise: float = setting(0.5, real(0, 100, above=True), search=(0.01, 1.0))
    salt: float = setting(0.02, real(0, 1))
    flour: str = setting("rye", choice("rye", "wheat"))
    hours: Sequence[int] = setting([1, 2], several(whole(1)))
    seeds: str | None = setting(None, optional(choice("poppy", "sesame")))
    sour: bool = setting(True, BOOLEAN, before=False)
    baker: str = setting("me", TEXT)
    oven: str | None = setting(None, optional(FOLDER), before="old")


def test_what_is_given_replaces_the_defaults():
    bread = Bread.from_mapping({"loaves": 4, "rise": 1, "hours": (3,), "oven": Path("oven")})
    assert bread == Bread(loaves=4, rise=1, hours=(3,), oven=Path("oven"))
    assert bread.as_dict() == Bread().as_dict() | {"loaves": 4, "rise": 1, "hours": (3,), "oven": Path("oven")}
    assert Bread.from_mapping({}) == Bread()
    assert tuple(Bread().as_dict()) == Bread.names()
    json.dumps(Bread().as_dict())
    with pytest.raises(FrozenInstanceError):
        bread.loaves = 3


def test_a_default_list_belongs_to_one_object():
    Bread().hours.append(3)
    assert Bread().hours == [1, 2]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("loaves", 0, WHOLE),
        ("loaves", 1.0, WHOLE),
        ("loaves", True, WHOLE),
        ("loaves", "1", WHOLE),
        ("loaves", None, WHOLE),
        ("loaves", math.inf, WHOLE),
        ("rise", 0, NUMBER),
        ("rise", "1e-4", NUMBER),  # how YAML reads 1e-4
        ("rise", math.nan, NUMBER),
        ("rise", math.inf, NUMBER),
        ("rise", 100.5, NUMBER),
        ("rise", 10**400, NUMBER),
        ("rise", True, NUMBER),
        ("rise", [0.1], NUMBER),
        ("rise", 1 + 2j, NUMBER),
        ("salt", -1e-9, "it must be a number from 0 up to 1"),
        ("flour", "oats", "it must be one of rye, wheat"),
        ("flour", ["rye"], "it must be one of rye, wheat"),
        ("hours", 1, "it must be a list, of each item a whole number from 1"),
        ("hours", [], "it must be a list"),
        ("hours", [1, 0], "it must be a list"),
        ("hours", "12", "it must be a list"),
        ("seeds", "chia", "it must be one of poppy, sesame, or None"),
        ("sour", 1, "it must be True or False"),
        ("baker", "", "it must be a name"),
        ("baker", 70, "it must be a name"),
        ("oven", "", "it must be a folder, or None"),
        ("oven", 3, "it must be a folder, or None"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_value_that_does_not_fit_is_refused_in_one_sentence(name, value, words):
    with pytest.raises(ValueError, match=f"^{name} = ") as refused:
        Bread.from_mapping({name: value})
    message = str(refused.value)
    assert message.startswith(f"{name} = {value!r} does not fit: {words}")
    assert "\n" not in message


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"^bread takes no loafs: its settings are loaves, rise, salt, flour"):
        Bread.from_mapping({"loaves": 2, "loafs": 3})


def test_what_trials_try_stands_beside_the_settings():
    assert Bread.search_space() == {"loaves": [1, 2, 4], "rise": (0.01, 1.0)}


def test_a_setting_added_later_says_what_older_runs_had_and_renames_none_of_them():
    assert Bread.before() == {"sour": False, "oven": "old"}
    older = Bread(sour=False, oven="old")
    assert older.identity() == {name: value for name, value in Bread().as_dict().items() if name not in Bread.before()}
    assert Bread().identity() == Bread().as_dict()


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("rise", "1e-3", "write 0.001"),  # how YAML 1.1 reads 1e-3
        ("rise", "1e-5", "write 1.0e-05"),
        ("loaves", 30.0, "write 30"),
        ("loaves", "3", "write 3"),
        ("hours", "[8, 8]", "write [8, 8], for papermill -y 'hours: [8, 8]'"),
        ("hours", "8, 8", "write [8, 8], for papermill -y 'hours: [8, 8]'"),
        ("hours", 8, "write [8], for papermill -y 'hours: [8]'"),
        ("seeds", "None", "write null"),
        ("sour", "yes", "write true"),
        ("sour", "off", "write false"),
        ("baker", False, "put it in quotes: without them YAML reads"),
        ("baker", date(2024, 1, 1), "put it in quotes: without them YAML reads"),
    ],
    ids=repr,
)
def test_what_nearly_fits_is_told_as_it_is_to_be_written(name, value, remedy):
    with pytest.raises(ValueError, match=f"^{name} = ") as refused:
        Bread.from_mapping({name: value})
    assert f"; {remedy}" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("value", ["1_0", "1:30", "10%", "0,1", "90", "", "[", "{", "&"])
def test_what_cannot_be_meant_is_refused_without_a_guess(value):
    with pytest.raises(ValueError, match=r"^salt = .* does not fit: it must be a number from 0 up to 1$"):
        Bread(salt=value)


# Files


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("1e-3", 0.001), ("1.0E+2", 100.0), (".1", 0.1), ("5.", 5.0), ("-.inf", -math.inf), ("010", 10), ("+4", 4),
        ("-3", -3), ("true", True), ("False", False), ("null", None), ("~", None), ("", None), ("None", "None"),
        ("none", "none"), ("no", "no"), ("on", "on"), ("yes", "yes"), ("off", "off"), ("but no, yes", "but no, yes"),
        ("[no, on, off, yes, up]", ["no", "on", "off", "yes", "up"]), ("1:30", "1:30"), ("2024-01-01", "2024-01-01"),
        ("1_0", "1_0"), ("0x1f", "0x1f"), ("{no: 1}", {"no": 1}), ("'010'", "010"), ("1e", "1e"), (".", "."),
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_what_is_typed_is_what_is_read(tmp_path, typed, value, encoding):
    path = tmp_path / "my.yml"
    path.write_bytes(f"ü: {typed}\r\n".encode(encoding))
    assert read_yaml(path) == {"ü": value}
    assert type(read_yaml(path)["ü"]) is type(value)


def test_mappings_can_be_merged(tmp_path):
    (tmp_path / "my.yml").write_text("base: &b {epochs: 3, seed: 1}\nmap: {<<: *b, seed: 2}\n")
    assert read_yaml(tmp_path / "my.yml")["map"] == {"epochs": 3, "seed": 2}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a:\n\tb: 1", "line 2.*; indent with spaces, not with tabs"),
        (b"a: 1\n---\nb: 2", "expected a single document"),
        (b"a: 1\nb: 2\na: 3", "'a' stands twice.* line 1"),
        (b"a: [1", "expected ',' or ']'"),
        (b"a: \xff", "invalid start byte"),
        (b"a: \0", "special characters are not allowed"),
        (b"a: !!int one", "invalid literal"),
        (b"a: !!timestamp one", ""),
        (b"a: !!bool one", ""),
        (b"? [1]\n: 2", "unhashable key"),
        (b"a: <<", "merge"),
        (b"[" * 5_000, ""),
    ],
)
def test_what_is_no_yaml_is_refused_in_one_sentence(tmp_path, content, told):
    path = tmp_path / "my.yml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{path} is not YAML: .*{told}") as refused:
        read_yaml(path)
    assert "\n" not in str(refused.value)


# Folders


def test_a_folder_is_named_from_the_home_too(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert folder_named("~/speech") == folder_named(Path("~/speech")) == Path("/home/somebody/speech")
    assert folder_named("~") == Path("/home/somebody")
    for name in ("speech", "/a/~/b", "a~", "{a} $HOME's %", "a$HOME/b", "$5.00"):
        assert folder_named(name) == Path(name)
    assert folder_named(None, Path("data")) == Path("data")


@pytest.mark.parametrize(
    ("name", "told"),
    [("$HOME/speech", "only a shell replaces \\$HOME; write the whole path"), ("${DATA}", "only a shell replaces"),
     ("~nobody-of-this-name/x", "the home that it begins with is not known"), ("", "that is no folder's name")],
)  # fmt: skip
def test_a_folder_s_name_that_says_nothing_is_refused(name, told, capsys):
    with pytest.raises(ValueError, match=told):
        folder_named(name, Path("data"))
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=folder_argument)
    with pytest.raises(SystemExit):
        parser.parse_args([name])
    assert re.search(told, capsys.readouterr().err)
