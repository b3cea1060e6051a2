"""A small server of OpenAI's chat-completions and speech APIs, with faults to order.

The model's name says what it does, so that one server serves every test.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

TWO_CALLS: list[dict[str, Any]] = [
    {"index": 0, "id": "call_a", "function": {"name": "get_weather", "arguments": ""}},
    {"index": 0, "function": {"arguments": '{"city": '}},
    {"index": 0, "function": {"arguments": '"Paris"}'}},
    {"index": 1, "id": "call_b", "function": {"name": "get_time", "arguments": "{}"}},
]
MIXED_CALLS = [TWO_CALLS[0], TWO_CALLS[3], TWO_CALLS[1], TWO_CALLS[2]]
UNNUMBERED_CALLS: list[dict[str, Any]] = [
    {"index": None, "id": f"call_{n}", "function": {"name": n, "arguments": "{}"}} for n in "xy"
]
CALLS = {"calls": TWO_CALLS, "mixed-calls": MIXED_CALLS, "unnumbered-calls": UNNUMBERED_CALLS}
STATUS = {"no-key": 401, "busy": 429, "missing": 404, "broken": 500}


@dataclass
class ModelServer:
    """The running server and what it has seen."""

    url: str = ""
    failed: set[str] = field(default_factory=set)
    """Models named ``once-…`` that have done so."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)
    """Set when a client closes an answer that goes on."""

    def app(self) -> FastAPI:
        app = FastAPI()
        app.get("/v1/models")(self.models)
        app.post("/v1/chat/completions")(self.chat)
        app.post("/v1/audio/speech")(self.speech)
        return app

    async def models(self) -> dict[str, Any]:
        return {"object": "list", "data": [{"id": "plain", "object": "model", "created": 0}]}

    async def chat(self, request: Request) -> Response:
        body = await self._seen(request)
        model = body["model"]
        if model.startswith("once-"):
            fault = "plain" if model in self.failed else model.removeprefix("once-")
            self.failed.add(model)
            model = fault
        if model in STATUS:
            error = {"message": f"private words of {model}", "type": "x", "code": model}
            return JSONResponse({"error": error}, STATUS[model])
        if model == "no-usage" and "stream_options" in body:
            return JSONResponse({"error": {"message": "unknown field stream_options"}}, 400)
        if model == "too-long":
            error = {"message": "too many tokens", "code": "context_length_exceeded"}
            return JSONResponse({"error": error}, 400)
        if model in ("silent", "slow"):
            await asyncio.sleep(60 if model == "silent" else 1.5)
        return StreamingResponse(self._answer(model, body), media_type="text/event-stream")

    async def speech(self, request: Request) -> Response:
        body = await self._seen(request)
        model = body["model"]
        if model in STATUS:
            return JSONResponse({"error": {"message": model}}, STATUS[model])
        if model == "json":
            return JSONResponse({"audio": "none"})
        return StreamingResponse(self._tone(model, body), media_type="audio/pcm")

    async def _seen(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        return body

    async def _answer(self, model: str, body: dict[str, Any]) -> AsyncIterator[str]:
        async for delta in self._deltas(model):
            yield _chunk(delta)
        if model == "stalls":
            await asyncio.sleep(60)
        if model == "cut-off":
            raise ConnectionError("the server dies")
        if model == "error-midway":
            yield f"data: {json.dumps({'error': {'message': 'private words'}})}\n\n"
            return
        if model == "ends-early":
            return
        reasons = {"long": "length", "filtered": "content_filter", "cut-call": "length"}
        yield _chunk({}, "tool_calls" if model in CALLS else reasons.get(model, "stop"))
        if model == "lingers":
            await asyncio.sleep(60)
        if "stream_options" in body:
            details = {"cached_tokens": 5}
            usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
            yield _chunk(None, None, {**usage, "prompt_tokens_details": details})
        yield "data: [DONE]\n\n"

    async def _deltas(self, model: str) -> AsyncIterator[dict[str, Any]]:
        yield {"role": "assistant", "content": ""}
        if model in CALLS:
            for part in CALLS[model]:
                yield {"tool_calls": [part]}
            return
        if model == "cut-call":
            for part in TWO_CALLS[:2]:
                yield {"tool_calls": [part]}
            return
        if model == "thinks":
            for text in ("<thi", "nk>\nLet me ", "see.</th", "ink>\n\n"):
                yield {"content": text}
        for text in ("Hello ", "there, ", "how are", " you?"):
            yield {"content": text}
        try:
            while model == "endless":
                yield {"content": " and"}
                await asyncio.sleep(0.005)
        finally:
            self.left.set()

    async def _tone(self, model: str, body: dict[str, Any]) -> AsyncIterator[bytes]:
        """A tone, 50 ms for each character, in pieces that end within a sample."""
        samples = np.arange(len(body["input"]) * 1200)
        sound = (8000 * np.sin(samples * 0.1)).astype("<i2").tobytes()
        for start in range(0, len(sound), 1001):
            if model == "dies" and start > 5000:
                raise ConnectionError("the server dies")
            if model == "stalls" and start > 5000:
                await asyncio.sleep(60)
            yield sound[start : start + 1001]


def _chunk(
    delta: dict[str, Any] | None,
    reason: str | None = None,
    usage: dict[str, Any] | None = None,
) -> str:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": reason}]
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m"}
    return f"data: {json.dumps({**chunk, 'choices': choices, 'usage': usage})}\n\n"


class RunningServer:
    """Serves from a thread on a port that the system chooses; a context manager."""

    def __init__(self) -> None:
        self.state = ModelServer()
        config = uvicorn.Config(
            self.state.app(), port=0, log_level="critical", timeout_graceful_shutdown=0
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> ModelServer:
        started = threading.Event()
        startup = self._server.startup

        async def announced(*arguments: Any, **settings: Any) -> None:
            await startup(*arguments, **settings)
            started.set()

        self._server.startup = announced  # type: ignore[method-assign]
        self._thread.start()
        assert started.wait(30)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.state.url = f"http://127.0.0.1:{port}/v1"
        return self.state

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(30)
