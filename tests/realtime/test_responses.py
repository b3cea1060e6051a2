"""Responses: what a backend says, and what a client is told of it."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.realtime.driving import (
    Driven,
    final,
    kinds,
    only_error,
    plain,
    spoken,
)
from tinyvoice.engine.events import SpeechEnded, SpeechStarted
from tinyvoice.realtime.backends.interface import (
    AudioDelta,
    BackendFailed,
    Begun,
    Finished,
    SpokenMark,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStarted,
    Usage,
    Waiting,
)
from tinyvoice.realtime.outputs import (
    CancelGeneration,
    CancelTimer,
    Commit,
    Generate,
    Play,
    SetTimer,
    StopPlayback,
)

SECOND = AudioDelta(bytes(48_000), 1_000.0)
MESSAGE = {
    "id": "item_1",
    "object": "realtime.item",
    "type": "message",
    "role": "assistant",
}


def text_session(**options: Any) -> Driven:
    """A conversation that is written."""
    driven = Driven(**options)
    driven.client("session.update", session={"output_modalities": ["text"]})
    return driven


def begun(driven: Driven, **response: Any) -> str:
    """The id of a response that a client asks for."""
    events = driven.client("response.create", response=response)
    assert kinds(events) == ["response.created"]
    response_id: str = events[0]["response"]["id"]
    return response_id


def spoken_answer(driven: Driven, text: str = "Hi there.", seconds: int = 2) -> str:
    """The id of a response that has spoken and goes on; its item is the newest."""
    response_id = begun(driven)
    driven.backend(response_id, TextDelta(text), *[SECOND] * seconds)
    return response_id


def of_kind(events: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The only event of a type."""
    (found,) = [plain(event) for event in events if event["type"] == kind]
    return found


# --- text, audio, functions -----------------------------------------------------------------------


