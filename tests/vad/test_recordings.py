"""Utterances of finished recordings: bundled speech in its places, and nothing where none is."""

from __future__ import annotations

import numpy as np
import pytest

from tinyvoice.benchmark.speech import Clip, bundled_speech
from tinyvoice.vad.recordings import BLOCK_WINDOWS, find_utterances
from tinyvoice.vad.silero import WINDOW_SAMPLES
from tinyvoice.vad.utterance import Samples

SECOND = 16_000
PAUSE_S = 0.8


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return bundled_speech()


def with_pauses(clips: list[Clip]) -> Samples:
    pause = np.zeros(round(PAUSE_S * SECOND), dtype=np.float32)
    return np.concatenate([pause, *(part for clip in clips for part in (clip.samples, pause))])


def test_each_sentence_between_pauses_is_one(clips: list[Clip]) -> None:
    samples = with_pauses(clips[:8])
    found = list(find_utterances(samples))
    assert [extent.utterance for extent in found] == list(range(8))
    begin = PAUSE_S
    for extent, clip in zip(found, clips, strict=False):
        onset, end = begin + clip.onset, begin + clip.duration
        assert extent.speech_start / SECOND == pytest.approx(onset, abs=0.2)
        assert extent.audio_start < onset * SECOND < extent.audio_end
        assert extent.audio_end / SECOND == pytest.approx(end, abs=PAUSE_S / 2)
        begin = end + PAUSE_S
    ends = [0, *(extent.audio_end for extent in found)]
    assert all(extent.audio_start >= end for extent, end in zip(found, ends, strict=False))


def test_speech_at_the_very_end_counts(clips: list[Clip]) -> None:
    samples = clips[0].samples[: len(clips[0].samples) * 2 // 3]
    (extent,) = find_utterances(samples)
    assert extent.audio_end == len(samples)


@pytest.mark.parametrize("level", [0.0, 1e-3, 0.1])
def test_where_nobody_speaks_there_is_none(level: float) -> None:
    noise = np.random.default_rng(1).normal(0, 1, 45 * SECOND).astype(np.float32)
    assert list(find_utterances(level * noise)) == []


@pytest.mark.parametrize("length", [0, 1, WINDOW_SAMPLES - 1])
def test_less_than_a_window_is_nothing(length: int) -> None:
    assert list(find_utterances(np.zeros(length, dtype=np.float32))) == []


def test_speech_without_a_pause_is_cut_and_nothing_lost(clips: list[Clip]) -> None:
    spoken = np.concatenate([clip.samples for clip in clips[20:24]])
    found = list(find_utterances(spoken, max_utterance_s=6.0))
    assert len(found) > 4
    longest = max(extent.audio_end - extent.audio_start for extent in found)
    assert longest <= 7 * SECOND
    assert sum(extent.audio_end - extent.audio_start for extent in found) > 0.9 * len(spoken)


def test_what_has_been_heard_is_told_as_it_is(clips: list[Clip]) -> None:
    samples = with_pauses(clips[:16])
    counts: list[int] = []
    assert list(find_utterances(samples, heard=counts.append))
    assert set(counts[:-2]) == {BLOCK_WINDOWS * WINDOW_SAMPLES}
    assert sum(counts) == len(samples)
