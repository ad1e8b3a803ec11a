"""Features against torchaudio's own, one utterance at a time; what the cache keeps, and what it never passes on."""

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from full_disk import full_disk
from hypothesis import given, settings
from hypothesis import strategies as st
from torchaudio.compliance import kaldi

from lib import features
from lib.datasets import SETS
from lib.datasets.speech import Speech, SpeechSettings
from lib.features import PARTS

RATE = 16_000
# Seconds: two of one frame, some shorter than the window of 100 frames, some longer; more than one batch of them.
SECONDS = (0.025, 0.0349, *np.linspace(0.3, 1.8, 22))


def write(root, number, waveform, part="train"):
    path = root / "recordings" / f"{number % 10}_{part}_{number}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform, RATE, subtype="FLOAT")
    return path


def speech(root):
    """The recordings of `root` as a set, without a loader's rules for names and sizes."""
    paths = sorted((root / "recordings").iterdir(), key=lambda path: int(path.stem.split("_")[2]))
    labels, parts = np.array([int(path.name[0]) for path in paths]), np.array([p.stem.split("_")[1] for p in paths])
    names, speakers = tuple(str(path.relative_to(root)) for path in paths), np.array(["a"] * len(paths))
    return Speech("toy", "toy", root, tuple("0123456789"), names, labels, speakers, parts, RATE)


def extract(loaded, cache, snr=None, **settings):
    return loaded.frames(SpeechSettings(**settings), cache, snr)


def with_threads(monkeypatch, number):
    monkeypatch.setattr(features, "ThreadPoolExecutor", partial(ThreadPoolExecutor, number))


@pytest.fixture
def root(tmp_path):
    """Coloured noise of `SECONDS`; every third for validation, every fourth of the rest for the test."""
    random = np.random.default_rng(0)
    for number, seconds in enumerate(SECONDS):
        part = "validation" if number % 3 == 2 else "test" if number % 4 == 3 else "train"
        noise = np.cumsum(random.normal(size=round(seconds * RATE)))
        write(tmp_path, number, 0.3 * noise / np.abs(noise).max(), part=part)
    return tmp_path


def one_by_one(loaded):
    """Log-mel filterbanks of each utterance in float64."""
    waveforms = [torch.from_numpy(loaded.audio(index)[0])[None].double() for index in range(len(loaded))]
    return [kaldi.fbank(wave, num_mel_bins=40, sample_frequency=RATE, dither=0.0) for wave in waveforms]


