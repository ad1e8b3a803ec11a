"""The list of faults: what is wrong, what the user then asks for, what the user sees, what is left on the disk.

Each row is put into a world of its own (``small_world``). Whatever is asked for ends in one sentence that says what is
wrong and what to do, and, but for new files that the row names, leaves every file as it was.
"""

import os
import pickle
import shutil
import tarfile
from collections.abc import Callable
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import small_world
import torch
from small_world import (
    Code,
    World,
    archive,
    both,
    crowd,
    cut,
    emptied,
    evaluate,
    extract,
    fetch,
    find,
    folder_instead,
    history,
    holds,
    interrupted,
    interrupted_training,
    lines,
    link,
    link_to_nowhere,
    load,
    mode,
    notebook,
    nothing,
    on_a_full_disk,
    path_in,
    plan_from,
    record,
    removed,
    sound,
    synthesise,
    tabulate,
    tensors,
    train,
    with_little_room,
)

from lib import downloads, experiment
from lib.posteriors import MeanFieldGaussian


class Fault(NamedTuple):
    what: str
    done: Callable[[World], None]
    asked: Callable[[World], Any]
    seen: str  # of the sentence, the words that matter, as a regular expression
    left: tuple[str, ...] = ()  # patterns of the new files
    kind: type[BaseException] | tuple[type[BaseException], ...] = (OSError, ValueError)


HD_FILE = "hd/audio/lang-english_speaker-00_trial-0_digit-3.flac"
HD_LINE = Path(HD_FILE).name
SC_FILE = "sc/bed/00000008_nohash_0.wav"
ZIP = b"PK\x05\x06" + bytes(18)  # an archive of nothing
SETTINGS = "dataset: [hd]\nmethod: [map]\nseed: [1]\n"

RECORDINGS = [
    Fault("no such folder", nothing, load("hd", root="absent"), "absent does not hold the set 'hd'.*give the"),
    Fault("an empty folder", emptied("sc"), load("sc"), "sc does not hold the set 'sc'.*give the folder"),
    Fault("a file as the folder", holds("mine", "x"), load("sc", root="mine"), "does not hold the set 'sc'"),
    Fault("another set's folder", nothing, load("sc", root="hd"), "no 'validation_list.txt' in it; give"),
    Fault("a set nobody knows", nothing, load("timit"), "No data set is called 'timit'; the sets are hd, sc"),
    Fault(
        "a split nobody knows", nothing, load("sc", split="80-20"), "no split called '80-20'; its splits are official"
    ),
    Fault("HD's validation for SC", nothing, load("sc", validation="speaker"), "validation part of its own; leave"),
    Fault("a validation nobody knows", nothing, load("hd", validation="dev"), "'speaker' or 'test', not 'dev'"),
    Fault("a part nobody knows", nothing, lambda world: load("hd")(world).part("dev"), "'dev'; the parts are train"),
    Fault("a list missing", removed("hd/test_filenames.txt"), load("hd"), "test_filenames.txt is missing"),
    Fault("a folder as the list", folder_instead("sc/testing_list.txt"), load("sc"), "list.txt is missing"),
    Fault("a list that is no text", holds("sc/testing_list.txt", b"\xff\xfe\x00"), load("sc"), "restore"),
    Fault("a list of absent files", removed(HD_FILE), load("hd"), "1 of .* that are not there.*restore"),
    Fault("a name twice in a list", lines("hd/train_filenames.txt", lambda of: of * 2), load("hd"), "twice; restore"),
    Fault(
        "a name in both lists",
        lines("hd/test_filenames.txt", lambda of: [*of, HD_LINE]),
        load("hd"),
        "both lists name .*; restore train_filenames.txt and test_filenames.txt",
    ),
    Fault(
        "a foreign name in HD's list",
        both(holds("hd/audio/mine.flac", ""), lines("hd/train_filenames.txt", lambda of: [*of, "mine.flac"])),
        load("hd"),
        "names 'mine.flac', which is not of the form .*; restore the list",
    ),
    Fault("a foreign recording in SC", holds("sc/bed/mine.wav", ""), load("sc"), "mine.wav is not named .*take it out"),
    Fault("one in FSDD", holds("fsdd/recordings/mine.wav", ""), load("fsdd"), "mine.wav is not named .*take it out"),
    Fault("no recordings", emptied("fsdd/recordings"), load("fsdd"), "holds no recording of 'theo'"),
    Fault("a speaker missing", removed("fsdd/recordings/0_theo_0.wav"), load("fsdd"), "no recording of 'theo'"),
    Fault("an empty part", holds("sc/testing_list.txt", ""), load("sc"), "The test part of 'sc' .* is empty.*needed"),
    Fault(
        "a word that is not trained on",
        both(removed("sc/yes/00000008_nohash_0.wav"), removed("sc/yes/00000009_nohash_0.wav")),
        load("sc"),
        "'yes' of 'sc' .* has no training utterance .*; add utterances of it or take the class out",
    ),
    Fault(
        "other counts than published",
        both(emptied("fsdd/recordings"), lambda world: crowd(world / "fsdd" / "recordings")),
        load("fsdd"),
        r"has other counts than published: train 1,999 \(published: 2,000\).*unpack the archive again",
    ),
    Fault("a WAV without content", holds(SC_FILE, ""), extract("sc"), "does not decode as audio .*restore this file"),
    Fault(
        "a WAV cut in its header", cut(SC_FILE, 0.004), extract("sc"), "does not decode as audio .*restore this file"
    ),
    Fault("a WAV cut in its sound", cut(SC_FILE, 0.8), extract("sc"), "is cut short.*restore this file"),
    Fault("a FLAC cut in its sound", cut(HD_FILE, 0.8), extract("hd"), "does not decode as audio .*restore this file"),
    Fault("a text as a WAV", holds(SC_FILE, "RIFF, she said"), extract("sc"), "does not decode as audio .*restore"),
    Fault(
        "a folder as a WAV",
        folder_instead(SC_FILE),
        extract("sc"),
        "file of .* is gone, a folder.*restore it.*bed",
    ),
    Fault(
        "a link to nowhere", link_to_nowhere(SC_FILE), extract("sc"), "file of .* is gone, a folder.*restore it.*bed"
    ),
    Fault("another sample rate", sound(SC_FILE, rate=8_000), extract("sc"), "8000 Hz where .* 16000 Hz; restore"),
    Fault("another rate in HD", sound(HD_FILE, rate=8_000), extract("hd"), "Hz where the set .*; restore this file"),
    Fault("two channels", sound(SC_FILE, channels=2), extract("sc"), "has 2 channels; this set is mono: restore"),
    Fault("samples that are no numbers", sound(SC_FILE, value=np.nan), extract("sc"), "not finite numbers; restore"),
    Fault(
        "a recording too short", sound(SC_FILE, seconds=0.01), extract("sc"), "has 160 samples, fewer than one frame"
    ),
]

