"""A WebSocket relay that writes down what client and server say to each other.

The relay stands between an unmodified client and the server under test. It hands on the request's
path, query, headers and subprotocols, every message as it came and the close code, and keeps a log
of each connection. It relays WebSockets only, changes nothing, and judges nothing: that is done by
``checking.py`` on the finished log. Compression is not offered, so both sides speak plainly.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, Literal, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.typing import Data, Subprotocol

Direction = Literal["client", "server"]
"""Who said it."""

_HANDSHAKE = {
    "connection",
    "host",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "upgrade",
}
"""Headers that belong to one connection and are made anew for the other."""


@dataclass(frozen=True)
class Message:
    """One message."""

    direction: Direction
    at: float
    """Seconds on this process's monotonic clock, when the relay had it."""
    data: Data

    @property
    def event(self) -> dict[str, Any]:
        """The message as the JSON object it is."""
        event = json.loads(self.data)
        assert isinstance(event, dict), f"{self.direction} sent {self.data!r:.200}"
        return event


@dataclass
class Connection:
    """What was said on one connection, in order."""

    path: str
    """As requested, with the query."""
    headers: Headers
    """Of the client's request."""
    messages: list[Message] = field(default_factory=list)
    closed_by: Direction | None = None
    close_code: int | None = None

    def events(self, direction: Direction) -> list[dict[str, Any]]:
        """What one side said."""
        return [message.event for message in self.messages if message.direction == direction]

    def log(self) -> list[tuple[Direction, dict[str, Any]]]:
        """What both sides said."""
        return [(message.direction, message.event) for message in self.messages]

    @property
    def beta(self) -> bool:
        """Whether the client asked for the beta dialect when it connected."""
        offered = self.headers.get("Sec-WebSocket-Protocol", "")
        return "OpenAI-Beta" in self.headers or "openai-beta.realtime-v1" in offered


class Recorder:
    """The relay; an asynchronous context manager.

    Attributes:
        connections: what was said, connection by connection, oldest first.
    """

    def __init__(self, server: str) -> None:
        """``server`` is where to hand on to, like ``http://127.0.0.1:8000``."""
        self.connections: list[Connection] = []
        self._upstream = server.replace("http", "ws", 1).rstrip("/")
        self._server: Server | None = None
        self._upstreams: dict[ServerConnection, ClientConnection] = {}

    async def __aenter__(self) -> Self:
        """Listen on a free port."""
        self._server = await serve(
            self._relay,
            "127.0.0.1",
            0,
            process_request=self._reach_upstream,
            select_subprotocol=self._same_subprotocol,
            server_header=None,
            compression=None,
            max_size=None,
            ping_interval=None,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close whatever is still open."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    @property
    def url(self) -> str:
        """Where clients connect, like ``http://127.0.0.1:8001``."""
        assert self._server is not None, "the recorder is not running"
        port = next(iter(self._server.sockets)).getsockname()[1]
        return f"http://127.0.0.1:{port}"

    async def _reach_upstream(
        self, connection: ServerConnection, request: Request
    ) -> Response | None:
        """Connect to the server first, so that its refusal can be handed on."""
        headers = [(k, v) for k, v in request.headers.raw_items() if k.lower() not in _HANDSHAKE]
        offered = request.headers.get_all("Sec-WebSocket-Protocol")
        names = [Subprotocol(n.strip()) for line in offered for n in line.split(",")]
        try:
            upstream = await connect(
                self._upstream + request.path,
                additional_headers=[(k, v) for k, v in headers if k.lower() != "user-agent"],
                user_agent_header=request.headers.get("User-Agent"),
                subprotocols=names or None,
                compression=None,
                max_size=None,
                ping_interval=None,
                proxy=None,
            )
        except InvalidStatus as refused:
            return refused.response
        except OSError as error:
            body = f"The server cannot be reached: {error}".encode()
            return Response(HTTPStatus.BAD_GATEWAY, "Bad Gateway", Headers(), body)
        self._upstreams[connection] = upstream
        return None

    def _same_subprotocol(
        self, connection: ServerConnection, offered: Sequence[Subprotocol]
    ) -> Subprotocol | None:
        return self._upstreams[connection].subprotocol

    async def _relay(self, client: ServerConnection) -> None:
        request = client.request
        assert request is not None
        server = self._upstreams.pop(client)
        connection = Connection(request.path, request.headers)
        self.connections.append(connection)
        ways = [
            asyncio.create_task(_hand_on(client, server, "client", connection)),
            asyncio.create_task(_hand_on(server, client, "server", connection)),
        ]
        await asyncio.gather(*ways)


async def _hand_on(
    source: ServerConnection | ClientConnection,
    target: ServerConnection | ClientConnection,
    direction: Direction,
    connection: Connection,
) -> None:
    """Hand on one side's messages until it closes, then close the other side likewise."""
    try:
        async for data in source:
            connection.messages.append(Message(direction, time.monotonic(), data))
            await target.send(data)
    except ConnectionClosed:
        pass
    received = source.protocol.close_rcvd
    if connection.closed_by is None and received is not None:
        connection.closed_by, connection.close_code = direction, received.code
    if received is None:
        # It vanished without a word: so must we.
        target.transport.abort()
    elif received.code == CloseCode.NO_STATUS_RCVD:
        await target.close()
    else:
        await target.close(received.code, received.reason)
