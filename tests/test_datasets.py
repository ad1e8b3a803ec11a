"""The loaders on tiny trees in each layout, and on real recordings where they lie beside the repository."""

import hashlib
import os
import re
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import soundfile

from lib.datasets import LOADERS, fsdd, hd, load, sc, utterances
from lib.datasets.unheard import UNHEARD

REAL = Path(__file__).parents[2] / "shared" / "speech"
real = pytest.mark.skipif(not REAL.is_dir(), reason="no real recordings beside the repository")

# SC's rule puts these speakers at 3.2, 16.4, 27.4 and 45.3 %, as worked out with the command sha1sum.
SC_SPEAKERS = {"validation": "00000007", "test": "00000002", "between": "00000009", "train": "00000008"}


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
    """Two words and a folder of noise; each word once by each of `SC_SPEAKERS`."""
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


def part_of(loaded):
    return dict(zip(loaded.paths, loaded.parts.tolist(), strict=True))


# Heidelberg Digits


def test_hd_labels_speakers_and_parts(hd_root):
    loaded = load("hd", None, hd_root)
    assert (loaded.name, loaded.split, loaded.sample_rate, len(loaded)) == ("hd", "official", 48_000, 80)
    assert Counter(loaded.parts.tolist()) == {"train": 20, "validation": 39, "test": 21}
    index = loaded.paths.index("audio/" + hd_name("german", "11", 0, 7))
    assert (loaded.labels[index], loaded.speakers[index], loaded.parts[index]) == (17, "11", "validation")
    assert (loaded.class_names[17], loaded.class_names[7], len(loaded.class_names)) == ("sieben", "seven", 20)
    waveform, rate = loaded.audio(index)
    assert (waveform.shape, rate) == ((4_800,), 48_000)
    np.testing.assert_allclose(waveform, 0.17, atol=2**-15)


@pytest.mark.parametrize("name", ["hd", "synthetic-hd"])
def test_hd_validates_on_speakers_that_training_does_not_hear(hd_root, name):
    loaded = load(name, "official", hd_root, validation="speaker")
    assert set(loaded.part("train").speakers) == {"00"}
    assert set(loaded.part("validation").speakers) == {"10", "11"}
    assert Counter(loaded.part("test").speakers.tolist()) == {"04": 20, "11": 1}


def test_hd_can_validate_on_the_test_part(hd_root):
    loaded = load("hd", None, hd_root, validation="test")
    assert loaded.part("validation").paths == loaded.part("test").paths
    assert set(loaded.part("train").speakers) == {"00", "10", "11"}


def test_a_set_with_a_validation_part_can_validate_on_the_test_part(sc_root):
    honest, flattered = load("sc", None, sc_root), load("sc", None, sc_root, validation="test")
    assert flattered.part("validation").paths == flattered.part("test").paths == honest.part("test").paths
    assert flattered.part("validation").labels.tolist() == honest.part("test").labels.tolist()
    assert flattered.part("train").paths == honest.part("train").paths
    assert not set(honest.part("validation").paths) & set(flattered.paths)


def test_hd_list_that_names_missing_files(hd_root):
    for digit in (3, 5):
        (hd_root / "audio" / hd_name("english", "00", 0, digit)).unlink()
    first = re.escape(hd_name("english", "00", 0, 3))
    with pytest.raises(FileNotFoundError, match=f"names 2 of 59 recordings that are not there, the first '{first}'"):
        load("hd", None, hd_root)


@pytest.mark.parametrize("part", ["train", "test"])
def test_hd_without_a_list(hd_root, part):
    (hd_root / f"{part}_filenames.txt").unlink()
    with pytest.raises(FileNotFoundError, match=rf"{part}_filenames\.txt is missing"):
        load("hd", None, hd_root)


def test_hd_list_with_a_line_twice(hd_root):
    path = hd_root / "test_filenames.txt"
    path.write_text(path.read_text() + hd_name("german", "04", 0, 9) + "\n")
    with pytest.raises(ValueError, match=r"test_filenames\.txt names 'lang-german_speaker-04.*' twice"):
        load("hd", None, hd_root)


