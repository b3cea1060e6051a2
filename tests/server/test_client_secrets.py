"""Ephemeral keys over HTTP, asked for by the official client, used on a real session."""

from __future__ import annotations

import time
from typing import Any

import httpx2 as httpx
import openai
import pytest

from tests.server.conftest import RunningServer
from tests.server.realtime import connected

TRANSCRIPTION: dict[str, Any] = {
    "type": "transcription",
    "audio": {"input": {"format": {"type": "audio/pcmu"}, "turn_detection": None}},
}


async def test_the_official_client_gets_a_key_and_the_session_begins_so(
    server: RunningServer,
) -> None:
    client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any")
    made = await client.realtime.client_secrets.create(
        expires_after={"anchor": "created_at", "seconds": 60},
        session={"type": "realtime", "model": "mine", "instructions": "Be brief."},
    )
    assert made.value.startswith("ek_")
    assert 50 <= made.expires_at - time.time() <= 61
    described = made.session.model_dump()
    assert (described["type"], described["instructions"]) == ("realtime", "Be brief.")
    bearer = {"Authorization": f"Bearer {made.value}"}
    async with connected(server.websocket_url, "model=other", headers=bearer) as socket:
        session = socket.events[0]["session"]
    assert (session["instructions"], session["model"]) == ("Be brief.", "mine")
    assert session["expires_at"] > time.time() + 3_000


async def test_a_transcription_key_in_a_browsers_subprotocol(server: RunningServer) -> None:
    async with httpx.AsyncClient(base_url=server.url) as client:
        answer = await client.post("/v1/realtime/client_secrets", json={"session": TRANSCRIPTION})
    assert answer.status_code == 200
    assert abs(answer.json()["expires_at"] - time.time() - 600) < 10
    offered = ["realtime", f"openai-insecure-api-key.{answer.json()['value']}"]
    async with connected(server.websocket_url, "", subprotocols=offered) as socket:
        audio = socket.events[0]["session"]["audio"]["input"]
    assert audio["format"] == {"type": "audio/pcmu"}
    assert audio["turn_detection"] is None


@pytest.mark.parametrize("content", [b"", b"{}", b'{"session": null, "expires_after": null}'])
async def test_everything_may_be_left_out(server: RunningServer, content: bytes) -> None:
    async with httpx.AsyncClient(base_url=server.url) as client:
        answer = await client.post("/v1/realtime/client_secrets", content=content)
    assert answer.json()["session"]["object"] == "realtime.session"


@pytest.mark.parametrize(
    ("path", "kind"),
    [("sessions", "realtime"), ("transcription_sessions", "transcription")],
)
async def test_the_older_addresses(server: RunningServer, path: str, kind: str) -> None:
    body = {"model": "m", "input_audio_format": "g711_ulaw", "turn_detection": None}
    async with httpx.AsyncClient(base_url=server.url) as client:
        answer = (await client.post(f"/v1/realtime/{path}", json=body)).json()
    assert answer["input_audio_format"] == "g711_ulaw"
    assert abs(answer["client_secret"]["expires_at"] - time.time() - 60) < 10
    bearer = {"Authorization": f"Bearer {answer['client_secret']['value']}"}
    async with connected(server.websocket_url, "", headers=bearer) as socket:
        session = socket.events[0]["session"]
    assert session["type"] == kind
    assert session["audio"]["input"]["format"] == {"type": "audio/pcmu"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"[1]", None),
        (b"[" * 100_000, None),
        (b'{"expires_after": 5}', "expires_after"),
        (b'{"expires_after": {"seconds": 9}}', "expires_after.seconds"),
        (b'{"expires_after": {"seconds": 7201}}', "expires_after.seconds"),
        (b'{"expires_after": {"seconds": 60.5}}', "expires_after.seconds"),
        (b'{"expires_after": {"seconds": true}}', "expires_after.seconds"),
        (b'{"expires_after": {"anchor": "never", "seconds": 60}}', "expires_after.anchor"),
        (b'{"session": {"type": "song"}}', "session.type"),
        (b'{"session": {"audio": {"input": {"format": {"type": "mp3"}}}}}', "session.audio"),
    ],
)
async def test_what_is_wrong_is_named(
    server: RunningServer, body: bytes, param: str | None
) -> None:
    async with httpx.AsyncClient(base_url=server.url) as client:
        answer = await client.post("/v1/realtime/client_secrets", content=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert str(error["param"] or "").startswith(param or "")


async def test_a_session_too_long_for_a_key_is_refused(server: RunningServer) -> None:
    import secrets

    body = {"session": {"type": "realtime", "instructions": secrets.token_hex(10_000)}}
    async with httpx.AsyncClient(base_url=server.url) as client:
        answer = await client.post("/v1/realtime/client_secrets", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "session_too_large"
