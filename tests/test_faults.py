"""The list of faults: what is wrong, what the user then asks for, what the user sees, what is left on the disk.

Each row is put into a world of its own (``small_world``). Whatever is asked for ends in one sentence that names what is
wrong and says what to do, and, but for new files that the row names, leaves every file as it was. The book shows these
sentences: ``make faults`` puts them into its tables.
"""

import os
import pickle
import re
import shutil
import tarfile
import warnings
from contextlib import chdir, contextmanager
from fnmatch import fnmatch
from pathlib import Path
from unittest.mock import patch

import h5py
import numpy as np
import pandas as pd
import pytest
import small_world
import torch
from small_world import (
    Code,
    archive,
    both,
    copied,
    crowd,
    cut,
    each,
    emptied,
    evaluate,
    extract,
    fetch,
    find,
    folder_instead,
    holds,
    interrupted,
    interrupted_training,
    lines,
    link,
    link_to_nowhere,
    load,
    mode,
    nothing,
    on_a_full_disk,
    path_in,
    record,
    removed,
    setup,
    sound,
    spikes,
    stored,
    synthesise,
    tabulate,
    tensors,
    train,
    with_little_room,
    without_locks,
)

from lib import datasets, runs, study
from lib.parameters import EvaluationSettings
from lib.posteriors import MeanFieldGaussian
from lib.settings import TEXT, check, optional, real, several, whole

BOOK = Path(__file__).resolve().parents[1] / "book" / "faults"
HD_FILE = "hd/audio/lang-english_speaker-00_trial-0_digit-3.flac"
SC_FILE = "sc/bed/00000008_nohash_0.wav"
ZIP = b"PK\x05\x06" + bytes(18)  # an archive of nothing
POSTERIOR, EVALUATION, CHECKPOINT = "runs/*/posterior.pt", "runs/*/test-2-*", "runs/*-2-*/checkpoint.pt"
RECORD, HISTORY = stored("record"), stored("history")
CODE = pickle.dumps(Code(), protocol=2)
SPEAKER = {"speaker": "^([a-z]+)_"}
SPEECH = "does not decode as audio .*restore this file"
ANEW = "checkpoint.pt is damaged; delete it, and training begins anew"
FULL = "the disk of .* is full.*make room and run again"
ROOM = "are needed on the disk of .*make room or give another folder"
NOWHERE = "is a link to nowhere/at/all, for which there is no folder; make one or delete the link"
NO_LOCKS = "the disk of .* does not know locks; give a folder of another, or mount it with locks"
DAMAGED = "shd_train.h5 is damaged or missing .*restore this file"
RETRAIN = "delete its folder and train again"
DIVERGED = r"training diverged in epoch \d+ \(.*\): lower learning_rate"


def not_a_number(world):
    """A value of the cached features becomes NaN."""
    features = np.load(path_in(world, "features/sc-*.npy"), mmap_mode="r+")
    features[-1, 0, 0] = np.nan
    features.flush()


def silent_words(world):
    warnings.simplefilter("ignore")  # pytest puts it back
    return runs.load_frames(setup(dataset="folder", **SPEAKER), world / "words")


def own(**settings):
    return load("folder", root="words", **settings)


def bias(of):
    """To put a readout's bias in the place of a state's."""
    return lambda state: state.update({"readout.bias": of})


def without_loss(path):
    path.write_text(path.read_text().replace("\n2,", "\n2,inf,inf,inf,inf,"))


