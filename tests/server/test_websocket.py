"""Realtime sessions over real WebSockets."""

from __future__ import annotations

import json

import websockets

from tests.server.conftest import RunningServer


async def test_health(server: RunningServer) -> None:
    import httpx2 as httpx

    async with httpx.AsyncClient(base_url=server.url) as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        assert (await client.get("/readyz")).status_code == 200
        assert b"tinyvoice_sessions" in (await client.get("/metrics")).content
        missing = await client.get("/v1/live")
        assert missing.status_code == 404
        assert missing.json()["error"]["type"] == "invalid_request_error"


async def test_the_server_speaks_first(server: RunningServer) -> None:
    async with websockets.connect(f"{server.websocket_url}/v1/realtime?model=m") as client:
        event = json.loads(await client.recv())
        assert event["type"] == "session.created"
