"""The streaming engine: one model, any number of live streams, one worker.

    async with StreamingEngine("embedded") as engine:
        async with engine.stream(sample_rate=24_000) as stream:
            await stream.feed(pcm)
            async for event in stream:
                ...

The event loop decodes packets and hands events over; everything the model computes runs in a worker
thread, one `Scheduler.step` after the other, so that the loop is never kept waiting. A worker that
dies is replaced. Audio is not recorded here, and no network is spoken.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

import torch

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.audio.pcm import PCMStream
from tinyvoice.engine.blas_threads import BlasLimit
from tinyvoice.engine.errors import (
    EngineClosedError,
    EngineFailedError,
    EngineFullError,
    EngineOverloadedError,
    UtteranceFailedError,
)
from tinyvoice.engine.live import LiveStream
from tinyvoice.engine.observer import EngineObserver, SafeObserver
from tinyvoice.engine.runner import ModelRunner
from tinyvoice.engine.scheduler import Scheduler
from tinyvoice.engine.settings import EngineSettings, StreamSettings
from tinyvoice.engine.stream import Stream
from tinyvoice.engine.worker import Worker, WorkerDiedError
from tinyvoice.model.modeling import ASRModel

logger = logging.getLogger(__name__)

Arguments = ParamSpec("Arguments")
Outcome = TypeVar("Outcome")

SMALL_MODEL = 50_000_000
"""Parameters below which more threads cost more than they save."""

RESTART_SPAN_S = 60.0
"""Deaths of the worker are counted over this time; see ``max_restarts``."""


class StreamingEngine:
    """Transcribes live streams with one model.

    ``model`` is a loaded `ASRModel`, or what `ASRModel.from_pretrained` takes: ``"embedded"``, a
    folder, a Hub repository; ``loading`` is handed on to it. Opening loads and warms the model, so
    that the first utterance is as fast as any. ``observer`` is told figures as they arise.

    Raises (on opening):
        CheckpointError, ConfigurationError: the model cannot be loaded, or not be streamed.
    """

    def __init__(
        self,
        model: ASRModel | str | Path = "embedded",
        settings: EngineSettings | None = None,
        *,
        observer: EngineObserver | None = None,
        **loading: Any,
    ) -> None:
        self.settings = settings or EngineSettings()
        self._observer = SafeObserver(observer)
        self._source, self._loading = model, loading
        self._worker: Worker | None = None
        self._up = asyncio.Event()
        """Set while there is a worker, or never will be one again."""
        self._deaths: list[float] = []
        self._restarts = 0
        self._failure: EngineFailedError | None = None
        self._runner: ModelRunner | None = None
        self._scheduler: Scheduler | None = None
        self._streams: dict[int, Stream] = {}
        self._opening = 0
        self._work = asyncio.Event()
        self._server: asyncio.Task[None] | None = None
        self._closed = False
        self._blas_limit: BlasLimit | None = None

    # --- life ------------------------------------------------------------------------------------

    async def open(self) -> StreamingEngine:
        """Load and warm the model; ``async with`` does it."""
        if self._closed:
            raise EngineClosedError("The engine was closed: make a new one.")
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._worker = Worker(self._worker_died)
            self._runner = await self._worker.run(self._load)
            if self.settings.blas_threads is not None:
                self._blas_limit = BlasLimit(self.settings.blas_threads)

            def wake() -> None:
                loop.call_soon_threadsafe(self._wake)

            self._scheduler = Scheduler(self._runner, self.settings, wake, self._observer)
            self._up.set()
            self._server = asyncio.create_task(self._serve(), name="tinyvoice-engine")
        return self

    async def close(self) -> None:
        """Drop all streams and stop. Close the streams first to get their finals."""
        self._closed = True
        self._up.set()
        for stream in list(self._streams.values()):
            stream.drop()
        if self._server is not None:
            self._server.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._server
        if self._worker is not None:
            # The step in progress ends by itself.
            self._worker.abandon()
            await self._worker.join()
        if self._runner is not None:
            await asyncio.to_thread(self._runner.shut_down)
        self._give_back_threads()

    def _give_back_threads(self) -> None:
        if self._blas_limit is not None:
            self._blas_limit.release()

    async def __aenter__(self) -> StreamingEngine:
        try:
            return await self.open()
        except BaseException:
            if self._worker is not None:
                self._worker.stop()
            self._give_back_threads()
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
        """Whether streams can be opened at once: not before opening, nor while a worker that died
        is being replaced, nor when it died too often."""
        running = self._server is not None and not self._server.done()
        return running and not self._closed and self._up.is_set()

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
            bool(self._streams)
            and self._scheduler is not None
            and self._scheduler.lateness_s > self.settings.refuse_partial_gap_s
        )

    async def _admit(self, stream: Stream, settings: StreamSettings) -> LiveStream:
        self._need_runner()
        if len(self._streams) + self._opening >= self.settings.max_streams:
            self._observer.refused("full")
            raise EngineFullError(
                f"All {self.settings.max_streams} streams are taken: try again when one is closed, "
                "or raise max_streams."
            )
        if self.overloaded:
            self._observer.refused("overloaded")
            raise EngineOverloadedError(
                f"The model is busy with {len(self._streams)} streams and falls behind: try again "
                "in some seconds, or on another machine."
            )
        self._opening += 1
        opening = asyncio.ensure_future(self._call(self._open_in_worker, settings))
        opening.add_done_callback(self._opened)
        try:
            live = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The worker opens it all the same, and nobody would give its place back.
            opening.add_done_callback(self._discard)
            raise
        self._streams[id(live)] = stream
        assert self._scheduler is not None
        self._scheduler.add(live)
        return live

    def _opened(self, _: asyncio.Future[LiveStream]) -> None:
        self._opening -= 1

    def _discard(self, opening: asyncio.Future[LiveStream]) -> None:
        """Give back what was opened for somebody who has gone."""
        if not opening.cancelled() and opening.exception() is None and self._scheduler is not None:
            self._scheduler.add(opening.result())
            self._scheduler.remove(opening.result())
            self._wake()

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
        await self._call(self._need_runner().prepare, settings)

    async def _call(
        self,
        call: Callable[Arguments, Outcome],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Outcome:
        """Make a call in the worker; again where the worker dies over it."""
        while True:
            await self._up.wait()
            self._need_runner()
            assert self._worker is not None
            restarts = self._restarts
            with contextlib.suppress(WorkerDiedError):
                outcome = await self._worker.run(call, *arguments, **named)
                # What it gave is good only as long as the worker that gave it.
                if restarts == self._restarts:
                    return outcome

    def _need_runner(self) -> ModelRunner:
        if self._failure is not None:
            raise EngineFailedError(str(self._failure))
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
        while True:
            await self._work.wait()
            self._work.clear()
            busy = True
            while busy:
                assert self._worker is not None
                try:
                    busy = await self._worker.run(self._step)
                except Exception as error:
                    if not await self._restart(error):
                        return
                self._tell()

    def _step(self) -> bool:
        """One step, in the worker; whether another one may have something to do already."""
        assert self._scheduler is not None
        self._scheduler.step()
        told = any(stream.events or stream.replies for stream in self._scheduler.streams)
        return told or self._scheduler.busy

    def _tell(self) -> None:
        """Hand the streams what the last step brought. No step runs meanwhile."""
        for stream in list(self._streams.values()):
            stream._take_news()

    # --- a worker that dies ----------------------------------------------------------------------

    def _worker_died(self) -> None:
        self._up.clear()
        self._work.set()

    async def _restart(self, error: Exception) -> bool:
        """Replace the worker after a step that broke off; False where that happened too often.

        Streams stay open with their clocks, settings and the audio that waits. Utterances that had
        begun fail, since it may be one of them that the worker died of.
        """
        assert self._scheduler is not None
        self._up.clear()
        while True:
            cause = error.__cause__ if isinstance(error, WorkerDiedError) else error
            now = time.monotonic()
            self._deaths = [at for at in self._deaths if at > now - RESTART_SPAN_S] + [now]
            self._restarts += 1
            if self._worker is not None:
                self._worker.abandon()
            reason = UtteranceFailedError(
                f"The engine's worker died ({cause!r}) while it transcribed this utterance; the "
                "stream goes on with what is said next."
            )
            self._scheduler.recover(reason)
            self._tell()
            if len(self._deaths) > self.settings.max_restarts:
                self._give_up(cause)
                return False
            self._observer.restarted()
            logger.error(
                "the engine's worker died (%r) and is replaced: %d of %d times within a minute",
                cause,
                len(self._deaths),
                self.settings.max_restarts,
                exc_info=cause,
            )
            try:
                self._worker = Worker(self._worker_died)
                await self._worker.run(self._rebuild)
            except Exception as raised:
                error = raised
            else:
                self._up.set()
                return True

    def _rebuild(self) -> None:
        """Make anew, in a new worker, what the old one may have left half done."""
        assert self._scheduler is not None
        runner = self._need_runner()
        self._set_threads(runner.model)
        runner.build()
        runner.warm_up()
        for live in self._scheduler.streams:
            runner.adopt(live)

    def _give_up(self, cause: BaseException | None) -> None:
        """Close: the worker would only die again."""
        self._failure = EngineFailedError(
            f"The engine has closed: its worker died {len(self._deaths)} times within a minute, at "
            f"last of {cause!r}. Look for the cause in the log, and open a new engine."
        )
        logger.error("%s", self._failure, exc_info=cause)
        for stream in list(self._streams.values()):
            stream._end_with(self._failure)
        self._up.set()

    # --- loading ---------------------------------------------------------------------------------

    def _load(self) -> ModelRunner:
        """Runs in the worker, which is where the number of threads counts."""
        model = self._source
        if not isinstance(model, ASRModel):
            model = ASRModel.from_pretrained(model, **self._loading)
        model.eval()
        self._set_threads(model)
        runner = ModelRunner(model, self.settings)
        runner.warm_up()
        runner.observer = self._observer
        if self.settings.freeze_objects:
            gc.collect()
            gc.freeze()
        return runner

    def _set_threads(self, model: ASRModel) -> None:
        small = sum(p.numel() for p in model.parameters()) < SMALL_MODEL
        threads = self.settings.threads or (1 if small else None)
        if threads is not None:
            torch.set_num_threads(threads)
