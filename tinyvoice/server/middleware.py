"""Around every HTTP request: its size, its time, its line in the log, and faults of ours.

Pure ASGI, so that streamed answers are streamed. Queries are not logged: they may hold keys.
"""

from __future__ import annotations

import logging
import secrets
import time
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tinyvoice.server.errors import ApiError
from tinyvoice.server.metrics import ServerMetrics
from tinyvoice.server.refusals import answer
from tinyvoice.server.settings import ServerSettings

logger = logging.getLogger(__name__)

_FORM_BYTES = 1 << 20
"""What the form around an upload may add to it."""


_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
"""Counted each for itself; all others are counted together."""


class RequestMiddleware:
    """Bounds, counts and logs HTTP requests; answers 500 to what nobody handled."""

    def __init__(self, app: ASGIApp, metrics: ServerMetrics, settings: ServerSettings) -> None:
        self._app, self._metrics = app, metrics
        self._largest = settings.max_upload_bytes + _FORM_BYTES
        self._limit = settings.max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request; anything else passes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await _Exchange(self, scope, receive, send).run()


class _Exchange:
    """One request and its answer."""

    def __init__(
        self, around: RequestMiddleware, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._around, self._scope, self._receive, self._send = around, scope, receive, send
        self._id = f"req_{secrets.token_hex(12)}"
        self._status = 0
        self._received = 0

    async def run(self) -> None:
        started = time.perf_counter()
        request = Request(self._scope, self._receive)
        try:
            self._check_length(request)
            await self._around._app(self._scope, self.receive, self.send)
        except Exception as error:
            if not isinstance(error, ApiError):
                logger.exception("request failed", extra={"request": self._id})
                self._around._metrics.errors.labels("http").inc()
            if self._status:  # the answer has begun: breaking it off is all that is left
                raise
            await answer(error, request)(self._scope, self._receive, self.send)
        finally:
            self._record(time.perf_counter() - started)

    async def receive(self) -> Message:
        """A part of the request, as long as all parts together are not too large."""
        message = await self._receive()
        self._received += len(message.get("body", b""))
        if self._received > self._around._largest:
            error = self._too_large()
            raise HTTPException(error.status, str(error))
        return message

    async def send(self, message: Message) -> None:
        """A part of the answer."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self._id.encode()),
            ]
        await self._send(message)

    def _check_length(self, request: Request) -> None:
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > self._around._largest:
            raise self._too_large()

    def _too_large(self) -> ApiError:
        limit = self._around._limit
        return ApiError(413, f"The request is larger than the {limit} bytes that are allowed.")

    def _record(self, seconds: float) -> None:
        route: Any = self._scope.get("route")
        path = getattr(route, "path", "unknown")
        # Any token is a method (RFC 9110 §9.1): each that is made up would be a series of its own.
        method = self._scope["method"] if self._scope["method"] in _METHODS else "other"
        metrics = self._around._metrics
        metrics.requests.labels(method, path, self._status).inc()
        metrics.request_seconds.labels(path).observe(seconds)
        logger.info(
            "request",
            extra={
                "method": method,
                "route": path,
                "status": self._status,
                "ms": round(seconds * 1000, 1),
                "request": self._id,
            },
        )
