"""The sets of recordings on tiny trees in each layout, and on real recordings where they lie beside the repository."""

import hashlib
import os
import re
import shutil
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import soundfile

from lib import datasets
from lib.datasets import SETS, fsdd, sc, utterances
from lib.datasets.__main__ import main
from lib.features import PARTS
from lib.study.measures.common import balanced

REAL = Path(__file__).parents[2] / "shared" / "speech"
ELEVEN = Path(__file__).parents[1] / "data" / "sc-11-words"
real = pytest.mark.skipif(not REAL.is_dir(), reason="no real recordings beside the repository")

# SC's rule puts these speakers at 3.2, 16.4, 27.4 and 45.3 %, as worked out with the command sha1sum.
SC_SPEAKERS = {"validation": "00000007", "test": "00000002", "between": "00000009", "train": "00000008"}


def load(name, root, **settings):
    return datasets.load(name, root, datasets.get(name).settings.from_mapping(settings))


def write_audio(path, sample_rate, value=0.1, samples=None, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = np.full((samples or sample_rate // 10, channels), value)
    soundfile.write(path, wave, sample_rate, subtype="PCM_16")


def write_lines(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines))


def hd_name(language, speaker, trial, digit):
    return f"lang-{language}_speaker-{speaker}_trial-{trial}_digit-{digit}.flac"


@pytest.fixture
def hd_root(tmp_path):
    """Every digit once in each language by speakers 00, 04 (test), 10 and 11; one of the last is tested, too."""
    root = tmp_path / "hd"
    listed = {"train": [], "test": []}
    for speaker in ("00", "04", "10", "11"):
        for language in ("english", "german"):
            for digit in range(10):
                name = hd_name(language, speaker, 0, digit)
                write_audio(root / "audio" / name, 48_000, value=0.01 * digit + 0.1 * (language == "german"))
                tested = speaker == "04" or (speaker, language, digit) == ("11", "english", 3)
                listed["test" if tested else "train"].append(name)
    for part, names in listed.items():
        write_lines(root / f"{part}_filenames.txt", names)
    return root


@pytest.fixture
def sc_root(tmp_path):
    """Two words and a folder of noise; each word once by each of ``SC_SPEAKERS``."""
    root = tmp_path / "sc"
    for number, word in enumerate(("yes", "bed")):
        for speaker in SC_SPEAKERS.values():
            write_audio(root / word / f"{speaker}_nohash_0.wav", 16_000, value=0.1 * number)
    write_audio(root / "_background_noise_" / "pink_noise.wav", 16_000)
    for part, name in (("validation", "validation_list.txt"), ("test", "testing_list.txt")):
        write_lines(root / name, [f"{word}/{SC_SPEAKERS[part]}_nohash_0.wav" for word in ("bed", "yes")])
    return root


@pytest.fixture
def fsdd_root(tmp_path):
    """Two digits by three speakers, twelve recordings of each; all ten digits by "lucas"."""
    root = tmp_path / "fsdd"
    for speaker, digits in (("george", range(2)), ("theo", range(2)), ("lucas", range(10))):
        for digit in digits:
            for index in range(12):
                write_audio(root / "recordings" / f"{digit}_{speaker}_{index}.wav", 8_000, value=digit / 10)
    return root


@pytest.fixture
def root_of(request):
    return lambda name: request.getfixturevalue(f"{name}_root")


# What is read


def test_hd_labels_speakers_and_parts(hd_root):
    loaded = load("hd", hd_root)
    assert (loaded.name, loaded.split, loaded.sample_rate, len(loaded)) == ("hd", "official", 48_000, 80)
    assert Counter(loaded.parts.tolist()) == {"train": 20, "validation": 39, "test": 21}
    index = loaded.paths.index("audio/" + hd_name("german", "11", 0, 7))
    assert (loaded.labels[index], loaded.speakers[index], loaded.parts[index]) == (17, "11", "validation")
    assert (loaded.class_names[17], loaded.class_names[7], len(loaded.class_names)) == ("sieben", "seven", 20)
    waveform, rate = loaded.audio(index)
    assert (waveform.shape, rate) == ((4_800,), 48_000)
    np.testing.assert_allclose(waveform, 0.17, atol=2**-15)


def test_hd_validates_on_speakers_that_training_does_not_have(hd_root):
    loaded = load("synthetic-hd", hd_root, split="official", validation="speaker")
    assert set(loaded.part("train").speakers) == {"00"}
    assert set(loaded.part("validation").speakers) == {"10", "11"}
    assert Counter(loaded.part("test").speakers.tolist()) == {"04": 20, "11": 1}


@pytest.mark.parametrize("name", ["hd", "sc", "fsdd"])
def test_the_test_part_can_serve_as_validation(root_of, name):
    root = root_of(name)
    settings = {"split": "official"} if name == "fsdd" else {}
    honest, flattered = load(name, root, **settings), load(name, root, **settings, validation="test")
    assert flattered.part("validation").paths == flattered.part("test").paths == honest.part("test").paths
    assert flattered.part("validation").labels.tolist() == honest.part("test").labels.tolist()
    if name == "hd":
        assert set(flattered.part("train").speakers) == {"00", "10", "11"}
    else:
        assert flattered.part("train").paths == honest.part("train").paths
        assert not set(honest.part("validation").paths) & set(flattered.paths)


@pytest.mark.parametrize("split", ["official", "70-10-20"])
def test_sc_has_the_parts_of_the_lists_or_more_speakers_in_the_test(sc_root, split):
    (sc_root / "cat").mkdir()  # without recordings it is no class
    loaded = load("sc", sc_root, split=split)
    assert loaded.class_names == ("bed", "yes")
    assert (loaded.sample_rate, len(loaded)) == (16_000, 8)
    between = "train" if split == "official" else "test"
    expected = {speaker: between if part == "between" else part for part, speaker in SC_SPEAKERS.items()}
    for path, label, speaker, part in zip(loaded.paths, loaded.labels, loaded.speakers, loaded.parts, strict=True):
        assert path == f"{loaded.class_names[label]}/{speaker}_nohash_0.wav"
        assert part == expected[speaker]


SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)


def assert_shares_are_nested(name, root, **settings):
    """By speakers of the training part alone; returns what each of ``SHARES`` leaves of it."""
    whole, before = load(name, root, **settings), None
    for share in SHARES:
        loaded = load(name, root, share=share, **settings)
        for part in ("validation", "test"):
            assert loaded.part(part).paths == whole.part(part).paths
            assert loaded.part(part).labels.tolist() == whole.part(part).labels.tolist()
        train, of_all = loaded.part("train"), whole.part("train")
        stays = np.isin(of_all.speakers, np.unique(train.speakers))
        assert train.paths == tuple(path for path, kept in zip(of_all.paths, stays, strict=True) if kept)
        assert before is None or set(before.paths) <= set(train.paths)
        before = train
        yield train
    assert before.paths == whole.part("train").paths


@pytest.mark.parametrize("settings", [{}, {"validation": "test"}, {"split": "70-10-20"}], ids=str)
def test_a_share_keeps_whole_speakers_of_the_training_part_and_all_else(tmp_path, settings):
    root, speakers = tmp_path / "sc", [f"{number:08x}" for number in range(400)]
    for word, index in (("yes", 0), ("bed", 0), ("bed", 1)):
        for speaker in speakers:
            path = root / word / f"{speaker}_nohash_{index}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    write_audio(root / "bed" / f"{speakers[0]}_nohash_0.wav", 16_000)
    for part, name in sc.LISTS.items():
        of = [speaker for speaker in speakers if sc.hashed_part(speaker, 10, 20) == part]
        write_lines(root / name, [f"{word}/{speaker}_nohash_0.wav" for word in ("bed", "yes") for speaker in of])
        with (root / name).open("a") as file:
            file.writelines(f"bed/{speaker}_nohash_1.wav\n" for speaker in of)
    parts = list(assert_shares_are_nested("sc", root, **settings))
    for part, share in zip(parts, SHARES, strict=True):
        # The number of speakers is binomial: within four standard deviations of what is expected.
        expected = share * len(parts[-1]) / 3
        assert abs(len(np.unique(part.speakers)) - expected) <= 4 * np.sqrt(expected * (1 - share))


def test_a_share_is_the_same_everywhere(sc_root):
    """The places of the two speakers of the training part, as the command b2sum -l 64 has them of "share of NAME"."""
    low, high = 0x4EC535BB0E35A675 / 2**64, 0x7391F0511D37816E / 2**64
    for share, speakers in {
        1.0: ["00000008", "00000009"],
        high + 1e-9: ["00000008", "00000009"],
        high: ["00000008"],
    }.items():
        assert np.unique(load("sc", sc_root, share=share).part("train").speakers).tolist() == speakers
    with pytest.raises(ValueError, match="the training speakers of 'sc' leaves none who says 'bed': give a larger"):
        load("sc", sc_root, share=low)


def test_fsdd_official_split_is_by_index(fsdd_root):
    loaded = load("fsdd", fsdd_root, split="official")
    assert loaded.sample_rate == 8_000
    for path, label, speaker, part in zip(loaded.paths, loaded.labels, loaded.speakers, loaded.parts, strict=True):
        index = int(path.removesuffix(".wav").rpartition("_")[2])
        assert path == f"recordings/{label}_{speaker}_{index}.wav"
        assert part == ("test" if index < 5 else "validation" if index < 10 else "train")
    chosen = loaded.part("test")
    assert len(chosen) == (chosen.parts == "test").sum() == 5 * (2 + 2 + 10)
    assert chosen.class_names == loaded.class_names
    with pytest.raises(ValueError, match="no part is called 'dev'"):
        loaded.part("dev")


@pytest.mark.parametrize(
    ("tested", "validation"), [("george", "lucas"), ("lucas", "theo"), ("theo", "george")], ids="{}".format
)
def test_fsdd_speaker_split_validates_on_the_next_speaker(fsdd_root, tested, validation):
    for speaker in ("george", "theo"):
        for digit in range(2, 10):
            write_audio(fsdd_root / "recordings" / f"{digit}_{speaker}_0.wav", 8_000)
    loaded = load("fsdd", fsdd_root, split=f"speaker-{tested}")
    assert set(loaded.part("test").speakers) == {tested}
    assert set(loaded.part("validation").speakers) == {validation}
    assert set(loaded.part("train").speakers) == {"george", "lucas", "theo"} - {tested, validation}


# What a file is decides, and not how its name is written


def rename(pattern, of):
    """Give the files that match other names."""
    return lambda root: [path.rename(path.with_name(of(path.name))) for path in sorted(root.glob(pattern))]


def capital(name):
    return re.sub(r"\.\w+$", lambda ending: ending[0].upper(), name)


def as_flac(root):
    for path in root.glob("bed/*"):
        soundfile.write(path.with_suffix(".flac"), *soundfile.read(path), subtype="PCM_16")
        path.unlink()
    for path in root.glob("*_list.txt"):
        path.write_text(re.sub("(bed.*)wav", r"\1flac", path.read_text()))


def in_another_form(root):
    """A word's folder has an umlaut in two signs, as macOS writes it, and the lists have it in one."""
    (root / "bed").rename(root / "bu\u0308hne")
    for path in root.glob("*_list.txt"):
        path.write_text(path.read_text().replace("bed/", "b\u00fchne/"), encoding="utf-8")


def left_behind(root):
    folder = next(path for path in sorted(root.iterdir()) if path.is_dir() and path.name[0] != "_")
    for name in (".DS_Store", f"{folder.name}/._a.wav", f"{folder.name}/Thumbs.db", f"{folder.name}/desktop.ini"):
        (root / name).write_bytes(b"\0\5\x16\7" * 16)
    for name in ("__MACOSX/a/._b.wav", "lost+found/a", ".git/a.wav", f"{folder.name}/.ipynb_checkpoints/a.wav"):
        (root / name).parent.mkdir(parents=True)
        (root / name).touch()
    (root / "LICENSE").write_text("Anyone may.")
    (root / "README.md").write_text("# Words")


WRITTEN_OTHERWISE = [
    ("sc", rename("bed/*", capital)), ("sc", rename("bed/*[89]_nohash_0.wav", capital)), ("sc", as_flac),
    ("sc", in_another_form), ("sc", left_behind), ("fsdd", rename("recordings/*theo*", capital)), ("fsdd", left_behind),
    ("hd", rename("audio/*speaker-00*", capital)), ("hd", left_behind),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change"), WRITTEN_OTHERWISE, ids=map(str, range(len(WRITTEN_OTHERWISE))))
def test_a_name_written_otherwise_is_read_and_what_systems_leave_behind_is_not(root_of, name, change):
    root = root_of(name)
    before = load(name, root)
    change(root)
    after = load(name, root)
    assert after.parts.tolist() == before.parts.tolist() or name == "sc"
    counts = [Counter(zip(of.labels.tolist(), of.speakers, of.parts, strict=True)) for of in (before, after)]
    assert counts[0] == counts[1]
    assert [after.audio(index)[1] for index in range(len(after))] == [before.sample_rate] * len(before)


def test_recordings_of_hd_that_no_list_names_are_said(hd_root):
    write_audio(hd_root / "audio" / hd_name("english", "00", 1, 0), 48_000)
    with pytest.warns(UserWarning, match="1 of 81 files in 'audio' are left out, since no list names them.*trial-1"):
        assert len(load("hd", hd_root)) == 80


def test_a_speaker_in_two_parts_is_said(sc_root):
    only("testing_list.txt", lambda path: "bed" not in path)(sc_root)
    words = r"1 of 4 speakers are in more than one part, the first '00000002' \(bed/.* in train and yes/.* in test\)"
    with pytest.warns(UserWarning, match=f"'sc' in {sc_root}: {words}"):
        load("sc", sc_root)


def test_a_copied_word_is_refused_and_one_that_only_sounds_so_is_a_class(sc_root):
    shutil.copytree(sc_root / "bed", sc_root / "my bed")
    with pytest.raises(ValueError, match="my bed is a copy of 'bed' and would be another class: take it out"):
        load("sc", sc_root, split="70-10-20")
    write_audio(sc_root / "my bed" / f"{SC_SPEAKERS['train']}_nohash_0.wav", 16_000, value=0.3)
    assert load("sc", sc_root, split="70-10-20").class_names == ("bed", "my bed", "yes")


# Folders


def test_a_tilde_is_the_home_wherever_a_folder_is_given(fsdd_root, monkeypatch):
    monkeypatch.setenv("HOME", str(fsdd_root.parent))
    monkeypatch.chdir(fsdd_root.parent)
    assert len(load("fsdd", "~/fsdd")) == 168
    SETS["fsdd"].prepare("~/fsdd")
    assert main(["fsdd", "~/fsdd"]) == 0
    assert not Path("~").exists()


@pytest.mark.parametrize("there", ["absent", "empty", "link", "left behind"])
def test_what_is_missing_is_fetched_into_an_empty_folder(tmp_path, monkeypatch, there):
    root, fetched = tmp_path / "set", []
    monkeypatch.setattr(datasets.dataset.downloads, "fetch", lambda name, sources, root: fetched.append((name, root)))
    if there == "link":
        (tmp_path / "elsewhere").mkdir()
        root.symlink_to("elsewhere")
    elif there != "absent":
        root.mkdir()
    if there == "left behind":
        (root / ".DS_Store").touch()
    SETS["sc"].prepare(root)
    assert fetched == [("sc", root)]
    (root.resolve() / "bed").mkdir(parents=True)
    SETS["sc"].prepare(root)
    assert len(fetched) == 1


@pytest.mark.parametrize("name", ["sc", "synthetic-hd"])
def test_a_link_to_nowhere_is_refused_before_the_work(tmp_path, name):
    (tmp_path / "set").symlink_to("nowhere/at/all")
    with pytest.raises(FileNotFoundError, match="set is a link to nowhere/at/all, for which there is no folder"):
        SETS[name].prepare(tmp_path / "set")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


# Trees that do not make a set


def delete(pattern):
    return lambda root: [path.unlink() for path in root.glob(pattern)]


def line(file_name, text):
    return lambda root: write_lines(root / file_name, [*(root / file_name).read_text().splitlines(), text])


def only(file_name, wanted):
    return lambda root: write_lines(root / file_name, filter(wanted, (root / file_name).read_text().splitlines()))


def strange(root):
    (root / "audio" / "hello.flac").touch()
    write_lines(root / "test_filenames.txt", ["hello.flac"])


HD_TRAIN, HD_TEST, SC_TEST = "train_filenames.txt", "test_filenames.txt", "testing_list.txt"
LAST, TAKEN = hd_name("german", "04", 0, 9), f"bed/{SC_SPEAKERS['validation']}_nohash_0.wav"
ABSENT, WRONG = FileNotFoundError, ValueError
FAULTS = [
    ("hd", delete("audio/*english_speaker-00*[35].flac"), ABSENT, "names 2 of 59 .* not there, the first 'lang-en"),
    ("hd", delete(HD_TRAIN), ABSENT, r"train_filenames\.txt is missing"),
    ("hd", line(HD_TEST, LAST), WRONG, f"'{LAST}' stands twice in train_filenames.txt and test_filenames.txt"),
    ("hd", lambda root: (root / HD_TEST).write_bytes(bytes(range(128, 200))), ABSENT, "names 1 of 1 recordings"),
    ("hd", lambda root: [write_lines(path, []) for path in root.glob("*.txt")], WRONG, "no recordings of 'hd'"),
    ("hd", strange, WRONG, r"names 'hello\.flac', which is not of the form"),
    ("hd", lambda root: [write_lines(path, []) for path in root.glob("audio/*00*")], WRONG, "does not decode as audio"),
    ("hd", only(HD_TRAIN, lambda name: not re.search("german.*5", name)), WRONG, "'fünf' of 'hd' .* no training utter"),
    ("hd", only(HD_TRAIN, lambda name: "speaker-00" in name), WRONG, "validation part of 'hd' .* is empty"),
    ("sc", line("validation_list.txt", "cat/7_nohash_0.wav"), ABSENT, r"names 1 of 3 .* first 'cat/7_nohash_0\.wav'"),
    ("sc", line(SC_TEST, TAKEN), WRONG, f"'{TAKEN}' stands twice in validation_list.txt and testing_list.txt"),
    ("sc", lambda root: write_audio(root / "yes" / "me.wav", 16_000), WRONG, r"me\.wav is not named '<speaker>_nohash"),
    ("sc", delete("yes/0000000[89]*"), WRONG, "class 'yes' of 'sc' .* has no training utterance"),
    ("sc", only("validation_list.txt", lambda name: False), WRONG, "validation part .* is empty under .* 'official'"),
    ("fsdd", lambda root: write_audio(root / "recordings" / "ten_theo_0.wav", 8_000), WRONG, "is not named '<digit>_"),
    ("fsdd", delete("recordings/*_lucas_*"), WRONG, "train part of 'fsdd' .* is empty"),
    ("fsdd", delete("recordings/*_theo_*"), WRONG, "holds no recording of 'theo': its speakers are george, lucas"),
]


@pytest.mark.parametrize(("name", "damage", "kind", "words"), FAULTS, ids=[str(n) for n in range(len(FAULTS))])
def test_what_is_no_set_is_refused_in_a_sentence(root_of, name, damage, kind, words):
    root = root_of(name)
    damage(root)
    with pytest.raises(kind, match=words) as told:
        load(name, root)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("training", [8_332, 8_156])
def test_full_hd_is_held_to_its_counts(tmp_path, training):
    """Lists of the published lengths in both versions; of the files only the first holds sound."""
    root = tmp_path / "full"
    (root / "audio").mkdir(parents=True)
    names = [
        hd_name(language, f"{speaker:02d}", trial, digit)
        for trial in range(44)
        for speaker in range(12)
        for language in ("english", "german")
        for digit in range(10)
    ]
    for name in names[:10_420]:
        (root / "audio" / name).touch()
    write_audio(root / "audio" / names[0], 48_000)
    write_lines(root / "train_filenames.txt", names[:training])
    write_lines(root / "test_filenames.txt", names[training:10_420])
    assert len(load("hd", root)) == 10_420
    write_lines(root / "train_filenames.txt", names[: training - 1])
    difference = rf"other counts than published: train {training - 1:,} \(published: {training:,}\)\."
    with pytest.raises(ValueError, match=difference):
        load("hd", root)


def test_full_fsdd_is_held_to_its_counts(tmp_path):
    (tmp_path / "recordings").mkdir()
    for speaker in fsdd.SPEAKERS:
        for digit in range(10):
            for index in range(50):
                (tmp_path / "recordings" / f"{digit}_{speaker}_{index}.wav").touch()
    for split, counts in (("official", (2_400, 300, 300)), ("speaker-theo", (2_000, 500, 500))):
        loaded = load("fsdd", tmp_path, split=split)
        assert Counter(loaded.parts.tolist()) == dict(zip(PARTS, counts, strict=True))
    (tmp_path / "recordings" / "3_lucas_20.wav").unlink()
    for split in ("official", "speaker-theo"):
        with pytest.raises(ValueError, match=r"other counts than published: train (2,399|1,999)"):
            load("fsdd", tmp_path, split=split)


def test_a_smaller_set_is_left_alone_and_one_divided_otherwise_is_refused():
    versions = {"train": 100, "test": 50}, {"train": 90, "test": 60}
    utterances.check_counts("hd", "official", ["train"] * 10 + ["test"] * 5, *versions)
    with pytest.raises(ValueError, match=r"train 80 \(published: 100\), test 70 \(published: 50\)"):
        utterances.check_counts("hd", "official", ["train"] * 80 + ["test"] * 70, *versions)


# What all sets share


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("timit", {}, "no data set is called 'timit': the sets are hd, .*, shd, ssc, synthetic-hd"),
        ("sc", {"split": "60-20-20"}, "'sc' has no split called '60-20-20': its splits are official, 70-10-20"),
        ("fsdd", {"split": "speaker-nobody"}, "'fsdd' has no split called 'speaker-nobody'"),
        ("hd", {"validation": "train"}, "validation = 'train' does not fit: it must be one of speaker, test"),
        ("sc", {"validation": "speaker"}, "'sc' has a validation part of its own: leave validation out"),
        ("hd", {"bin_ms": 14.0}, "a set of recordings takes no bin_ms: its settings are split, validation"),
        ("shd", {"augmented": 2}, "a set of spike trains takes no augmented: its settings are .*bin_ms"),
        ("synthetic-shd", {"bin_ms": 0.0}, "bin_ms = 0.0 does not fit"),
        ("fsdd", {"augmented": -1}, "augmented = -1 does not fit"),
        ("sc", {"share": 0.0}, "share = 0.0 does not fit: it must be a number above 0 up to 1"),
        ("shd", {"share": 1.5}, "share = 1.5 does not fit"),
    ],
)
def test_what_a_set_does_not_have_is_refused_by_name(fsdd_root, name, settings, words):
    with pytest.raises(ValueError, match=words):
        load(name, fsdd_root, **settings)


