"""Realtime sessions over WebRTC: an SDP offer comes by HTTP, audio and events go past it.

``POST /v1/realtime/calls`` (and ``POST /v1/realtime``, its older name) answers an offer; the call's
session begins with the configuration of its ephemeral key or of the request's ``session`` part.
Events travel over the data channel ``oai-events``, one per message, the voice both ways as audio.
``POST …/hangup`` ends a call. A WebSocket with ``?call_id=`` that hears and sends the events of a
call is served by ``websocket.py``; what the events mean is the session's to know.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from starlette.datastructures import FormData, UploadFile

from tinyvoice.realtime.session import RealtimeSession, session_configuration
from tinyvoice.server import logs
from tinyvoice.server.admission import CALL_PREFIX, SessionRegistry
from tinyvoice.server.authentication import Identity, require_any_key, require_key
from tinyvoice.server.connection import ABNORMAL, NORMAL, RealtimeConnection
from tinyvoice.server.errors import ApiError
from tinyvoice.server.outbox import TransportLostError
from tinyvoice.server.settings import LOOPBACK, ServerSettings
from tinyvoice.server.websocket import DEFAULT_MODEL, session_limits
from tinyvoice.webrtc import (
    MessageTooLargeError,
    OfferError,
    Peer,
    PeerClosedError,
    PeerSettings,
    PlaybackFullError,
)

logger = logging.getLogger(__name__)

router = APIRouter()

CHANNEL = "oai-events"
"""Label of the data channel that clients open for events."""

SDP = "application/sdp"

TRY_AGAIN_LATER = 1013

_INBOX_BYTES = 8 << 20
"""What may wait to be read by a session that falls behind: 3 minutes of audio, or events."""

_SESSION_BYTES = 1 << 20
"""Longest ``session`` part."""

_UNSENT_BYTES = 1 << 20
"""Events beyond this wait before the data channel, where their number is bounded."""

_BETA_HEADER = "realtime=v1"


@dataclass(frozen=True)
class CallRequest:
    """What a client asks for: an offer to answer, and the session it wants, if it says so."""

    offer: str
    session: Mapping[str, Any] | None


class Call:
    """One call: a peer, the session behind it, and what moves between the two.

    It is the handler of its peer, and transport and player of its connection.
    """

    def __init__(self, session: RealtimeSession, state: Any, loopback: bool) -> None:
        settings: ServerSettings = state.settings
        self.id = f"{CALL_PREFIX}{secrets.token_hex(11)}"
        self._registry: SessionRegistry = state.sessions
        self._metrics = state.metrics
        self.peer = Peer(self, CHANNEL, _peer_settings(settings, loopback))
        self.connection = RealtimeConnection(
            session,
            state.engine,
            state.responder,
            self,
            settings,
            state.metrics,
            player=self,
            label="webrtc",
        )
        self._opened = asyncio.Event()
        self._inbox: deque[tuple[str, str | bytes]] = deque()
        self._inbox_bytes = 0
        self._mail = asyncio.Event()

    async def answer(self, offer: str) -> str:
        """Take a place and answer the offer; the call goes on by itself then.

        Raises:
            RefusedError, EngineError: there is no place.
            OfferError: the offer cannot be answered.
        """
        try:
            self._registry.add(self.id, self.connection)
            await self.connection.open()
            answer = await self.peer.answer(offer)
        except BaseException:
            await self._give_back()
            raise
        task = asyncio.create_task(self._run(), name=f"{self.id} call")
        _running.add(task)
        task.add_done_callback(_running.discard)
        return answer

    async def _run(self) -> None:
        with logs.about(self.connection.id):
            logger.info("call begins", extra={"call": self.id})
            reader = asyncio.create_task(self._read(), name=f"{self.id} reader")
            try:
                await self.connection.run()
            finally:
                reader.cancel()
                await self._give_back()
                logger.info("call ended", extra={"call": self.id, **self._heard()})

    async def _give_back(self) -> None:
        self._registry.remove(self.id)
        self.connection.release()
        await self.peer.close()

    def _heard(self) -> dict[str, Any]:
        """How the microphone came through."""
        statistics = self.peer.statistics
        return {
            "packets": statistics.packets,
            "lost": statistics.lost,
            "late": statistics.late,
            "filled_ms": round(statistics.filled_ms),
        }

    async def _read(self) -> None:
        """Hand what the client sent to the session, no faster than it takes it."""
        receive = {
            "text": self.connection.receive_text,
            "binary": self.connection.receive_binary,
            "audio": self.connection.receive_audio,
            "oversized": self._refuse,
        }
        while True:
            while self._inbox:
                kind, content = self._inbox.popleft()
                self._inbox_bytes -= len(content)
                await receive[kind](content)  # type: ignore[operator]
            self._mail.clear()
            await self._mail.wait()

    async def _refuse(self, size: str) -> None:
        limit = self.peer.settings.message_bytes
        await self.connection.receive_oversized(int(size), limit)

    def _deliver(self, kind: str, content: str | bytes) -> None:
        self._inbox_bytes += len(content)
        if self._inbox_bytes > _INBOX_BYTES:
            logger.warning("call falls behind and is closed", extra={"call": self.id})
            self.connection.close(TRY_AGAIN_LATER, "the server falls behind")
            return
        self._inbox.append((kind, content))
        self._mail.set()

    # --- handler of the peer ---------------------------------------------------------------------

    def channel_opened(self) -> None:
        """Events may be sent."""
        self._opened.set()

    def message_received(self, message: str | bytes) -> None:
        """An event of the client."""
        self._deliver("text" if isinstance(message, str) else "binary", message)

    def message_refused(self, size: int) -> None:
        """An event of the client was too long."""
        self._deliver("oversized", str(size))

    def audio_received(self, pcm16: bytes) -> None:
        """More of the client's microphone."""
        self._deliver("audio", pcm16)

    def playback_started(self, response_id: str) -> None:
        """The voice begins to be heard."""
        self.connection.playback_started(response_id)

    def playback_finished(self, response_id: str) -> None:
        """The voice has said everything."""
        self.connection.playback_finished(response_id)

    def peer_closed(self, reason: str) -> None:
        """The client is gone, or has been hung up on."""
        logger.info("call is over: %s", reason, extra={"call": self.id})
        self._opened.set()
        self.connection.lost(NORMAL if reason == "the caller hung up" else ABNORMAL)

    # --- transport of the connection -------------------------------------------------------------

    async def send(self, text: str) -> None:
        """Send an event over the data channel, from when it is open; returns when there is room.

        Raises:
            TransportLostError: the client is gone.
        """
        if not self.peer.has_channel:
            return  # a call without one: a sideband connection may hear its events
        await self._opened.wait()
        try:
            try:
                self.peer.send(text)
            except MessageTooLargeError as error:
                self.peer.send(fitting(text, error.limit))
            await self.peer.room(_UNSENT_BYTES)
        except PeerClosedError as error:
            raise TransportLostError("The client is gone.") from error

    async def close(self, code: int, reason: str) -> None:
        """Hang up once everything has been sent; WebRTC has no close codes."""
        await self.peer.room(0)
        await self.peer.close(f"closed with {code} {reason}".rstrip())

    def abort(self) -> None:
        """Hang up at once."""
        self.peer.end("dropped")

    # --- player of the connection ----------------------------------------------------------------

    def play(self, response_id: str, item_id: str, pcm: bytes) -> None:  # noqa: ARG002
        """Queue speech behind what waits."""
        try:
            self.peer.playback.play(response_id, pcm)
        except PlaybackFullError as error:
            logger.warning("speech is dropped: %s", error, extra={"call": self.id})
            self._metrics.errors.labels("playback").inc()

    def finish(self, response_id: str) -> None:
        """All speech of this answer has come."""
        self.peer.playback.end(response_id)

    def stop(self, response_id: str) -> float:
        """Drop what waits of this answer; the milliseconds of it that were played."""
        return self.peer.playback.clear(response_id)


