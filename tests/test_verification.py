"""A committed result computed anew: what comes out again, what does not, and what cannot be verified."""

import json
import re
from collections import Counter
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

from lib import experiment, provenance, synthesis, tables, verification
from lib.datasets import sc
from lib.trainers import train_map

BOOK = Path(__file__).resolve().parents[1] / "book"
RUNS = [("map", 1), ("map", 2), ("map", 3), ("ivon", 1)]
CHOSEN = {"dataset": "synthetic-hd", "num_frames": 20, "hidden_sizes": [6], "epochs": 2, "batch_size": 40}


def small(patch, folder):
    """Have the data in a folder of one's own, in which the synthetic set is a small one."""
    patch.setattr(experiment, "DATA", folder)
    patch.setitem(synthesis.DEFAULT_UTTERANCES, "synthetic-hd", 240)


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """A data folder, and one of four runs with their table."""
    data, results = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        small(patch, data)
        chosen = CHOSEN | {"results_root": results}
        frames = experiment.load_frames(chosen, "synthetic-hd")
        runs = [experiment.train(frames, chosen | {"method": method, "seed": seed}) for method, seed in RUNS]
        tables.write({run: experiment.evaluate(run, frames, samples=3, bins=5) for run in runs}, chosen)
    return data, results


@pytest.fixture
def data(computed, monkeypatch):
    small(monkeypatch, computed[0])
    return computed[0]


@pytest.fixture
def toy(computed, data):
    """The one committed result, "toy": its table and its records, whole again for each test."""
    table, records = data / "results/toy.csv", data / "results/toy-runs.json"
    table.parent.mkdir(exist_ok=True)
    table.write_bytes((computed[1] / "table1.csv").read_bytes())
    records.write_bytes((computed[1] / "runs.json").read_bytes())
    return table, records