@pytest.mark.parametrize("name", SETS)
def test_a_set_says_all_about_itself(tmp_path, name):
    dataset = SETS[name]
    assert dataset.name == name
    assert dataset.default_split in dataset.splits
    assert dataset.licence
    assert dataset.citation
    assert (dataset.make is not None) + bool(dataset.sources) == (name != "folder")
    for kind in ("absent", "empty", "a file"):
        root = tmp_path / kind
        if kind == "empty":
            root.mkdir()
        elif kind == "a file":
            root.touch()
        with pytest.raises(FileNotFoundError, match=f"does not hold the set '{name}'"):
            load(name, root)


def test_the_command_brings_a_set_and_says_what_it_holds(fsdd_root, capsys):
    assert main(["fsdd", str(fsdd_root)]) == 0
    assert "fsdd: 10 classes, train 120, validation 24, test 24 utterances" in capsys.readouterr().out
    delete("recordings/*_theo_*")(fsdd_root)
    assert main(["fsdd", str(fsdd_root)]) == 1
    assert "holds no recording of 'theo'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["fsdd", str(fsdd_root), "--full"])
    assert "--full" in capsys.readouterr().err


def change_a_bit(path):
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def age(root, seconds=60):
    """Set the clock ahead, since a file's time of change cannot be set back."""
    newest = max(path.stat().st_ctime for path in root.rglob("*"))
    return mock.patch.object(utterances.time, "time", return_value=newest + seconds)


