"""What stands in for a lost packet."""

from __future__ import annotations

import numpy as np
import pytest

from tinyvoice.webrtc.concealment import Concealment


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
@pytest.mark.parametrize("hertz", [70.0, 110.0, 220.0, 350.0])
def test_a_voice_goes_on_at_its_pitch_and_fades(rate: int, hertz: float) -> None:
    times = np.arange(round(0.14 * rate)) / rate
    waves = [np.sin(2 * np.pi * hertz * n * times) / n for n in (1, 2, 3)]
    voice = np.sum(waves, axis=0).astype(np.float32)
    known = round(0.1 * rate)
    concealment = Concealment(rate)
    for begin in range(0, known, round(0.02 * rate)):
        concealment.hear(voice[begin : begin + round(0.02 * rate)])
    filled = concealment.extend(round(0.04 * rate))
    first = round(0.01 * rate)
    expected = voice[known : known + first] * (1 - np.arange(first) / (0.04 * rate))
    likeness = np.corrcoef(filled[:first], expected)[0, 1]
    assert likeness > 0.9
    assert np.abs(filled[-first:]).max() < 0.35 * np.abs(voice).max()


def test_a_long_gap_ends_in_silence() -> None:
    concealment = Concealment(8_000)
    concealment.hear(np.ones(8_000, dtype=np.float32))
    filled = concealment.extend(8_000)
    assert len(filled) == 8_000
    assert filled[0] == 1
    assert not filled[round(0.04 * 8_000) :].any()


def test_with_nothing_heard_there_is_silence() -> None:
    assert not Concealment(48_000).extend(960).any()
    concealment = Concealment(48_000)
    concealment.hear(np.zeros(4_800, dtype=np.float32))
    assert not concealment.extend(960).any()