FEATURES = [
    Fault("no frames", nothing, extract("sc", frames=0), "`frames` is 0; it has to be at least 1"),
    Fault("too few bins", nothing, extract("sc", num_mel_bins=1), "`num_mel_bins` is 1; it has to be at least 4"),
    Fault("too low a rate", nothing, extract("sc", sample_rate=5), "`sample_rate` is 5; it has to be at least 1000"),
    Fault(
        "a cut cache", cut("features/sc-*.npy", 0.5), extract("sc"), "npy cannot be read .*; delete .* and run again"
    ),
    Fault("a lost cache", removed("features/sc-*.npy"), extract("sc"), "cannot be read .*; delete .* and run again"),
    Fault(
        "a cache of another shape",
        lambda world: np.save(path_in(world, "features/sc-*.npy"), np.zeros((2, 2), np.float32)),
        extract("sc"),
        "does not hold features of shape .*; delete it and",
    ),
    Fault(
        "a file as the cache",
        both(removed("features"), holds("features", "mine")),
        extract("sc"),
        "features is no folder; move away what is there",
    ),
    Fault("a full disk", nothing, on_a_full_disk(extract("sc", frames=9)), "the disk of .* is full.*room"),
]

ARCHIVES = [
    Fault(
        "a set nobody publishes",
        nothing,
        lambda world: downloads.fetch("timit", world / "new"),
        "No set called 'timit'",
    ),
    Fault("no network", nothing, fetch(checksum="md5:0"), "check the network and run again", ("new",)),
    Fault("a checksum that has changed", archive(), fetch(checksum="md5:0"), "not the published archive.*delete it"),
    Fault("a folder with something else", holds("new/hd/mine", "x"), fetch(checksum="md5:0"), "give an empty folder"),
    Fault(
        "a ZIP in place of a tar", holds("new/hd.tar.gz", ZIP), fetch(), "not a whole archive .*: delete it, run again"
    ),
    Fault(
        "a tar that is cut",
        both(archive(), cut("new/hd.tar.gz", 0.5)),
        fetch(),
        "not a whole archive .*: delete it, run again",
    ),
    Fault("a link in a tar", archive(link("hd/out", "/")), fetch(), "'hd/out' is a link.*: delete it, run again"),
    Fault("a member outside", archive(tarfile.TarInfo("../x")), fetch(), "outside of the set's folder.*: delete it"),
    Fault("a bomb", archive(*map(tarfile.TarInfo, map(str, range(300)))), fetch(), "takes more than the 0.001 GB"),
    Fault("little room", archive(), with_little_room(fetch()), "are needed on the disk of .*room"),
    Fault("a full disk", archive(), on_a_full_disk(fetch()), "the disk of .* is full.*room"),
    Fault("a voice nobody has", nothing, synthesise("synthetic-timit", "new"), "No synthetic set is called"),
    Fault(
        "too few words", nothing, synthesise("synthetic-hd", "new", utterances=3), "has at least 240 utterances, not 3"
    ),
    Fault("someone's folder", nothing, synthesise("synthetic-hd", "hd"), "something other.*delete it or give another"),
    Fault(
        "little room for speech",
        nothing,
        with_little_room(synthesise("synthetic-hd", "new")),
        "are needed on the disk of .*make room or give another folder",
    ),
]

