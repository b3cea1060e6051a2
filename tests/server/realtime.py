"""A client of the tests: a real WebSocket, events as dictionaries, nothing between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import websockets
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

PATIENCE_S = 120.0

_EVENTS: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)

Event = dict[str, Any]


class Client:
    """Sends and receives events; every event received is checked against the official types."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self.socket = socket
        self.events: list[Event] = []

    async def send(self, *events: Event) -> None:
        for event in events:
            await self.socket.send(json.dumps(event))

    async def receive(self) -> Event:
        """The next event."""
        async with asyncio.timeout(PATIENCE_S):
            event: Event = json.loads(await self.socket.recv())
        _EVENTS.validate_python(event)
        self.events.append(event)
        return event

    async def until(self, kind: str) -> Event:
        """Read until an event of this type; an error that is not awaited is a failure."""
        while True:
            event = await self.receive()
            if event["type"] == kind:
                return event
            assert event["type"] != "error", event

    async def closed(self) -> tuple[int, list[Event]]:
        """Read until the server closes: the close code, and what came before it."""
        before: list[Event] = []
        try:
            while True:
                before.append(await self.receive())
        except websockets.ConnectionClosed:
            return self.socket.close_code or 0, before


@asynccontextmanager
async def connected(
    url: str,
    query: str = "intent=transcription",
    *,
    created: bool = True,
    subprotocols: Sequence[str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[Client]:
    """A client of a server (``ws://…``), after ``session.created`` unless said otherwise."""
    async with websockets.connect(
        f"{url}/v1/realtime?{query}",
        additional_headers=headers,
        subprotocols=subprotocols,  # type: ignore[arg-type]
        compression=None,
        max_size=None,
        open_timeout=PATIENCE_S,
        ping_interval=None,
        close_timeout=1.0,
    ) as socket:
        client = Client(socket)
        if created:
            assert (await client.receive())["type"] == "session.created"
        yield client