# What is wrong, the change, what is asked for, of the sentence the words that matter; patterns of new files, the error.
RECORDINGS = [
    ("no such folder", nothing, load("hd", root="absent"), "absent does not hold the set 'hd'.*give the folder"),
    ("an empty folder", emptied("sc"), load("sc"), "sc does not hold the set 'sc'.*give the folder"),
    ("a file as the folder", holds("mine", "x"), load("sc", root="mine"), "mine does not hold the set 'sc'"),
    ("another set's folder", nothing, load("sc", root="hd"), "hd does not hold .*'validation_list.txt'.*give"),
    ("a set nobody knows", nothing, load("timit"), "no data set is called 'timit': the sets are hd, sc"),
    ("a split nobody knows", nothing, load("sc", split="80-20"), "no split called '80-20': its splits are official"),
    ("HD's validation for SC", nothing, load("sc", validation="speaker"), "validation part of its own: leave"),
    ("a validation nobody knows", nothing, load("hd", validation="dev"), "'dev' does not fit.*one of speaker, test"),
    ("a part nobody knows", nothing, lambda world: load("hd")(world).part("dev"), "'dev': the parts are train"),
    ("a list missing", removed("hd/test_filenames.txt"), load("hd"), "test_filenames.txt is missing"),
    ("a folder as the list", folder_instead("sc/testing_list.txt"), load("sc"), "testing_list.txt is missing"),
    ("a list that is no text", holds("sc/testing_list.txt", b"\xff\xfe\0"), load("sc"), "testing_list.txt.*restore"),
    ("a list of absent files", removed(HD_FILE), load("hd"), "names 1 of .* that are not there.*restore"),
    ("a name twice in a list", lines("hd/train_filenames.txt", lambda of: of * 2), load("hd"), "twice in .*restore"),
    ("a name in both lists", lines("hd/test_filenames.txt", lambda of: [*of, Path(HD_FILE).name]), load("hd"),
     "twice in train_filenames.txt and test_filenames.txt of .*: restore"),
    ("a foreign name in HD's list",
     both(holds("hd/audio/mine.flac", ""), lines("hd/train_filenames.txt", lambda of: [*of, "mine.flac"])),
     load("hd"), "names 'mine.flac', which is not of the form .*restore"),
    ("a foreign recording in SC", holds("sc/bed/mine.wav", ""), load("sc"), "mine.wav is not named .*take it out"),
    ("one in FSDD", holds("fsdd/recordings/mine.wav", ""), load("fsdd"), "mine.wav is not named .*take it out"),
    ("no recordings", emptied("fsdd/recordings"), load("fsdd"), "holds no recording of 'theo'"),
    ("a speaker missing", removed("fsdd/recordings/0_theo_0.wav"), load("fsdd"), "holds no recording of 'theo'"),
    ("an empty part", holds("sc/testing_list.txt", ""), load("sc"), "the test part of 'sc' .* is empty.*needed"),
    ("a word that is not trained on",
     both(removed("sc/yes/00000008_nohash_0.wav"), removed("sc/yes/00000009_nohash_0.wav")), load("sc"),
     "'yes' of 'sc' .* has no training utterance .*: add utterances of it or take the class out"),
    ("a share without a word", nothing, load("sc", share=1e-9), "leaves none who says 'bed': give a larger share"),
    ("other counts than published", both(emptied("fsdd/recordings"), crowd()),
     load("fsdd"), r"has other counts than published: train 1,999 \(published: 2,000\).*unpack the archive again"),
    ("a WAV without content", holds(SC_FILE, ""), extract("sc"), SPEECH),
    ("a WAV cut in its header", cut(SC_FILE, 0.004), extract("sc"), SPEECH),
    ("a WAV cut in its sound", cut(SC_FILE, 0.8), extract("sc"), "is cut short.*restore this file"),
    ("a FLAC cut in its sound", cut(HD_FILE, 0.8), extract("hd"), SPEECH),
    ("a text as a WAV", holds(SC_FILE, "RIFF, she said"), extract("sc"), SPEECH),
    ("a folder as a WAV", folder_instead(SC_FILE), extract("sc"), "a file of .* is gone, a folder.*restore it.*bed"),
    ("a link to nowhere", link_to_nowhere(SC_FILE), extract("sc"), "a file of .* is gone, a folder.*restore it.*bed"),
    ("another sample rate", sound(SC_FILE, rate=8_000), extract("sc"), "8000 Hz where .* 16000 Hz: restore"),
    ("another rate in HD", sound(HD_FILE, rate=8_000), extract("hd"), "Hz where the set .*: restore this file"),
    ("two channels", sound(SC_FILE, channels=2), extract("sc"), "has 2 channels where the set is mono: restore"),
    ("samples that are no numbers", sound(SC_FILE, value=np.nan), extract("sc"), "not finite numbers: restore"),
    ("a recording too short", sound(SC_FILE, seconds=0.01), extract("sc"), "160 samples, fewer than one frame.*take"),
    ("a folder in a word's folder", holds("sc/bed/more/a.wav", ""), load("sc"), "more is a folder inside .*: move"),
    ("one in FSDD's recordings", holds("fsdd/recordings/theo/1.wav", ""), load("fsdd"), "theo is a folder.*: move"),
    ("a recording beside the words", holds("sc/stray.wav", ""), load("sc"), "stray.wav is a recording beside.*move it"),
    ("one beside HD's", copied(HD_FILE, "hd/mine"), load("hd"), "hd/mine is a recording beside the folders.*move it"),
    ("a word's folder copied", copied("sc/bed", "sc/bed (1)"), load("sc"), r"bed \(1\) is a copy of 'bed'.*take"),
    ("a recording copied", copied(SC_FILE, "sc/bed/00000008_nohash_0 (1).wav"), load("sc"), "is not named .*take"),
    ("a recording in two formats", copied(SC_FILE, "sc/bed/00000008_nohash_0.flac"), load("sc"),
     "two files of one recording: take one of them out"),
    ("an unfinished copy", holds("sc/bed/00000008_nohash_0.wav.part", ""), load("sc"), "is not named .*take it out"),
    ("a name of another encoding", holds("sc/bed/f\udcfc.wav", ""), load("sc"), "a name that is not UTF-8: rename it"),
    ("a file in the place of recordings", both(removed("hd/audio"), holds("hd/audio", "x")), load("hd"),
     "audio is no folder of recordings; restore it"),
    ("samples in units of 16 bits", sound(SC_FILE, value=3_000.0), extract("sc"),
     r"samples up to 3e\+03 where sound lies from -1 to 1: divide them"),
    ("samples with their bytes in the wrong order", sound(SC_FILE, value=1e25), extract("sc"), r"up to 1e\+25 where"),
    ("a rate that nobody records at", sound("hd/audio/lang-english_speaker-00_trial-0_digit-0.flac", rate=16),
     load("hd"), "has a sample rate of 16 Hz, and speech is recorded at 1,000 to 200,000 Hz: restore this file"),
    ("a floating-point WAV cut in its sound", both(sound(SC_FILE, value=1.5), cut(SC_FILE, 0.8)), extract("sc"),
     "is cut short.*restore this file"),
    ("a link to nowhere as the folder", link_to_nowhere("words/ja/anna_1.wav"), load("sc", root="words/ja/anna_1.wav"),
     "anna_1.wav is a link to what is not there: make its target, or delete the link"),
    ("a home that nobody has", nothing, lambda world: datasets.load("sc", "~nobody-of-this-name/sc"),
     "~nobody-of-this-name/sc: the home that it begins with is not known; write"),
    ("own words in no folder", nothing, load("folder", root="words/ja"), "does not hold the set 'folder'"),
    ("own words, one only", removed("words/nein"), own(), "holds one folder of recordings, 'ja', and two words"),
    ("own words, a folder too far up", both(removed("sc"), removed("hd"), removed("fsdd")),
     lambda world: datasets.load("folder", world.parent), "holds one folder of recordings, 'world', and two words"),
    ("a text among own words", both(holds("words/ja/a.txt", "x"), holds("words/ja/b.txt", "x")), own(),
     "a.txt does not decode as audio, nor do 1 more files: convert .*take other files out"),
    ("own recordings without sound", sound("words/ja/anna_1.wav", value=0.0), silent_words,
     "anna_1.wav holds nothing but silence: take it out, or record it again"),
    ("a link among own words", link_to_nowhere("words/ja/anna_1.wav"), own(), "is no file, but a link to nowhere"),
    ("a misnamed list", holds("words/testing-list.txt", ""), own(), "testing-list.txt is not read: name it"),
    ("validation without a test", holds("words/validation_list.txt", ""), own(), "no testing_list.txt: add it"),
    ("a pattern that finds nobody", nothing, own(speaker=r"^(\d+)_"), "finds no speaker in 8 of 8 .*: give another"),
    ("a pattern that finds some", nothing, own(speaker="^(a.+)_"), "finds no speaker in 6 of 8 .*'ja/bert_1.wav'"),
    ("a pattern without a group", nothing, own(speaker="a"), "speaker = 'a' does not fit.*with one group"),
    ("a pattern that is none", nothing, own(speaker="("), r"speaker = '\(' does not fit.*a regular expression"),
    ("a pattern and a table of speakers", holds("words/speakers.csv", ""), own(**SPEAKER), "both say who speaks"),
    ("a table of speakers that lacks some", holds("words/speakers.csv", "ja/anna_1.wav,anna\n"), own(),
     "lacks 7 recordings, the first 'ja/bert_1.wav': give each row"),
    ("one of absent recordings", holds("words/speakers.csv", "ja/eva.wav,eva\n"), own(), "names 'ja/eva.wav', which"),
    ("one with a recording twice", holds("words/speakers.csv", "ja/anna_1.wav,a\n" * 2), own(), "names .* twice: give"),
    ("one without speakers", holds("words/speakers.csv", "ja/anna_1.wav,\n"), own(), "has the row 'ja/anna_1.wav,'"),
    ("one in another encoding", holds("words/speakers.csv", b"ja/anna_1.wav,J\xfcrgen\n"), own(),
     "speakers.csv is no table in UTF-8 .*: save it as CSV in UTF-8"),
    ("a test list of absent words", holds("words/testing_list.txt", "ja/eva.wav\n"), own(), "names 1 of 1 .*restore"),
]  # fmt: skip

