"""From a settings file to the executions that it asks for.

A settings file lists data sets, methods and seeds. Its other keys are notebook parameters, those of one method under
that method's name; a mapping from data sets to values gives each data set its own. A notebook is given the keys that
its own `parameters` cell declares. A method that is made of runs of others is given what stands under their names.
"""

import ast
import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import papermill
import yaml

from lib.settings import BASES, DEFAULTS, METHODS, checked, of_method

AXES = {"dataset": str, "method": str, "seed": int}
FOLDERS = ("data_root", "results_root")
SEQUENCE = {  # for each notebook, the axes that it is run along and the notebook that it builds on
    "01_data": (("dataset",), ""),
    "02_training": (("dataset", "method", "seed"), "01_data"),
    "03_evaluation": ((), "02_training"),
    "04_slices": (("dataset",), "02_training"),
}


@dataclass(frozen=True)
class Step:
    """One execution of one notebook."""

    notebook: str  # its stem in book/
    along: dict[str, Any]  # its place on the axes that the notebook is run along
    parameters: dict[str, Any]  # what differs from the notebook's own defaults
    shown: bool  # whether the book shows this execution
    after: frozenset[str]  # names of the steps that must have ended before
    enough: int  # of which so many must have ended well

    @property
    def name(self) -> str:
        return "-".join(map(str, (self.notebook, *self.along.values())))


def read_settings(*paths: Path) -> dict[str, Any]:
    """What the settings files say together, the later in the place of the earlier.

    FileNotFoundError or ValueError if it is not what the pipeline needs.
    """
    settings = {name: value for path in paths for name, value in read_mapping(path).items()}
    where = " and ".join(map(str, paths))
    for axis, kind in AXES.items():
        values = settings.get(axis)
        if not isinstance(values, list) or not values or any(type(value) is not kind for value in values):
            raise ValueError(f"{where}: '{axis}' must be a list of one or more {kind.__name__} values.")
        if len(set(values)) < len(values):
            raise ValueError(f"{where}: '{axis}' names a value twice.")
    return settings


def read_mapping(path: Path) -> dict[str, Any]:
    """The content of one settings file."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no settings file {path}.")
    try:
        text = path.read_text(encoding="utf-8")
        settings = yaml.safe_load(text)
        node = yaml.compose(text, yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
        raise ValueError(f"{path} must be a mapping from names to values.")
    check_keys(path, node)
    return settings


def check_keys(path: Path, node: yaml.Node) -> None:
    """Raise ValueError for a key that stands twice in a mapping: YAML's parser takes the last in silence."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    keys = [key.value for key, _ in pairs]
    for key, value in pairs:
        if keys.count(key.value) > 1:
            raise ValueError(f"{path} gives '{key.value}' twice; leave one of them.")
        check_keys(path, value)


