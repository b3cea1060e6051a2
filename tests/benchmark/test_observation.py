"""Events and the times they came at, made into records: hand-made lists of events."""

import numpy as np
import pytest

from tinyvoice.benchmark.observation import (
    Received,
    StreamClock,
    observe,
    overlapped,
    texts_by_place,
)
from tinyvoice.benchmark.speech import Clip
from tinyvoice.benchmark.timeline import Placed, Timeline
from tinyvoice.engine.events import Event, Final, Partial, SpeechEnded, SpeechStarted
from tinyvoice.metrics import first_partial, first_stable_word, partial_lags, time_to_final
from tinyvoice.model.transcript import Word

# A clip of 1 s at 1.0 s and another, whose word times are not known, at 3.0 s.
CLIPS = [
    Clip("known", np.zeros(16_000, np.float32), "turn it on", 0.1, 0.35),
    Clip("unknown", np.zeros(16_000, np.float32), None, 0.2, None),
]
TIMELINE = Timeline((Placed(0, 16_000), Placed(1, 48_000)), 80_000)
CLOCK = StreamClock(100.0, 320, 80_000)


def final(
    utterance: int, text: str, start: float, end: float, *, at: float, continues: bool = False
) -> Final:
    words = tuple(
        Word(word, start + 0.1 * n, start + 0.1 * (n + 1), 1.0)
        for n, word in enumerate(text.split())
    )
    return Final(utterance, text, words, start, end, 1.0, start - 0.3, end + 0.1, at, continues)


def received(*items: tuple[float, Event]) -> list[Received]:
    return [Received(event, wall) for wall, event in items]


def test_the_clock_counts_packets() -> None:
    assert CLOCK.spoken(1.5) == 101.5
    # Sample 31 of a packet of 320 is there with the packet's end.
    assert CLOCK.due(0.002) == pytest.approx(100.02)
    assert CLOCK.due(0.02) == pytest.approx(100.02)
    assert CLOCK.due(0.0201) == pytest.approx(100.04)
    assert CLOCK.fed(99.0) == 0.0
    assert CLOCK.fed(100.019) == 0.0
    assert CLOCK.fed(100.02) == pytest.approx(0.02)
    assert CLOCK.fed(200.0) == 5.0


def test_an_utterance_that_is_one_clip() -> None:
    [heard] = observe(
        received(
            (101.3, SpeechStarted(0, 1.12, 1.216)),
            (101.55, Partial(0, "", "turn", 1.536)),
            (101.80, Partial(0, "turn", " it", 1.76)),
            (102.25, SpeechEnded(0, 2.0, 2.208)),
            (102.26, final(0, "turn it on", 1.12, 2.0, at=2.208)),
        ),
        CLOCK,
        TIMELINE,
        CLIPS,
    )
    assert heard.clip == 0
    assert heard.record.onset == pytest.approx(101.1)  # the clip knows better than the engine
    assert heard.record.voice_end == pytest.approx(102.0)
    assert time_to_final(heard.record) == pytest.approx(0.04)  # 2.208 s is there at 2.22
    assert first_partial(heard.record) == pytest.approx(0.45)
    assert first_stable_word(heard.record) == pytest.approx(101.8 - 101.35)
    assert partial_lags(heard.record) == pytest.approx([1.54 - 1.536, 1.8 - 1.76])


def test_word_times_of_the_final_stand_in_for_unknown_ones() -> None:
    [heard] = observe(
        received(
            (103.4, SpeechStarted(0, 3.2, 3.3)),
            (104.3, SpeechEnded(0, 4.0, 4.2)),
            (104.3, final(0, "yes", 3.2, 4.0, at=4.2)),
        ),
        CLOCK,
        TIMELINE,
        CLIPS,
    )
    assert heard.clip == 1
    assert heard.record.onset == pytest.approx(103.2)
    assert heard.record.first_word_end == pytest.approx(103.3)


def test_a_clip_heard_as_two_utterances() -> None:
    first, second = observe(
        received(
            (101.3, SpeechStarted(0, 1.1, 1.2)),
            (101.6, SpeechEnded(0, 1.3, 1.5)),
            (101.6, final(0, "turn", 1.1, 1.3, at=1.5)),
            (101.9, SpeechStarted(1, 1.6, 1.7)),
            (102.3, SpeechEnded(1, 2.0, 2.2)),
            (102.3, final(1, "it on", 1.6, 2.0, at=2.2)),
        ),
        CLOCK,
        TIMELINE,
        CLIPS,
    )
    assert (first.clip, second.clip) == (0, 0)
    assert second.record.onset == pytest.approx(101.6)
    assert second.record.first_word_end == pytest.approx(101.7)
    assert texts_by_place([first, second]) == {0: "turn it on"}


def test_what_has_no_final_and_what_is_no_clip() -> None:
    heard = observe(
        received(
            (100.5, SpeechStarted(0, 0.2, 0.3)),
            (100.9, final(0, "", 0.2, 0.5, at=0.8)),
            (101.3, SpeechStarted(1, 1.1, 1.2)),
            (101.5, Partial(1, "", "turn", 1.4)),
        ),
        CLOCK,
        TIMELINE,
        CLIPS,
    )
    assert [item.clip for item in heard] == [None]
    assert heard[0].record.decided is None
    assert texts_by_place(heard) == {}


def test_overlap_decides() -> None:
    assert overlapped(0.0, 1.0, TIMELINE, CLIPS) is None
    assert overlapped(1.9, 3.6, TIMELINE, CLIPS) == 1
    assert overlapped(1.1, 3.2, TIMELINE, CLIPS) == 0
