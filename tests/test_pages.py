"""From executed notebooks to the book's pages."""

import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from toy_book import make

from lib.book import SEQUENCE, read_defaults
from lib.pages import clean, execute, render, saying, stage, without_paths


def test_folders_of_this_machine_become_what_a_reader_calls_them(monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    root = Path("/home/somebody/companion")
    for text, cleaned in [
        ("/home/somebody/companion/data/hd", "./data/hd"),
        ("in /home/somebody/companion.", "in .."),
        ("path='/home/somebody/speech'", "path='~/speech'"),
        ("file:///home/somebody/speech", "file://~/speech"),
        ("/home/somebodyelse", "/home/somebodyelse"),
        ("data/tmp/x and ./tmp", "data/tmp/x and ./tmp"),
        ("/tmp/x", "$TMPDIR/x"),
        (f"{sys.prefix}/lib/x.py:3: Warning", "$PREFIX/lib/x.py:3: Warning"),
        ("/tmp/ipykernel_12/3456.py:1: UserWarning: x", "this cell:1: UserWarning: x"),
        ("a ratio of 1/2", "a ratio of 1/2"),
    ]:
        assert without_paths(text, root) == cleaned
    nested = {"data": {"text/html": ["<b>/tmp/a</b>", "/tmp"]}, "count": 3}
    assert without_paths(nested, root) == {"data": {"text/html": ["<b>$TMPDIR/a</b>", "$TMPDIR"]}, "count": 3}


def test_a_home_that_is_the_root_of_all_files_changes_nothing(monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/")
    assert without_paths("/data/hd and a/b", Path("/companion")) == "/data/hd and a/b"


def test_a_home_that_is_not_known_changes_nothing(monkeypatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # as for a user without a name
    assert without_paths("/data/hd and ~/b", Path("/companion")) == "/data/hd and ~/b"


def test_cleaning_keeps_what_a_reader_sees(tmp_path: Path) -> None:
    picture = new_output("display_data", {"image/png": "iVBOR/tmp/w0KGgo=", "text/plain": "<Figure>"})
    cell = new_code_cell("plot()", outputs=[picture], metadata={"tags": ["hide-input"], "mystnb": {"a": 1}})
    cell.metadata.papermill = {"duration": 3.5, "status": "completed"}
    cell.metadata.execution = {"iopub.execute_input": "2026-01-01T00:00:00Z"}
    injected = new_code_cell(f'data_root = "{tmp_path}/speech"', metadata={"tags": ["injected-parameters"]}, id="8f2a")
    notebook = new_notebook(
        cells=[cell, injected, new_markdown_cell("/tmp is written about", metadata={"tags": []})],
        metadata={
            "papermill": {"input_path": "/home/x/book/01_data.ipynb", "environment_variables": {"A": "b"}},
            "kernelspec": {"name": "python3", "display_name": "mine", "language": "python", "path": "/x"},
            "language_info": {"name": "python", "version": "3.11.7", "pygments_lexer": "ipython3"},
        },
    )
    cleaned = clean(notebook, tmp_path)
    assert cleaned.cells[0].source == "plot()"
    assert cleaned.cells[0].outputs == [picture]
    assert cleaned.cells[0].metadata == {"tags": ["hide-input"], "mystnb": {"a": 1}}
    assert cleaned.cells[1].source == 'data_root = "./speech"'
    assert cleaned.cells[1].id == "injected-parameters"
    assert cleaned.cells[2].source == "/tmp is written about"
    assert cleaned.cells[2].metadata == {}
    assert cleaned.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }
    nbformat.validate(cleaned)
    assert clean(cleaned, tmp_path) == cleaned


def test_a_notebook_in_a_folder_of_any_name_is_executed(tmp_path: Path) -> None:
    root = make(tmp_path / "a {b} {} c's [d] % $HOME ü {")
    assert list(read_defaults(root)) == [*SEQUENCE, "extra"]
    (root / "_build/reports").mkdir(parents=True)
    execute(root, "01_data", "01_data-{hd", {"results_root": str(tmp_path / "{results}")})
    assert (root / "_build/executed/01_data-{hd.ipynb").is_file()
    assert (tmp_path / "{results}/ran.jsonl").is_file()


def test_hidden_files_are_no_part_of_the_book(toy: Path) -> None:
    for name in ("._01_data.ipynb", ".DS_Store", ".ipynb_checkpoints/01_data-checkpoint.ipynb"):
        (toy / "book" / name).parent.mkdir(exist_ok=True)
        (toy / "book" / name).write_bytes(b"\0\5\26\7")
    stage(toy, toy / "_build/source", {}, {})
    assert not list((toy / "_build/source").rglob(".*"))
    assert list(read_defaults(toy)) == [*SEQUENCE, "extra"]


def test_a_book_with_a_broken_link_is_refused_and_the_earlier_one_stays(toy: Path) -> None:
    (toy / "book/intro.md").write_text("# Introduction\n\n[Data](05_absent.md)\n")
    html = toy / "_build/html"
    html.mkdir(parents=True)
    (html / "index.html").write_text("an earlier book")
    stage(toy, toy / "_build/source", {}, {})
    with pytest.raises(RuntimeError, match=r"without warnings:\n.*intro\.md:3: WARNING: .*05_absent\.md"):
        render(toy / "_build/source", html)
    assert (html / "index.html").read_text() == "an earlier book"


def test_cleaning_leaves_sound_and_pictures_alone_and_does_not_dwell_on_them(tmp_path: Path) -> None:
    sound = "data:audio/wav;base64," + "/tmp/" + "A" * 300_000
    output = new_output(
        "display_data", {"image/png": f"{tmp_path}/" + "B" * 300_000, "text/html": f"<audio src='{sound}'> {tmp_path}"}
    )
    notebook = new_notebook(cells=[new_code_cell("x", outputs=[output])])
    data = clean(notebook, tmp_path).cells[0].outputs[0].data
    assert data["image/png"] == f"{tmp_path}/" + "B" * 300_000
    assert data["text/html"] == f"<audio src='{sound}'> ."


def test_a_warning_stands_under_the_title_of_its_page(toy: Path) -> None:
    note = "Missing:\n\n```text\n02_training-hd-map-1 failed: ValueError: {ref}`a` <b>.\n```"
    stage(toy, toy / "_build/source", {}, {"book/intro": note, "book/01_data": note})
    (toy / "disk").mkdir()
    (toy / "_build/html").symlink_to(toy / "disk")  # of more room
    render(toy / "_build/source", toy / "_build/html")
    assert (toy / "_build/html").is_symlink()
    for page in ("intro", "01_data"):
        html = BeautifulSoup((toy / f"_build/html/book/{page}.html").read_text(), "html.parser")
        warning = html.select_one("h1 + .admonition.warning")
        assert warning.select_one("pre").get_text() == "02_training-hd-map-1 failed: ValueError: {ref}`a` <b>.\n"
    assert not BeautifulSoup((toy / "_build/html/book/02_training.html").read_text(), "html.parser").select(".warning")
    assert "warning" not in (toy / "book/intro.md").read_text()


def test_the_build_says_which_paragraphs_have_some_words(tmp_path: Path) -> None:
    (tmp_path / "book").mkdir()
    (tmp_path / "book/b.html").write_text("<h1>B</h1><p><b>This wants a human</b>: nll is now 2.</p><p>All well.</p>")
    (tmp_path / "book/a.html").write_text("<p>All well.</p>")
    assert saying(tmp_path, "wants a human") == ["b: This wants a human : nll is now 2."]


def test_a_table_with_a_caption_is_numbered_among_the_tables_and_a_picture_is_not(toy: Path) -> None:
    shown = {"text/html": "<table><thead><tr><th>a</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>"}
    cells = [new_markdown_cell("# Extra\n\nSee {numref}`tab-a`, {numref}`tab-b` and {numref}`fig-a`.")]
    for name, data in (
        ("tab-a", shown),
        ("fig-a", {"image/svg+xml": "<svg xmlns='http://www.w3.org/2000/svg'/>"}),
        ("tab-b", shown),
    ):
        metadata = {"mystnb": {"figure": {"caption": f"The caption of {name}.", "name": name, "caption_before": True}}}
        cells.append(new_code_cell("x", outputs=[new_output("display_data", data)], metadata=metadata))
    python = {"language_info": {"name": "python", "pygments_lexer": "ipython3"}}
    nbformat.write(new_notebook(cells=cells, metadata=python), toy / "book/extra.ipynb")
    config = (toy / "_config.yml").read_text() + "sphinx:\n  extra_extensions: [lib.markup]\n"
    (toy / "_config.yml").write_text(config)
    stage(toy, toy / "_build/source", {}, {})
    render(toy / "_build/source", toy / "_build/html")
    page = BeautifulSoup((toy / "_build/html/book/extra.html").read_text(), "html.parser").article
    assert "See Table 1, Table 2 and Fig. 1." in page.get_text()
    captions = [caption.get_text() for caption in page.select("figcaption .caption-text, figcaption .caption-number")]
    assert [caption.strip() for caption in captions][::2] == ["Table 1", "Fig. 1", "Table 2"]
    assert page.select_one("#tab-a table")