FEATURES = [
    ("no frames", nothing, extract("sc", num_frames=0), "num_frames = 0 does not fit: .*from 2"),
    ("too low a rate", nothing, extract("sc", filterbank_rate=5), "filterbank_rate = 5 does not fit: .*from 1000"),
    ("noise that is no number", nothing, extract("sc", snr=float("nan")), "snr = nan does not fit: .*number of dB"),
    ("a cut cache", cut("features/sc-*.npy", 0.5), extract("sc"), "npy is damaged .*; delete .* and run again"),
    ("a lost cache", removed("features/sc-*.npy"), extract("sc"), "npy is damaged .*; delete .* and run again"),
    ("a cache of another shape",
     lambda world: np.save(path_in(world, "features/sc-*.npy"), np.zeros((2, 2), np.float32)), extract("sc"),
     "npy .*does not hold features of shape .*; delete .* and run again"),
    ("a file as the cache", both(removed("features"), holds("features", "mine")), extract("sc"),
     "features is no folder; move away what is there"),
    ("a full disk", nothing, on_a_full_disk(extract("sc", num_frames=9)), FULL),
    ("little room", nothing, with_little_room(extract("sc", num_frames=9)), ROOM),
    ("a cache of no numbers", not_a_number, extract("sc"), "npy .*are not finite.*; delete .* and run again"),
]  # fmt: skip

