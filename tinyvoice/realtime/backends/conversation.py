"""What a request's items say, read leniently: clients restore histories of every kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tinyvoice.realtime.backends.interface import Item, ResponseRequest


def parts(item: Item) -> Iterator[Mapping[str, Any]]:
    """The content parts of a message; a plain string counts as one part of text."""
    content = item.get("content")
    if isinstance(content, str):
        yield {"type": "text", "text": content}
    elif isinstance(content, Sequence):
        yield from (part for part in content if isinstance(part, Mapping))


def part_text(part: Mapping[str, Any]) -> str:
    """Text, or the transcript of audio; "" for an image and for audio that has none."""
    text = part.get("text")
    if not isinstance(text, str):
        text = part.get("transcript")
    return well_formed(text).strip() if isinstance(text, str) else ""


def well_formed(text: str) -> str:
    """The text with "?" for halves of characters, which JSON can hold and no server takes."""
    return text.encode("utf-8", "replace").decode()


def message_text(item: Item) -> str:
    """All that a message says in words."""
    return " ".join(filter(None, map(part_text, parts(item))))


def function_tools(request: ResponseRequest) -> list[Mapping[str, Any]]:
    """The function tools that may be called: none with the tool choice ``none``."""
    if request.tool_choice == "none":
        return []
    return [
        tool
        for tool in request.tools
        if tool.get("type", "function") == "function" and isinstance(tool.get("name"), str)
    ]


def chosen_function(request: ResponseRequest) -> str | None:
    """The function that the tool choice names, if it names one."""
    choice = request.tool_choice
    if not isinstance(choice, Mapping) or choice.get("type", "function") != "function":
        return None
    nested = choice.get("function")
    name = nested.get("name") if isinstance(nested, Mapping) else choice.get("name")
    return name if isinstance(name, str) else None
