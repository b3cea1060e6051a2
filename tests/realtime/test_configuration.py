"""What a session is set to: defaults, merges, nulls, echoes, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.realtime.driving import NOW, Driven, kinds, only_error
from tinyvoice.engine.settings import StreamSettings
from tinyvoice.realtime.configuration import stream_changes
from tinyvoice.realtime.errors import ProtocolError
from tinyvoice.realtime.outputs import SetFormat, SetStream
from tinyvoice.realtime.session import session_configuration


def update(driven: Driven, session: Any) -> dict[str, Any]:
    """The session after an update."""
    events = driven.client("session.update", session=session)
    assert kinds(events) == ["session.updated"]
    updated: dict[str, Any] = events[0]["session"]
    return updated


def refused(session: Any, kind: str = "realtime") -> tuple[str, str | None]:
    """Code and parameter of the error, with nothing changed."""
    driven = Driven(kind)
    before = driven.session.describe()
    error = only_error(driven.client("session.update", session=session, event_id="mine"))
    assert error["event_id"] == "mine"
    assert driven.session.describe() == before
    assert driven.done == []
    return error["code"], error["param"]


def heard(driven: Driven, **changes: Any) -> dict[str, Any]:
    """``audio.input`` after an update of it."""
    found: dict[str, Any] = update(driven, {"audio": {"input": changes}})["audio"]["input"]
    return found


def test_a_new_conversation() -> None:
    session = Driven(model="m").session.describe()
    instructions = session.pop("instructions")
    assert isinstance(instructions, str)
    assert session == {
        "type": "realtime",
        "object": "realtime.session",
        "id": "sess_1",
        "model": "m",
        "output_modalities": ["audio"],
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "tracing": None,
        "truncation": "auto",
        "prompt": None,
        "expires_at": NOW + 3600,
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "transcription": None,
                "noise_reduction": None,
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.5,
                    "prefix_padding_ms": 300,
                    "silence_duration_ms": 200,
                    "idle_timeout_ms": None,
                    "create_response": True,
                    "interrupt_response": True,
                },
            },
            "output": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "voice": "alloy",
                "speed": 1.0,
            },
        },
        "include": None,
    }


def test_a_new_transcription_session() -> None:
    assert Driven("transcription").session.describe() == {
        "type": "transcription",
        "object": "realtime.transcription_session",
        "id": "sess_1",
        "expires_at": NOW + 3600,
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "transcription": None,
                "noise_reduction": None,
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.5,
                    "prefix_padding_ms": 300,
                    "silence_duration_ms": 200,
                },
            }
        },
        "include": None,
    }


def test_present_fields_merge_and_absent_ones_stay() -> None:
    driven = Driven()
    update(driven, {"instructions": "Be brief.", "audio": {"output": {"voice": "echo"}}})
    session = update(driven, {"audio": {"output": {"speed": 1.5}}, "tool_choice": "required"})
    assert session["instructions"] == "Be brief."
    assert session["audio"]["output"]["voice"] == "echo"
    assert session["audio"]["output"]["speed"] == 1.5
    assert session["tool_choice"] == "required"


@pytest.mark.parametrize("name", ["turn_detection", "noise_reduction", "transcription"])
def test_null_clears_what_is_heard_with(name: str) -> None:
    driven = Driven()
    heard(driven, transcription={"model": "m"}, noise_reduction={"type": "far_field"})
    assert heard(driven, **{name: None})[name] is None


def test_null_and_empty_values_clear() -> None:
    driven = Driven()
    tool = {"type": "function", "name": "look"}
    update(driven, {"prompt": {"id": "p"}, "tracing": "auto", "tools": [tool], "include": []})
    session = update(
        driven, {"prompt": None, "tracing": None, "tools": [], "instructions": "", "include": None}
    )
    assert [session[k] for k in ("prompt", "tracing", "tools", "instructions", "include")] == [
        None,
        None,
        [],
        "",
        None,
    ]


def test_another_type_of_turn_detection_replaces_the_object() -> None:
    driven = Driven()
    semantic = heard(driven, turn_detection={"type": "semantic_vad", "eagerness": "low"})
    assert semantic["turn_detection"] == {
        "type": "semantic_vad",
        "eagerness": "low",
        "create_response": True,
        "interrupt_response": True,
    }
    found = heard(driven, turn_detection={"interrupt_response": False})["turn_detection"]
    assert found == semantic["turn_detection"] | {"interrupt_response": False}
    found = heard(driven, turn_detection={"type": "server_vad", "threshold": 0.7})
    assert found["turn_detection"]["threshold"] == 0.7
    assert found["turn_detection"]["interrupt_response"] is True
    assert "eagerness" not in found["turn_detection"]


def test_a_transcription_session_has_no_answers_in_its_echo() -> None:
    detection = {"type": "semantic_vad", "create_response": True, "idle_timeout_ms": 6000}
    found = heard(Driven("transcription"), turn_detection=detection)["turn_detection"]
    assert found == {"type": "semantic_vad", "eagerness": "auto"}


def test_turn_detection_null_comes_back_full() -> None:
    driven = Driven()
    heard(driven, turn_detection=None)
    found = heard(driven, turn_detection={"silence_duration_ms": 200.0})["turn_detection"]
    assert found["type"] == "server_vad"
    assert found["silence_duration_ms"] == 200
    assert type(found["silence_duration_ms"]) is int


def test_the_echo_of_a_transcription_has_only_keys_that_were_set() -> None:
    driven = Driven()
    found = heard(driven, transcription={"model": "gpt-4o-mini-transcribe"})["transcription"]
    assert found == {"model": "gpt-4o-mini-transcribe", "language": None, "prompt": None}
    found = heard(driven, transcription={"language": "en", "keywords": ["tiny"], "delay": "low"})
    assert found["transcription"] == {
        "model": "gpt-4o-mini-transcribe",
        "language": "en",
        "prompt": None,
        "keywords": ["tiny"],
        "delay": "low",
    }
    found = heard(driven, transcription={"keywords": None, "delay": None, "x": 1, "model": None})
    assert sorted(found["transcription"]) == ["language", "model", "prompt"]
    assert isinstance(found["transcription"]["model"], str)


def test_a_voice_is_echoed_as_a_string() -> None:
    session = update(Driven(), {"audio": {"output": {"voice": {"id": "mine"}}}})
    assert session["audio"]["output"]["voice"] == "mine"


def test_tools_are_flat_functions() -> None:
    parameters = {"type": "object", "properties": {}}
    session = update(
        Driven(),
        {
            "tools": [
                {"type": "function", "name": "a", "parameters": parameters, "strict": True},
                {"type": "function", "function": {"name": "b", "description": "Bees."}},
                {"type": "mcp", "server_label": "s", "server_url": "http://localhost"},
            ],
            "tool_choice": {"type": "function", "name": "a"},
        },
    )
    assert session["tools"] == [
        {"type": "function", "name": "a", "parameters": parameters},
        {"type": "function", "name": "b", "description": "Bees."},
    ]
    assert session["tool_choice"] == {"type": "function", "name": "a"}


def test_tools_that_are_left_out_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    tools = [{"type": "mcp", "server_label": "s", "server_url": "http://localhost"}]
    driven = Driven()
    assert update(driven, {"tools": tools})["tools"] == []
    update(driven, {"tools": tools})
    driven.client("response.create", response={"tools": tools})
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "type mcp are left out" in caplog.text
    session_configuration(None, {"tools": tools})
    assert len(caplog.records) == 2


def test_unknown_fields_are_ignored() -> None:
    driven = Driven()
    before = driven.session.describe()
    assert update(driven, {"unheard_of": {"x": 1}, "audio": {"input": {"y": 2}}}) == before


def test_what_is_set_is_kept_as_said() -> None:
    session = update(
        Driven(),
        {
            "type": "realtime",
            "model": "another",
            "output_modalities": ["text"],
            "max_output_tokens": 100,
            "parallel_tool_calls": False,
            "reasoning": {"effort": "low"},
            "tracing": {"workflow_name": "w", "group_id": "g", "metadata": {"a": 1}},
            "truncation": {"type": "retention_ratio", "retention_ratio": 0.5},
            "prompt": {"id": "p", "version": "2", "variables": {"name": "Ada"}},
            "include": ["item.input_audio_transcription.logprobs", "something.else"],
        },
    )
    assert session["model"] == "tinyvoice"
    assert session["output_modalities"] == ["text"]
    assert session["max_output_tokens"] == 100
    assert session["parallel_tool_calls"] is False
    assert session["reasoning"] == {"effort": "low"}
    assert session["tracing"]["group_id"] == "g"
    assert session["truncation"]["retention_ratio"] == 0.5
    assert session["prompt"]["variables"] == {"name": "Ada"}
    assert session["include"] == ["item.input_audio_transcription.logprobs"]


VAD = ("audio", "input", "turn_detection")


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({"type": "transcription"}, "invalid_parameter", "session.type"),
        ({"type": "x"}, "invalid_value", "session.type"),
        ([], "invalid_type", "session"),
        (None, "invalid_type", "session"),
        ({"instructions": 3}, "invalid_type", "session.instructions"),
        ({"instructions": "x" * 300_000}, "invalid_value", "session.instructions"),
        ({"output_modalities": "audio"}, "invalid_type", "session.output_modalities"),
        ({"output_modalities": ["sight"]}, "invalid_value", "session.output_modalities[0]"),
        ({"output_modalities": []}, "invalid_value", "session.output_modalities"),
        ({"max_output_tokens": 0}, "invalid_value", "session.max_output_tokens"),
        ({"max_output_tokens": 1.5}, "invalid_type", "session.max_output_tokens"),
        ({"max_output_tokens": "many"}, "invalid_value", "session.max_output_tokens"),
        ({"tools": {}}, "invalid_type", "session.tools"),
        ({"tools": [{"type": "function"}]}, "missing_required_parameter", "session.tools[0].name"),
        ({"tools": [{"type": "x", "name": "a"}]}, "invalid_value", "session.tools[0].type"),
        ({"tools": [{"name": "a"}] * 129}, "invalid_value", "session.tools"),
        (
            {"tools": [{"name": "a", "description": "x" * 600_000}]},
            "invalid_value",
            "session.tools",
        ),
        ({"tool_choice": "maybe"}, "invalid_value", "session.tool_choice"),
        ({"tool_choice": {}}, "missing_required_parameter", "session.tool_choice.type"),
        ({"parallel_tool_calls": 1}, "invalid_type", "session.parallel_tool_calls"),
        ({"reasoning": {"effort": "x"}}, "invalid_value", "session.reasoning.effort"),
        ({"tracing": 3}, "invalid_type", "session.tracing"),
        ({"truncation": "x"}, "invalid_value", "session.truncation"),
        ({"prompt": {}}, "missing_required_parameter", "session.prompt.id"),
        ({"include": "x"}, "invalid_type", "session.include"),
        ({"audio": []}, "invalid_type", "session.audio"),
        ({"audio": {"output": {"speed": 2}}}, "invalid_value", "session.audio.output.speed"),
        ({"audio": {"output": {"speed": True}}}, "invalid_type", "session.audio.output.speed"),
        ({"audio": {"output": {"voice": 3}}}, "invalid_type", "session.audio.output.voice"),
        (
            {"audio": {"output": {"voice": {}}}},
            "missing_required_parameter",
            "session.audio.output.voice.id",
        ),
    ],
)
def test_what_cannot_be_used(session: Any, code: str, param: str) -> None:
    assert refused(session) == (code, param)


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"format": 3}, "invalid_type", "format"),
        ({"format": {}}, "missing_required_parameter", "format.type"),
        ({"format": {"type": "audio/mp3"}}, "invalid_value", "format.type"),
        ({"format": {"type": "audio/pcm", "rate": 44100}}, "invalid_value", "format.rate"),
        ({"transcription": "whisper-1"}, "invalid_type", "transcription"),
        ({"transcription": {"language": 3}}, "invalid_type", "transcription.language"),
        ({"transcription": {"keywords": [3]}}, "invalid_type", "transcription.keywords[0]"),
        ({"transcription": {"delay": "x"}}, "invalid_value", "transcription.delay"),
        ({"noise_reduction": {}}, "missing_required_parameter", "noise_reduction.type"),
        ({"noise_reduction": {"type": "x"}}, "invalid_value", "noise_reduction.type"),
        ({"turn_detection": "server_vad"}, "invalid_type", "turn_detection"),
        ({"turn_detection": {"type": "x"}}, "invalid_value", "turn_detection.type"),
        ({"turn_detection": {"threshold": 1.1}}, "invalid_value", "turn_detection.threshold"),
        ({"turn_detection": {"threshold": "x"}}, "invalid_type", "turn_detection.threshold"),
        (
            {"turn_detection": {"prefix_padding_ms": -1}},
            "invalid_value",
            "turn_detection.prefix_padding_ms",
        ),
        ({"turn_detection": {"silence_duration_ms": 10**30}}, "invalid_json", None),
        (
            {"turn_detection": {"silence_duration_ms": 10**15}},
            "invalid_value",
            "turn_detection.silence_duration_ms",
        ),
        (
            {"turn_detection": {"idle_timeout_ms": 100}},
            "invalid_value",
            "turn_detection.idle_timeout_ms",
        ),
        (
            {"turn_detection": {"create_response": "yes"}},
            "invalid_type",
            "turn_detection.create_response",
        ),
        (
            {"turn_detection": {"type": "semantic_vad", "eagerness": "x"}},
            "invalid_value",
            "turn_detection.eagerness",
        ),
    ],
)
def test_what_cannot_be_heard_with(change: Any, code: str, param: str | None) -> None:
    path = f"session.audio.input.{param}" if param else None
    assert refused({"audio": {"input": change}}) == (code, path)


def test_a_session_keeps_its_type() -> None:
    driven = Driven()
    error = only_error(driven.client("session.update", session={"type": "transcription"}))
    assert error["message"] == (
        "Passing a transcription session update event to a realtime session is not allowed."
    )
    assert refused({"type": "realtime"}, "transcription") == ("invalid_parameter", "session.type")


@pytest.mark.parametrize(
    ("detection", "settings"),
    [
        (None, {"endpointing": "manual"}),
        (False, {"endpointing": "manual"}),
        ({"type": "server_vad"}, {"endpointing": "vad", "silence_ms": 200, "threshold": 0.5}),
        ({"threshold": 0}, {"threshold": 0.01}),
        ({"threshold": 1}, {"threshold": 0.99}),
        ({"prefix_padding_ms": 5_000}, {"prefix_padding_ms": 2_000}),
        ({"silence_duration_ms": 0}, {"silence_ms": 32}),
        ({"silence_duration_ms": 60_000}, {"silence_ms": 10_000}),
        ({"type": "semantic_vad"}, {"endpointing": "semantic", "eagerness": "auto"}),
        ({"type": "semantic_vad", "eagerness": "high"}, {"eagerness": "high"}),
    ],
)
def test_settings_of_the_stream(detection: Any, settings: dict[str, Any]) -> None:
    driven = Driven()
    given = {} if not isinstance(detection, dict) else detection
    found = heard(driven, turn_detection=detection)["turn_detection"]
    assert found is None or given.items() <= found.items()  # as the client said it
    changes = stream_changes(driven.session.configuration)
    assert settings.items() <= changes.items()
    StreamSettings().changed(**changes)


def test_the_stream_is_told_what_changes_for_it() -> None:
    driven = Driven(opened=False)
    driven.tell("open")
    assert [type(output) for output in driven.done[:2]] == [SetFormat, SetStream]
    assert driven.done[0] == SetFormat("pcm16", 24_000)
    update(driven, {"instructions": "Be brief."})
    assert driven.done == []
    heard(driven, format={"type": "audio/pcmu"})
    assert driven.done == [SetFormat("mulaw", 8_000)]
    heard(driven, format={"type": "audio/pcm", "rate": 16_000}, turn_detection=None)
    (set_format, set_stream) = driven.done
    assert set_format == SetFormat("pcm16", 16_000)
    assert isinstance(set_stream, SetStream)
    assert set_stream.changes["endpointing"] == "manual"
    update(driven, {"include": ["tinyvoice.partials"]})
    (set_stream,) = driven.put(SetStream)
    assert set_stream.changes["word_times"] is True


def test_an_audio_track_has_its_own_format() -> None:
    driven = Driven(transport="webrtc", opened=False)
    driven.tell("open")
    heard(driven, format={"type": "audio/pcmu"})
    assert driven.put(SetFormat) == []


@pytest.mark.parametrize("kind", ["realtime", "transcription"])
def test_the_echo_is_a_fixed_point(kind: str) -> None:
    driven = Driven(kind)
    heard(driven, turn_detection={"type": "semantic_vad"}, transcription={"model": "x"})
    update(driven, {"include": ["tinyvoice.partials"], "tools": [{"name": "f"}], "prompt": None})
    session = driven.session.describe()
    assert update(driven, session) == session
    driven.check()


def test_a_configuration_for_a_client_secret() -> None:
    made = session_configuration(None, {"type": "realtime", "model": "m", "instructions": "Hi."})
    driven = Driven(model="other", configuration=made)
    session = driven.session.describe()
    assert session["model"] == "m"
    assert session["instructions"] == "Hi."
    assert session_configuration(None, None)["type"] == "realtime"
    flat = session_configuration(None, {"type": "transcription", "input_audio_format": "g711_alaw"})
    assert flat["audio"]["input"]["format"] == {"type": "audio/pcma"}
    assert Driven("transcription", configuration=flat).session.configuration == flat


@pytest.mark.parametrize(
    ("kind", "payload", "code"),
    [
        ("realtime", [], "invalid_type"),
        ("realtime", {"type": "transcription"}, "invalid_parameter"),
        (None, {"type": "x"}, "invalid_value"),
        (None, {"model": 3}, "invalid_type"),
        (None, {"instructions": "\ud800"}, "invalid_json"),
        (None, {"x": float("nan")}, "invalid_json"),
    ],
)
def test_a_client_secret_that_cannot_be(kind: Any, payload: Any, code: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        session_configuration(kind, payload)
    assert caught.value.code == code
