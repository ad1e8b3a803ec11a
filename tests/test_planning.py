"""Which executions a file of parameters asks for, and what each is given."""

from pathlib import Path
from typing import Any

import pytest
from toy_book import settings_file, write_notebook

from lib.book import ROOT, SEQUENCE, Step, plan, read_defaults, read_settings
from lib.setup import setup_of


def planned(toy: Path, **changes: Any) -> dict[str, Step]:
    return {step.name: step for step in plan(read_settings(settings_file(toy, **changes)), read_defaults(toy))}


def test_default_parameters_are_read_whole(toy: Path) -> None:
    run = {"dataset": "hd", "method": "ivon", "seed": 1, "epochs": 30, "hidden_sizes": [128, 128]}
    assert read_defaults(toy)["02_training"] == run | {"data_root": None, "results_root": "results", "settings": {}}
    assert read_defaults(toy)["extra"] == {}
    write_notebook(toy / "book", "extra", parameters="epochs = len('abc')")
    with pytest.raises(ValueError, match=r"extra\.ipynb: the default of 'epochs' is no literal"):
        read_defaults(toy)


def test_the_sequence_comes_before_what_else_the_contents_list(toy: Path) -> None:
    (toy / "_toc.yml").write_text(
        "format: jb-book\nroot: book/intro\nparts:\n- chapters:\n  - file: book/absent\n    sections:\n"
        "    - file: book/extra\n  - file: book/04_slices\n"
    )
    assert list(read_defaults(toy)) == [*SEQUENCE, "extra"]


def test_every_combination_is_run_once_and_after_what_it_reads(toy: Path) -> None:
    steps = planned(toy)
    trainings = {f"02_training-{d}-{m}-{s}" for d in ("sc", "hd") for m in ("map", "ivon") for s in (1, 2)}
    data = {"01_data-sc", "01_data-hd"}
    assert set(steps) == data | trainings | {"03_evaluation", "04_slices-sc", "04_slices-hd", "extra"}
    after = {name: set(step.after) for name, step in steps.items()}
    assert after["01_data-hd"] == set()
    assert after["02_training-sc-map-2"] == {"01_data-sc"}
    assert after["03_evaluation"] == trainings
    assert after["04_slices-hd"] == {"02_training-hd-map-1", "02_training-hd-ivon-1"}  # of its own seed
    assert after["extra"] == data
    enough = [steps[name].enough for name in ("02_training-sc-map-2", "03_evaluation", "04_slices-hd", "extra")]
    assert enough == [1, 1, 2, 0]


def test_the_book_shows_the_default_execution_else_the_first(toy: Path) -> None:
    always = {"03_evaluation", "extra"}
    shown = {name for name, step in planned(toy).items() if step.shown}
    assert shown == always | {"01_data-hd", "02_training-hd-ivon-1", "04_slices-hd"}
    shown = {name for name, step in planned(toy, dataset=["fsdd", "sc"], seed=[3, 2]).items() if step.shown}
    assert shown == always | {"01_data-fsdd", "02_training-fsdd-ivon-3", "04_slices-fsdd"}


def test_a_notebook_is_given_what_it_declares_and_does_not_assume(toy: Path, monkeypatch) -> None:
    monkeypatch.chdir(toy)
    said = {"data_root": {"hd": "speech/hd", "sc": "~/sc"}, "samples": 4, "seed": [2, 1], "epochs": 30}
    steps = planned(toy, **said, settings={"neuron": "rlif"})
    given = {name: step.parameters for name, step in steps.items()}
    hd, sc, sizes = str(toy / "speech/hd"), str(Path.home() / "sc"), {"hidden_sizes": [8, 8]}
    assert given["01_data-hd"] == {"data_root": hd, "settings": {"neuron": "rlif"}}
    of_ivon = {"neuron": "rlif", "learning_rate": 1}
    assert given["02_training-hd-ivon-2"] == sizes | {"seed": 2, "data_root": hd, "settings": of_ivon}
    several = {"neuron": "rlif", "map": {"learning_rate": 0.01}, "ivon": {"learning_rate": 1}}
    all_sets = {"dataset": ["sc", "hd"], "seed": [2, 1], "data_root": {"hd": hd, "sc": sc}}
    assert given["03_evaluation"] == sizes | all_sets | {"settings": several, "samples": 4}
    assert given["04_slices-sc"] == sizes | {"dataset": "sc", "seed": 2, "data_root": sc, "settings": several}
    assert given["extra"] == {}


