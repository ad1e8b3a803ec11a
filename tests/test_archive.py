"""The archive: an RO-Crate that names every file that is in it, each study with its commits, and no recording."""

import json
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from rocrate.rocrate import ROCrate

from lib import archive
from lib.study import tables


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    (folder / "html").mkdir()
    (folder / "html/index.html").write_text("<p>The book</p>")
    archive.write(folder / "html", folder / "crate")
    return folder / "crate"


def test_every_file_is_named_and_every_name_is_a_file(made):
    crate = ROCrate(made)
    named = {one.id for one in crate.data_entities if "File" in one.type}
    there = {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()}
    assert {"data/results/claims.csv", "book/studies/factors.yml", "html/index.html", "CITATION.cff"} <= there
    assert there - named <= {"ro-crate-metadata.json", "ro-crate-preview.html"}
    assert named <= there
    assert not [name for name in there if name.endswith((".wav", ".flac"))]
    with zipfile.ZipFile(made.with_suffix(".zip")) as zipped:
        assert {name for name in zipped.namelist() if not name.endswith("/")} == there


def test_a_study_has_its_tables_its_words_and_the_commits_that_computed_it(made):
    crate = ROCrate(made)
    study = crate.get("data/results/factors/")
    assert study["name"] == "factors"
    assert study["description"]
    parts = {one.id for one in study["hasPart"]}
    assert {path.name for path in (tables.RESULTS / "factors").iterdir()} <= {Path(name).name for name in parts}
    records = pd.DataFrame(json.loads((tables.RESULTS / "factors/runs.json").read_text()))
    actions = [one for one in crate.contextual_entities if one.type == "CreateAction" and one["result"] == study]
    assert {one["name"] for one in actions} == {
        f"{count} runs of factors at commit {commit}" for commit, count in records["commit"].value_counts().items()
    }
    assert crate.root_dataset["isBasedOn"]["name"].startswith("Practical Bayesian Inference for Speech SNNs")


def test_without_a_built_book_it_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no index\.html: build the book first, with make book"):
        archive.write(tmp_path, tmp_path / "crate")
    assert not (tmp_path / "crate").exists()