def alter(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def set_number(table, method, seed, measure, value):
    rows = pd.read_csv(table)
    rows.loc[(rows["method"] == method) & (rows["seed"] == seed), measure] = value
    rows.to_csv(table, index=False)


def refusal(capsys, *arguments):
    """The one sentence that a refused call ends in."""
    assert verification.main(list(arguments)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "it/s" not in line and "utterance" not in line]
    return line


# What comes out again


def test_on_the_same_machine_every_number_is_the_same_and_nothing_is_left_behind(data, toy, capsys):
    before = sorted(path for path in data.rglob("*"))
    assert verification.main(["toy"]) == 0
    out = capsys.readouterr().out
    assert "Of 28 numbers 28 same, 0 within, 0 different." in out
    assert "1 of 4: synthetic-hd ivon 1, computed with" in out
    assert verification.EXPLANATION in out
    assert sorted(path for path in data.rglob("*")) == before


def test_fewer_runs_can_be_chosen(toy, capsys):
    compared = verification.verify("toy", methods=["map"], seeds=[3])
    assert list(compared.index.unique("seed")) == [3]
    assert list(compared.index.unique("method")) == ["map"]
    assert list(compared.index.get_level_values(-1)) == [*experiment.TABLE[3:], "validation_nll"]
    assert "1 of 1: synthetic-hd map 3" in capsys.readouterr().out


def test_each_number_has_its_verdict(toy, capsys):
    """Table entries are moved: one inside its spread, one far away, and one of which there is a single seed."""
    numbers, _ = verification.read(*toy)
    nll, brier = numbers.loc[("synthetic-hd", "map", 1), ["nll", "brier"]]
    alone = numbers.loc[("synthetic-hd", "ivon", 1), "nll"]
    set_number(toy[0], "map", 1, "nll", nll * (1 + 1e-5))
    for seed in (1, 2, 3):
        set_number(toy[0], "map", seed, "brier", brier + 1)
    set_number(toy[0], "ivon", 1, "nll", alone * (1 + 1e-5))
    compared = verification.verify("toy", seeds=[1]).droplevel(["dataset", "seed"])
    verdicts = compared["verdict"].to_dict()
    expected = {("map", "nll"): "within", ("map", "brier"): "different", ("ivon", "nll"): "different"}
    assert verdicts == {key: expected.get(key, "same") for key in verdicts}
    assert compared.loc[("map", "nll"), "again"] == pytest.approx(nll, rel=1e-9)
    assert verification.main(["toy", "--method", "map", "--seed", "1"]) == 1
    assert "Of 7 numbers 5 same, 1 within, 1 different." in capsys.readouterr().out


def test_the_bins_and_samples_are_those_of_the_record_or_the_notebooks_own(toy, capsys):
    alter(toy[1], lambda records: [record.pop("evaluation") for record in records])
    compared = verification.verify("toy", seeds=[1])["verdict"].unstack()
    ivon, point = compared.loc[("synthetic-hd", "ivon", 1)], compared.loc[("synthetic-hd", "map", 1)]
    assert ivon["nll"] == ivon["ece"] == "different"  # averaged over 16 samples, not 3
    assert ivon["validation_nll"] == point["nll"] == "same"


def test_a_training_that_diverges_is_different(toy, monkeypatch, capsys):
    def diverge(*given, **settings):
        raise FloatingPointError("training diverged in epoch 1 (loss nan): lower learning_rate")

    monkeypatch.setitem(experiment.METHODS, "map", diverge)
    assert verification.main(["toy", "--method", "map"]) == 1
    assert "Different: the training diverged in epoch 1" in capsys.readouterr().err


def test_an_interruption_is_told(toy, monkeypatch, capsys):
    def interrupt(row):
        raise KeyboardInterrupt

    monkeypatch.setitem(
        experiment.METHODS, "map", lambda *given, **settings: train_map(*given, **settings, after_epoch=interrupt)
    )
    assert verification.main(["toy", "--method", "map"]) == 130
    assert "Interrupted" in capsys.readouterr().err


# The stated spread


def frame(values):
    rows = [("a", "map", seed, value, value) for seed, value in enumerate(values)]
    return pd.DataFrame(rows, columns=[*verification.KEY, "nll", "brier"]).set_index(verification.KEY)


@pytest.mark.parametrize("values", [[1.0, 2.0, 3.0], [5.0, 5.5], list(range(10))], ids=len)
def test_the_spread_is_scipy_s_prediction_interval(values):
    low, high = verification.spreads(frame(values))
    n = len(values)
    expected = scipy.stats.t.interval(0.95, n - 1, np.mean(values), np.std(values, ddof=1) * np.sqrt(1 + 1 / n))
    for column in ("nll", "brier"):
        assert low[column].tolist() == pytest.approx([expected[0]] * n)
        assert high[column].tolist() == pytest.approx([expected[1]] * n)


def test_one_more_seed_lies_in_the_spread_of_three_in_95_percent_of_cases():
    draws = np.random.default_rng(0).normal(3, 2, size=(4, 20_000))
    measures = [f"m{case}" for case in range(20_000)]
    numbers = pd.DataFrame(draws[:3], columns=measures).assign(dataset="a", method="map", seed=range(3))
    low, high = verification.spreads(numbers.set_index(verification.KEY).assign(nll=0.0))
    inside = (low.iloc[0][measures] <= draws[3]) & (draws[3] <= high.iloc[0][measures])
    assert inside.mean() == pytest.approx(0.95, abs=0.005)


def test_methods_and_data_sets_have_spreads_of_their_own_and_one_seed_has_none():
    numbers = pd.concat([frame([1.0, 2.0]), frame([7.0]).rename({"map": "ivon"}), frame([4.0, 9.0]).rename({"a": "b"})])
    numbers = numbers.sort_index()
    low, high = verification.spreads(numbers)
    width = (high - low)["nll"]
    assert width["a", "map"].tolist() == pytest.approx([width["b", "map"].iloc[0] / 5] * 2)
    assert width["a", "ivon"].isna().all()


@pytest.mark.parametrize(
    ("again", "verdict"),
    [
        (1.0, "same"),
        (1.0000009, "same"),
        (1.00001, "within"),
        (0.5, "within"),
        (1.5, "within"),
        (1.51, "different"),
        (np.nan, "different"),
        (np.inf, "different"),
    ],
)
def test_a_verdict(again, verdict):
    (compared,) = verification.compare(*(pd.Series([value]) for value in (1.0, again, 0.5, 1.5)))["verdict"]
    assert compared == verdict


# What was measured elsewhere


def test_what_was_otherwise_is_said():
    here = provenance.here()
    here["commit"] = "0123456789ab"
    assert verification.elsewhere(here, here) == []
    there = here | {"machine": here["machine"] | {"cores": 96}, "commit": "ba9876543210"}
    there["versions"] = here["versions"] | {"torch": "1.0"}
    assert verification.elsewhere(there, here) == [
        f"cores 96 (here {here['machine']['cores']})",
        f"torch 1.0 (here {here['versions']['torch']})",
        "commit ba9876543210 (here 0123456789ab)",
    ]


def test_uncommitted_changes_are_never_taken_for_the_same_code():
    dirty = provenance.here() | {"commit": "0123456789ab-dirty"}
    assert verification.elsewhere(dirty, dirty) == ["commit 0123456789ab-dirty (here 0123456789ab-dirty)"]


def test_it_is_said_beside_the_numbers(toy, capsys):
    alter(toy[1], lambda records: [record["versions"].update(numpy="1.0") for record in records])
    verification.verify("toy", ["ivon"])
    assert re.search(r"1 of 1: synthetic-hd ivon 1, computed with numpy 1.0 \(here ", capsys.readouterr().out)


def test_as_many_threads_are_used_as_then(toy, capsys):
    alter(toy[1], lambda records: [record["machine"].update(threads=2) for record in records])
    try:
        verification.verify("toy", ["ivon"])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


# What cannot be verified


def test_other_data_are_refused_before_anything_is_trained(toy, monkeypatch, capsys):
    alter(toy[1], lambda records: records[-1].update(data="0" * 32))
    recorded = json.loads(toy[1].read_text())[0]["data"]
    monkeypatch.setattr(verification, "repeat", None)
    said = refusal(capsys, "toy")
    assert "0" * 32 in said
    assert recorded in said
    assert "eSpeak NG" in said


def test_absent_recordings_are_refused_with_the_way_to_get_them(data, toy, tmp_path, capsys):
    alter(toy[1], lambda records: [record["settings"].update(dataset="sc") for record in records])
    toy[0].write_text(toy[0].read_text().replace("synthetic-hd", "sc"))
    assert "not in data/toy or data/sc: get them as data/README.md says" in refusal(capsys, "toy")
    assert "does not hold the set 'sc'" in refusal(capsys, "toy", "--data-root", str(tmp_path))
    own = data / "toy"
    own.mkdir()
    try:
        assert f"{own} does not hold the set 'sc'" in refusal(capsys, "toy")
    finally:
        own.rmdir()


def test_a_folder_of_one_s_own_is_taken(data, toy, tmp_path, capsys):
    own = tmp_path / "own"
    (data / "synthetic-hd").rename(own)
    try:
        assert verification.main(["toy", "--method", "ivon", "--data-root", str(own)]) == 0
        assert not (data / "synthetic-hd").exists()
    finally:
        own.rename(data / "synthetic-hd")


def test_a_result_or_run_that_there_is_not_is_refused_with_those_that_there_are(toy, capsys):
    assert refusal(capsys, "other") == "No result is called 'other'; those in data/results are toy."
    assert "its runs are synthetic-hd ivon 1, synthetic-hd map 1" in refusal(capsys, "toy", "--seed", "9")


@pytest.mark.parametrize(
    "change",
    [
        lambda records: records.pop(),
        lambda records: records[0].pop("data"),
        lambda records: records[0].pop("machine"),
        lambda records: records[0]["settings"].pop("seed"),
        lambda records: records[0].update(validation_nll="none"),
        lambda records: records.append("text"),
    ],
    ids=["no record", "no fingerprint", "no machine", "no seed", "no number", "no mapping"],
)
def test_records_that_are_not_whole_are_refused(toy, capsys, change):
    alter(toy[1], change)
    assert "are not a table and the records of its rows" in refusal(capsys, "toy")


@pytest.mark.parametrize("content", ["", "dataset,method\na,b\n", "\0"])
def test_a_damaged_table_is_refused(toy, capsys, content):
    toy[0].write_text(content)
    assert "are not a table and the records of its rows" in refusal(capsys, "toy")


def test_a_table_that_is_gone_is_named(toy, capsys):
    toy[0].unlink()
    assert "toy.csv" in refusal(capsys, "toy")


# The committed results


@pytest.mark.parametrize(("table", "records"), verification.results().values(), ids=verification.results())
def test_a_committed_result_has_a_record_for_each_row_and_names_no_place(table, records):
    numbers, of_run = verification.read(table, records)
    assert set(numbers.index) == set(of_run)
    assert not re.search(r"/(home|root|tmp|Users|work)\b|\\\\", records.read_text())
    for run, record in of_run.items():
        assert re.fullmatch(r"[0-9a-f]{32}", record["data"]), run


def test_the_recordings_of_the_seven_words_are_named_and_in_the_official_parts():
    listed = (BOOK.parent / "data/results/sc-7-words-recordings.txt").read_text().splitlines()
    assert listed == sorted(set(listed))
    counts = Counter()
    for path in listed:
        word, speaker = re.fullmatch(r"([a-z]+)/([0-9a-f]+)_nohash_\d+\.wav", path).groups()
        counts[word, sc.hashed_part(speaker, 10, 20)] += 1
    parts = {"train": 350, "validation": 70, "test": 100}
    words = ("bed", "cat", "down", "happy", "no", "up", "yes")
    assert counts == {(word, part): number for word in words for part, number in parts.items()}


def test_records_are_shown_by_data_set_and_method(toy):
    _, records = verification.read(*toy)
    shown = verification.runs_of(records)
    assert shown.columns.tolist() == [("synthetic-hd", "ivon"), ("synthetic-hd", "map")]
    assert shown.loc["seed"].tolist() == ["1", "1, 2, 3"]
    assert shown.loc["epochs"].tolist() == ["2", "2"]
    assert shown.loc["ess_factor"].tolist() == ["6.5", "–"]
    assert shown.loc["evaluation.samples"].tolist() == ["3", "1"]
    assert len(shown.loc["run", ("synthetic-hd", "map")].split(", ")) == 3


# The figures of the book


def toy_book(folder, *cells):
    notebook = nbformat.v4.new_notebook(cells=list(cells))
    nbformat.write(notebook, folder / "page.ipynb")
    return folder


def figure(source, **metadata):
    return nbformat.v4.new_code_cell(source, metadata={"mystnb": {"figure": metadata}})


def shown_table(source):
    output = nbformat.v4.new_output("execute_result", {"text/html": "<div>\n<table>\n</table></div>"})
    return nbformat.v4.new_code_cell(source, outputs=[output])


def test_figures_and_tables_are_found_in_their_order(tmp_path):
    book = toy_book(
        tmp_path,
        nbformat.v4.new_markdown_cell("# Title\n\n## First\n\ntext"),
        shown_table("!git status\nframe"),
        nbformat.v4.new_markdown_cell("text alone"),
        figure("draw()", name="fig-a", caption="Of {glue:text}`rate:.1f` % in {glue:text}`bins` bins."),
        nbformat.v4.new_code_cell("1 + 1"),
    )
    assert verification.figures_of(book).to_numpy().tolist() == [
        ["page", "table", "First", "none"],
        ["page", "figure", "Of [rate] % in [bins] bins.", "none"],
    ]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('frames = load("synthetic-hd")', "synthetic-hd"),
        ('names = ["a", "toy"]\nread(f"{names[1]}.csv")', "data/results/toy.csv"),
        ('read(results / "bench-*.csv")', "data/results/bench-one.csv, data/results/bench-two.csv"),
        ('[read(f"bench-{name}.csv") for name in names]', "data/results/bench-one.csv, data/results/bench-two.csv"),
        ('read(DATA / "published" / "table1.csv")', "data/published/table1.csv"),
        ('# "synthetic-hd" in a comment\ntoy = 1', "none"),
        ('read(results / "study" / "runs.csv")', "data/results/study/runs.csv"),
        ('read(results / "study" / "curves.csv.gz")', "data/results/study/curves.csv.gz"),
        ('read(results / "other" / "runs.csv")', "none"),
    ],
)
def test_the_data_are_those_that_the_code_names(tmp_path, monkeypatch, source, expected):
    studies = ("results/study/runs.csv", "results/study/curves.csv.gz")
    for name in ("results/toy.csv", "results/bench-one.csv", "results/bench-two.csv", "published/table1.csv", *studies):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).touch()
    monkeypatch.setattr(experiment, "DATA", tmp_path / "data")
    book = toy_book(tmp_path, nbformat.v4.new_code_cell(source), figure("draw()", name="fig-a", caption="A."))
    assert verification.figures_of(book)["data"].tolist() == [expected]


def test_no_figure_of_the_book_is_left_out():
    found = verification.figures_of(BOOK)
    notebooks = {path.stem: nbformat.read(path, 4) for path in BOOK.glob("*.ipynb")}
    for stem, notebook in notebooks.items():
        captioned = [cell for cell in notebook.cells if "figure" in cell.metadata.get("mystnb", {})]
        assert ((found["notebook"] == stem) & (found["shows"] == "figure")).sum() == len(captioned)
    of = found.groupby("notebook")["data"].first()
    assert of["04_slices"] == "synthetic-hd"
    assert {"data/results/fsdd.csv", "data/results/sc-7-words.csv"} <= set(of["real_speech"].split(", "))
    assert of["settings"] == "none"
