"""Realtime sessions over real WebSockets."""

from __future__ import annotations

import asyncio
from dataclasses import fields, replace
from typing import Any

import pytest
import websockets
from openai import AsyncOpenAI

from tests.server.conftest import RunningServer, appends, changed, pcm24k
from tests.server.realtime import connected
from tinyvoice.benchmark.speech import Clip
from tinyvoice.metrics import word_errors
from tinyvoice.realtime.limits import SessionLimits
from tinyvoice.server.settings import ServerSettings
from tinyvoice.server.websocket import response_seconds, session_limits


async def test_a_turn_is_transcribed(server: RunningServer, clips: list[Clip]) -> None:
    clip = clips[1]
    async with connected(server.websocket_url) as client:
        await client.send(*appends(pcm24k(clip)))
        done = await client.until("conversation.item.input_audio_transcription.completed")
    errors = word_errors(clip.text or "", done["transcript"])
    assert errors.edits <= 1, done["transcript"]
    kinds = [event["type"].rpartition(".")[2] for event in client.events]
    assert kinds[:2] == ["created", "speech_started"]
    deltas = [event["delta"] for event in client.events if "delta" in event]
    assert "".join(deltas) == done["transcript"]


async def test_the_official_client_has_a_conversation(
    server: RunningServer, clips: list[Clip]
) -> None:
    client = AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any")
    async with client.realtime.connect(model="m") as connection, asyncio.timeout(30):
        async for event in connection:
            if event.type == "session.created":
                for append in appends(pcm24k(clips[1])):
                    await connection.send(append)  # type: ignore[arg-type]
            if event.type == "response.done":
                break
        assert event.type == "response.done"
        assert event.response.status == "completed"
        assert event.response.output


async def test_the_server_answers_the_subprotocol_and_not_the_key(server: RunningServer) -> None:
    offered = ["realtime", "openai-insecure-api-key.secret", "openai-agents-sdk.1"]
    async with connected(server.websocket_url, subprotocols=offered) as client:
        assert client.socket.subprotocol == "realtime"


async def test_a_beta_client_is_spoken_to_in_beta(server: RunningServer) -> None:
    headers = {"additional_headers": {"OpenAI-Beta": "realtime=v1"}}
    url = f"{server.websocket_url}/v1/realtime?model=m"
    async with websockets.connect(url, **headers) as socket:  # type: ignore[arg-type]
        assert "modalities" in (await socket.recv())


@pytest.mark.parametrize("path", ["/v1/realtime/translations", "/v1/live", "/"])
async def test_there_is_no_other_websocket(server: RunningServer, path: str) -> None:
    with pytest.raises(websockets.InvalidStatus) as raised:
        await websockets.connect(server.websocket_url + path)
    assert raised.value.response.status_code == 404
    assert b"invalid_request_error" in (raised.value.response.body or b"")


async def test_a_call_that_does_not_exist_cannot_be_joined(server: RunningServer) -> None:
    with pytest.raises(websockets.InvalidStatus) as raised:
        async with connected(server.websocket_url, "call_id=rtc_none"):
            pass
    assert raised.value.response.status_code == 404


def test_every_bound_of_a_session_is_a_setting() -> None:
    assert session_limits(ServerSettings()) == replace(
        SessionLimits(),
        event_bytes=ServerSettings().max_frame_bytes,
        response_seconds=response_seconds(ServerSettings()),
    )
    others = {
        "max_append_bytes": "append_bytes",
        "uncommitted_seconds": "uncommitted_seconds",
        "minimum_commit_ms": "minimum_commit_ms",
        "stall_seconds": "stall_seconds",
        "max_items": "items",
        "max_conversation_bytes": "conversation_bytes",
        "max_tools": "tools",
        "max_tools_bytes": "tools_bytes",
        "max_instruction_characters": "instruction_characters",
        "max_json_depth": "json_depth",
        "max_out_of_band_responses": "out_of_band_responses",
        "max_frame_bytes": "event_bytes",
        "session_seconds": "session_seconds",
        "drain_seconds": "drain_seconds",
    }
    settings: dict[str, Any] = {name: 1_030 + place for place, name in enumerate(others)}
    settings["max_json_depth"] = 99
    limits = session_limits(ServerSettings(**settings))
    assert {name: getattr(limits, bound) for name, bound in others.items()} == settings
    told = {*others.values(), "response_seconds"}
    assert told == {field.name for field in fields(SessionLimits)}


async def test_a_bound_that_is_set_holds(server: RunningServer) -> None:
    with changed(server, max_tools=1):
        async with connected(server.websocket_url, "model=m") as client:
            two = [{"type": "function", "name": name} for name in ("a", "b")]
            await client.send({"type": "session.update", "session": {"tools": two}})
            error = (await client.receive())["error"]
    assert (error["param"], "at most 1" in error["message"]) == ("session.tools", True)


def test_an_answer_may_take_as_long_as_its_model_and_its_voice() -> None:
    settings = ServerSettings(llm_timeout_s=300, tts_timeout_s=20, connect_timeout_s=5)
    assert session_limits(settings).response_seconds == 330
