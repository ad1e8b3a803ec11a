"""The committed book: its notebooks as they are stored, and its pages as they are built, strictly."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from symtable import symtable
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup, Tag
from IPython.core.inputtransformer2 import TransformerManager

from lib.book import read_defaults
from lib.pages import PICTURES, clean
from lib.parameters import NOTEBOOKS as PARAMETERS
from lib.parameters import assigned

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
NOTEBOOKS = sorted(path.stem for path in BOOK.glob("[!.]*.ipynb"))
REPOSITORY = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]

# The first cell of each notebook. On Colab a notebook knows nothing of where it came from, so the cell has to repeat
# the repository's address. What is installed, tests/test_packaging.py compares with what is imported.
COLAB_CELL = f"""import sys

if "google.colab" in sys.modules:
    ![ -d /content/companion ] || git clone --quiet --depth 1 {REPOSITORY} /content/companion
    %run /content/companion/book/colab.py
    %cd /content/companion/book
    sys.path.insert(0, "/content/companion")
else:
    # What is called lib in the working folder is not this book's.
    sys.path.sort(key=lambda folder: folder == "")"""

EXERCISED = ["01_data", "02_training", "03_evaluation", "angularity", "method", "methods", "network", "posterior"]
EXERCISED += ["prediction", "robustness", "schedule", "spread", "trust"]


def read(stem: str) -> nbformat.NotebookNode:
    return nbformat.read(BOOK / f"{stem}.ipynb", 4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


# The notebooks


def test_the_contents_list_every_page_and_notebook() -> None:
    listed = set(re.findall(r"(?:file|root): book/(\S+)", (ROOT / "_toc.yml").read_text()))
    assert listed == {path.stem for path in BOOK.glob("[!.]*") if path.suffix in (".md", ".ipynb")}
    assert set(NOTEBOOKS) == set(read_defaults(ROOT))


@pytest.mark.parametrize("stem", NOTEBOOKS)
def test_a_notebook_is_stored_executed_and_clean(stem: str) -> None:
    notebook = read(stem)
    nbformat.validate(notebook)
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert outputs
    assert not [output for output in outputs if output.output_type == "error"]
    assert clean(read(stem), ROOT) == notebook
    for output in outputs:
        for kind in PICTURES:
            output.get("data", {}).pop(kind, None)
    text = re.sub(r"data:[\w/-]+;base64,[\w/+=]+", "", nbformat.writes(notebook))
    assert not re.search(r"/(home|root|tmp|Users)/", text)


@pytest.mark.parametrize("stem", NOTEBOOKS)
def test_a_notebook_begins_with_the_colab_cell_and_its_parameters(stem: str) -> None:
    first, *others = code_cells(read(stem))
    assert first.source == COLAB_CELL
    assert {"colab", "remove-cell"} <= set(first.metadata.tags)
    with_parameters = [at for at, cell in enumerate(others) if "parameters" in cell.metadata.get("tags", [])]
    assert with_parameters == ([0] if stem in PARAMETERS else [])


@pytest.mark.parametrize("stem", NOTEBOOKS)
def test_a_notebook_s_own_cells_leave_its_parameters_as_they_are(stem: str) -> None:
    """So that its cells can be run again, from the parameters on or one by one."""
    for cell in code_cells(read(stem)):
        if stem in PARAMETERS and "parameters" not in cell.metadata.get("tags", []):
            names, _ = assigned(TransformerManager().transform_cell(cell.source))
            assert names.isdisjoint(PARAMETERS[stem])


@pytest.mark.parametrize("stem", NOTEBOOKS)
def test_a_cell_replaces_nothing_that_it_takes_so_that_it_can_be_run_again(stem: str) -> None:
    for cell in code_cells(read(stem)):
        own, taken = set(), set()
        for statement in ast.parse(TransformerManager().transform_cell(cell.source)).body:
            if isinstance(statement, ast.Assign | ast.AugAssign | ast.Expr):
                names = symtable(ast.unparse(statement), stem, "exec").get_symbols()
                replaced = {name.get_name() for name in names if name.is_assigned()}
                added = replaced if isinstance(statement, ast.AugAssign) else set()
                taken |= ({name.get_name() for name in names if name.is_referenced()} | added) - own
                own |= replaced
        assert taken.isdisjoint(own)


@pytest.mark.parametrize("stem", NOTEBOOKS)
def test_a_notebook_is_thin(stem: str) -> None:
    for cell in code_cells(read(stem)):
        for node in ast.walk(ast.parse(TransformerManager().transform_cell(cell.source))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.lineno < 8, node.name


def test_the_repository_s_address_stands_in_one_place() -> None:
    """And in the cell that Colab needs, and in the files that say how to cite."""
    outside = [path for path in ROOT.glob("*") if path.is_file()]
    outside += [path for folder in ("lib", "tests", "book") for path in (ROOT / folder).rglob("*") if path.is_file()]
    naming = {path.relative_to(ROOT) for path in outside if REPOSITORY.encode() in path.read_bytes()}
    citing = {Path("CITATION.cff"), Path("codemeta.json")}
    assert naming == {Path("_config.yml"), *citing, *(Path("book") / f"{stem}.ipynb" for stem in NOTEBOOKS)}


# The pages


@pytest.fixture(scope="module")
def pages(built_book: Path) -> dict[Path, BeautifulSoup]:
    """The chapters of the built book by their place."""
    return {
        path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for path in [built_book / "index.html", *sorted((built_book / "book").glob("*.html"))]
    }


def chapters(pages: dict[Path, BeautifulSoup]) -> Iterator[tuple[Path, Tag]]:
    """What is the book's own of each page."""
    for path, page in pages.items():
        if path.name != "index.html":
            yield path, page.select_one("article")


