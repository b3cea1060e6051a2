"""The ways by which people reach an agent over a network: WebSocket and WebRTC, on one port.

One conversation for each client that comes, every one with a pipeline of its own; the recogniser's
model is shared. Web pages of other sites are turned away. There is no authentication: it listens on
this machine unless told otherwise, and then belongs behind something that knows who may come in.

- ``/ws``: Pipecat's WebSocket transport, frames as its `ProtobufFrameSerializer` writes them.
- ``/api/offer``: Pipecat's SmallWebRTC transport (POST an offer, PATCH candidates), and ``/``, a
  page to talk by.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import FileResponse, JSONResponse, Response
from pipecat.serializers.protobuf import ProtobufFrameSerializer
from pipecat.transports.base_transport import BaseTransport, TransportParams
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection
from pipecat.transports.smallwebrtc.request_handler import (
    IceCandidate,
    SmallWebRTCPatchRequest,
    SmallWebRTCRequest,
    SmallWebRTCRequestHandler,
)
from pipecat.transports.smallwebrtc.transport import SmallWebRTCTransport
from pipecat.transports.websocket.fastapi import (
    FastAPIWebsocketParams,
    FastAPIWebsocketTransport,
)

from .even_pace import pace_evenly
from .jitter_buffer import hear_at_once
from .settings import AgentSettings

Run = Callable[[BaseTransport, AgentSettings], Awaitable[None]]

MOST_CONVERSATIONS = 8
"""Conversations at a time; who comes on top is told to try later."""

PAGE = Path(__file__).with_name("page.html")
_TRY_LATER = 1013  # WebSocket close code, RFC 6455's registry


class Door:
    """Lets clients in and holds their conversations."""

    def __init__(self, run: Run, settings: AgentSettings, most: int = MOST_CONVERSATIONS) -> None:
        self._run = run
        self._settings = settings
        self._most = most
        self._calls = SmallWebRTCRequestHandler(ice_servers=[])
        self._conversations: set[asyncio.Task[None]] = set()
        self._held = 0

    def app(self) -> FastAPI:
        """The application."""

        @asynccontextmanager
        async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
            yield
            await self.close()

        app = FastAPI(title="tinyvoice agent", docs_url=None, redoc_url=None, lifespan=lifespan)
        app.middleware("http")(_refuse_strangers)
        app.websocket("/ws")(self.websocket)
        app.post("/api/offer")(self.offer)
        app.patch("/api/offer")(self.candidates)
        app.get("/", response_model=None)(self.page)
        return app

    async def websocket(self, websocket: WebSocket) -> None:
        """One conversation over a WebSocket."""
        if not _same_site(websocket.headers):
            await websocket.close(1008, "Pages of other sites may not talk to this agent.")
            return
        await websocket.accept()
        if self._full():
            await websocket.close(_TRY_LATER, "All places are taken: try again later.")
            return
        params = FastAPIWebsocketParams(
            audio_in_enabled=True, audio_out_enabled=True, serializer=ProtobufFrameSerializer()
        )
        await self._hold(FastAPIWebsocketTransport(websocket, params))

    async def offer(self, request: Request) -> dict[str, Any]:
        """Answer an offer, and begin a conversation if it is a new caller's."""
        if self._full():
            raise HTTPException(503, "All places are taken: try again later.")
        try:
            wanted = SmallWebRTCRequest.from_dict(await request.json())
            answer = await self._calls.handle_web_request(wanted, self._called)
        except (TypeError, ValueError) as error:
            raise HTTPException(400, f"This is not an offer: {error}") from error
        return dict(answer or {})

    async def candidates(self, request: Request) -> dict[str, str]:
        """Take candidates that a caller has found since its offer."""
        try:
            body = await request.json()
            found = [IceCandidate(**candidate) for candidate in body["candidates"]]
            await self._calls.handle_patch_request(SmallWebRTCPatchRequest(body["pc_id"], found))
        except (KeyError, TypeError, ValueError) as error:
            raise HTTPException(400, f"These are not candidates of a call: {error}") from error
        return {"status": "success"}

    async def page(self) -> Response:
        """The page to talk by."""
        return FileResponse(PAGE, media_type="text/html")

    async def close(self) -> None:
        """End all conversations."""
        await self._calls.close()
        for task in self._conversations:
            task.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)

    async def _called(self, connection: SmallWebRTCConnection) -> None:
        params = TransportParams(audio_in_enabled=True, audio_out_enabled=True)
        hear_at_once(connection)
        pace_evenly(connection)
        task = asyncio.create_task(self._hold(SmallWebRTCTransport(connection, params)))
        self._conversations.add(task)
        task.add_done_callback(self._conversations.discard)

    async def _hold(self, transport: BaseTransport) -> None:
        self._held += 1
        try:
            await self._run(transport, self._settings)
        finally:
            self._held -= 1

    def _full(self) -> bool:
        return self._held >= self._most


async def _refuse_strangers(
    request: Request, answer: Callable[[Request], Awaitable[Response]]
) -> Response:
    if not _same_site(request.headers):
        detail = "Pages of other sites may not talk to this agent."
        return JSONResponse({"detail": detail}, status_code=403)
    return await answer(request)


def _same_site(headers: Any) -> bool:
    """Whether a request comes from our own page, or from no page at all."""
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")
