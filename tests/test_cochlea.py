"""The simple cochlea against a loop over its equation, a tone's place, and the layout of the published files."""

import h5py
import numpy as np
import pytest

from lib.datasets.synthetic_shd import write_files
from lib.synthesis import cochlea
from lib.synthesis.cochlea import energies, listen

RATE, UNITS = 16_000, 700


def tone(hertz, seconds=0.3, rate=RATE):
    """A tone between two silences of 0.2 s with noise far below it."""
    noise = np.random.default_rng(0).normal(size=round((seconds + 0.4) * rate))
    signal = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    signal = np.pad(signal, round(0.2 * rate)) + 1e-4 * noise[: len(signal) + 2 * round(0.2 * rate)]
    return np.round(32_767 * signal).astype(np.int16)


def mel(hertz):
    return 2595 * np.log10(1 + hertz / 700)


def channel_of(hertz):
    """The bands' centres are evenly spaced in mel, one step within the limits; channels reach from first to last."""
    low, high = map(mel, cochlea.BAND_HZ)
    step = (high - low) / (cochlea.BANDS + 1)
    return (mel(hertz) - low - step) / step / (cochlea.BANDS - 1) * (UNITS - 1)


@pytest.mark.parametrize("rate", [16_000, 48_000])
@pytest.mark.parametrize("hertz", [300, 1_000, 4_000])
def test_a_tone_makes_the_channels_of_its_pitch_fire_while_it_sounds(hertz, rate):
    times, units = listen(tone(hertz, rate=rate), rate, UNITS)
    fired = np.bincount(units, minlength=UNITS)
    assert abs(fired.argmax() - channel_of(hertz)) < 18  # a band
    assert 0.2 - 0.02 < times.min() < times.max() < 0.5 + 0.02
    assert (np.diff(times) >= 0).all()
    assert (times.dtype, units.dtype) == (np.float16, np.uint16)


def test_a_loud_recording_fires_like_a_soft_one():
    samples = tone(500) // 8
    for soft, loud in zip(listen(samples, RATE, UNITS), listen(4 * samples, RATE, UNITS), strict=True):
        np.testing.assert_array_equal(soft, loud)


def test_energies_lie_between_nothing_and_the_highest():
    found = energies(tone(1_000), RATE, UNITS)
    assert found.min() == 0
    assert 0.99 < found.max() <= 1  # the highest band's centre may lie between two channels
    assert found.shape == (0.7 * 1000 - cochlea.WINDOW_MS + 1, UNITS)


def test_spikes_are_those_of_a_channel_after_the_other():
    """V <- V exp(-1 ms / leak) + gain x energy; where V reaches 1, a spike, and V loses 1."""
    samples = tone(700, seconds=0.1)
    expected = []
    for channel, drive in enumerate(energies(samples, RATE, UNITS).T):
        potential = 0.0
        for step, energy in enumerate(drive):
            potential = potential * np.exp(-1 / cochlea.LEAK_MS) + cochlea.GAIN * energy
            if potential >= 1:
                potential -= 1
                expected.append((np.float16((step + cochlea.WINDOW_MS / 2) / 1000), channel))
    found = list(zip(*listen(samples, RATE, UNITS), strict=True))
    assert len(found) > 100
    assert found == sorted(expected)


def test_the_files_hold_what_the_published_ones_hold(tmp_path):
    names = ["lang-english_speaker-03_trial-0_digit-7.flac", "lang-german_speaker-11_trial-2_digit-5.flac"]
    spikes = {
        f"audio/{name}": (np.array(times, np.float16), np.array(units, np.uint16))
        for name, times, units in zip(names, ([0.1, 0.2, 0.5], []), ([3, 699, 0], []), strict=True)
    }
    write_files(tmp_path, spikes, {"train_filenames.txt": names, "test_filenames.txt": names[1:]})
    with h5py.File(tmp_path / "shd_train.h5") as file:
        assert file["labels"][:].tolist() == [7, 15]
        assert file["extra/speaker"][:].tolist() == [3, 11]
        assert file["extra/keys"].asstr()[:].tolist()[7:16:8] == ["seven", "fünf"]
        assert file["spikes/times"][0].tolist() == [float(np.float16(time)) for time in (0.1, 0.2, 0.5)]
        assert file["spikes/units"][0].tolist() == [3, 699, 0]
        assert [len(file[key][1]) for key in ("spikes/times", "spikes/units")] == [0, 0]
    with h5py.File(tmp_path / "shd_test.h5") as file:
        assert file["labels"][:].tolist() == [15]
