"""``/v1/realtime`` over WebSocket: handshake, admission, and frames in both directions.

A client that cannot come in is told so in the way that it can read: programs get an HTTP status
instead of the upgrade; browsers, which hide that from the page, get an ``error`` event and a close
code.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from tinyvoice.engine import EngineError, EngineFullError, EngineOverloadedError
from tinyvoice.errors import TinyvoiceError
from tinyvoice.realtime.configuration import DEFAULT_MODEL
from tinyvoice.realtime.errors import ProtocolError
from tinyvoice.realtime.identifiers import random_identifier
from tinyvoice.realtime.limits import SessionLimits
from tinyvoice.realtime.session import RealtimeSession
from tinyvoice.server import logs
from tinyvoice.server.admission import RefusedError, SessionRegistry
from tinyvoice.server.authentication import (
    SUBPROTOCOL,
    Authenticator,
    Identity,
    credential_of,
    origin_allowed,
    subprotocols_of,
)
from tinyvoice.server.connection import ABNORMAL, RealtimeConnection
from tinyvoice.server.errors import SERVER_ERROR, ApiError
from tinyvoice.server.outbox import TransportLostError
from tinyvoice.server.settings import ServerSettings

logger = logging.getLogger(__name__)

router = APIRouter()

TRY_AGAIN_LATER = 1013
INVALID_KEY = 3000
"""Close codes: of RFC 6455's registry, and OpenAI's own."""

_LONGEST_REASON = 123
"""Bytes of a close frame's reason (RFC 6455 §5.5)."""

_BETA_HEADER = "realtime=v1"
_BETA_SUBPROTOCOL = "openai-beta.realtime-v1"


class WebSocketTransport:
    """A `Transport` over an accepted WebSocket."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def send(self, text: str) -> None:
        """Send one text frame; waits while the client's buffers are full."""
        try:
            await self._websocket.send_text(text)
        except (WebSocketDisconnect, OSError, RuntimeError) as error:
            raise TransportLostError("The client is gone.") from error

    async def close(self, code: int, reason: str) -> None:
        """Close with this code; 1005 and 1006 stand for connections that are gone already."""
        if code in (1005, ABNORMAL):
            return
        try:
            await self._websocket.close(code, _shortened(reason))
        except (WebSocketDisconnect, OSError, RuntimeError) as error:
            raise TransportLostError("The client is gone.") from error

    def abort(self) -> None:
        """Drop the connection with what was not sent; the listener provides the way to do so."""
        if (abort := getattr(self._websocket.state, "abort", None)) is not None:
            abort()


@router.websocket("/v1/realtime")
async def realtime(websocket: WebSocket) -> None:
    """One session, or with ``call_id`` a further client of a call that is going on."""
    identity = await _let_in(websocket)
    if identity is None:
        return
    call_id = websocket.query_params.get("call_id")
    if call_id is not None:
        await _join(websocket, call_id)
        return
    await _serve(websocket, identity)


@router.websocket("/{path:path}")
async def elsewhere(websocket: WebSocket, path: str) -> None:
    """There is no other WebSocket."""
    error = ApiError(404, f"Invalid URL (WebSocket /{path}): connect to /v1/realtime.")
    await websocket.send_denial_response(_answer(error))


async def _let_in(websocket: WebSocket) -> Identity | None:
    """Who connects; None where the connection has been refused."""
    state = websocket.app.state
    settings: ServerSettings = state.settings
    authenticator: Authenticator = state.authenticator
    if not origin_allowed(websocket, settings.allowed_origins):
        state.metrics.refusals.labels("origin").inc()
        error = ApiError(403, "Pages of this origin may not connect: see --allowed-origins.")
        await websocket.send_denial_response(_answer(error))
        return None
    try:
        own_call = "call_id" in websocket.query_params
        return authenticator.check(credential_of(websocket), ephemeral=not own_call)
    except ApiError as error:
        state.metrics.refusals.labels("unauthorized").inc()
        if subprotocols_of(websocket.scope):
            reason = "invalid_request_error.invalid_api_key"
            await _turn_away(websocket, error, INVALID_KEY, reason)
        else:
            await websocket.send_denial_response(_answer(error))
        return None


async def _serve(websocket: WebSocket, identity: Identity) -> None:
    """Run a session of its own over this WebSocket."""
    state = websocket.app.state
    try:
        session = _session(websocket, identity)
    except ProtocolError as error:  # an ephemeral key's configuration that we no longer take
        refusal = ApiError(400, str(error), param=error.param, code=error.code)
        await websocket.send_denial_response(_answer(refusal))
        return
    transport = WebSocketTransport(websocket)
    connection = RealtimeConnection(
        session, state.engine, state.responder, transport, state.settings, state.metrics
    )
    registry: SessionRegistry = state.sessions
    with logs.about(connection.id):
        try:
            registry.add(connection.id, connection)
            await connection.open()
            await _run(websocket, connection)
        except (RefusedError, EngineError) as error:
            state.metrics.refusals.labels(refusal_reason(error)).inc()
            await _turn_away(websocket, _as_api_error(error), TRY_AGAIN_LATER, str(error))
        finally:
            registry.remove(connection.id)
            connection.release()