ARCHIVES = [
    ("no network", nothing, fetch(checksum="md5:0"), "check the network and run again", ["new"]),
    ("a checksum that has changed", archive(), fetch(checksum="md5:0"), "is not the published archive.*delete it"),
    ("a folder with something else", holds("new/hd/mine", "x"), fetch(checksum="md5:0"), "give an empty folder"),
    ("a ZIP in place of a tar", holds("new/hd.tar.gz", ZIP), fetch(), "not a whole archive .*: delete it, run again"),
    ("a tar that is cut", both(archive(), cut("new/hd.tar.gz", 0.5)), fetch(), "not a whole archive .*: delete it"),
    ("a link in a tar", archive(link("hd/out", "/")), fetch(), "'hd/out' is a link.*: delete it, run again"),
    ("a member outside", archive(tarfile.TarInfo("../x")), fetch(), "outside of the set's folder.*: delete it"),
    ("a bomb", archive(*map(tarfile.TarInfo, map(str, range(300)))), fetch(), "takes more than the 0.001 GB.*delete"),
    ("little room", archive(), with_little_room(fetch()), ROOM),
    ("a full disk", archive(), on_a_full_disk(fetch()), FULL),
    ("too few words", nothing, synthesise("new", utterances=3), "has at least 240 utterances, not 3"),
    ("someone's folder", nothing, synthesise("hd"), "something other.*delete it or give another folder"),
    ("little room for speech", nothing, with_little_room(synthesise("new")), ROOM),
    ("a link to nowhere as the folder", both(archive(), link_to_nowhere("new/hd")), fetch(), NOWHERE),
    ("a link to nowhere for speech", link_to_nowhere("mine"), synthesise("mine"), NOWHERE),
    ("a folder on a disk without locks", archive(), without_locks(fetch()), NO_LOCKS),
]  # fmt: skip