def test_a_written_answer() -> None:
    driven = text_session()
    response_id = begun(driven, metadata={"client_event_id": "c1"})
    assert driven.generated.request.modality == "text"
    events = driven.backend(
        response_id, TextDelta("Hi "), TextDelta("there."), Finished(usage=Usage(3, 2, 1))
    )
    ids = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0}
    empty = MESSAGE | {"status": "in_progress", "content": []}
    whole = MESSAGE | {
        "status": "completed",
        "content": [{"type": "output_text", "text": "Hi there."}],
    }
    part = {"type": "text", "text": "Hi there."}
    output = {"response_id": "resp_1", "output_index": 0}
    assert [plain(event) for event in events[:-1]] == [
        {"type": "response.output_item.added", **output, "item": empty},
        {"type": "conversation.item.added", "previous_item_id": None, "item": empty},
        {"type": "response.content_part.added", **ids, "part": {"type": "text", "text": ""}},
        {"type": "response.output_text.delta", **ids, "delta": "Hi "},
        {"type": "response.output_text.delta", **ids, "delta": "there."},
        {"type": "response.output_text.done", **ids, "text": "Hi there."},
        {"type": "response.content_part.done", **ids, "part": part},
        {"type": "conversation.item.done", "previous_item_id": None, "item": whole},
        {"type": "response.output_item.done", **output, "item": whole},
    ]
    assert plain(events[-1]) == {
        "type": "response.done",
        "response": {
            "object": "realtime.response",
            "id": "resp_1",
            "status": "completed",
            "status_details": None,
            "output": [whole],
            "conversation_id": "conv_1",
            "output_modalities": ["text"],
            "max_output_tokens": "inf",
            "audio": {"output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "alloy"}},
            "usage": {
                "total_tokens": 5,
                "input_tokens": 3,
                "output_tokens": 2,
                "input_token_details": {
                    "text_tokens": 3,
                    "audio_tokens": 0,
                    "image_tokens": 0,
                    "cached_tokens": 1,
                    "cached_tokens_details": {
                        "text_tokens": 1,
                        "audio_tokens": 0,
                        "image_tokens": 0,
                    },
                },
                "output_token_details": {"text_tokens": 2, "audio_tokens": 0},
            },
            "metadata": {"client_event_id": "c1"},
        },
    }
    driven.check()


def test_what_is_created_has_nothing_yet() -> None:
    driven = Driven()
    (event,) = driven.client("response.create", response={"metadata": {"a": "b"}})
    response = event["response"]
    assert (response["status"], response["output"], response["usage"]) == ("in_progress", [], None)
    assert response["metadata"] == {"a": "b"}
    assert driven.done == [driven.generated, SetTimer("response:resp_1", 60.0)]


def test_a_spoken_answer() -> None:
    driven = Driven()
    events = driven.backend(
        begun(driven), TextDelta("Hi."), AudioDelta(b"abc", 1.0), AudioDelta(b"d", 1.0), Finished()
    )
    assert kinds(events) == [
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
        "response.output_audio.delta",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    assert events[2]["part"] == {"type": "audio", "transcript": ""}
    # Whole samples only.
    assert [base64.b64decode(e["delta"]) for e in events[4:6]] == [b"ab", b"cd"]
    assert events[8]["part"] == {"type": "audio", "transcript": "Hi."}
    content = [{"type": "output_audio", "transcript": "Hi."}]
    assert events[9]["item"]["content"] == events[10]["item"]["content"] == content
    assert events[11]["response"]["output"][0]["content"] == content
    driven.check()


def test_audio_is_sent_in_small_pieces() -> None:
    driven = Driven()
    events = driven.backend(begun(driven), AudioDelta(bytes(100_000), 2_083.0))
    pieces = [e["delta"] for e in events if e["type"] == "response.output_audio.delta"]
    assert [len(base64.b64decode(piece)) for piece in pieces] == [48_000, 48_000, 4_000]
    assert max(map(len, pieces)) <= 64 * 1024


def test_g711_audio_has_samples_of_one_byte() -> None:
    driven = Driven()
    audio = {"output": {"format": {"type": "audio/pcmu"}}}
    response_id = begun(driven, audio=audio)
    assert driven.generated.request.encoding == "mulaw"
    events = driven.backend(response_id, AudioDelta(b"abc", 1.0))
    assert base64.b64decode(events[-1]["delta"]) == b"abc"


def test_a_function_call() -> None:
    driven = Driven()
    response_id = begun(driven, tools=[{"type": "function", "name": "look"}])
    events = driven.backend(
        response_id,
        ToolCallStarted("call_a", "look"),
        ToolCallDelta("call_a", '{"at":'),
        ToolCallDelta("call_a", '"it"}'),
        ToolCallDone("call_a", "look", '{"at":"it"}'),
        Finished(),
    )
    call = {
        "id": "item_1",
        "object": "realtime.item",
        "type": "function_call",
        "name": "look",
        "call_id": "call_a",
    }
    begin = call | {"status": "in_progress", "arguments": ""}
    end = call | {"status": "completed", "arguments": '{"at":"it"}'}
    output = {"response_id": "resp_1", "output_index": 0}
    ids = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "call_id": "call_a"}
    arguments = "response.function_call_arguments"
    assert [plain(event) for event in events[:-1]] == [
        {"type": "response.output_item.added", **output, "item": begin},
        {"type": "conversation.item.added", "previous_item_id": None, "item": begin},
        {"type": f"{arguments}.delta", **ids, "delta": '{"at":'},
        {"type": f"{arguments}.delta", **ids, "delta": '"it"}'},
        {"type": f"{arguments}.done", **ids, "name": "look", "arguments": '{"at":"it"}'},
        {"type": "conversation.item.done", "previous_item_id": None, "item": end},
        {"type": "response.output_item.done", **output, "item": end},
    ]
    assert events[-1]["response"]["output"] == [end]
    result = {"type": "function_call_output", "call_id": "call_a", "output": "42"}
    driven.client("conversation.item.create", item=result)
    begun(driven)
    assert [item["type"] for item in driven.generated.request.items] == [
        "function_call",
        "function_call_output",
    ]
    driven.check(complete=False)


def test_words_then_two_functions_while_the_words_are_still_spoken() -> None:
    driven = Driven()
    events = driven.backend(
        begun(driven),
        TextDelta("Let me see."),
        ToolCallStarted("call_a", "a"),
        ToolCallDone("call_a", "a", "{}"),
        SECOND,
        ToolCallDone("call_b", "b", '{"x":1}'),
        Finished(),
    )
    added = [e for e in events if e["type"] == "response.output_item.added"]
    assert [(e["output_index"], e["item"]["type"]) for e in added] == [
        (0, "message"),
        (1, "function_call"),
        (2, "function_call"),
    ]
    output = events[-1]["response"]["output"]
    assert [item.get("arguments") for item in output] == [None, "{}", '{"x":1}']
    assert [item["status"] for item in output] == ["completed"] * 3
    driven.check()


def test_the_names_of_calls_are_short_and_unlike() -> None:
    driven = Driven()
    for wanted in ("same", "same", "x" * 40, ""):
        response_id = begun(driven)
        driven.backend(response_id, ToolCallDone(wanted, "f", "{}"), Finished())
    calls = [
        e["item"]["call_id"] for d, e in driven.log if e["type"] == "response.output_item.done"
    ]
    assert len(set(calls)) == 4
    assert calls[0] == "same"
    assert all(0 < len(call) <= 32 for call in calls)


def test_an_answer_of_nothing() -> None:
    driven = Driven()
    (event,) = driven.backend(begun(driven), Finished())
    assert (event["response"]["status"], event["response"]["output"]) == ("completed", [])
    driven.check()


# --- what it is made from -------------------------------------------------------------------------


def test_what_the_backend_is_asked() -> None:
    driven = Driven(model="m")
    tool = {"type": "function", "name": "look"}
    driven.client(
        "session.update",
        session={"instructions": "Be kind.", "tools": [tool], "max_output_tokens": 50},
    )
    driven.client("conversation.item.create", item=user("hello"))
    begun(driven)
    request = driven.generated.request
    assert [item["content"][0]["text"] for item in request.items] == ["hello"]
    assert request.instructions == "Be kind."
    assert request.tools == [tool]
    assert request.max_output_tokens == 50
    assert (request.modality, request.voice, request.encoding) == ("audio", "alloy", "pcm16")
    assert (request.model, request.tool_choice) == ("m", "auto")


def test_a_request_overrides_the_session() -> None:
    driven = Driven()
    driven.client("session.update", session={"instructions": "Be kind."})
    begun(
        driven,
        instructions="Be brief.",
        output_modalities=["text"],
        tool_choice="none",
        max_output_tokens="inf",
        parallel_tool_calls=False,
        audio={"output": {"voice": "echo"}},
    )
    request = driven.generated.request
    assert (request.instructions, request.modality) == ("Be brief.", "text")
    assert (request.tool_choice, request.parallel_tool_calls) == ("none", False)
    assert (request.max_output_tokens, request.voice) == (None, "echo")
    assert driven.session.configuration["instructions"] == "Be kind."


def test_out_of_band() -> None:
    driven = Driven()
    in_band = begun(driven)
    events = driven.client(
        "response.create",
        response={
            "conversation": "none",
            "output_modalities": ["text"],
            "metadata": {"topic": "t"},
            "input": [user("classify this")],
        },
    )
    assert events[0]["response"]["conversation_id"] is None
    assert [i["content"][0]["text"] for i in driven.generated.request.items] == ["classify this"]
    aside = events[0]["response"]["id"]
    events = driven.backend(aside, TextDelta("Done."), ToolCallDone("c", "f", "{}"), Finished())
    assert not any(kind.startswith("conversation.") for kind in kinds(events))
    assert events[-1]["response"]["metadata"] == {"topic": "t"}
    driven.backend(in_band, TextDelta("Hi."), Finished())
    begun(driven)
    assert len(driven.generated.request.items) == 1
    driven.check(complete=False)


def test_input_in_the_place_of_the_conversation() -> None:
    driven = Driven()
    driven.client("conversation.item.create", item=user("first") | {"id": "one"})
    driven.client("conversation.item.create", item=user("second"))
    begun(driven, input=[{"type": "item_reference", "id": "one"}, user("third")])
    texts = [i["content"][0]["text"] for i in driven.generated.request.items]
    assert texts == ["first", "third"]
    error = only_error(
        driven.client("response.create", response={"conversation": "none", "input": [{"x": 1}]})
    )
    assert error["param"] == "response.input[0].type"


def test_empty_input_is_an_empty_context() -> None:
    driven = Driven()
    driven.client("conversation.item.create", item=user("first"))
    begun(driven, input=[])
    assert driven.generated.request.items == []


@pytest.mark.parametrize(
    ("response", "code", "param"),
    [
        ([], "invalid_type", "response"),
        ({"conversation": "x"}, "invalid_value", "response.conversation"),
        ({"output_modalities": ["x"]}, "invalid_value", "response.output_modalities[0]"),
        ({"metadata": []}, "invalid_type", "response.metadata"),
        ({"metadata": {"a": 3}}, "invalid_type", "response.metadata.a"),
        ({"metadata": {"a": "x" * 513}}, "invalid_value", "response.metadata.a"),
        ({"metadata": {"x" * 65: "a"}}, "invalid_value", "response.metadata"),
        ({"metadata": {str(i): "a" for i in range(17)}}, "invalid_value", "response.metadata"),
        ({"audio": {"output": {"voice": 3}}}, "invalid_type", "response.audio.output.voice"),
        ({"input": {}}, "invalid_type", "response.input"),
        (
            {"input": [{"type": "item_reference"}]},
            "missing_required_parameter",
            "response.input[0].id",
        ),
        (
            {"input": [{"type": "item_reference", "id": "x"}]},
            "invalid_value",
            "response.input[0].id",
        ),
    ],
)
def test_what_cannot_be_asked(response: Any, code: str, param: str) -> None:
    driven = Driven()
    error = only_error(driven.client("response.create", response=response, event_id="mine"))
    assert (error["code"], error["param"], error["event_id"]) == (code, param, "mine")
    assert driven.done == []


def test_one_answer_at_a_time() -> None:
    driven = Driven()
    begun(driven)
    error = only_error(driven.client("response.create", event_id="again"))
    assert error["code"] == "conversation_already_has_active_response"
    assert error["event_id"] == "again"
    assert error["message"] == (
        "Conversation already has an active response in progress: resp_1. Wait until the response "
        "is finished before creating a new one."
    )


def test_so_many_out_of_band_and_no_more() -> None:
    driven = Driven(limits={"out_of_band_responses": 2})
    for _ in range(2):
        begun(driven, conversation="none")
    error = only_error(driven.client("response.create", response={"conversation": "none"}))
    assert error["code"] == "too_many_responses"


def user(text: str) -> dict[str, Any]:
    """A message of the user's."""
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


# --- turns and answers ----------------------------------------------------------------------------


def test_a_turn_is_answered_when_its_words_are_known() -> None:
    driven = Driven()
    events = driven.engine(*spoken("hello")[:2])
    assert "response.created" not in kinds(events)
    assert kinds(driven.engine(final("hello"))) == ["response.created"]
    assert driven.generated.request.items[0]["content"][0]["transcript"] == "hello"


@pytest.mark.parametrize("detection", [{"create_response": False}, {"type": "semantic_vad"}])
def test_whether_a_turn_is_answered(detection: dict[str, Any]) -> None:
    driven = Driven()
    driven.client("session.update", session={"audio": {"input": {"turn_detection": detection}}})
    driven.turn("hello")
    assert bool(driven.put(Generate)) == detection.get("create_response", True)


def test_a_sound_without_words_is_not_answered() -> None:
    driven = Driven()
    driven.turn("")
    assert driven.put(Generate) == []


def test_a_response_asked_for_before_the_words_are_known() -> None:
    driven = Driven()
    heard = {"turn_detection": None, "transcription": {"model": "m"}}
    driven.client("session.update", session={"audio": {"input": heard}})
    driven.append(1)
    driven.client("input_audio_buffer.commit")
    assert kinds(driven.client("response.create")) == ["response.created"]
    assert driven.put(Generate) == []
    driven.tell("committed", "item_1", 0)
    driven.engine(final("hello", at=0.0))
    assert driven.generated.request.items[0]["content"][0]["transcript"] == "hello"
    driven.backend("resp_1", Finished())
    driven.check()


def test_a_response_cancelled_before_the_words_are_known() -> None:
    driven = Driven()
    driven.client("session.update", session={"audio": {"input": {"turn_detection": None}}})
    driven.append(1)
    driven.client("input_audio_buffer.commit")
    driven.client("response.create")
    events = driven.client("response.cancel")
    assert kinds(events) == ["response.done"]
    assert driven.done == []
    driven.engine(final("hello", at=0.0))
    assert driven.put(Generate) == []
    driven.check()


def test_without_interruption_the_next_turn_waits_for_the_answer() -> None:
    driven = Driven()
    detection = {"interrupt_response": False}
    driven.client("session.update", session={"audio": {"input": {"turn_detection": detection}}})
    driven.turn("one")
    driven.turn("two", 1, 3.0)
    assert driven.put(Generate) == []
    driven.backend("resp_1", TextDelta("First."), Finished())
    assert driven.generated.response_id == "resp_2"
    # The answer came before the second turn was committed, or after: the order is the items'.
    texts = [i["content"][0].get("transcript") for i in driven.generated.request.items]
    assert texts == ["one", "two", "First."]


# --- cancelling -----------------------------------------------------------------------------------

CLOSE_OUT = [
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
]


def test_a_client_cancels() -> None:
    driven = Driven()
    response_id = spoken_answer(driven)
    events = driven.client("response.cancel")
    assert kinds(events) == CLOSE_OUT
    assert events[1]["transcript"] == "Hi there."
    assert events[3]["item"]["status"] == events[4]["item"]["status"] == "incomplete"
    assert events[5]["response"]["status"] == "cancelled"
    assert events[5]["response"]["status_details"] == {
        "type": "cancelled",
        "reason": "client_cancelled",
    }
    assert driven.done == [CancelGeneration(response_id), CancelTimer(f"response:{response_id}")]
    assert driven.backend(response_id, TextDelta("more"), SECOND, Finished()) == []
    driven.check()


def test_speech_interrupts_an_answer() -> None:
    driven = Driven()
    spoken_answer(driven)
    events = driven.engine(SpeechStarted(0, 1.0, 1.1))
    assert kinds(events) == ["input_audio_buffer.speech_started", *CLOSE_OUT]
    assert events[-1]["response"]["status_details"] == {
        "type": "cancelled",
        "reason": "turn_detected",
    }
    events = driven.client(
        "conversation.item.truncate", item_id="item_1", content_index=0, audio_end_ms=900
    )
    assert [plain(event) for event in events] == [
        {
            "type": "conversation.item.truncated",
            "item_id": "item_1",
            "content_index": 0,
            "audio_end_ms": 900,
        }
    ]
    driven.engine(SpeechEnded(0, 1.5, 2.0), final("stop"))
    texts = [i["content"][0]["transcript"] for i in driven.generated.request.items]
    assert texts == ["Hi", "stop"]  # 900 of 2000 ms of "Hi there."
    driven.check(complete=False)


def test_speech_interrupts_nothing_where_that_is_switched_off() -> None:
    driven = Driven()
    detection = {"interrupt_response": False}
    driven.client("session.update", session={"audio": {"input": {"turn_detection": detection}}})
    spoken_answer(driven)
    assert kinds(driven.engine(SpeechStarted(0, 1.0, 1.1))) == ["input_audio_buffer.speech_started"]


def test_half_a_function_call_is_not_run() -> None:
    driven = Driven()
    response_id = begun(driven)
    driven.backend(response_id, ToolCallStarted("c", "f"), ToolCallDelta("c", '{"a'))
    events = driven.client("response.cancel")
    assert kinds(events) == ["conversation.item.done", "response.output_item.done", "response.done"]
    assert events[1]["item"]["status"] == "incomplete"
    begun(driven)
    assert driven.generated.request.items == []
    driven.check(complete=False)


def test_cancelling_by_name() -> None:
    driven = Driven()
    in_band, aside = begun(driven), begun(driven, conversation="none")
    (event,) = driven.client("response.cancel", response_id=aside)
    assert event["response"]["id"] == aside
    (event,) = driven.client("response.cancel")
    assert event["response"]["id"] == in_band
    error = only_error(driven.client("response.cancel", response_id=in_band, event_id="late"))
    assert error["code"] == "response_cancel_not_active"
    assert error["event_id"] == "late"
    driven.check()


def test_cancelling_nothing() -> None:
    error = only_error(Driven().client("response.cancel", event_id="mine"))
    assert error["message"] == "Cancellation failed: no active response found"
    assert (error["code"], error["event_id"]) == ("response_cancel_not_active", "mine")


# --- failing --------------------------------------------------------------------------------------


def test_a_backend_that_fails() -> None:
    driven = Driven()
    response_id = begun(driven)
    events = driven.backend(
        response_id, TextDelta("Hi"), BackendFailed("rate_limit", "The model is busy.")
    )
    assert kinds(events)[-6:] == CLOSE_OUT
    response = events[-1]["response"]
    assert response["status"] == "failed"
    assert response["status_details"] == {
        "type": "failed",
        "error": {"type": "server_error", "code": "rate_limit", "message": "The model is busy."},
    }
    begun(driven)
    driven.check(complete=False)


@pytest.mark.parametrize("reason", ["max_output_tokens", "content_filter"])
def test_an_answer_that_is_cut_off(reason: Any) -> None:
    driven = Driven()
    events = driven.backend(begun(driven), TextDelta("Hi"), Finished(reason))
    response = events[-1]["response"]
    assert (response["status"], response["output"][0]["status"]) == ("incomplete", "incomplete")
    assert response["status_details"] == {"type": "incomplete", "reason": reason}
    driven.check()


def test_a_backend_that_says_nothing() -> None:
    driven = Driven()
    response_id = begun(driven)
    driven.backend(response_id, TextDelta("Hi"))
    driven.tell("timer", f"response:{response_id}")
    assert driven.done == [SetTimer(f"response:{response_id}", 60.0)]
    events = driven.tell("timer", f"response:{response_id}")
    assert events[-1]["response"]["status_details"]["error"]["code"] == "response_timeout"
    assert CancelGeneration(response_id) in driven.done
    assert driven.tell("timer", f"response:{response_id}") == []
    driven.check()


def test_time_that_an_answer_waits_for_its_turn_is_not_counted() -> None:
    driven = Driven()
    response_id = begun(driven)
    driven.backend(response_id, Waiting())
    assert driven.done == [CancelTimer(f"response:{response_id}")]
    driven.backend(response_id, Begun())
    assert driven.done == [SetTimer(f"response:{response_id}", 60.0)]
    driven.backend(response_id, TextDelta("Hi"), Finished())
    driven.check()


# --- what was heard -------------------------------------------------------------------------------


def truncated(driven: Driven, item_id: str, audio_end_ms: Any, index: Any = 0) -> dict[str, Any]:
    """The event that answers a truncation."""
    (event,) = driven.client(
        "conversation.item.truncate",
        item_id=item_id,
        content_index=index,
        audio_end_ms=audio_end_ms,
    )
    return event


def transcript(driven: Driven, item_id: str) -> str:
    """What an item says."""
    (event,) = driven.client("conversation.item.retrieve", item_id=item_id)
    text: str = event["item"]["content"][0]["transcript"]
    return text


def test_text_is_cut_at_the_word_that_was_heard() -> None:
    driven = Driven()
    marks = [SpokenMark(500.0, 3), SpokenMark(1_100.0, 9), SpokenMark(1_900.0, 15)]
    text = TextDelta("One, two. Three.")
    driven.backend(begun(driven), text, SECOND, *marks, SECOND, Finished())
    assert truncated(driven, "item_1", 1_500)["audio_end_ms"] == 1_500
    assert transcript(driven, "item_1") == "One, two."
    assert truncated(driven, "item_1", 1_800)["audio_end_ms"] == 1_500  # unheard is unheard
    assert truncated(driven, "item_1", 400)["audio_end_ms"] == 400
    assert transcript(driven, "item_1") == ""
    begun(driven)
    assert driven.generated.request.items == []


def test_when_words_are_spoken_is_told_to_those_who_ask() -> None:
    driven = Driven()
    asked = {"type": "realtime", "include": ["tinyvoice.partials"]}
    driven.client("session.update", session=asked)
    events = driven.backend(
        begun(driven), TextDelta("One, two."), SECOND, SpokenMark(499.6, 3), Finished()
    )
    [mark] = [event for event in events if event["type"] == "tinyvoice.response.spoken"]
    assert mark["item_id"] == "item_1"
    assert (mark["audio_ms"], mark["characters"]) == (500, 3)
    driven = Driven()
    events = driven.backend(
        begun(driven), TextDelta("One, two."), SECOND, SpokenMark(499.6, 3), Finished()
    )
    assert not [event for event in events if event["type"].startswith("tinyvoice.")]


def test_more_than_there_is_cuts_nothing() -> None:
    driven = Driven()
    driven.backend(begun(driven), TextDelta("One two."), SECOND, Finished())
    assert truncated(driven, "item_1", 1_100)["audio_end_ms"] == 1_000
    assert transcript(driven, "item_1") == "One two."


def test_words_that_never_became_audio_were_not_heard() -> None:
    driven = Driven()
    response_id = begun(driven)
    driven.backend(
        response_id, TextDelta("One. "), SECOND, SpokenMark(1_000.0, 4), TextDelta("Two.")
    )
    driven.client("response.cancel")
    begun(driven)
    assert driven.generated.request.items[0]["content"][0]["transcript"] == "One."


def test_a_truncation_while_the_answer_goes_on() -> None:
    driven = Driven()
    response_id = spoken_answer(driven, "One two three four.")
    assert truncated(driven, "item_1", 1_000)["type"] == "conversation.item.truncated"
    driven.backend(response_id, Finished())
    assert transcript(driven, "item_1") == "One two"
    driven.check()


@pytest.mark.parametrize(
    ("item_id", "index", "end", "code", "param"),
    [
        ("nobody", 0, 100, "invalid_value", "item_id"),
        ("item_1", 0, 100, "unsupported_content_type", "item_id"),
        ("item_2", 1, 100, "invalid_value", "content_index"),
        ("item_2", 0, -1, "invalid_value", "audio_end_ms"),
        ("item_2", 0, 1.5, "invalid_type", "audio_end_ms"),
        ("item_2", "0", 1, "invalid_type", "content_index"),
        (3, 0, 1, "invalid_type", "item_id"),
    ],
)
def test_what_cannot_be_truncated(
    item_id: Any, index: Any, end: Any, code: str, param: str
) -> None:
    driven = Driven()
    driven.client("conversation.item.create", item=user("hello"))
    spoken_answer(driven)
    event = truncated(driven, item_id, end, index)
    assert (event["error"]["code"], event["error"]["param"]) == (code, param)
    if code == "unsupported_content_type":
        assert event["error"]["message"] == "Only model output audio messages can be truncated"


def test_the_voice_stays_once_it_has_spoken() -> None:
    driven = Driven()
    voice = {"audio": {"output": {"voice": "echo"}}}
    driven.client("session.update", session=voice)
    driven.backend(begun(driven), TextDelta("Hi."), SECOND, Finished())
    same = driven.client("session.update", session=voice)
    assert kinds(same) == ["session.updated"]
    other = {"audio": {"output": {"voice": "alloy"}}}
    error = only_error(driven.client("session.update", session=other))
    assert error["code"] == "cannot_update_voice"
    assert error["message"] == (
        "Cannot update a conversation's voice if assistant audio is present."
    )


# --- an audio track -------------------------------------------------------------------------------


def on_track() -> Driven:
    """A conversation over WebRTC."""
    return Driven(transport="webrtc")


def test_audio_goes_to_the_track() -> None:
    driven = on_track()
    response_id = begun(driven, audio={"output": {"format": {"type": "audio/pcmu"}}})
    assert driven.generated.request.encoding == "pcm16"
    events = driven.backend(response_id, TextDelta("Hi."), SECOND)
    assert "response.output_audio.delta" not in kinds(events)
    assert driven.done == [Play(response_id, "item_1", bytes(48_000))]
    (event,) = driven.tell("playback_started", response_id)
    assert plain(event) == {"type": "output_audio_buffer.started", "response_id": response_id}
    assert driven.tell("playback_started", response_id) == []
    events = driven.backend(response_id, Finished())
    assert kinds(events) == CLOSE_OUT
    (event,) = driven.tell("playback_finished", response_id)
    assert plain(event) == {"type": "output_audio_buffer.stopped", "response_id": response_id}
    driven.check()


def test_a_track_that_runs_dry_while_the_answer_goes_on() -> None:
    driven = on_track()
    response_id = spoken_answer(driven)
    driven.tell("playback_started", response_id)
    assert driven.tell("playback_finished", response_id) == []
    events = driven.backend(response_id, Finished())
    assert kinds(events) == [*CLOSE_OUT, "output_audio_buffer.stopped"]
    driven.check()


def test_speech_interrupts_what_is_heard() -> None:
    driven = on_track()
    response_id = spoken_answer(driven, "One two three four.")
    driven.tell("playback_started", response_id)
    events = driven.engine(SpeechStarted(0, 1.0, 1.1))
    assert kinds(events) == [
        "input_audio_buffer.speech_started",
        "output_audio_buffer.cleared",
        *CLOSE_OUT,
    ]
    assert driven.done[1:3] == [StopPlayback(response_id), CancelGeneration(response_id)]
    events = driven.tell("playback_cleared", response_id, 1_000.4)
    assert [plain(event) for event in events] == [
        {
            "type": "conversation.item.truncated",
            "item_id": "item_1",
            "content_index": 0,
            "audio_end_ms": 1_000,
        }
    ]
    assert transcript(driven, "item_1") == "One two"
    driven.check(complete=False)


def test_speech_interrupts_an_answer_that_is_done_and_still_heard() -> None:
    driven = on_track()
    response_id = spoken_answer(driven, "One two three four.")
    driven.backend(response_id, Finished())
    driven.tell("playback_started", response_id)
    events = driven.engine(SpeechStarted(0, 1.0, 1.1))
    assert kinds(events) == ["input_audio_buffer.speech_started", "output_audio_buffer.cleared"]
    assert StopPlayback(response_id) in driven.done
    assert kinds(driven.tell("playback_cleared", response_id, 500.0)) == [
        "conversation.item.truncated"
    ]
    assert driven.tell("playback_finished", response_id) == []
    driven.check(complete=False)


def test_what_was_heard_to_its_end_is_not_truncated() -> None:
    driven = on_track()
    response_id = spoken_answer(driven)
    driven.backend(response_id, Finished())
    driven.client("output_audio_buffer.clear")
    assert driven.tell("playback_cleared", response_id, 2_000.0) == []


def test_a_client_clears_what_is_heard() -> None:
    # What one client does on every interruption, whether there is anything or not.
    driven = on_track()
    assert driven.client("output_audio_buffer.clear") == []
    response_id = spoken_answer(driven)
    assert kinds(driven.client("response.cancel")) == CLOSE_OUT
    assert kinds(driven.client("output_audio_buffer.clear")) == ["output_audio_buffer.cleared"]
    assert driven.done == [StopPlayback(response_id)]
    assert kinds(driven.tell("playback_cleared", response_id, 100.0)) == [
        "conversation.item.truncated"
    ]
    assert driven.client("response.cancel") == []  # too late, and no harm done
    assert driven.client("output_audio_buffer.clear") == []
    driven.check()


def test_without_a_track_there_is_nothing_to_clear() -> None:
    driven = Driven()
    spoken_answer(driven)
    assert driven.client("output_audio_buffer.clear") == []
    assert driven.done == []


def test_audio_of_a_track_is_appended() -> None:
    driven = on_track()
    driven.tell("receive_audio", bytes(4_800))
    driven.client("input_audio_buffer.commit")
    assert len(driven.put(Commit)) == 1