def test_hd_list_that_is_not_text(hd_root):
    (hd_root / "test_filenames.txt").write_bytes(bytes(range(128, 200)))
    with pytest.raises(FileNotFoundError, match=r"test_filenames\.txt names 1 of 1 recordings that are not there"):
        load("hd", None, hd_root)


def test_hd_recording_in_both_lists(hd_root):
    path = hd_root / "train_filenames.txt"
    path.write_text(path.read_text() + hd_name("german", "04", 0, 9) + "\n")
    with pytest.raises(ValueError, match=r"both lists name 'lang-german_speaker-04_trial-0_digit-9\.flac'"):
        load("hd", None, hd_root)


def test_hd_list_with_a_strange_name(hd_root):
    (hd_root / "audio" / "hello.flac").touch()
    write_lines(hd_root / "test_filenames.txt", ["hello.flac"])
    with pytest.raises(ValueError, match=r"names 'hello\.flac', which is not of the form"):
        load("hd", None, hd_root)


def test_hd_rates_must_agree(hd_root):
    loaded = load("hd", None, hd_root)
    write_audio(hd_root / loaded.paths[5], 44_100)
    loaded = load("hd", None, hd_root)
    with pytest.raises(ValueError, match=re.escape(loaded.paths[5]) + " has a sample rate of 44100 Hz.*48000 Hz"):
        loaded.audio(5)


def test_hd_first_file_that_does_not_decode(hd_root):
    path = hd_root / load("hd", None, hd_root).paths[0]
    path.write_bytes(b"not a FLAC file")
    with pytest.raises(ValueError, match=re.escape(path.name) + " does not decode as audio"):
        load("hd", None, hd_root)


def test_hd_needs_training_utterances_of_every_class(hd_root):
    path = hd_root / "train_filenames.txt"
    write_lines(path, [line for line in path.read_text().splitlines() if "german" not in line or "digit-5" not in line])
    with pytest.raises(ValueError, match=r"class 'fünf' of 'hd' .* has no training utterance"):
        load("hd", None, hd_root)


def test_hd_needs_its_validation_speakers(hd_root):
    path = hd_root / "train_filenames.txt"
    write_lines(path, [line for line in path.read_text().splitlines() if "speaker-00" in line])
    with pytest.raises(ValueError, match=r"validation part of 'hd' .* is empty"):
        load("hd", None, hd_root)


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
    assert len(load("hd", None, root)) == 10_420
    write_lines(root / "train_filenames.txt", names[: training - 1])
    difference = rf"other counts than published: train {training - 1:,} \(published: {training:,}\)\."
    with pytest.raises(ValueError, match=difference):
        load("hd", None, root)


# Speech Commands


def test_sc_official_parts_are_those_of_the_lists(sc_root):
    loaded = load("sc", None, sc_root)
    assert loaded.class_names == ("bed", "yes")
    assert (loaded.sample_rate, len(loaded)) == (16_000, 8)
    parts = part_of(loaded)
    for word in ("bed", "yes"):
        for speaker, part in zip(SC_SPEAKERS.values(), ("validation", "test", "train", "train"), strict=True):
            assert parts[f"{word}/{speaker}_nohash_0.wav"] == part
    assert not any("_background_noise_" in path for path in loaded.paths)
    index = loaded.paths.index(f"yes/{SC_SPEAKERS['train']}_nohash_0.wav")
    assert (loaded.labels[index], loaded.speakers[index]) == (1, SC_SPEAKERS["train"])


def test_sc_70_10_20_moves_speakers_from_training_to_test(sc_root):
    loaded = load("sc", "70-10-20", sc_root)
    assert dict(zip(loaded.speakers, loaded.parts.tolist(), strict=True)) == {
        SC_SPEAKERS["validation"]: "validation",
        SC_SPEAKERS["test"]: "test",
        SC_SPEAKERS["between"]: "test",
        SC_SPEAKERS["train"]: "train",
    }


def test_sc_hash_is_that_of_its_readme():
    """The rule as the README of Speech Commands gives it, with its own constant."""
    largest = 2**27 - 1
    for number in range(200):
        speaker = f"{number:08x}"
        value = int(hashlib.sha1(speaker.encode("utf-8")).hexdigest(), 16) % (largest + 1)
        percentage = value * (100.0 / largest)
        expected = "validation" if percentage < 10 else "test" if percentage < 20 else "train"
        assert sc.hashed_part(speaker, 10, 20) == expected


