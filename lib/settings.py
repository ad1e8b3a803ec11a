"""The notebooks' parameters: their names, types and ranges, and each method's own defaults.

papermill only warns of a parameter that a notebook does not have; ``checked`` refuses it.
"""

import types
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

DATASETS = ("hd", "sc", "fsdd", "shd", "ssc", "synthetic-hd", "synthetic-sc", "synthetic-shd")

# Those of "map" and "ivon" were chosen on the validation parts of the two synthetic sets together, by 15 trials for
# each method (lib/tuning.py), rounded to two digits.
DEFAULTS = {
    "map": {
        "batch_size": 16,
        "learning_rate": 0.0047,
        "weight_decay": 1e-5,
        "dropout": 0.1,
        "patience": 2,
        "freeze_norm_after": None,
    },
    "ivon": {
        "batch_size": 32,
        "learning_rate": 0.39,
        "weight_decay": 1e-3,
        "dropout": 0.1,
        "patience": 4,
        "ess_factor": 6.5,
        "hess_init": 0.42,
        "beta2": 0.9999,
        "freeze_norm_after": 10,
    },
    # Not searched for yet: customary values, and those of "map" where the two share one.
    "bbb": {
        "batch_size": 32,
        "learning_rate": 0.005,
        "dropout": 0.1,
        "patience": 4,
        "alpha": 0.1,
        "initial_std": 0.05,
        "prior_scale": None,
    },
    "swag": {
        "batch_size": 16,
        "learning_rate": 0.0047,
        "weight_decay": 1e-5,
        "dropout": 0.1,
        "patience": 2,
        "swag_from": 15,
        "swag_learning_rate": 0.005,
        "rank": 15,
    },
    # Those known for spoken digits (arXiv:2505.17962), but for the patience.
    "sbnn": {
        "batch_size": 32,
        "learning_rate": 0.005,
        "patience": 4,
        "aux_weight": 1e-6,
        "deviation": 0.5,
        "deviations": "matrix",
        "slope": "straight-through",
    },
}
# Methods that need no training of their own, and the methods of the trained runs that each is made of.
BASES = {
    "temperature": ("map",),
    "dropout": ("map",),
    "ensemble": ("map",),
    "laplace": ("map",),
    "ivon-mean": ("ivon",),
    "noise-ivon": ("map", "ivon"),
    "noise-isotropic": ("map", "ivon"),
}
METHODS = (*DEFAULTS, *BASES)
# Of a method's settings those that shape its network, and are none of the trainer's.
SHAPES = ("dropout", "deviation", "deviations", "slope")

DATA_DEFAULTS = {
    "split": None,
    "validation": None,
    "num_frames": 100,
    "filterbank_rate": None,
    "bin_ms": 14.0,
    "augmented": 0,
}
NETWORK_DEFAULTS = {
    "hidden_sizes": [128, 128],
    "network": "spiking",
    "neuron": "lif",
    "readout": "rate",
    "norm": "batch",
    "bias": False,
    "bidirectional": False,
}
# What a run is determined by beside its data set, its seed and its method's own settings.
RUN_DEFAULTS = DATA_DEFAULTS | NETWORK_DEFAULTS | {"epochs": 30, "rate_cost": 0.0}

SHARED = ("dataset", "data_root", "method", "seed", "results_root", *DATA_DEFAULTS)
NETWORK = ("network", "neuron", "readout")  # which of the runs with these data, method and seed is meant
NOTEBOOKS = {
    "01_data": SHARED,
    "02_training": (
        *SHARED,
        *NETWORK_DEFAULTS,
        "epochs",
        "rate_cost",
        *dict.fromkeys(name for defaults in DEFAULTS.values() for name in defaults),
        "bases",
    ),
    "03_evaluation": (*SHARED, *NETWORK, "samples", "bins", "missing"),
    "04_slices": (*SHARED, *NETWORK, "samples", "points", "directions", "radius", "examples"),
}
# Where one run or one set is looked at, one name is wanted and not a list of names.
SINGLE = {
    "01_data": ("dataset", "method", "seed"),
    "02_training": ("dataset", "method", "seed"),
    "04_slices": ("dataset", "seed"),
}

