"""From a study's file to its cells: each a run, with the settings that follow from set, variant, method and seed."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lib import methods
from lib.methods import METHODS, Derived
from lib.runs import DATA
from lib.setup import Setup
from lib.study.measures import MEASURES
from lib.study.measures.common import Place

Key = tuple[str, str, str, int]

FOLDER = DATA.parent / "book" / "studies"
KEY = ["set", "variant", "method", "seed"]
# Its name where a study has no variants.
ONE = "default"
NEEDED = {"sets": dict, "method": list, "seed": list, "evaluation": dict}
OPTIONAL = {"variants": dict, "common": dict, "tuning": dict, "measures": dict}


class Cell(NamedTuple):
    """One run of a study: its place in the grid, its settings, and the folder of its recordings."""

    set: str
    variant: str
    method: str
    seed: int
    setup: Setup
    data_root: Path | None

    @property
    def key(self) -> Key:
        return self[:4]

    def place(self, folder: Path) -> Place:
        return Place(self.data_root, folder)


@dataclass(frozen=True)
class Study:
    """What a study's file says. ``measures`` maps the names of measures, the evaluation among them, to settings."""

    path: Path
    sets: dict[str, dict[str, Any]]
    method: list[str]
    seed: list[int]
    measures: dict[str, dict[str, Any]]
    variants: dict[str, dict[str, Any]] = field(default_factory=lambda: {ONE: {}})
    common: dict[str, Any] = field(default_factory=dict)
    tuning: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def order(self) -> dict[str, list]:
        """The values of the key columns, in the file's order."""
        return dict(zip(KEY, (list(self.sets), list(self.variants), self.method, self.seed), strict=True))

    @property
    def chosen_path(self) -> Path:
        """Where the settings stand that trials chose: those of this study, or of the one whose choices it takes."""
        return self.path.with_name(f"{(self.tuning or {}).get('as', self.name)}-chosen.yml")

    @cached_property
    def chosen(self) -> dict[str, Any] | None:
        """The settings that trials chose, by method, or by variant and method; None where nothing is to be chosen."""
        if self.tuning is None:
            return None
        if not self.chosen_path.exists():
            study = self.tuning.get("as", self.name)
            raise ValueError(
                f"{self.chosen_path} is not there: choose the settings first, with make tune STUDY={study}"
            )
        return yaml.safe_load(self.chosen_path.read_text(encoding="utf-8"))

    @property
    def cells(self) -> list[Cell]:
        """All runs, seed by seed, so that an interrupted study has something of everything."""
        return [self.cell(name, *rest, seed) for seed, name, *rest in itertools.product(
            self.seed, self.sets, self.variants, self.method
        )]  # fmt: skip

    def cell(self, name: str, variant: str, method: str, seed: int) -> Cell:
        given = self.given(name, variant, method)
        if issubclass(kind := methods.get(method), Derived):
            taken = {setting for base in kind.bases for setting in METHODS[base].names()}
            bases = {base: self.of_base(name, variant, base) for base in kind.bases}
            given = {setting: value for setting, value in given.items() if setting not in taken} | {"bases": bases}
        else:
            given = self.chosen_for(variant, method) | given
        setup = Setup.of(given | {"method": method, "seed": seed})
        return Cell(name, variant, method, seed, setup, self.data_root(name))

    def given(self, name: str, variant: str, method: str) -> dict[str, Any]:
        """What the file gives to a run: the common settings, its method's, its variant's and its set's."""
        common = {setting: value for setting, value in self.common.items() if setting not in METHODS}
        of_set = {setting: value for setting, value in self.sets[name].items() if setting != "data_root"}
        return common | self.common.get(method, {}) | self.variants[variant] | of_set

    def of_base(self, name: str, variant: str, base: str) -> dict[str, Any]:
        """The settings of a method that a derived run is made of."""
        given, names = self.given(name, variant, base), METHODS[base].names()
        return self.chosen_for(variant, base) | {key: value for key, value in given.items() if key in names}

    def chosen_for(self, variant: str, method: str) -> dict[str, Any]:
        """Raises ``ValueError`` where trials were to choose a method's settings, and have not."""
        if self.chosen is None:
            return {}
        by_method = self.chosen if self.chosen.keys() <= METHODS.keys() else self.chosen.get(variant, {})
        if method not in by_method:
            raise ValueError(
                f"{self.chosen_path.name} has no settings of {method} for {variant!r}: choose them with make tune, or "
                "leave 'tuning' out for the defaults"
            )
        return by_method[method]

    def data_root(self, name: str) -> Path | None:
        """The folder of a set's recordings; a relative one is taken from the repository's."""
        root = self.sets[name].get("data_root")
        return None if root is None else DATA.parent / root


def named(name: str) -> Study:
    """The study of this repository with this name."""
    return read(FOLDER / f"{name}.yml")


def read(path: Path) -> Study:
    """The study that a file describes. Raises ``ValueError`` or ``FileNotFoundError`` where it does not."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no study {path}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    for name, kind in (NEEDED | OPTIONAL).items():
        wanted = name in NEEDED or (isinstance(content, dict) and name in content)
        if not isinstance(content, dict) or (wanted and not isinstance(content.get(name), kind)):
            raise ValueError(f"{path}: {name!r} must be a {kind.__name__}")
    measures = {"evaluation": content.pop("evaluation")} | content.pop("measures", {})
    _only(path, content, NEEDED | OPTIONAL, "a study has")
    _only(path, measures, MEASURES, "the measures are")
    _only(path, dict.fromkeys(content["method"]), METHODS, "the methods are")
    return Study(path=path, measures={name: how or {} for name, how in measures.items()}, **content)


def _only(path: Path, given: Mapping, known: Mapping, words: str) -> None:
    if unknown := given.keys() - known.keys():
        raise ValueError(f"{path}: {sorted(unknown)[0]!r} is not known; {words} {', '.join(known)}")
