"""Synthetic speech: layouts that the loaders read, the same bytes each time, sound that is what it claims."""

import ctypes
import shutil
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from test_datasets import load

from lib import synthesis
from lib.datasets import SETS, hd, sc, shd_ssc, synthetic_hd, synthetic_sc
from lib.datasets.__main__ import main
from lib.datasets.spikes import UNITS
from lib.synthesis import cochlea, sound
from lib.synthesis.sound import Recording, Speaker, espeak, generator, utter

SMALLEST = {"synthetic-hd": 240, "synthetic-sc": 140, "synthetic-shd": 240}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """All sets at their smallest."""
    folder = tmp_path_factory.mktemp("synthetic")
    for name, utterances in SMALLEST.items():
        make(name, folder / name, utterances)
    return {name: folder / name for name in SMALLEST}


def make(name, root, *arguments, **options):
    SETS[name].make(root, *arguments, **options)


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# Layout


def test_hd_has_twelve_speakers_who_say_every_digit_in_both_languages(roots):
    loaded = load("synthetic-hd", roots["synthetic-hd"])
    assert len(loaded) == 240
    assert Counter(loaded.speakers.tolist()) == {f"{number:02d}": 20 for number in range(12)}
    assert Counter(loaded.labels.tolist()) == dict.fromkeys(range(20), 12)
    test = loaded.part("test")
    assert (test.speakers == "04").sum() == (test.speakers == "05").sum() == 20
    assert 0 < len(test) - 40 < 40  # about a twentieth of the other 200
    assert set(loaded.part("validation").speakers) == set(hd.VALIDATION_SPEAKERS)


@pytest.mark.parametrize("split", SETS["sc"].splits)
def test_sc_speakers_say_every_word_in_the_part_that_their_name_hashes_to(roots, split):
    loaded = load("synthetic-sc", roots["synthetic-sc"], split=split)
    assert len(loaded) == 140
    assert loaded.class_names == sc.WORDS
    assert set(Counter(loaded.speakers.tolist()).values()) == {35}
    test_below = 20 if split == "official" else 30
    assert [sc.hashed_part(speaker, 10, test_below) for speaker in loaded.speakers] == loaded.parts.tolist()


@pytest.mark.parametrize(
    ("speakers", "parts"), [(4, (2, 1, 1)), (5, (3, 1, 1)), (60, (42, 9, 9)), (100, (70, 15, 15))], ids="{}".format
)
def test_sc_holds_out_about_three_speakers_in_ten(speakers, parts):
    recordings, lists = synthetic_sc.plan(35 * speakers, seed=0)
    assert len({recording.path for recording in recordings}) == 35 * speakers
    assert [len(lists[name]) for name in sc.LISTS.values()] == [35 * number for number in parts[1:]]


def test_every_file_is_planned_with_the_word_in_its_name_and_in_whole_rounds():
    assert len(synthetic_hd.plan(700, seed=0)[0]) == 720
    assert len(synthetic_sc.plan(370, seed=0)[0]) == 385
    for recording in synthetic_hd.plan(240, seed=0)[0]:
        utterance = hd.parse(Path(recording.path).name, "train")
        assert recording.word == hd.CLASS_NAMES[utterance.label]
        assert (recording.accent == "de") == (utterance.label >= 10)
    for recording in synthetic_sc.plan(140, seed=0)[0]:
        assert recording.path.startswith(f"{recording.word}/")
        assert recording.accent.startswith("en")


def test_shd_holds_the_spikes_of_hds_recordings_in_the_order_of_its_lists(roots):
    recorded, heard = (load(name, roots[name]) for name in ("synthetic-hd", "synthetic-shd"))
    for part in ("labels", "speakers", "parts", "class_names"):
        np.testing.assert_array_equal(getattr(recorded, part), getattr(heard, part))
    for index in (0, 100, 239):
        samples, rate = soundfile.read(recorded.root / recorded.paths[index], dtype="int16")
        for expected, found in zip(cochlea.listen(samples, rate, UNITS), heard.spikes(index), strict=True):
            np.testing.assert_array_equal(expected, found)


# Full size


def test_full_hd_has_the_published_counts_of_each_list():
    recordings, lists = synthetic_hd.plan(None, seed=0)
    assert [len(lists[name]) for name in hd.LISTS.values()] == [8_332, 2_088]
    names = [Path(recording.path).name for recording in recordings]
    assert sorted(names) == sorted(name for lines in lists.values() for name in lines)
    assert len(set(names)) == 10_420
    said = Counter((recording.path.split("_")[1], recording.word) for recording in recordings)
    assert (len(said), set(said.values())) == (12 * 20, {43, 44})
    trained = {hd.parse(name, "train").speaker for name in lists[hd.LISTS["train"]]}
    assert trained == {f"{n:02d}" for n in range(12)} - {"04", "05"}
    assert {recording.sample_rate for recording in recordings} == {48_000}


