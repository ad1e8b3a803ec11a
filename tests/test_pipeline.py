"""The pipeline, on notebooks that take a moment and compute nothing.

Each toy notebook writes the parameters that it was given into the folder of results; they know no torch.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lib.pipeline.__main__ import ROOT, main
from lib.pipeline.execution import execute
from lib.pipeline.pages import clean, render, stage, without_paths
from lib.pipeline.planning import SEQUENCE, Step, notebooks_of, plan, read_defaults, read_settings

PARAMETERS = {
    "01_data": 'dataset = "hd"\ndata_root = None\nsplit = None\nresults_root = "results"',
    "02_training": (
        'dataset = "hd"\ndata_root = None\nmethod = "ivon"\nseed = 1\nresults_root = "results"\n'
        "hidden_sizes = [\n    128,  # first\n    128,  # second\n]\n"
        "learning_rate: float = 0.1  # of either method\ndropout = None"
    ),
    "03_evaluation": (
        'dataset = ["hd"]\ndata_root = None\nmethod = ["map", "ivon"]\nseed = [1]\nresults_root = "results"\n'
        "samples = 16"
    ),
    "04_slices": 'dataset = "hd"\nmethod = ["map", "ivon"]\nseed = 1\nresults_root = "results"',
}
RECORD = """import json
from pathlib import Path

