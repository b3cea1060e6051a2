"""Items and requests as a session makes them, and what comes of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from tinyvoice.realtime.backends.interface import (
    BackendEvent,
    LanguageModel,
    ResponseRequest,
    TextDelta,
)


def user(text: str | None) -> dict[str, Any]:
    content = [{"type": "input_audio", "transcript": text}]
    return {"type": "message", "role": "user", "content": content}


def assistant(text: str) -> dict[str, Any]:
    content = [{"type": "output_audio", "transcript": text}]
    return {"type": "message", "role": "assistant", "content": content}


def call(call_id: str, name: str = "get_weather", arguments: str = "{}") -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}


def output(call_id: str, text: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


def tool(name: str, description: str = "", **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {
        "type": "function",
        "name": name,
        "description": description,
        "parameters": parameters,
    }


def request(*items: Any, **settings: Any) -> ResponseRequest:
    return ResponseRequest(items, **settings)


async def collect(events: AsyncIterator[Any]) -> list[Any]:
    return [event async for event in events]


async def replies(model: LanguageModel, *items: Any, **settings: Any) -> list[Any]:
    """All events of one answer of a model that is opened for it."""
    await model.open()
    try:
        return await collect(model.reply(request(*items, **settings)))
    finally:
        await model.close()


def text_of(events: list[BackendEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))