def counted_digests(after=lambda: None):
    """While it is patched in, each set whose files are read for its fingerprint is a call."""
    digest = utterances.Utterances.digest

    def counted(loaded):
        found = digest(loaded)
        after()
        return found

    return mock.patch.object(utterances.Utterances, "digest", autospec=True, side_effect=counted)


def test_a_cached_fingerprint_spares_reading_the_files(sc_root, tmp_path):
    loaded, cache = load("sc", sc_root), tmp_path / "cache"
    with age(sc_root):
        with counted_digests() as digest:
            assert len({loaded.fingerprint(cache) for _ in range(3)}) == 1
        assert digest.call_count == 1
        assert re.fullmatch("[0-9a-f]{32}", loaded.fingerprint(cache))
        assert loaded.fingerprint(cache) == loaded.fingerprint()
        other = load("sc", sc_root, split="70-10-20").part("test")
        assert other.fingerprint(cache) == other.fingerprint() != loaded.fingerprint(cache)


def test_the_fingerprint_is_of_paths_and_contents_alone(sc_root):
    """As it was when the committed results were computed: stored runs are found by it."""
    loaded, total = load("sc", sc_root), hashlib.blake2b(digest_size=16)
    for path in sorted(loaded.paths):
        total.update(path.encode() + b"\0" + hashlib.blake2b((sc_root / path).read_bytes()).digest())
    assert loaded.fingerprint() == total.hexdigest()
    assert dict(loaded.preparation) == {}


