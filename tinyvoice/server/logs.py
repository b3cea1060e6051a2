"""What the server writes about itself: one line an event, with the session it is about.

As JSON lines for machines or as text for people. Keys are never written. What is said and written
in sessions is content and left out unless asked for; since a fault's message may quote content, of
a fault only its type and the place in the program are written then.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

from tinyvoice.errors import TinyvoiceError

_session: ContextVar[str | None] = ContextVar("tinyvoice_session", default=None)

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "session"}
"""Attributes every record has; what is beyond them was given as ``extra``."""

_QUIET = ("uvicorn", "uvicorn.error", "uvicorn.asgi", "websockets", "aiortc", "aioice", "httpx")
"""Libraries that are heard only when they warn: what they tell otherwise may hold addresses with
keys in them."""


@contextmanager
def about(session: str) -> Iterator[None]:
    """Everything logged here, and in tasks begun here, is about this session."""
    token = _session.set(session)
    try:
        yield
    finally:
        _session.reset(token)


class _Formatter(logging.Formatter):
    """Knows what may be written of a fault."""

    def __init__(self, content: bool) -> None:
        super().__init__()
        self.content = content

    def fault(self, record: logging.LogRecord) -> list[str]:
        """Lines about the exception of a record: type, then places, innermost last."""
        if not record.exc_info or record.exc_info[1] is None:
            return []
        error = record.exc_info[1]
        return [self._name(error), *_places(error.__traceback__)]

    def _name(self, error: BaseException) -> str:
        if self.content or isinstance(error, TinyvoiceError):
            return f"{type(error).__name__}: {error}"
        return type(error).__name__


class JsonFormatter(_Formatter):
    """A JSON object a line: time, level, logger, message, session, and what else was given."""

    def format(self, record: logging.LogRecord) -> str:
        """The line for a record."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if session := _session.get():
            line["session"] = session
        line |= _extras(record)
        if fault := self.fault(record):
            line["error"], line["trace"] = fault[0], fault[1:]
        return json.dumps(line, default=str)


class TextFormatter(_Formatter):
    """A line for people: time, level, message, then what else was given."""

    def format(self, record: logging.LogRecord) -> str:
        """The line for a record, and lines for its fault."""
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        about = dict(_extras(record))
        if session := _session.get():
            about["session"] = session
        tail = "".join(f" {name}={value}" for name, value in about.items())
        line = f"{time} {record.levelname.lower():7} {record.getMessage()}{tail}"
        return "\n    ".join([line, *self.fault(record)])


def configure(
    level: str = "info", form: str = "text", content: bool = False, stream: TextIO | None = None
) -> None:
    """Let the server's and its libraries' loggers write to a stream, standard error unless said."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(content) if form == "json" else TextFormatter(content))
    own = logging.getLogger("tinyvoice")
    own.handlers[:] = [handler]
    own.setLevel(level.upper())
    own.propagate = False
    for name in _QUIET:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(logging.ERROR)
        logger.propagate = False
    logging.getLogger("asyncio").handlers[:] = [handler]


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _places(trace: TracebackType | None) -> list[str]:
    return [
        f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in traceback.extract_tb(trace)
    ]
