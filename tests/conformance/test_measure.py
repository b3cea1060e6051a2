"""The measurement over many utterances, over a few."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.measure import (
    LEAST_AGREEMENT,
    KnownAudio,
    Turn,
    figures_of,
    measure,
    packet_with,
    share_interval,
    utterances,
)
from tinyvoice.benchmark.speech import BUNDLED, Clip


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
def test_the_engine_knows_the_end_with_the_packet_that_brings_it(rate: int) -> None:
    known = KnownAudio(rate)
    for window in range(1, 20):
        assert known.since(32 * window) == packet_with(32 * window)


def test_utterances_can_be_left_out_and_are_played_again(speech: dict[str, Clip]) -> None:
    clips = list(speech.values())
    chosen = utterances(str(BUNDLED), None, 4, skip=len(clips) - 2)
    assert [clip.text for clip in chosen] == [clip.text for clip in [*clips[-2:], *clips[:2]]]


def test_utterances_of_a_test_set(tmp_path: Path) -> None:
    texts = ["turn on the light", "what time is it", "play some music"]
    (tmp_path / "clinc150-validation.txt").write_text("\n".join(texts), encoding="utf-8")
    chosen = utterances("clinc-unseen", tmp_path, 2, skip=1)
    assert len({clip.text for clip in chosen} & set(texts)) == 2
    assert all(clip.duration > 0.5 for clip in chosen)


def test_intervals_of_shares() -> None:
    low, high = share_interval([True] * 500)
    assert 0.992 < low < 0.993
    assert high == pytest.approx(1.0)
    low, high = share_interval([True, False] * 50)
    assert (round(low, 3), round(high, 3)) == (0.404, 0.596)
    assert share_interval([]) == (0.0, 1.0)
