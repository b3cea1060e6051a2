"""Every HTTP error in OpenAI's shape, whoever raised it.

The routes raise `ApiError`, or the errors of audio and engine as they are; the framework raises its
own for unknown addresses and malformed requests. What is none of these is a fault of the server:
its text is not for the client.
"""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from tinyvoice.engine import EngineError
from tinyvoice.errors import AudioError, TinyvoiceError
from tinyvoice.realtime.errors import ProtocolError
from tinyvoice.server.admission import RETRY_AFTER_S, RefusedError
from tinyvoice.server.errors import INVALID_REQUEST, ApiError, overloaded

logger = logging.getLogger(__name__)


def api_error(error: Exception, request: Request) -> ApiError:
    """What is to be answered to a request that ended in this error."""
    match error:
        case ApiError():
            return error
        case HTTPException():
            return _of_framework(error, request)
        case RequestValidationError():
            return _of_validation(error)
        case ProtocolError():
            return ApiError(400, str(error), code=error.code, param=error.param)
        case RefusedError() | EngineError():
            return overloaded(str(error), RETRY_AFTER_S)
        case AudioError():
            return ApiError(400, str(error))
        case TinyvoiceError():
            return ApiError(500, str(error))
        case _:
            return ApiError(500, "The server had an error while processing your request.")


def answer(error: Exception, request: Request) -> JSONResponse:
    """The answer to a request that ended in this error."""
    refusal = api_error(error, request)
    if refusal.status == 503:
        reason = error.reason if isinstance(error, RefusedError) else "overloaded"
        request.app.state.metrics.refusals.labels(reason).inc()
    elif refusal.status == 401:
        request.app.state.metrics.refusals.labels("unauthorized").inc()
    return JSONResponse(refusal.body, refusal.status, refusal.headers)


def add_error_handlers(app: FastAPI) -> None:
    """Let the app answer with `answer`. Faults of the server are answered by the middleware."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        return answer(error, request)

    for kind in (TinyvoiceError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, handle)


def _of_framework(error: HTTPException, request: Request) -> ApiError:
    where = f"{request.method} {request.url.path}"
    if error.status_code == 404 and error.detail == "Not Found":
        return ApiError(404, f"Invalid URL ({where})", code="unknown_url")
    if error.status_code == 405:
        return ApiError(
            405, f"Not allowed: {where}.", code="method_not_supported", headers=error.headers
        )
    return ApiError(error.status_code, str(error.detail), headers=error.headers)


def _of_validation(error: RequestValidationError) -> ApiError:
    """The first field that is wrong, by the name that the client knows."""
    errors: list[Any] = list(error.errors())
    if not errors:
        return ApiError(400, "The request cannot be read.")
    first = errors[0]
    param = ".".join(str(part) for part in first["loc"] if part not in ("body", "query"))
    if first["type"] == "missing":
        return ApiError(
            400,
            f"Missing required parameter: '{param}'.",
            type=INVALID_REQUEST,
            param=param or None,
            code="missing_required_parameter",
        )
    message = f"Invalid value for '{param}': {first['msg']}." if param else f"{first['msg']}."
    return ApiError(400, message, param=param or None, code="invalid_value")
