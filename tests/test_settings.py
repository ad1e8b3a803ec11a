"""Settings: what does not fit is refused in one sentence, and what fits is there as it was given."""

import json
import math
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from lib.settings import BOOLEAN, FOLDER, TEXT, Settings, choice, optional, real, setting, several, whole

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
