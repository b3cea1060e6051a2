"""What `tinyvoice listen` shows, from lists of events."""

from __future__ import annotations

import io
import json
import re

import pytest
from rich.console import Console

from tinyvoice.cli.live_view import (
    JsonLines,
    Latencies,
    Lines,
    Screen,
    event_record,
    final_line,
    meter,
    time_stamp,
    unfinished,
)
from tinyvoice.engine.events import (
    Event,
    Failed,
    Final,
    Partial,
    SpeechEnded,
    SpeechStarted,
    UtteranceFailed,
)
from tinyvoice.errors import AudioError
from tinyvoice.model.transcript import Word

STARTED = SpeechStarted(0, time=1.0, at=1.1)
PARTIAL = Partial(0, stable="turn the", tail=" light", at=1.5)
ENDED = SpeechEnded(0, time=2.0, at=2.5)
FINAL = Final(
    0,
    text="turn the lights off",
    words=(Word("turn", 1.0, 1.25, 0.987654321),),
    start=1.0,
    end=2.0,
    confidence=0.9,
    audio_start=0.7,
    audio_end=2.1,
    at=2.5,
)
NOTHING = Final(1, "", (), 3.0, 3.2, 1.0, 2.9, 3.3, at=3.5)


class Clock:
    """A wall clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_every_event_is_a_record_of_its_fields() -> None:
    assert event_record(STARTED) == {"type": "speech_started", "utterance": 0, "time": 1, "at": 1.1}
    assert event_record(PARTIAL) == {
        "type": "partial",
        "utterance": 0,
        "stable": "turn the",
        "tail": " light",
        "at": 1.5,
    }
    assert event_record(ENDED)["type"] == "speech_ended"
    final = event_record(FINAL)
    assert final["type"] == "final"
    assert final["words"] == [{"text": "turn", "start": 1.0, "end": 1.25, "confidence": 0.9877}]
    assert final["continues"] is False
    failed = event_record(Failed(AudioError("It broke: mend it."), at=3.0))
    assert failed == {"type": "failed", "error": "It broke: mend it.", "at": 3.0}
    assert "tokens" not in final
    lost = event_record(UtteranceFailed(2, AudioError("It broke: mend it."), at=3.0))
    assert lost == {
        "type": "utterance_failed",
        "utterance": 2,
        "error": "It broke: mend it.",
        "at": 3.0,
        "continues": False,
    }
    for event in (STARTED, PARTIAL, ENDED, FINAL):
        json.dumps(event_record(event))


@pytest.mark.parametrize(
    ("seconds", "stamp"),
    [(0, "[00:00.0]"), (9.96, "[00:10.0]"), (59.99, "[01:00.0]"), (3725.24, "[62:05.2]")],
)
def test_time_stamps(seconds: float, stamp: str) -> None:
    assert time_stamp(seconds) == stamp


def test_lines_are_the_finals_that_have_words(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(warn=print) as view:
        for event in (STARTED, PARTIAL, ENDED, FINAL, NOTHING):
            view.show(event)
            view.level(0.5)
    assert capsys.readouterr().out == "[00:01.0] turn the lights off\n"
    assert final_line(FINAL) == "[00:01.0] turn the lights off"


def test_json_lines_are_all_events(capsys: pytest.CaptureFixture[str]) -> None:
    events: list[Event] = [STARTED, PARTIAL, ENDED, FINAL, NOTHING]
    with JsonLines(warn=print) as view:
        for event in events:
            view.show(event)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [event_record(event) for event in events]


def test_words_that_may_change_are_dim() -> None:
    text = unfinished(PARTIAL)
    assert text.plain == "turn the light"
    assert [(text.plain[span.start : span.end], span.style) for span in text.spans] == [
        (" light", "dim")
    ]
    assert unfinished(None).plain == ""


@pytest.mark.parametrize(
    ("peak", "cells", "colour", "decibels"),
    [
        (0.0, 0, "green", "-60 dB"),
        (0.001, 0, "green", "-60 dB"),
        (0.0316, 10, "green", "-30 dB"),
        (0.7, 19, "yellow", "-3 dB"),
        (1.0, 20, "red", "0 dB"),
    ],
)
def test_the_meter_covers_60_decibels(peak: float, cells: int, colour: str, decibels: str) -> None:
    bar = meter(peak)
    assert bar.spans[0].style == (colour if cells else "bright_black")
    assert bar.plain == "━" * 20 + " " + decibels.rjust(7)
    filled = bar.spans[0].end if cells else 0
    assert filled == cells


def test_the_screen_moves_finals_up_and_keeps_the_words_in_flight_below() -> None:
    output = io.StringIO()
    console = Console(
        file=output, force_terminal=True, width=80, highlight=False, color_system=None
    )
    latencies = Latencies(Clock())
    with Screen(console, latencies, "Headset: Ctrl-C ends") as screen:
        screen.show(STARTED)
        screen.show(PARTIAL)
        partial = plain(output)
        screen.show(ENDED)
        screen.show(FINAL)
        screen.warn("Sound was lost.")
    assert "turn the light\n" in partial
    assert "speech" in partial
    assert "Headset: Ctrl-C ends" in partial
    after = plain(output).removeprefix(partial)
    final = after.index("[00:01.0] turn the lights off")
    assert "turn the light\n" not in after[final:]
    assert "warning: Sound was lost." in after[final:]


def plain(output: io.StringIO) -> str:
    """What was written, without the terminal's commands."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.getvalue()).replace("\r", "")


def test_latencies_are_those_of_the_metrics() -> None:
    """Packets of 0.1 s fed at once with their last sample; the events' wall times are chosen."""
    clock = Clock()
    latencies = Latencies(clock)
    begin = clock.now
    assert latencies.line() == ""
    for packet in range(1, 31):
        clock.now = begin + packet * 0.1
        latencies.fed(0.1)
        if packet == 16:
            clock.now += 0.02
            latencies.received(STARTED)
            latencies.received(PARTIAL)  # covers 1.5 s of 1.6 s
        if packet == 25:
            clock.now += 0.03
            latencies.received(ENDED)
            latencies.received(FINAL)
    latencies.received(NOTHING)
    assert latencies.utterances == 1
    assert latencies.fed_s == pytest.approx(3.0)
    assert latencies.line() == "final after 30 ms, first partial 620 ms, partial lag 100 ms"
    assert latencies.summary().splitlines() == [
        "1 utterance, 1.2 s of speech in 3.0 s of sound",
        "time to final: median 30 ms, 95 % within 30 ms",
        "first partial: median 620 ms, 95 % within 620 ms",
        "partial lag: median 100 ms, 95 % within 100 ms",
    ]


def test_without_speech_the_summary_is_one_line() -> None:
    latencies = Latencies(Clock())
    latencies.fed(2.0)
    assert latencies.summary() == "0 utterances, 0.0 s of speech in 2.0 s of sound"
