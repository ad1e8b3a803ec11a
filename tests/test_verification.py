"""A study's stored results computed anew: what comes out again, what does not, and what cannot be verified."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import toy_study

from lib import provenance
from lib.study import __main__ as command
from lib.study import engine, read, tables, verification

CHANGES = {"variants": {"LIF": {}}, "seed": [1, 2, 3]}
MEASURES = {
    "progress": {},
    "angularity": {"directions": {"all": 1}, "points": 9, "radius": {"all": 0.5}, "samples": [1, 2], "examples": 10},
    "utterances": {"samples": 2, "bins": 5},
    "cost": {"samples": 1, "utterances": 2, "repeats": 1},
}


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("computed")
    study = toy_study.write(folder / "toy.yml", toy_study.make_tones(folder / "tones"), **CHANGES, measures=MEASURES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "on_workers", toy_study.in_this_process)
        assert engine.run(study, folder / "results", folder=folder / "data") == 0
    return folder


@pytest.fixture
def toy(computed, tmp_path, monkeypatch):
    """The results of the toy study, whole again for each test."""
    monkeypatch.setattr(engine, "on_workers", toy_study.in_this_process)
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    shutil.copytree(computed / "results", tmp_path / "toy")
    shutil.copy(computed / "toy.yml", tmp_path / "toy.yml")
    return tmp_path


def verify(toy, *options):
    return command.main([str(toy / "toy.yml"), "--verify", *options])


def alter(toy, change):
    path = toy / "toy/runs.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_on_the_same_machine_every_number_is_the_same_and_nothing_is_left_behind(toy, computed, capsys):
    before = sorted([*toy.rglob("*"), *computed.rglob("*")])
    assert verify(toy) == 0
    out = capsys.readouterr().out
    assert "6 of 6 runs are computed anew" in out
    assert "measured: evaluation, progress, angularity, utterances.\n" in out  # not what it costs
    counts = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.endswith(" 0")}
    assert counts["evaluation"] == ["48", "0", "0"]
    assert counts["angularity"] == [str(4 * (3 + 2 * 3)), "0", "0"]  # of Adam's one sample, of IVON's two numbers
    assert counts["angularity_lines"] == [str(9 * 3), "0", "0"]  # of the first seed
    assert counts["utterances"] == [str(6 * 30 * 5), "0", "0"]
    assert verification.EXPLANATION in out
    assert sorted([*toy.rglob("*"), *computed.rglob("*")]) == before


def test_each_number_has_its_verdict(toy, capsys):
    """Entries are moved: one within its spread, one far away, and one of which there is a single seed."""
    for table, column, rows, change in (
        ("evaluation", "nll", [0], lambda values: values * (1 + 1e-5)),
        ("evaluation", "brier", [0, 1, 2], lambda values: values + 1),
        ("angularity_lines", "nll", [4], lambda values: values * (1 + 1e-5)),
    ):
        path = toy / "toy" / tables.file_name(table)
        content = pd.read_csv(path)
        content.loc[rows, column] = change(content.loc[rows, column])
        content.to_csv(path, index=False)
    assert verify(toy) == 1
    out = capsys.readouterr().out
    assert "44" in next(line for line in out.splitlines() if line.startswith("evaluation"))
    assert "within, 4 different" in out
    assert [line.split()[-2:] for line in out.splitlines() if "none" in line] == [["none", "none"]]


def test_a_share_of_the_runs_is_spread_over_them(toy, capsys):
    assert verify(toy, "--share", "0.3") == 0
    assert "2 of 6 runs are computed anew" in capsys.readouterr().out
    stored = tables.Results(read(toy / "toy.yml"), toy / "toy")
    assert [key[2:] for key in verification.chosen(stored, 0.3)] == [("map", 1), ("ivon", 1)]
    assert len(verification.chosen(stored, None)) == 6
    for record in stored.records.values():
        record["seconds"] = 1e4
    assert len(verification.chosen(stored, None)) == 1
    assert verify(toy, "--share", "1.5") == 2
    assert "share = 1.5 does not fit" in capsys.readouterr().err


def test_records_that_do_not_say_how_long_the_training_took_are_verified_too(toy, capsys):
    alter(toy, lambda records: [record.pop("seconds") for record in records])
    assert verify(toy) == 0
    assert "6 of 6 runs are computed anew, whose training took a time that is not recorded" in capsys.readouterr().out


def test_a_training_that_diverges_is_told(toy, monkeypatch, capsys):
    def diverge(*given):
        raise FloatingPointError("training diverged")

    monkeypatch.setattr(engine, "measure", diverge)
    assert verify(toy, "--share", "0.1") == 1
    assert "tones, LIF, map, 1 failed" in capsys.readouterr().out


def test_other_recordings_are_refused_and_named(toy, capsys):
    alter(toy, lambda records: [record.update(data="0" * 32) for record in records])
    assert verify(toy) == 2
    said = capsys.readouterr().err
    for sentence in ("tones: these are other recordings", "0" * 32, "6 of 6 runs cannot be computed"):
        assert sentence in said


def test_absent_recordings_are_named_with_the_way_to_get_them(toy, capsys):
    toy_study.write(toy / "toy.yml", toy, **CHANGES)
    assert verify(toy) == 2
    assert "does not hold the set 'fsdd'" in (said := capsys.readouterr().err)
    assert "data/README.md says how to get" in said


@pytest.mark.parametrize("name", ["data", "machine", "measures"])
def test_records_that_are_not_whole_are_refused(toy, capsys, name):
    alter(toy, lambda records: records[0].pop(name))
    assert verify(toy) == 2
    assert f"runs.json is damaged or missing (KeyError: '{name}')" in capsys.readouterr().err


def test_what_was_otherwise_is_said():
    here = provenance.here() | {"commit": "0123456789ab"}
    assert verification.elsewhere(here, here) == []
    there = here | {"machine": here["machine"] | {"cores": 96}, "commit": "ba9876543210"}
    there["versions"] = here["versions"] | {"torch": "1.0"}
    assert verification.elsewhere(there, here) == [
        f"cores 96 (here {here['machine']['cores']})",
        f"torch 1.0 (here {here['versions']['torch']})",
        "commit ba9876543210 (here 0123456789ab)",
    ]
    # Uncommitted changes are never taken for the same code.
    dirty = here | {"commit": "0123456789ab-dirty"}
    assert verification.elsewhere(dirty, dirty) == ["commit 0123456789ab-dirty (here 0123456789ab-dirty)"]


def test_a_verdict(toy):
    stored = tables.Results(read(toy / "toy.yml"), toy / "empty")
    for seed, number in ((1, 1.0), (2, 2.0), (3, 3.0)):
        stored.put(("tones", "LIF", "map", seed), {}, {"loss": pd.DataFrame({"nll": [number]})})
    verdicts = {1.0: "same", 1.0000009: "same", 1.00001: "within", 2.9: "within", 9.0: "different", np.nan: "different"}
    for again, verdict in verdicts.items():
        compared = verification.compare(stored, ("tones", "LIF", "map", 1), {"loss": pd.DataFrame({"nll": [again]})})
        assert compared["verdict"].tolist() == [verdict]
