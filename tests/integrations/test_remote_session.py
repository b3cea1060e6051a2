"""`RemoteSession`, by lists of events: what goes to a server, what is kept for the next one."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest

from tinyvoice.engine import Final, Partial, SpeechEnded, SpeechStarted, UtteranceFailed
from tinyvoice.integrations.remote_session import RATE, Committed, RemoteSession, ServerSays

SECOND = RATE * 2
"""Bytes."""


def session(keep_s: float = 30.0) -> RemoteSession:
    return RemoteSession({"type": "transcription"}, padding_s=0.3, keep_s=keep_s)


def sound(seconds: float, value: int = 1) -> bytes:
    return bytes([value, 0]) * round(RATE * seconds)


def sent(remote: RemoteSession) -> list[Any]:
    """What goes out now: the seconds of appended audio, and the types of the other events."""
    found: list[Any] = []
    while (message := remote.to_send()) is not None:
        event = json.loads(message)
        if event["type"] == "input_audio_buffer.append":
            found.append(len(base64.b64decode(event["audio"])) / SECOND)
        else:
            found.append(event["type"].rpartition(".")[2])
    return found


def told(remote: RemoteSession, *events: Mapping[str, Any]) -> list[Any]:
    return [found for event in events for found in remote.receive(event)]


def started(item: str, at_ms: int) -> dict[str, Any]:
    return {
        "type": "input_audio_buffer.speech_started",
        "item_id": item,
        "audio_start_ms": at_ms,
    }


def partial(item: str, stable: str, tail: str, at_ms: int) -> dict[str, Any]:
    return {
        "type": "tinyvoice.transcription.partial",
        "item_id": item,
        "content_index": 0,
        "stable": stable,
        "tail": tail,
        "at_ms": at_ms,
    }


def ended(item: str, at_ms: int, text: str = "yes") -> list[dict[str, Any]]:
    """Everything that a server tells of the end of a turn, its transcript with it."""
    transcription = "conversation.item.input_audio_transcription"
    return [
        {
            "type": "input_audio_buffer.speech_stopped",
            "item_id": item,
            "audio_end_ms": at_ms,
        },
        {"type": "input_audio_buffer.committed", "item_id": item, "previous_item_id": None},
        {
            "type": f"{transcription}.completed",
            "item_id": item,
            "content_index": 0,
            "transcript": text,
            "usage": {"type": "duration", "seconds": 0.9},
            "logprobs": [{"token": text, "bytes": [], "logprob": 0.0}],
        },
        {
            "type": "tinyvoice.transcription.words",
            "item_id": item,
            "content_index": 0,
            "words": [{"word": text, "start_ms": at_ms - 500, "end_ms": at_ms, "confidence": 1.0}],
        },
    ]


def test_an_utterance_from_audio_to_text() -> None:
    remote = session()
    remote.feed(sound(0.2))
    assert remote.to_send() is None  # nobody listens yet
    remote.opened()
    assert sent(remote) == ["update", 0.2]
    remote.feed(sound(1.0))
    mark = remote.commit()
    assert sent(remote) == [1.0, "commit"]
    found = told(remote, started("a", 100), partial("a", "", "ye", 900), *ended("a", 1200))
    assert found[:4] == [
        SpeechStarted(0, 0.4, 0.4),
        Partial(0, "", "ye", 0.9),
        SpeechEnded(0, 1.2, 1.2),
        Committed(mark, 0),
    ]
    [final] = found[4:]
    assert isinstance(final, Final)
    assert (final.text, final.start, final.end, final.confidence) == ("yes", 0.7, 1.2, 1.0)
    assert [(word.text, word.start, word.end) for word in final.words] == [("yes", 0.7, 1.2)]
    assert final.audio_end - final.audio_start == pytest.approx(0.9)
    assert remote.settled is True


def test_what_was_not_answered_goes_to_the_next_session_too() -> None:
    remote = session()
    remote.opened()
    remote.feed(sound(1.0))
    sent(remote)
    told(remote, started("a", 0), *ended("a", 800))
    remote.feed(sound(1.0))
    sent(remote)
    told(remote, started("b", 900), partial("b", "", "no", 1800))
    remote.lost()
    remote.feed(sound(0.5))
    mark = remote.commit()
    remote.opened()
    # From the first audio that the answered utterance did not reach to the end of.
    assert sent(remote) == ["update", 1.0, 1.0, 0.5, "commit"]
    found = told(remote, started("c", 100), *ended("c", 1500, "no"))
    assert Committed(mark, 2) in found
    final = found[-1]
    assert final.text == "no"
    # Times go on where the stream is, though the session began anew.
    assert final.end == pytest.approx(1.5)
    assert remote.settled is True
    assert remote.take_lost() == 0.0


def test_answered_audio_is_let_go() -> None:
    remote = session()
    remote.opened()
    for _ in range(10):
        remote.feed(sound(0.1))
        sent(remote)
    told(remote, started("a", 0), *ended("a", 800))
    remote.lost()
    remote.opened()
    assert sent(remote) == ["update", pytest.approx(0.2)]


def test_of_silence_only_the_last_seconds_are_kept() -> None:
    remote = session()
    remote.opened()
    for _ in range(100):
        remote.feed(sound(0.1, 0))
        sent(remote)
    remote.lost()
    remote.opened()
    assert sum(part for part in sent(remote) if part != "update") == pytest.approx(5.0, abs=0.11)


def test_what_is_too_old_is_lost_and_told() -> None:
    remote = session(keep_s=3.0)
    for _ in range(50):
        remote.feed(sound(0.1))
    remote.opened()
    assert remote.take_lost() == pytest.approx(2.0)
    assert remote.take_lost() == 0.0
    assert sum(part for part in sent(remote) if part != "update") == pytest.approx(3.0)
    [start] = told(remote, started("a", 0))
    assert start.time == pytest.approx(2.0 + 0.3)


def test_a_commit_of_nothing_is_answered() -> None:
    remote = session()
    remote.opened()
    mark = remote.commit()
    assert sent(remote) == ["update", "commit"]
    error = {
        "type": "error",
        "error": {
            "code": "input_audio_buffer_commit_empty",
            "message": "too small",
            "event_id": f"commit_{mark}",
        },
    }
    assert told(remote, error) == [Committed(mark, None)]
    assert remote.settled is True


def test_a_clear_answers_the_commits_before_it_and_forgets_what_goes_on() -> None:
    remote = session()
    remote.opened()
    remote.feed(sound(1.0))
    mark = remote.commit()
    remote.clear()
    assert sent(remote) == ["update", 1.0, "commit", "clear"]
    cleared = {"type": "input_audio_buffer.cleared"}
    assert told(remote, started("a", 0), cleared)[1:] == [Committed(mark, None)]
    assert remote.settled is True
    assert remote.unfinished() == []


def test_a_clear_while_nobody_listens_keeps_what_was_committed() -> None:
    remote = session()
    remote.feed(sound(1.0))
    remote.commit()
    remote.feed(sound(2.0))
    remote.clear()
    remote.feed(sound(0.5))
    remote.opened()
    assert sent(remote) == ["update", 1.0, "commit", "clear", 0.5]
    [start] = told(remote, started("a", 1000))
    assert start.time == pytest.approx(3.0 + 0.3)


def test_what_had_been_understood_is_there_when_no_server_comes_back() -> None:
    remote = session()
    remote.opened()
    remote.feed(sound(1.0))
    sent(remote)
    told(remote, started("a", 0), partial("a", "good", " mor", 900))
    remote.lost()
    [final] = remote.unfinished()
    assert (final.text, final.utterance) == ("good mor", 0)
    assert remote.unfinished() == []


def test_failures_and_reports_of_the_server() -> None:
    remote = session()
    remote.opened()
    remote.feed(sound(1.0))
    sent(remote)
    failed = {
        "type": "conversation.item.input_audio_transcription.failed",
        "item_id": "a",
        "content_index": 0,
        "error": {"type": "server_error", "message": "no"},
    }
    [_, failure] = told(remote, started("a", 0), failed)
    assert isinstance(failure, UtteranceFailed)
    report = {"type": "error", "error": {"code": "invalid_value", "message": "bad"}}
    [says] = told(remote, report)
    assert isinstance(says, ServerSays)
    assert "bad" in str(says.error)
    # A close of the connection says the same, and better.
    assert told(remote, {"type": "error", "error": {"code": "session_expired"}}) == []


def test_settings_go_out_before_the_audio_behind_them() -> None:
    remote = session()
    remote.opened()
    sent(remote)
    remote.feed(sound(0.1))
    remote.configure({"type": "transcription", "include": []}, 0.1)
    assert sent(remote) == ["update", 0.1]
