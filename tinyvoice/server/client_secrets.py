"""Ephemeral keys for clients that must not hold an API key: browsers, telephones.

``POST /v1/realtime/client_secrets`` and the two older addresses that did the same before it. A key
carries the session that it opens; what the session is, and whether it is well formed, is the
session core's business.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from tinyvoice.realtime.configuration import DEFAULT_MODEL
from tinyvoice.realtime.dialect import flat_session
from tinyvoice.realtime.errors import ProtocolError
from tinyvoice.realtime.session import RealtimeSession, session_configuration
from tinyvoice.server.authentication import Identity, require_key
from tinyvoice.server.ephemeral_keys import EphemeralKeyError, EphemeralKeys, SessionKind
from tinyvoice.server.errors import ApiError
from tinyvoice.server.settings import ServerSettings
from tinyvoice.server.websocket import session_limits

router = APIRouter()

SHORTEST_S, LONGEST_S = 10, 7_200
OLDER_S = 60
"""How long the keys of the older addresses hold."""

KeyHolder = Annotated[Identity, Depends(require_key)]


@router.post("/v1/realtime/client_secrets")
async def create_client_secret(request: Request, _holder: KeyHolder) -> dict[str, Any]:
    """A key and the session that it opens."""
    body = await _body(request)
    settings: ServerSettings = request.app.state.settings
    seconds = _seconds(body.get("expires_after"), settings.client_secret_seconds)
    value, expires_at, session = _make(request, body.get("session"), None, seconds)
    return {"value": value, "expires_at": expires_at, "session": session}


@router.post("/v1/realtime/sessions")
async def create_session(request: Request, _holder: KeyHolder) -> dict[str, Any]:
    """The older form for conversations: the session, with its key inside."""
    return await _older(request, "realtime")


@router.post("/v1/realtime/transcription_sessions")
async def create_transcription_session(request: Request, _holder: KeyHolder) -> dict[str, Any]:
    """The older form for transcription."""
    return await _older(request, "transcription")


async def _older(request: Request, kind: SessionKind) -> dict[str, Any]:
    body = await _body(request)
    asked = body.pop("client_secret", None)
    after = asked.get("expires_after") if isinstance(asked, dict) else None
    value, expires_at, session = _make(request, body, kind, _seconds(after, OLDER_S))
    return {**flat_session(session), "client_secret": {"value": value, "expires_at": expires_at}}


def _make(
    request: Request, payload: Any, kind: SessionKind | None, seconds: int
) -> tuple[str, int, dict[str, Any]]:
    """A key, when it expires, and the session as the client will find it."""
    keys: EphemeralKeys = request.app.state.ephemeral_keys
    limits = session_limits(request.app.state.settings)
    configuration = session_configuration(kind, payload, limits)
    kind = "transcription" if configuration.get("type") == "transcription" else "realtime"
    session = RealtimeSession(
        kind,
        model=str(configuration.get("model") or DEFAULT_MODEL),
        configuration=configuration,
        limits=limits,
        now=time.time(),
    )
    try:
        value = keys.make(kind, configuration, seconds)
    except EphemeralKeyError as error:
        raise ApiError(400, str(error), param="session", code="session_too_large") from None
    return value, keys.expires_at(seconds), session.describe()


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object of a request; none is an empty one."""
    content = await request.body()
    if not content.strip():
        return {}
    try:
        body = await request.json()
    except (ValueError, RecursionError):
        raise ApiError(400, "The body is not JSON: send an object.", code="invalid_json") from None
    if not isinstance(body, dict):
        raise ApiError(400, "The body is not a JSON object.", code="invalid_type")
    return body


def _seconds(after: Any, default: int) -> int:
    """How long a key is to hold, by ``expires_after``."""
    if after is None:
        return default
    if not isinstance(after, dict):
        raise _wrong("expires_after", "an object with 'anchor' and 'seconds'")
    if after.get("anchor", "created_at") != "created_at":
        raise _wrong("expires_after.anchor", "'created_at'")
    seconds = after.get("seconds")
    if seconds is None:
        return default
    whole = isinstance(seconds, int) and not isinstance(seconds, bool)
    if not (whole and SHORTEST_S <= seconds <= LONGEST_S):
        raise _wrong("expires_after.seconds", f"an integer from {SHORTEST_S} to {LONGEST_S}")
    return int(seconds)


def _wrong(param: str, right: str) -> ProtocolError:
    return ProtocolError("invalid_value", f"Invalid value for '{param}': give {right}.", param)
