"""What the notebooks with parameters take, beside the settings of runs (``setup``)."""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from IPython import get_ipython

from lib.settings import Settings, real, setting, whole
from lib.setup import setting_names

SHARED = ("dataset", "data_root", "results_root", "settings")
TRAINED = (*SHARED, "method", "seed", "epochs", "hidden_sizes")
NOTEBOOKS = {
    "01_data": SHARED,
    "02_training": TRAINED,
    "03_evaluation": (*TRAINED, "samples", "bins", "missing"),
    "own_words": (*TRAINED, "samples"),
    "04_slices": (*TRAINED, "samples", "points", "directions", "radius", "examples"),
}


@dataclass(frozen=True)
class EvaluationSettings(Settings):
    """Of an evaluation on the test part: samples of the weights, and bins of confidence for the calibration error."""

    title = "an evaluation"
    samples: int = setting(16, whole(1, 100_000))
    bins: int = setting(15, whole(1, 10_000))


@dataclass(frozen=True)
class SliceSettings(Settings):
    """Of slices: samples of each averaged loss, points from -radius to radius, directions, test utterances."""

    title = "a slice"
    samples: int = setting(16, whole(1, 100_000))
    points: int = setting(31, whole(3, 100_000))
    directions: int = setting(2, whole(1, 100_000))
    radius: float = setting(2.0, real(0, 1e6, above=True))
    examples: int = setting(140, whole(1))


def check(notebook: str, kernel: Mapping[str, Any] | None = None) -> None:
    """Refuse a parameter that the notebook does not take, which papermill only warns of, and one that is not set.

    ``kernel`` holds what the kernel does (by default this one's): in "In" the sources of the cells that were run, the
    running one last. Looked at are those since the last one that sets most parameters, so that a cell may be run again,
    whatever else stands in the kernel: of these one that sets a parameter may set nothing else, and one of mere values
    nothing that is called nearly as a parameter is. Where most parameters were set since the last check, all must be.
    Raises ``ValueError``.
    """
    if kernel is None:
        kernel = get_ipython().user_ns if get_ipython() else {}
    takes, given, looked_at, unchecked = NOTEBOOKS[notebook], set(), True, True
    for cell in reversed(kernel.get("In", [])[:-1]):
        names, values = assigned(cell)
        parameters, injected = names & set(takes), cell.startswith("# Parameters")
        for name in sorted(names - parameters) if looked_at else ():
            if parameters or injected or (values and get_close_matches(name, takes, 1, 0.8)):
                raise ValueError(unknown(name, notebook))
        looked_at &= injected or 2 * len(parameters) <= len(takes)
        unchecked &= "parameters.check(" not in cell
        given |= parameters if unchecked else set()
    if 2 * len(given) > len(takes) and (lacking := [name for name in takes if name not in given]):
        raise ValueError(f"{lacking[0]} is not set: give it a value in the cell of parameters, and run from there on")
    for name in takes:
        value = kernel.get(name)
        if isinstance(value, str) and re.fullmatch(r"\[.*\]|\{.*\}", value):
            raise ValueError(f"{name} = {value!r} is text: for papermill write -y '{name}: {value}' in place of -p")


def unknown(name: str, notebook: str) -> str:
    """The sentence that refuses a parameter."""
    told = f"unknown parameter {name!r}: {notebook} takes {', '.join(NOTEBOOKS[notebook])}"
    if name in setting_names():
        return f"{told}; {name} stands in settings, for papermill -y 'settings: {{{name}: ...}}'"
    return f"{told}; mend it and run from the parameters on"


def assigned(cell: str) -> tuple[set[str], bool]:
    """The names to which a cell assigns something, and whether it does nothing but assign literals."""
    try:
        statements = ast.parse(cell).body
    except SyntaxError:
        return set(), False
    names, values = set(), True
    for statement in statements:
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        if not isinstance(statement, ast.Assign | ast.AnnAssign):
            values = False
            continue
        names |= {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
        try:
            ast.literal_eval(statement.value)
        except (ValueError, TypeError):
            values = False
    return names, values