@pytest.mark.parametrize("name", ["validation_list.txt", "testing_list.txt"])
def test_sc_list_that_names_missing_files(sc_root, name):
    path = sc_root / name
    path.write_text(path.read_text() + "cat/00000007_nohash_0.wav\n")
    with pytest.raises(FileNotFoundError, match=rf"{name} names 1 of 3 .* the first 'cat/00000007_nohash_0\.wav'"):
        load("sc", None, sc_root)


def test_sc_without_the_test_list(sc_root):
    (sc_root / "testing_list.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"testing_list\.txt is missing"):
        load("sc", "official", sc_root)


def test_sc_recording_in_both_lists(sc_root):
    path = sc_root / "testing_list.txt"
    path.write_text(path.read_text() + f"bed/{SC_SPEAKERS['validation']}_nohash_0.wav\n")
    with pytest.raises(ValueError, match=r"both lists name 'bed/00000007_nohash_0\.wav'"):
        load("sc", None, sc_root)


def test_sc_recording_with_a_strange_name(sc_root):
    write_audio(sc_root / "yes" / "me.wav", 16_000)
    with pytest.raises(ValueError, match=r"me\.wav is not named '<speaker>_nohash_<n>\.wav'"):
        load("sc", None, sc_root)


def test_sc_word_that_only_the_test_part_says(sc_root):
    for speaker in ("between", "train"):
        (sc_root / "yes" / f"{SC_SPEAKERS[speaker]}_nohash_0.wav").unlink()
    with pytest.raises(ValueError, match=r"class 'yes' of 'sc' .* has no training utterance"):
        load("sc", None, sc_root)


def test_sc_part_that_is_empty(sc_root):
    write_lines(sc_root / "validation_list.txt", [])
    with pytest.raises(ValueError, match=r"validation part of 'sc' .* is empty under the split 'official'"):
        load("sc", None, sc_root)


def test_sc_word_folder_without_recordings_is_no_class(sc_root):
    (sc_root / "cat").mkdir()
    assert load("sc", None, sc_root).class_names == ("bed", "yes")


def test_sc_rate_must_be_16_khz(sc_root):
    loaded = load("sc", None, sc_root)
    write_audio(sc_root / loaded.paths[0], 8_000)
    with pytest.raises(ValueError, match=r"00000002_nohash_0\.wav has a sample rate of 8000 Hz.*'sc' has 16000 Hz"):
        loaded.audio(loaded.paths.index("bed/00000002_nohash_0.wav"))


@pytest.mark.parametrize("split", ["official", "70-10-20"])
def test_full_sc_is_held_to_its_counts(sc_root, monkeypatch, split):
    """The check on a full set, at the size of the tiny one: all its words, and a part of the published size."""
    monkeypatch.setattr(sc, "WORDS", ("bed", "yes"))
    counts = {
        "official": {"train": 4, "validation": 2, "test": 2},
        "70-10-20": {"train": 2, "validation": 2, "test": 4},
    }
    monkeypatch.setattr(sc, "PUBLISHED_COUNTS", counts)
    assert len(load("sc", split, sc_root)) == 8
    (sc_root / "bed" / f"{SC_SPEAKERS['train']}_nohash_0.wav").unlink()
    lost = counts[split]["train"] - 1
    with pytest.raises(ValueError, match=rf"published: train {lost} \(published: {lost + 1}\)"):
        load("sc", split, sc_root)


def test_published_counts_add_up():
    assert {split: sum(counts.values()) for split, counts in sc.PUBLISHED_COUNTS.items()} == {
        "official": 105_829,
        "70-10-20": 105_829,
    }
    assert [sum(counts.values()) for counts in hd.PUBLISHED_COUNTS] == [10_420, 10_420]
    assert len(sc.WORDS) == len(set(sc.WORDS)) == 35


# Free Spoken Digit Dataset


def test_fsdd_official_split_is_by_index(fsdd_root):
    loaded = load("fsdd", "official", fsdd_root)
    assert loaded.sample_rate == 8_000
    parts = part_of(loaded)
    for index in range(12):
        expected = "test" if index < 5 else "validation" if index < 10 else "train"
        assert parts[f"recordings/1_george_{index}.wav"] == expected
    assert loaded.labels[loaded.paths.index("recordings/7_lucas_3.wav")] == 7


@pytest.mark.parametrize(
    ("held_out", "validation"), [("george", "lucas"), ("lucas", "theo"), ("theo", "george")], ids="{}".format
)
def test_fsdd_speaker_split_validates_on_the_next_speaker(fsdd_root, held_out, validation):
    for speaker in ("george", "theo"):
        for digit in range(2, 10):
            write_audio(fsdd_root / "recordings" / f"{digit}_{speaker}_0.wav", 8_000)
    loaded = load("fsdd", f"speaker-{held_out}", fsdd_root)
    assert set(loaded.part("test").speakers) == {held_out}
    assert set(loaded.part("validation").speakers) == {validation}
    assert set(loaded.part("train").speakers) == {"george", "lucas", "theo"} - {held_out, validation}


def test_fsdd_holds_out_theo_unless_told_otherwise(fsdd_root):
    assert load("fsdd", None, fsdd_root).split == "speaker-theo"


def test_fsdd_speaker_who_is_not_there(fsdd_root):
    with pytest.raises(ValueError, match="holds no recording of 'jackson'; its speakers are george, lucas, theo"):
        load("fsdd", "speaker-jackson", fsdd_root)


def test_fsdd_with_two_speakers_has_no_training_part(fsdd_root):
    for path in (fsdd_root / "recordings").glob("*_lucas_*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"train part of 'fsdd' .* is empty"):
        load("fsdd", "speaker-theo", fsdd_root)


def test_fsdd_recording_with_a_strange_name(fsdd_root):
    write_audio(fsdd_root / "recordings" / "ten_theo_0.wav", 8_000)
    with pytest.raises(ValueError, match=r"ten_theo_0\.wav is not named '<digit>_<speaker>_<index>\.wav'"):
        load("fsdd", None, fsdd_root)


def test_full_fsdd_is_held_to_its_counts(tmp_path):
    (tmp_path / "recordings").mkdir()
    for speaker in fsdd.SPEAKERS:
        for digit in range(10):
            for index in range(50):
                (tmp_path / "recordings" / f"{digit}_{speaker}_{index}.wav").touch()
    assert Counter(load("fsdd", "official", tmp_path).parts.tolist()) == {"train": 2400, "validation": 300, "test": 300}
    assert Counter(load("fsdd", None, tmp_path).parts.tolist()) == {"train": 2000, "validation": 500, "test": 500}
    (tmp_path / "recordings" / "3_lucas_20.wav").unlink()
    for split in ("official", "speaker-theo"):
        with pytest.raises(ValueError, match=r"other counts than published: train (2,399|1,999)"):
            load("fsdd", split, tmp_path)


# All sets


def test_unknown_names_are_refused_in_a_sentence_that_lists_the_known(sc_root, hd_root):
    with pytest.raises(ValueError, match=r"No data set is called 'timit'; the sets are hd, .*, shd, ssc, synthetic-hd"):
        load("timit", None, sc_root)
    with pytest.raises(ValueError, match=r"'sc' has no split called '60-20-20'; its splits are official, 70-10-20"):
        load("sc", "60-20-20", sc_root)
    with pytest.raises(ValueError, match="'fsdd' has no split called 'speaker-nobody'"):
        load("fsdd", "speaker-nobody", sc_root)
    with pytest.raises(ValueError, match="`validation` is 'speaker' or 'test', not 'train'"):
        load("hd", None, hd_root, validation="train")
    with pytest.raises(ValueError, match="'sc' has a validation part of its own"):
        load("sc", None, sc_root, validation="speaker")


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("kind", ["absent", "empty", "a file"])
def test_a_path_without_the_set(tmp_path, name, kind):
    root = tmp_path / "nothing"
    if kind == "empty":
        root.mkdir()
    elif kind == "a file":
        root.touch()
    with pytest.raises(FileNotFoundError, match=f"does not hold the set '{name}'"):
        load(name, None, root)


def test_part_keeps_what_belongs_together(fsdd_root):
    loaded = load("fsdd", "official", fsdd_root)
    chosen = loaded.part("test")
    assert len(chosen) == (chosen.parts == "test").sum() == 5 * (2 + 2 + 10)
    for path, label, speaker in zip(chosen.paths, chosen.labels, chosen.speakers, strict=True):
        assert path.startswith(f"recordings/{label}_{speaker}_")
    assert chosen.class_names == loaded.class_names
    with pytest.raises(ValueError, match="No part is called 'dev'"):
        loaded.part("dev")


def test_fingerprint_follows_contents_and_names(sc_root):
    loaded = load("sc", None, sc_root)
    before = loaded.fingerprint()
    assert load("sc", None, sc_root).fingerprint() == before
    assert re.fullmatch("[0-9a-f]{32}", before)
    assert loaded.part("train").fingerprint() != before
    path = sc_root / loaded.paths[3]
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert loaded.fingerprint() != before
    path.write_bytes(content)
    assert loaded.fingerprint() == before
    path.rename(path.with_name("0000000d_nohash_0.wav"))
    assert load("sc", "70-10-20", sc_root).fingerprint() != before


@pytest.fixture
def reads(monkeypatch):
    """A list that grows by one with each set whose files are read for its fingerprint."""
    calls = []
    digest = utterances.Utterances.digest
    monkeypatch.setattr(utterances.Utterances, "digest", lambda loaded: calls.append(1) or digest(loaded))
    return calls


def age(root, seconds=60):
    """Set the loaders' clock ahead, since a file's time of change cannot be set back."""
    newest = max(path.stat().st_ctime for path in root.rglob("*"))
    return mock.patch.object(utterances.time, "time", return_value=newest + seconds)


def test_a_kept_fingerprint_spares_reading_the_files(sc_root, tmp_path, reads):
    loaded = load("sc", None, sc_root)
    with age(sc_root):
        assert loaded.fingerprint(tmp_path / "cache") == loaded.fingerprint()
        assert len(reads) == 2
        assert loaded.fingerprint(tmp_path / "cache") == loaded.fingerprint(tmp_path / "cache") == loaded.digest()
        assert len(reads) == 3
        other = load("sc", "70-10-20", sc_root).part("test")
        assert other.fingerprint(tmp_path / "cache") == other.fingerprint() != loaded.fingerprint(tmp_path / "cache")


@pytest.mark.parametrize("change", ["content", "content and time", "another file's place", "name", "folder"])
def test_a_kept_fingerprint_is_not_that_of_changed_files(sc_root, tmp_path, change):
    loaded = load("sc", "70-10-20", sc_root)
    path, other = (sc_root / loaded.paths[index] for index in (3, 4))
    with age(sc_root):
        before = loaded.fingerprint(tmp_path / "cache")
    found = path.stat()
    if change == "another file's place":
        path.rename(tmp_path / "aside")
        other.rename(path)
        (tmp_path / "aside").rename(other)
    elif change == "name":
        path.rename(path.with_name("0000000d_nohash_0.wav"))
        loaded = load("sc", "70-10-20", sc_root)
    elif change == "folder":
        path.parent.rename(sc_root / "cat")
        loaded = load("sc", "70-10-20", sc_root)
    else:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        if change == "content and time":
            os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    with age(sc_root):
        assert loaded.fingerprint(tmp_path / "cache") == loaded.fingerprint() != before


def test_the_fingerprint_of_files_just_written_is_not_kept(sc_root, tmp_path, reads):
    loaded = load("sc", None, sc_root)
    with age(sc_root, seconds=1):
        for _ in range(2):
            loaded.fingerprint(tmp_path / "cache")
    assert len(reads) == 2
    assert not (tmp_path / "cache").exists()


def test_the_fingerprint_of_files_that_change_meanwhile_is_not_kept(sc_root, tmp_path, monkeypatch):
    loaded = load("sc", None, sc_root)
    digest = utterances.Utterances.digest

    def changed_meanwhile(loaded):
        found = digest(loaded)
        (sc_root / loaded.paths[0]).touch()
        return found

    monkeypatch.setattr(utterances.Utterances, "digest", changed_meanwhile)
    with age(sc_root):
        loaded.fingerprint(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("content", [b"", b"RIFF", b"words, not sound" * 100])
def test_audio_that_does_not_decode(sc_root, content):
    loaded = load("sc", None, sc_root)
    path = sc_root / loaded.paths[0]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path)) + " does not decode as audio"):
        loaded.audio(0)


