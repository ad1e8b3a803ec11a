"""What determines a run: data set, network, training, method and seed, each setting checked once."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from lib import datasets, methods
from lib.methods import Method
from lib.networks import NetworkSettings
from lib.settings import Settings, check, real, setting, whole


@dataclass(frozen=True)
class TrainingSettings(Settings):
    """What every method's training takes beside its own settings."""

    epochs: int = setting(30, whole(1, 100_000))
    firing_rate_penalty: float = setting(0.0, real(0, 1e6))


@dataclass(frozen=True)
class Setup:
    """All that determines a run on some data."""

    dataset: str
    data: Settings
    network: NetworkSettings
    training: TrainingSettings
    method: Method
    seed: int

    def record(self) -> dict[str, Any]:
        """Every setting by its name, as ``run.json`` holds it and ``Setup.of`` takes it."""
        return self._named | {name: value for part in self._parts for name, value in part.as_dict().items()}

    def identity(self) -> dict[str, Any]:
        """The record without those later settings that have the value of the runs before them."""
        return self._named | {name: value for part in self._parts for name, value in part.identity().items()}

    def name_of(self, data: str) -> str:
        """The name of the run's folder; ``data`` is the fingerprint of the recordings."""
        identity = json.dumps({"settings": self.identity(), "data": data}, sort_keys=True)
        digest = blake2b(identity.encode(), digest_size=4).hexdigest()
        return f"{self.dataset}-{self.method.name}-{self.seed}-{digest}"

    @property
    def copies(self) -> int:
        """How many changed copies of each training utterance there are."""
        return self.data.as_dict().get("augmented", 0)

    @property
    def _named(self) -> dict[str, Any]:
        return {"dataset": self.dataset, "method": self.method.name, "seed": self.seed}

    @property
    def _parts(self) -> tuple[Settings, ...]:
        return self.data, self.network, self.training, self.method

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Setup":
        """The run that a flat mapping asks for: data set, method, seed, and settings that belong to one of its parts.

        What is not given has its default. Raises ``ValueError`` in one sentence for a name that belongs to neither the
        data set, the network, the training nor the method, and for a value out of its range.
        """
        rest = dict(given)
        for name in ("dataset", "method"):
            if name not in rest:
                raise ValueError(f"a run needs a {name}: give one")
        dataset, method, seed = datasets.get(rest.pop("dataset")), methods.get(rest.pop("method")), rest.pop("seed", 1)
        check("seed", seed, whole(0))
        parts, kinds = [], (dataset.settings, NetworkSettings, TrainingSettings)
        for kind in kinds:
            parts.append(kind.from_mapping({name: rest.pop(name) for name in kind.names() if name in rest}))
        for name in rest:
            if name not in method.takes():
                data, network, training = (", ".join(kind.names()) for kind in kinds)
                raise ValueError(
                    f"{name!r} is no setting of this run: the data set {dataset.name} takes {data}; the network "
                    f"{network}; the training {training}; the method {method.name} {', '.join(method.takes())}"
                )
        return cls(dataset.name, *parts, method.from_mapping(rest), seed)

    @classmethod
    def from_record(cls, settings: Mapping[str, Any]) -> "Setup":
        """The setup of a stored run, whose record may lack settings that were added later."""
        kinds = datasets.get(settings["dataset"]).settings, NetworkSettings, TrainingSettings
        before = [kind.before() for kind in (*kinds, methods.get(settings["method"]))]
        return cls.of({name: value for part in before for name, value in part.items()} | dict(settings))


def setup_of(settings: Mapping[str, Any], *, dataset: str, method: str, seed: int, **named: Any) -> Setup:
    """The run that a notebook or a file asks for; ``named`` are settings that it gives by themselves.

    ``settings`` holds settings of all runs by their names; under a method's name stand its own, which go first; a value
    that is a mapping from data sets gives each set its own. Raises ``ValueError`` as ``Setup.of``, and for a setting
    that is given twice.
    """
    found = settings_for(settings, dataset, method)
    for name in found.keys() & {"dataset", "method", "seed", *named}:
        raise ValueError(f"{name} is given twice: leave it out of settings")
    return Setup.of({"dataset": dataset, "method": method, "seed": seed} | named | found)


def settings_for(settings: Mapping[str, Any], dataset: str, method: str) -> dict[str, Any]:
    """What settings say of one data set and method; the sections of other methods are left out."""
    if not isinstance(settings, Mapping):
        raise ValueError(f"settings = {settings!r} does not fit: it must be a mapping from settings to their values")
    kind, flat, sections = methods.get(method), {}, {}
    for name, value in settings.items():
        if is_section(name, value, kind.takes()):
            if not isinstance(value, Mapping):
                raise ValueError(f"{name!r} is a method: give its settings as a mapping, not {value!r}")
            sections[name] = settings_for(value, dataset, method)
        elif isinstance(value, Mapping) and name != "bases":
            for key in value.keys() - datasets.SETS.keys():
                raise ValueError(f"{name} is given for {key!r}, which is no data set: {', '.join(datasets.SETS)}")
            if dataset in value:
                flat[name] = value[dataset]
        else:
            flat[name] = value
    flat |= sections.get(method, {})
    if issubclass(kind, methods.Derived):
        bases = {base: sections[base] for base in dict.fromkeys(kind.bases) if base in sections}
        given = flat.get("bases")
        if bases and isinstance(given, Mapping | None):
            flat["bases"] = bases | dict(given or {})
    return flat


def is_section(name: str, value: Any, takes: Collection[str]) -> bool:
    """Whether settings hold, under a name, those of the method of this name, where runs take these settings.

    "dropout" is a method and a setting: a mapping that names no data set is the method's.
    """
    own = name in takes and (not isinstance(value, Mapping) or value.keys() & datasets.SETS.keys())
    return name in methods.METHODS and not own


def setting_names(*sets: str) -> set[str]:
    """The settings that runs on these data sets take, whatever their method; by default those on any."""
    kinds = [datasets.get(name).settings for name in sets or datasets.SETS]
    names = {name for kind in (*kinds, NetworkSettings, TrainingSettings) for name in kind.names()}
    return names | {name for method in methods.METHODS.values() for name in method.takes()}


def data_setup(settings: Mapping[str, Any], dataset: str) -> Setup:
    """A setup of a data set alone, its network and training being the defaults.

    Raises ``ValueError`` for a setting that belongs to no run on this set, whatever its method.
    """
    found, own = settings_for(settings, dataset, "map"), datasets.get(dataset).settings.names()
    for name in found.keys() - setting_names(dataset):
        raise ValueError(f"{name!r} is no setting of a run on {dataset}: the data set takes {', '.join(own)}")
    return Setup.of({"dataset": dataset, "method": "map"} | {name: found[name] for name in own if name in found})


def as_list(value: Any) -> list:
    return list(value) if isinstance(value, list | tuple) else [value]
