"""Utterances are found by lists of probabilities: samples in, decisions out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyvoice.vad.segmentation import split_at_quietest
from tinyvoice.vad.settings import EndpointingSettings
from tinyvoice.vad.utterance import (
    AudioHistory,
    Decision,
    Ended,
    EndExpected,
    Extent,
    Resumed,
    Samples,
    Started,
    TurnInQuestion,
    UtteranceDetector,
)

WINDOW = 512
SECOND = 16_000


def windows(count: int, seed: int = 0) -> list[Samples]:
    """Audio that can be told apart by its values."""
    samples = np.random.default_rng(seed).normal(0, 0.1, count * WINDOW).astype(np.float32)
    return list(samples.reshape(count, WINDOW))


def hear(detector: UtteranceDetector, probabilities: str, seed: int = 0) -> list[Decision]:
    """One window for each character: ``#`` speech, ``.`` silence, ``~`` in between."""
    values = {"#": 0.9, ".": 0.1, "~": 0.4}
    decisions: list[Decision] = []
    audio = windows(len(probabilities), seed)
    for window, mark in zip(audio, probabilities, strict=True):
        decisions += detector.hear(window, values[mark])
    return decisions


def settings(**changes: Any) -> EndpointingSettings:
    """Two windows begin an utterance, six end it, its final pass begins after three."""
    plain: dict[str, Any] = {
        "min_speech_ms": 64,
        "silence_ms": 192,
        "early_final_ms": 96,
        "prefix_padding_ms": 64,
    }
    return EndpointingSettings(**(plain | changes))


def test_an_utterance_from_its_padding_to_its_early_end() -> None:
    detector = UtteranceDetector(settings())
    extent = Extent(0, 5 * WINDOW, 9 * WINDOW, 3 * WINDOW, 12 * WINDOW)
    assert hear(detector, ".....####......") == [
        Started(0, 5 * WINDOW),
        EndExpected(extent),
        Ended(extent),
    ]
    assert detector.utterance == 1
    assert not detector.active


def test_speech_that_goes_on_voids_the_final_pass() -> None:
    detector = UtteranceDetector(settings())
    decisions = hear(detector, "..##...##......")
    first = Extent(0, 2 * WINDOW, 4 * WINDOW, 0, 7 * WINDOW)
    second = Extent(0, 2 * WINDOW, 9 * WINDOW, 0, 12 * WINDOW)
    assert decisions == [
        Started(0, 2 * WINDOW),
        EndExpected(first),
        Resumed(0),
        EndExpected(second),
        Ended(second),
    ]


def test_a_short_pause_is_not_told_of() -> None:
    assert hear(UtteranceDetector(settings()), "##..##.") == [Started(0, 0)]


def test_sound_between_the_thresholds_neither_begins_nor_ends_speech() -> None:
    detector = UtteranceDetector(settings())
    assert hear(detector, "~~~~~~~~") == []
    assert hear(detector, "##") == [Started(0, 8 * WINDOW)]
    assert hear(detector, "~~~~~~~~~~") == []
    # A pause that has begun goes on through it.
    decisions = hear(detector, ".~~.~~")
    assert [type(decision) for decision in decisions] == [EndExpected, Ended]


def test_a_click_is_no_speech() -> None:
    assert hear(UtteranceDetector(settings()), "..#...#...#...") == []


def test_an_utterance_does_not_take_the_audio_of_the_one_before() -> None:
    detector = UtteranceDetector(settings(prefix_padding_ms=2_000))
    first = hear(detector, "##......")[-1]
    second = hear(detector, ".##......")[-1]
    assert isinstance(first, Ended)
    assert isinstance(second, Ended)
    assert second.extent.audio_start == first.extent.audio_end
    assert second.extent.utterance == 1


def test_the_audio_is_the_samples_that_were_heard() -> None:
    detector = UtteranceDetector(settings())
    audio = windows(40, seed=3)
    found: list[Samples] = []
    for window, mark in zip(audio, "..........##########......".ljust(40, "."), strict=True):
        for decision in detector.hear(window, 0.9 if mark == "#" else 0.0):
            if isinstance(decision, Ended):
                found.append(detector.audio(decision.extent))
                extent = decision.extent
    whole = np.concatenate(audio)
    np.testing.assert_array_equal(found[0], whole[extent.audio_start : extent.audio_end])
    assert extent.audio_start == 8 * WINDOW
    assert extent.audio_end == 23 * WINDOW


def test_long_silence_is_forgotten() -> None:
    detector = UtteranceDetector(settings())
    hear(detector, "." * 2_000)
    assert detector.history.end - detector.history.begin <= SECOND + 3 * WINDOW