Check = Callable[[Any], bool]


def whole(low: int, high: int = 2**31) -> tuple[Check, str]:
    def check(value):
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return check, f"a whole number from {low} to {high}"


def real(low: float, high: float, *, above: bool = False) -> tuple[Check, str]:
    def check(value):
        number = isinstance(value, Real) and not isinstance(value, bool)
        return number and (low < value if above else low <= value) and value <= high

    return check, f"a number {'above' if above else 'from'} {low:g} up to {high:g}"


def choice(names: Iterable[str]) -> tuple[Check, str]:
    names = tuple(names)
    return (lambda value: isinstance(value, str) and value in names), f"one of {', '.join(names)}"


def several(of: tuple[Check, str]) -> tuple[Check, str]:
    check, words = of

    def check_all(value):
        return isinstance(value, list | tuple) and len(value) > 0 and all(check(item) for item in value)

    return check_all, f"a list, of each item {words}"


def each(of: tuple[Check, str]) -> tuple[Check, str]:
    (check, words), (check_all, _) = of, several(of)
    return (lambda value: check(value) or check_all(value)), f"{words}, or a list of such"


def optional(of: tuple[Check, str]) -> tuple[Check, str]:
    check, words = of
    return (lambda value: value is None or check(value)), f"{words}, or None"


TEXT = (lambda value: isinstance(value, str) and value != ""), "a name"
TEXTS = (lambda value: isinstance(value, list) and all(TEXT[0](item) for item in value)), "a list of names"
BOOLEAN = (lambda value: isinstance(value, bool)), "True or False"
FOLDER = (lambda value: isinstance(value, str | Path) and str(value) != ""), "a folder"


def by_dataset(of: tuple[Check, str]) -> tuple[Check, str]:
    check, words = of

    def check_each(value):
        mapping = isinstance(value, Mapping) and all(name in DATASETS and check(value[name]) for name in value)
        return mapping or check(value)

    return check_each, f"{words}, or a mapping from data sets to such"


def of_trained(settings: Any) -> bool:
    return isinstance(settings, Mapping) and all(
        method in DEFAULTS
        and isinstance(own, Mapping)
        and all(name in DEFAULTS[method] and fits(name, own[name]) for name in own)
        for method, own in settings.items()
    )


PARAMETERS = {
    "dataset": each(choice(DATASETS)),
    "data_root": by_dataset(optional(FOLDER)),
    "split": by_dataset(optional(TEXT)),
    "validation": by_dataset(optional(choice(("speaker", "test")))),
    "method": each(choice(METHODS)),
    "seed": each(whole(0)),
    "results_root": optional(FOLDER),
    "num_frames": whole(2, 10_000),
    "filterbank_rate": optional(whole(1_000, 200_000)),
    "bin_ms": real(0, 1e6, above=True),
    "augmented": whole(0, 1_000),
    "hidden_sizes": several(whole(1, 100_000)),
    "network": choice(("spiking", "mlp", "rnn", "ligru", "gru")),
    "neuron": choice(("lif", "adlif", "rlif", "radlif")),
    "readout": choice(("rate", "softmax")),
    "norm": choice(("batch", "layer", "none")),
    "bias": BOOLEAN,
    "bidirectional": BOOLEAN,
    "rate_cost": real(0, 1e6),
    "epochs": whole(1, 100_000),
    "samples": whole(1, 100_000),
    "bins": whole(1, 10_000),
    "missing": TEXTS,
    "points": whole(3, 100_000),
    "directions": whole(1, 100_000),
    "radius": real(0, 1e6, above=True),
    "examples": whole(1),
    "batch_size": whole(2),
    "learning_rate": real(0, 100, above=True),
    "weight_decay": real(0, 100),
    "dropout": real(0, 0.99),
    "patience": whole(0),
    "ess_factor": real(0, 1e9, above=True),
    "hess_init": real(0, 1e9, above=True),
    "beta2": real(0, 1),
    "freeze_norm_after": optional(whole(1)),
    "alpha": real(0, 1e6),
    "initial_std": real(0, 100, above=True),
    "prior_scale": optional(real(0, 1e6, above=True)),
    "swag_from": whole(0),
    "swag_learning_rate": real(0, 100, above=True),
    "rank": whole(2),
    "aux_weight": real(0, 1e6),
    "deviation": real(0, 100, above=True),
    "deviations": choice(("matrix", "weight")),
    "slope": choice(("straight-through", "trapezoid", "relaxed")),
    "bases": optional((of_trained, "a mapping from methods that train to settings of theirs")),
}