SPIKES = [
    ("no spikes' file", nothing, load("shd"), "shd does not hold the set 'shd'.*give the folder"),
    ("a text as a spikes' file", both(spikes(len), holds("shd/shd_train.h5", "spikes")), load("shd"), DAMAGED),
    ("a cut spikes' file", both(spikes(len), cut("shd/shd_train.h5", 0.5)), load("shd"), DAMAGED),
    ("times in milliseconds", spikes(lambda file: file["spikes/times"].__setitem__(1, [513.0])), extract("shd"),
     "utterance 1 has a spike at 513 s, and no word is so long: times are seconds.*restore this file"),
    ("a channel that the cochlea has not", spikes(lambda file: file["spikes/units"].__setitem__(1, [700])),
     extract("shd"), "a spike on channel 700, and the channels are 0 to 699.*restore this file"),
    ("a label below 0", spikes(lambda file: (file.pop("labels"), file.update(labels=[0, 1, -1]))), load("shd"),
     "a label -1, and the labels are 0 to 1.*restore this file"),
    ("a speaker that is neither name nor number",
     spikes(lambda file: (file.pop("extra/speaker"), file.update({"extra/speaker": [0.5, 1, 2]}))), load("shd"),
     "a speaker 0.5, and speakers are names or whole numbers from 0.*restore this file"),
    ("labels that lie in another file",
     spikes(lambda file: (file.pop("labels"), file.update(labels=h5py.ExternalLink("shd_test.h5", "labels")))),
     load("shd"), "'labels' lies in another file, which is not read.*restore this file"),
]  # fmt: skip

PARAMETERS = [
    ("another method's", nothing, train(ess_factor=2.0), "'ess_factor' is no setting of this run.*the method map"),
    ("an infinite rate", nothing, train(learning_rate=float("inf")), "learning_rate = inf does not fit"),
    ("no methods", nothing, each(method=[]), "no method is given: give one or more"),
    ("no seeds", nothing, each(seed=[]), "no seed is given: give one or more"),
    ("a folder of a set nobody knows", nothing, each(data_root={"timit": "x"}), "data_root names 'timit'.*sets are"),
    ("no samples", nothing, lambda world: EvaluationSettings(samples=0), "samples = 0 does not fit"),
    ("no study", nothing, lambda world: study.read(world / "my.yml"), "there is no study .*my.yml"),
    ("an empty study", holds("my.yml", ""), lambda world: study.read(world / "my.yml"), "my.yml: 'sets' must be a"),
    ("a study that is no YAML", holds("my.yml", "seed: [1"), lambda world: study.read(world / "my.yml"),
     "my.yml is not YAML"),
    ("a set of a study without settings",
     holds("my.yml", "{sets: {sc: 1}, method: [map], seed: [1], evaluation: {}}"),
     lambda world: study.read(world / "my.yml"), "my.yml: 'sets' must map names, .* to settings, not 'sc': 1"),
    ("a number that is text", nothing, lambda world: check("learning_rate", "1e-3", real(0, 1)),
     "learning_rate = '1e-3' does not fit: it must be a number from 0 up to 1; write 0.001"),
    ("a list that is text", nothing, lambda world: check("hidden_sizes", "[8, 8]", several(whole(1))),
     r"hidden_sizes = '\[8, 8\]' does not fit.*; write \[8, 8\], for papermill -y 'hidden_sizes: \[8, 8\]'"),
    ("the word None", nothing, lambda world: check("patience", "None", optional(whole(1))), "does not fit.*write null"),
    ("a word that YAML takes for False", nothing, lambda world: check("split", False, TEXT), "does not fit.*in quotes"),
    ("a study indented with tabs", holds("my.yml", "sets:\n\ta: {}"), lambda world: study.read(world / "my.yml"),
     "my.yml is not YAML.*indent with spaces"),
    ("a study with a key twice", holds("my.yml", "seed: [1]\nseed: [2]"), lambda world: study.read(world / "my.yml"),
     "my.yml is not YAML: 'seed' stands twice"),
    ("a variable of the shell in a folder's name", nothing, lambda world: datasets.load("sc", "$HOME/sc"),
     r"'\$HOME/sc': only a shell replaces \$HOME; write the whole path"),
    ("the home of a user who is not there", nothing, lambda world: datasets.load("sc", "~nobody-of-this-name/sc"),
     "the home that it begins with is not known; write the whole path"),
]  # fmt: skip