_running: set[asyncio.Task[None]] = set()
"""Tasks of calls; the loop itself holds only weak references."""


async def call_request(request: Request) -> CallRequest:
    """The offer and the session of a request, in either of its shapes."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    longest = request.app.state.settings.max_offer_bytes
    if kind == "multipart/form-data":
        async with request.form(
            max_files=2, max_fields=8, max_part_size=max(longest, _SESSION_BYTES)
        ) as form:
            offer = await _part(form, "sdp", longest)
            session = await _part(form, "session", _SESSION_BYTES)
        if offer is None:
            raise ApiError(
                400,
                "Missing required parameter: 'sdp'.",
                param="sdp",
                code="missing_required_parameter",
            )
        return CallRequest(offer, None if session is None else _json_object(session))
    if kind in (SDP, "text/plain", ""):
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > longest:
                raise _too_long("sdp", longest)
        return CallRequest(_text(bytes(body), "sdp"), None)
    raise ApiError(
        415,
        f"A body of type {kind[:80]!r} is not taken: send the SDP offer as {SDP}, or as the part "
        "'sdp' of multipart/form-data.",
        code="unsupported_content_type",
    )


@router.post("/v1/realtime/calls", status_code=201)
@router.post("/v1/realtime", status_code=201)
async def create_call(
    request: Request, identity: Annotated[Identity, Depends(require_any_key)]
) -> Response:
    """Answer an SDP offer with 201, the SDP answer, and the call's address in ``Location``."""
    state = request.app.state
    state.sessions.check()
    asked = await call_request(request)
    host = request.client.host if request.client else ""
    call = Call(_session(request, identity, asked.session), state, loopback=_is_local(host))
    try:
        answer = await call.answer(asked.offer)
    except OfferError as error:
        raise ApiError(400, str(error), param="sdp", code="invalid_offer") from error
    location = {"Location": f"/v1/realtime/calls/{call.id}"}
    return Response(answer, status_code=201, media_type=SDP, headers=location)


