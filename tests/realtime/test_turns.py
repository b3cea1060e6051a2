"""The user's turns: events of the engine in, items and transcripts out."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.realtime.driving import (
    Driven,
    final,
    kinds,
    only_error,
    partial,
    plain,
    spoken,
)
from tinyvoice.engine.errors import EngineError
from tinyvoice.engine.events import (
    Failed,
    Final,
    SpeechEnded,
    SpeechStarted,
    TokenLogprob,
    UtteranceFailed,
)
from tinyvoice.errors import ConfigurationError
from tinyvoice.model.transcript import Word
from tinyvoice.realtime.backends.interface import AudioDelta, Finished, TextDelta
from tinyvoice.realtime.limits import SessionLimits
from tinyvoice.realtime.outputs import (
    CancelTimer,
    Clear,
    Commit,
    Disconnect,
    Feed,
    Flush,
    Generate,
    SetTimer,
)

TRANSCRIPTION = "conversation.item.input_audio_transcription"
COMMITTED = [
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
]
STOPPED = ["input_audio_buffer.speech_stopped", *COMMITTED]
ERROR = EngineError("The model failed for this utterance; the stream goes on.")


def manual(kind: str = "transcription", **options: Any) -> Driven:
    """A session in which the client commits."""
    driven = Driven(kind, **options)
    heard = {"turn_detection": None, "transcription": {"model": "m"}}
    driven.client("session.update", session={"audio": {"input": heard}})
    return driven


def deltas(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """(item, text) of each delta."""
    return [(e["item_id"], e["delta"]) for e in events if e["type"] == f"{TRANSCRIPTION}.delta"]


def said(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """(item, transcript) of each completed turn."""
    found = [e for e in events if e["type"] == f"{TRANSCRIPTION}.completed"]
    return [(e["item_id"], e["transcript"]) for e in found]


# --- with turn detection --------------------------------------------------------------------------


def test_a_turn_from_its_first_sound_to_its_transcript() -> None:
    driven = Driven("transcription")
    assert driven.append(3) == []
    assert driven.done == [Feed(bytes(144_000))]
    assert [plain(event) for event in driven.engine(SpeechStarted(0, 1.0, 1.1))] == [
        {
            "type": "input_audio_buffer.speech_started",
            "audio_start_ms": 700,
            "item_id": "item_1",
        }
    ]
    assert driven.done == [SetTimer("stall", 2.0)]
    assert driven.engine(partial("", "he")) == []
    assert [plain(event) for event in driven.engine(partial("hello", " wor"))] == [
        {
            "type": f"{TRANSCRIPTION}.delta",
            "item_id": "item_1",
            "content_index": 0,
            "delta": "hello",
        }
    ]
    item = {
        "id": "item_1",
        "object": "realtime.item",
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_audio", "transcript": None}],
    }
    assert [plain(event) for event in driven.engine(SpeechEnded(0, 1.5, 2.0))] == [
        {"type": STOPPED[0], "audio_end_ms": 2000, "item_id": "item_1"},
        {"type": STOPPED[1], "previous_item_id": None, "item_id": "item_1"},
        {"type": STOPPED[2], "previous_item_id": None, "item": item},
        {"type": STOPPED[3], "previous_item_id": None, "item": item},
    ]
    assert driven.done == [CancelTimer("stall")]
    assert [plain(event) for event in driven.engine(final("hello world"))] == [
        {
            "type": f"{TRANSCRIPTION}.delta",
            "item_id": "item_1",
            "content_index": 0,
            "delta": " world",
        },
        {
            "type": f"{TRANSCRIPTION}.completed",
            "item_id": "item_1",
            "content_index": 0,
            "transcript": "hello world",
            "usage": {"type": "duration", "seconds": 1.0},
        },
    ]
    driven.check()


def test_a_transcript_is_found_in_the_item_afterwards() -> None:
    driven = Driven("transcription")
    driven.turn("hello")
    (event,) = driven.client("conversation.item.retrieve", item_id="item_1")
    assert event["item"]["content"] == [{"type": "input_audio", "transcript": "hello"}]


def test_turns_follow_one_another() -> None:
    driven = Driven("transcription")
    driven.turn("one", 0, at=1.0)
    events = driven.turn("two", 1, at=2.1)
    assert events[0]["audio_start_ms"] == 2000  # where the first one ended
    assert events[2]["previous_item_id"] == "item_1"
    assert said(events) == [("item_2", "two")]
    driven.check()


def test_padding_does_not_reach_before_the_beginning() -> None:
    driven = Driven("transcription")
    (event,) = driven.engine(SpeechStarted(0, 0.1, 0.2))
    assert event["audio_start_ms"] == 0


def test_nothing_is_told_of_a_turn_before_the_one_ahead_is_settled() -> None:
    driven = Driven("transcription")
    driven.engine(*spoken("one")[:2])
    events = driven.engine(SpeechStarted(1, 3.0, 3.1), partial("two", utterance=1, at=3.4))
    assert kinds(events) == ["input_audio_buffer.speech_started"]
    events = driven.engine(final("one"))
    assert [e["item_id"] for e in events] == ["item_1", "item_1", "item_2"]
    assert deltas(events) == [("item_1", "one"), ("item_2", "two")]
    driven.engine(*spoken("two", 1, 3.0)[1:])
    driven.check()


def test_deltas_only_grow() -> None:
    driven = Driven("transcription")
    driven.engine(SpeechStarted(0, 1.0, 1.1))
    events = driven.engine(partial("one", " tow"), partial("one", " two"), partial("one two"))
    assert deltas(events) == [("item_1", "one"), ("item_1", " two")]
    # What the final pass hears otherwise is told by the transcript alone.
    events = driven.engine(SpeechEnded(0, 1.5, 2.0), final("One two three"))
    assert deltas(events) == []
    assert said(events) == [("item_1", "One two three")]
    driven.check()


def test_silence_after_all_is_completed_with_nothing() -> None:
    driven = Driven("transcription")
    events = driven.turn("")
    assert kinds(events)[-1] == f"{TRANSCRIPTION}.completed"
    assert said(events) == [("item_1", "")]
    driven.check()


def test_a_long_turn_is_one_item() -> None:
    driven = Driven("transcription")
    driven.engine(SpeechStarted(0, 1.0, 1.1), partial("one"))
    first = final("one two", 0, 1.0, end=28.0, audio_end=28.0, continues=True)
    assert deltas(driven.engine(first)) == [("item_1", " two")]
    events = driven.engine(partial("three", " fo", utterance=1, at=33.0))
    assert deltas(events) == [("item_1", " three")]
    last = final("three four", 1, start=28.0, end=34.0, audio_start=28.0, audio_end=34.5, at=35.0)
    events = driven.engine(SpeechEnded(1, 34.0, 35.0), last)
    assert kinds(events) == [*STOPPED, f"{TRANSCRIPTION}.delta", f"{TRANSCRIPTION}.completed"]
    assert said(events) == [("item_1", "one two three four")]
    assert events[-1]["usage"]["seconds"] == 33.8
    driven.check()


def test_a_partial_of_the_next_piece_waits_for_the_one_before() -> None:
    driven = Driven("transcription")
    driven.engine(SpeechStarted(0, 1.0, 1.1))
    driven.engine(final("", at=31.0, continues=True))
    assert deltas(driven.engine(partial("so", utterance=1, at=33.0))) == [("item_1", "so")]


def test_an_utterance_that_cannot_be_transcribed() -> None:
    driven = Driven("transcription")
    driven.engine(*spoken("")[:2])
    (event,) = driven.engine(UtteranceFailed(0, ERROR, 2.0))
    assert plain(event) == {
        "type": f"{TRANSCRIPTION}.failed",
        "item_id": "item_1",
        "content_index": 0,
        "error": {
            "type": "server_error",
            "code": "transcription_failed",
            "message": str(ERROR),
        },
    }
    assert said(driven.turn("and on", 1, 3.0)) == [("item_2", "and on")]
    driven.check()


def test_a_long_turn_fails_once() -> None:
    driven = Driven("transcription")
    driven.engine(SpeechStarted(0, 1.0, 1.1))
    assert driven.engine(UtteranceFailed(0, ERROR, 31.0, continues=True)) == []
    events = driven.engine(SpeechEnded(1, 34.0, 35.0), final("rest", 1, at=34.0))
    assert kinds(events) == [*STOPPED, f"{TRANSCRIPTION}.delta", f"{TRANSCRIPTION}.failed"]
    driven.check()


def test_a_stream_that_fails_fails_its_turns() -> None:
    driven = Driven("transcription")
    driven.engine(SpeechStarted(0, 1.0, 1.1))
    events = driven.engine(Failed(ERROR, 1.2))
    assert kinds(events) == [*STOPPED, f"{TRANSCRIPTION}.failed", "error"]
    assert events[-1]["error"]["type"] == "server_error"
    assert driven.put(Disconnect) == [Disconnect(1011, "server error")]
    assert driven.session.closed
    driven.check()


# --- commits under turn detection -----------------------------------------------------------------


def test_a_commit_ends_the_turn_and_begets_no_answer() -> None:
    driven = Driven()
    driven.append(3)
    driven.engine(SpeechStarted(0, 1.0, 1.1))
    assert driven.client("input_audio_buffer.commit") == []
    (commit,) = driven.put(Commit)
    events = driven.engine(SpeechEnded(0, 3.0, 3.0), final("hello", at=2.0))
    assert kinds(events) == STOPPED
    assert driven.put(Generate) == []
    assert driven.tell("committed", commit.item_id, 0) == []
    driven.check()


def test_a_commit_whose_answer_comes_before_the_events() -> None:
    driven = Driven("transcription")
    driven.append(3)
    driven.engine(SpeechStarted(0, 1.0, 1.1))
    driven.client("input_audio_buffer.commit")
    (commit,) = driven.put(Commit)
    events = driven.tell("committed", commit.item_id, 0)
    assert kinds(events) == STOPPED
    assert events[0]["audio_end_ms"] == 3000
    assert driven.engine(SpeechEnded(0, 3.0, 3.0)) == []
    assert said(driven.engine(final("hello", at=2.0))) == [("item_1", "hello")]
    driven.check()


def test_a_commit_whose_utterance_is_not_known_yet() -> None:
    driven = Driven("transcription")
    driven.append(3)
    driven.client("input_audio_buffer.commit")
    (commit,) = driven.put(Commit)
    assert kinds(driven.tell("committed", commit.item_id, 0)) == COMMITTED
    assert driven.engine(*spoken("late")[:2]) == []
    assert said(driven.engine(final("late"))) == [(commit.item_id, "late")]
    driven.check()


def test_a_commit_of_a_piece_that_is_not_known_yet() -> None:
    driven = Driven()
    driven.append(40)
    driven.engine(SpeechStarted(0, 1.0, 1.1))
    driven.client("input_audio_buffer.commit")
    (commit,) = driven.put(Commit)
    assert driven.tell("committed", commit.item_id, 1) == []
    driven.engine(final("one", 0, at=30.0, continues=True))
    events = driven.engine(SpeechEnded(1, 40.0, 40.0))
    assert kinds(events) == STOPPED
    driven.engine(final("two", 1, at=39.0))
    assert driven.put(Generate) == []  # the client ended it
    driven.client("response.create")
    assert driven.generated.request.items[0]["content"][0]["transcript"] == "one two"
    driven.check(complete=False)


def test_a_commit_of_silence_is_an_item_without_words() -> None:
    driven = Driven("transcription")
    driven.append(1)
    driven.client("input_audio_buffer.commit")
    (commit,) = driven.put(Commit)
    events = driven.tell("committed", commit.item_id, None)
    assert kinds(events) == [*COMMITTED, f"{TRANSCRIPTION}.completed"]
    assert said(events) == [(commit.item_id, "")]
    driven.check()


def test_a_commit_just_after_the_turn_ended_by_itself() -> None:
    driven = Driven("transcription")
    driven.append(2.05)
    driven.client("input_audio_buffer.commit", event_id="late")
    (commit,) = driven.put(Commit)
    driven.turn("hello")
    error = only_error(driven.tell("committed", commit.item_id, None))
    assert error["code"] == "input_audio_buffer_commit_empty"
    assert error["event_id"] == "late"
    assert "50.00ms" in error["message"]
    driven.check()


def test_a_commit_without_audio() -> None:
    driven = Driven("transcription")
    driven.append(0.02)
    error = only_error(driven.client("input_audio_buffer.commit", event_id="mine"))
    assert error["event_id"] == "mine"
    assert error["message"] == (
        "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, "
        "but buffer only has 20.00ms of audio."
    )
    assert driven.done == []


def test_a_clear_waits_for_the_commit_before_it() -> None:
    # At the end of its input a client commits and clears, and waits for both.
    driven = Driven("transcription")
    driven.append(3)
    driven.engine(SpeechStarted(0, 1.0, 1.1))
    driven.client("input_audio_buffer.commit")
    (commit,) = driven.put(Commit)
    assert driven.client("input_audio_buffer.clear") == []
    assert driven.done == [Clear()]
    driven.engine(SpeechEnded(0, 3.0, 3.0), final("hello", at=2.0))
    assert kinds(driven.tell("committed", commit.item_id, 0)) == ["input_audio_buffer.cleared"]
    driven.check()


def test_a_turn_without_audio_ends_by_the_clock() -> None:
    driven = Driven()
    driven.append(2)
    driven.engine(SpeechStarted(0, 1.0, 1.1))
    driven.append(0.5)
    driven.tell("timer", "stall")
    assert driven.done == [SetTimer("stall", 2.0)]  # audio has come meanwhile
    driven.tell("timer", "stall")
    (commit,) = driven.put(Commit)
    driven.tell("committed", commit.item_id, 0)
    driven.engine(SpeechEnded(0, 2.5, 2.5), final("hello", at=1.5))
    assert driven.put(Generate)  # the turn is over: it is answered
    assert driven.tell("timer", "stall") == []
    assert driven.done == []
    driven.check(complete=False)


def test_a_turn_that_the_engine_does_not_know_ends_too() -> None:
    # No engine does this; the turn would go on for ever if one did.
    driven = Driven("transcription")
    driven.append(2)
    driven.engine(SpeechStarted(0, 1.0, 1.1), partial("hello"))
    driven.tell("timer", "stall")
    (commit,) = driven.put(Commit)
    assert driven.tell("committed", commit.item_id, None) == []
    driven.tell("timer", "stall")
    (commit,) = driven.put(Commit)
    events = driven.tell("committed", commit.item_id, None)
    assert kinds(events)[:4] == STOPPED
    assert said(events) == [("item_1", "hello")]
    driven.check()


def test_a_turn_that_goes_on_for_ever_is_ended() -> None:
    driven = Driven("transcription", limits={"uncommitted_seconds": 5.0})
    driven.append(2)
    driven.engine(SpeechStarted(0, 1.0, 1.1))
    driven.append(3)
    assert driven.put(Commit) == []
    driven.append(1)
    assert len(driven.put(Commit)) == 1
    driven.append(1)
    assert driven.put(Commit) == []


# --- clear ----------------------------------------------------------------------------------------


def test_a_cleared_turn_is_never_heard_of_again() -> None:
    driven = Driven("transcription")
    driven.append(3)
    driven.engine(SpeechStarted(0, 1.0, 1.1), partial("hello"))
    assert kinds(driven.client("input_audio_buffer.clear")) == ["input_audio_buffer.cleared"]
    assert driven.done == [Clear(), CancelTimer("stall")]
    assert driven.engine(partial("hello world"), SpeechEnded(0, 1.5, 2.0), final("hello")) == []
    # What had not been heard when the clear came is forgotten as well.
    assert driven.engine(SpeechStarted(1, 2.5, 2.6), partial("x", utterance=1, at=2.9)) == []
    driven.append(3)
    assert said(driven.turn("again", 2, at=4.0)) == [("item_2", "again")]
    driven.check()


def test_two_clears_in_a_row() -> None:
    driven = Driven("transcription")
    driven.append(1)
    driven.client("input_audio_buffer.clear")
    driven.append(1)
    driven.client("input_audio_buffer.clear")
    assert driven.engine(SpeechStarted(0, 0.5, 0.6), SpeechStarted(1, 1.5, 1.6)) == []


def test_a_clear_without_audio_is_answered() -> None:
    assert kinds(Driven().client("input_audio_buffer.clear")) == ["input_audio_buffer.cleared"]


# --- without turn detection -----------------------------------------------------------------------


def test_a_manual_turn() -> None:
    driven = manual()
    driven.append(1)
    assert deltas(driven.engine(partial("hello", at=0.5))) == [("item_1", "hello")]
    events = driven.client("input_audio_buffer.commit")
    assert driven.done == [Commit("item_1"), CancelTimer("stall")]
    assert kinds(events) == COMMITTED
    assert events[0]["item_id"] == "item_1"
    # Audio from now on belongs to the next item.
    driven.append(1)
    assert driven.tell("committed", "item_1", 0) == []
    events = driven.engine(final("hello world", at=0.0))
    assert kinds(events) == [f"{TRANSCRIPTION}.delta", f"{TRANSCRIPTION}.completed"]
    assert deltas(driven.engine(partial("next", utterance=1, at=1.5))) == [("item_2", "next")]
    driven.client("input_audio_buffer.commit")
    assert driven.tell("committed", "item_2", 1) == []
    assert said(driven.engine(final("next one", 1, at=1.0))) == [("item_2", "next one")]
    driven.check()


def test_two_commits_before_anything_is_heard() -> None:
    driven = manual()
    driven.append(1)
    driven.client("input_audio_buffer.commit")
    driven.append(1)
    driven.client("input_audio_buffer.commit")
    events = driven.engine(final("one", 0, at=0.0), final("two", 1, at=1.0))
    assert said(events) == [("item_1", "one"), ("item_2", "two")]
    assert driven.tell("committed", "item_1", 0) == []
    assert driven.tell("committed", "item_2", 1) == []
    driven.check()


def test_a_manual_commit_of_nothing_that_was_heard() -> None:
    driven = manual()
    driven.append(1)
    driven.client("input_audio_buffer.commit")
    assert said(driven.tell("committed", "item_1", None)) == [("item_1", "")]
    driven.check()


def test_a_manual_commit_of_too_little() -> None:
    driven = manual()
    driven.append(1)
    driven.client("input_audio_buffer.commit")
    driven.append(0.05)
    error = only_error(driven.client("input_audio_buffer.commit"))
    assert error["code"] == "input_audio_buffer_commit_empty"
    driven.append(0.05)
    assert kinds(driven.client("input_audio_buffer.commit")) == COMMITTED


def test_a_long_manual_turn_is_one_item() -> None:
    driven = manual()
    driven.append(40)
    driven.engine(final("one", 0, at=30.0, continues=True), partial("two", utterance=1, at=33.0))
    driven.client("input_audio_buffer.commit")
    driven.tell("committed", "item_1", 1)
    assert said(driven.engine(final("two", 1, at=39.0))) == [("item_1", "one two")]
    driven.check()


def test_a_manual_clear() -> None:
    driven = manual()
    driven.append(1)
    driven.engine(partial("hello", at=0.5))
    driven.client("input_audio_buffer.clear")
    assert driven.engine(partial("hello you", at=0.9)) == []
    error = only_error(driven.client("input_audio_buffer.commit"))
    assert error["code"] == "input_audio_buffer_commit_empty"
    driven.append(1)
    assert deltas(driven.engine(partial("new", utterance=1, at=1.5))) == [("item_2", "new")]
    driven.check(complete=False)


def piece(text: str, utterance: int, start: float, end: float, continues: bool = True) -> Final:
    """A part of speech that the engine has cut at a quiet point."""
    bounds = {"start": start, "end": end, "audio_start": start, "audio_end": end}
    return final(text, utterance, **bounds, at=end, continues=continues)


def test_a_full_buffer_drops_its_oldest_audio_and_says_so_once() -> None:
    driven = manual(limits={"uncommitted_seconds": 2.0})
    assert driven.append(2) == []
    error = only_error(driven.append(0.1))
    assert error["code"] == "input_audio_buffer_full"
    assert len(driven.put(Feed)) == 1
    for _ in range(50):
        assert driven.append(0.1) == []
    assert kinds(driven.client("input_audio_buffer.commit")) == COMMITTED
    assert driven.append(2) == []
    assert kinds(driven.append(0.1)) == ["error"]
    driven.client("input_audio_buffer.clear")
    assert driven.append(2) == []


def test_what_was_told_of_dropped_audio_stays_in_the_transcript() -> None:
    driven = manual(limits={"uncommitted_seconds": 40.0})
    driven.append(30)
    driven.engine(piece("one two", 0, 0.0, 20.0))
    driven.engine(partial("three", utterance=1, at=29.0))
    assert kinds(driven.append(40)) == ["error"]  # the first piece is dropped, not the second
    driven.engine(piece("three four", 1, 20.0, 48.0))
    driven.client("input_audio_buffer.commit")
    driven.tell("committed", "item_1", 2)
    events = driven.engine(piece("five", 2, 48.0, 70.0, continues=False))
    assert said(events) == [("item_1", "one two three four five")]
    assert events[-1]["usage"] == {"type": "duration", "seconds": 70.0}
    driven.check()


def test_speech_is_not_dropped_before_it_is_transcribed() -> None:
    """Nobody is told the text here: what was dropped is missing, what was being heard is not."""
    driven = Driven(limits={"uncommitted_seconds": 40.0})
    driven.client("session.update", session={"audio": {"input": {"turn_detection": None}}})
    driven.append(30)
    driven.engine(piece("one", 0, 0.0, 20.0))
    assert kinds(driven.append(50)) == ["error"]
    driven.engine(piece("two", 1, 20.0, 39.0))  # heard late, as a whole
    driven.client("input_audio_buffer.commit")
    driven.client("response.create")
    driven.tell("committed", "item_1", 2)
    driven.engine(piece("three", 2, 39.0, 80.0, continues=False))
    (heard,) = driven.generated.request.items
    assert heard["content"][0]["transcript"] == "two three"


def test_a_full_buffer_of_a_track_is_told_once() -> None:
    driven = manual(limits={"uncommitted_seconds": 1.0}, transport="webrtc")
    driven.tell("receive_audio", bytes(48_000))
    assert kinds(driven.tell("receive_audio", bytes(960))) == ["error"]
    assert driven.tell("receive_audio", bytes(960)) == []
    assert len(driven.put(Feed)) == 1


# --- other ways of ending -------------------------------------------------------------------------


def test_turn_detection_switched_off_while_somebody_speaks() -> None:
    driven = Driven("transcription")
    driven.append(2)
    driven.engine(SpeechStarted(0, 1.0, 1.1))
    driven.client("session.update", session={"audio": {"input": {"turn_detection": None}}})
    driven.append(1)
    events = driven.client("input_audio_buffer.commit")
    assert kinds(events) == STOPPED
    driven.tell("committed", "item_1", 0)
    assert said(driven.engine(final("hello", at=2.0))) == [("item_1", "hello")]
    driven.check()


def test_turn_detection_switched_on_keeps_what_was_appended() -> None:
    driven = manual()
    driven.append(2)
    vad = {"type": "server_vad"}
    driven.client("session.update", session={"audio": {"input": {"turn_detection": vad}}})
    events = driven.engine(SpeechEnded(0, 1.5, 2.0), final("hello"))
    assert kinds(events)[:3] == COMMITTED
    assert said(events) == [("item_1", "hello")]
    driven.check()


def test_the_clock_counts_samples_of_any_format() -> None:
    driven = manual(limits={"uncommitted_seconds": 10.0})
    update: dict[str, Any] = {"format": {"type": "audio/pcmu"}}
    driven.client("session.update", session={"audio": {"input": update}})
    driven.append(0.08, bytes_per_second=8_000)
    error = only_error(driven.client("input_audio_buffer.commit"))
    assert "80.00ms" in error["message"]


def test_samples_may_be_cut_in_two() -> None:
    driven = manual()
    for _ in range(3):
        audio = base64.b64encode(bytes(1_601)).decode()
        driven.client("input_audio_buffer.append", audio=audio)
    assert driven.put(Feed) == [Feed(bytes(1_601))]
    assert kinds(driven.client("input_audio_buffer.commit")) == COMMITTED  # 2401 samples


# --- what is told of a transcript -----------------------------------------------------------------


def test_without_a_transcription_only_the_language_model_reads_it() -> None:
    driven = Driven()
    events = driven.turn("hello")
    assert not any(kind.startswith(TRANSCRIPTION) for kind in kinds(events))
    assert driven.generated.request.items[0]["content"][0]["transcript"] == "hello"
    (event,) = driven.client("conversation.item.retrieve", item_id="item_1")
    assert event["item"]["content"] == [{"type": "input_audio", "transcript": None}]
    driven.check(complete=False)


def test_log_probabilities_where_they_are_asked_for() -> None:
    driven = Driven("transcription")
    include = ["item.input_audio_transcription.logprobs"]
    driven.client("session.update", session={"include": include})
    tokens = (TokenLogprob("hé", -0.25), TokenLogprob(" you", 0.0))
    driven.engine(*spoken("")[:2])
    events = driven.engine(final("hé you", tokens=tokens))
    assert events[-1]["logprobs"] == [
        {"token": "hé", "bytes": [104, 195, 169], "logprob": -0.25},
        {"token": " you", "bytes": [32, 121, 111, 117], "logprob": 0.0},
    ]
    driven.client("session.update", session={"include": None})
    assert "logprobs" not in driven.turn("again", 1, 3.0)[-1]


def test_word_times_and_unstable_text_where_they_are_asked_for() -> None:
    driven = Driven("transcription")
    driven.client("session.update", session={"include": ["tinyvoice.partials"]})
    driven.engine(SpeechStarted(0, 1.0, 1.1))
    events = driven.engine(partial("hello", " wor", at=1.4))
    assert plain(events[-1]) == {
        "type": "tinyvoice.transcription.partial",
        "item_id": "item_1",
        "content_index": 0,
        "stable": "hello",
        "tail": " wor",
        "at_ms": 1400,
    }
    word = Word("hello", 1.0, 1.25, 0.912345)
    events = driven.engine(SpeechEnded(0, 1.5, 2.0), final("hello", words=(word,)))
    assert plain(events[-1]) == {
        "type": "tinyvoice.transcription.words",
        "item_id": "item_1",
        "content_index": 0,
        "words": [{"word": "hello", "start_ms": 1000, "end_ms": 1250, "confidence": 0.9123}],
    }
    driven.check()


def test_the_unstable_text_of_a_later_piece_has_the_earlier_ones_before_it() -> None:
    driven = Driven("transcription")
    driven.client("session.update", session={"include": ["tinyvoice.partials"]})
    driven.engine(SpeechStarted(0, 1.0, 1.1), final("one two", at=31.0, continues=True))
    events = driven.engine(partial("", "thr", utterance=1, at=33.0))
    assert (events[-1]["stable"], events[-1]["tail"]) == ("one two", " thr")
    events = driven.engine(partial("three", " fo", utterance=1, at=34.0))
    assert (events[-1]["stable"], events[-1]["tail"]) == ("one two three", " fo")


# --- silence after an answer ----------------------------------------------------------------------


def idle(**options: Any) -> Driven:
    """A conversation that does not wait for ever, with its first answer given."""
    driven = Driven(**options)
    detection = {"type": "server_vad", "idle_timeout_ms": 5000}
    driven.client("session.update", session={"audio": {"input": {"turn_detection": detection}}})
    return driven


@pytest.mark.parametrize("step", [0.02, 1.0, 4.9])
def test_silence_after_an_answer_is_a_turn_too(step: float) -> None:
    driven = idle()
    driven.append(3)
    driven.turn("hello")
    response_id = driven.generated.response_id
    driven.backend(response_id, TextDelta("Hi."), Finished())
    seconds, asked = 0.0, False
    while not asked:
        assert driven.append(step) == []
        seconds += step
        asked = bool(driven.put(Flush))
    assert 5.0 - 1e-9 <= seconds < 5.0 + step
    events = driven.tell("flushed", "idle")
    assert kinds(events)[:4] == ["input_audio_buffer.timeout_triggered", *COMMITTED]
    assert (events[0]["audio_start_ms"], events[0]["audio_end_ms"]) == (3000, 8000)
    assert kinds(events)[-1] == "response.created"
    driven.backend(driven.generated.response_id, Finished())
    driven.check()


def test_speech_that_was_not_heard_yet_is_no_silence() -> None:
    driven = idle()
    driven.append(3)
    driven.turn("hello")
    driven.backend(driven.generated.response_id, TextDelta("Hi."), Finished())
    driven.append(10)
    driven.engine(SpeechStarted(1, 7.0, 7.1))
    assert driven.tell("flushed", "idle") == []
    driven.engine(SpeechEnded(1, 7.5, 8.0))
    assert driven.tell("flushed", "idle") == []


def test_silence_is_counted_from_the_end_of_the_answers_audio() -> None:
    driven = idle()
    driven.append(3)
    driven.turn("hello")
    audio = AudioDelta(bytes(48_000), 1_000.0)
    driven.backend(driven.generated.response_id, TextDelta("Hi."), audio, audio, Finished())
    driven.append(6.9)
    assert driven.put(Flush) == []
    driven.append(0.2)
    assert driven.put(Flush) == [Flush("idle")]


def test_a_cough_does_not_end_the_wait() -> None:
    driven = idle()
    driven.append(3)
    driven.turn("hello")
    driven.backend(driven.generated.response_id, TextDelta("Hi."), Finished())
    driven.append(2)
    driven.turn("", 1, 4.0)
    driven.append(4.9)
    assert driven.put(Flush) == []
    driven.append(0.2)
    assert driven.put(Flush) == [Flush("idle")]


def test_limits_are_positive() -> None:
    with pytest.raises(ConfigurationError, match="items is 0"):
        SessionLimits(items=0)
