"""The command line."""

import argparse
import signal
import sys
from pathlib import Path

import yaml

from lib.files import exclusive
from lib.pipeline.execution import execute
from lib.pipeline.pages import render, stage, without_paths
from lib.pipeline.planning import Step, notebooks_of, plan, read_defaults, read_settings

ROOT = Path(__file__).resolve().parents[2]


def run(params: list[Path], results: Path | None, scheduler: str | None, root: Path) -> None:
    """Execute what the settings ask for and render the book to _build/html, which is replaced only whole.

    Raises RuntimeError where something is missing from the book, which says so itself, and where another run is at
    work: waiting for hours, to put another book in its place, is not what was asked for.
    """
    settings = read_settings(*params)
    declared = {stem: read_defaults(root / "book" / f"{stem}.ipynb") for stem in notebooks_of(root)}
    if results:
        settings["results_root"] = str(results)
    steps = plan(settings, declared)
    busy = f"Another run of the pipeline is at work in {root / '_build'}; wait for its end, or use another checkout."
    with exclusive(root / "_build/html", refusal=busy):
        make(steps, root, scheduler)


def make(steps: list[Step], root: Path, scheduler: str | None) -> None:
    """Execute the steps and render the book."""
    print(f"{len(steps)} notebooks to run.", flush=True)
    undone = execute(steps, root, scheduler)
    for step in steps:
        if step.name in undone:
            print(describe(step, undone[step.name]), file=sys.stderr)
    print("Rendering the book.", flush=True)
    build = root / "_build"
    stage(root, build / "source", executions(steps, undone, build / "executed"), notes(steps, undone, root))
    render(build / "source", build / "html")
    where = "The book is in _build/html/index.html"
    if undone:
        raise RuntimeError(f"{where}, without {len(undone)} of {len(steps)} executions. See _build/reports.")
    print(f"{where}.")


def describe(step: Step, fate: str) -> str:
    given = ", ".join(f"{key}={value!r}" for key, value in (step.along | step.parameters).items())
    return f"book/{step.notebook}.ipynb{f' with {given}' if given else ''} {fate}."


def executions(steps: list[Step], undone: dict[str, str], executed: Path) -> dict[str, Path]:
    """The execution of each notebook that the book shows: the one it should, else the first there is."""
    chosen: dict[str, Path] = {}
    for step in sorted(steps, key=lambda step: not step.shown):
        if step.name not in undone:
            chosen.setdefault(step.notebook, executed / f"{step.name}.ipynb")
    return chosen


def notes(steps: list[Step], undone: dict[str, str], root: Path) -> dict[str, str]:
    """What the pages must say: the first of all that is missing, a notebook's of its own executions."""
    if not undone:
        return {}
    first = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))["root"]
    of_page = {first: list(undone)}
    for step in steps:
        if step.name in undone:
            of_page.setdefault(f"book/{step.notebook}", []).append(step.name)
    told = {}
    for page, names in of_page.items():
        lines = "\n".join(f"{name} {undone[name]}." for name in names).replace("`", "'")
        told[page] = without_paths(f"Of this run of the book is missing:\n\n```text\n{lines}\n```", root)
        if all(step.name in undone for step in steps if page == f"book/{step.notebook}") and page != first:
            told[page] += "\n\nWhat stands below is from an earlier run, as it was committed."
    return told


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser("python -m lib.pipeline", description="Run the notebooks, render the book.")
    parser.add_argument(
        "--params",
        type=Path,
        nargs="+",
        required=True,
        help="settings, such as book/params/quick.yml; a further file replaces what it names",
    )
    parser.add_argument("--results", type=Path, help="folder for stored runs, instead of the notebooks' own")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster, instead of one on this machine")
    options = parser.parse_args(arguments)
    # SIGINT too: a shell's background job starts with it ignored, and Python then leaves it so.
    for interruption in (signal.SIGINT, signal.SIGTERM):
        signal.signal(interruption, signal.default_int_handler)
    try:
        run(options.params, options.results, options.scheduler, root)
    except KeyboardInterrupt:
        print("Interrupted: finished work is kept, and the same command goes on from there.", file=sys.stderr)
        return 130
    except (OSError, ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