def exchange(path, other):
    kept = path.read_bytes()
    other.replace(path)
    other.write_bytes(kept)


@pytest.mark.parametrize(
    "change",
    [
        lambda path, other: change_a_bit(path),
        exchange,
        lambda path, other: path.rename(path.with_name("0000000d_nohash_0.wav")),
        lambda path, other: path.parent.rename(path.parents[1] / "cat"),
    ],
    ids=["content", "another file's place", "name", "folder"],
)
@pytest.mark.parametrize("same_time", [False, True])
def test_a_cached_fingerprint_is_not_that_of_changed_files(sc_root, tmp_path, change, same_time):
    loaded = load("sc", sc_root, split="70-10-20")
    path, other = (sc_root / loaded.paths[index] for index in (3, 4))
    found = path.stat()
    with age(sc_root):
        before = loaded.fingerprint(tmp_path / "cache")
    change(path, other)
    if same_time and path.exists():
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    loaded = load("sc", sc_root, split="70-10-20")
    with age(sc_root):
        assert loaded.fingerprint(tmp_path / "cache") == loaded.fingerprint() != before


@pytest.mark.parametrize("meanwhile", [False, True])
def test_the_fingerprint_of_files_just_written_or_changed_meanwhile_is_not_cached(sc_root, tmp_path, meanwhile):
    loaded = load("sc", sc_root)
    after = (sc_root / loaded.paths[0]).touch if meanwhile else lambda: None
    with age(sc_root, seconds=60 if meanwhile else 1), counted_digests(after) as digest:
        for _ in range(1 if meanwhile else 2):
            loaded.fingerprint(tmp_path / "cache")
    assert digest.call_count == (1 if meanwhile else 2)
    assert not (tmp_path / "cache").exists()


