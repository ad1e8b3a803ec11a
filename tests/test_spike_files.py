"""Spiking sets on tiny files made by hand, their faults in one sentence, and their spikes counted in bins."""

import errno
import json
import re
import subprocess
import sys
from collections import Counter

import h5py
import numpy as np
import pytest
import torch
from test_datasets import load

from lib import datasets
from lib.datasets import hd, sc, shd_ssc, spikes, utterances
from lib.datasets.dataset import HELD_OUT
from lib.datasets.spikes import SpikeSettings, SpikeTrains, counts, gather
from lib.features import PARTS


def write(path, utterances, times_type=np.float16, units_type=np.uint16, keys=hd.CLASS_NAMES):
    """A file of (times, units, label, speaker) for each utterance."""
    path.parent.mkdir(exist_ok=True)
    times, units, labels, speakers = zip(*utterances, strict=True)
    with h5py.File(path, "w") as file:
        for name, rows, kind in (("times", times, times_type), ("units", units, units_type)):
            ragged = np.empty(len(rows), dtype=object)
            ragged[:] = [np.array(row, dtype=kind) for row in rows]
            file.create_dataset(f"spikes/{name}", data=ragged, dtype=h5py.vlen_dtype(kind))
        file["labels"] = np.array(labels, dtype=np.uint16)
        file["extra/speaker"] = np.array(speakers)
        if keys is not None:
            file["extra/keys"] = [key.encode() for key in keys]


def spoken(speakers, seed):
    """Every digit once by each speaker; how many spikes differs from one utterance to the next, and one has none."""
    random = np.random.default_rng(seed)
    for speaker in speakers:
        for label in range(20):
            number = 0 if label == 7 else int(random.integers(1, 60))
            yield np.sort(random.uniform(0, 1.6, number)), random.integers(0, 700, number), label, speaker


@pytest.fixture
def root(tmp_path):
    """SHD's layout: three speakers in training, 10 and 11 among them, and one in the test."""
    folder = tmp_path / "shd"
    write(folder / "shd_train.h5", spoken((0, 10, 11), seed=0))
    write(folder / "shd_test.h5", spoken((4,), seed=1))
    return folder


def frames(root, cache, snr=None, **settings):
    shd_settings = datasets.get("shd").settings(**settings)
    return datasets.get("shd").frames(datasets.load("shd", root, shd_settings), shd_settings, cache, snr)


# Loading


def test_shd_holds_out_two_speakers_for_validation(root):
    loaded = load("shd", root)
    assert Counter(loaded.parts.tolist()) == {"train": 20, "validation": 40, "test": 20}
    speakers = {part: set(loaded.part(part).speakers) for part in PARTS}
    assert speakers == {"train": {"00"}, "validation": {"10", "11"}, "test": {"04"}}
    assert loaded.class_names == hd.CLASS_NAMES
    assert loaded.labels.tolist() == [*range(20)] * 4
    test = loaded.part("test")
    assert isinstance(test, SpikeTrains)
    assert set(test.paths) == {"shd_test.h5"}
    assert test.rows.tolist() == [*range(20)]


@pytest.mark.parametrize("fünf", ["fünf", "fuenf", None])
def test_classes_held_out_of_shd_keep_their_spikes_whatever_the_file_calls_them(root, tmp_path, fünf):
    for path in root.iterdir():
        with h5py.File(path, "a") as file:
            del file["extra/keys"]
            if fünf is not None:  # else labels mean what the recordings say
                file["extra/keys"] = [name.replace("fünf", fünf).encode() for name in hd.CLASS_NAMES]
    whole, held_out = (frames(root, tmp_path / "cache", split=split) for split in (None, "held-out german, nine"))
    assert held_out.class_names == hd.CLASS_NAMES[:9]
    assert Counter(held_out.parts.tolist()) == {"train": 9, "validation": 18, "test": 11}
    assert held_out.part("test").labels.tolist() == [HELD_OUT] * 11
    assert torch.equal(held_out.part("test").features, whole.part("test").features[9:])


