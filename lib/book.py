"""Run the notebooks in sequence through papermill, on the workers of a Dask cluster, and render the book.

    python -m lib.book --params book/params/quick.yml [--results DIR] [--scheduler ADDRESS]

A file of parameters lists data sets, methods and seeds. Its other keys are parameters that the notebooks declare, of
which ``settings`` holds what all runs share; a method's own settings stand under its name. In both, and for
``data_root``, a mapping from data sets gives each its own value. On a Slurm cluster (or with ``SGECluster`` on an SGE
one) whose nodes see this folder at the same place, each worker can be a job; in a Python that lives as long as they do:

    from dask_jobqueue import SLURMCluster
    cluster = SLURMCluster(queue="night", cores=1, memory="8GB", walltime="12:00:00", n_workers=12)
    print(cluster.scheduler_address)  # which the book is given as --scheduler
"""

import argparse
import ast
import itertools
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import papermill
from sphinx_external_toc.parsing import parse_toc_yaml

from lib import pages
from lib.files import atomic_write, exclusive
from lib.settings import folder_argument, folder_named, read_yaml
from lib.workers import run_all, workers

ROOT = Path(__file__).resolve().parents[1]
AXES = {"dataset": str, "method": str, "seed": int}
FOLDERS = ("data_root", "results_root")
SEQUENCE = {  # for each notebook, the axes that it is run along and the notebook that it builds on
    "01_data": (("dataset",), ""),
    "02_training": (("dataset", "method", "seed"), "01_data"),
    "03_evaluation": ((), "02_training"),
    "04_slices": (("dataset",), "02_training"),
}


class Step(NamedTuple):
    """One execution of one notebook."""

    notebook: str  # its stem in book/
    along: dict[str, Any]  # its place on the axes that the notebook is run along
    parameters: dict[str, Any]  # what differs from the notebook's own defaults
    shown: bool  # whether the book shows this execution
    after: tuple[str, ...]  # names of the steps that must have ended before
    enough: int  # of which so many must have ended well

    @property
    def name(self) -> str:
        return "-".join(map(str, (self.notebook, *self.along.values())))


def read_settings(*paths: Path) -> dict[str, Any]:
    """Return what the files say together, a later one's keys in the place of an earlier one's.

    Methods' own settings are moved into ``settings``. Raises ``FileNotFoundError``, or ``ValueError`` for what is no
    mapping with lists for the axes.
    """
    from lib.methods import METHODS  # here, since torch takes seconds to import, which the workers do without

    settings: dict[str, Any] = {}
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        said = read_yaml(path)
        if not isinstance(said, dict) or not all(isinstance(key, str) for key in said):
            raise ValueError(f"{path} must be a mapping from names to values")
        settings |= said
    where = " and ".join(map(str, paths))
    for axis, kind in AXES.items():
        values = settings.get(axis)
        kinds = [type(value) for value in values] if isinstance(values, list) else []
        if set(kinds) != {kind} or len(set(values)) < len(values):
            raise ValueError(f"{where}: '{axis}' must be a list of {kind.__name__} values, at least one and none twice")
    shared = settings.pop("settings", {})
    if not isinstance(shared, dict):
        raise ValueError(f"{where}: 'settings' must map settings to values, not be {shared!r}")
    sections = {name: settings.pop(name) for name in METHODS if name in settings}
    given = {name: section for name, section in sections.items() if section not in (None, {})}
    return settings | {"settings": shared | given}


