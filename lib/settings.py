"""Settings as objects: frozen dataclasses whose fields carry their ranges, made and checked once.

    @dataclass(frozen=True)
    class Adam(Settings):
        learning_rate: float = setting(0.0047, real(0, 100, above=True), search=(1e-3, 3e-2))

Whoever holds such an object holds values that fit; a name that is not a field is refused, and never dropped.
Here, too, is how files of settings are read and how a folder is named.
"""

import argparse
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import date
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import yaml

ABSENT = object()
# A tag such as !!int or !!timestamp before something else ends in errors of other kinds than YAML's own.
NO_YAML = (yaml.YAMLError, ValueError, AttributeError, KeyError, TypeError, RecursionError)
WORDS = {"none": None, "yes": True, "on": True, "no": False, "off": False}  # as people write them, and YAML does not


class Range(NamedTuple):
    """Which values a setting takes: ``fits`` says whether one does, ``words`` end "it must be ..."."""

    fits: Callable[[Any], bool]
    words: str


def whole(low: int, high: int = 2**31) -> Range:
    return Range(
        lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high,
        f"a whole number from {low} {'up' if high == 2**31 else f'to {high}'}",
    )


def real(low: float, high: float, *, above: bool = False) -> Range:
    """Numbers from ``low`` (with ``above`` greater than it) up to ``high``; NaN is none of them."""

    def fits(value: Any) -> bool:
        number = isinstance(value, Real) and not isinstance(value, bool)
        return number and (low < value if above else low <= value) and value <= high

    return Range(fits, f"a number {'above' if above else 'from'} {low:g} up to {high:g}")


def choice(*names: str) -> Range:
    return Range(lambda value: isinstance(value, str) and value in names, f"one of {', '.join(names)}")


def several(of: Range) -> Range:
    return Range(
        lambda value: isinstance(value, list | tuple) and len(value) > 0 and all(of.fits(item) for item in value),
        f"a list, of each item {of.words}",
    )


def optional(of: Range) -> Range:
    return Range(lambda value: value is None or of.fits(value), f"{of.words}, or None")


BOOLEAN = Range(lambda value: isinstance(value, bool), "True or False")
TEXT = Range(lambda value: isinstance(value, str) and value != "", "a name")
FOLDER = Range(lambda value: isinstance(value, str | Path) and str(value) != "", "a folder")


def check(name: str, value: Any, of: Range) -> None:
    """Raise ``ValueError`` in one sentence for a value out of its range; one that nearly fits is written out."""
    if not of.fits(value):
        told = f"{name} = {value!r} does not fit: it must be {of.words}"
        meant = next((one for one in nearly(value) if of.fits(one)), value)
        if isinstance(meant, str) and meant is not value:
            raise ValueError(f"{told}; put it in quotes: without them YAML reads a number, a date, a yes or a no")
        written = yaml.safe_dump(meant, default_flow_style=True).partition("\n")[0] if meant is not value else ""
        papermill = f", for papermill -y '{name}: {written}'" if isinstance(meant, list) else ""
        raise ValueError(told + (f"; write {written}{papermill}" if written else ""))


def nearly(value: Any) -> Iterator[Any]:
    """What someone may have meant who wrote a value: by text what it says, by 30.0 the whole number, by 8 a list."""
    if isinstance(value, str):
        yield WORDS.get(value.lower(), value)
        for text in (value, f"[{value}]"):
            with suppress(*NO_YAML):
                yield yaml.load(text, AsTyped)
    elif isinstance(value, float) and value.is_integer():
        yield int(value)
    if isinstance(value, int | float | date):
        yield from ([value], str(value))