def test_defaults_spelled_out_put_no_parameters_into_a_notebook(toy: Path) -> None:
    said = {"dataset": ["hd"], "seed": [1], "hidden_sizes": [128, 128], "epochs": 30, "radius": 2.0, "settings": {}}
    assert not any(step.parameters for step in planned(toy, **said, map={}, ivon={}).values() if step.shown)


def test_a_training_and_an_evaluation_mean_the_same_runs(toy: Path) -> None:
    """Whatever is said of data sets, methods and those that they are derived from."""
    own = {"learning_rate": {"hd": 0.3, "sc": 0.2}}
    steps = planned(toy, method=["map", "ivon", "noise-ivon"], ivon=own, settings={"split": {"sc": "70-10-20"}})
    declared = read_defaults(toy)
    evaluated = declared["03_evaluation"] | steps["03_evaluation"].parameters
    for step in [step for step in steps.values() if step.notebook == "02_training"]:
        trained = declared["02_training"] | step.parameters
        same = {name: trained[name] for name in ("dataset", "method", "seed")}
        setups = [
            setup_of(of["settings"], **same, **{name: of[name] for name in ("epochs", "hidden_sizes")})
            for of in (trained, evaluated)
        ]
        assert setups[0] == setups[1]
        record = setups[0].record()
        assert record["split"] == {"hd": None, "sc": "70-10-20"}[trained["dataset"]]
        rate = {"hd": 0.3, "sc": 0.2}[trained["dataset"]]
        assert trained["method"] != "ivon" or record["learning_rate"] == rate
    bases = steps["02_training-sc-noise-ivon-1"].parameters["settings"]["bases"]
    assert bases == {"map": {"learning_rate": 0.01}, "ivon": {"learning_rate": 0.2}}


@pytest.mark.parametrize("dropout", [0.2, 0, {"hd": 0.3}])
def test_dropout_is_a_setting_of_all_networks_where_it_is_no_mapping_of_the_method_s_own(toy: Path, dropout) -> None:
    for changes in ({"settings": {"dropout": dropout}}, {"dropout": dropout}):
        steps = planned(toy, **changes)
        given = steps["02_training-hd-map-1"].parameters["settings"]
        expected = dropout["hd"] if isinstance(dropout, dict) else dropout
        assert setup_of(given, dataset="hd", method="map", seed=1).method.dropout == expected


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epoch": 3}, "'epoch' is no notebook's parameter and no method"),
        ({"method": ["map"]}, "'ivon' has settings, but no method listed under 'method' uses it"),
        ({"method": ["map", "ivon", "svi"]}, "unknown method 'svi'"),
        ({"dataset": ["hd", "dh"]}, "'dh'"),
        ({"ivon": {"learning_rat": 0.1}}, "'learning_rat' is no setting of this run"),
        ({"ivon": {"learning_rate": -1.0}}, "learning_rate = -1.0 does not fit"),
        ({"settings": {"nueron": "lif"}}, "'nueron' is no setting of this run"),
        ({"ivon": {"seed": 3}}, "seed is given twice"),
        ({"ivon": [0.1]}, r"'ivon' is a method: give its settings as a mapping, not \[0\.1\]"),
        ({"settings": "fast"}, r"'settings' must map settings to values"),
        ({"ivon": {"learning_rate": {"hd1": 0.1}}}, "learning_rate is given for 'hd1', which is no data set"),
        ({"data_root": {"hd1": "/speech"}}, "'data_root' names 'hd1', which is not listed under 'dataset'"),
        ({"data_root": {"hd": 1}}, "'data_root' must be a folder, not 1"),
        ({"data_root": None}, "'data_root' must be a folder, not None; a mere ~ is nothing in YAML, and '~' the home"),
        ({"results_root": "$HOME/runs"}, r"only a shell replaces \$HOME; write the whole path"),
        ({"data_root": {"hd": "~nobody-of-this-name"}}, "the home that it begins with is not known"),
        ({"samples": 0}, "samples = 0 does not fit"),
        ({"epochs": 0}, "epochs = 0 does not fit"),
        ({"hidden_sizes": []}, "hidden_sizes = .* does not fit"),
    ],
)
def test_what_no_notebook_or_run_can_use_is_refused(toy: Path, changes: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as refusal:
        planned(toy, **changes)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "must be a mapping"),
        ("1: hd\n", "must be a mapping"),
        (b"\xff\xfe", "must be a mapping"),
        (b"\xff\xff", "is not YAML"),
        ("dataset: [hd\n", "is not YAML"),
        ("dataset: !!python/object/apply:os.getcwd []\n", "is not YAML"),
        ("dataset: [hd]\nmap: {dropout: 0.1,\n  dropout: 0.2}\n", "'dropout' stands twice .*line 2"),
        ("method: [map]\nseed: [1]\n", "'dataset' must be a list of str values"),
        ("dataset: [hd]\nmethod: []\nseed: [1]\n", "'method' must be a list"),
        ("dataset: [hd]\nmethod: [map]\nseed: [true]\n", "'seed' must be a list of int values"),
        ("dataset: [hd, sc, hd]\nmethod: [map]\nseed: [1]\n", "'dataset' must be a list .* none twice"),
    ],
)
def test_a_file_that_says_no_such_thing_is_refused(tmp_path: Path, text: str | bytes, sentence: str) -> None:
    path = tmp_path / "settings.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=sentence) as refusal:
        read_settings(path)
    assert "\n" not in str(refusal.value)