def test_flac_cut_short_does_not_decode(hd_root):
    loaded = load("hd", None, hd_root)
    path = hd_root / loaded.paths[7]
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 48_000)
    soundfile.write(path, noise, 48_000, subtype="PCM_16")
    np.testing.assert_allclose(loaded.audio(7)[0], noise, atol=2**-15)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=re.escape(path.name) + " does not decode as audio"):
        loaded.audio(7)


def test_audio_must_be_mono_and_finite(sc_root):
    loaded = load("sc", None, sc_root)
    write_audio(sc_root / loaded.paths[0], 16_000, channels=2)
    with pytest.raises(ValueError, match="has 2 channels; this set is mono"):
        loaded.audio(0)
    soundfile.write(sc_root / loaded.paths[1], np.array([0.0, np.nan]), 16_000, subtype="FLOAT")
    with pytest.raises(ValueError, match="not finite numbers"):
        loaded.audio(1)


def test_a_set_below_its_published_size_is_not_held_to_it():
    utterances.check_counts("hd", "official", {"train": 10, "test": 5}, {"train": 100, "test": 50})


def test_a_whole_set_divided_otherwise_is_refused():
    versions = {"train": 100, "test": 50}, {"train": 90, "test": 60}
    with pytest.raises(ValueError, match=r"train 80 \(published: 100\), test 70 \(published: 50\)"):
        utterances.check_counts("hd", "official", {"train": 80, "test": 70}, *versions)