def test_features_are_torchaudios_standardised_by_the_training_part(root, tmp_path):
    loaded = speech(root)
    extracted = extract(loaded, tmp_path / "cache")
    assert extracted.features.shape == (len(SECONDS), 100, 40)
    assert extracted.features.dtype == torch.float32

    windows = []
    for log_mel in one_by_one(loaded):
        surplus = max(0, len(log_mel) - 100)
        windows.append(log_mel[surplus // 2 : surplus // 2 + 100])
    assert {len(window) for window in windows} > {1, 100}
    heard = torch.cat([w for w, part in zip(windows, loaded.parts, strict=True) if part == "train"]).double()
    rows = torch.cat([extracted.part(part).features for part in PARTS])
    assert torch.equal(rows, extracted.features)
    ordered = [window for part in PARTS for window, own in zip(windows, loaded.parts, strict=True) if own == part]
    for window, row in zip(ordered, rows, strict=True):
        expected = (window.double() - heard.mean(dim=0)) / heard.std(dim=0, correction=0)
        torch.testing.assert_close(row[: len(window)], expected.float(), atol=3e-5, rtol=3e-5)
        assert (row[len(window) :] == 0).all()


@settings(max_examples=60)
@given(
    rate=st.integers(1_000, 48_000),
    samples=st.integers(1_200, 5_000),
    num_mel_bins=st.sampled_from([4, 23, 40]),
    kind=st.sampled_from(["noise", "walk", "tone", "offset", "click", "silence"]),
)
def test_filterbanks_are_torchaudios_up_to_rounding(rate, samples, num_mel_bins, kind):
    random = np.random.default_rng(samples)
    noise = random.uniform(-0.5, 0.5, samples)
    sounds = {
        "noise": noise,
        "walk": np.cumsum(noise) / 100,
        "tone": 0.5 * np.sin(np.arange(samples) / 5) + 1e-4 * noise,
        "offset": 0.5 + 0.1 * noise,
        "click": np.eye(1, samples, samples // 2)[0],
        "silence": np.zeros(samples),
    }
    waveform = torch.from_numpy(sounds[kind]).float()
    options = {"num_mel_bins": num_mel_bins, "sample_frequency": rate, "dither": 0.0}
    expected = kaldi.fbank(waveform[None].double(), **options)
    rounding = (kaldi.fbank(waveform[None], **options) - expected).abs().max()  # of torchaudio's own in float32
    found = features.filterbank(waveform, num_mel_bins, rate)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= max(2 * rounding, 1e-4)


def test_silence_in_training_is_not_scaled_up(tmp_path):
    for number, samples in enumerate((RATE, 9_000, 12_345)):
        write(tmp_path, number, np.zeros(samples))
    write(tmp_path, 3, np.random.default_rng(0).uniform(-1, 1, RATE), part="validation")
    extracted = extract(speech(tmp_path), tmp_path / "cache")
    assert extracted.part("train").features.abs().max() < 1e-4
    noise = one_by_one(speech(tmp_path))[3]
    floor = np.log(torch.finfo(torch.float32).eps)
    torch.testing.assert_close(extracted.features[3, : len(noise)], (noise - floor).float(), atol=1e-4, rtol=0)


def test_labels_parts_and_names_are_those_of_the_speech_and_a_part_is_a_view(root, tmp_path):
    loaded = speech(root)
    extracted = extract(loaded, tmp_path / "cache")
    assert extracted.class_names == loaded.class_names
    assert extracted.fingerprint == loaded.fingerprint()
    for part in PARTS:
        chosen = extracted.part(part)
        assert set(chosen.parts) == {part}
        assert chosen.labels.tolist() == loaded.part(part).labels.tolist()
        assert chosen.speakers.tolist() == loaded.part(part).speakers.tolist()
        assert chosen.features.untyped_storage().data_ptr() == extracted.features.untyped_storage().data_ptr()
    assert len(extracted.part("train").part("test").labels) == 0
    with pytest.raises(ValueError, match="no part is called 'dev'"):
        extracted.part("dev")
    with pytest.raises(ValueError, match="utterances of the part 'test' do not stand together"):
        replace(extracted, parts=np.roll(extracted.parts, 1)).part("test")


def test_noise_is_in_the_test_part_alone(root, tmp_path, monkeypatch):
    """Whatever the number of threads, and where test utterances validate too and training has copies."""
    loaded = speech(root)
    twice = np.flatnonzero(loaded.parts == "test")
    doubled = loaded.chosen(np.concatenate([np.arange(len(loaded)), twice]))
    doubled.parts[len(loaded) :] = "validation"
    monkeypatch.setattr(features, "BATCH", 5)
    clean = extract(doubled, tmp_path / "clean", None, augmented=1)
    assert torch.equal(clean.part("validation").features[-len(twice) :], clean.part("test").features)
    found = []
    for number in (1, 3):
        with_threads(monkeypatch, number)
        found.append(extract(doubled, tmp_path / f"{number}", 0, augmented=1))
        for part in ("train", "validation"):
            assert torch.equal(found[-1].part(part).features, clean.part(part).features)
        assert not torch.equal(found[-1].part("test").features, clean.part("test").features)
    assert torch.equal(found[0].features, found[1].features)
    assert found[0].fingerprint == clean.fingerprint  # of the recordings


def test_noise_alone_says_nothing_of_the_word_and_silence_is_left_silent(root, tmp_path):
    write(root, len(SECONDS), np.zeros(RATE), part="test")  # the last of the test part
    cache = tmp_path / "cache"
    clean, before = (extract(speech(root), cache, snr).part("test") for snr in (None, -np.inf))
    # Another word of the same power and length: the recording backwards.
    for path in (root / "recordings").glob("*_test_*"):
        soundfile.write(path, soundfile.read(path)[0][::-1], RATE, subtype="FLOAT")
    after = extract(speech(root), cache, -np.inf).part("test")
    torch.testing.assert_close(before.features, after.features, rtol=0, atol=1e-5)
    assert not torch.isclose(before.features[:-1], clean.features[:-1]).all(dim=(1, 2)).any()
    assert torch.equal(before.features[-1], clean.features[-1])


def test_at_60_db_white_speech_is_nearly_clean_and_without_bound_it_is(tmp_path):
    random = np.random.default_rng(0)
    for number, part in enumerate(("train", "train", "validation", "test")):
        write(tmp_path, number, 0.1 * random.standard_normal(RATE), part=part)
    clean, nearly, endless = (extract(speech(tmp_path), tmp_path / "cache", snr) for snr in (None, 60, np.inf))
    torch.testing.assert_close(nearly.features, clean.features, rtol=0, atol=0.1)
    assert torch.equal(endless.features, clean.features)
    with pytest.raises(ValueError, match="snr = nan does not fit: it must be a number of dB"):
        extract(speech(tmp_path), tmp_path / "cache", float("nan"))


# The cache


@pytest.fixture
def computed(monkeypatch):
    """A list that grows by one with each extraction that is really carried out."""
    calls = []
    write_log_mels = features.write_log_mels
    monkeypatch.setattr(features, "write_log_mels", lambda *a, **k: calls.append(1) or write_log_mels(*a, **k))
    return calls


@pytest.mark.parametrize(
    ("settings", "times"),
    [
        ({}, 1),
        ({"num_frames": 50}, 2),
        ({"filterbank_rate": 8_000}, 2),
        ({"filterbank_rate": RATE}, 1),  # the files' own by name
        ({"augmented": 1}, 2),
    ],
)
def test_another_setting_is_another_extraction_and_the_same_is_none(root, tmp_path, computed, settings, times):
    first = extract(speech(root), tmp_path / "cache")
    record = json.loads(next((tmp_path / "cache").glob("*.json")).read_text())
    assert record["data"] == first.fingerprint
    assert (record["num_mel_bins"], record["frames"], record["sample_rate"]) == (40, 100, RATE)
    second = extract(speech(root), tmp_path / "cache", **settings)
    assert len(computed) == times
    assert (second.features.shape == first.features.shape and torch.equal(first.features, second.features)) == (
        times == 1
    )


def test_changed_audio_or_parts_are_another_extraction(root, tmp_path, computed):
    loaded = speech(root)
    extract(loaded, tmp_path / "cache")
    extract(replace(loaded, parts=np.roll(loaded.parts, 1)), tmp_path / "cache")
    write(root, 0, np.full(800, 0.1))
    extract(speech(root), tmp_path / "cache")
    assert len(computed) == 3


def test_what_a_reader_writes_does_not_reach_the_cache(root, tmp_path):
    first = extract(speech(root), tmp_path / "cache").features
    before = first.clone()
    first += 1
    assert torch.equal(extract(speech(root), tmp_path / "cache").features, before)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_extraction_leaves_nothing(root, tmp_path, monkeypatch, interruption):
    monkeypatch.setattr(features, "BATCH", 16)
    audio = Speech.audio

    def interrupted(loaded, index):
        if index > 16:
            raise interruption
        return audio(loaded, index)

    monkeypatch.setattr(Speech, "audio", interrupted)
    with_threads(monkeypatch, 1)
    with pytest.raises(interruption):
        extract(speech(root), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    monkeypatch.undo()
    after = extract(speech(root), tmp_path / "cache")
    assert torch.equal(after.features, extract(speech(root), tmp_path / "fresh").features)


def test_features_without_their_settings_do_not_pass_for_whole(root, tmp_path, computed):
    """As a crash between the two leaves them."""
    extract(speech(root), tmp_path / "cache")
    next((tmp_path / "cache").glob("*.json")).unlink()
    extract(speech(root), tmp_path / "cache")
    assert len(computed) == 2


def test_the_disk_is_asked_first(root, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**5))
    sentence = r"features of toy: 0\.00038 GB are needed .*, where 0\.0001 GB are free; make room"
    with pytest.raises(OSError, match=sentence):
        extract(speech(root), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_disk_that_fills_up_is_an_error_not_the_end_of_the_process(root, tmp_path):
    loaded = speech(root)
    loaded.fingerprint(tmp_path / "cache")
    with full_disk(after=100_000), pytest.raises(OSError, match=r"the disk of .* is full"):
        extract(loaded, tmp_path / "cache")
    assert not [*(tmp_path / "cache").glob("*.npy")]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path, shape: path.unlink(),
        lambda path, shape: path.write_bytes(path.read_bytes()[:-100]),
        lambda path, shape: path.write_bytes(b"hello"),
        lambda path, shape: np.save(path, np.zeros((2, 3, 4), dtype=np.float32)),
        lambda path, shape: np.save(path, np.zeros(shape)),
        lambda path, shape: np.save(path, np.array([{}]), allow_pickle=True),
    ],
    ids=["missing", "cut short", "not numpy's", "another shape", "another type", "objects"],
)
def test_damaged_features_are_refused_in_a_sentence(root, tmp_path, damage):
    shape = extract(speech(root), tmp_path / "cache").features.shape
    path = next((tmp_path / "cache").glob("*.npy"))
    damage(path, shape)
    with pytest.raises(ValueError, match=re.escape(path.name) + r".*delete .*\.json"):
        extract(speech(root), tmp_path / "cache")


# Bad input


@pytest.mark.parametrize("samples", [0, 1, 399])
def test_an_utterance_shorter_than_a_frame_is_named(root, tmp_path, samples):
    path = write(root, 20, np.zeros(samples))
    with pytest.raises(ValueError, match=re.escape(str(path)) + f" has {samples} samples, fewer than one frame"):
        extract(speech(root), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


REAL = Path(__file__).parents[2] / "shared" / "speech" / "free-spoken-digit-dataset"


@pytest.mark.skipif(not REAL.is_dir(), reason="no real recordings beside the repository")
def test_real_speech(tmp_path):
    """Standardised speech of one speaker, extracted at its own 8 kHz."""
    loaded = SETS["fsdd"].load(REAL, SpeechSettings(split="official")).part("train")
    loaded = replace(loaded, parts=np.where(loaded.speakers == "theo", "train", "test")).part("train")
    extracted = extract(loaded, tmp_path)
    assert extracted.features.shape == (400, 100, 40)
    assert extracted.features.isfinite().all()
    spoken = extracted.features[(extracted.features != 0).any(dim=2)]
    torch.testing.assert_close(spoken.mean(dim=0), torch.zeros(40), atol=1e-4, rtol=0)