# Audio


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(b""), "does not decode as audio"),
        (lambda path: path.write_bytes(b"RIFF"), "does not decode as audio"),
        (lambda path: path.write_bytes(b"words, not sound" * 100), "does not decode as audio"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "is cut short"),
        (lambda path: write_audio(path, 8_000), "has a sample rate of 8000 Hz where the set 'sc' has 16000 Hz"),
        (lambda path: write_audio(path, 16_000, channels=2), "has 2 channels where the set is mono"),
        (lambda path: write_floats(path, np.nan), "not finite numbers"),
        (lambda path: write_floats(path, 2.1), r"holds samples up to 2\.1 where sound lies from -1 to 1: divide them"),
        (lambda path: write_floats(path, -32_768), r"holds samples up to 3\.28e\+04 where sound"),
        (lambda path: (write_floats(path, 0.5), path.write_bytes(path.read_bytes()[:-100])), "is cut short"),
        (lambda path: (write_floats(path, 0.5, "AIFF"), path.write_bytes(path.read_bytes()[:-100])), "is cut short"),
    ],
    ids=["empty", "a start", "text", "cut short", "rate", "stereo", "not finite", "loud", "16 bits", "cut", "AIFF"],
)
def test_audio_that_is_not_the_set_s_is_refused(sc_root, damage, words):
    loaded = load("sc", sc_root)
    path = sc_root / loaded.paths[0]
    damage(path)
    with pytest.raises(ValueError, match=re.escape(str(path)) + f".*{words}"):
        loaded.audio(0)


