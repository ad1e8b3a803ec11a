"""The results to take along, as an RO-Crate: tables, settings, commits and the built pages, said in schema.org's terms.

    python -m lib.archive [FOLDER]    # what `make archive` runs, into _build/archive; the same zipped beside it

Each study is a data set of its own: its file, its tables, its records and the commits that computed it. What is
recorded speech is not among them.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import yaml
from rocrate.model import ContextEntity, Person, SoftwareApplication
from rocrate.rocrate import ROCrate

from lib import provenance
from lib.files import atomic_write
from lib.settings import folder_argument
from lib.study import FOLDER, named, tables

ROOT = FOLDER.parents[1]
WHOLE = ("README.md", "LICENSE", "CITATION.cff", "data/README.md", "requirements.txt", "pyproject.toml")
PAPER = "https://arxiv.org/abs/2604.08624"


def crate(html: Path) -> ROCrate:
    """The crate of what is stored and of the pages in ``html``. Raises ``FileNotFoundError`` where no page is built."""
    if not (html / "index.html").is_file():
        raise FileNotFoundError(f"{html} has no index.html: build the book first, with make book")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    made = ROCrate()
    made.name, made.description = cited["title"], f"The results of the {cited['version']} and the book made of them."
    made.license, made.isBasedOn = f"https://spdx.org/licenses/{cited['license']}", {"@id": PAPER}
    for author in cited["authors"]:
        made.creator = made.add(Person(made, "#authors", {"@type": "Organization", "name": author["name"]}))
    made.add(ContextEntity(made, PAPER, {"@type": "ScholarlyArticle", "name": cited["references"][0]["title"]}))
    what = {"name": cited["title"], "url": cited["repository-code"], "version": str(provenance.COMMIT)}
    code = made.add(SoftwareApplication(made, cited["repository-code"], what))
    for name in WHOLE:
        made.add_file(ROOT / name, name)
    for path in sorted((*tables.RESULTS.glob("*.*"), *(tables.DATA / "published").iterdir())):
        made.add_file(path, path.relative_to(ROOT).as_posix())
    for path in sorted(FOLDER.glob("*.yml")):
        if (tables.RESULTS / path.stem / "runs.json").is_file():
            add_study(made, path, code)
    made.add_tree(html, "html", {"name": "The book, as it was built", "encodingFormat": "text/html"})
    return made


def add_study(made: ROCrate, path: Path, code: ContextEntity) -> None:
    """A study's tables and file as one data set, and the computations that made them, a commit each."""
    results = tables.RESULTS / path.stem
    of = results.relative_to(ROOT).as_posix()
    said = [line.removeprefix("# ") for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
    its = [path, *(one for one in [named(path.stem).chosen_path] if one.exists()), *sorted(results.iterdir())]
    files = {"hasPart": [{"@id": made.add_file(one, one.relative_to(ROOT).as_posix()).id} for one in its]}
    study = made.add_dataset(None, f"{of}/", properties={"name": path.stem, "description": " ".join(said)} | files)
    records = pd.DataFrame(json.loads((results / "runs.json").read_text(encoding="utf-8")))
    for commit, own in records.groupby("commit"):
        told = {"name": f"{len(own)} runs of {path.stem} at commit {commit}", "endTime": own["finished"].max()}
        made.add_action(code, f"#{path.stem}-{commit}", result=study, properties=told)


def write(html: Path, folder: Path) -> None:
    """Put the crate into a folder and a ZIP file beside it, which are replaced only whole."""
    made, aside = crate(html), folder.with_name(folder.name + ".new")
    shutil.rmtree(aside, ignore_errors=True)
    made.write(aside)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    with atomic_write(folder.with_suffix(".zip")) as zipped:
        shutil.move(shutil.make_archive(str(zipped), "zip", folder), zipped)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m lib.archive", description="Put the results and the book into an RO-Crate."
    )
    parser.add_argument(
        "folder", type=folder_argument, nargs="?", default=ROOT / "_build/archive", help="for it; replaced"
    )
    folder = parser.parse_args(arguments).folder
    try:
        write(ROOT / "_build/html", folder)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{folder} and {folder.name}.zip beside it hold the archive.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