keys = ("dataset", "data_root", "split", "method", "seed", "hidden_sizes", "learning_rate", "dropout", "samples")
given = {key: globals()[key] for key in keys if key in globals()}
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


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A repository of toy notebooks with one chapter of text and one notebook outside the sequence."""
    root = tmp_path / "toy"
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


# What to run


def test_default_parameters_are_read_whole(toy: Path) -> None:
    assert read_defaults(toy / "book/02_training.ipynb") == {
        "dataset": "hd",
        "data_root": None,
        "method": "ivon",
        "seed": 1,
        "results_root": "results",
        "hidden_sizes": [128, 128],
        "learning_rate": 0.1,
        "dropout": None,
    }
    assert read_defaults(toy / "book/extra.ipynb") == {}


def test_a_default_that_is_computed_is_refused(toy: Path) -> None:
    write_notebook(toy / "book", "extra", parameters="epochs = len('abc')")
    with pytest.raises(ValueError, match=r"extra\.ipynb: the default of 'epochs' is no literal"):
        read_defaults(toy / "book/extra.ipynb")


def test_the_sequence_comes_before_what_else_the_contents_list(toy: Path) -> None:
    (toy / "_toc.yml").write_text(
        "root: book/intro\nparts:\n- chapters:\n  - file: book/absent\n    sections:\n"
        "    - file: book/extra\n  - file: book/04_slices\n"
    )
    assert notebooks_of(toy) == [*SEQUENCE, "extra"]


def test_every_combination_is_run_once_and_after_what_it_reads(toy: Path) -> None:
    steps = {step.name: step for step in plan(SETTINGS, declared(toy))}
    trainings = {f"02_training-{d}-{m}-{s}" for d in ("sc", "hd") for m in ("map", "ivon") for s in (1, 2)}
    data = {"01_data-sc", "01_data-hd"}
    assert set(steps) == data | trainings | {"03_evaluation", "04_slices-sc", "04_slices-hd", "extra"}
    assert steps["01_data-hd"].after == set()
    assert steps["02_training-sc-map-2"].after == {"01_data-sc"}
    assert steps["03_evaluation"].after == trainings
    assert steps["04_slices-hd"].after == {name for name in trainings if "-hd-" in name}
    assert steps["extra"].after == data


def test_the_book_shows_the_default_execution_else_the_first(toy: Path) -> None:
    always = {"03_evaluation", "extra"}
    shown = {step.name for step in plan(SETTINGS, declared(toy)) if step.shown}
    assert shown == always | {"01_data-hd", "02_training-hd-ivon-1", "04_slices-hd"}
    elsewhere = SETTINGS | {"dataset": ["fsdd", "sc"], "seed": [3, 2]}
    shown = {step.name for step in plan(elsewhere, declared(toy)) if step.shown}
    assert shown == always | {"01_data-fsdd", "02_training-fsdd-ivon-3", "04_slices-fsdd"}


def test_a_notebook_is_given_what_it_declares_and_does_not_assume(toy: Path) -> None:
    settings = SETTINGS | {"data_root": {"hd": "/speech/hd"}, "samples": 4, "seed": [2, 1]}
    given = {step.name: step.parameters for step in plan(settings, declared(toy))}
    assert given["01_data-hd"] == {"data_root": "/speech/hd"}
    assert given["01_data-sc"] == {"dataset": "sc"}
    assert given["02_training-sc-map-1"] == {
        "dataset": "sc",
        "method": "map",
        "hidden_sizes": [8, 8],
        "learning_rate": 0.01,
    }
    assert given["02_training-hd-ivon-2"] == {
        "data_root": "/speech/hd",
        "seed": 2,
        "hidden_sizes": [8, 8],
        "learning_rate": 1,
    }
    assert given["03_evaluation"] == {
        "dataset": ["sc", "hd"],
        "data_root": {"hd": "/speech/hd"},
        "seed": [2, 1],
        "samples": 4,
    }
    assert given["04_slices-sc"] == {"dataset": "sc", "seed": 2}
    assert given["extra"] == {}


def test_a_data_set_can_have_its_own_value(toy: Path) -> None:
    split = {"sc": "70-10-20"}
    rates = {"hd": 0.3, "sc": 0.2}
    settings = SETTINGS | {"split": split, "learning_rate": 0.5, "ivon": {"learning_rate": rates}, "map": {}}
    given = {step.name: step.parameters for step in plan(settings, declared(toy))}
    assert given["01_data-sc"]["split"] == "70-10-20"
    assert "split" not in given["01_data-hd"]
    assert given["02_training-hd-ivon-1"]["learning_rate"] == 0.3
    assert given["02_training-sc-ivon-1"]["learning_rate"] == 0.2
    assert given["02_training-sc-map-1"]["learning_rate"] == 0.5
    only_hd = settings | {"ivon": {"learning_rate": {"hd": 0.3}}}
    given = {step.name: step.parameters for step in plan(only_hd, declared(toy))}
    assert given["02_training-sc-ivon-1"]["learning_rate"] == 0.5


def test_a_folder_of_data_is_read_from_where_the_command_is_run(toy: Path, monkeypatch) -> None:
    monkeypatch.chdir(toy)
    steps = plan(SETTINGS | {"data_root": {"hd": "speech/hd", "sc": "~/sc"}}, declared(toy))
    given = {step.name: step.parameters for step in steps}
    assert given["01_data-hd"] == {"data_root": str(toy / "speech/hd")}
    assert given["01_data-sc"]["data_root"] == str(Path.home() / "sc")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epoch": 3}, "'epoch' is neither a notebook's parameter nor a method listed under 'method'"),
        ({"ivom": {"learning_rate": 0.1}}, "'ivom' is neither"),
        ({"method": ["map"]}, "'ivon' is neither"),
        ({"ivon": {"learning_rat": 0.1}}, r"'ivon\.learning_rat' is neither"),
        ({"ivon": {"seed": 3}}, r"'ivon\.seed' is neither"),
        ({"ivon": [0.1]}, r"'ivon' must map parameters to values, not be \[0\.1\]"),
        ({"ivon": {"learning_rate": {"hd1": 0.1}}}, r"'ivon\.learning_rate' names 'hd1', which is not listed"),
        ({"ivon": {"learning_rate": "1e-4"}}, "learning_rate = '1e-4' does not fit: it must be a number above 0"),
        ({"data_root": {"hd1": "/speech"}}, "'data_root' names 'hd1', which is not listed under 'dataset'"),
        ({"data_root": {"hd": 1}}, "data_root = 1 does not fit: it must be a folder"),
        ({"samples": 4.0}, r"samples = 4\.0 does not fit"),
        ({"dataset": ["hd", "dh"]}, r"'dh'\]? does not fit: it must be one of hd, sc"),
        ({"method": ["map", "ivon", "svi"]}, "'svi' does not fit: it must be one of"),
    ],
)
def test_what_no_notebook_can_use_is_refused(toy: Path, changes: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        plan(SETTINGS | changes, declared(toy))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "must be a mapping"),
        ("- hd\n- sc\n", "must be a mapping"),
        ("1: hd\n", "must be a mapping"),
        ("dataset: [hd\n", "is not YAML"),
        ("dataset: !!python/object/apply:os.getcwd []\n", "is not YAML"),
        ("method: [map]\nseed: [1]\n", "'dataset' must be a list of one or more str values"),
        ("dataset: hd\nmethod: [map]\nseed: [1]\n", "'dataset' must be a list"),
        ("dataset: [hd]\nmethod: []\nseed: [1]\n", "'method' must be a list"),
        ("dataset: [hd]\nmethod: [map]\nseed: [one]\n", "'seed' must be a list of one or more int values"),
        ("dataset: [hd]\nmethod: [map]\nseed: [true]\n", "'seed' must be a list"),
        ("dataset: [hd, sc, hd]\nmethod: [map]\nseed: [1]\n", "'dataset' names a value twice"),
    ],
)
def test_a_settings_file_that_says_no_such_thing_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "settings.yml"
    path.write_text(text)
    with pytest.raises(ValueError, match=sentence) as refusal:
        read_settings(path)
    assert "\n" not in str(refusal.value)


def test_bad_settings_end_in_one_sentence_before_anything_is_touched(toy: Path, capsys) -> None:
    assert main(["--params", str(toy / "absent.yml")], toy) == 1
    assert capsys.readouterr().err == f"There is no settings file {toy / 'absent.yml'}.\n"
    assert main(arguments(toy, epoch=3), toy) == 1
    error = capsys.readouterr().err
    assert "'epoch'" in error
    assert error.count("\n") == 1
    assert not (toy / "_build").exists()


# Running it


def test_the_book_is_made_from_executions_and_the_committed_notebooks_stay(toy: Path, capfd) -> None:
    committed = {path.name: path.read_bytes() for path in (toy / "book").iterdir()}
    assert main(arguments(toy), toy) == 0
    assert {path.name: path.read_bytes() for path in (toy / "book").iterdir()} == committed

    order = [stem for stem, _ in ran(toy)]
    assert sorted(order) == sorted([*["01_data", "04_slices"] * 2, *["02_training"] * 8, "03_evaluation"])
    assert order.index("03_evaluation") > max(at for at, stem in enumerate(order) if stem == "02_training")
    trained = [given for stem, given in ran(toy) if stem == "02_training"]
    assert {given["learning_rate"] for given in trained if given["method"] == "map"} == {0.01}
    assert {given["learning_rate"] for given in trained if given["method"] == "ivon"} == {1}
    assert all(given["hidden_sizes"] == [8, 8] for given in trained)
    told = capfd.readouterr().out
    assert "14 notebooks to run." in told
    assert "done   02_training-sc-map-2" in told

    page = (toy / "_build/html/book/02_training.html").read_text()
    told = BeautifulSoup(page, "html.parser").get_text()
    assert "'dataset': 'hd', 'data_root': None, 'method': 'ivon', 'seed': 1" in told
    assert "from ./book" in told
    assert (toy / "_build/html/index.html").is_file()
    assert len(list((toy / "_build/executed").iterdir())) == 14
    assert not list((toy / "_build/reports").iterdir())
    for path in (toy / "_build/executed").iterdir():
        assert str(toy) not in path.read_text()
        assert "duration" not in path.read_text()
    sources = [cell.source for cell in nbformat.read(toy / "book/extra.ipynb", 4).cells]
    staged = nbformat.read(toy / "_build/source/book/extra.ipynb", 4)
    assert [cell.source for cell in staged.cells] == sources
    assert staged.cells[1].outputs[0].text == "as it is\n"


def test_a_default_execution_is_the_committed_notebook_with_outputs(toy: Path) -> None:
    changes = {"dataset": ["hd"], "seed": [1], "method": ["ivon"], "map": None, "hidden_sizes": [128, 128]}
    settings = {key: value for key, value in (SETTINGS | changes).items() if value is not None}
    settings["ivon"] = {"learning_rate": 0.1}
    steps = [step for step in plan(settings, declared(toy)) if step.notebook == "02_training"]
    assert [step.parameters for step in steps] == [{}]
    notebook = papermill.execute_notebook(
        toy / "book/02_training.ipynb", None, steps[0].parameters, prepare_only=True, progress_bar=False
    )
    committed = nbformat.read(toy / "book/02_training.ipynb", 4)
    assert clean(notebook, toy) == committed


def test_a_failure_is_named_and_nothing_is_built_on_it(toy: Path, capfd) -> None:
    fails = "if method == 'map':\n    raise ValueError('The first line.\\nThe speech is missing.')"
    write_notebook(toy / "book", "02_training", fails, parameters=PARAMETERS["02_training"])
    (toy / "_build/html").mkdir(parents=True)
    (toy / "_build/html/index.html").write_text("an earlier book")
    assert main(arguments(toy, dataset=["hd"], seed=[1]), toy) == 1
    error = capfd.readouterr().err.splitlines()[-1]
    assert "book/02_training.ipynb with dataset='hd', method='map', seed=1" in error
    assert "learning_rate=0.01" in error
    assert "failed: ValueError: The speech is missing. See _build/reports." in error
    assert "Not started: 03_evaluation, 04_slices-hd" in error
    report = nbformat.read(toy / "_build/reports/02_training-hd-map-1.ipynb", 4)
    assert any(output.output_type == "error" for cell in report.cells for output in cell.get("outputs", []))
    assert {stem for stem, _ in ran(toy)} == {"01_data"}
    assert (toy / "_build/html/index.html").read_text() == "an earlier book"


def test_the_kernel_is_this_environment_s_whatever_others_there_are(toy: Path, monkeypatch) -> None:
    elsewhere = toy / "elsewhere/kernels/python3"
    elsewhere.mkdir(parents=True)
    other = {"argv": ["/absent/python"], "display_name": "Python 3", "language": "python"}
    (elsewhere / "kernel.json").write_text(json.dumps(other))
    monkeypatch.setenv("JUPYTER_PATH", str(toy / "elsewhere"))
    write_notebook(toy / "book", "extra", "import sys\nprint(sys.prefix)")
    execute([Step("extra", {}, {}, True, frozenset())], toy)
    assert nbformat.read(toy / "_build/executed/extra.ipynb", 4).cells[1].outputs[0].text == "$PREFIX\n"


@pytest.mark.parametrize(("victim", "sentence"), [("getpid", "Kernel died"), ("getppid", "ended from outside")])
def test_a_killed_process_is_a_failure_like_another(toy: Path, capfd, victim: str, sentence: str) -> None:
    kill = f"import os, signal\nos.kill(os.{victim}(), signal.SIGKILL)"
    write_notebook(toy / "book", "01_data", kill, parameters=PARAMETERS["01_data"])
    assert main(arguments(toy, dataset=["hd"]), toy) == 1
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("book/01_data.ipynb with dataset='hd'")
    assert sentence in error


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_an_interrupted_run_leaves_no_process_and_goes_on_when_started_again(
    toy: Path, sent: signal.Signals, code: int
) -> None:
    # The notebook holds the end of a pipe while it waits: reading blocks until it has begun and ends when
    # its kernel is gone.
    pipe = toy / "pipe"
    os.mkfifo(pipe)
    waits = f"""import threading