def write_floats(path, value, kind="WAV"):
    soundfile.write(path, np.array([0, value] * 800, dtype=float), 16_000, subtype="FLOAT", format=kind)


def test_floats_may_overshoot_a_little_and_a_stream_need_not_know_its_length(sc_root):
    loaded = load("sc", sc_root)
    path = sc_root / loaded.paths[0]
    write_floats(path, 1.9)
    assert loaded.audio(0)[0].max() == np.float32(1.9)
    write_audio(path, 16_000, value=0.25)
    content = path.read_bytes()
    place = content.index(b"data") + 4
    path.write_bytes(content[:place] + b"\xff" * 4 + content[place + 4 :])
    np.testing.assert_allclose(loaded.audio(0)[0], np.full(1_600, 0.25), atol=2**-15)


def test_a_header_that_promises_more_than_memory_holds_is_refused(hd_root):
    loaded = load("hd", hd_root)
    path = hd_root / loaded.paths[0]
    content = path.read_bytes()
    path.write_bytes(content[:22] + b"\xff" * 4 + content[26:])  # the number of samples
    with pytest.raises(ValueError, match="is longer than 3,600 s, as its header has it: restore or cut this file"):
        loaded.audio(0)


def test_flac_cut_short_does_not_decode_and_rates_must_agree(hd_root):
    loaded = load("hd", hd_root)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 48_000)
    path = hd_root / loaded.paths[7]
    soundfile.write(path, noise, 48_000, subtype="PCM_16")
    np.testing.assert_allclose(loaded.audio(7)[0], noise, atol=2**-15)
    path.write_bytes(path.read_bytes()[:-1000])
    write_audio(hd_root / loaded.paths[5], 44_100)
    for index, words in ((7, "does not decode as audio"), (5, "has a sample rate of 44100 Hz.*48000 Hz")):
        with pytest.raises(ValueError, match=re.escape(loaded.paths[index]) + f" {words}"):
            loaded.audio(index)