@router.post("/v1/realtime/calls/{call_id}/hangup", dependencies=[Depends(require_key)])
async def hang_up(request: Request, call_id: str) -> Response:
    """End a call; what its session has still to say is sent before."""
    _connection(request, call_id).close(NORMAL, "hang-up")
    return Response(status_code=200)


@router.post("/v1/realtime/calls/{call_id}/accept", dependencies=[Depends(require_key)])
@router.post("/v1/realtime/calls/{call_id}/reject", dependencies=[Depends(require_key)])
@router.post("/v1/realtime/calls/{call_id}/refer", dependencies=[Depends(require_key)])
async def telephone(request: Request, call_id: str) -> Response:
    """Of calls over the telephone network (SIP), which there are none of here."""
    _connection(request, call_id)
    action = request.url.path.rsplit("/", 1)[-1]
    raise ApiError(
        400,
        f"A WebRTC call cannot be told to {action}: only SIP calls can, and this server has none.",
        code="unsupported_call_action",
    )


def fitting(text: str, limit: int) -> str:
    """What is sent in place of an event longer than ``limit`` bytes, which the client cannot take.

    A session is shown with shorter instructions and, if that is not enough, without its tools: a
    client that waits for it goes on. Of any other event nothing can be left out, so that an error
    says what is missing.
    """
    event = json.loads(text)
    size = len(text.encode())
    session = event.get("session")
    if isinstance(session, dict) and isinstance(session.get("instructions"), str):
        for change in ({"instructions": ""}, {"instructions": "", "tools": []}):
            shorter = {**event, "session": {**session, **change}}
            shortened = json.dumps(shorter, separators=(",", ":"))
            if len(shortened.encode()) <= limit:
                return shortened
    return _error_event(
        "event_too_large",
        f"An event '{event.get('type')}' of {size} bytes cannot be sent: the data channel takes "
        f"{limit}.",
        kind="server_error",
    )


def _session(
    request: Request, identity: Identity, asked: Mapping[str, Any] | None
) -> RealtimeSession:
    key = identity.ephemeral
    configuration: dict[str, Any] | None = None
    kind: Any = "realtime"
    limits = session_limits(request.app.state.settings)
    if key is not None:
        kind, configuration = key.kind, dict(key.configuration)
    elif asked is not None:
        configuration = session_configuration(None, asked, limits)
        kind = configuration["type"]
    elif request.query_params.get("intent") == "transcription":
        kind = "transcription"
    model = (configuration or {}).get("model") or request.query_params.get("model")
    beta = _BETA_HEADER in request.headers.get("openai-beta", "")
    return RealtimeSession(
        kind,
        model=str(model or DEFAULT_MODEL),
        dialect="beta" if beta else "ga",
        transport="webrtc",
        configuration=configuration,
        limits=limits,
        now=time.time(),
    )


def _peer_settings(settings: ServerSettings, loopback: bool) -> PeerSettings:
    return PeerSettings(
        offer_characters=settings.max_offer_bytes,
        setup_s=settings.call_setup_seconds,
        vanished_s=settings.call_vanished_seconds,
        message_bytes=settings.call_message_bytes,
        unread_bytes=settings.send_queue_bytes,
        longest_playback_s=settings.call_playback_seconds,
        addresses=settings.call_addresses or None,
        loopback=loopback,
    )


def _is_local(host: str) -> bool:
    return host in LOOPBACK or host.startswith("127.")


def _connection(request: Request, call_id: str) -> RealtimeConnection:
    connection = request.app.state.sessions.call(call_id)
    if not isinstance(connection, RealtimeConnection):
        raise ApiError(
            404, f"There is no call {call_id[:80]!r}.", param="call_id", code="call_not_found"
        )
    return connection


async def _part(form: FormData, name: str, longest: int) -> str | None:
    """A part of a form, sent as a field or as a file."""
    part = form.get(name)
    if part is None:
        return None
    data = await part.read(longest + 1) if isinstance(part, UploadFile) else part.encode()
    if len(data) > longest:
        raise _too_long(name, longest)
    return _text(data, name)


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ApiError(400, f"'{name}' is not UTF-8 text.", param=name) from None


def _too_long(name: str, longest: int) -> ApiError:
    return ApiError(413, f"'{name}' is longer than {longest} bytes.", param=name)


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ApiError(400, "'session' is not a JSON object.", param="session", code="invalid_json")
    return value


def _error_event(code: str, message: str, kind: str = "invalid_request_error") -> str:
    error = {"type": kind, "code": code, "message": message, "param": None, "event_id": None}
    event = {"type": "error", "event_id": f"event_{secrets.token_hex(10)}", "error": error}
    return json.dumps(event, separators=(",", ":"))