class TestCommit:
    def test_ends_speech_now(self) -> None:
        detector = UtteranceDetector(settings())
        hear(detector, "..###")
        extent = Extent(0, 2 * WINDOW, 5 * WINDOW, 0, 5 * WINDOW)
        assert detector.commit() == [Ended(extent)]

    def test_in_a_pause_takes_the_final_pass_that_is_under_way(self) -> None:
        detector = UtteranceDetector(settings())
        expected = hear(detector, "###....")[-1]
        assert isinstance(expected, EndExpected)
        assert detector.commit() == [Ended(expected.extent)]

    def test_takes_speech_too_short_to_have_begun(self) -> None:
        detector = UtteranceDetector(settings())
        hear(detector, "...#")
        extent = Extent(0, 3 * WINDOW, 4 * WINDOW, WINDOW, 4 * WINDOW)
        assert detector.commit() == [Started(0, 3 * WINDOW), Ended(extent)]

    def test_in_silence_there_is_nothing_to_end(self) -> None:
        detector = UtteranceDetector(settings())
        hear(detector, "...")
        assert detector.commit() == []


def test_clear_forgets_the_utterance_and_its_audio() -> None:
    detector = UtteranceDetector(settings(prefix_padding_ms=2_000))
    hear(detector, "..####")
    detector.clear()
    assert detector.commit() == []
    started = hear(detector, "###")[0]
    assert started == Started(1, 6 * WINDOW)
    assert detector.audio_start == 6 * WINDOW


def test_settings_change_during_the_stream() -> None:
    detector = UtteranceDetector(settings())
    assert hear(detector, "##.....") != []
    detector.settings = settings(silence_ms=640)
    assert hear(detector, "....") == []
    detector.settings = settings(silence_ms=224)
    assert isinstance(hear(detector, ".")[-1], Ended)


class TestManual:
    def test_all_audio_since_the_last_commit(self) -> None:
        detector = UtteranceDetector(settings(endpointing="manual"))
        for window in windows(4):
            assert detector.hear(window, None) == []
        detector.hear(np.ones(100, dtype=np.float32), None)
        end = 4 * WINDOW + 100
        assert detector.commit() == [Ended(Extent(0, 0, end, 0, end))]
        assert detector.commit() == []
        detector.hear(windows(1)[0], None)
        assert detector.commit() == [Ended(Extent(1, end, end + WINDOW, end, end + WINDOW))]


class TestExternal:
    def test_nothing_begins_by_itself(self) -> None:
        detector = UtteranceDetector(settings(endpointing="external"))
        assert hear(detector, "..######......") == []
        assert detector.commit() == []

    def test_begins_and_ends_when_told(self) -> None:
        detector = UtteranceDetector(settings(endpointing="external"))
        hear(detector, "....##")
        assert detector.begin() == [Started(0, 6 * WINDOW)]
        assert detector.begin() == []
        assert hear(detector, "##") == []
        extent = Extent(0, 6 * WINDOW, 8 * WINDOW, 4 * WINDOW, 8 * WINDOW)
        assert detector.commit() == [Ended(extent)]
        assert detector.commit() == []
        assert detector.begin() == [Started(1, 8 * WINDOW)]
        assert detector.audio_start == 8 * WINDOW

    def test_reaches_back_as_far_as_asked_and_there_is(self) -> None:
        detector = UtteranceDetector(settings(endpointing="external"))
        hear(detector, "." * 20)
        detector.begin(back=10 * WINDOW)
        assert detector.audio_start == 10 * WINDOW
        detector.commit()
        hear(detector, "....")
        detector.begin(back=10 * WINDOW)
        assert detector.audio_start == 20 * WINDOW

    def test_keeps_what_may_be_reached_back_to_and_no_more(self) -> None:
        detector = UtteranceDetector(settings(endpointing="external"))
        hear(detector, "." * 1_000)
        kept = detector.history.end - detector.history.begin
        assert 5 * SECOND <= kept <= 6 * SECOND + 3 * WINDOW

    def test_a_commit_in_a_pause_takes_the_final_pass_that_is_under_way(self) -> None:
        detector = UtteranceDetector(settings(endpointing="external", prefix_padding_ms=0))
        detector.begin()
        extent = Extent(0, 0, 2 * WINDOW, 0, 5 * WINDOW)
        assert hear(detector, "##...") == [EndExpected(extent)]
        assert hear(detector, "." * 300) == []  # silence ends nothing
        assert detector.commit() == [Ended(extent)]

    @pytest.mark.parametrize("late", ["#", "~", "..~"])
    def test_what_may_be_a_late_word_voids_that_pass(self, late: str) -> None:
        detector = UtteranceDetector(settings(endpointing="external", prefix_padding_ms=0))
        detector.begin()
        hear(detector, "##...")
        assert hear(detector, late) == [Resumed(0)]
        end = (5 + len(late)) * WINDOW
        assert detector.commit() == [Ended(Extent(0, 0, end, 0, end))]

    def test_the_final_pass_begins_again_in_the_next_pause(self) -> None:
        detector = UtteranceDetector(settings(endpointing="external", prefix_padding_ms=0))
        detector.begin()
        extent = Extent(0, 0, 6 * WINDOW, 0, 9 * WINDOW)
        assert hear(detector, "##...#...")[1:] == [Resumed(0), EndExpected(extent)]

    def test_an_onset_from_before_is_forgotten(self) -> None:
        detector = UtteranceDetector(settings())
        hear(detector, "..#")
        detector.settings = settings(endpointing="external")
        assert hear(detector, "#~~~") == []
        detector.settings = settings()
        assert hear(detector, "##") == [Started(0, 7 * WINDOW)]

    def test_clear_forgets_it(self) -> None:
        detector = UtteranceDetector(settings(endpointing="external"))
        detector.begin()
        hear(detector, "##")
        detector.clear()
        assert detector.commit() == []
        assert detector.begin() == [Started(1, 2 * WINDOW)]
        assert detector.audio_start == 2 * WINDOW


