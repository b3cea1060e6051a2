"""Function calls that a server streams in parts, put into the order in which they are told.

Servers number parallel calls and may send parts of several in turn. Told of are calls one after
another: the first is passed on as it comes, the parts of another wait until the one before it is
complete.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from tinyvoice.realtime.backends.interface import (
    ModelEvent,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStarted,
)

_LONGEST_ID = 32
"""Characters of a call's id that clients of the Realtime protocol take."""


@dataclass
class _Call:
    name: str = ""
    arguments: str = ""
    call_id: str = ""
    told: int = 0
    """Characters of the arguments that have been told."""
    started: bool = False


class ToolCallOrder:
    """The calls of one answer."""

    def __init__(self) -> None:
        self._calls: dict[int, _Call] = {}
        self._current = 0
        """Place, in order of appearance, of the call that is being told."""

    def feed(
        self, index: int | None, call_id: str | None, name: str | None, arguments: str | None
    ) -> Iterator[ModelEvent]:
        """Take a part of a call; give what can be told."""
        call = self._calls.setdefault(self._number(index, call_id), _Call())
        if call_id and not call.call_id:
            call.call_id = call_id if len(call_id) <= _LONGEST_ID else new_call_id()
        call.name = call.name or name or ""
        call.arguments += arguments or ""
        yield from self._tell()

    def finish(self, complete: bool = True) -> Iterator[ModelEvent]:
        """Tell the rest. Unless ``complete``, the call that was being written is left open."""
        calls = list(self._calls.values())
        while self._current < len(calls):
            call = calls[self._current]
            yield from self._tell_more(call)
            if not complete and not _is_json(call.arguments):
                return
            if call.started:
                yield ToolCallDone(call.call_id, call.name, call.arguments)
            self._current += 1

    def _number(self, index: int | None, call_id: str | None) -> int:
        """Servers that do not number calls begin each with an id of its own."""
        if index is not None:
            return index
        known = call_id is None or any(call.call_id == call_id for call in self._calls.values())
        return max(len(self._calls) - (1 if known and self._calls else 0), 0)

    def _tell(self) -> Iterator[ModelEvent]:
        calls = list(self._calls.values())
        while True:
            call = calls[self._current]
            yield from self._tell_more(call)
            behind = self._current + 1 < len(calls)
            if not (behind and call.started and _is_json(call.arguments)):
                return
            yield ToolCallDone(call.call_id, call.name, call.arguments)
            self._current += 1

    def _tell_more(self, call: _Call) -> Iterator[ModelEvent]:
        if not call.started and call.name:
            call.call_id = call.call_id or new_call_id()
            call.started = True
            yield ToolCallStarted(call.call_id, call.name)
        if call.started and len(call.arguments) > call.told:
            yield ToolCallDelta(call.call_id, call.arguments[call.told :])
            call.told = len(call.arguments)


def new_call_id() -> str:
    """An id that no other call has."""
    return f"call_{secrets.token_hex(10)}"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
