"""The converter of live sound: right, without a seam, and without delay."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tinyvoice.audio.polyphase import PolyphaseResampler
from tinyvoice.errors import AudioError

RATES = [(48_000, 24_000), (24_000, 16_000), (8_000, 24_000), (16_000, 24_000), (44_100, 16_000)]


def tone(rate: int, hertz: float, seconds: float = 1.0) -> NDArray[np.float32]:
    return np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate).astype(np.float32)


@pytest.mark.parametrize(("source", "target"), RATES)
@pytest.mark.parametrize("part", [0.02, 0.3, 0.75])
def test_a_tone_stays_what_it_is(source: int, target: int, part: float) -> None:
    hertz = part * min(source, target) / 2
    resampler = PolyphaseResampler(source, target)
    converted = resampler.process(tone(source, hertz))
    times = np.arange(len(converted)) / target - resampler.delay_s
    expected = np.sin(2 * np.pi * hertz * times)
    settled = slice(round(0.05 * target), None)
    assert np.abs(converted[settled] - expected[settled]).max() < 2e-3


@pytest.mark.parametrize(("source", "target"), [(48_000, 24_000), (24_000, 16_000)])
def test_what_the_lower_rate_cannot_hold_is_gone(source: int, target: int) -> None:
    converted = PolyphaseResampler(source, target).process(tone(source, 0.55 * target))
    assert np.abs(converted[1_000:]).max() < 1e-3


@pytest.mark.parametrize(("source", "target"), RATES)
def test_pieces_give_the_samples_of_the_whole(source: int, target: int) -> None:
    random = np.random.default_rng(0)
    signal = random.standard_normal(source // 2).astype(np.float32)
    whole = PolyphaseResampler(source, target).process(signal)
    resampler = PolyphaseResampler(source, target)
    cuts = np.sort(random.integers(0, len(signal), 60))
    pieces = [resampler.process(piece) for piece in np.split(signal, cuts)]
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-6)


@pytest.mark.parametrize(("source", "target"), RATES)
def test_every_sample_that_is_due_is_given(source: int, target: int) -> None:
    resampler = PolyphaseResampler(source, target)
    given = 0
    for n in range(1, 51):
        given += len(resampler.process(np.zeros(source // 50, dtype=np.float32)))
        assert given == -(-n * (source // 50) * target // source)
    assert resampler.delay_s <= 0.003


@pytest.mark.parametrize(("source", "target"), [(24_000, 16_000), (8_000, 16_000)])
def test_the_silence_before_the_sound_can_be_left_out(source: int, target: int) -> None:
    signal = np.random.default_rng(1).standard_normal(source // 10).astype(np.float32)
    whole = PolyphaseResampler(source, target).process(signal)
    late = round(PolyphaseResampler(source, target).delay_s * target)
    for leave_out, left in ((0, 0), (5, 5), (late, late), (1_000, late), (None, late)):
        given = PolyphaseResampler(source, target, leave_out=leave_out).process(signal)
        np.testing.assert_allclose(given, whole[left:], atol=1e-6)


def test_equal_rates_pass_through() -> None:
    signal = tone(16_000, 440)
    assert PolyphaseResampler(16_000, 16_000).process(signal) is signal


def test_rates_without_a_small_common_multiple_are_refused() -> None:
    with pytest.raises(AudioError, match="common multiple"):
        PolyphaseResampler(16_001, 16_000)
