"""The streaming engine: one model, any number of live streams, one worker.

    async with StreamingEngine("embedded") as engine:
        async with engine.stream(sample_rate=24_000) as stream:
            await stream.feed(pcm)
            async for event in stream:
                ...

The event loop decodes packets and hands events over; everything the model computes runs in a worker
thread, one `Scheduler.step` after the other, so that the loop is never kept waiting. Audio is not
recorded here, and no network is spoken.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.audio.pcm import PCMStream
from tinyvoice.engine.errors import EngineClosedError, EngineFullError, EngineOverloadedError
from tinyvoice.engine.live import LiveStream
from tinyvoice.engine.runner import ModelRunner
from tinyvoice.engine.scheduler import Scheduler, Telling
from tinyvoice.engine.settings import EngineSettings, StreamSettings
from tinyvoice.engine.stream import Stream
from tinyvoice.model.modeling import ASRModel

SMALL_MODEL = 50_000_000
"""Parameters below which more threads cost more than they save."""


class StreamingEngine:
    """Transcribes live streams with one model.

    ``model`` is a loaded `ASRModel`, or what `ASRModel.from_pretrained` takes: ``"embedded"``, a
    folder, a Hub repository; ``loading`` is handed on to it. Opening loads and warms the model, so
    that the first utterance is as fast as any.

    Raises (on opening):
        CheckpointError, ConfigurationError: the model cannot be loaded, or not be streamed.
    """

    def __init__(
        self,
        model: ASRModel | str | Path = "embedded",
        settings: EngineSettings | None = None,
        **loading: Any,
    ) -> None:
        self.settings = settings or EngineSettings()
        self._source, self._loading = model, loading
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="tinyvoice-engine")
        self._runner: ModelRunner | None = None
        self._scheduler: Scheduler | None = None
        self._streams: dict[int, Stream] = {}
        self._opening = 0
        self._work = asyncio.Event()
        self._server: asyncio.Task[None] | None = None
        self._closed = False

    # --- life ------------------------------------------------------------------------------------

    async def open(self) -> StreamingEngine:
        """Load and warm the model; ``async with`` does it."""
        if self._closed:
            raise EngineClosedError("The engine was closed: make a new one.")
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._runner = await loop.run_in_executor(self._worker, self._load)

            def wake() -> None:
                loop.call_soon_threadsafe(self._wake)

            self._scheduler = Scheduler(self._runner, self.settings, wake)
            self._server = asyncio.create_task(self._serve(), name="tinyvoice-engine")
        return self

    async def close(self) -> None:
        """Drop all streams and stop. Close the streams first to get their finals."""
        self._closed = True
        for stream in list(self._streams.values()):
            stream.drop()
        if self._server is not None:
            self._server.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._server
        # The step in progress ends by itself, and nothing else waits there.
        await asyncio.to_thread(self._worker.shutdown)
        if self._runner is not None:
            await asyncio.to_thread(self._runner.shut_down)

    async def __aenter__(self) -> StreamingEngine:
        try:
            return await self.open()
        except BaseException:
            self._worker.shutdown(wait=False)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def ready(self) -> bool:
        """Whether streams can be opened."""
        return self._server is not None and not self._closed and not self._server.done()

    @property
    def model(self) -> ASRModel:
        """The model, once the engine is open."""
        return self._need_runner().model

    # --- streams ---------------------------------------------------------------------------------

    def stream(
        self,
        sample_rate: int = SAMPLE_RATE,
        *,
        channels: int = 1,
        encoding: str = "pcm16",
        settings: StreamSettings | None = None,
        **changes: Any,
    ) -> Stream:
        """A stream of audio in the given format, to be used with ``async with``.

        ``settings`` and ``changes`` (names of `StreamSettings`) say how it is cut and told about.

        Raises:
            AudioError: there is no such format.
            ConfigurationError: a setting is unknown or out of range.
        """
        decoder = PCMStream(sample_rate, channels=channels, encoding=encoding)
        return Stream(self, decoder, (settings or StreamSettings()).changed(**changes))

    @property
    def open_streams(self) -> int:
        """Streams that are open."""
        return len(self._streams)

    @property
    def overloaded(self) -> bool:
        """Whether a further stream would be refused because the model falls behind."""
        return (
            self._scheduler is not None
            and self._scheduler.partial_gap_s > self.settings.refuse_partial_gap_s
        )

    async def _admit(self, stream: Stream, settings: StreamSettings) -> LiveStream:
        self._need_runner()
        if len(self._streams) + self._opening >= self.settings.max_streams:
            raise EngineFullError(
                f"All {self.settings.max_streams} streams are taken: try again when one is closed, "
                "or raise max_streams."
            )
        if self.overloaded:
            raise EngineOverloadedError(
                f"The model is busy with {len(self._streams)} streams and falls behind: try again "
                "in some seconds, or on another machine."
            )
        assert self._scheduler is not None
        self._opening += 1
        try:
            loop = asyncio.get_running_loop()
            live = await loop.run_in_executor(self._worker, self._open_in_worker, settings)
        finally:
            self._opening -= 1
        self._streams[id(live)] = stream
        self._scheduler.add(live)
        return live

    def _open_in_worker(self, settings: StreamSettings) -> LiveStream:
        """Places of streams that have just been closed are free, too: no step need come first."""
        assert self._scheduler is not None
        self._scheduler.give_back()
        return self._need_runner().open(settings)

    def _release(self, live: LiveStream) -> None:
        if self._streams.pop(id(live), None) is not None and self._scheduler is not None:
            self._scheduler.remove(live)
            self._wake()

    async def _prepare(self, settings: StreamSettings) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._worker, self._need_runner().prepare, settings)

    def _need_runner(self) -> ModelRunner:
        if self._runner is None or self._closed:
            raise EngineClosedError(
                "The engine is closed: make a new one."
                if self._closed
                else "The engine is not open yet: use it in an async with block."
            )
        return self._runner

    # --- the loop --------------------------------------------------------------------------------

    def _wake(self) -> None:
        self._work.set()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._work.wait()
            self._work.clear()
            busy = True
            while busy:
                told, busy = await loop.run_in_executor(self._worker, self._step)
                for live, events, replies in told:
                    stream = self._streams.get(id(live))
                    if stream is not None:
                        stream._deliver(events, replies)
                for stream in self._streams.values():
                    stream._room.set()  # some of the audio that waited has been heard

    def _step(self) -> tuple[list[Telling], bool]:
        assert self._scheduler is not None
        told = self._scheduler.step()
        return told, bool(told) or self._scheduler.busy

    def _load(self) -> ModelRunner:
        """Runs in the worker, which is where the number of threads counts."""
        model = self._source
        if not isinstance(model, ASRModel):
            model = ASRModel.from_pretrained(model, **self._loading)
        model.eval()
        small = sum(p.numel() for p in model.parameters()) < SMALL_MODEL
        threads = self.settings.threads or (1 if small else None)
        if threads is not None:
            torch.set_num_threads(threads)
        runner = ModelRunner(model, self.settings)
        runner.warm_up()
        # The libraries' and the model's objects stay: looking through all of them again and again
        # would stop every thread, the event loop's too, for tens of milliseconds.
        gc.collect()
        gc.freeze()
        return runner