def test_full_shd_has_its_own_counts_of_hds_recordings():
    recordings, lists = synthetic_hd.plan(None, 0, shd_ssc.SHD_COUNTS)
    assert [len(lists[hd.LISTS[part]]) for part in shd_ssc.SHD_FILES] == [*shd_ssc.SHD_COUNTS.values()]
    whole, _ = synthetic_hd.plan(None, 0)
    assert {recording.path for recording in recordings} == {recording.path for recording in whole}


def test_full_sc_has_the_published_counts_under_both_splits():
    recordings, lists = synthetic_sc.plan(None, seed=0)
    speakers = {recording.path: recording.path.split("/")[1].partition("_")[0] for recording in recordings}
    assert len(speakers) == len(recordings) == 105_829
    assert len(set(speakers.values())) == 2_618
    for split, below in (("official", 20), ("70-10-20", 30)):
        parts = {speaker: sc.hashed_part(speaker, 10, below) for speaker in set(speakers.values())}
        assert Counter(parts[speaker] for speaker in speakers.values()) == sc.PUBLISHED_COUNTS[split]
        if split == "official":
            for part, name in (("validation", "validation_list.txt"), ("test", "testing_list.txt")):
                assert lists[name] == [path for path, speaker in speakers.items() if parts[speaker] == part]
    said = Counter(recording.word for recording in recordings)
    assert len(said) == 35
    assert max(said.values()) - min(said.values()) <= 4  # one for each kind of speaker


def test_sets_of_full_size_load_under_the_published_names(tmp_path, monkeypatch):
    """As if fewer utterances had been published; every other count would be refused."""
    monkeypatch.setattr(hd, "PUBLISHED_COUNTS", ({"train": 199, "test": 52}, {"train": 190, "test": 61}))
    make("synthetic-hd", tmp_path / "hd", None)
    loaded = load("hd", tmp_path / "hd")
    assert (len(loaded), loaded.sample_rate) == (251, 48_000)
    assert len(loaded.part("test")) == 52

    monkeypatch.setattr(synthetic_sc, "FULL_SPEAKERS", 6)
    official = {"train": 140, "validation": 36, "test": 37}
    counts = {"official": official, "70-10-20": {"train": 105, "validation": 36, "test": 72}}
    monkeypatch.setattr(sc, "PUBLISHED_COUNTS", counts)
    make("synthetic-sc", tmp_path / "sc", None)
    for split, parts in counts.items():
        assert Counter(load("sc", tmp_path / "sc", split=split).parts.tolist()) == parts


@pytest.mark.parametrize("name", SMALLEST)
def test_the_disk_is_asked_for_before_anything_is_written(tmp_path, monkeypatch, capsys, name):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**8))
    assert main([name, str(tmp_path / "sets" / "one"), "--full"]) == 1
    needed = {"synthetic-hd": "1", "synthetic-sc": "3.8", "synthetic-shd": "1"}[name]
    sentence = f"'{name}': {needed} GB are needed on the disk of {tmp_path / 'sets'}, where 0.1 GB are free; make room"
    assert sentence in capsys.readouterr().err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_command_makes_a_set_or_says_why_it_cannot(roots, tmp_path, capsys):
    assert main(["synthetic-hd", str(tmp_path / "hd")]) == 0
    assert "synthetic-hd: 20 classes, train 914, validation 231, test 295 utterances" in capsys.readouterr().out
    assert main(["synthetic-hd", str(roots["synthetic-sc"])]) == 1
    assert "holds something other than this synthetic set" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["synthetic-hd", "synthetic-sc"])
def test_blocks_said_side_by_side_are_the_same_each_time(tmp_path, monkeypatch, name):
    monkeypatch.setattr(synthesis, "BLOCK", 40)
    for folder in ("first", "second"):
        make(name, tmp_path / folder, SMALLEST[name])
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


def test_all_voices_are_there(tmp_path):
    voices = [*synthetic_hd.VOICES, *sound.FEMALE, *sound.MALE]
    with espeak(tmp_path) as say:
        for accent in (*sound.SETTINGS["accents"], "de"):
            for variant in voices:
                assert len(say("eins", f"{accent}+{variant}", 170, 50, 50)) > 2_000


# The same bytes each time


@pytest.mark.parametrize("name", SMALLEST)
def test_a_set_is_the_same_in_one_process_and_in_another(roots, tmp_path, name):
    with espeak(tmp_path) as say:
        say("something else", "en+m3", 200, 20, 90)
    make(name, tmp_path / "again", SMALLEST[name])
    code = f"from lib.datasets import SETS; SETS[{name!r}].make({str(tmp_path / 'other')!r}, {SMALLEST[name]})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1], capture_output=True)
    first = contents(roots[name])
    assert len(first) == (3 if name == "synthetic-shd" else SMALLEST[name] + 3)
    assert contents(tmp_path / "again") == first
    assert contents(tmp_path / "other") == first