PARAMETERS = [
    Fault("a name nobody knows", nothing, notebook("02_training", epoch=3), "unknown parameter 'epoch': 02_.* takes"),
    Fault("another notebook's", nothing, notebook("01_data", samples=3), "unknown parameter 'samples': 01_data takes"),
    Fault("a word for a number", nothing, notebook("02_training", epochs="ten"), "'ten' does not fit: .*whole number"),
    Fault("true for a number", nothing, notebook("02_training", seed=True), "True does not fit: .*whole number"),
    Fault(
        "not a number", nothing, notebook("02_training", dropout=float("nan")), "nan does not fit: .*from 0 up to 0.99"
    ),
    Fault("out of range", nothing, notebook("02_training", dropout=1.5), "dropout = 1.5 does not fit: .*from 0 up to"),
    Fault("an infinite rate", nothing, notebook("02_training", learning_rate=float("inf")), "inf does not fit"),
    Fault(
        "no layers", nothing, notebook("02_training", hidden_sizes=[]), r"hidden_sizes = \[\] does not fit: .*a list"
    ),
    Fault("a method nobody knows", nothing, notebook("02_training", method="sgd"), "'sgd' does not fit: .*map, ivon"),
    Fault("several where one is", nothing, notebook("01_data", dataset=["hd", "sc"]), "takes one dataset, not a list"),
    Fault("no methods", nothing, notebook("03_evaluation", method=[]), r"method = \[\] does not fit"),
    Fault("a set nobody knows, in a mapping", nothing, notebook("01_data", data_root={"timit": "x"}), "does not fit"),
    Fault("another method's", nothing, train(ess_factor=2.0), "map takes no ess_factor: its settings are"),
]

SETTINGS_FILES = [
    Fault("no file", nothing, plan_from("my.yml"), "There is no settings file .*my.yml"),
    Fault("a folder as the file", nothing, plan_from("hd"), "no settings file"),
    Fault("an empty file", holds("my.yml", ""), plan_from("my.yml"), "my.yml must be a mapping from names to values"),
    Fault("a list", holds("my.yml", "- 1\n"), plan_from("my.yml"), "my.yml must be a mapping from names to values"),
    Fault("not YAML", holds("my.yml", "seed: [1,\n"), plan_from("my.yml"), "my.yml is not YAML: .*line 2"),
    Fault("bytes", holds("my.yml", b"\xff\xfe"), plan_from("my.yml"), "my.yml is not YAML"),
    Fault(
        "a key twice",
        holds("my.yml", SETTINGS + "seed: [2]\n"),
        plan_from("my.yml"),
        "my.yml gives 'seed' twice; leave",
    ),
    Fault(
        "a key twice in a section",
        holds("my.yml", SETTINGS + "map: {epochs: 3, epochs: 4}\n"),
        plan_from("my.yml"),
        "my.yml gives 'epochs' twice; leave one of them",
    ),
    Fault(
        "another method's setting",
        holds("my.yml", SETTINGS + "map: {ess_factor: 2}\n"),
        plan_from("my.yml"),
        "map takes no ess_factor: its settings are",
    ),
    Fault(
        "one method's setting for all",
        holds("my.yml", SETTINGS + "ess_factor: 2\n"),
        plan_from("my.yml"),
        "map takes no ess_factor: its settings are",
    ),
    Fault("no seeds", holds("my.yml", SETTINGS.replace("[1]", "[]")), plan_from("my.yml"), "'seed' must be a list of"),
    Fault("a seed in words", holds("my.yml", SETTINGS.replace("1", "one")), plan_from("my.yml"), "of one or more int"),
    Fault(
        "a seed twice",
        holds("my.yml", SETTINGS.replace("1", "1, 1")),
        plan_from("my.yml"),
        "'seed' names a value twice",
    ),
    Fault(
        "a method nobody knows", holds("my.yml", SETTINGS.replace("map", "sgd")), plan_from("my.yml"), "'sgd'.*map, iv"
    ),
    Fault(
        "a key nobody knows", holds("my.yml", SETTINGS + "epoch: 3\n"), plan_from("my.yml"), "'epoch' is neither a note"
    ),
    Fault(
        "a section that is none", holds("my.yml", SETTINGS + "map: 3\n"), plan_from("my.yml"), "'map' must map param"
    ),
    Fault(
        "a set that is not listed",
        holds("my.yml", SETTINGS + "epochs: {sc: 3}\n"),
        plan_from("my.yml"),
        "'epochs' names 'sc', which is not listed under 'dataset'",
    ),
    Fault("out of range", holds("my.yml", SETTINGS + "dropout: 2\n"), plan_from("my.yml"), "dropout = 2 does not fit"),
]