def notebooks_of(root: Path) -> list[str]:
    """Stems of the book's notebooks: the sequence first, then whatever else _toc.yml lists."""

    def files(entry: Any) -> list[str]:
        if isinstance(entry, list):
            return [file for item in entry for file in files(item)]
        if isinstance(entry, dict):
            here = [entry[key] for key in ("root", "file") if key in entry]
            return here + [file for value in entry.values() for file in files(value)]
        return []

    listed = files(yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8")))
    found = [Path(file).name for file in listed if (root / f"{file}.ipynb").is_file()]
    return [*SEQUENCE, *(stem for stem in found if stem not in SEQUENCE)]


def read_defaults(notebook: Path) -> dict[str, Any]:
    """The parameters that a notebook's `parameters` cell declares, with their default values."""
    defaults = {}
    for name, parameter in papermill.inspect_notebook(notebook).items():
        try:
            defaults[name] = ast.literal_eval(parameter["default"])
        except (ValueError, SyntaxError) as error:
            raise ValueError(f"{notebook.name}: the default of '{name}' is no literal.") from error
    return defaults


def plan(settings: dict[str, Any], declared: dict[str, dict[str, Any]]) -> list[Step]:
    """The executions that the settings ask for, each after those whose results it reads.

    `declared` maps each notebook to its default parameters. Notebooks outside the sequence run once, as they are. The
    book shows a notebook's own default execution where it is among them, else the first. A notebook that declares
    `missing` can do without some of the runs that it reads, and one outside the sequence builds on none.
    """
    check_names(settings, {name for notebook in SEQUENCE for name in declared[notebook]})
    steps: list[Step] = []
    for notebook, defaults in declared.items():
        axes, needed = SEQUENCE.get(notebook, ((), "01_data"))
        lists = {axis: settings[axis] for axis in axes}
        shown = {axis: defaults[axis] if defaults.get(axis) in values else values[0] for axis, values in lists.items()}
        for values in itertools.product(*lists.values()):
            along = dict(zip(axes, values, strict=True))
            parameters = parameters_of(notebook, defaults, along, settings) if notebook in SEQUENCE else {}
            read = place_of(defaults, along, settings) if notebook in SEQUENCE else {}
            after = frozenset(step.name for step in steps if step.notebook == needed and is_within(step.along, read))
            enough = (1 if "missing" in defaults else len(after)) if notebook in SEQUENCE else 0
            steps.append(Step(notebook, along, parameters, along == shown, after, min(enough, len(after))))
    return steps


def place_of(defaults: dict[str, Any], along: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """What an execution is given on the axes.

    An axis that the notebook is not run along comes whole where its default is a list, else as its first value.
    """
    return {
        axis: along.get(axis, settings[axis] if isinstance(defaults.get(axis), list) else settings[axis][0])
        for axis in AXES
    }


def is_within(along: dict[str, Any], place: dict[str, Any]) -> bool:
    """Whether a step lies among the values, one or several on each axis, that another is given."""
    return all(
        value in place[axis] if isinstance(place[axis], list) else value == place[axis]
        for axis, value in along.items()
        if axis in place
    )


def without(step: Step, failed: list[Step]) -> Step | None:
    """The step as it can be run where some that it comes after have failed; None where it cannot."""
    if len(step.after) - len(failed) < step.enough:
        return None
    if not failed or not step.enough:
        return step
    missing = [*step.parameters.get("missing", []), *("-".join(map(str, one.along.values())) for one in failed)]
    return replace(step, parameters=step.parameters | {"missing": missing})


def at_once(steps: list[Step]) -> int:
    """How many of the steps can run at the same time, at most."""
    most, ended = 1, set()
    while ready := {step.name for step in steps if step.name not in ended and step.after <= ended}:
        most = max(most, len(ready))
        ended |= ready
    return most


def check_names(settings: dict[str, Any], parameters: set[str]) -> None:
    """Refuse keys that no notebook declares, one method's given to another, and mappings from sets not listed."""
    listed = {base for method in settings["method"] for base in (method, *BASES.get(method, ()))}
    methods = {method: settings[method] for method in settings if method in listed}
    shared = {key: value for key, value in settings.items() if key not in AXES and key not in methods}
    for method, section in {"": shared, **methods}.items():
        if not isinstance(section, dict):
            raise ValueError(f"'{method}' must map parameters to values, not be {section!r}.")
        for key, value in section.items():
            place = f"{method}.{key}".lstrip(".")
            if key not in parameters or key in AXES:
                raise ValueError(f"'{place}' is neither a notebook's parameter nor a method listed under 'method'.")
            for name in value if isinstance(value, dict) else ():
                if name not in settings["dataset"]:
                    raise ValueError(f"'{place}' names {name!r}, which is not listed under 'dataset'.")
    for method in settings["method"]:
        if method in METHODS:
            of_method(method, shared | methods.get(method, {}) | bases_of(method, settings, settings["dataset"]))


def parameters_of(
    notebook: str, defaults: dict[str, Any], along: dict[str, Any], settings: dict[str, Any]
) -> dict[str, Any]:
    """What one execution is given: of the settings, what the notebook declares and does not already assume.

    A mapping from data sets comes whole where data sets do. Raises ValueError for a value that does not fit.
    """
    place = place_of(defaults, along, settings)
    values = of_dataset(settings, place["dataset"]) | place
    assumed = defaults
    if isinstance(place["method"], str):
        values |= of_dataset(settings.get(place["method"], {}), place["dataset"])
        values |= bases_of(place["method"], settings, place["dataset"])
        own = DEFAULTS.get(place["method"], {})  # which None stands for
        assumed = {key: own.get(key) if value is None else value for key, value in defaults.items()}
    given = {key: values[key] for key in defaults if key in values and values[key] != assumed[key]}
    checked(defaults | given, notebook)
    return {key: absolute(value) if key in FOLDERS else value for key, value in given.items()}


def bases_of(method: str, settings: dict[str, Any], dataset: str | list[str]) -> dict[str, Any]:
    """What is said of the methods that a method is made of, as the parameter that holds it."""
    said = {base: of_dataset(settings[base], dataset) for base in BASES.get(method, ()) if base in settings}
    return {"bases": said} if said else {}


def of_dataset(section: dict[str, Any], dataset: str | list[str]) -> dict[str, Any]:
    """What a section says of one data set; of several, all that it says."""
    if isinstance(dataset, list):
        return section
    return {
        key: value[dataset] if isinstance(value, dict) else value
        for key, value in section.items()
        if not isinstance(value, dict) or dataset in value
    }


def absolute(folder: str | dict[str, str]) -> str | dict[str, str]:
    """A folder, or each of several, as seen from where the command is run and not from where the notebook is."""
    if isinstance(folder, dict):
        return {name: absolute(one) for name, one in folder.items()}
    return str(Path(folder).expanduser().resolve())