from pathlib import Path

if method == "ivon" and Path({str(pipe)!r}).exists():
    with open({str(pipe)!r}, "w") as end:
        end.write("begun\\n")
        end.flush()
        threading.Event().wait()"""
    write_notebook(toy / "book", "02_training", waits, parameters=PARAMETERS["02_training"])
    given = arguments(toy, dataset=["hd"], seed=[1])
    program = (
        "import sys; from pathlib import Path; from lib.pipeline.__main__ import main; "
        f"sys.exit(main({given!r}, Path({str(toy)!r})))"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, process_group=0) as process:
        with pipe.open() as end:
            assert end.readline() == "begun\n"
            process.send_signal(sent)
            assert end.read() == ""
        error = process.communicate()[1]
    assert process.returncode == code
    if code == 130:
        assert error.splitlines()[-1] == (
            "Interrupted: finished work is kept, and the same command goes on from there."
        )
        assert "Traceback" not in error
    assert not (toy / "_build/html").exists()

    pipe.unlink()
    assert main(given, toy) == 0
    assert (toy / "_build/html/index.html").is_file()
    assert not list((toy / "_build/reports").iterdir())


# What enters the book


def test_folders_of_this_machine_become_what_a_reader_calls_them(tmp_path: Path, monkeypatch) -> None:
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


def test_a_book_with_a_broken_link_is_refused_and_the_earlier_one_stays(toy: Path) -> None:
    (toy / "book/intro.md").write_text("# Introduction\n\n[Data](05_absent.md)\n")
    html = toy / "_build/html"
    html.mkdir(parents=True)
    (html / "index.html").write_text("an earlier book")
    stage(toy, toy / "_build/source", {})
    with pytest.raises(RuntimeError, match=r"without warnings:\n.*intro\.md:3: WARNING: .*05_absent\.md"):
        render(toy / "_build/source", html)
    assert (html / "index.html").read_text() == "an earlier book"


def test_cleaning_leaves_sound_and_pictures_alone_and_does_not_dwell_on_them(tmp_path: Path) -> None:
    sound = "data:audio/wav;base64," + "/tmp/" + "A" * 300_000
    output = nbformat.v4.new_output(
        "display_data", {"image/png": f"{tmp_path}/" + "B" * 300_000, "text/html": f"<audio src='{sound}'> {tmp_path}"}
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=[output])])
    data = clean(notebook, tmp_path).cells[0].outputs[0].data
    assert data["image/png"] == f"{tmp_path}/" + "B" * 300_000
    assert data["text/html"] == f"<audio src='{sound}'> ."
