"""A server as its users run it: real sockets, the embedded model, once for all tests."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI

from tinyvoice.audio.resample import Resampler
from tinyvoice.benchmark.speech import Clip, bundled_speech
from tinyvoice.model.modeling import ASRModel
from tinyvoice.realtime.backends.interface import Responder
from tinyvoice.server.app import build_app, build_engine, drain
from tinyvoice.server.listener import Server, listener_config
from tinyvoice.server.metrics import ServerMetrics
from tinyvoice.server.settings import ServerSettings

START_S = 240.0


@dataclass(frozen=True)
class RunningServer:
    """A server that answers; its loop runs in a thread of its own."""

    url: str
    """``http://127.0.0.1:PORT``."""
    app: FastAPI
    loop: asyncio.AbstractEventLoop
    listener: Server

    @property
    def websocket_url(self) -> str:
        """``ws://127.0.0.1:PORT``."""
        return "ws" + self.url.removeprefix("http")

    def call(self, work: Callable[[], Any]) -> Any:
        """Run something in the server's event loop and return what it gives."""

        async def run() -> Any:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(START_S)

    def task_names(self, prefix: str) -> list[str]:
        """Tasks of the server's loop whose names begin so; to be asked for in `call`."""
        names = (task.get_name() for task in asyncio.all_tasks(self.loop))
        return [name for name in names if name.startswith(prefix)]


@contextmanager
def running(
    settings: ServerSettings,
    model: ASRModel | None = None,
    responder: Responder | None = None,
    **tls: Any,
) -> Iterator[RunningServer]:
    """Run a server on a free port; leaving drains and stops it. A model that is given is shared."""
    ready = threading.Event()
    found: list[RunningServer] = []
    faults: list[BaseException] = []

    async def serve() -> None:
        metrics = ServerMetrics()
        async with build_engine(settings, model, metrics) as engine:
            await listen(build_app(settings, engine, responder, metrics))

    async def listen(app: FastAPI) -> None:
        config = listener_config(app, settings, **tls)

        def announce() -> None:
            port = listener.servers[0].sockets[0].getsockname()[1]
            scheme = "https" if config.is_ssl else "http"
            url = f"{scheme}://127.0.0.1:{port}"
            found.append(RunningServer(url, app, asyncio.get_running_loop(), listener))
            ready.set()

        listener = Server(config, lambda: drain(app, settings.drain_seconds), announce)
        await listener.serve()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            faults.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="server", daemon=True)
    thread.start()
    assert ready.wait(START_S)
    if not found:
        raise RuntimeError("the server did not start") from (faults[0] if faults else None)
    try:
        yield found[0]
    finally:
        if thread.is_alive():
            found[0].loop.call_soon_threadsafe(found[0].listener.stop)
        thread.join(START_S)


@pytest.fixture(scope="session")
def asr_model() -> ASRModel:
    """The embedded model, loaded once for all servers of the tests."""
    return ASRModel.from_pretrained("embedded", device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def server(asr_model: ASRModel) -> Iterator[RunningServer]:
    """A server with the default settings and no key, on a free port of 127.0.0.1.

    It takes sessions however slow the machine is.
    """
    with running(ServerSettings(port=0, refuse_partial_gap_s=3_600), asr_model) as found:
        yield found


@pytest.fixture(scope="session")
def clips() -> list[Clip]:
    """The utterances that come with the package."""
    return bundled_speech()


@contextmanager
def changed(server: RunningServer, **changes: Any) -> Iterator[None]:
    """Other settings for the sessions that begin meanwhile."""
    state = server.app.state
    before = state.settings
    state.settings = before.model_copy(update=changes)
    try:
        yield
    finally:
        state.settings = before


async def eventually(server: RunningServer, holds: Callable[[], bool]) -> None:
    """Wait until something holds in the server's event loop."""
    async with asyncio.timeout(START_S):
        while not await asyncio.to_thread(server.call, holds):
            await asyncio.sleep(0.01)


def pcm24k(clip: Clip, lead_s: float = 0.2, tail_s: float = 0.8) -> bytes:
    """A clip between silences, as s16le mono at 24 kHz."""
    padded = np.pad(clip.samples, (int(16_000 * lead_s), int(16_000 * tail_s)))
    samples = Resampler(16_000, 24_000).process(padded.astype(np.float32), last=True)
    return np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def appends(audio: bytes, chunk_ms: int = 100) -> Iterator[dict[str, str]]:
    """The client events that send this 24 kHz audio."""
    size = 48 * chunk_ms
    for start in range(0, len(audio), size):
        chunk = base64.b64encode(audio[start : start + size]).decode()
        yield {"type": "input_audio_buffer.append", "audio": chunk}
