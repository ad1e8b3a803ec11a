"""Which executions a settings file asks for."""

from pathlib import Path

import pytest
from toy_book import SETTINGS, declared, write_notebook

from lib.pipeline.planning import SEQUENCE, Step, at_once, notebooks_of, plan, read_defaults, read_settings, without

ROOT = Path(__file__).resolve().parents[1]


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
    assert steps["04_slices-hd"].after == {"02_training-hd-map-1", "02_training-hd-ivon-1"}  # of its own seed
    assert steps["extra"].after == data


def test_what_can_run_at_the_same_time_is_counted(toy: Path) -> None:
    assert at_once(plan(SETTINGS, declared(toy))) == 9  # eight trainings and the extra page
    chain = [Step(name, {}, {}, True, frozenset(after), 0) for name, after in (("a", ""), ("b", "a"), ("c", "ab"))]
    assert at_once(chain) == 1


def test_what_fails_is_felt_by_what_needs_it(toy: Path) -> None:
    steps = {step.name: step for step in plan(SETTINGS, declared(toy))}
    trainings = [step for step in steps.values() if step.notebook == "02_training"]
    assert without(steps["02_training-sc-map-2"], [steps["01_data-sc"]]) is None
    assert without(steps["04_slices-hd"], [steps["02_training-hd-ivon-1"]]) is None
    assert without(steps["extra"], [steps["01_data-sc"]]) == steps["extra"]
    evaluation = steps["03_evaluation"]
    assert without(evaluation, []) == evaluation
    assert without(evaluation, trainings) is None
    spared = without(evaluation, trainings[1:])
    assert spared.parameters["missing"][:2] == ["sc-map-2", "sc-ivon-1"]
    assert len(spared.parameters["missing"]) == 7
    assert spared.parameters | {"missing": []} == evaluation.parameters | {"missing": []}


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


def test_a_further_file_takes_the_place_of_what_it_names(tmp_path: Path) -> None:
    first, further = tmp_path / "first.yml", tmp_path / "further.yml"
    first.write_text("dataset: [hd]\nmethod: [map]\nseed: [1]\nivon: {epochs: 3}\n")
    further.write_text("dataset: [sc]\nivon: {dropout: 0.1}\n")
    assert read_settings(first, further) == {
        "dataset": ["sc"],
        "method": ["map"],
        "seed": [1],
        "ivon": {"dropout": 0.1},
    }
    further.write_text("seed: 1\n")
    with pytest.raises(ValueError, match=r"first\.yml and .*further\.yml: 'seed' must be a list"):
        read_settings(first, further)


def test_the_rehearsal_is_the_paper_s_run_under_the_names_of_synthetic_sets() -> None:
    """What is synthetic is so by name: pictures, tables and stored runs say it."""
    notebooks = {stem: read_defaults(ROOT / "book" / f"{stem}.ipynb") for stem in SEQUENCE}
    params = ROOT / "book/params"
    paper = plan(read_settings(params / "paper.yml"), notebooks)
    rehearsal = plan(read_settings(params / "paper.yml", params / "rehearsal.yml"), notebooks)
    folders = {"synthetic-hd": "data/rehearsal/hd", "synthetic-sc": "data/rehearsal/sc"}
    for step, rehearsed in zip(paper, rehearsal, strict=True):
        assert list(rehearsed.along.values()) == [
            value if axis != "dataset" else f"synthetic-{value}" for axis, value in step.along.items()
        ]
        whole, whole_rehearsed = (notebooks[one.notebook] | one.parameters for one in (step, rehearsed))
        assert whole_rehearsed["results_root"] == str(Path("data/rehearsal/runs").resolve())
        root = whole_rehearsed["data_root"]
        for name, folder in root.items() if isinstance(root, dict) else [(whole_rehearsed["dataset"], root)]:
            assert folder == str(Path(folders[name]).resolve())
        for name in whole.keys() - {"dataset", "data_root", "results_root"}:
            value = whole_rehearsed[name]
            if isinstance(value, dict):
                value = {key.removeprefix("synthetic-"): of_set for key, of_set in value.items()}
            assert value == whole[name], name


BASED = SETTINGS | {"dataset": ["sc"], "method": ["map", "temperature", "noise-ivon"], "seed": [1]}


def test_a_method_made_of_others_is_given_what_is_said_of_them(toy: Path) -> None:
    notebooks = declared(toy)
    notebooks["02_training"]["bases"] = None
    steps = {step.along["method"]: step for step in plan(BASED, notebooks) if step.notebook == "02_training"}
    assert "bases" not in steps["map"].parameters
    assert steps["temperature"].parameters["bases"] == {"map": {"learning_rate": 0.01}}
    assert steps["noise-ivon"].parameters["bases"] == {"map": {"learning_rate": 0.01}, "ivon": {"learning_rate": 1}}


def test_what_is_said_of_a_part_may_differ_between_data_sets(toy: Path) -> None:
    notebooks = declared(toy)
    notebooks["02_training"]["bases"] = None
    said = BASED | {"dataset": ["sc", "hd"], "map": {"learning_rate": {"sc": 0.01, "hd": 0.02}}}
    steps = {step.name: step for step in plan(said, notebooks)}
    given = [steps[f"02_training-{name}-temperature-1"].parameters["bases"] for name in ("sc", "hd")]
    assert given == [{"map": {"learning_rate": 0.01}}, {"map": {"learning_rate": 0.02}}]


def test_a_part_s_wrong_setting_is_refused_beforehand(toy: Path) -> None:
    notebooks = declared(toy)
    notebooks["02_training"] |= {"bases": None, "hess_init": None}
    with pytest.raises(ValueError, match="map takes no hess_init"):
        plan(BASED | {"map": {"hess_init": 0.1}}, notebooks)
