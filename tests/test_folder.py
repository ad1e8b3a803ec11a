"""Words of one's own: how recordings of any kind are read, brought to one rate, divided, and trained on."""

import re
import warnings
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
import soundfile

from lib import datasets, runs
from lib.datasets import folder, sc
from lib.datasets.folder import SAMPLE_RATE, FolderSettings, divided, resampled
from lib.features import PARTS
from lib.setup import data_setup, setup_of

# The name's ending, the rate in Hz and how samples are stored.
FORMATS = [
    ("wav", 16_000, "PCM_16"), ("flac", 44_100, "PCM_24"), ("ogg", 44_100, "VORBIS"), ("WAV", 16_000, "FLOAT"),
    ("mp3", 44_100, "MPEG_LAYER_III"), ("aiff", 16_000, "PCM_16"),
]  # fmt: skip
WORDS = ("grün", "guten Tag")
SPEAKERS = ("anna", "björn", "cleo d", "dora", "émile", "fritz 🎤")
PATTERN = "^([^_]+)_"


def write(path, sample_rate=SAMPLE_RATE, subtype="PCM_16", tone=400.0, channels=1, seconds=0.3):
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(int(seconds * sample_rate)) / sample_rate
    sound = np.repeat(0.3 * np.sin(2 * np.pi * tone * times)[:, None], channels, axis=1)
    soundfile.write(path, sound, sample_rate, subtype=subtype)


@pytest.fixture
def root(tmp_path):
    """Thirty recordings of each of two words by six speakers, of six formats and two rates; two lie a folder deeper."""
    for label, word in enumerate(WORDS):
        for number in range(30):
            ending, rate, subtype = FORMATS[number % len(FORMATS)]
            name = f"{SPEAKERS[number // 5]}_take {number % 5}.{ending}"
            path = tmp_path / "meine Wörter" / word / ("later" if number == 7 else "") / name
            write(path, rate, subtype, 300 + 500 * label + 5 * number)
    return tmp_path / "meine Wörter"


