"""Room for HTTP requests: how many are in, and how many of them use the model at once.

Live sessions have their own count (``admission.py``). A request that finds no room is refused at
once, before its body is read; one that is in waits for its turn with the model.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tinyvoice.server.errors import overloaded

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 2


class RequestPlaces:
    """Places of one server; used from its event loop only."""

    def __init__(self, max_requests: int, max_files_at_once: int) -> None:
        self.max_requests = max_requests
        self.taken = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self.model = asyncio.Semaphore(max_files_at_once)
        """Held by a request while a recording of its is in memory and being heard."""

    @contextmanager
    def take(self) -> Iterator[None]:
        """A place for a request.

        Raises:
            ApiError: 503 with ``retry-after``: all are taken.
        """
        if self.taken >= self.max_requests:
            raise overloaded(
                f"All {self.max_requests} requests that the server takes at once are being worked "
                "on: try again in some seconds.",
                RETRY_AFTER_S,
            )
        self.taken += 1
        self._empty.clear()
        try:
            yield
        finally:
            self.taken -= 1
            if not self.taken:
                self._empty.set()

    async def drain(self, seconds: float) -> None:
        """Return when all requests that are in have been answered, or this time is over."""
        if not self.taken:
            return
        logger.info("draining %d requests for up to %g s", self.taken, seconds)
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            logger.warning("%d requests did not finish in time and are broken off", self.taken)


def places_of(app: Any) -> RequestPlaces:
    """The places of an app, made when they are first asked for."""
    places: RequestPlaces | None = getattr(app.state, "request_places", None)
    if places is None:
        settings = app.state.settings
        places = RequestPlaces(settings.max_requests, settings.max_files_at_once)
        app.state.request_places = places
    return places


def refuse_when_stopping(app: Any) -> None:
    """Refuse a request when the server is about to stop.

    Raises:
        ApiError: 503 with ``retry-after``.
    """
    if app.state.sessions.draining:
        raise overloaded("The server is shutting down: try another one.", RETRY_AFTER_S)


def refuse_when_busy(app: Any) -> None:
    """Refuse a request that would be in the way of live sessions.

    Raises:
        ApiError: 503 with ``retry-after``: the server is stopping, loading, or falls behind.
    """
    refuse_when_stopping(app)
    if not app.state.engine.ready:
        raise overloaded("The model is being loaded: try again in some seconds.", RETRY_AFTER_S)
    if app.state.engine.overloaded:
        raise overloaded(
            "The model is busy with live sessions and falls behind: try again in some seconds.",
            RETRY_AFTER_S,
        )
