"""How an HTTP request is refused: an error in the shape that OpenAI's clients know.

Routes raise `ApiError`; ``app.py`` registers the handler that turns it into
``{"error": {"message", "type", "param", "code"}}`` with the status and the headers. What goes wrong
inside a Realtime session is an event of that session and not handled here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinyvoice.errors import TinyvoiceError

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"
RATE_LIMIT = "rate_limit_error"


class ApiError(TinyvoiceError):
    """A refused request; ``app.py`` registers the handler that answers with it.

    Args:
        status: HTTP status. Clients try again at 408, 409, 429 and from 500 on, and only there.
        message: one sentence: what is wrong and what to do.
        type: the error's class, ``invalid_request_error`` below 500 and ``server_error`` from there
            on, unless said.
        param: name of the field at fault.
        code: for programs, such as ``model_not_found``.
        headers: further headers of the answer, such as ``retry-after``.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str | None = None,  # noqa: A002 - the name it has on the wire
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.type = type or (INVALID_REQUEST if status < 500 else SERVER_ERROR)
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """What is sent: ``{"error": {...}}`` with all four keys."""
        return {
            "error": {
                "message": str(self),
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


def overloaded(message: str, retry_after_s: int = 1) -> ApiError:
    """503: there is no room now; the client may come again after so many seconds."""
    return ApiError(
        503, message, code="overloaded", headers={"retry-after": str(max(1, retry_after_s))}
    )
