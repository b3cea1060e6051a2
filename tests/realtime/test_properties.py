"""The properties find what is wrong: sessions that are right, broken in one place each."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.realtime.driving import Driven, partial, spoken
from tests.realtime.properties import agreement, check_session, outline
from tests.realtime.validation import validate
from tinyvoice.realtime.backends.interface import (
    AudioDelta,
    Finished,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStarted,
)

Log = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def log() -> Log:
    """A conversation with two turns, an answer, a function call and an interruption."""
    driven = Driven()
    heard = {"transcription": {"model": "m"}}
    driven.client("session.update", session={"audio": {"input": heard}})
    driven.engine(spoken("hello there")[0], partial("hello"), *spoken("hello there")[1:])
    driven.backend(
        "resp_1",
        TextDelta("Hi."),
        AudioDelta(bytes(4_800), 100.0),
        ToolCallStarted("c", "f"),
        ToolCallDelta("c", "{}"),
        ToolCallDone("c", "f", "{}"),
        Finished(),
    )
    driven.client("conversation.item.delete", item_id="nobody", event_id="mine")
    driven.client("response.create")
    driven.backend("resp_2", TextDelta("And"))
    driven.client("response.cancel")
    driven.turn("bye", 1, 5.0)
    driven.backend("resp_3", Finished())
    assert check_session(driven.log, complete=True, immediate=True) == []
    return copy.deepcopy(driven.log)


def find(log: Log, kind: str, nth: int = 0) -> int:
    """Where the nth event of a type is."""
    return [at for at, (_, event) in enumerate(log) if event["type"] == kind][nth]


Break = Callable[[Log], Any]


def drop(kind: str, nth: int = 0) -> Break:
    """Without an event."""
    return lambda log: log.pop(find(log, kind, nth))


def repeat(kind: str, nth: int = 0) -> Break:
    """With an event twice, the second time with its own identifier."""

    def change(log: Log) -> None:
        at = find(log, kind, nth)
        again = copy.deepcopy(log[at][1])
        if "event_id" in again:
            again["event_id"] += "_again"
        log.insert(at + 1, (log[at][0], again))

    return change


def move(kind: str, before: str) -> Break:
    """With an event earlier than it was."""

    def change(log: Log) -> None:
        event = log.pop(find(log, kind))
        log.insert(find(log, before), event)

    return change


def put(kind: str, nth: int = 0, **fields: Any) -> Break:
    """With other values in an event."""
    return lambda log: log[find(log, kind, nth)][1].update(fields)


TEXT = "conversation.item.input_audio_transcription"


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (drop("session.created"), "event 0 of the server"),
        (repeat("session.created"), "event 1 of the server"),
        (put("session.updated", event_id="event_1"), "of another event"),
        (put("session.updated", event_id=None), "has the event_id None"),
        (drop("input_audio_buffer.speech_stopped"), "which is started"),
        (drop("input_audio_buffer.committed"), "which is stopped"),
        (drop("conversation.item.done"), "which is added"),
        (drop(f"{TEXT}.completed"), "is done at the end"),
        (repeat(f"{TEXT}.completed"), "which is ended"),
        (repeat("input_audio_buffer.speech_started"), "which is started"),
        (move("conversation.item.added", "input_audio_buffer.committed"), "which is"),
        (put("conversation.item.added", 1, previous_item_id=None), "is behind None"),
        (put("conversation.item.added", 1, previous_item_id="x"), "which is not there"),
        (repeat("conversation.item.added", 1), "is added twice"),
        (put("conversation.item.done", 1, previous_item_id="x"), "is done behind x"),
        (put("input_audio_buffer.committed", 1, previous_item_id="x"), "is committed behind"),
        (drop("response.created"), "which was not created"),
        (repeat("response.created"), "is created twice"),
        (drop("response.done"), "is not done at the end"),
        (repeat("response.done"), "is done twice"),
        (move("response.done", "response.output_item.done"), "after its end"),
        (drop("response.output_item.done"), "are open"),
        (drop("response.content_part.done"), "before its part"),
        (drop("response.content_part.added"), "without an open part"),
        (put("response.output_audio_transcript.done", transcript="x"), "its deltas"),
        (put("response.function_call_arguments.done", arguments="x"), "its deltas"),
        (put("response.output_item.added", 1, output_index=2), "output 2 follows 0"),
        (move("response.cancel", "response.output_audio_transcript.delta"), "was cancelled"),
        (put(f"{TEXT}.delta", delta=""), "an empty delta"),
        (put(f"{TEXT}.delta", 1, item_id="x"), "among those of"),
        (move(f"{TEXT}.completed", f"{TEXT}.delta"), "after its end"),
        (put("input_audio_buffer.speech_started", audio_start_ms=1.5), "audio_start_ms 1.5"),
        (put("input_audio_buffer.speech_stopped", audio_end_ms=0), "speech ends at 0 ms"),
        (put("input_audio_buffer.speech_started", 1, audio_start_ms=5), "speech begins at 5 ms"),
        (repeat("error"), "an error too many"),
        (lambda log: log[find(log, "error")][1]["error"].pop("param"), "an error has the keys"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found(log: Log, broken: Break, words: str) -> None:
    broken(log)
    faults = check_session(log, complete=True, immediate=True)
    assert any(words in fault for fault in faults), faults


def test_a_session_sent_back_must_not_change(log: Log) -> None:
    session = log[0][1]["session"]
    asked = ("client", {"type": "session.update", "session": session})
    changed = {
        "type": "session.updated",
        "event_id": "x",
        "session": session | {"instructions": "x"},
    }
    log[1:1] = [asked, ("server", changed)]
    assert any("sent back" in fault for fault in check_session(log))


def test_a_session_that_breaks_off_is_no_fault(log: Log) -> None:
    for end in range(1, len(log)):
        assert check_session(log[:end], immediate=True) == []


def test_the_outline_of_a_session(log: Log) -> None:
    assert outline(log) == [(700, 2000, "hello there"), (4700, 6000, "bye")]
    assert agreement([log]) == (2, 2)
    put(f"{TEXT}.completed", transcript="hello bear")(log)
    assert agreement([log]) == (1, 2)


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        ("transcription", {"type": "input_audio_buffer.cleared"}),
        ("transcription", {"type": "no.such.event", "event_id": "e"}),
        ("realtime", {"type": "error", "event_id": "e", "error": {"message": None, "type": "x"}}),
        (
            "transcription",
            {
                "type": "input_audio_buffer.speech_started",
                "event_id": "e",
                "item_id": "i",
                "audio_start_ms": 12.5,
            },
        ),
    ],
)
def test_events_that_strict_clients_refuse(kind: str, event: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        validate(event, kind)