RUNS = [
    Fault(
        "a file as the folder of runs",
        both(removed("runs"), holds("runs", "mine")),
        train(),
        "runs is no folder; move a",
    ),
    Fault(
        "a cut posterior", cut("runs/*/posterior.pt", 0.5), evaluate(3), "not hold a whole posterior: delete its folder"
    ),
    Fault(
        "no posterior",
        removed("runs/*/posterior.pt"),
        evaluate(3),
        "posterior.pt .*: delete its folder and train again",
    ),
    Fault(
        "a posterior of another shape",
        tensors("runs/*/posterior.pt", lambda of: of["mean"].update({"readout.bias": torch.zeros(9)})),
        evaluate(3),
        "another network's .*: delete its folder and train again",
    ),
    Fault(
        "code as a posterior",
        holds("runs/*/posterior.pt", pickle.dumps(Code(), protocol=2)),
        evaluate(3),
        "not hold a whole post",
    ),
    Fault(
        "a record that is no JSON", cut("runs/*/run.json", 0.5), find, "run.json is damaged.*; delete its folder and"
    ),
    Fault(
        "a record of something else", holds("runs/*/run.json", "[1]"), find, "run.json is damaged.*; delete its folder"
    ),
    Fault(
        "a record without settings", record(lambda of: of.pop("settings")), find, "run.json is damaged.*; delete its"
    ),
    Fault("a record without a seed", record(lambda of: of["settings"].pop("seed")), find, "run.json is damaged"),
    Fault("no history", removed("runs/*/history.csv"), history, "history.csv .*; delete its folder and train again"),
    Fault(
        "a cut history", holds("runs/*/history.csv", "epoch,se"), history, "history.csv .*; delete its folder and train"
    ),
    Fault("bytes as a history", holds("runs/*/history.csv", b"\xff\x00"), history, "history.csv .*; delete its folder"),
    Fault("a cut evaluation", cut("runs/*/test-2-*.json", 0.5), evaluate(), "test-2.*json is damaged.*; delete it"),
    Fault(
        "an evaluation without figures", holds("runs/*/test-2-*.json", "{}"), tabulate, "json is damaged.*; delete it"
    ),
    Fault("cut predictions", cut("runs/*/test-2-*.npy", 0.5), evaluate(), "npy is damaged.*; delete it"),
    Fault("no predictions", removed("runs/*/test-2-*.npy"), evaluate(), "npy is damaged.*; delete it"),
    Fault("a table of something else", holds("runs/table1.csv", "a,b\n1,2\n"), tabulate, "table1.csv .*; move it away"),
    Fault("an empty table", holds("runs/table1.csv", ""), tabulate, "table1.csv .*; move it away"),
    Fault("cut records of a table", cut("runs/runs.json", 0.5), tabulate, "runs.json .*; move it away"),
    Fault("a folder as the table", folder_instead("runs/table1.csv"), tabulate, "table1.csv .*move it away"),
    Fault(
        "a cut checkpoint",
        both(interrupted_training(), cut("runs/*-2-*/checkpoint.pt", 0.5)),
        train(seed=2),
        "checkpoint.pt is damaged; delete it, and training begins anew",
    ),
    Fault(
        "a checkpoint of another network",
        both(interrupted_training(), tensors("runs/*-2-*/checkpoint.pt", lambda of: of["network"].popitem())),
        train(seed=2),
        "checkpoint.pt is damaged; delete it, and training begins anew",
    ),
    Fault(
        "a checkpoint without a history",
        both(interrupted_training(), tensors("runs/*-2-*/checkpoint.pt", lambda of: of.pop("history"))),
        train(seed=2),
        "checkpoint.pt is damaged; delete it, and training begins anew",
    ),
    Fault(
        "code as a checkpoint",
        both(interrupted_training(), holds("runs/*-2-*/checkpoint.pt", pickle.dumps(Code(), protocol=2))),
        train(seed=2),
        "checkpoint.pt is damaged; delete it, and training begins anew",
    ),
    Fault(
        "weights that are not numbers",
        both(
            interrupted_training(),
            tensors(
                "runs/*-2-*/checkpoint.pt", lambda of: of["network"].update({"readout.bias": torch.full((2,), np.nan)})
            ),
        ),
        train(seed=2),
        r"training diverged in epoch 2 \(.*nan.*\): lower learning_rate",
        kind=FloatingPointError,
    ),
    Fault(
        "a loss that grows without end",
        nothing,
        train(learning_rate=100.0, epochs=50),
        "training diverged in epoch .*: lower learning_rate",
        ("runs/sc-map-1-*",),
        FloatingPointError,
    ),
    Fault("Ctrl-C", nothing, interrupted(train(seed=2), 1), "^$", ("runs/sc-map-2-*",), KeyboardInterrupt),
    Fault(
        "a full disk in training",
        nothing,
        on_a_full_disk(train(seed=2), after=2_000),
        "the disk of .* is full.*make room and run again",
        ("runs/sc-map-2-*",),
    ),
    Fault(
        "a full disk in evaluation",
        nothing,
        on_a_full_disk(evaluate(3)),
        "the disk of .* is full.*make room and run again",
    ),
    Fault("a full disk for the table", nothing, on_a_full_disk(tabulate), "the disk of .* is full"),
    Fault(
        "a spread without a mean",
        nothing,
        lambda world: MeanFieldGaussian({}, {"bias": torch.ones(2)}),
        "'bias' has no mean of the same shape",
    ),
]

