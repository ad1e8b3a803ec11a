"""From notebooks to the book's pages: execute one, clean it of this machine, put the book together, render it."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import papermill
from bs4 import BeautifulSoup
from papermill.exceptions import PapermillExecutionError

from lib.files import atomic_write

STILLBORN = "Kernel died before replying to kernel_info"  # in jupyter_client's words
PICTURES = ("image/png", "image/jpeg", "image/svg+xml")
EMBEDDED = re.compile(r"(data:[\w/-]+;base64,[\w/+=]+)")


def execute(root: Path, stem: str, name: str, parameters: dict[str, Any], starts: int = 3) -> None:
    """Execute a notebook of the book to _build/executed/<name>.ipynb, cleaned; what fails stays in _build/reports.

    A kernel that dies before it answers has run nothing and is started anew: kernels that start at the same time may
    choose the same port. Raises ``RuntimeError`` with the error of a cell.
    """
    need_a_home()
    os.environ["JUPYTER_PATH"] = str(Path(sys.prefix) / "share/jupyter")  # this environment's kernel, not the user's
    report = root / "_build/reports" / f"{name}.ipynb"
    try:
        notebook = papermill.execute_notebook(
            for_papermill(root / "book" / f"{stem}.ipynb"),
            for_papermill(report),
            parameters,
            cwd=root / "book",
            kernel_name="python3",
            progress_bar=False,
            coalesce_streams=True,
            extra_arguments=["--log-level=CRITICAL"],  # the kernel's own remarks would break into the progress
        )
    except PapermillExecutionError as error:
        last = error.evalue.strip().splitlines()[-1:]
        raise RuntimeError(" ".join((f"{error.ename}:", *last))) from None
    except RuntimeError as error:
        if STILLBORN not in str(error) or starts == 1:
            raise
        return execute(root, stem, name, parameters, starts - 1)
    with atomic_write(root / "_build/executed" / report.name) as aside:
        nbformat.write(clean(notebook, root), aside)
    report.unlink()


def need_a_home() -> None:
    """Give a user without a home, which Jupyter asks for, that of system users: it does without what is not there."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/nonexistent"


def for_papermill(path: Path) -> str:
    """A path for papermill, which takes what stands in braces for parameters to fill in."""
    return str(path).replace("{", "{{").replace("}", "}}")


def clean(notebook: nbformat.NotebookNode, root: Path) -> nbformat.NotebookNode:
    """Take this machine's paths, clock and versions out of a notebook: they would change it at every run."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    language = {"name": "python", "pygments_lexer": "ipython3"}
    notebook.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": language})
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.id = "injected-parameters"
            cell.source = without_paths(cell.source, root)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if cell.cell_type == "code":
            # Progress and warnings are for whoever watches the run, not for the reader of the page.
            shown = [output for output in cell.outputs if output.get("name") != "stderr"]
            cell.outputs = without_paths(shown, root)
    return notebook


def without_paths(value: Any, root: Path) -> Any:
    """Replace this machine's folders, in every string inside ``value``, by what a reader calls them."""
    if isinstance(value, dict):
        return type(value)({key: item if key in PICTURES else without_paths(item, root) for key, item in value.items()})
    if isinstance(value, list):
        return [without_paths(item, root) for item in value]
    if not isinstance(value, str):
        return value
    # Sound and pictures inside a page are long lines of letters in which anything may be found; they have no paths.
    parts = re.split(EMBEDDED, value)
    return "".join(part if index % 2 else without_paths_in_text(part, root) for index, part in enumerate(parts))


def without_paths_in_text(text: str, root: Path) -> str:
    if "ipykernel_" in text:
        text = re.sub(r"[^\s'\"]*ipykernel_\d+/\d+\.py", "this cell", text)
    home = Path(os.path.expanduser("~"))  # which stays as it is where it is not known
    names = {root: ".", home: "~", Path("/tmp"): "$TMPDIR", Path(tempfile.gettempdir()): "$TMPDIR"}
    names |= {Path(sys.prefix): "$PREFIX", Path(sys.base_prefix): "$PREFIX"}
    folders = {str(form): name for folder, name in names.items() for form in (folder, folder.resolve())}
    for folder, name in sorted(folders.items(), key=lambda item: -len(item[0])):
        if len(folder) > 1:  # a home that is "/" would match every path
            text = re.sub(rf"(?<![\w.~+]){re.escape(folder)}(?!\w)", name, text)
    return text


def stage(root: Path, source: Path, executed: Mapping[str, Path], notes: Mapping[str, str]) -> None:
    """Copy what the book is made of to the folder ``source``, with executed notebooks in the place of committed ones.

    Hidden files are left out, such as ``._01_data.ipynb``, which macOS puts beside a file on another's disk.
    ``notes`` maps pages, such as "book/intro", to warnings that are put under their titles.
    """
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(root / "book", source / "book", ignore=shutil.ignore_patterns(".*"))
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(root / name, source)
    for notebook, path in executed.items():
        shutil.copy(path, source / "book" / f"{notebook}.ipynb")
    for page, note in notes.items():
        text, path = source / f"{page}.md", source / f"{page}.ipynb"
        if text.exists():
            text.write_text(with_warning(text.read_text(encoding="utf-8"), note), encoding="utf-8")
        else:
            notebook = nbformat.read(path, 4)
            notebook.cells[0].source = with_warning(notebook.cells[0].source, note)
            nbformat.write(notebook, path)


def with_warning(page: str, note: str) -> str:
    """Return a page in Markdown with a warning under its title."""
    title, _, rest = page.partition("\n")
    return f"{title}\n\n````{{warning}}\n{note}\n````\n{rest}"


def render(source: Path, html: Path) -> None:
    """Render the book in ``source`` to the folder ``html``, which is replaced only whole.

    Raises ``RuntimeError`` with all that is wrong where the book does not build without warnings.
    """
    need_a_home()
    output = source.with_name("rendering")
    shutil.rmtree(output, ignore_errors=True)
    program = Path(sysconfig.get_path("scripts")) / "jupyter-book"
    finished = subprocess.run(
        [program, "build", source, "--path-output", output, "-W", "-n", "--keep-going"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if finished.returncode:
        log = re.sub(r"\x1b\[[\d;]*m", "", finished.stdout).splitlines()
        wrong = [line for line in log if re.search("WARNING|ERROR|Error", line)] or log[-5:]
        raise RuntimeError("the book does not build without warnings:\n" + "\n".join(wrong))
    shutil.rmtree(html.resolve(), ignore_errors=True)
    with atomic_write(html) as aside:  # which may be a link to another disk
        shutil.move(output / "_build/html", aside)
    shutil.rmtree(output)


def saying(html: Path, words: str) -> list[str]:
    """The paragraphs that have these words, each after the name of its page."""
    told = []
    for page in sorted((html / "book").glob("*.html")):
        said = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").find_all(string=re.compile(words))
        told += [f"{page.stem}: {one.find_parent(['p', 'div']).get_text(' ', strip=True)}" for one in said]
    return told
