"""The notebooks against the library: their parameters, and a whole run of the book at a toy size."""

import shutil
from pathlib import Path

import pandas as pd
import papermill
import pytest
import yaml
from papermill.exceptions import PapermillExecutionError

from lib import experiment, settings
from lib.pipeline.__main__ import main
from lib.pipeline.planning import SEQUENCE, plan, read_defaults, read_settings

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
TOY = {"num_frames": 100, "hidden_sizes": [8, 8], "epochs": 2, "samples": 2, "points": 5, "directions": 1}


@pytest.mark.parametrize("stem", SEQUENCE)
def test_a_notebook_declares_the_parameters_it_is_checked_for(stem: str) -> None:
    declared = read_defaults(BOOK / f"{stem}.ipynb")
    assert set(declared) == set(settings.NOTEBOOKS[stem])
    assert settings.checked(declared, stem) == declared


def test_quick_settings_are_the_defaults_spelled_out() -> None:
    quick = read_settings(BOOK / "params/quick.yml")
    for method in quick["method"]:
        defaults = settings.DEFAULTS[method]
        assert quick.pop(method) == {name: value for name, value in defaults.items() if value is not None}
    declared = {stem: read_defaults(BOOK / f"{stem}.ipynb") for stem in SEQUENCE}
    for stem, parameters in declared.items():
        for name in ("dataset", "method", "seed"):
            values = parameters[name] if isinstance(parameters[name], list) else quick[name]
            assert values == quick[name], f"{stem} {name}"
        for name in parameters.keys() & quick.keys() - {"dataset", "method", "seed"}:
            assert parameters[name] == quick[name], f"{stem} {name}"
    shared = {name: value for name, value in settings.RUN_DEFAULTS.items() if value is not None}
    assert {name: quick[name] for name in shared} == shared


def test_what_the_book_shows_of_the_quick_run_has_no_parameters_put_in() -> None:
    declared = {stem: read_defaults(BOOK / f"{stem}.ipynb") for stem in SEQUENCE}
    steps = plan(read_settings(BOOK / "params/quick.yml"), declared)
    assert [step.notebook for step in steps if step.shown] == list(SEQUENCE)
    assert not any(step.parameters for step in steps if step.shown)


def test_the_paper_settings_are_ones_that_the_notebooks_take() -> None:
    declared = {stem: read_defaults(BOOK / f"{stem}.ipynb") for stem in SEQUENCE}
    for step in plan(read_settings(BOOK / "params/paper.yml"), declared):
        settings.checked(declared[step.notebook] | step.parameters | step.along, step.notebook)


def test_the_whole_sequence_runs_at_a_toy_size_and_is_not_computed_twice(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    shutil.copytree(BOOK, root / "book")
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, root)
    chosen = TOY | {"dataset": ["synthetic-hd"], "method": ["map", "ivon"], "seed": [1]}
    params, results = tmp_path / "toy.yml", tmp_path / "results"
    params.write_text(yaml.safe_dump(chosen))
    assert main(["--params", str(params), "--results", str(results)], root=root) == 0
    assert (root / "_build/html/index.html").is_file()
    table = pd.read_csv(results / "table1.csv")
    assert list(table.columns) == experiment.TABLE
    assert next(iter(table.itertuples(index=False, name=None)))[:3] == ("synthetic-hd", "ivon", 1)
    assert len(table) == 2
    posteriors = {path: path.stat().st_mtime_ns for path in results.glob("*/posterior.pt")}
    assert len(posteriors) == 2
    papermill.execute_notebook(
        BOOK / "02_training.ipynb",
        tmp_path / "again.ipynb",
        {name: chosen[name] for name in ("num_frames", "hidden_sizes", "epochs")} | {"results_root": str(results)},
        kernel_name="python3",
        progress_bar=False,
    )
    assert {path: path.stat().st_mtime_ns for path in results.glob("*/posterior.pt")} == posteriors

    lacking = ["sc-map-1", "sc-ivon-1", "synthetic-hd-ivon-1"]
    evaluation = papermill.execute_notebook(
        BOOK / "03_evaluation.ipynb",
        tmp_path / "lacking.ipynb",
        {name: chosen[name] for name in ("seed", "num_frames", "samples")}
        | {"dataset": ["sc", "synthetic-hd"], "missing": lacking, "results_root": str(results)},
        kernel_name="python3",
        progress_bar=False,
    )
    outputs = str([cell.outputs for cell in evaluation.cells if cell.cell_type == "code"])
    assert f"Missing here, since there are no such runs: {', '.join(lacking)}" in outputs
    assert "'rows': 1" in outputs
    assert len(list(results.glob("*/posterior.pt"))) == 2


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"epoch": 3}, "unknown parameter 'epoch'"),
        ({"seed": "one"}, "seed = 'one' does not fit"),
        ({"method": "map", "ess_factor": 2.0}, "map takes no ess_factor"),
        ({"dataset": "sc", "data_root": "nowhere"}, "nowhere"),
    ],
)
def test_a_notebook_refuses_what_it_does_not_take(tmp_path: Path, parameters: dict, sentence: str) -> None:
    with pytest.raises(PapermillExecutionError, match=sentence):
        papermill.execute_notebook(
            BOOK / "02_training.ipynb",
            tmp_path / "out.ipynb",
            parameters | {"results_root": str(tmp_path / "results")},
            kernel_name="python3",
            progress_bar=False,
        )
    assert not (tmp_path / "results").exists()