class TestSemantic:
    def test_asks_in_a_pause_and_ends_on_the_answer(self) -> None:
        detector = UtteranceDetector(settings(endpointing="semantic"))
        decisions = hear(detector, "###......")
        assert isinstance(decisions[-1], TurnInQuestion)
        (ended,) = detector.answer(True)
        assert isinstance(ended, Ended)
        assert isinstance(decisions[-2], EndExpected)
        assert ended.extent == decisions[-2].extent

    def test_an_unfinished_turn_ends_after_the_longest_pause(self) -> None:
        detector = UtteranceDetector(settings(endpointing="semantic", eagerness="high"))
        hear(detector, "###......")
        assert detector.answer(False) == []
        quiet = hear(detector, "." * 56)
        assert quiet == []
        assert isinstance(hear(detector, ".")[-1], Ended)  # 2.0 s: 63 windows

    def test_asks_again_in_the_next_pause(self) -> None:
        detector = UtteranceDetector(settings(endpointing="semantic"))
        hear(detector, "###......")
        detector.answer(False)
        asked = [d for d in hear(detector, "##......") if isinstance(d, TurnInQuestion)]
        assert len(asked) == 1


class TestLongSpeech:
    def test_is_cut_where_offline_transcription_cuts(self) -> None:
        detector = UtteranceDetector(settings(prefix_padding_ms=0), max_utterance_s=5.0)
        audio = np.random.default_rng(5).normal(0, 0.1, 14 * SECOND).astype(np.float32)
        audio = audio[: len(audio) // WINDOW * WINDOW]
        ended: list[Extent] = []
        for window in audio.reshape(-1, WINDOW):
            for decision in detector.hear(window, 0.9):
                if isinstance(decision, Ended):
                    assert decision.continues
                    ended.append(decision.extent)
        last = detector.commit()[-1]
        assert isinstance(last, Ended)
        assert not last.continues
        # The last one may be a little longer than a piece: its final pass cuts it as any clip is.
        begin, end = last.extent.audio_start, last.extent.audio_end
        pieces = [(extent.audio_start, extent.audio_end) for extent in ended]
        pieces += [
            (begin + b, begin + e) for b, e in split_at_quietest(audio[begin:end], SECOND, 5)
        ]
        assert pieces == split_at_quietest(audio, SECOND, 5.0)

    def test_a_final_pass_under_way_is_void(self) -> None:
        detector = UtteranceDetector(settings(silence_ms=2_000), max_utterance_s=4.0)
        hear(detector, "#" * 150)
        decisions = hear(detector, "." * 8)
        kinds = [type(decision) for decision in decisions]
        assert kinds == [EndExpected, Resumed, Ended, EndExpected]


class TestAudioHistory:
    def test_keeps_positions_while_it_forgets(self) -> None:
        history = AudioHistory()
        samples = np.arange(5 * SECOND, dtype=np.float32)
        for start in range(0, len(samples), 700):
            history.append(samples[start : start + 700])
            history.forget(start - SECOND)
        assert history.end == 5 * SECOND
        assert history.begin >= 2 * SECOND
        np.testing.assert_array_equal(
            history.between(history.end - 900, history.end - 100), samples[-900:-100]
        )

    def test_refuses_what_it_has_forgotten(self) -> None:
        history = AudioHistory()
        history.append(np.zeros(3 * SECOND, dtype=np.float32))
        history.forget(2 * SECOND)
        with pytest.raises(ValueError, match="is not in"):
            history.between(0, 10)