PERMISSIONS = [
    Fault("a recording", mode(SC_FILE, 0), extract("sc"), "a file of .* not to be read; restore it"),
    Fault("a list", mode("sc/testing_list.txt", 0), load("sc"), "a file of .* not to be read; restore it"),
    Fault("the cache", mode("features", 0o555), extract("sc", frames=9), "features cannot be written to; give another"),
    Fault("the runs", mode("runs", 0o555), train(seed=2), "runs cannot be written to; give another folder"),
    Fault("a run", mode("runs/sc-map-1-*", 0o555), evaluate(3), "map-1-.* cannot be written to; give another folder"),
    Fault("the table", mode("runs", 0o555), tabulate, "runs cannot be written to; give another folder"),
    Fault("an archive", both(archive(), mode("new", 0o555)), fetch(), "new cannot be written to; give another folder"),
]

FAULTS = {
    "recordings": RECORDINGS,
    "features": FEATURES,
    "archives": ARCHIVES,
    "parameters": PARAMETERS,
    "settings files": SETTINGS_FILES,
    "runs": RUNS,
    "permissions": PERMISSIONS,
}


@contextmanager
def unchanged_but_for(world, new):
    def content():
        files = {path for path in world.rglob("*") if path.is_file() and os.access(path, os.R_OK)}
        return {path.relative_to(world): path.read_bytes() if path in files else None for path in world.rglob("*")}

    before = content()
    yield
    after = content()
    assert {path: after.get(path) for path in before} == before
    assert {str(path) for path in after.keys() - before.keys() if not any(fnmatch(path, of) for of in new)} == set()


SKIPPED_FOR_ROOT = pytest.mark.skipif(os.geteuid() == 0, reason="root reads and writes everywhere")


@pytest.fixture(scope="module")
def sound_world(tmp_path_factory):
    world = tmp_path_factory.mktemp("sound")
    small_world.make(world)
    return world


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=f"{area}: {fault.what}", marks=SKIPPED_FOR_ROOT if area == "permissions" else ())
        for area, faults in FAULTS.items()
        for fault in faults
    ],
)
def test_the_user_reads_one_sentence_and_nothing_is_lost(fault, sound_world, tmp_path, monkeypatch):
    world = shutil.copytree(sound_world, tmp_path / "world")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiment, "DATA", world)
    fault.done(world)
    with unchanged_but_for(world, fault.left), pytest.raises(fault.kind, match=fault.seen) as raised:
        fault.asked(world)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["world"]


def test_no_fault_stands_twice_and_there_are_forty_at_least():
    names = [(area, fault.what) for area, faults in FAULTS.items() for fault in faults]
    assert len(set(names)) == len(names) >= 40