def test_settings_are_those_that_were_typed(tmp_path: Path) -> None:
    path = tmp_path / "my.yml"
    path.write_bytes(b"\xef\xbb\xbfdataset: [sc]\r\nmethod: [map]\r\nseed: [010]\r\nmap: {learning_rate: 1e-3}\r\n")
    axes = {"dataset": ["sc"], "method": ["map"], "seed": [10]}
    assert read_settings(path) == axes | {"settings": {"map": {"learning_rate": 0.001}}}


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "my.yml", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"there is no file {path}"):
            read_settings(path)


def test_a_further_file_takes_the_place_of_what_it_names(tmp_path: Path) -> None:
    first, further = tmp_path / "first.yml", tmp_path / "further.yml"
    first.write_text("dataset: [hd]\nmethod: [ivon]\nseed: [1]\nivon: {dropout: 0.2, hess_init: 1}\n")
    further.write_text("dataset: [sc]\nivon: {dropout: 0.1}\n")
    lists = {"dataset": ["sc"], "method": ["ivon"], "seed": [1]}
    assert read_settings(first, further) == lists | {"settings": {"ivon": {"dropout": 0.1}}}
    further.write_text("seed: 1\n")
    with pytest.raises(ValueError, match=r"first\.yml and .*further\.yml: 'seed' must be a list"):
        read_settings(first, further)


def test_the_rehearsal_is_the_paper_s_run_under_the_names_of_synthetic_sets() -> None:
    """What is synthetic is so by name: pictures, tables and stored runs say it."""

    def renamed(said: Any) -> Any:
        if isinstance(said, dict):
            return {renamed(key): renamed(value) for key, value in said.items()}
        if isinstance(said, list):
            return [renamed(one) for one in said]
        return f"synthetic-{said}" if said in ("hd", "sc") else said

    paper, rehearsal = ROOT / "book/params/paper.yml", ROOT / "book/params/rehearsal.yml"
    folders = {"synthetic-hd": "data/rehearsal/hd", "synthetic-sc": "data/rehearsal/sc"}
    own = {"data_root": folders, "results_root": "data/rehearsal/runs"}
    assert read_settings(paper, rehearsal) == renamed(read_settings(paper)) | own
