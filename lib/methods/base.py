"""What all methods share: settings, a network and a way to a posterior.

A method is a file that says all about itself: its settings with defaults, ranges and what trials search, how it is
drawn, and how it trains or what it is derived from.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from torch import nn

from lib import trainers
from lib.features import Examples
from lib.network import SpikingClassifier
from lib.networks import NetworkSettings, build
from lib.posteriors import Posterior
from lib.settings import BOOLEAN, Settings, optional, real, setting, whole
from lib.trainers import Objective, likelihood


def defaults_of(trainer: Callable) -> dict[str, Any]:
    return {name: parameter.default for name, parameter in inspect.signature(trainer).parameters.items()}


def batch_size(default: int) -> Any:
    return setting(default, whole(2), search=[16, 32, 64, 128])


def learning_rate(default: float, search: tuple[float, float] = (1e-3, 3e-2)) -> Any:
    return setting(default, real(0, 100, above=True), search=search)


def weight_decay(default: float, search: list[float] | None = None) -> Any:
    return setting(default, real(0, 100), search=search or [0.0, 1e-5, 1e-4])


def decay_vectors() -> Any:
    """Whether gains, leaks and biases decay, too, as those of the runs before did."""
    return setting(False, BOOLEAN, before=True)


def leak_rate() -> Any:
    """The learning rate of the neurons' leaks, over that of all else; with 0 they stay where they began."""
    return setting(1.0, real(0, 1_000), before=1.0)


def leaks_apart(learning_rate: float, leak_rate: float) -> Callable:
    """``lib.trainers.decaying``, and where the leaks' rate is not that of all, with a group of their own for them."""
    if leak_rate == 1:
        return trainers.decaying

    def groups(network: nn.Module, weight_decay: float, vectors: bool = False) -> list[dict[str, Any]]:
        found = trainers.decaying(network, weight_decay, vectors)
        leaks = [one for name, one in network.named_parameters() if name.endswith("leak") and one.requires_grad]
        if not leaks:
            return found
        for group in found:
            group["params"] = [one for one in group["params"] if all(one is not leak for leak in leaks)]
        own = {"params": leaks, "weight_decay": weight_decay if vectors else 0.0, "lr": leak_rate * learning_rate}
        return [*(group for group in found if group["params"]), own]

    return groups


def dropout(default: float = defaults_of(SpikingClassifier)["dropout"]) -> Any:
    return setting(default, real(0, 0.99), search=[0.0, 0.1, 0.2, 0.3])


def freeze_norm_after(default: int | None) -> Any:
    """The epoch after which batch norm's statistics stand still; ``None``: never, as with the other methods."""
    return setting(default, optional(whole(1)), search=[None, 10, 20, 30])


def patience(default: int) -> Any:
    return setting(default, whole(0), search=[2, 4, 6])


@dataclass(frozen=True)
class Method(Settings):
    """A way to a posterior. ``name`` is its name in records and files; the next three say how it is drawn.

    A subclass says them as keywords behind ``Method``. Where ``keeps_last``, the result of a training is its last
    epoch's, else that of the lowest validation NLL.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    colour: ClassVar[str]
    marker: ClassVar[str]
    keeps_last: ClassVar[bool] = False

    def __init_subclass__(cls, **said) -> None:
        for name, value in said.items():
            setattr(cls, name, value)
        cls.title = getattr(cls, "name", cls.title)

    @classmethod
    def takes(cls) -> tuple[str, ...]:
        """The names that ``from_mapping`` knows."""
        return cls.names()

    def network(self, shape: NetworkSettings, num_features: int, num_classes: int) -> SpikingClassifier:
        """An untrained network, its weights drawn from PyTorch's own generator."""
        return build(shape, num_features, num_classes, self.dropout)

    def train(
        self,
        network: nn.Module,
        training: Examples,
        validation: Examples,
        *,
        epochs: int,
        seed: int,
        objective: Objective = likelihood,
        checkpoint: Path | None = None,
        after_epoch: Callable[[dict], None] = lambda row: None,
        copies: int = 0,
    ) -> tuple[Posterior, pd.DataFrame]:
        """The posterior, and the history of training; see ``lib.trainers.fit`` for what it raises.

        ``copies`` says how many changed copies of each training utterance there are beside it: they are no further
        data, where a method counts these.
        """
        updates = self.updates(network, training, objective, epochs, len(training.labels) / (1 + copies))
        return trainers.fit(
            updates, network, training, validation, epochs=epochs, batch_size=self.batch_size, patience=self.patience,
            seed=seed, checkpoint=checkpoint, after_epoch=after_epoch,
        )  # fmt: skip

    def updates(
        self, network: nn.Module, training: Examples, objective: Objective, epochs: int, originals: float
    ) -> trainers.Method:
        """What the method gives to the loop of training; ``originals`` is the number of its data, without copies."""
        raise NotImplementedError

    def trainer_settings(self) -> dict[str, Any]:
        """The settings without dropout, which is the network's, and with the rate of the leaks as groups."""
        found = {name: value for name, value in self.as_dict().items() if name != "dropout"}
        if "leak_rate" in found:
            found["groups"] = leaks_apart(self.learning_rate, found.pop("leak_rate"))
        return found