def test_another_seed_is_another_set_of_the_same_layout(roots, tmp_path):
    make("synthetic-hd", tmp_path / "hd", 240, seed=1)
    first, second = contents(roots["synthetic-hd"]), contents(tmp_path / "hd")
    assert first.keys() == second.keys()
    assert all(first[path] != second[path] for path in first if path.endswith(".flac"))


def test_speech_depends_on_what_the_same_copy_of_espeak_said_before_and_on_nothing_else(tmp_path):
    """The first half is why each set has a copy of its own, and would show if eSpeak NG came to reset its state."""
    said = []
    for _ in range(2):
        with espeak(tmp_path) as say:
            said.append([say("seven", "en-us+f1", 170, 50, 50).tobytes() for _ in range(2)])
    assert said[0][0] != said[0][1]
    assert said[0] == said[1]
    assert list(tmp_path.iterdir()) == []


# The sound


def test_hd_lasts_as_long_as_the_word_and_sc_a_second(roots):
    lengths = {}
    for name in ("synthetic-hd", "synthetic-sc"):
        loaded = load(name, roots[name])
        audio = [loaded.audio(index) for index in range(len(loaded))]
        assert {rate for _, rate in audio} == {16_000}
        lengths[name] = {len(waveform) for waveform, _ in audio}
        assert max(np.abs(waveform).max() for waveform, _ in audio) < 1
    assert lengths["synthetic-sc"] == {16_000}
    assert 4_000 < min(lengths["synthetic-hd"]) < max(lengths["synthetic-hd"]) < 24_000
    assert len(lengths["synthetic-hd"]) > 50


def test_utterances_differ_in_loudness_place_and_noise(roots):
    loaded = load("synthetic-sc", roots["synthetic-sc"])
    loudness, place, quietest = [], [], []
    for index in range(len(loaded)):
        power = (loaded.audio(index)[0].reshape(100, 160) ** 2).mean(axis=1)
        loudness.append(10 * np.log10(power.mean()))
        place.append(np.average(np.arange(100), weights=power) / 100)
        quietest.append(10 * np.log10(np.sort(power)[:20].mean()))
    assert np.std(loudness) > 1
    assert np.ptp(place) > 0.3
    assert np.ptp(quietest) > 15


FLAT = Speaker("f1", "en", 170, 50, 50, tilt=0.0, ripple=np.zeros((4, 2)))


def tone(word, voice, rate, pitch, pitch_range):
    """Stands in for eSpeak NG: 0.3 s of 1 kHz at 22,050 Hz, as long as 4,800 samples at 16 kHz."""
    return np.round(9_000 * np.sin(2 * np.pi * 1_000 * np.arange(6_615) / 22_050)).astype(np.int16)


