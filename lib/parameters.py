"""What the notebooks of the sequence take as parameters, beside the settings of runs (``setup``)."""

import ast
from collections.abc import Sequence
from dataclasses import dataclass

from IPython import get_ipython

from lib.settings import Settings, real, setting, whole

SHARED = ("dataset", "data_root", "results_root", "settings")
TRAINED = (*SHARED, "method", "seed", "epochs", "hidden_sizes")
NOTEBOOKS = {
    "01_data": SHARED,
    "02_training": TRAINED,
    "03_evaluation": (*TRAINED, "samples", "bins", "missing"),
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
    examples: int = setting(128, whole(1))


def check(notebook: str, cells: Sequence[str] | None = None) -> None:
    """Refuse a parameter that the notebook does not take; papermill only warns of it.

    ``cells`` are the sources of the cells that the kernel has run, the running one last (by default IPython's own).
    Looked at are those right before it that assign nothing but literals and are parameters, so that a cell may be run
    again when the kernel holds other names too. Raises ``ValueError``.
    """
    takes = NOTEBOOKS[notebook]
    for cell in reversed((get_ipython().user_ns["In"] if cells is None else cells)[:-1]):
        names = assigned(cell)
        if names is None:
            return
        if names and (cell.startswith("# Parameters") or not set(names).isdisjoint(takes)):
            for name in names:
                if name not in takes:
                    raise ValueError(f"unknown parameter {name!r}: {notebook} takes {', '.join(takes)}")


def assigned(cell: str) -> list[str] | None:
    """The names to which a cell assigns literals; None for a cell that does anything else."""
    try:
        statements = ast.parse(cell).body
        for statement in statements:
            ast.literal_eval(statement.value)
        return [target.id for statement in statements for target in statement.targets]
    except (SyntaxError, ValueError, AttributeError):
        return None