# Real recordings


@real
@pytest.mark.parametrize(
    ("split", "counts"),
    [
        ("official", {"train": 2_450, "validation": 490, "test": 700}),
        ("70-10-20", {"train": 2_169, "validation": 490, "test": 981}),
    ],
)
def test_real_sc(split, counts):
    loaded = load("sc", split, REAL / "speech_commands_v0.02")
    assert loaded.class_names == ("bed", "cat", "down", "happy", "no", "up", "yes")
    assert Counter(loaded.parts.tolist()) == counts
    heard = [set(loaded.part(part).speakers) for part in utterances.PARTS]
    assert sum(map(len, heard)) == len(set.union(*heard))


@real
def test_sc_hash_reproduces_the_official_lists():
    loaded = load("sc", "official", REAL / "speech_commands_v0.02")
    assert [sc.hashed_part(speaker, 10, 20) for speaker in loaded.speakers] == loaded.parts.tolist()


@real
def test_70_10_20_contains_the_official_test_part():
    official, other = (load("sc", split, REAL / "speech_commands_v0.02") for split in sc.SPLITS)
    assert set(official.part("test").paths) < set(other.part("test").paths)
    assert official.part("validation").paths == other.part("validation").paths


@real
def test_real_words_left_out():
    folder = REAL / "speech_commands_v0.02"
    whole, rest, unheard = (load("sc", split, folder) for split in (None, "without cat, up", "unheard cat, up"))
    assert rest.class_names == unheard.class_names == ("bed", "down", "happy", "no", "yes")
    assert Counter(rest.parts.tolist()) == {"train": 1_750, "validation": 350, "test": 500}
    assert Counter(unheard.parts.tolist()) == {"train": 1_750, "validation": 350, "test": 200}
    parts = part_of(whole)
    assert set(rest.paths).isdisjoint(unheard.part("test").paths)
    assert all(parts[path] == part for split in (rest, unheard) for path, part in part_of(split).items())
    for path, label in zip(unheard.paths, unheard.labels, strict=True):
        word = path.partition("/")[0]
        assert word in ("cat", "up") if label == UNHEARD else word == unheard.class_names[label]


@real
def test_real_fsdd():
    loaded = load("fsdd", "official", REAL / "free-spoken-digit-dataset")
    assert Counter(loaded.speakers.tolist()) == dict.fromkeys(fsdd.SPEAKERS, 500)
    assert loaded.audio(0)[1] == 8_000