# Real recordings


@real
def test_real_sc():
    folder = REAL / "speech_commands_v0.02"
    official, other = (load("sc", folder, split=split) for split in SETS["sc"].splits)
    assert Counter(official.parts.tolist()) == {"train": 2_450, "validation": 490, "test": 700}
    assert Counter(other.parts.tolist()) == {"train": 2_169, "validation": 490, "test": 981}
    for loaded in (official, other):
        assert loaded.class_names == ("bed", "cat", "down", "happy", "no", "up", "yes")
        speakers = [set(loaded.part(part).speakers) for part in PARTS]
        assert sum(map(len, speakers)) == len(set.union(*speakers))
    assert [sc.hashed_part(speaker, 10, 20) for speaker in official.speakers] == official.parts.tolist()
    assert set(official.part("test").paths) < set(other.part("test").paths)
    assert official.part("validation").paths == other.part("validation").paths


@pytest.mark.skipif(not ELEVEN.is_dir(), reason="no eleven words in data/")
def test_shares_of_the_eleven_words():
    sizes = [len(part) for part in assert_shares_are_nested("sc", ELEVEN)]
    assert sizes == [1_429, 2_656, 5_087, 10_662, 21_315]
    np.testing.assert_allclose(sizes, np.array(SHARES) * sizes[-1], rtol=0.08)