def setting(default: Any, of: Range, *, search: Any = ABSENT, before: Any = ABSENT) -> Any:
    """A field of ``Settings``.

    ``search`` is what trials try: a list of choices, or the two ends of a range on a logarithmic scale. A setting that
    runs are already stored without says with ``before`` which value these runs had: it renames none of them.
    """
    metadata = {"range": of, "search": search, "before": before}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all settings share. ``title`` is what messages call them."""

    title: ClassVar[str] = "settings"

    def __post_init__(self) -> None:
        """Raise ``ValueError`` in one sentence for a value out of its range."""
        for field in dataclasses.fields(self):
            if "range" in field.metadata:
                check(field.name, getattr(self, field.name), field.metadata["range"])

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> "Settings":
        """The settings of these names, the others at their defaults. Raises ``ValueError`` for an unknown name."""
        for name in given:
            if name not in cls.names():
                raise ValueError(f"{cls.title} takes no {name}: its settings are {', '.join(cls.names())}")
        return cls(**given)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(field.name for field in dataclasses.fields(cls))

    @classmethod
    def search_space(cls) -> dict[str, list | tuple[float, float]]:
        """What trials try, by the names of the settings that are searched."""
        return cls._said("search")

    @classmethod
    def before(cls) -> dict[str, Any]:
        """The values of runs that were stored before these settings were added."""
        return cls._said("before")

    @classmethod
    def described(cls) -> dict[str, dict[str, str]]:
        """Each setting in words: its default, what it must be, and what trials try."""
        said = {}
        for name, of in cls._said("range").items():
            search = cls.search_space().get(name, "–")
            tried = (" to " if isinstance(search, tuple) else ", ").join(map(str, search))
            said[name] = {"default": str(getattr(cls(), name)), "must be": of.words, "trials try": tried}
        return said

    @classmethod
    def _said(cls, what: str) -> dict[str, Any]:
        said = {field.name: field.metadata.get(what, ABSENT) for field in dataclasses.fields(cls)}
        return {name: value for name, value in said.items() if value is not ABSENT}

    def as_dict(self) -> dict[str, Any]:
        """The values by name, as they stand in a run's record."""
        return {name: getattr(self, name) for name in self.names()}

    def identity(self) -> dict[str, Any]:
        """``as_dict`` without the settings that runs were stored without, where they have the value of these runs."""
        before = self.before()
        return {name: value for name, value in self.as_dict().items() if name not in before or value != before[name]}


class AsTyped(yaml.SafeLoader):
    """YAML as people type it (that of version 1.2): 1e-3 is a number, 010 is ten, and no, on, yes, 1:30 are text.

    No key may stand twice in a mapping: the last would be taken in silence.
    """

    yaml_implicit_resolvers: ClassVar[dict] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(problem=f"'{twice[0]}' stands twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


for kind, text in {
    "merge": "<<",
    "null": "~|null|Null|NULL|",
    "bool": "true|True|TRUE|false|False|FALSE",
    "int": "[-+]?[0-9]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}.items():
    AsTyped.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(f"(?:{text})$"), None)
AsTyped.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node)))


def read_yaml(path: Path) -> Any:
    """What a file says, in any of Unicode's encodings. Raises ``ValueError`` in one sentence where it is no YAML."""
    try:
        return yaml.load(path.read_bytes(), AsTyped)
    except NO_YAML as error:
        told = " ".join(str(error).replace('in "<byte string>", ', "").split())
        remedy = "; indent with spaces, not with tabs" if "'\\t'" in told else ""
        raise ValueError(f"{path} is not YAML: {told}{remedy}") from error


def folder_named(name: str | Path | None, default: Path | None = None) -> Path:
    """The folder that someone names, where ``~`` is the home, or for None the ``default``.

    Raises ``ValueError`` for what is no name, for a home that is not known, and for ``$HOME`` and its like, which only
    a shell replaces.
    """
    if name is None and default is not None:
        return default
    if not FOLDER.fits(name) or (variable := re.match(r"\$(\w+|\{\w+\})(?=/|$)", str(name))):
        told = f"only a shell replaces {variable[0]}" if FOLDER.fits(name) else "that is no folder's name"
        raise ValueError(f"{str(name)!r}: {told}; write the whole path, or one from the home, such as ~/speech")
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{name}: the home that it begins with is not known; write the whole path") from error


def folder_argument(name: str) -> Path:
    """``folder_named`` of a command line: argparse shows the sentence of this error alone."""
    try:
        return folder_named(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
