"""The listening side: uvicorn, with an orderly end and no patience for clients that do not read.

uvicorn closes every WebSocket as soon as it is told to stop, and waits without end for a closed
connection whose client reads nothing. Both are changed here; everything else is uvicorn's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from tinyvoice.server.settings import ServerSettings

logger = logging.getLogger(__name__)

LINGER_S = 5.0
"""How long a connection that is over may take to empty its buffers."""

SENDING_S = 10
"""How long answers may take to be sent when everything has been drained; the rest is broken off."""

AT_ONCE_S = 1
"""The same where a second signal asks not to wait."""

NEGLIGIBLE_S = 0.1
"""Time without reading that makes no difference to a client that has to answer a ping."""

MOST_FRAGMENTS = 4_096
"""Fragments of one message; their number costs memory even where each of them is empty."""


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket connection, which can be dropped and is not kept when it is over."""

    _unread_s = 0.0
    """Time since the last ping in which nothing was read."""
    _paused_at: float | None = None
    """Since when nothing is read."""

    async def run_asgi(self) -> None:
        """Run the app for this connection, then see that it goes away."""
        self.scope["state"]["abort"] = self._abort
        try:
            await super().run_asgi()
        finally:
            self._expect_end()

    def send_keepalive_ping(self) -> None:
        """Ask the client whether it is there."""
        self._unread_s = 0.0
        if self._paused_at is not None:
            self._paused_at = self.loop.time()
        super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        """The client did not answer a ping: close, whether it reads that or not.

        An answer may be in what has not been read, because the session has enough to do: only time
        in which the connection was read counts.
        """
        unread_s, self._unread_s = self._unread_s, 0.0
        if self._paused_at is not None:
            now = self.loop.time()
            unread_s += now - self._paused_at
            self._paused_at = now
        if unread_s > NEGLIGIBLE_S:
            self.pong_timer = self.loop.call_later(unread_s, self.keepalive_timeout)
            return
        super().keepalive_timeout()
        self._expect_end()

    def send_receive_event_to_app(self) -> None:
        """Hand over a message; nothing more is read until it has been taken."""
        super().send_receive_event_to_app()
        if self.read_paused and self._paused_at is None:
            self._paused_at = self.loop.time()

    async def receive(self) -> Any:
        """The next message."""
        message = await super().receive()
        if not self.read_paused and self._paused_at is not None:
            self._unread_s += self.loop.time() - self._paused_at
            self._paused_at = None
        return message

    def shutdown(self) -> None:
        """The server stops: close, whether the client reads that or not."""
        super().shutdown()
        self._expect_end()

    def handle_cont(self, event: Frame) -> None:
        """Take a fragment of a message, unless there are absurdly many."""
        if len(self.frames) >= MOST_FRAGMENTS:
            self.conn.fail(1009, "too many fragments")
            self.handle_parser_exception()
            return
        super().handle_cont(event)

    def _expect_end(self) -> None:
        if not self.disconnected:
            self.loop.call_later(self.close_timeout + LINGER_S, self._abort)

    def _abort(self) -> None:
        if not self.disconnected:
            self.transport.abort()


class Server(uvicorn.Server):
    """Drains before it stops.

    The first SIGTERM or SIGINT begins ``drain``; when that is done, or at the second signal,
    uvicorn stops. ``ready`` is called once, when connections are accepted.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        drain: Callable[[], Awaitable[None]],
        ready: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(config)
        self.interrupted = False
        """Whether SIGINT was the reason to stop."""
        self._drain, self._ready = drain, ready
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[Any] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self.started and self._ready is not None:
            self._ready()

    def stop(self) -> None:
        """Begin to drain, or stop at once if that has begun; from the event loop."""
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain_and_stop(), name="drain")
        else:
            self.config.timeout_graceful_shutdown = AT_ONCE_S
            self.should_exit = True

    async def _drain_and_stop(self) -> None:
        try:
            await self._drain()
        except Exception:
            logger.exception("draining failed")
        finally:
            self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals that end a server, where that is possible (the main thread)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()

        def handle(number: int, _frame: FrameType | None) -> None:
            self.interrupted |= number == signal.SIGINT
            loop.call_soon_threadsafe(self.stop)

        before = {
            number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def listener_config(app: Any, settings: ServerSettings, **tls: Any) -> uvicorn.Config:
    """uvicorn's configuration for these settings; ``tls`` as from ``tls.py``."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        ws=WebSocketProtocol,
        ws_max_size=settings.max_frame_bytes,
        ws_ping_interval=settings.ping_interval_seconds,
        ws_ping_timeout=settings.ping_timeout_seconds,
        # Audio does not compress, and small frames can inflate to thousands of times their size.
        ws_per_message_deflate=False,
        log_config=None,
        # Its lines hold queries, and queries may hold keys; ``app.py`` writes its own.
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SENDING_S,
        **tls,
    )
