"""What is done to a waveform against hand-worked numbers and room acoustics; copies that follow from their names."""

import json
import subprocess
import sys
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from lib import augmentation
from lib.augmentation import DELAY, SETTINGS, apply, augmented, draw, draw_room, impulse_response
from lib.datasets.speech import Speech, SpeechSettings

RATE = 16_000
ROOMS = range(6)


def noise(samples=RATE, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal(samples, dtype=np.float32)


def applied(waveform, rate=RATE, **steps):
    return apply(waveform, rate, np.random.default_rng(1), **steps)


# The steps


@pytest.mark.parametrize(("decibels", "factor"), [(-20, 0.1), (-6.0206, 0.5), (-1, 0.891251)])
def test_polarity_flips_the_sign_and_the_gain_is_in_decibels(decibels, factor):
    np.testing.assert_array_equal(applied(noise(), inverted=True), -noise())
    np.testing.assert_allclose(applied(noise(), gain_db=decibels), factor * noise(), rtol=1e-5)
    silence = np.zeros(RATE, dtype=np.float32)
    np.testing.assert_array_equal(applied(silence, inverted=True, noise=0.9, gain_db=decibels, room=0), silence)


@pytest.mark.parametrize("ratio", [0.0001, 0.1, 0.9])
def test_the_noise_is_as_far_below_the_signal_as_drawn(ratio):
    waveform = (0.3 + 0.2 * np.sin(np.arange(200_000) / 7)).astype(np.float32)  # the offset is no signal
    added = applied(waveform, noise=ratio).astype(np.float64) - waveform
    signal_to_noise = 10 * np.log10(0.2**2 / 2 / np.square(added).mean())
    assert signal_to_noise == pytest.approx(-20 * np.log10(ratio), abs=0.1)
    spectrum = np.square(np.abs(np.fft.rfft(added)))[1:].reshape(8, -1).mean(axis=1)
    np.testing.assert_allclose(spectrum, spectrum.mean(), rtol=0.05)  # white


def test_the_steps_follow_each_other_as_the_baseline_has_them():
    """The gain acts on the noise too, and the room on all."""
    by_hand = applied(applied(applied(-noise(), noise=0.5), gain_db=-10), room=2)
    np.testing.assert_array_equal(applied(noise(), inverted=True, noise=0.5, gain_db=-10, room=2), by_hand)
    np.testing.assert_array_equal(applied(noise()), noise())


# Reverberation


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_s_reverberation_time_is_the_one_drawn(room):
    """By Schroeder's backward integration, from -5 to -35 dB."""
    response = impulse_response(room, RATE).astype(np.float64)
    left = np.cumsum(np.square(response)[::-1])[::-1]
    decibels = 10 * np.log10(left / left[0])
    falling = np.flatnonzero((decibels < -5) & (decibels > -35))
    slope = np.polyfit(falling / RATE, decibels[falling], 1)[0]
    assert -60 / slope == pytest.approx(draw_room(room)[1], rel=0.25)


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_a_click_comes_when_it_did_with_a_tail_that_dies_away(room, rate):
    click = np.zeros(2 * rate, dtype=np.float32)
    click[rate // 2] = 1
    heard = applied(click, rate, room=room)
    assert heard.shape == click.shape
    assert heard.dtype == np.float32
    assert abs(int(np.abs(heard).argmax()) - rate // 2) <= 1
    assert np.abs(heard[: rate // 2 - DELAY]).max() < 1e-3
    tenths = np.square(heard[rate // 2 - DELAY :][:rate]).reshape(10, -1).sum(axis=1)
    audible = tenths[tenths > 1e-6 * tenths[0]]  # 60 dB
    assert len(audible) > 1
    assert (np.diff(audible) < 0).all()


@pytest.mark.parametrize("room", ROOMS)
def test_the_direct_sound_is_as_loud_as_it_was(room):
    """The first reflection has 0.3 m further to go at least: at this rate its impulse and the first lie apart."""
    first = impulse_response(room, 96_000)[: DELAY + 20]
    assert np.square(first).sum() == pytest.approx(1, rel=0.1)


def test_rooms_lie_within_their_ranges_and_hold_mouth_and_microphone():
    for number in range(SETTINGS["rooms"]):
        sides, seconds, mouth, microphone = draw_room(number)
        low, high = SETTINGS["room_m"]
        assert ((low <= sides) & (sides <= high)).all()
        assert 0.15 <= seconds <= 0.8
        for place in (mouth, microphone):
            assert ((place > 0.1) & (place < sides - 0.1)).all()
        assert 0.15 <= np.linalg.norm(mouth - microphone) <= 0.35


# What is drawn


def test_each_step_is_drawn_by_its_chance_and_uniformly_in_its_range():
    """Means of 20,000 draws, within four standard errors."""
    generator = np.random.default_rng(0)
    drawn = [draw(generator) for _ in range(20_000)]
    for step, chance in zip(("inverted", "noise", "gain_db", "room"), (0.8, 0.1, 0.3, 0.6), strict=True):
        done = [one[step] for one in drawn if step in one]
        assert len(done) / len(drawn) == pytest.approx(chance, abs=4 * np.sqrt(chance * (1 - chance) / len(drawn)))
        if step != "inverted":
            low, high = {"noise": (0.0001, 0.9), "gain_db": (-20, -1), "room": (0, 31)}[step]
            assert min(done) >= low
            assert max(done) <= high
            error = (high - low + (step == "room")) / np.sqrt(12 * len(done))
            assert np.mean(done) == pytest.approx((low + high) / 2, abs=4 * error)
    assert {one.get("room") for one in drawn} == {None, *range(32)}


PROGRAM = """if True:
    import numpy as np
    from hashlib import blake2b
    from lib.augmentation import augmented

    waveform = 0.1 * np.random.default_rng(0).standard_normal(16_000, dtype=np.float32)
    for copy in (3, 2, 1):
        print(blake2b(augmented(waveform, 16_000, "a.wav", copy).tobytes()).hexdigest())"""


def test_copies_differ_are_the_same_in_another_process_and_order_and_touch_nothing_shared():
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
    )
    before, state = noise(), np.random.get_state()[1].copy()  # noqa: NPY002
    here = [blake2b(augmented(before, RATE, "a.wav", copy).tobytes()).hexdigest() for copy in range(1, 9)]
    assert finished.stdout.split() == here[2::-1]
    assert len(set(here)) > 5  # a copy that is only inverted, or not at all, may come twice
    np.testing.assert_array_equal(before, noise())
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


# The features of a set


@pytest.fixture
def speech(tmp_path):
    """Two utterances of each part in turn, and a few more for training."""
    parts = ["validation", "train", "test"] * 2 + ["train"] * 3
    for number in range(len(parts)):
        soundfile.write(tmp_path / f"{number}.wav", noise(8_000 + 1_500 * number, number), RATE, subtype="FLOAT")
    labels, speakers = np.arange(len(parts)) % 2, np.array(["a"] * len(parts))
    paths = tuple(f"{number}.wav" for number in range(len(parts)))
    return Speech("toy", "toy", tmp_path, ("a", "b"), paths, labels, speakers, np.array(parts), RATE)


def frames(loaded, cache, copies=0):
    return loaded.frames(SpeechSettings(augmented=copies), cache)


def test_copies_join_the_training_part_and_leave_all_else_as_it_is(speech, tmp_path):
    without = frames(speech, tmp_path / "cache")
    extracted = frames(speech, tmp_path / "cache", copies=2)
    assert extracted.features.shape == (5 * 3 + 4, 100, 40)
    for part in ("validation", "test"):
        assert torch.equal(extracted.part(part).features, without.part(part).features)
        assert torch.equal(extracted.part(part).labels, without.part(part).labels)
    train = extracted.part("train")
    originals, *copies = train.features.split(5)
    assert torch.equal(originals, without.part("train").features)
    assert torch.equal(train.labels, without.part("train").labels.repeat(3))
    for copy in copies:
        assert copy.isfinite().all()
        assert torch.equal((copy == 0).all(dim=2), (originals == 0).all(dim=2))  # as many frames
    assert not torch.equal(*copies)
    assert extracted.fingerprint == without.fingerprint


def test_a_copy_s_features_are_those_of_its_waveform(speech, tmp_path):
    """As if the copies were recordings of the validation part, which has no statistics either."""
    extracted = frames(speech, tmp_path / "cache", copies=2)
    heard = np.flatnonzero(speech.parts == "train")
    for index in heard.tolist():
        for copy in (1, 2):
            changed = augmented(speech.audio(index)[0], RATE, speech.paths[index], copy)
            soundfile.write(tmp_path / f"{index}-{copy}.wav", changed, RATE, subtype="FLOAT")
    recorded = tuple(f"{index}-{copy}.wav" for copy in (1, 2) for index in heard)
    originals = speech.part("train")
    both = replace(
        originals.chosen(np.tile(np.arange(5), 3)),
        paths=originals.paths + recorded,
        parts=np.repeat(["train", "validation"], [5, 10]),
    )
    expected = frames(both, tmp_path / "other").part("validation").features
    assert torch.equal(extracted.part("train").features[5:], expected)


def test_how_copies_are_made_is_part_of_the_cache_s_key(speech, tmp_path, monkeypatch):
    frames(speech, tmp_path / "cache")
    (plain,) = (tmp_path / "cache").glob("*.json")
    assert not [name for name in json.loads(plain.read_text()) if "augment" in name]
    for copies in (0, 1, 2):
        frames(speech, tmp_path / "cache", copies)
        assert len(list((tmp_path / "cache").glob("*.npy"))) == 1 + copies
    monkeypatch.setitem(SETTINGS, "gain_db", (-3.0, -1.0))
    frames(speech, tmp_path / "cache", copies=1)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 4


# Noise of the test part


@pytest.mark.parametrize("snr", [20, 3, 0, -10])
def test_noise_is_as_far_below_the_speech_as_asked_and_the_power_stays(snr):
    # Noise is nearly orthogonal to a tone of 16,000 samples, so the tone's share is read off by projection.
    tone = (0.1 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)).astype(np.float32)
    mixed = augmentation.in_noise(tone, snr, "yes/0.wav").astype(float)
    share = (mixed @ tone / (tone.astype(float) @ tone)) ** 2
    assert 10 * np.log10(share / (1 - share)) == pytest.approx(snr, abs=0.5)
    assert np.mean(mixed**2) == pytest.approx(np.mean(tone.astype(float) ** 2), rel=0.03)


def test_without_speech_the_noise_is_left_as_loud_and_silence_stays_silent():
    first, second = np.full(4_000, 0.1, np.float32), np.full(4_000, -0.1, np.float32)
    noise = augmentation.in_noise(first, -np.inf, "a.wav")
    np.testing.assert_array_equal(noise, augmentation.in_noise(second, -np.inf, "a.wav"))
    assert np.mean(noise.astype(float) ** 2) == pytest.approx(0.01, rel=1e-5)
    assert not augmentation.in_noise(np.zeros(100, np.float32), 0, "a.wav").any()
    np.testing.assert_array_equal(augmentation.in_noise(first, np.inf, "a.wav"), first)


def test_every_ratio_has_the_same_noise_and_every_utterance_its_own():
    tone = np.sin(np.arange(4_000) / 5).astype(np.float32)
    alone = augmentation.in_noise(tone, -np.inf, "a.wav").astype(float)
    mixed = augmentation.in_noise(tone, 0, "a.wav").astype(float)
    np.testing.assert_allclose(mixed, (tone + alone) / np.sqrt(2), atol=1e-6)
    other = augmentation.in_noise(tone, -np.inf, "b.wav").astype(float)
    assert abs(np.corrcoef(alone, other)[0, 1]) < 0.1