def uttered(monkeypatch, rate=16_000, samples=16_000, **settings):
    """What becomes of the tone with these settings held fast."""
    for name, value in settings.items():
        monkeypatch.setitem(sound.SETTINGS, name, (value, value))
    return utter(tone, Recording("a.wav", FLAT, "en", "word", rate, samples), generator(0, "a")).astype(float)


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_a_tone_keeps_its_frequency_and_length_and_is_cut_where_it_is_longer(monkeypatch, rate):
    samples = uttered(monkeypatch, rate, rate, snr_db=200)
    heard = np.flatnonzero(np.abs(samples) > 100)
    assert abs((heard[-1] - heard[0]) / rate - 0.3) < 0.002
    assert np.abs(np.fft.rfft(samples)).argmax() == 1_000  # one line for each Hz
    short = uttered(monkeypatch, rate, rate // 5, snr_db=200)
    assert (np.abs(short.reshape(10, rate // 50)).max(axis=1) > 100).all()


def power_db(signal):
    return 10 * np.log10(np.mean(signal**2))


@pytest.mark.parametrize("snr_db", [0, 20])
def test_noise_is_as_far_below_the_word_as_asked(monkeypatch, snr_db):
    clean, noisy = (uttered(monkeypatch, level_db=-20, snr_db=snr) / 32_767 for snr in (200, snr_db))
    heard = slice(*np.flatnonzero(np.abs(clean) > 0.01)[[0, -1]])
    assert power_db(clean[heard]) == pytest.approx(-20, abs=0.1)
    assert power_db(noisy - clean) == pytest.approx(-20 - snr_db, abs=0.1)


def test_noise_loses_power_with_frequency_as_its_exponent_says(monkeypatch):
    noise = uttered(monkeypatch, samples=160_000, noise_exponent=1, snr_db=-20, level_db=-40)
    spectrum = np.abs(np.fft.rfft(noise))  # ten lines for each Hz
    octaves = [power_db(spectrum[10 * low : 20 * low]) for low in (250, 2_000, 4_000)]
    assert -np.diff(octaves) == pytest.approx([9, 3], abs=0.5)


def test_the_microphone_tilts_by_so_many_decibels_an_octave_and_its_waves_go_through_whole_octaves():
    """cos(pi / 4 k x octaves): one of 2 dB with k = 4 turns over at each octave."""
    ripple = np.zeros((4, 2))
    ripple[3, 0] = 2
    for speaker, expected in (
        (FLAT._replace(tilt=3.0), [-6, -3, 0, 3, 6]),
        (FLAT._replace(ripple=ripple), [2, -2, 2, -2, 2]),
    ):
        gain = 20 * np.log10(sound.response(speaker, 1_000 * 2.0 ** np.arange(-2, 3)))
        np.testing.assert_allclose(gain, expected, atol=1e-9)


def test_rate_and_pitch_reach_espeak(tmp_path):
    with espeak(tmp_path) as say:
        lengths = [len(say("marvin", "en-us+m1", rate, 50, 50)) for rate in (120, 170, 240)]
        assert all(slower > faster for slower, faster in pairwise(lengths))
        low, high = (say("eight", "en-us+m1", 170, pitch, 0).astype(float) for pitch in (10, 90))

    def fundamental(signal):
        middle = signal[1_000:4_000]
        similarity = np.correlate(middle, middle, "full")[len(middle) - 1 :]
        lags = np.arange(22_050 // 180, 22_050 // 60)  # of a man's voice
        return 22_050 / lags[similarity[lags].argmax()]

    assert fundamental(high) > 1.3 * fundamental(low)


# Bad input


@pytest.mark.parametrize("name", SMALLEST)
@pytest.mark.parametrize("fewer", [1, 1_000])
def test_too_few_utterances(tmp_path, name, fewer):
    with pytest.raises(ValueError, match=f"has at least {SMALLEST[name]} utterances"):
        make(name, tmp_path / name, SMALLEST[name] - fewer)
    assert list(tmp_path.iterdir()) == []


def test_a_set_that_is_there_is_left_as_it_is_and_anything_else_is_not_written_over(roots, tmp_path):
    root = roots["synthetic-sc"]
    before, changed = contents(root), (root / "testing_list.txt").stat()
    make("synthetic-sc", root, 140)
    for arguments in ((140, 1), (None, 0)):
        with pytest.raises(ValueError, match="holds something other than this synthetic set"):
            make("synthetic-sc", root, *arguments)
    assert contents(root) == before
    assert (root / "testing_list.txt").stat() == changed
    (tmp_path / "thesis.tex").write_text("precious")
    for root in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(ValueError, match="holds something other than this synthetic set"):
            make("synthetic-hd", root, 240)
    assert contents(tmp_path) == {"thesis.tex": b"precious"}


def test_an_interrupted_set_is_absent(tmp_path, monkeypatch):
    write = soundfile.write

    def interrupted(path, *arguments, **options):
        if "speaker-03" in str(path):
            raise KeyboardInterrupt
        write(path, *arguments, **options)

    monkeypatch.setattr(soundfile, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make("synthetic-hd", tmp_path / "hd", 240)
    assert list(tmp_path.iterdir()) == []


def test_a_voice_that_espeak_does_not_have(tmp_path):
    with espeak(tmp_path) as say, pytest.raises(RuntimeError, match=r"does not say 'one' with the voice 'xx\+f1'"):
        say("one", "xx+f1", 170, 50, 50)


@pytest.mark.parametrize("everywhere", [False, True])
def test_espeak_runs_from_elsewhere_where_the_set_s_disk_runs_no_programs(tmp_path, monkeypatch, everywhere):
    load = ctypes.CDLL

    def refused(path):
        if everywhere or path.startswith(str(tmp_path)):
            raise OSError(f"{path}: failed to map segment from shared object")
        return load(path)

    monkeypatch.setattr(ctypes, "CDLL", refused)
    if everywhere:
        with pytest.raises(OSError, match=r"run neither from .* nor from the temporary folder .*: set TMPDIR"):
            espeak(tmp_path).__enter__()
    else:
        with espeak(tmp_path) as say:
            assert len(say("one", "en+f1", rate=170, pitch=50, pitch_range=50)) > 1_000
    assert list(tmp_path.iterdir()) == []


def test_a_set_is_made_where_a_link_leads(roots, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "hd").symlink_to("disk/hd")
    SETS["synthetic-hd"].make(tmp_path / "hd", utterances=240)
    assert (tmp_path / "hd").is_symlink()
    assert len(load("synthetic-hd", tmp_path / "hd")) == 240
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["hd"]
