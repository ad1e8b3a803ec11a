"""A book of notebooks that take a moment and compute nothing; they know no torch.

Each toy notebook writes the parameters that it was given into the folder of results.
"""

import json
from pathlib import Path

import nbformat
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lib.pipeline.planning import notebooks_of, read_defaults

PARAMETERS = {
    "01_data": 'dataset = "hd"\ndata_root = None\nsplit = None\nresults_root = "results"',
    "02_training": (
        'dataset = "hd"\ndata_root = None\nmethod = "ivon"\nseed = 1\nresults_root = "results"\n'
        "hidden_sizes = [\n    128,  # first\n    128,  # second\n]\n"
        "learning_rate: float = 0.1  # of either method\ndropout = None"
    ),
    "03_evaluation": (
        'dataset = ["hd"]\ndata_root = None\nmethod = ["map", "ivon"]\nseed = [1]\nresults_root = "results"\n'
        "samples = 16\nmissing = []"
    ),
    "04_slices": 'dataset = "hd"\nmethod = ["map", "ivon"]\nseed = 1\nresults_root = "results"',
}
RECORD = """import json
from pathlib import Path

keys = "dataset data_root split method seed hidden_sizes learning_rate dropout samples missing"
given = {key: globals()[key] for key in keys.split() if key in globals()}
Path(results_root).mkdir(exist_ok=True)
with (Path(results_root) / "ran.jsonl").open("a") as file:
    file.write(json.dumps([STEM, given]) + "\\n")
print(given, "from", Path.cwd())"""
SETTINGS = {
    "dataset": ["sc", "hd"],
    "method": ["map", "ivon"],
    "seed": [1, 2],
    "hidden_sizes": [8, 8],
    "map": {"learning_rate": 0.01},
    "ivon": {"learning_rate": 1},
}


def write_notebook(book: Path, stem: str, *cells: str, parameters: str | None = None) -> None:
    """A notebook of code cells, the first tagged `parameters` if there are any."""
    code = [new_code_cell(source) for source in cells]
    if parameters:
        code.insert(0, new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    cells = [new_markdown_cell(f"# Chapter {stem}"), *code]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    language = {"name": "python", "pygments_lexer": "ipython3"}
    notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": language})
    nbformat.write(notebook, book / f"{stem}.ipynb")


def make(root: Path) -> Path:
    """A repository of toy notebooks with one chapter of text and one notebook outside the sequence."""
    book = root / "book"
    book.mkdir(parents=True)
    for stem, parameters in PARAMETERS.items():
        write_notebook(book, stem, RECORD.replace("STEM", repr(stem)), parameters=parameters)
    write_notebook(book, "extra", "print('as it is')")
    (book / "intro.md").write_text("# Introduction\n\n[Data](01_data.ipynb)\n")
    (root / "_config.yml").write_text('title: Toy\nexecute:\n  execute_notebooks: "off"\n')
    chapters = [{"file": f"book/{stem}"} for stem in (*PARAMETERS, "extra")]
    toc = {"format": "jb-book", "root": "book/intro", "parts": [{"caption": "All", "chapters": chapters}]}
    (root / "_toc.yml").write_text(yaml.safe_dump(toc))
    return root


def settings_file(root: Path, **changes) -> str:
    path = root / "settings.yml"
    path.write_text(yaml.safe_dump(SETTINGS | changes))
    return str(path)


def declared(root: Path) -> dict:
    return {stem: read_defaults(root / "book" / f"{stem}.ipynb") for stem in notebooks_of(root)}


def arguments(root: Path, **changes) -> list[str]:
    return ["--params", settings_file(root, **changes), "--results", str(root / "results")]


def ran(root: Path) -> list[tuple[str, dict]]:
    return [json.loads(line) for line in (root / "results/ran.jsonl").read_text().splitlines()]
