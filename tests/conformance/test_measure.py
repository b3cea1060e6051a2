"""The measurement over many utterances, over a few."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conformance.measure import (
    LEAST_AGREEMENT,
    PACKET_MS,
    Turn,
    deciding_packet,
    figures_of,
    measure,
)
from tinyvoice.audio.resample import Resampler
from tinyvoice.benchmark.speech import Clip


def test_transcripts_are_what_their_deltas_said_however_fast_the_speech_comes(
    speech: dict[str, Clip],
) -> None:
    clips = list(speech.values())[:16]
    figures = measure(clips, speed=0.0)
    assert figures.turns >= len(clips)
    assert figures.equal_share >= LEAST_AGREEMENT
    assert figures.word_error_rate is not None
    assert figures.word_error_rate < 0.05
    assert figures.overhead is not None
    assert figures.overhead["count"] == figures.turns


def test_figures_of_turns(speech: dict[str, Clip]) -> None:
    clips = [speech["02"], speech["04"]]
    text = [clip.text or "" for clip in clips]
    turns = [
        [Turn("a", deltas=[text[0]], transcript=text[0], early=True, waited_s=0.05)],
        [Turn("b", deltas=["what"], transcript=text[1], waited_s=0.03), Turn("c", transcript="")],
    ]
    figures = figures_of(clips, turns, [0.04, 0.02, 0.0], speed=1.0)
    assert (figures.utterances, figures.turns) == (2, 3)
    assert figures.equal_share == 2 / 3
    assert figures.early_share == 1 / 2
    assert figures.word_error_rate == 0.0
    assert figures.overhead is not None
    assert abs(figures.overhead["p50"] - 0.01) < 1e-9


@pytest.mark.parametrize("rate", [16_000, 24_000])
def test_the_deciding_packet_is_the_one_with_which_the_window_is_known(rate: int) -> None:
    resampler = Resampler(rate, 16_000)
    packet = np.zeros(rate * PACKET_MS // 1000, dtype=np.float32)
    known = 0
    known_after = []
    for _ in range(40):
        known += len(resampler.process(packet))
        known_after.append(known)
    for window in range(1, 20):
        end_ms = 32 * window
        packets = [number for number, samples in enumerate(known_after) if samples >= 16 * end_ms]
        assert deciding_packet(end_ms, rate) == packets[0]
