"""What is logged, and what never is."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from tinyvoice.errors import TinyvoiceError
from tinyvoice.server import logs


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    names = ["tinyvoice", "asyncio", "uvicorn", "uvicorn.error", "uvicorn.asgi", "websockets"]
    names += ["aiortc", "aioice", "httpx"]
    loggers = [logging.getLogger(name) for name in names]
    before = [(one, one.handlers[:], one.level, one.propagate) for one in loggers]
    yield
    for logger, handlers, level, propagate in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate


def written(form: str = "json", content: bool = False) -> io.StringIO:
    stream = io.StringIO()
    logs.configure("info", form, content, stream)
    return stream


def test_a_line_says_which_session_and_what() -> None:
    stream = written()
    logger = logging.getLogger("tinyvoice.server.test")
    with logs.about("sess_1"):
        logger.info("closed", extra={"code": 1000})
    logger.info("elsewhere")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["message"], first["session"], first["code"]) == ("closed", "sess_1", 1000)
    assert (first["level"], first["logger"]) == ("info", "tinyvoice.server.test")
    assert first["time"].endswith("+00:00")
    assert "session" not in second


def fail(secret: str) -> None:
    raise ValueError(f"what was said: {secret}")


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_fault_is_placed_but_not_quoted(form: str) -> None:
    for content in (False, True):
        stream = written(form, content)
        try:
            fail("hello doctor")
        except ValueError:
            logging.getLogger("tinyvoice.x").exception("session failed")
        said = stream.getvalue()
        assert "ValueError" in said
        assert "in fail" in said
        assert ("hello doctor" in said) is content
        if form == "json":
            assert len(said.splitlines()) == 1


def test_errors_meant_for_the_user_are_quoted() -> None:
    stream = written()
    try:
        raise TinyvoiceError("Give another port.")
    except TinyvoiceError:
        logging.getLogger("tinyvoice").exception("no")
    assert json.loads(stream.getvalue())["error"] == "TinyvoiceError: Give another port."


def test_libraries_are_heard_when_something_is_wrong_only() -> None:
    stream = written("text")
    uvicorn = logging.getLogger("uvicorn.error")
    uvicorn.info('127.0.0.1 - "WebSocket /v1/realtime?api-key=secret" [accepted]')
    uvicorn.warning("Unsupported upgrade request.")
    assert stream.getvalue() == ""
    uvicorn.error("no more files")
    assert "no more files" in stream.getvalue()


def test_the_level_is_a_setting() -> None:
    stream = io.StringIO()
    logs.configure("warning", "text", stream=stream)
    logging.getLogger("tinyvoice.server").info("quiet")
    logging.getLogger("tinyvoice.server").warning("loud")
    assert "quiet" not in stream.getvalue()
    assert "warning loud" in stream.getvalue()
