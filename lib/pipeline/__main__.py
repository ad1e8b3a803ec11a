"""The command line."""

import argparse
import signal
import sys
from pathlib import Path

from lib.pipeline.execution import execute
from lib.pipeline.pages import render, stage
from lib.pipeline.planning import notebooks_of, plan, read_defaults, read_settings

ROOT = Path(__file__).resolve().parents[2]


def run(params: Path, results: Path | None, root: Path) -> None:
    """Execute what the settings ask for and render the book to _build/html, which is replaced only whole."""
    settings = read_settings(params)
    declared = {stem: read_defaults(root / "book" / f"{stem}.ipynb") for stem in notebooks_of(root)}
    if results:
        settings["results_root"] = str(results)
    steps = plan(settings, declared)
    print(f"{len(steps)} notebooks to run.", flush=True)
    execute(steps, root)
    print("Rendering the book.", flush=True)
    build = root / "_build"
    executed = {step.notebook: build / "executed" / f"{step.name}.ipynb" for step in steps if step.shown}
    stage(root, build / "source", executed)
    render(build / "source", build / "html")
    print("The book is in _build/html/index.html.")


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser("python -m lib.pipeline", description="Run the notebooks, render the book.")
    parser.add_argument("--params", type=Path, required=True, help="settings, such as book/params/quick.yml")
    parser.add_argument("--results", type=Path, help="folder for stored runs, instead of the notebooks' own")
    options = parser.parse_args(arguments)
    # SIGINT too: a shell's background job starts with it ignored, and Python then leaves it so.
    for interruption in (signal.SIGINT, signal.SIGTERM):
        signal.signal(interruption, signal.default_int_handler)
    try:
        run(options.params, options.results, root)
    except KeyboardInterrupt:
        print("Interrupted: finished work is kept, and the same command goes on from there.", file=sys.stderr)
        return 130
    except (OSError, ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