RUNS = [
    ("a file as the folder of runs", both(removed("runs"), holds("runs", "mine")), train(), "runs is no folder; move"),
    ("a run of other settings", nothing, find(epochs=3),
     "no run of sc, map, seed 1 .*with epochs 2.*give the settings of one of these, or train"),
    ("a cut posterior", cut(POSTERIOR, 0.5), evaluate(3), f"not hold a whole posterior: {RETRAIN}"),
    ("no posterior", removed(POSTERIOR), evaluate(3), f"posterior.pt is missing: {RETRAIN}"),
    ("a posterior of another shape", tensors(POSTERIOR, lambda of: bias(torch.zeros(9))(of["mean"])), evaluate(3),
     "another network's .*: delete its folder, train again"),
    ("code as a posterior", holds(POSTERIOR, CODE), evaluate(3), f"not hold a whole posterior: {RETRAIN}"),
    ("a record that is no JSON", cut("runs/*/run.json", 0.5), RECORD, f"run.json is damaged.*; {RETRAIN}"),
    ("a record of something else", holds("runs/*/run.json", "[1]"), RECORD, f"run.json is damaged.*; {RETRAIN}"),
    ("a record without settings", record(lambda of: of.pop("settings")), RECORD, f"run.json is damaged.*; {RETRAIN}"),
    ("a record of no seed", record(lambda of: of["settings"].pop("seed")), RECORD, f"run.json is damaged.*; {RETRAIN}"),
    ("another's record that is no JSON", cut("runs/*/run.json", 0.5), find(epochs=3),
     f"run.json is damaged.*; {RETRAIN}"),
    ("no history", removed("runs/*/history.csv"), HISTORY, f"history.csv .*; {RETRAIN}"),
    ("a cut history", holds("runs/*/history.csv", "epoch,se"), HISTORY, f"history.csv .*; {RETRAIN}"),
    ("bytes as a history", holds("runs/*/history.csv", b"\xff\x00"), HISTORY, f"history.csv .*; {RETRAIN}"),
    ("a cut evaluation", cut(f"{EVALUATION}.json", 0.5), evaluate(), "json is damaged.*; delete it and evaluate again"),
    ("an evaluation without figures", holds(f"{EVALUATION}.json", "{}"), tabulate(), "json is damaged.*; delete it"),
    ("cut predictions", cut(f"{EVALUATION}.npy", 0.5), evaluate(), "npy is damaged.*; delete it and .*evaluate again"),
    ("no predictions", removed(f"{EVALUATION}.npy"), evaluate(), "npy is damaged.*; delete it and .*evaluate again"),
    ("a table of something else", holds("runs/table1.csv", "a,b\n1,2\n"), tabulate(), "table1.csv .*; move it away"),
    ("an empty table", holds("runs/table1.csv", ""), tabulate(), "table1.csv .*; move it away"),
    ("cut records of a table", cut("runs/runs.json", 0.5), tabulate(), "runs.json .*; move it away"),
    ("a folder as the table", folder_instead("runs/table1.csv"), tabulate(), "table1.csv .*move it away"),
    ("a cut checkpoint", both(interrupted_training(), cut(CHECKPOINT, 0.5)), train(seed=2), ANEW),
    ("a checkpoint of another network",
     both(interrupted_training(), tensors(CHECKPOINT, lambda of: of["network"].popitem())), train(seed=2), ANEW),
    ("a checkpoint without a history",
     both(interrupted_training(), tensors(CHECKPOINT, lambda of: of.pop("history"))), train(seed=2), ANEW),
    ("code as a checkpoint", both(interrupted_training(), holds(CHECKPOINT, CODE)), train(seed=2), ANEW),
    ("weights that are not numbers",
     both(interrupted_training(), tensors(CHECKPOINT, lambda of: bias(torch.full((2,), np.nan))(of["network"]))),
     train(seed=2), DIVERGED, [], FloatingPointError),
    ("a loss that grows without end", nothing, train(learning_rate=100.0, epochs=50), DIVERGED, ["runs/sc-map-1-*"],
     FloatingPointError),
    ("Ctrl-C", nothing, interrupted(train(seed=2), 1), "^$", ["runs/sc-map-2-*"], KeyboardInterrupt),
    ("a full disk in training", nothing, on_a_full_disk(train(seed=2), after=2_000), FULL, ["runs/sc-map-2-*"]),
    ("a full disk in evaluation", nothing, on_a_full_disk(evaluate(3)), FULL),
    ("a full disk for the table", nothing, on_a_full_disk(tabulate()), FULL),
    ("a deviation without a mean", nothing, lambda world: MeanFieldGaussian({}, {"bias": torch.ones(2)}),
     "'bias' has no mean of the same shape"),
    ("a record of other settings than there are", record(lambda of: of["settings"].update(pace=1)), stored("setup"),
     f"run.json is damaged.*'pace' is no setting.*; {RETRAIN}"),
    ("a history with a loss that is no number", lambda world: without_loss(path_in(world, "runs/*/history.csv")),
     HISTORY, f"history.csv .*; {RETRAIN}"),
    ("runs on a disk without locks", nothing, without_locks(train(seed=2)), NO_LOCKS),
    ("a table with a row of no record", lines("runs/table1.csv", lambda of: [*of, "hd,map,9" + ",1" * 6]), tabulate(),
     r"table1.csv .*of its row \('hd', 'map', 9\) there is no record in runs.json.*; move it away"),
    ("neurons for a network without spikes", nothing, train(network="gru", neuron="rlif"),
     "gru has no spiking neurons: leave neuron, leak_range and leak_start out, or make the network 'spiking'"),
]  # fmt: skip