@real
def test_real_fsdd():
    loaded = load("fsdd", REAL / "free-spoken-digit-dataset", split="official")
    assert Counter(loaded.speakers.tolist()) == dict.fromkeys(fsdd.SPEAKERS, 500)
    assert loaded.audio(0)[1] == 8_000


# Utterances that stand for a part


def assert_balanced(loaded, number):
    """Classes differ by one at most, and each is said by as many speakers as it can be."""
    test = loaded.part("test")
    chosen = balanced(test.labels, test.speakers, number)
    of_class = Counter(test.labels[chosen].tolist())
    assert of_class.keys() == set(test.labels.tolist())
    assert max(of_class.values()) - min(of_class.values()) <= 1
    for label, occurs in of_class.items():
        there = len(set(test.speakers[test.labels == label]))
        assert len(set(test.speakers[chosen][test.labels[chosen] == label])) == min(there, occurs)
    # Not so the first ones, which stand in order.
    first = Counter(test.labels[:number].tolist())
    assert max(first.values()) - min(first.get(label, 0) for label in of_class) > 1


def test_a_choice_of_the_layout_of_fsdd_has_all_digits_and_speakers(fsdd_root):
    (fsdd_root / "recordings" / "0_theo_0.wav").unlink()  # so that the digits are not equally often there
    assert_balanced(load("fsdd", fsdd_root, split="official"), 12)


def test_a_choice_of_the_layout_of_hd_has_all_digits(hd_root):
    for speaker in ("04", "05"):
        for trial in range(1, 4 if speaker == "04" else 3):
            for digit in range(10):
                name = hd_name("english", speaker, trial, digit)
                write_audio(hd_root / "audio" / name, 48_000)
                with (hd_root / "test_filenames.txt").open("a") as file:
                    print(name, file=file)
    assert_balanced(load("synthetic-hd", hd_root), 28)


@real
def test_a_choice_of_real_words_has_all_words_and_as_many_speakers_as_utterances():
    loaded = load("sc", REAL / "speech_commands_v0.02")
    assert_balanced(loaded, 140)
    test = loaded.part("test")
    assert Counter(test.labels[balanced(test.labels, test.speakers, 140)].tolist()) == dict.fromkeys(range(7), 20)
