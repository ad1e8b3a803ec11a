"""A study: a grid of runs (sets, variants of the network or the training, methods, seeds), all measured alike.

    python -m lib.study book/studies/neurons.yml --tune      # choose each method's settings on validation data, once
    python -m lib.study book/studies/neurons.yml             # train and measure what the stored results lack
    python -m lib.study book/studies/neurons.yml --verify    # compute a share anew and compare it, number by number

The file names ``sets``, which may have a ``seed`` of their own, ``variants`` (optional), ``method``, ``seed``,
``common`` settings, ``evaluation`` and further ``measures`` with their settings. ``tuning`` says how trials choose the
settings that stand beside the file as ``neurons-chosen.yml`` ({set, trials, epochs}; ``first``, by method a list
of what is tried right after the defaults; ``ranked``, how many of the best are trained with further seeds), or whose
choices are taken ({as: other study}). The results are tables in ``data/results/neurons``, one for each measure, and
``runs.json``, the records of the runs. What stands there, or is stored of a run or a trial, is not computed again: the
same command goes on where it was interrupted.
"""

import inspect
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from lib import methods
from lib.methods import METHODS, Derived
from lib.runs import DATA
from lib.settings import check, folder_named, read_yaml, whole
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

    @property
    def name(self) -> str:
        return ", ".join(map(str, self.key))

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
        seeds = list(dict.fromkeys(itertools.chain(self.seed, *map(self.seeds_of, self.sets))))
        return dict(zip(KEY, (list(self.sets), list(self.variants), self.method, seeds), strict=True))

    def seeds_of(self, name: str) -> list[int]:
        """The seeds of a set: its own, or the study's."""
        return self.sets[name].get("seed", self.seed)

    @property
    def chosen_path(self) -> Path:
        """Where the settings stand that trials chose: those of this study, or of the one whose choices it takes."""
        return self.path.with_name(f"{(self.tuning or {}).get('as', self.name)}-chosen.yml")

    @cached_property
    def chosen(self) -> dict[str, Any]:
        """The settings that trials chose, by method, or by variant and method."""
        if not self.chosen_path.exists():
            study = self.tuning.get("as", self.name)
            raise ValueError(
                f"{self.chosen_path} is not there: choose the settings first, with make tune STUDY={study}"
            )
        chosen = read_yaml(self.chosen_path)
        if not isinstance(chosen, dict) or not all(isinstance(of, dict) for of in chosen.values()):
            raise ValueError(f"{self.chosen_path} does not map methods to their settings; choose them with make tune")
        return chosen

    @property
    def cells(self) -> list[Cell]:
        """All runs, seed by seed, so that an interrupted study has something of everything."""
        seeds, sets = self.order["seed"], self.sets
        places = [(name, seed) for seed in seeds for name in sets if seed in self.seeds_of(name)]
        of_place = list(itertools.product(self.variants, self.method))
        return [self.cell(name, *of, seed) for name, seed in places for of in of_place]

    def cell(self, name: str, variant: str, method: str, seed: int) -> Cell:
        given = self.given(name, variant, method)
        if issubclass(kind := methods.get(method), Derived):
            bases = {}
            for base in kind.bases:
                names, of_base = METHODS[base].names(), self.given(name, variant, base)
                own = {setting: value for setting, value in of_base.items() if setting in names}
                bases[base] = self.chosen_for(variant, base) | own
                given = {setting: value for setting, value in given.items() if setting not in names}
            given |= {"bases": bases}
        else:
            given = self.chosen_for(variant, method) | given
        setup = Setup.of(given | {"method": method, "seed": seed})
        return Cell(name, variant, method, seed, setup, self.data_root(name))

    def given(self, name: str, variant: str, method: str) -> dict[str, Any]:
        """What the file gives to a run: the common settings, its method's, its variant's and its set's."""
        of_set = {setting: value for setting, value in self.sets[name].items() if setting not in ("data_root", "seed")}
        return for_method(method, self.common) | self.variants[variant] | for_method(method, of_set)

    def chosen_for(self, variant: str, method: str) -> dict[str, Any]:
        """What trials chose for a method. Raises ``ValueError`` where they were to choose, and have not."""
        if self.tuning is None:
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
        return None if root is None else DATA.parent / folder_named(root)


def for_method(method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are for all methods, and those that stand under this one's name."""
    # "dropout" is a method and a setting.
    own = {one: value for one, value in settings.items() if one in METHODS and isinstance(value, dict | None)}
    return {setting: value for setting, value in settings.items() if setting not in own} | (own.get(method) or {})


def named(name: str) -> Study:
    """The study of this repository with this name."""
    return read(FOLDER / f"{name}.yml")


def read(path: Path) -> Study:
    """The study that a file describes. Raises ``ValueError`` or ``FileNotFoundError`` where it does not."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no study {path}")
    content = read_yaml(path)
    for name, kind in (NEEDED | OPTIONAL).items():
        left_out = None if name in NEEDED else kind()
        if not isinstance(content, dict) or not isinstance(content.get(name, left_out), kind):
            raise ValueError(f"{path}: {name!r} must be a {kind.__name__}")
    measures = {"evaluation": content.pop("evaluation")} | content.pop("measures", {})
    for name, of in {"sets": content["sets"], "variants": content.get("variants", {}), "measures": measures}.items():
        for key, value in of.items():
            if not isinstance(key, str) or not isinstance(value, dict | None):
                raise ValueError(
                    f"{path}: {name!r} must map names, as text in quotes, to settings, not {key!r}: {value!r}"
                )
    if empty := [name for name in ("sets", "variants", "method", "seed") if content.get(name, ONE) in ({}, [])]:
        raise ValueError(f"{path}: {empty[0]!r} is empty, and no run would be left")
    for name, of in content["sets"].items():
        if not isinstance(own := (of or {}).get("seed", content["seed"]), list) or not own:
            raise ValueError(f"{path}: the 'seed' of {name!r} must be a list, as the study's is, and not empty")
    for seed in itertools.chain(content["seed"], *((of or {}).get("seed", []) for of in content["sets"].values())):
        check(f"{path}: a seed", seed, whole(0))
    if strange := [method for method in content["method"] if not isinstance(method, str)]:
        raise ValueError(f"{path}: {strange[0]!r} is no method; the methods are {', '.join(METHODS)}")
    checked = (
        (content, NEEDED | OPTIONAL, "a study has"),
        (measures, MEASURES, "the measures are"),
        (content["method"], METHODS, "the methods are"),
    )
    for given, known, words in checked:
        if unknown := [name for name in given if not isinstance(name, str) or name not in known]:
            raise ValueError(f"{path}: {unknown[0]!r} is not known; {words} {', '.join(known)}")
    for name, how in measures.items():
        try:
            inspect.signature(MEASURES[name]).bind(None, None, None, **(how or {}))
        except TypeError as error:
            raise ValueError(f"{path}: the measure {name!r} cannot be taken so: {error}") from error
    for name in ("sets", "variants"):
        content[name] = {key: value or {} for key, value in content.get(name, {ONE: {}}).items()}
    return Study(path=path, measures={name: how or {} for name, how in measures.items()}, **content)
