"""Events on their way to one client: in order, bounded, one writer.

A client that reads slowly is waited for where something can wait; one that does not read at all is
disconnected, and nobody else notices. What the events say is not looked at here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from tinyvoice.errors import TinyvoiceError

_LOW_WATER = 8
"""The queue has room again below this fraction of its bound."""


class TransportLostError(TinyvoiceError):
    """The client is gone."""


class Transport(Protocol):
    """A way to one client: a WebSocket or a data channel."""

    async def send(self, text: str) -> None:
        """Send one event; returns when the next one may follow.

        Raises:
            TransportLostError: the client is gone.
        """

    async def close(self, code: int, reason: str) -> None:
        """Close with a WebSocket close code; does nothing where it is closed already."""

    def abort(self) -> None:
        """Drop the connection at once, with what was not sent; `send` raises from now on."""


class Outbox:
    """The queue before one transport, and the task that empties it.

    Args:
        transport: where events go.
        largest: characters that may wait; with one more the client is dropped.
        timeout_s: a client that takes nothing for so long is dropped.
    """

    def __init__(self, transport: Transport, largest: int, timeout_s: float) -> None:
        self.transport = transport
        self.over = asyncio.Event()
        """Set when nothing is sent any more, whatever the reason."""
        self.fault: str | None = None
        """Why the client was dropped, in a word for the log; None where it was not."""
        self._largest, self._timeout_s = largest, timeout_s
        self._texts: deque[str] = deque()
        self._waiting = 0
        self._closing: tuple[int, str] | None = None
        self._news = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()

    def put(self, text: str) -> None:
        """Queue an event behind those that wait."""
        if self.over.is_set() or self._closing is not None:
            return
        if self._waiting + len(text) > self._largest:
            self._drop("unread")
            return
        self._texts.append(text)
        self._waiting += len(text)
        if self._waiting > self._largest // _LOW_WATER:
            self._has_room.clear()
        self._news.set()

    def finish(self, code: int, reason: str) -> None:
        """Close the connection when everything queued has been sent."""
        if self._closing is None:
            self._closing = code, reason
            self._news.set()

    @property
    def has_room(self) -> bool:
        """Whether little waits."""
        return self._has_room.is_set()

    async def room(self) -> None:
        """Return when little waits; whoever can wait asks before making more."""
        await self._has_room.wait()

    async def run(self) -> None:
        """Send until the connection is closed or lost."""
        try:
            while await self._send_all():
                self._news.clear()
                await self._news.wait()
        except TransportLostError:
            pass
        except TimeoutError:
            self._drop("stalled")
        finally:
            self._end()

    async def _send_all(self) -> bool:
        """Send what is queued; False when the connection has been closed."""
        while self._texts:
            text = self._texts.popleft()
            async with asyncio.timeout(self._timeout_s):
                await self.transport.send(text)
            self._waiting -= len(text)
            if self._waiting <= self._largest // _LOW_WATER:
                self._has_room.set()
        if self._closing is not None:
            async with asyncio.timeout(self._timeout_s):
                await self.transport.close(*self._closing)
            return False
        return not self.over.is_set()

    def _drop(self, fault: str) -> None:
        self.fault = fault
        self.transport.abort()
        self._end()

    def _end(self) -> None:
        self.over.set()
        self._texts.clear()
        self._waiting = 0
        self._has_room.set()
        self._news.set()
