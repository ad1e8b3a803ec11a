"""A book of notebooks that take a moment and compute nothing; they know no torch.

Each toy notebook writes the parameters that it was given into the folder of results.
"""

import json
import sys
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lib.book import main

FOLDERS = 'data_root = None\nresults_root = "results"\nsettings = {}'
NETWORK = "epochs = 30\nhidden_sizes = [\n    128,  # first\n    128,  # second\n]"
PARAMETERS = {
    "01_data": f'dataset = "hd"\n{FOLDERS}',
    "02_training": f'dataset = "hd"\nmethod = "ivon"\nseed: int = 1  # of its weights\n{FOLDERS}\n{NETWORK}',
    "03_evaluation": (
        f'dataset = ["hd"]\nmethod = ["map", "ivon"]\nseed = [1]\n{FOLDERS}\n{NETWORK}\nsamples = 16\nmissing = []'
    ),
    "04_slices": f'dataset = "hd"\nmethod = ["map", "ivon"]\nseed = 1\n{FOLDERS}\n{NETWORK}\nradius = 2.0',
}
RECORD = """import json
from pathlib import Path

keys = "dataset data_root method seed settings epochs hidden_sizes samples missing"
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


def write_step(root: Path, stem: str, *cells: str) -> None:
    """Put other cells in the place of a toy notebook's, which keeps its parameters."""
    write_notebook(root / "book", stem, *cells, parameters=PARAMETERS.get(stem))


def make(root: Path) -> Path:
    """A repository of toy notebooks with one chapter of text and one notebook outside the sequence."""
    book = root / "book"
    book.mkdir(parents=True)
    for stem in PARAMETERS:
        write_step(root, stem, RECORD.replace("STEM", repr(stem)))
    write_notebook(book, "extra", "print('as it is')")
    (book / "intro.md").write_text("# Introduction\n\n[Data](01_data.ipynb)\n")
    (root / "_config.yml").write_text('title: Toy\nexecute:\n  execute_notebooks: "off"\n')
    chapters = [{"file": f"book/{stem}"} for stem in (*PARAMETERS, "extra")]
    toc = {"format": "jb-book", "root": "book/intro", "parts": [{"caption": "All", "chapters": chapters}]}
    (root / "_toc.yml").write_text(yaml.safe_dump(toc))
    return root


def settings_file(root: Path, **changes: Any) -> Path:
    path = root / "settings.yml"
    path.write_text(yaml.safe_dump(SETTINGS | changes))
    return path


def arguments(root: Path, **changes: Any) -> list[str]:
    return ["--params", str(settings_file(root, **changes)), "--results", str(root / "results")]


def ran(root: Path) -> list[tuple[str, dict]]:
    return [json.loads(line) for line in (root / "results/ran.jsonl").read_text().splitlines()]


if __name__ == "__main__":  # python toy_book.py ROOT ARGUMENT...
    sys.exit(main(sys.argv[2:], Path(sys.argv[1])))
