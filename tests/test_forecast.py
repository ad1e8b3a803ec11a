"""The forecast for the full archives: that it is what the stored curve says, and how a run is held against it."""

import json

import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from lib import forecast
from lib.book import ROOT, read_settings
from lib.runs.run import Run
from lib.setup import setup_of
from lib.statistics import extrapolated
from lib.study import named, tables


@pytest.fixture
def of(tmp_path):
    """A stored run with a protocol's settings, but for those that are given."""

    def stored(method, protocol, dataset="sc", **settings):
        folder = tmp_path / f"{dataset}-{method}"
        folder.mkdir(exist_ok=True)
        study = named(forecast.PROTOCOLS[protocol])
        cell = study.cell("eleven words of SC, 1 in 8", next(iter(study.variants)), method, 1)
        settings = cell.setup.record() | {"dataset": dataset} | settings
        (folder / "run.json").write_text(json.dumps({"data": "", "settings": settings}))
        return Run(folder)

    return stored


@pytest.fixture
def table():
    rows = [
        ("map", 1, 77.0, 0.8, 0.32),
        ("map", 2, 78.0, 0.8, 0.32),
        ("ivon", 1, 77.5, 0.76, 0.1),
        ("ivon", 2, 78.5, 0.74, 0.1),
    ]
    rows = pd.DataFrame(rows, columns=["method", "seed", "accuracy", "nll", "brier"])
    return pd.concat([rows.assign(dataset="sc"), rows.assign(dataset="hd")])


def test_the_written_forecast_is_what_the_stored_curve_says():
    written = pd.read_csv(forecast.PATH)
    now = forecast.forecast()
    pd.testing.assert_frame_equal(written[list(now)], now, rtol=1e-4)
    assert written["written"].nunique() == 1
    assert not written["commit"].str.endswith("dirty").any()


def test_the_page_of_the_evaluation_shows_it():
    cells = nbformat.read(ROOT / "book/03_evaluation.ipynb", 4).cells
    (shown,) = [cell for cell in cells if cell.cell_type == "code" and "forecast.beside" in cell.source]
    page = BeautifulSoup(shown.outputs[0].data["text/html"], "html.parser")
    told = [[float(cell.text) for cell in row.select("td")[:3]] for row in page.select("tbody tr")]
    written = pd.read_csv(forecast.PATH)[["expected", "from", "to"]]
    assert told == written.round(3).to_numpy().tolist()


def test_the_line_goes_through_the_differences_of_runs_at_their_numbers_of_recordings():
    assert list(forecast.sizes().values())[-1] == 21_315
    runs = tables.load("curve-end").astype({"set": str}).set_index(["set", "seed", "method"])["nll"].unstack()
    numbers = [forecast.sizes()[name] for name in runs.index.get_level_values("set")]
    expected = extrapolated(np.array(numbers), runs["ivon"] - runs["map"], 75_466, 3)
    said = forecast.forecast().set_index(forecast.BY).loc["matched", "sigmoid leaks", "nll"]
    assert tuple(said[["expected", "from", "to"]]) == pytest.approx(expected)


@pytest.mark.parametrize("protocol", forecast.PROTOCOLS)
def test_runs_on_the_archive_are_held_against_the_protocol_that_they_follow(of, table, protocol, tmp_path, monkeypatch):
    said = pd.read_csv(forecast.PATH)
    here = said["protocol"] == protocol
    said.loc[here & (said["measure"] == "nll"), ["from", "to"]] = -0.06, -0.04
    said.loc[here & (said["measure"] == "brier"), ["from", "to"]] = -0.2, 0.2
    monkeypatch.setattr(forecast, "PATH", tmp_path / "forecast.csv")
    said.to_csv(forecast.PATH, index=False)
    runs = [of(method, protocol, dataset) for dataset in ("sc", "hd") for method in ("map", "ivon")]
    found = forecast.beside(runs, table).dropna(subset="found").set_index("measure")
    assert set(found["protocol"]) == {protocol}
    assert found["found"].to_dict() == pytest.approx({"nll": -0.05, "accuracy": 0.5, "brier": -0.22})
    assert found.loc["nll", "verdict"] == "inside"
    assert found.loc["brier", "verdict"] == "outside"


def test_of_other_sets_nothing_was_forecast(of, table):
    found = forecast.beside([of(method, "the paper's protocol", "hd") for method in ("map", "ivon")], table)
    assert len(found) == len(pd.read_csv(forecast.PATH)) >= 6
    assert found[["found", "verdict"]].isna().all(axis=None)


def test_a_run_with_a_setting_of_its_own_is_held_against_none(of, table):
    for own in ({"learning_rate": 0.2}, {"epochs": 29}, {"leaks": "sigmoid"}):
        runs = [of("map", "the paper's protocol"), of("ivon", "the paper's protocol", **own)]
        assert forecast.beside(runs, table)["found"].isna().all()


def test_make_paper_follows_the_protocols_of_the_curve():
    """But for the number of units and epochs and what belongs to the sets, which the forecast says."""
    for protocol, files in {"the paper's protocol": ["paper"], "matched": ["paper", "matched"]}.items():
        given = read_settings(*(ROOT / f"book/params/{name}.yml" for name in files))["settings"]
        study = named(forecast.PROTOCOLS[protocol])
        for method in forecast.PAIR["IVON − Adam"]:
            asked = setup_of(given, dataset="sc", method=method, seed=1, epochs=forecast.EPOCHS).record()
            cell = study.cell("eleven words of SC, 1 in 8", next(iter(study.variants)), method, 1).setup.record()
            differ = {name for name in asked if asked[name] != cell[name]}
            assert differ == {"split", "share", "epochs"}, (protocol, method, differ)