def check(settings: Mapping[str, Any], declared: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ``ValueError`` in one sentence for what no notebook can use, or no run."""
    from lib.methods import METHODS
    from lib.parameters import EvaluationSettings, SliceSettings
    from lib.setup import is_section, setting_names, setup_of

    parameters = {name for notebook in SEQUENCE for name in declared[notebook]}
    for key, value in settings.items():
        if key not in parameters | AXES.keys():
            raise ValueError(f"'{key}' is no notebook's parameter and no method; settings stand under 'settings'")
        if key == "data_root" and isinstance(value, dict) and (strange := [*value.keys() - {*settings["dataset"]}]):
            raise ValueError(f"'{key}' names {strange[0]!r}, which is not listed under 'dataset'")
        if key in FOLDERS:
            absolute(key, value)
    for kind in (EvaluationSettings, SliceSettings):
        kind.from_mapping({name: settings[name] for name in kind.names() if name in settings})
    network = {name: settings.get(name, declared["02_training"][name]) for name in ("epochs", "hidden_sizes")}
    for dataset, method, seed in itertools.product(*(settings[axis] for axis in AXES)):
        setup_of(settings["settings"], dataset=dataset, method=method, seed=seed, **network)
    used = {one for method in settings["method"] for one in (method, *getattr(METHODS[method], "bases", ()))}
    for name, value in settings["settings"].items():
        if is_section(name, value, setting_names()) and name not in used:
            raise ValueError(f"'{name}' has settings, but no method listed under 'method' uses it")


def read_defaults(root: Path) -> dict[str, dict[str, Any]]:
    """The parameters that each notebook declares, and their defaults: the sequence first, then the other pages."""
    listed = [Path(page).name for page in parse_toc_yaml(root / "_toc.yml") if (root / f"{page}.ipynb").is_file()]
    declared: dict[str, dict[str, Any]] = {}
    for stem in dict.fromkeys([*SEQUENCE, *listed]):
        declared[stem] = {}
        for name, parameter in papermill.inspect_notebook(pages.for_papermill(root / "book" / f"{stem}.ipynb")).items():
            try:
                declared[stem][name] = ast.literal_eval(parameter["default"])
            except (ValueError, SyntaxError) as error:
                raise ValueError(f"{stem}.ipynb: the default of '{name}' is no literal") from error
    return declared


def plan(settings: Mapping[str, Any], declared: Mapping[str, dict[str, Any]]) -> list[Step]:
    """Return the executions that the settings ask for, each after those whose results it reads.

    ``declared`` maps each notebook to its default parameters. Those outside the sequence run once, as they are, and
    build on none. The book shows a notebook's default execution where it is among them, else the first. One that
    declares ``missing`` can do without some of the runs that it reads. Raises ``ValueError`` as ``check`` does.
    """
    check(settings, declared)
    steps: list[Step] = []
    for notebook, defaults in declared.items():
        axes, needed = SEQUENCE.get(notebook, ((), "01_data"))
        shown = {axis: defaults[axis] if defaults[axis] in settings[axis] else settings[axis][0] for axis in axes}
        for values in itertools.product(*(settings[axis] for axis in axes)):
            along = dict(zip(axes, values, strict=True))
            one, parameters = {}, {}
            if notebook in SEQUENCE:
                # An axis that it is not run along comes whole where its default is a list, else as its first value.
                one = {axis: settings[axis][0] for axis in AXES if not isinstance(defaults.get(axis), list)} | along
                parameters = parameters_of(defaults, settings | one, along)
            read = [it for it in steps if it.notebook == needed and it.along.items() <= (it.along | one).items()]
            enough = 0 if notebook not in SEQUENCE else 1 if "missing" in defaults else len(read)
            after = tuple(step.name for step in read)
            steps.append(Step(notebook, along, parameters, along == shown, after, enough))
    return steps


def parameters_of(defaults: Mapping[str, Any], settings: Mapping[str, Any], along: Mapping[str, Any]) -> dict[str, Any]:
    """What one execution is given: of all that is said, what its notebook declares and does not assume.

    ``settings`` come to it whole where it takes several methods, as ``setup_of`` wants them, else those of its own.
    """
    from lib.methods import METHODS
    from lib.setup import settings_for

    values, root = dict(settings), settings.get("data_root")
    if isinstance(root, dict) and not isinstance(settings["dataset"], list):
        values["data_root"] = root.get(settings["dataset"])
    if "method" in along:
        values["settings"] = settings_for(settings["settings"], settings["dataset"], settings["method"])
    elif "method" not in defaults:
        values["settings"] = {name: value for name, value in settings["settings"].items() if name not in METHODS}
    given = {key: values[key] for key in defaults if key in values and values[key] != defaults[key]}
    return given | {key: absolute(key, given[key]) for key in FOLDERS if key in given}


def absolute(key: str, named: Any) -> str | dict[str, str]:
    """A folder, or each of several, as seen from where the command is run and not from where the notebook is."""
    if isinstance(named, dict):
        return {name: absolute(key, one) for name, one in named.items()}
    if not isinstance(named, str):
        raise ValueError(f"'{key}' must be a folder, not {named!r}; a mere ~ is nothing in YAML, and '~' the home")
    return str(folder_named(named).resolve())


def execute(steps: list[Step], root: Path, scheduler: str | None = None) -> dict[str, str]:
    """Leave each step's notebook in _build/executed, cleaned, and the seconds that each took in _build/steps.csv.

    Returns for each step that was not done what became of it. Raises ``OSError`` or ``RuntimeError`` where the cluster
    itself does not work.
    """
    for place in (root / "_build/reports", root / "_build/executed"):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
    by_name = {step.name: step for step in steps}

    def task(step: Step, **further: Any) -> tuple:
        return root, step.notebook, step.name, step.parameters | further

    def without(name: str, failed: list[str]) -> tuple | None:
        """The task of a step where some that it comes after have failed; None where it cannot do without."""
        step = by_name[name]
        if len(step.after) - len(failed) < step.enough:
            return None
        return task(step, missing=[one.partition("-")[2] for one in failed]) if step.enough else task(step)

    tasks, after = {step.name: task(step) for step in steps}, {step.name: step.after for step in steps}
    undone, costs, shared = {}, [], root / "_build/reports"
    with workers(scheduler, len(steps)) as client:
        for name, outcome in run_all(client, pages.execute, tasks, after, shared=shared, without=without):
            if outcome.failure:
                undone[name] = outcome.failure
                continue
            costs.append((by_name[name].along.get("dataset"), name, round(outcome.seconds, 3)))
            with atomic_write(root / "_build/steps.csv") as aside:
                pd.DataFrame(costs, columns=["dataset", "step", "seconds"]).to_csv(aside, index=False)
    return undone


def make(params: list[Path], results: Path | None, scheduler: str | None, root: Path) -> None:
    """Execute what the files ask for and render the book to _build/html, which is replaced only whole.

    Raises ``RuntimeError`` where something is missing from the book, which says so itself, and where another run is at
    work: waiting for hours, to put another book in its place, is not what was asked for.
    """
    from lib.ledger import HUMAN  # here, for torch's sake as above

    settings = read_settings(*params) | ({"results_root": str(results)} if results else {})
    steps, build = plan(settings, read_defaults(root)), root / "_build"
    busy = f"another run of the book is at work in {build}; wait for its end, or use another checkout"
    with exclusive(build / "html", refusal=busy):
        print(f"{len(steps)} notebooks to run.", flush=True)
        undone = execute(steps, root, scheduler)
        print("Rendering the book.", flush=True)
        executed: dict[str, Path] = {}
        for step in sorted(steps, key=lambda step: not step.shown):
            if step.name not in undone:
                executed.setdefault(step.notebook, build / "executed" / f"{step.name}.ipynb")
        pages.stage(root, build / "source", executed, notes(steps, undone, root))
        pages.render(build / "source", build / "html")
        for sentence in pages.saying(build / "html", HUMAN):
            print(sentence)
    if undone:
        lines = "\n".join(f"{name} {end}" for name, end in undone.items())
        raise RuntimeError(f"The book lacks {len(undone)} of {len(steps)} executions; see _build/reports.\n{lines}")
    print("The book is in _build/html/index.html.")


def notes(steps: list[Step], undone: Mapping[str, str], root: Path) -> dict[str, str]:
    """What pages must say of steps that were not done: the first page of all, a notebook's of its own."""
    first = parse_toc_yaml(root / "_toc.yml").root.docname
    said = {}
    for page in dict.fromkeys([first, *(f"book/{step.notebook}" for step in steps)]):
        own = [step.name for step in steps if page in (first, f"book/{step.notebook}")]
        lines = "\n".join(f"{name} {undone[name]}." for name in own if name in undone).replace("`", "'")
        if lines:
            said[page] = pages.without_paths(f"Of this run of the book is missing:\n\n```text\n{lines}\n```", root)
        if page != first and undone.keys() >= set(own):
            said[page] += "\n\nWhat stands below is from an earlier run, as it was committed."
    return said


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser("python -m lib.book", description="Run the notebooks, render the book.")
    params = "a file such as book/params/quick.yml; a further one replaces what it names"
    parser.add_argument("--params", type=folder_argument, nargs="+", required=True, help=params)
    parser.add_argument("--results", type=folder_argument, help="folder for stored runs, instead of the notebooks' own")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster, instead of one on this machine")
    options = parser.parse_args(arguments)
    # SIGINT too: a shell's background job starts with it ignored, and Python then leaves it so.
    for interruption in (signal.SIGINT, signal.SIGTERM):
        signal.signal(interruption, signal.default_int_handler)
    try:
        make(options.params, options.results, options.scheduler, root)
    except KeyboardInterrupt:
        print("Interrupted: finished work is kept, and the same command goes on from there.", file=sys.stderr)
        return 130
    except (OSError, ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
