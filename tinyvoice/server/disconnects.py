"""What a client that goes away is no longer worth.

A handler is not told that its client hung up: it has to look. Here the work of a request ends with
its client, and what a streamed answer holds is given back whichever way it ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

Result = TypeVar("Result")

CLIENT_CLOSED_REQUEST = 499
"""What goes into the log as the status of an answer that nobody waits for, as with nginx."""


async def while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Do the work of a request whose body has been read, as long as its client waits.

    Raises:
        ClientDisconnect: the client went away; the work has been cancelled.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        watching.cancel()
        working.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class StreamedAnswer(StreamingResponse):
    """An answer whose parts are still being made.

    ``parts`` is closed, and what it was made to `own` is given back, at the end: when all is sent,
    when the client goes away, when sending fails, and when the client has taken nothing for
    ``patience_s`` seconds.
    """

    def __init__(
        self,
        parts: AsyncGenerator[bytes, None],
        media_type: str,
        patience_s: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(parts, media_type=media_type, headers=headers)
        self._parts, self._patience_s = parts, patience_s
        self._resources = AsyncExitStack()

    def own(self, resources: AsyncExitStack) -> None:
        """Give these back at the end; they have been the caller's until now."""
        self._resources = resources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer; raises `TimeoutError` for a client that does not take it."""

        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._patience_s):
                await send(message)

        async with self._resources:
            try:
                await super().__call__(scope, receive, send_in_time)
            finally:
                await self._parts.aclose()


SSE_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
"""Proxies are to hand events on as they come."""