def load(root, **settings):
    """The set, and what is said of it."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        return datasets.load("folder", root, FolderSettings(**settings)), [str(one.message) for one in said]


def told(said, words):
    return [sentence for sentence in said if re.search(words, sentence)]


def test_every_recording_is_read_and_what_is_done_to_it_is_said(root):
    loaded, said = load(root, speaker=PATTERN)
    assert loaded.class_names == WORDS
    assert sorted(loaded.paths) == sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    for path, label, speaker in zip(loaded.paths, loaded.labels, loaded.speakers, strict=True):
        assert path.startswith(WORDS[label])
        assert Path(path).name.startswith(f"{speaker}_")
    assert told(said, r"30 of 60 recordings are brought to 16,000 Hz: 30 from 44,100 Hz$")
    for index in range(6):
        waveform, rate = loaded.audio(index)
        assert (waveform.dtype, rate) == (np.float32, SAMPLE_RATE)
        assert len(waveform) == pytest.approx(0.3 * SAMPLE_RATE, abs=2 * 1152)  # MP3 has whole blocks
    assert all("\n" not in sentence and str(root) in sentence for sentence in said)


def test_what_systems_leave_behind_is_no_recording(root):
    before, _ = load(root)
    for name in ("._grün", ".DS_Store", "Thumbs.db", "grün/._anna_take 0.wav", "grün/desktop.ini", "README.md"):
        (root / name).write_bytes(b"\0\5\x16\7")
    for name in ("__MACOSX/grün/._a.wav", "lost+found/x", ".ipynb_checkpoints/a.wav", "_background_noise_/hum.wav"):
        write(root / "x.wav")
        (root / name).parent.mkdir(parents=True)
        (root / "x.wav").rename(root / name)
    after, _ = load(root)
    assert after.fingerprint() == before.fingerprint()
    (root / "grün" / "line\nbreak.wav").hardlink_to(root / "grün" / "anna_take 0.wav")
    assert "grün/line\nbreak.wav" in load(root)[0].paths


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 44_101, 48_000, 96_000])
def test_another_rate_keeps_what_16_khz_can_hold_and_nothing_else(rate):
    """Against tones sampled at 16 kHz; one above 8 kHz would come back as another tone and must vanish."""
    times = np.arange(rate // 2) / rate
    inside = slice(1_000, -1_000)
    for tone in (100, 1_000, 3_300, *((6_600,) if rate > SAMPLE_RATE else ())):
        found = resampled(np.sin(2 * np.pi * tone * times).astype(np.float32), rate)
        assert len(found) == pytest.approx(SAMPLE_RATE // 2, abs=1)
        expected = np.sin(2 * np.pi * tone * np.arange(len(found)) / SAMPLE_RATE)
        np.testing.assert_allclose(found[inside], expected[inside], atol=2e-3)
    if rate > 20_000:
        above = resampled(np.sin(2 * np.pi * 9_000 * times).astype(np.float32), rate)
        assert np.abs(above[inside]).max() < 1e-3


def test_channels_are_averaged_and_this_is_said(root):
    path = root / "grün" / "anna_take 0.wav"
    left, right = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 8_000))
    soundfile.write(path, np.stack([left, right], axis=1), SAMPLE_RATE, subtype="FLOAT")
    loaded, said = load(root)
    assert told(said, "1 of 60 recordings have several channels, which are averaged")
    waveform, _ = loaded.audio(loaded.paths.index("grün/anna_take 0.wav"))
    np.testing.assert_allclose(waveform, (left + right) / 2, atol=1e-6)


def test_low_rates_are_said_to_lack_the_upper_bands(root):
    write(root / "grün" / "anna_take 0.wav", 8_000)
    assert told(load(root)[1], "1 from 8,000 Hz, 30 from 44,100 Hz; those of lower rates have nothing in the upper")


# Speakers and parts


def parts_by_speaker(loaded):
    found = defaultdict(set)
    for speaker, part in zip(loaded.speakers, loaded.parts, strict=True):
        found[str(speaker)].add(str(part))
    return found


def test_few_speakers_are_divided_so_that_each_part_has_some_and_it_is_said(root):
    loaded, said = load(root, speaker=PATTERN)
    found = parts_by_speaker(loaded)
    assert set(found) == set(SPEAKERS)
    assert Counter(part for (part,) in found.values()) == {"train": 4, "validation": 1, "test": 1}
    by_hash = sorted(SPEAKERS, key=sc.percentage)
    assert (found[by_hash[0]], found[by_hash[1]]) == ({"validation"}, {"test"})
    assert told(said, f"6 speakers are too few for the hash.*: validation has {by_hash[0]}; test has {by_hash[1]}")


def test_many_speakers_are_divided_by_the_official_hash():
    names = [f"{number:08x}" for number in range(300)]
    found, said = divided(names, ["validation", "test"])
    assert found == {name: sc.hashed_part(name, 10, 20) for name in names}
    assert not said
    assert divided(names, ["validation"])[0] == {name: sc.hashed_part(name, 10, 10) for name in names}


@pytest.mark.parametrize("number", range(1, 40))
def test_each_part_has_a_name_and_training_most_of_them(number):
    found, _ = divided([f"speaker {n}" for n in range(number)], ["validation", "test"])
    counts = Counter(found.values())
    if number < 3:
        assert counts == {"train": number}
    else:
        assert set(counts) == set(PARTS)
        assert counts["train"] >= number // 2


def test_a_pattern_that_no_name_has_is_looked_for_in_the_paths(tmp_path):
    for word in ("ja", "nein"):
        for speaker in ("s1", "s2", "s3", "s4"):
            write(tmp_path / word / speaker / "take.wav", tone=300 + len(word))
    loaded, _ = load(tmp_path, speaker="/(s.)/")
    assert set(loaded.speakers) == {"s1", "s2", "s3", "s4"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "recording,speaker\n", "\ufeffRecording,Speaker\n"])
def test_a_table_says_who_speaks(root, delimiter, start):
    """With or without a header, in the two forms of Unicode, from a spreadsheet of any language."""
    rows = [(str(path.relative_to(root)), path.name.partition("_")[0]) for path in root.rglob("*_*")]
    text = start + "".join(f'"{normalize("NFD", path)}",{speaker}\r\n' for path, speaker in rows)
    (root / "speakers.csv").write_text(text.replace(",", delimiter), encoding="utf-8", newline="")
    assert load(root)[0].speakers.tolist() == load_by_pattern(root).speakers.tolist()


def load_by_pattern(root):
    (root / "speakers.csv").unlink()
    return load(root, speaker=PATTERN)[0]


@pytest.mark.parametrize("speaker", [None, "_(take)"])
def test_recordings_are_divided_word_by_word_where_no_three_speakers_are_known(root, speaker):
    loaded, said = load(root, speaker=speaker)
    assert told(said, "single recordings are put into parts, and what is measured is not how well new speakers")
    counts = Counter(zip(loaded.labels.tolist(), loaded.parts.tolist(), strict=True))
    assert all(counts[label, part] for label in (0, 1) for part in PARTS)
    assert load(root, speaker=speaker)[0].parts.tolist() == loaded.parts.tolist()


def test_a_held_out_list_is_heeded_and_the_rest_is_divided(root):
    held = [path for path in load(root)[0].paths if "dora" in path]
    lines = [normalize("NFD", path).replace(".wav", ".WAV") for path in held]
    (root / "testing_list.txt").write_text("\n".join(lines), encoding="utf-8")
    loaded, said = load(root, speaker=PATTERN)
    assert sorted(loaded.part("test").paths) == sorted(held)
    assert Counter(part for (part,) in parts_by_speaker(loaded).values()) == {"train": 4, "validation": 1, "test": 1}
    assert not told(said, "more than one part")
    others = [path for path in loaded.paths if "anna" in path]
    (root / "validation_list.txt").write_text("\n".join(others), encoding="utf-8")
    loaded, said = load(root)
    assert sorted(loaded.part("validation").paths) == sorted(others)
    assert len(loaded.part("train")) == 40
    assert len(said) == 1  # of the rates


def test_speakers_in_two_parts_are_said(root):
    loaded, _ = load(root, speaker=PATTERN)
    (root / "testing_list.txt").write_text("\n".join(loaded.paths[::2]), encoding="utf-8")
    _, said = load(root, speaker=PATTERN)
    assert told(said, r"6 of 6 speakers are in more than one part, the first 'anna' \(.* in test and .* in ")


def test_classes_that_are_too_small_are_said(root):
    (root / "leer").mkdir()
    trained = [name for name in SPEAKERS if name in load(root, speaker=PATTERN)[0].part("train").speakers]
    for number, speaker in enumerate(trained[:3]):
        write(root / "selten" / f"{speaker}_{number}.wav")
    _, said = load(root, speaker=PATTERN)
    assert told(said, "fewer than 2 recordings in training, or none in test .*'leer' 0 and 0, 'selten' 3 and 0")


# Runs


def test_other_parts_are_another_run_and_the_preparation_stands_beside_the_features(root, tmp_path):
    loaded, _ = load(root)
    other = replace(loaded, parts=loaded.parts[::-1].copy())
    assert loaded.fingerprint() != other.fingerprint()
    assert loaded.fingerprint(tmp_path / "cache") == loaded.fingerprint()
    loaded.frames(FolderSettings(), tmp_path / "cache")
    (described,) = (tmp_path / "cache").glob("*.json")
    assert '"brought_to": 16000' in described.read_text()


@pytest.mark.parametrize("method", ["map", "ivon"])
def test_own_words_are_trained_on_and_evaluated(root, tmp_path, monkeypatch, method):
    monkeypatch.setattr(runs, "DATA", tmp_path / "data")
    warnings.simplefilter("ignore")  # pytest puts it back
    settings = {"speaker": PATTERN, "num_frames": 30}
    assert data_setup(settings, "folder").data == FolderSettings(**settings)
    setup = setup_of(settings, dataset="folder", method=method, seed=1, epochs=2, hidden_sizes=[8])
    frames = runs.load_frames(setup, root)
    assert frames.features.shape == (60, 30, 40)
    assert frames.features.isfinite().all()
    run = runs.train(setup, frames, tmp_path / "runs")
    assert run.record["settings"]["speaker"] == PATTERN
    assert runs.find(setup, frames, tmp_path / "runs") == run
    assert 0 <= runs.evaluate(run, frames, 2, 5).figures["accuracy"] <= 100


def test_where_no_folder_is_given_it_is_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match="'folder' is recordings of your own: give their folder as data_root"):
        datasets.get("folder").prepare(tmp_path / "absent")
    assert folder.FOLDER.sources == ()
