"""A function call as Qwen3 writes it, told while it is being written.

Between its tags stands ``{"name": "…", "arguments": {…}}``: the arguments are passed on as they
come, up to the brace that closes them. A call whose parts stand in another order is told at its
end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tinyvoice.realtime.backends.interface import (
    ModelEvent,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStarted,
)
from tinyvoice.realtime.backends.tool_calls import new_call_id

_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*"([^"\\]+)"\s*,\s*"arguments"\s*:\s*(?=\{)')


class WrittenCall:
    """One call; feed it what stands between its tags."""

    def __init__(self) -> None:
        self._call_id = new_call_id()
        self._name = ""
        self._text = ""
        self._begin = self._told = 0
        """Where in the text the arguments begin, and up to where they have been told."""
        self._depth = 0
        self._in_string = self._escaped = self._whole = False

    def feed(self, text: str) -> Iterator[ModelEvent]:
        """Take more of the call; give what can be told."""
        self._text += text
        if not self._name and (head := _HEAD.match(self._text)):
            self._name = head[1]
            self._begin = self._told = head.end()
            yield ToolCallStarted(self._call_id, self._name)
        if self._name and not self._whole:
            end = self._scan()
            if end > self._told:
                yield ToolCallDelta(self._call_id, self._text[self._told : end])
                self._told = end

    def close(self) -> Iterator[ModelEvent]:
        """Tell the end of the call; nothing if it cannot be read."""
        if self._name and self._whole:
            arguments = self._text[self._begin : self._told]
            yield ToolCallDone(self._call_id, self._name, arguments)
        elif not self._name and (call := _parsed(self._text)):
            name, arguments = call
            yield ToolCallStarted(self._call_id, name)
            yield ToolCallDelta(self._call_id, arguments)
            yield ToolCallDone(self._call_id, name, arguments)

    def _scan(self) -> int:
        """Where what is known of the arguments ends; notes whether that is their closing brace."""
        for position in range(self._told, len(self._text)):
            character = self._text[position]
            if self._in_string:
                self._in_string = self._escaped or character != '"'
                self._escaped = not self._escaped and character == "\\"
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self._whole = True
                    return position + 1
        return len(self._text)


def _parsed(text: str) -> tuple[str, str] | None:
    """Name and arguments of a whole call."""
    try:
        call: Any = json.loads(text)
    except ValueError:
        return None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return None
    arguments = call.get("arguments", {})
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return call["name"], arguments