def test_every_chapter_has_its_page(pages: dict[Path, BeautifulSoup]) -> None:
    listed = re.findall(r"(?:file|root): book/(\S+)", (ROOT / "_toc.yml").read_text())
    assert sorted(path.stem for path, _ in chapters(pages)) == sorted(listed)
    for path, chapter in chapters(pages):
        assert len(chapter.find_all("h1")) == 1, path.name
    assert "book/intro.html" in str(pages[next(iter(pages))])


def test_every_internal_link_and_source_resolves(pages: dict[Path, BeautifulSoup]) -> None:
    seen = 0
    for path, page in pages.items():
        anchors = page.find_all(["a", "link"], href=True)
        sources = page.find_all(["img", "audio", "source", "script"], src=True)
        for target in [tag["href"] for tag in anchors] + [tag["src"] for tag in sources]:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert file.is_file(), f"{path.name}: {target}"
            if parts.fragment and file in pages:
                assert pages[file].find(id=unquote(parts.fragment)), f"{path.name}: {target}"
            seen += 1
    assert seen


def test_every_picture_is_described_in_words(pages: dict[Path, BeautifulSoup]) -> None:
    pictures = [(path.name, image) for path, chapter in chapters(pages) for image in chapter.find_all("img")]
    assert pictures
    for name, image in pictures:
        described = image.get("alt", "").strip()
        assert len(described.split()) >= 3, f"{name}: {image}"
    twice = [one for one, times in Counter((name, image["alt"]) for name, image in pictures).items() if times > 1]
    assert twice == []


def test_every_recording_says_its_word_speaker_and_set(pages: dict[Path, BeautifulSoup]) -> None:
    players = [player for _, chapter in chapters(pages) for player in chapter.find_all("audio")]
    assert players
    for player in players:
        assert re.fullmatch(r"\w+, speaker \w+: [\w-]+ \(synthetic speech\)", player["aria-label"])
        assert player["aria-label"] in player.parent.get_text()


def test_the_header_cells_of_tables_are_named_and_say_whose_they_are(pages: dict[Path, BeautifulSoup]) -> None:
    headers = [(path.name, cell) for path, chapter in chapters(pages) for cell in chapter.select("table th")]
    assert headers
    for name, cell in headers:
        assert cell.get_text(strip=True), f"{name}: {cell.find_parent('table')}"
        assert cell["scope"] in ("col", "colgroup", "row", "rowgroup"), f"{name}: {cell}"


def test_every_picture_and_table_of_a_notebook_is_numbered_and_a_sentence_names_it() -> None:
    for stem in NOTEBOOKS:
        text = "\n".join(cell.source for cell in read(stem).cells if cell.cell_type == "markdown")
        for cell in code_cells(read(stem)):
            kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
            table = any("<table" in output.get("data", {}).get("text/html", "") for output in cell.outputs)
            if table or kinds & {*PICTURES}:
                figure = cell.metadata["mystnb"]["figure"]
                assert figure["name"].startswith("tab-" if table else "fig-")
                assert re.search(rf"{{numref}}`{figure['name']}`", text), f"{stem}: {figure['name']}"


def test_pages_number_their_tables(pages: dict[Path, BeautifulSoup]) -> None:
    numbers = [
        caption.get_text(strip=True)
        for _, chapter in chapters(pages)
        for caption in chapter.select("figure:has(table) > figcaption .caption-number")
    ]
    assert len(numbers) > 50
    assert len(set(numbers)) == len(numbers)
    assert all(re.fullmatch(r"Table \d+", number) for number in numbers)


def test_exercises_of_the_first_two_parts_have_three_answers(pages: dict[Path, BeautifulSoup]) -> None:
    asked = {path.stem: chapter.select("section#exercises details") for path, chapter in chapters(pages)}
    assert {stem: len(answers) for stem, answers in asked.items() if answers} == dict.fromkeys(EXERCISED, 3)


def test_theta_is_the_weights_and_never_the_threshold(pages: dict[Path, BeautifulSoup]) -> None:
    texts = {path.name: chapter.get_text() for path, chapter in chapters(pages)}
    texts |= {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "lib").rglob("*.py")}
    assert any("vartheta" in text for text in texts.values())
    for name, text in texts.items():
        assert not re.search(r"threshold,? \S*(theta|θ)|(theta|θ)\S* the threshold", text.replace("vartheta", "ϑ")), (
            name
        )


def test_a_page_weighs_little_of_its_own(pages: dict[Path, BeautifulSoup]) -> None:
    """The page and its pictures, without the theme's files and MathJax."""
    for path, page in pages.items():
        pictures = {one["src"] for one in page.select("article img[src]") if not one["src"].startswith("data:")}
        assert path.stat().st_size + sum((path.parent / one).stat().st_size for one in pictures) <= 600_000, path.name


def test_the_colab_cell_is_hidden_and_its_button_shown(pages: dict[Path, BeautifulSoup]) -> None:
    for path, chapter in chapters(pages):
        assert "google.colab" not in chapter.get_text(), path.name
        if path.stem in NOTEBOOKS:
            targets = [anchor["href"] for anchor in pages[path].find_all("a", href=True)]
            on_github = REPOSITORY.removeprefix("https://github.com/")
            assert f"https://colab.research.google.com/github/{on_github}/blob/main/book/{path.stem}.ipynb" in targets
            assert any(target.startswith(f"https://mybinder.org/v2/gh/{on_github}/main") for target in targets)
