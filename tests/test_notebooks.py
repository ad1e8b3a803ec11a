"""The notebooks against the library: their parameters, and a whole run of the sequence at a toy size."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pandas as pd
import papermill
import pytest
import torch
import yaml
from nbformat.v4 import new_code_cell, new_notebook
from papermill.exceptions import PapermillExecutionError
from toy_study import make_tones

from lib import datasets, figures, pages
from lib.benchmark import hosting
from lib.book import SEQUENCE, main, plan, read_defaults, read_settings
from lib.parameters import NOTEBOOKS, check
from lib.setup import setup_of
from lib.study.tables import TABLE1

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
DECLARED = read_defaults(ROOT)
TRAINED = {"hidden_sizes": [8, 8], "epochs": 2, "settings": {"num_frames": 20, "batch_size": 10}}


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tones(tmp_path_factory.mktemp("tones"))


def run(stem: str, folder: Path, **parameters: Any) -> str:
    """Run a notebook as its user would; the outputs as text."""
    given = {"data_root": str(folder / "tones"), "results_root": str(folder / "runs")} | parameters
    executed = papermill.execute_notebook(
        BOOK / f"{stem}.ipynb", folder / f"{stem}.ipynb", given, kernel_name="python3", progress_bar=False
    )
    return str([cell.outputs for cell in executed.cells if cell.cell_type == "code"])


def posteriors(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_ino for path in folder.glob("*/posterior.pt")}


# Parameters


@pytest.mark.parametrize("stem", SEQUENCE)
def test_a_notebook_declares_the_parameters_that_it_is_checked_for(stem: str) -> None:
    assert tuple(sorted(DECLARED[stem])) == tuple(sorted(NOTEBOOKS[stem]))
    cells = [cell.source for cell in nbformat.read(BOOK / f"{stem}.ipynb", 4).cells if cell.cell_type == "code"]
    check(stem, {"In": cells[:3]} | DECLARED[stem])
    assert f'parameters.check("{stem}")' in cells[2]


def test_quick_parameters_are_the_notebooks_defaults_and_put_none_into_them() -> None:
    quick = read_settings(BOOK / "params/quick.yml")
    steps = plan(quick, DECLARED)
    shown = {step.notebook: step.parameters for step in steps if step.shown and step.notebook in SEQUENCE}
    assert shown == {stem: {} for stem in SEQUENCE}
    for name in quick.keys() - {"dataset", "method", "seed"}:
        assert quick[name] in [defaults.get(name) for defaults in DECLARED.values()], name


@pytest.mark.parametrize("files", [["paper.yml"], ["paper.yml", "rehearsal.yml"]], ids=str)
def test_the_paper_s_parameters_give_setups_of_its_size(files: list[str]) -> None:
    settings = read_settings(*(BOOK / "params" / name for name in files))
    trainings = [step for step in plan(settings, DECLARED) if step.notebook == "02_training"]
    assert len(trainings) == 2 * 2 * 3
    batch_sizes = set()
    for step in trainings:
        given = DECLARED["02_training"] | step.parameters | step.along
        named = {name: given[name] for name in ("dataset", "method", "seed", "epochs", "hidden_sizes")}
        setup = setup_of(given["settings"], **named)
        assert (setup.training.epochs, list(setup.network.hidden_sizes)) == (30, [512, 512])
        assert (setup.data.split or datasets.get(setup.dataset).default_split) in ("official", "70-10-20")
        batch_sizes.add((setup.dataset.removeprefix("synthetic-"), setup.method.name, setup.method.batch_size))
    assert batch_sizes == {("hd", "map", 128), ("sc", "map", 128), ("hd", "ivon", 16), ("sc", "ivon", 32)}


# Runs


def test_the_whole_sequence_runs_at_a_toy_size(tmp_path: Path, tones: Path, monkeypatch) -> None:
    root, results = tmp_path / "repository", tmp_path / "results"
    shutil.copytree(BOOK, root / "book")
    chapters = [{"file": f"book/{stem}"} for stem in SEQUENCE]
    (root / "_toc.yml").write_text(yaml.safe_dump({"format": "jb-book", "root": "book/intro", "chapters": chapters}))
    shutil.copy(ROOT / "_config.yml", root)
    monkeypatch.setattr(pages, "render", lambda source, html: None)  # the pages are built in test_book
    params = tmp_path / "toy.yml"
    asked = {"dataset": ["fsdd"], "method": ["map", "ivon"], "seed": [1], "data_root": {"fsdd": str(tones)}}
    asked |= TRAINED | {"samples": 2, "points": 5, "directions": 1, "ivon": {"hess_init": 0.5}}
    params.write_text(yaml.safe_dump(asked))
    assert main(["--params", str(params), "--results", str(results)], root) == 0
    assert len(list((root / "_build/executed").iterdir())) == 1 + 1 + 2 + 1 + 1
    table = pd.read_csv(results / "table1.csv")
    assert list(table.columns) == TABLE1
    assert table[["dataset", "method", "seed"]].to_numpy().tolist() == [["fsdd", "ivon", 1], ["fsdd", "map", 1]]
    assert len(posteriors(results)) == 2


def test_a_notebook_s_memory_is_not_that_of_the_process_that_started_it(tmp_path: Path) -> None:
    large = torch.ones(250_000_000)  # 1 GB
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=[new_code_cell("1")], metadata=kernel), tmp_path / "small.ipynb")
    assert hosting.run(tmp_path / "small.ipynb", tmp_path)["memory_gb"] < large.nbytes / 2e9


def test_the_notebooks_hold_in_a_binder_s_memory(tmp_path: Path) -> None:
    """At their own sizes, on the embedded speech, but for the number of epochs."""
    asked = {"epochs": "2"}
    several = asked | {"method": "[map, ivon]", "seed": "[1]", "dataset": "[synthetic-hd]"}
    for stem, parameters in {"01_data": {}, "02_training": asked, "03_evaluation": several, "04_slices": asked}.items():
        assert hosting.run(BOOK / f"{stem}.ipynb", tmp_path, parameters)["memory_gb"] < hosting.BINDER_GB, stem
    with pytest.raises(RuntimeError, match=r"01_data\.ipynb: .*unknown"):
        hosting.run(BOOK / "01_data.ipynb", tmp_path, {"speed": "2"})


def test_a_run_of_the_second_notebook_is_found_again_by_the_third_and_no_other_is(tmp_path: Path, tones: Path) -> None:
    (tmp_path / "tones").symlink_to(tones)
    one = {"dataset": "fsdd", "method": "map", "seed": 3}
    own = TRAINED | {"settings": TRAINED["settings"] | {"learning_rate": 0.01}}
    run("02_training", tmp_path, **one, **own)
    (trained,) = posteriors(tmp_path / "runs").items()
    missing = ["fsdd-map-4", "fsdd-ivon-3", "fsdd-ivon-4"]
    asked = {"dataset": ["fsdd"], "method": ["map", "ivon"], "seed": [3, 4], "missing": missing, "samples": 2}
    outputs = run("03_evaluation", tmp_path, **asked, **own)
    assert f"Missing here, since there are no such runs: {', '.join(missing)}" in outputs
    assert "'rows': 1" in outputs
    assert [*posteriors(tmp_path / "runs").items()] == [trained]
    with pytest.raises(PapermillExecutionError, match=r"there are .* \(with learning_rate 0\.01\): give the settings"):
        run("03_evaluation", tmp_path, **asked, **TRAINED)
    assert [*posteriors(tmp_path / "runs").items()] == [trained]


def test_cells_are_run_again_in_a_kernel_that_holds_other_names(tmp_path: Path, tones: Path, monkeypatch) -> None:
    """All notebooks; with another seed each again from its parameters on, every cell twice. A start-up file has run."""
    startup = tmp_path / "profile_default/startup/names.py"
    startup.parent.mkdir(parents=True)
    startup.write_text('width, dataset, samples, epoch, runs = 3, 1, "[many]", 2, None')
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    given = TRAINED | {"dataset": "fsdd", "data_root": str(tones), "results_root": str(tmp_path / "runs")}
    given |= {"method": "map", "seed": 3, "samples": 2, "points": 3, "directions": 1}
    sources = []
    for stem in SEQUENCE:
        code = [cell.source for cell in nbformat.read(BOOK / f"{stem}.ipynb", 4).cells if cell.cell_type == "code"]
        code[1] += "".join(f"\n{name} = {value!r}" for name, value in given.items() if name in NOTEBOOKS[stem])
        changed = code[1] + ("\nseed = 4" if "seed" in NOTEBOOKS[stem] else "")
        sources += [*code, *(source for source in (changed, *code[2:]) for _ in range(2))]
    again, executed = tmp_path / "again.ipynb", tmp_path / "executed.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources]), again)
    papermill.execute_notebook(again, executed, kernel_name="python3", progress_bar=False)
    names = sorted(path.parent.name.rpartition("-")[0] for path in posteriors(tmp_path / "runs"))
    assert names == ["fsdd-map-3", "fsdd-map-4"]
    assert pd.read_csv(tmp_path / "runs/table1.csv")["seed"].tolist() == [3, 4]


@pytest.mark.parametrize("own", ["lib/statistics.py", "lib/__init__.py", "lib.py"])
def test_what_is_called_lib_in_the_working_folder_is_not_taken_for_ours(tmp_path: Path, own: str, monkeypatch) -> None:
    (tmp_path / own).parent.mkdir(exist_ok=True)
    (tmp_path / own).write_text("settings = 3")
    startup = (
        tmp_path / "profile_default/startup/path.py"
    )  # as where it is installed: behind all that IPython puts first
    startup.parent.mkdir(parents=True)
    startup.write_text(f"import sys; sys.path = [*(one for one in sys.path if one != {str(ROOT)!r}), {str(ROOT)!r}]")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    first = nbformat.read(BOOK / "01_data.ipynb", 4).cells[1].source
    cells = [new_code_cell(source) for source in (first, "from lib import settings; print(settings.__file__)")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "own.ipynb")
    executed = papermill.execute_notebook(
        tmp_path / "own.ipynb", tmp_path / "out.ipynb", kernel_name="python3", progress_bar=False, cwd=tmp_path
    )
    assert executed.cells[1].outputs[0].text.strip() == str(ROOT / "lib/settings.py")


def test_a_home_in_a_notebook_s_folders_is_the_home(tmp_path: Path, tones: Path, monkeypatch) -> None:
    (tmp_path / "tones").symlink_to(tones)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    home = {"data_root": "~/tones", "results_root": "~/runs", "dataset": "fsdd", "method": "map"}
    run("02_training", tmp_path, **home, **TRAINED)
    assert "'rows': 1" in run("03_evaluation", tmp_path, **home, **TRAINED | {"seed": 1, "samples": 2})
    assert (tmp_path / "runs/table1.csv").is_file()
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(("zeros", "told"), [(1, "1 zeros left out"), (None, "All standard deviations are zero.")])
def test_deviations_of_zero_are_left_out_of_the_picture_which_says_so(zeros: int | None, told: str) -> None:
    """As SWAG's on a tiny set."""
    (cell,) = [one.source for one in nbformat.read(BOOK / "02_training.ipynb", 4).cells if "zeros" in one.source]
    std = torch.tensor([0.0, 0.1, 0.2]) * (zeros is not None)
    network = SimpleNamespace(named_parameters=lambda: [("weight", std)])
    names = {
        "run": SimpleNamespace(posterior=SimpleNamespace(mean={"weight": std}, std={"weight": std})), "pd": pd,
        "network": network, "landscape": SimpleNamespace(parameter_groups=lambda of: {"weights": ["weight"]}),
        "figures": figures, "source": "noise", "print": lambda text: drawn.append(text),
    }  # fmt: skip
    drawn = []
    exec(cell.replace("figures.histograms(", "picture = figures.histograms("), names)
    drawn += [one.get_text() for one in names["picture"].texts] if names["picture"] else []
    assert any(told in text for text in drawn)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [({"hidden_sizes": "[8, 8]"}, r"for papermill write -y 'hidden_sizes: \[8, 8\]' in place of -p"),
     ({"epoch": 3}, "unknown parameter 'epoch': 02_training takes dataset"),
     ({"data_root": "nowhere"}, "nowhere does not hold the set 'fsdd'")],
)  # fmt: skip
def test_a_notebook_refuses_what_it_does_not_take(tmp_path: Path, parameters: dict, sentence: str) -> None:
    with pytest.raises(PapermillExecutionError, match=sentence):
        run("02_training", tmp_path, **{"dataset": "fsdd", "method": "map"} | parameters)
    assert not (tmp_path / "runs").exists()