def fits(name: str, value: Any) -> bool:
    """Whether a parameter has this name, and takes this value; None stands for the default of a method's setting."""
    if value is None and any(name in defaults for defaults in DEFAULTS.values()):
        return True
    return name in PARAMETERS and PARAMETERS[name][0](value)


def given(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """What a notebook's namespace holds beside IPython's own names, modules and functions: its parameters."""
    own = {"In", "Out", "exit", "quit", "open", "get_ipython"}
    return {
        name: value
        for name, value in namespace.items()
        if name not in own
        and not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        and not callable(value)
    }


def checked(namespace: Mapping[str, Any], notebook: str) -> dict[str, Any]:
    """The notebook's parameters, if each is one that it takes and in range.

    ``namespace`` is the notebook's ``globals()`` right after its parameters. Raises ``ValueError`` in one
    sentence that names the parameter, the value and what it must be.
    """
    parameters, allowed = given(namespace), NOTEBOOKS[notebook]
    for name, value in parameters.items():
        if name not in allowed:
            raise ValueError(f"unknown parameter {name!r}: {notebook} takes {', '.join(allowed)}")
        if not fits(name, value):
            raise ValueError(f"{name} = {value!r} does not fit: it must be {PARAMETERS[name][1]}")
        if name in SINGLE.get(notebook, ()) and isinstance(value, list | tuple):
            raise ValueError(f"{name} = {value!r} does not fit: {notebook} takes one {name}, not a list")
    return parameters


def of_method(method: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of one method: those given, and its defaults for the rest (absent or None).

    Of a method that needs no training: under ``bases`` the settings of those that it is made of. What is given goes to
    each of them that takes it, and what ``parameters["bases"]`` gives to one of them goes first.

    Raises ``ValueError`` where a setting is given that belongs to another method.
    """
    trained = BASES.get(method, (method,))
    takes = dict.fromkeys(name for base in trained for name in DEFAULTS[base])
    given = {name for settings in DEFAULTS.values() for name in settings if parameters.get(name) is not None}
    for name in sorted(given - takes.keys()):
        raise ValueError(f"{method} takes no {name}: its settings are {', '.join(takes)}")
    own = parameters.get("bases") or {}
    if method not in BASES:
        if own:
            raise ValueError(f"{method} is made of no other runs: leave bases out")
        chosen = {name: parameters.get(name) for name in DEFAULTS[method]}
        return {name: DEFAULTS[method][name] if value is None else value for name, value in chosen.items()}
    if unknown := own.keys() - set(trained):
        raise ValueError(f"{method} is made of runs of {', '.join(trained)}, and not of {sorted(unknown)[0]!r}")
    bases = {}
    for base in trained:
        shared = {name: parameters.get(name) for name in DEFAULTS[base]}
        bases[base] = of_method(base, shared | dict(own.get(base, {})))
    return {"dropout": bases[trained[0]]["dropout"], "bases": bases}