@pytest.mark.parametrize("times_type", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("units_type", [np.uint16, np.int64])
def test_spikes_are_read_as_they_were_written_whatever_their_types(tmp_path, times_type, units_type):
    utterances = [*spoken((0, 10), seed=0)]
    write(tmp_path / "shd_train.h5", utterances, times_type, units_type)
    write(tmp_path / "shd_test.h5", utterances[:1], times_type, units_type)
    loaded = load("shd", tmp_path)
    for (times, units, *_), (found_times, found_units) in zip(utterances, loaded.read(range(40)), strict=True):
        np.testing.assert_array_equal(found_times, np.array(times, dtype=times_type).astype(float))
        np.testing.assert_array_equal(found_units, units)
        assert (found_times.dtype, found_units.dtype) == (np.float64, np.int64)


def test_utterances_read_together_are_those_read_singly(root):
    loaded = load("shd", root)
    indices = [79, 3, 61, 44, 3]
    for index, found in zip(indices, loaded.read(indices), strict=True):
        for together, alone in zip(found, loaded.spikes(index), strict=True):
            np.testing.assert_array_equal(together, alone)


def test_ssc_has_three_files_and_the_words_that_they_name(tmp_path):
    words = sc.WORDS[::-1]
    for seed, file_name in enumerate(shd_ssc.SSC_FILES.values()):
        utterances = [([0.5], [seed], label, f"speaker{seed}".encode()) for label in range(35)]
        write(tmp_path / file_name, utterances, keys=words)
    loaded = load("ssc", tmp_path)
    assert loaded.class_names == words
    assert loaded.speakers.tolist() == [f"speaker{number}" for number in (0, 1, 2) for _ in range(35)]
    assert [loaded.part(part).spikes(3)[1].item() for part in PARTS] == [0, 1, 2]


@pytest.mark.parametrize("name", ["shd", "ssc"])
def test_a_whole_set_is_held_to_its_published_counts(tmp_path, name):
    read = datasets.get(name).read
    published = {part: {"train": 6, "validation": 2, "test": 4}[part] for part in read.keywords["files"]}
    for part, file_name in read.keywords["files"].items():
        write(tmp_path / file_name, [([0.1], [1], n % 2, 0) for n in range(published[part])], keys=("yes", "no"))
    assert len(read(name, "official", tmp_path, published=published)) == sum(published.values())
    with pytest.raises(ValueError, match=r"other counts than published: test 4 \(published: 5\)"):
        read(name, "official", tmp_path, published=published | {"test": 5})


def test_the_fingerprint_is_of_the_files_and_of_which_utterances(root, tmp_path):
    loaded = load("shd", root)
    before = loaded.fingerprint(tmp_path / "cache")
    assert re.fullmatch("[0-9a-f]{32}", before)
    assert loaded.fingerprint() == before == load("shd", root, validation="speaker").fingerprint()
    assert len({before, *(loaded.part(part).fingerprint() for part in PARTS)}) == 4
    write(root / "shd_test.h5", spoken((4,), seed=2))
    assert load("shd", root).fingerprint() != before


# Faults


def edit(change):
    """Damage the training file of the set."""

    def do(root):
        with h5py.File(root / "shd_train.h5", "r+") as file:
            change(file)

    return do


def replaced(key, values):
    return edit(lambda file: (file.pop(key), file.update({key: values})))


def third(times, units):
    """What the file holds of one utterance."""

    def change(file):
        file["spikes/times"][3], file["spikes/units"][3] = np.array(times, np.float16), np.array(units, np.uint16)

    return edit(change)


def elsewhere(key, how):
    """The list lies in another file, whose content would do."""

    def do(root):
        with h5py.File(root / "shd_train.h5", "r+") as file:
            values = file[key][:]
            del file[key]
            with h5py.File(root.parent / "other.h5", "w") as other:
                other["list"] = values
            if how == "link":
                file[key] = h5py.ExternalLink("../other.h5", "list")
            elif how == "virtual":
                layout = h5py.VirtualLayout(values.shape, values.dtype)
                layout[:] = h5py.VirtualSource(root.parent / "other.h5", "list", values.shape)
                file.create_virtual_dataset(key, layout)
            else:
                (root.parent / "other").write_bytes(values.tobytes())
                there = [(str(root.parent / "other"), 0, values.nbytes)]
                file.create_dataset(key, values.shape, values.dtype, external=there)

    return do


def claims(shape, chunks):
    def change(file):
        for key in ("labels", "extra/speaker", "spikes/times", "spikes/units"):
            del file[key]
            file.create_dataset(key, (shape,), np.uint16, chunks=(chunks,), maxshape=(None,))

    return edit(change)


def zeroed(root):
    """What a disk's failure leaves: zeros over the second object of a heap."""
    path = root / "shd_train.h5"
    content = bytearray(path.read_bytes())
    first = content.index(b"GCOL") + 16
    second = first + 16 + -(-int.from_bytes(content[first + 8 : first + 16], "little") // 8) * 8
    content[second : second + 64] = bytes(64)
    path.write_bytes(content)


def cut(share):
    def do(root):
        path = root / "shd_train.h5"
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return do


FAULTS = {
    "half a file": (cut(0.5), "truncated file"),
    "an empty file": (cut(0), "restore this file"),
    "another file": (lambda root: (root / "shd_train.h5").write_text("spikes"), "restore this file"),
    "no test file": (lambda root: (root / "shd_test.h5").unlink(), r"shd_test\.h5 is damaged or missing"),
    "no times": (edit(lambda file: file.pop("spikes/times")), "times"),
    "no speakers": (edit(lambda file: file.pop("extra/speaker")), "speaker"),
    "a group in a list's place": (replaced("labels", h5py.SoftLink("/spikes")), "restore this file"),
    "a label less": (replaced("labels", np.zeros(59, int)), "its lists differ in length: .*'labels': 59"),
    "a label beyond the last": (replaced("labels", np.full(60, 20)), "has a label 20, and the labels are 0 to 19"),
    "a label that is no number": (replaced("labels", np.full(60, np.nan)), "has a label nan"),
    "words as labels": (replaced("labels", [b"zero"] * 60), "restore this file"),
    "other names": (replaced("extra/keys", [b"a"] * 20), "differ in what their labels mean"),
    "a channel too many": (third([0.1], [700]), "utterance 3 has a spike on channel 700, .* 699"),
    "no time": (third([np.nan], [1]), "utterance 3 has a spike at a time that is not a number"),
    "a time before 0": (third([-0.1], [1]), "utterance 3 has a spike at a time"),
    "no end": (third([np.inf], [1]), "utterance 3 has a spike at a time that is not a number"),
    "milliseconds": (
        third([1.0, 513.0], [1, 1]),
        "utterance 3 has a spike at 513 s, and no word is so long",
    ),
    "complex times": (replaced("spikes/times", np.zeros(60, np.complex64)), "restore"),
    "a label before 0": (replaced("labels", np.full(60, -1)), "has a label -1, and the labels are 0 to 19"),
    "half a label": (replaced("labels", np.full(60, 0.5)), r"has a label 0\.5, and the labels are 0 to 19"),
    "a speaker before 0": (replaced("extra/speaker", np.full(60, -1)), "has a speaker -1, and speakers are names or"),
    "half a speaker": (replaced("extra/speaker", np.full(60, 0.5)), r"has a speaker 0\.5, and speakers are names or"),
    "a table of labels": (replaced("labels", np.zeros((60, 2), int)), "its 'labels' is no list"),
    "labels that lie elsewhere": (elsewhere("labels", "link"), "its 'labels' lies in another file, which is not read"),
    "speakers that lie elsewhere": (elsewhere("extra/speaker", "virtual"), "its 'extra/speaker' lies in another file"),
    "a file's bytes as labels": (elsewhere("labels", "raw"), "its 'labels' lies in another file, which is not read"),
    "zeros in a heap": (zeroed, r"its heap at byte [\d,]+ is broken"),  # which HDF5 would read for ever
    "a bomb": (claims(10**12, 1_000), "its 'labels' claims 2,000,000,000,000 bytes, more than the file has"),
    "a bomb of one piece": (claims(60, 10**9), "its 'labels' claims 2,000,000,000 bytes, more than the file has"),
    "a time more": (third([0.1, 0.2], [1]), "utterance 3 has 2 times of spikes and 1 channels"),
    "times as channels": (
        edit(lambda file: (file.pop("spikes/units"), file.copy("spikes/times", "spikes/units"))),
        "the channels of utterance 0 are not whole numbers",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_user_reads_one_sentence(root, tmp_path, fault):
    damage, seen = FAULTS[fault]
    damage(root)
    with pytest.raises(ValueError, match=seen) as told:
        frames(root, tmp_path / "cache")
    assert "\n" not in str(told.value)
    assert "restore" in str(told.value)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.suffix != ".fingerprint"] == []


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int64, np.float64])
def test_labels_and_speakers_of_any_width_mean_the_same(root, dtype):
    before = load("shd", root)
    for key in ("labels",) if dtype is np.float64 else ("labels", "extra/speaker"):
        for path in root.iterdir():
            with h5py.File(path, "r+") as file:
                values = file[key][:].astype(dtype)
                del file[key]
                file[key] = values
    after = load("shd", root)
    assert after.labels.dtype == np.int64
    np.testing.assert_array_equal(after.labels, before.labels)
    np.testing.assert_array_equal(after.speakers, before.speakers)


def test_a_file_that_another_process_writes_is_not_called_damaged(root):
    hold = "import h5py, sys; file = h5py.File(sys.argv[1], 'a'); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, root / "shd_train.h5"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError, match=r"shd_train\.h5 is open for writing in another process; close it"):
            load("shd", root)
        writer.communicate()
    assert len(load("shd", root)) == 80


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_read_without(root, monkeypatch, number):
    opened = h5py.File

    def refused(path, locking=None):
        if locking is not False:
            raise OSError(number, "unable to lock file")
        return opened(path, locking=False)

    monkeypatch.setattr(spikes, "h5py", type("h5py", (), {"File": refused, "Dataset": h5py.Dataset}))
    assert len(load("shd", root).read(range(80))) == 80


# Damaged caches


@pytest.mark.parametrize("content", [b"", b"\xff\0", b"0" * 31 + b"\n", b"g" * 32 + b"\n", b"0" * 32])
@pytest.mark.parametrize("ending", ["fingerprint", "json"])
def test_a_damaged_note_beside_the_features_is_written_anew(root, tmp_path, monkeypatch, content, ending):
    monkeypatch.setattr(utterances, "CLOCK_TICK", -1)  # or what is so new is not noted
    cache = tmp_path / "cache"
    before = frames(root, cache)
    (note,) = cache.glob(f"*.{ending}")
    sound = note.read_bytes()
    note.write_bytes(content)
    after = frames(root, cache)
    assert after.fingerprint == before.fingerprint
    assert torch.equal(after.features, before.features)
    assert note.read_bytes() == sound


def test_features_are_read_whole_where_a_disk_cannot_map_them(root, tmp_path, monkeypatch):
    before, read = frames(root, tmp_path / "cache"), np.load

    def refused(path, mmap_mode=None):
        if mmap_mode:
            raise OSError(errno.ENODEV, "No such device")
        return read(path)

    monkeypatch.setattr(np, "load", refused)
    assert torch.equal(frames(root, tmp_path / "cache").features, before.features)


# Bins


def toy(path, utterances):
    write(path / "toy.h5", utterances)
    return gather("toy", "toy", path, {"train": "toy.h5"}, hd.CLASS_NAMES, {"train": 1})


@pytest.mark.parametrize(("num_frames", "bin_ms"), [(100, 14.0), (250, 4.0), (2, 5_000.0), (33, 7.3)])
def test_counts_are_those_of_a_histogram(root, tmp_path, num_frames, bin_ms):
    loaded = load("shd", root)
    found = frames(root, tmp_path / "cache", num_frames=num_frames, bin_ms=bin_ms)
    ordered = np.concatenate([np.flatnonzero(loaded.parts == part) for part in PARTS]).tolist()
    assert found.labels.tolist() == loaded.labels[ordered].tolist()
    edges = np.arange(num_frames + 1) * bin_ms / 1000
    for (times, units), row in zip(loaded.read(ordered), found.features.numpy(), strict=True):
        within = times < edges[-1]  # a histogram's last bin holds its end, too
        expected, _, _ = np.histogram2d(times[within], units[within], bins=[edges, np.arange(701)])
        np.testing.assert_array_equal(row, expected)


def test_a_time_on_a_boundary_is_in_the_later_bin():
    times = np.arange(64) / 64
    assert (counts((times, np.zeros(64, dtype=int)), 64, 1000 / 64)[:, 0] == 1).all()


def test_counts_are_computed_once_for_the_same_spikes_and_settings(root, tmp_path):
    cache = tmp_path / "cache"
    first = frames(root, cache)
    frames(root, cache, num_frames=100, bin_ms=14)
    (record,) = [json.loads(path.read_text()) for path in cache.glob("*.json")]
    assert (record["frames"], record["bin_ms"], record["data"]) == (100, 14.0, first.fingerprint)
    frames(root, cache, bin_ms=10)
    load("shd", root).part("train").frames(SpikeSettings(), cache)
    frames(root, cache, validation="test")
    assert len([*cache.glob("*.json")]) == 4


def test_more_spikes_than_a_byte_holds_and_noise_are_refused(root, tmp_path):
    trains = toy(tmp_path, [([0.5] * 256, [9] * 256, 0, 0)])
    with pytest.raises(ValueError, match=r"a channel has 256 spikes in 14 ms, and 255 fit: give a smaller bin_ms"):
        trains.frames(SpikeSettings(), tmp_path / "cache")
    assert not [*(tmp_path / "cache").glob("*.npy")]
    with pytest.raises(ValueError, match="'shd' holds spikes and no waveforms: leave snr out"):
        frames(root, tmp_path / "cache", snr=0.0)
