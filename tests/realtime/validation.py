"""Whether an event is what strict clients take it for.

Judges are the type models of the ``openai`` package, and for conversations Pipecat's parser, which
ends a client's receive loop over anything it does not like.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any, get_args

import openai.types.beta.realtime as beta
import openai.types.realtime as ga
from pipecat.services.openai.realtime.events import parse_server_event
from pydantic import TypeAdapter, ValidationError

EXTENSION = "tinyvoice."
"""Events of our own, which only a client sees that asked for them."""
GA_ONLY = (
    "input_audio_buffer.timeout_triggered",
    "output_audio_buffer.started",
    "output_audio_buffer.stopped",
    "output_audio_buffer.cleared",
)
"""Newer than the beta models, or left out of them; a beta connection may have them as well."""


@functools.cache
def models(dialect: str) -> dict[str, TypeAdapter[Any]]:
    """The members of the union of all server events, by type.

    One member's complaint can be read; the union's is that of fifty.
    """
    union = ga.RealtimeServerEvent if dialect == "ga" else beta.RealtimeServerEvent
    members = get_args(get_args(union)[0])
    return {
        kind: TypeAdapter(member)
        for member in members
        for kind in get_args(member.model_fields["type"].annotation)
    }


def validate(event: Mapping[str, Any], kind: str, dialect: str = "ga") -> None:
    """Raise `AssertionError` where a judge refuses an event."""
    text = json.dumps(event, allow_nan=False)
    text.encode()
    if event["type"].startswith(EXTENSION):
        return
    if event["type"] == "transcription_session.created" and dialect == "beta":
        return  # the beta server sent it, and the beta models have no class for it
    plain = without_extensions(event)
    if dialect == "beta" and "session" in plain:
        name_models_of_then(plain["session"])
    if event["type"] == "transcription_session.updated":
        # Sent by the HTTP route only, but the one class is used for both.
        plain["session"]["client_secret"] = {"value": "", "expires_at": 0}
    if dialect == "beta" and event["type"] in GA_ONLY:
        dialect = "ga"
    assert event["type"] in models(dialect), f"there is no event of the type {event['type']}"
    try:
        models(dialect)[event["type"]].validate_python(plain)
    except ValidationError as error:
        raise AssertionError(f"openai refuses {text}: {error}") from error
    if dialect == "ga" and kind == "realtime" and not is_mcp(event):
        parse_server_event(json.dumps(plain))


def name_models_of_then(session: dict[str, Any]) -> None:
    """The beta type models list the names of their time; a server has its own."""
    if "model" in session:
        session["model"] = "gpt-4o-realtime-preview"
    if session["input_audio_transcription"] is not None:
        session["input_audio_transcription"]["model"] = "whisper-1"


def without_extensions(event: Mapping[str, Any]) -> dict[str, Any]:
    """The event without what only clients see that asked for an extension."""
    plain: dict[str, Any] = json.loads(json.dumps(event))
    session = plain.get("session")
    if session is None:
        return plain
    if session.get("include"):
        session["include"] = [n for n in session["include"] if not n.startswith(EXTENSION)]
    heard = session.get("audio", {}).get("input", {}).get("format", {})
    if heard.get("rate") == 16_000:
        heard["rate"] = 24_000
    # Pipecat's client never asks for what its parser refuses.
    transcription = session.get("audio", {}).get("input", {}).get("transcription")
    for name in ("languages", "keywords", "delay"):
        if transcription is not None:
            transcription.pop(name, None)
    if isinstance(session.get("tool_choice"), dict):
        session["tool_choice"] = "auto"
    return plain


def is_mcp(event: Mapping[str, Any]) -> bool:
    """Whether an item of the MCP kinds is in it, which Pipecat does not know."""
    item = event.get("item")
    return isinstance(item, Mapping) and str(item.get("type")).startswith("mcp")
