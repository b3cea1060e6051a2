"""Resampling: right in frequency and length, and the same for any cut of the signal."""

import numpy as np
import pytest

from tinyvoice.audio.resample import Resampler, resample
from tinyvoice.errors import AudioError


def tone(frequency: float, rate: int, seconds: float) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
def test_a_tone_keeps_its_frequency_phase_and_length(rate: int) -> None:
    result = resample(tone(1000, rate, 1.0), rate, 16000)
    assert result.dtype == np.float32
    assert abs(len(result) - 16000) <= 1
    inner = slice(1000, 15000)  # the edges ring
    np.testing.assert_allclose(result[inner], tone(1000, 16000, 1.0)[inner], atol=2e-3)


def test_what_the_target_rate_cannot_hold_is_removed() -> None:
    result = resample(tone(12000, 48000, 1.0), 48000, 16000)
    assert np.abs(result[1000:-1000]).max() < 1e-3


def test_any_cut_gives_the_same_samples_as_the_whole() -> None:
    random = np.random.default_rng(0)
    signal = random.uniform(-1, 1, 44100).astype(np.float32)
    cuts = np.sort(random.integers(0, len(signal), 40))
    resampler = Resampler(44100, 16000)
    pieces = [resampler.process(piece) for piece in np.split(signal, cuts)]
    pieces.append(resampler.process(np.zeros(0, np.float32), last=True))
    np.testing.assert_array_equal(np.concatenate(pieces), resample(signal, 44100, 16000))


def test_equal_rates_change_nothing() -> None:
    signal = tone(440, 16000, 0.1)
    np.testing.assert_array_equal(resample(signal, 16000, 16000), signal)


@pytest.mark.parametrize("rate", [0, -8000, 999, 2_000_000, 16000.5, float("nan")])
def test_rates_that_cannot_be_are_refused(rate: float) -> None:
    with pytest.raises(AudioError, match=r"sample rate of .* cannot be used"):
        Resampler(rate, 16000)  # type: ignore[arg-type]
