"""Settings as objects: frozen dataclasses whose fields carry their ranges, made and checked once.

    @dataclass(frozen=True)
    class Adam(Settings):
        learning_rate: float = setting(0.0047, real(0, 100, above=True), search=(1e-3, 3e-2))

Whoever holds such an object holds values that fit; a name that is not a field is refused, and never dropped.
"""

import dataclasses
from collections.abc import Callable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

ABSENT = object()


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
            value, of = getattr(self, field.name), field.metadata.get("range")
            if of is not None and not of.fits(value):
                raise ValueError(f"{field.name} = {value!r} does not fit: it must be {of.words}")

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
