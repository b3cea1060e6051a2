"""The older (beta) dialect of the protocol, translated at the edge.

Inside there is only the current (GA) one. What comes in is recognised by its shape, whatever the
connection speaks; what goes out is translated where the connection speaks beta.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Dialect = Literal["ga", "beta"]

SESSION_PATHS: dict[str, tuple[str, ...]] = {
    "input_audio_format": ("audio", "input", "format"),
    "input_audio_transcription": ("audio", "input", "transcription"),
    "input_audio_noise_reduction": ("audio", "input", "noise_reduction"),
    "turn_detection": ("audio", "input", "turn_detection"),
    "output_audio_format": ("audio", "output", "format"),
    "voice": ("audio", "output", "voice"),
    "speed": ("audio", "output", "speed"),
    "modalities": ("output_modalities",),
    "max_response_output_tokens": ("max_output_tokens",),
}
"""Flat field of the older dialect and where it is now."""

FORMAT_NAMES = {"audio/pcm": "pcm16", "audio/pcmu": "g711_ulaw", "audio/pcma": "g711_alaw"}

EVENT_NAMES = {
    "response.output_text.delta": "response.text.delta",
    "response.output_text.done": "response.text.done",
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
    "conversation.item.added": "conversation.item.created",
}
PART_NAMES = {"output_text": "text", "output_audio": "audio"}
DEFAULT_TEMPERATURE = 0.8


# --- in -------------------------------------------------------------------------------------------


def is_beta(event: Mapping[str, Any]) -> bool:
    """Whether a client's first event or first ``session.update`` gives the older dialect away."""
    if event.get("type") == "transcription_session.update":
        return True
    session = event.get("session")
    if event.get("type") != "session.update" or not isinstance(session, dict):
        return False
    return "type" not in session and "audio" not in session and bool(SESSION_PATHS.keys() & session)


def nested_session(session: Any) -> Any:
    """A session with flat fields in the current form; what is there in that form wins.

    Anything but an object is given back as it is, for others to complain about.
    """
    if not isinstance(session, dict) or not SESSION_PATHS.keys() & session:
        return session
    nested = {name: value for name, value in session.items() if name not in SESSION_PATHS}
    for name, path in SESSION_PATHS.items():
        if name in session:
            place_at(nested, path, session[name])
    return nested


def place_at(target: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set a field within objects, unless it is set or something else is in the way."""
    for name in path[:-1]:
        inner = target.get(name)
        if inner is not None and not isinstance(inner, dict):
            return
        # A copy: the client's own object stays as it was.
        target[name] = target = dict(inner or {})
    target.setdefault(path[-1], value)


def nested_response(response: Any) -> Any:
    """The parameters of a response in the current form, like `nested_session`."""
    return nested_session(response)


# --- out ------------------------------------------------------------------------------------------


def to_beta(event: dict[str, Any]) -> dict[str, Any] | None:
    """A server event in the older dialect; None where that one says nothing."""
    kind = event["type"]
    if kind == "conversation.item.done":
        return None
    event = event | {"type": EVENT_NAMES.get(kind, kind)}
    if "session" in event:
        if event["session"]["type"] == "transcription":
            event["type"] = f"transcription_{kind}"
        event["session"] = flat_session(event["session"])
    if "item" in event:
        event["item"] = flat_item(event["item"])
    if "response" in event:
        event["response"] = flat_response(event["response"])
    return event


def flat_session(session: Mapping[str, Any]) -> dict[str, Any]:
    """A session with the older dialect's flat fields."""
    heard = session["audio"]["input"]
    flat = {
        name: session[name]
        for name in session
        if name not in ("type", "audio", "output_modalities", "max_output_tokens")
    }
    flat |= {
        "input_audio_format": FORMAT_NAMES[heard["format"]["type"]],
        "input_audio_transcription": heard["transcription"],
        "input_audio_noise_reduction": heard["noise_reduction"],
        "turn_detection": heard["turn_detection"],
    }
    if session["type"] == "realtime":
        spoken = session["audio"]["output"]
        flat |= {
            "modalities": flat_modalities(session["output_modalities"]),
            "voice": spoken["voice"],
            "speed": spoken["speed"],
            "output_audio_format": FORMAT_NAMES[spoken["format"]["type"]],
            "temperature": session.get("temperature", DEFAULT_TEMPERATURE),
            "max_response_output_tokens": session["max_output_tokens"],
        }
    return flat


def flat_modalities(modalities: list[str]) -> list[str]:
    """The older dialect says that audio comes with text."""
    return ["audio", "text"] if modalities == ["audio"] else modalities


def flat_item(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item with the older names of an assistant's parts."""
    if "content" not in item:
        return dict(item)
    parts = [
        part | {"type": PART_NAMES.get(part["type"], part["type"])} for part in item["content"]
    ]
    return dict(item) | {"content": parts}


def flat_response(response: Mapping[str, Any]) -> dict[str, Any]:
    """A response with the older dialect's flat fields."""
    flat = {name: response[name] for name in response if name not in ("audio", "output_modalities")}
    spoken = response["audio"]["output"]
    return flat | {
        "modalities": flat_modalities(response["output_modalities"]),
        "voice": spoken["voice"],
        "output_audio_format": FORMAT_NAMES[spoken["format"]["type"]],
        "temperature": DEFAULT_TEMPERATURE,
        "output": [flat_item(item) for item in response["output"]],
    }