@dataclass(frozen=True)
class Derived(Method):
    """A method without training of its own: it makes a posterior of those of finished runs.

    ``made_of`` are the methods of these runs; one that is named several times stands for runs of as many seeds. Their
    settings are in ``parts``, a method of each name; those not given are at their defaults.
    """

    made_of: ClassVar[tuple[type[Method], ...]]
    bases: ClassVar[tuple[str, ...]]
    parts: dict[str, Method] = field(default_factory=dict)

    def __init_subclass__(cls, **said) -> None:
        super().__init_subclass__(**said)
        cls.bases = tuple(kind.name for kind in cls.made_of)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", {kind.name: kind() for kind in self.made_of} | self.parts)

    @classmethod
    def takes(cls) -> tuple[str, ...]:
        return *dict.fromkeys(name for kind in cls.made_of for name in kind.names()), "bases"

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> "Derived":
        """Each setting goes to each of the bases that takes it; what ``bases`` gives to one of them goes first.

        Raises ``ValueError`` for a name that none of them takes, and for a base that there is not.
        """
        for name in given:
            if name not in cls.takes():
                raise ValueError(f"{cls.name} takes no {name}: its settings are {', '.join(cls.takes())}")
        own = given.get("bases") or {}
        if not isinstance(own, Mapping) or not all(isinstance(settings, Mapping) for settings in own.values()):
            raise ValueError(f"bases = {own!r} does not fit: it must be a mapping from methods to settings of theirs")
        if unknown := own.keys() - set(cls.bases):
            raise ValueError(
                f"{cls.name} is made of {', '.join(dict.fromkeys(cls.bases))}, not of {min(unknown, key=str)!r}"
            )
        shared = {kind: {name: given[name] for name in kind.names() if name in given} for kind in cls.made_of}
        return cls({kind.name: kind.from_mapping(shared[kind] | dict(own.get(kind.name, {}))) for kind in cls.made_of})

    @classmethod
    def before(cls) -> dict[str, Any]:
        return {name: value for kind in cls.made_of for name, value in kind.before().items()}

    def base(self, name: str) -> Method:
        """The method of this name among ``parts``."""
        return self.parts[name]

    def as_dict(self) -> dict[str, Any]:
        return {"dropout": self.dropout, "bases": {name: part.as_dict() for name, part in self.parts.items()}}

    def identity(self) -> dict[str, Any]:
        return {"dropout": self.dropout, "bases": {name: part.identity() for name, part in self.parts.items()}}

    @property
    def dropout(self) -> float:
        return self.parts[self.bases[0]].dropout

    def derive(
        self, network: nn.Module, bases: tuple[Posterior, ...], training: Examples, validation: Examples,
        seed: int, copies: int = 0,
    ) -> Posterior:  # fmt: skip
        """The posterior, of those of its ``bases``, in the order of these; ``copies`` as in ``train``."""
        raise NotImplementedError