async def _run(websocket: WebSocket, connection: RealtimeConnection) -> None:
    """Accept, then serve until the session is over or the client gone."""
    try:
        await _accept(websocket)
    except (WebSocketDisconnect, OSError):
        return  # gone before it began
    reader = asyncio.create_task(_read(websocket, connection), name=f"{connection.id} reader")
    try:
        await connection.run()
    finally:
        reader.cancel()


async def _join(websocket: WebSocket, call_id: str) -> None:
    """Attach to a call: hear its events, send events of one's own."""
    connection = websocket.app.state.sessions.call(call_id)
    if not isinstance(connection, RealtimeConnection):
        error = ApiError(404, f"There is no call {call_id[:80]!r}.", param="call_id")
        await websocket.send_denial_response(_answer(error))
        return
    await _accept(websocket)
    with logs.about(connection.id):
        outbox = connection.attach(WebSocketTransport(websocket))
        reader = asyncio.create_task(_read(websocket, connection, main=False))
        gone = asyncio.create_task(outbox.over.wait())
        try:
            await asyncio.wait({reader, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            connection.detach(outbox)
            reader.cancel()
            gone.cancel()


async def _read(websocket: WebSocket, connection: RealtimeConnection, main: bool = True) -> None:
    """Hand over what the client sends until it is gone."""
    code = ABNORMAL
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                code = message.get("code") or ABNORMAL
                return
            if (text := message.get("text")) is not None:
                await connection.receive_text(text)
            else:
                await connection.receive_binary(message.get("bytes") or b"")
    finally:
        if main:
            connection.lost(code)


def _session(websocket: WebSocket, identity: Identity) -> RealtimeSession:
    query = websocket.query_params
    key = identity.ephemeral
    kind: Any = "transcription" if query.get("intent") == "transcription" else "realtime"
    beta = _BETA_HEADER in websocket.headers.get("openai-beta", "") or (
        _BETA_SUBPROTOCOL in subprotocols_of(websocket.scope)
    )
    configuration = dict(key.configuration) if key is not None else None
    return RealtimeSession(
        key.kind if key is not None else kind,
        model=str((configuration or {}).get("model") or query.get("model") or DEFAULT_MODEL),
        dialect="beta" if beta else "ga",
        configuration=configuration,
        limits=session_limits(websocket.app.state.settings),
        now=time.time(),
    )


def session_limits(settings: ServerSettings) -> SessionLimits:
    """The bounds of a session by the server's settings."""
    return SessionLimits(
        event_bytes=settings.max_frame_bytes,
        append_bytes=settings.max_append_bytes,
        uncommitted_seconds=settings.uncommitted_seconds,
        minimum_commit_ms=settings.minimum_commit_ms,
        stall_seconds=settings.stall_seconds,
        items=settings.max_items,
        conversation_bytes=settings.max_conversation_bytes,
        tools=settings.max_tools,
        tools_bytes=settings.max_tools_bytes,
        instruction_characters=settings.max_instruction_characters,
        json_depth=settings.max_json_depth,
        out_of_band_responses=settings.max_out_of_band_responses,
        response_seconds=response_seconds(settings),
        session_seconds=settings.session_seconds,
        drain_seconds=max(settings.drain_seconds, 0.001),
    )


def response_seconds(settings: ServerSettings) -> float:
    """How long an answer may say nothing: language model and voice take turns, so that none of
    their own limits, which have more to say, is cut short."""
    return settings.llm_timeout_s + settings.tts_timeout_s + 2 * settings.connect_timeout_s


def refusal_reason(error: TinyvoiceError) -> str:
    """In a word, for the metrics, why there was no place."""
    if isinstance(error, RefusedError):
        return error.reason
    if isinstance(error, EngineFullError):
        return "full"
    return "overloaded" if isinstance(error, EngineOverloadedError) else "unavailable"


async def _accept(websocket: WebSocket) -> None:
    offered = SUBPROTOCOL in subprotocols_of(websocket.scope)
    await websocket.accept(SUBPROTOCOL if offered else None)


async def _turn_away(websocket: WebSocket, error: ApiError, code: int, reason: str) -> None:
    """Accept, say why not, and close."""
    event = {
        "type": "error",
        "event_id": random_identifier("event"),
        "error": {**error.body["error"], "event_id": None},
    }
    try:
        await _accept(websocket)
        await websocket.send_text(json.dumps(event))
        await websocket.close(code, _shortened(reason))
    except (WebSocketDisconnect, OSError, RuntimeError):
        logger.debug("a client that was turned away had gone before")


def _as_api_error(error: TinyvoiceError) -> ApiError:
    return ApiError(503, str(error), type=SERVER_ERROR, code="overloaded")


def _answer(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body, status_code=error.status, headers=error.headers)


def _shortened(reason: str) -> str:
    return reason.encode()[:_LONGEST_REASON].decode(errors="ignore")
