"""Who is in: the sessions that are open, how many there may be, and their orderly end.

A session takes a place before it costs anything and gives it back when it is over, whatever way it
ends. What a session does is not looked at here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Protocol

from tinyvoice.errors import TinyvoiceError

logger = logging.getLogger(__name__)

CALL_PREFIX = "rtc_"
"""Identifiers of calls begin with this, and nobody else's."""

RETRY_AFTER_S = 5
"""When a client that was refused may come again."""


class RefusedError(TinyvoiceError):
    """There is no place for a session now; ``reason`` is one word for the metrics."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Admitted(Protocol):
    """What has a place: one session, whatever its transport."""

    async def drain(self) -> None:
        """Finish the turns in hand, then close with 1001; returns when that has been asked for."""

    async def stop(self) -> None:
        """Close with 1001 at once."""

    async def wait_closed(self) -> None:
        """Return when it is over."""


class SessionRegistry:
    """The open sessions of a server; used from its event loop only."""

    def __init__(self, max_sessions: int) -> None:
        self.max_sessions = max_sessions
        self.draining = False
        """Whether the server is about to stop: nobody is let in any more."""
        self._sessions: dict[str, Admitted] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Admitted]:
        return iter(list(self._sessions.values()))

    def get(self, name: str) -> Admitted | None:
        """The session of this id or call id, if it is open."""
        return self._sessions.get(name)

    def call(self, call_id: str) -> Admitted | None:
        """The call of this id, if it is going on.

        Others are joined by nobody: a session's id is in its logs and in what its client shows.
        """
        return self.get(call_id) if call_id.startswith(CALL_PREFIX) else None

    def check(self) -> None:
        """Find out whether one more may come in.

        Raises:
            RefusedError: the server is full or about to stop.
        """
        if self.draining:
            raise RefusedError("The server is shutting down: connect again later.", "draining")
        if len(self._sessions) >= self.max_sessions:
            raise RefusedError(
                f"All {self.max_sessions} sessions are taken: try again in some seconds.", "full"
            )

    def add(self, name: str, session: Admitted) -> None:
        """Give a place to a session under its id; raises like `check`."""
        self.check()
        self._sessions[name] = session

    def remove(self, name: str) -> None:
        """Give the place back; doing so twice is no harm."""
        self._sessions.pop(name, None)

    async def drain(self, seconds: float) -> None:
        """Let nobody in any more, let the sessions finish their turns, close what is left then."""
        self.draining = True
        waiting = [asyncio.ensure_future(session.wait_closed()) for session in self]
        if not waiting:
            return
        logger.info("draining %d sessions for up to %g s", len(waiting), seconds)
        await asyncio.gather(*(session.drain() for session in self), return_exceptions=True)
        _, late = await asyncio.wait(waiting, timeout=seconds)
        if late:
            logger.warning("%d sessions did not finish in time and are closed", len(late))
            await asyncio.gather(*(session.stop() for session in self), return_exceptions=True)
            await asyncio.wait(late, timeout=5.0)
        for task in waiting:
            task.cancel()