ELSEWHERE = "cannot be written to; give another folder"
PERMISSIONS = [
    ("a recording", mode(SC_FILE, 0), extract("sc"), "a file of .* not to be read; restore it"),
    ("a folder of recordings", mode("sc/bed", 0), load("sc"), "bed cannot be read; ask for the right to read it"),
    ("a list", mode("sc/testing_list.txt", 0), load("sc"), "a file of .* not to be read; restore it"),
    ("the cache", mode("features", 0o555), extract("sc", num_frames=9), "features cannot .* to; give results_root"),
    ("the runs", mode("runs", 0o555), train(seed=2), f"runs {ELSEWHERE}"),
    ("a run", mode("runs/sc-map-1-*", 0o555), evaluate(3), f"map-1-.* {ELSEWHERE}"),
    ("the table", mode("runs", 0o555), tabulate(), f"runs {ELSEWHERE}"),
    ("an archive", both(archive(), mode("new", 0o555)), fetch(), f"new {ELSEWHERE}"),
]

AREAS = {
    "recordings": RECORDINGS, "features": FEATURES, "archives": ARCHIVES, "spikes": SPIKES, "parameters": PARAMETERS,
    "runs": RUNS, "permissions": PERMISSIONS,
}  # fmt: skip
FAULTS = {f"{area}: {what}": given for area, rows in AREAS.items() for what, *given in rows}
ROOT_MAY = pytest.mark.skipif(os.geteuid() == 0, reason="root reads and writes everywhere")


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


@contextmanager
def world_of(sound_world, folder):
    """A copy of the sound world in a folder, which is the working folder and holds the runs meanwhile."""
    world = shutil.copytree(sound_world, folder / "world")
    with chdir(folder), patch.object(runs, "DATA", world):
        yield world


@pytest.fixture(scope="module")
def sound_world(tmp_path_factory):
    world = tmp_path_factory.mktemp("sound")
    small_world.make(world)
    return world


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=ROOT_MAY if name.startswith("permissions") else ()) for name in FAULTS]
)
def test_the_user_reads_one_sentence_and_nothing_is_lost(name, sound_world, tmp_path):
    done, asked, seen, *rest = FAULTS[name]
    new, kind = (*rest, *([], (OSError, ValueError))[len(rest) :])
    with world_of(sound_world, tmp_path) as world:
        done(world)
        with unchanged_but_for(world, new), pytest.raises(kind, match=seen) as raised:
            asked(world)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["world"]


@pytest.mark.parametrize("area", AREAS)
def test_the_book_shows_the_sentences_of_this_list(area):
    shown = pd.read_csv(BOOK / f"{area}.csv")
    sentences = dict(shown.itertuples(index=False))
    patterns = {what: seen for what, _, _, seen, *_ in AREAS[area] if seen != "^$"}
    assert sentences.keys() == patterns.keys()
    for what, sentence in sentences.items():
        assert re.search(patterns[what], sentence), f"{what}: the sentence has changed; make faults"
