"""A simple cochlea: a recording becomes spikes of many channels.

Far from the model behind the published sets (Cramer et al., 2022), with its basilar membrane, hair cells and bushy
cells; what the two have in common is the number of channels, and about how many spikes there are. Channel 0 has the
lowest pitch. The filterbank is one of its own: that of ``lib.features`` is what a network is given, and may change.
"""

import functools

import numpy as np
from jaxtyping import Float16, Float64, Int16, UInt16
from torchaudio.functional import melscale_fbanks

SETTINGS = {
    "bands": 40,
    "band_hz": (100, 8_000),
    "window_ms": 25,
    "step_ms": 1,
    "range_db": 30,  # of the energies in an utterance: what lies further below its highest drives no channel
    "leak_ms": 20,  # time constant of a channel's potential
    "gain": 0.25,  # potential that the highest energy adds in a step, where the threshold is 1
}
BANDS, BAND_HZ, WINDOW_MS, STEP_MS, RANGE_DB, LEAK_MS, GAIN = SETTINGS.values()

Spikes = tuple[Float16[np.ndarray, " spike"], UInt16[np.ndarray, " spike"]]


def listen(samples: Int16[np.ndarray, " samples"], sample_rate: int, units: int) -> Spikes:
    """Return times in seconds and channels of a recording's spikes, in order of time; half precision, as published.

    A channel's potential leaks, adds up the channel's drive and loses 1 with each spike.
    """
    drive = GAIN * energies(samples, sample_rate, units)
    keep = np.exp(-STEP_MS / LEAK_MS)
    potential, fired = np.zeros(units), np.zeros(drive.shape, dtype=bool)
    for added, spikes in zip(drive, fired, strict=True):
        potential = keep * potential + added
        np.greater_equal(potential, 1, out=spikes)
        potential -= spikes
    steps, channels = np.nonzero(fired)
    # A step's energy is that of the window around it.
    times = (steps * STEP_MS + WINDOW_MS / 2) / 1000
    return times.astype(np.float16), channels.astype(np.uint16)


def energies(
    samples: Int16[np.ndarray, " samples"], sample_rate: int, units: int
) -> Float64[np.ndarray, "step {units}"]:
    """Log-mel energies every millisecond, from 0 (as far below the highest as ``RANGE_DB``) to 1 (the highest).

    A channel lies between the centres of two bands and has what is there on the line between their energies. The
    waveform is differenced first, since speech falls with the frequency.
    """
    window, banks = window_and_banks(sample_rate)
    emphasised = np.diff(samples / 32768, prepend=0)
    framed = np.lib.stride_tricks.sliding_window_view(emphasised, len(window))[:: sample_rate * STEP_MS // 1000]
    power = np.abs(np.fft.rfft(framed * window, n=2 * len(banks) - 2)) ** 2
    power = np.einsum("sl,lb->sb", power, banks)  # a product of matrices could depend on the number of threads
    decibels = 10 * np.log10(np.maximum(power / power.max(), 10 ** (-RANGE_DB / 10)))
    level = 1 + decibels / RANGE_DB
    place = np.linspace(0, BANDS - 1, units)
    below = np.minimum(place.astype(int), BANDS - 2)
    return level[:, below] + (place - below) * np.diff(level, axis=1)[:, below]


@functools.cache
def window_and_banks(sample_rate: int) -> tuple[Float64[np.ndarray, " samples"], Float64[np.ndarray, "line 40"]]:
    """The window, and the mel bands' weights of the spectral lines of what it shows."""
    window = np.hanning(sample_rate * WINDOW_MS // 1000)
    lines = 2 ** (len(window) - 1).bit_length() // 2 + 1
    banks = melscale_fbanks(lines, *BAND_HZ, BANDS, sample_rate)
    return window, banks.double().numpy()
