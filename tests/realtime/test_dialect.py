"""The older dialect: recognised by its shape, understood by everybody, spoken to who speaks it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.realtime.driving import Driven, kinds, plain, spoken
from tinyvoice.realtime.backends.interface import AudioDelta, Finished, TextDelta
from tinyvoice.realtime.outputs import SetFormat

FLAT = {
    "modalities": ["text", "audio"],
    "instructions": "Be kind.",
    "voice": "echo",
    "input_audio_format": "g711_ulaw",
    "output_audio_format": "g711_alaw",
    "input_audio_transcription": {"model": "whisper-1"},
    "input_audio_noise_reduction": {"type": "near_field"},
    "turn_detection": {"type": "server_vad", "silence_duration_ms": 200},
    "tools": [],
    "temperature": 0.7,
    "max_response_output_tokens": 100,
}


def beta(kind: str = "realtime", **options: Any) -> Driven:
    """A connection with the older header."""
    return Driven(kind, dialect="beta", **options)


def test_a_flat_session() -> None:
    driven = beta()
    (event,) = driven.client("session.update", session=FLAT)
    assert event["type"] == "session.updated"
    session = event["session"]
    expected = FLAT | {
        "modalities": ["audio", "text"],
        "input_audio_transcription": {"model": "whisper-1", "language": None, "prompt": None},
        "turn_detection": {
            "type": "server_vad",
            "threshold": 0.5,
            "prefix_padding_ms": 300,
            "silence_duration_ms": 200,
            "idle_timeout_ms": None,
            "create_response": True,
            "interrupt_response": True,
        },
    }
    assert {name: session[name] for name in FLAT} == expected
    assert "audio" not in session
    assert "type" not in session
    assert driven.put(SetFormat) == [SetFormat("mulaw", 8_000)]
    # What is inside is the current form, whoever is spoken to.
    assert driven.session.describe()["audio"]["output"]["format"] == {"type": "audio/pcma"}
    again = driven.client("session.update", session=session)
    assert again[0]["session"] == session
    driven.check()


def test_an_answer_in_the_older_words() -> None:
    driven = beta()
    (created,) = driven.client("response.create", response={"modalities": ["audio", "text"]})
    assert created["response"]["modalities"] == ["audio", "text"]
    assert created["response"]["voice"] == "alloy"
    assert created["response"]["output_audio_format"] == "pcm16"
    events = driven.backend("resp_1", TextDelta("Hi."), AudioDelta(bytes(480), 10.0), Finished())
    assert kinds(events) == [
        "response.output_item.added",
        "conversation.item.created",
        "response.content_part.added",
        "response.audio_transcript.delta",
        "response.audio.delta",
        "response.audio.done",
        "response.audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.done",
    ]
    content = [{"type": "audio", "transcript": "Hi."}]
    assert events[-2]["item"]["content"] == content
    assert events[-1]["response"]["output"][0]["content"] == content
    driven.check()


def test_a_written_answer_in_the_older_words() -> None:
    driven = beta()
    driven.client("response.create", response={"modalities": ["text"], "max_output_tokens": 9})
    assert driven.generated.request.modality == "text"
    events = driven.backend("resp_1", TextDelta("Hi."), Finished())
    assert {"response.text.delta", "response.text.done"} < set(kinds(events))
    assert events[-1]["response"]["modalities"] == ["text"]
    assert events[-1]["response"]["output"][0]["content"] == [{"type": "text", "text": "Hi."}]


def test_an_item_is_announced_once() -> None:
    driven = beta()
    item = {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "a"}]}
    (event,) = driven.client("conversation.item.create", item=item)
    assert event["type"] == "conversation.item.created"
    assert event["item"]["content"] == item["content"]
    (event,) = driven.client("conversation.item.retrieve", item_id="item_1")
    assert event["item"]["content"] == item["content"]
    driven.check()


def test_a_transcription_session_in_the_older_words() -> None:
    driven = beta("transcription", opened=False)
    events = driven.tell("open")
    assert kinds(events) == ["transcription_session.created"]
    session = {
        "input_audio_format": "pcm16",
        "input_audio_transcription": {"model": "gpt-4o-transcribe"},
        "turn_detection": None,
    }
    (event,) = driven.client("transcription_session.update", session=session)
    assert event["type"] == "transcription_session.updated"
    assert event["session"]["turn_detection"] is None
    assert event["session"]["input_audio_transcription"]["model"] == "gpt-4o-transcribe"
    driven.append(1)
    events = driven.client("input_audio_buffer.commit")
    assert kinds(events) == ["input_audio_buffer.committed", "conversation.item.created"]
    driven.tell("committed", "item_1", None)
    driven.check()


@pytest.mark.parametrize(
    "session",
    [
        {"voice": "echo"},
        {"turn_detection": None, "instructions": "x"},
        {"input_audio_format": "pcm16"},
    ],
)
def test_a_flat_first_update_gives_the_dialect_away(session: dict[str, Any]) -> None:
    driven = Driven()
    driven.append(0.1)
    (event,) = driven.client("session.update", session=session)
    assert driven.session.dialect == "beta"
    assert "turn_detection" in event["session"]


@pytest.mark.parametrize(
    "session",
    [
        {"instructions": "x"},
        {"type": "realtime", "voice": "echo"},
        {"audio": {}, "turn_detection": None},
        {"tools": []},
        3,
    ],
)
def test_what_does_not_give_it_away(session: Any) -> None:
    driven = Driven()
    driven.client("session.update", session=session)
    assert driven.session.dialect == "ga"


def test_the_first_event_may_be_of_the_older_kind() -> None:
    driven = Driven("transcription")
    (event,) = driven.client("transcription_session.update", session={})
    assert event["type"] == "transcription_session.updated"
    later = Driven("transcription")
    later.append(0.1)
    (event,) = later.client("transcription_session.update", session={})
    assert event["type"] == "session.updated"


def test_flat_fields_are_understood_of_everybody() -> None:
    driven = Driven()
    (event,) = driven.client(
        "session.update",
        session={
            "type": "realtime",
            "voice": "echo",
            "turn_detection": None,
            "audio": {"output": {"voice": "sage"}},
        },
    )
    assert event["session"]["audio"]["output"]["voice"] == "sage"
    assert event["session"]["audio"]["input"]["turn_detection"] is None


def test_a_turn_in_the_older_words() -> None:
    driven = beta()
    transcription = {"input_audio_transcription": {"model": "whisper-1"}}
    driven.client("session.update", session=transcription)
    events = driven.engine(*spoken("hello"))
    assert kinds(events) == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.created",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
        "response.created",
    ]
    assert plain(events[3])["item"]["content"] == [{"type": "input_audio", "transcript": None}]
    driven.check(complete=False)


def test_nonsense_in_the_older_shape_is_refused_as_well() -> None:
    driven = beta()
    for session in ({"voice": 3}, {"turn_detection": 3}, {"voice": "a", "audio": 3}):
        assert kinds(driven.client("session.update", session=session)) == ["error"]
