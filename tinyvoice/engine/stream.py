"""A live audio source, as its owner sees it: audio goes in, events come out.

This is the thin asyncio shell of a stream. It decodes packets and queues them, holds events until
they are read, and waits for answers; where utterances begin and what was said is found out in the
engine's worker.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.audio.pcm import PCMStream
from tinyvoice.checks import in_range
from tinyvoice.engine.delays import Delays
from tinyvoice.engine.errors import StreamClosedError, UnreadEventsError
from tinyvoice.engine.events import Event, Failed, Partial
from tinyvoice.engine.live import Command, LiveStream
from tinyvoice.engine.settings import StreamSettings
from tinyvoice.errors import AudioError, ConfigurationError, TinyvoiceError
from tinyvoice.vad.silero import WINDOW_SAMPLES
from tinyvoice.vad.utterance import LONGEST_BACK_S

if TYPE_CHECKING:
    from tinyvoice.engine.engine import StreamingEngine

LARGEST_STEP = 65_536
"""Bytes or samples of a packet that are decoded before other tasks get their turn."""

Packet = bytes | bytearray | memoryview | np.ndarray


class Stream:
    """One stream of an engine; see `StreamingEngine.stream`.

    One task feeds it, one reads its events, and both may be the same where the audio is finite:
    events wait until they are read. Leaving the ``async with`` block finishes what is pending;
    leaving it by an exception, cancellation included, drops it.
    """

    def __init__(self, engine: StreamingEngine, decoder: PCMStream, settings: StreamSettings):
        self._engine, self._decoder, self._settings = engine, decoder, settings
        self._live: LiveStream | None = None
        self._events: deque[Event] = deque()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._answers: set[asyncio.Future[Any]] = set()
        self._over = False
        # How long a recording takes says nothing about how long people wait.
        told = engine._observer.observer is not None and not settings.background
        self._delays = Delays(engine._observer) if told else None

    # --- life ------------------------------------------------------------------------------------

    async def open(self) -> Stream:
        """Take a place in the engine; ``async with`` does it.

        Raises:
            EngineClosedError, EngineFullError, EngineOverloadedError: there is no place.
            MissingExtraError: the settings need something that is not installed.
        """
        if self._live is None and not self._over:
            self._live = await self._engine._admit(self, self._settings)
        return self

    async def close(self) -> None:
        """Finish: end the current utterance, wait for its final, give the place back.

        The events that are left can still be read. Closing twice does nothing.
        """
        if self._over or self._live is None:
            self._over = True
            return
        try:
            self._push(self._decoder.finish())
            await self._ask("close")
        finally:
            self.drop()

    def drop(self) -> None:
        """Stop at once; what is pending is not transcribed. The events there are can be read."""
        self._over = True
        if self._live is not None:
            self._engine._release(self._live)
        for answer in self._answers:
            if not answer.done():
                answer.set_exception(StreamClosedError("The stream was closed: open a new one."))
                answer.exception()  # whoever waits is told; nobody need wait
        self._news.set()
        self._room.set()

    @property
    def closed(self) -> bool:
        """Whether nothing can be fed any more."""
        return self._over

    async def __aenter__(self) -> Stream:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            await self.close()
        else:
            self.drop()

    # --- audio in --------------------------------------------------------------------------------

    def change_format(
        self, sample_rate: int, *, encoding: str = "pcm16", channels: int = 1
    ) -> None:
        """Take audio of another format from now on; the audio clock goes on.

        What the old format's resampler holds back is heard first; the bytes of an incomplete
        sample go. The same format again changes nothing. To be called between two `feed`, before
        the stream is opened too.

        Raises:
            AudioError: there is no such format; everything is as it was.
            StreamClosedError: the stream is closed or has failed.
        """
        if self._over:
            raise StreamClosedError("The stream is closed: open a new one.")
        old = self._decoder
        new = PCMStream(sample_rate, channels=channels, encoding=encoding, after=old)
        if (old.sample_rate, old.channels, old.encoding) == (
            new.sample_rate,
            new.channels,
            new.encoding,
        ):
            return
        self._push(old.finish())
        self._decoder = new

    async def feed(self, packet: Packet) -> None:
        """Add audio of any length, in the format of the stream (see `change_format`).

        Returns when the audio is queued. Where more is queued than the engine's ``max_pending_s``
        it waits until there is room: no audio is ever dropped.

        Raises:
            StreamClosedError: the stream is closed or has failed.
            AudioError: the packet is not such audio. It is left out, and the stream goes on.
        """
        live = self._need_live()
        view = memoryview(packet).cast("B") if not isinstance(packet, np.ndarray) else packet
        if len(view) <= LARGEST_STEP:
            self._push(self._decoder.decode(view))
        else:
            await self._feed_large(view)
        while live.pending > self._engine.settings.max_pending_s * SAMPLE_RATE:
            self._room.clear()
            await self._room.wait()
            self._need_live()

    async def _feed_large(self, view: memoryview | np.ndarray) -> None:
        """Feed in pieces: a minute at once would keep the event loop from everything else."""
        decoder, pieces = self._decoder, list[np.ndarray]()
        error: AudioError | None = None
        for start in range(0, len(view), LARGEST_STEP):
            try:
                pieces.append(decoder.read(view[start : start + LARGEST_STEP]))
            except AudioError as raised:
                # Read to the end all the same: the next packet goes on in the middle of a sample.
                error = error or raised
            await asyncio.sleep(0)
        if error is not None:
            raise error
        for piece in pieces:
            self._push(decoder.resample(piece))
            await asyncio.sleep(0)

    async def commit(self) -> int | None:
        """End the utterance now; its number, or None if nothing has been said."""
        number: int | None = await self._ask("commit")
        return number

    async def start_speech(self, back_s: float | None = None) -> int:
        """Begin an utterance now, with external endpointing; its number, also if one is going on.

        Its audio reaches ``prefix_padding_ms`` back, or ``back_s`` seconds (0 to 5), as far as no
        other utterance has it.

        Raises:
            ConfigurationError: endpointing is not external, or ``back_s`` is out of its range.
        """
        if self._settings.endpointing != "external":
            raise ConfigurationError(
                f"start_speech goes with external endpointing, and this stream's is "
                f"{self._settings.endpointing}: change the setting endpointing.",
                key="endpointing",
            )
        if back_s is not None:
            in_range("back_s", back_s, 0.0, LONGEST_BACK_S)
        back = None if back_s is None else round(back_s * SAMPLE_RATE)
        number: int = await self._ask("begin", back=back)
        return number

    async def clear(self) -> None:
        """Forget the utterance that is going on, if there is one, and all audio before now.

        Its last event is `Cleared`; there is no final for it.
        """
        await self._ask("clear")

    async def flush(self) -> None:
        """Return when everything fed so far has been processed and its events can be read.

        Sound is heard in windows of 32 ms: less than a window at the end (`pending_s` of up to
        31.9 ms) is left for the audio that completes it, so that calling this changes no text.
        `commit`, `clear`, `start_speech` and `close` hear that, too.
        """
        await self._ask("flush")

    async def update(self, **changes: Any) -> StreamSettings:
        """Change settings (see `StreamSettings`) for the audio that is fed from now on.

        Raises:
            ConfigurationError: there is no such setting, or its value is out of range; nothing is
                changed.
            MissingExtraError: the settings need something that is not installed.
        """
        self._need_live()
        settings = self._settings.changed(**changes)
        await self._engine._prepare(settings)
        self._settings = settings
        await self._ask("settings", settings)
        return settings

    @property
    def settings(self) -> StreamSettings:
        """The settings that hold for the audio fed next."""
        return self._settings

    @property
    def pending_s(self) -> float:
        """Seconds of audio that were fed and have not been heard."""
        return self._live.pending / SAMPLE_RATE if self._live is not None else 0.0

    def _push(self, samples: np.ndarray) -> None:
        live = self._live
        if live is not None and len(samples):
            now = time.monotonic()
            live.receive(samples, now)
            if self._delays is not None:
                self._delays.fed(live.fed / SAMPLE_RATE, now)
            # Less than a window is not heard yet, and waking the worker costs more than it.
            if live.pending >= WINDOW_SAMPLES:
                self._engine._wake()

    async def _ask(
        self, kind: str, settings: StreamSettings | None = None, back: int | None = None
    ) -> Any:
        """Queue a command behind the audio fed so far, and wait for its outcome."""
        live = self._need_live()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers.add(answer)

        def done(outcome: Any) -> None:
            if not answer.done():
                answer.set_result(outcome)

        live.inbox.append(Command(kind, done, settings, back))
        self._engine._wake()
        try:
            return await answer
        finally:
            self._answers.discard(answer)

    def _need_live(self) -> LiveStream:
        if self._over or self._live is None:
            raise StreamClosedError(
                "The stream is closed: open a new one."
                if self._over
                else "The stream is not open yet: use it in an async with block."
            )
        return self._live

    # --- events out ------------------------------------------------------------------------------

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            while self._events:
                yield self._events.popleft()
            if self._over:
                return
            self._news.clear()
            await self._news.wait()

    def read(self) -> list[Event]:
        """Take the events that are there now, without waiting."""
        events = list(self._events)
        self._events.clear()
        return events

    def _take_news(self) -> None:
        """Take what a step of the engine brought. Runs in the event loop, and no step meanwhile."""
        self._room.set()  # some of the audio that waited may have been heard
        if self._live is None:
            return
        events, replies = self._live.take()
        for event in events:
            last = self._events[-1] if self._events else None
            if isinstance(event, Partial) and isinstance(last, Partial):
                # Nobody wants yesterday's guess.
                self._events.pop()
            self._events.append(event)
            if self._delays is not None:
                self._delays.delivered(event, time.monotonic())
            if isinstance(event, Failed):
                self._fail(event.error)
        if len(self._events) > self._engine.settings.max_unread_events and not self._over:
            self._end_with(
                UnreadEventsError(
                    f"{len(self._events)} events of a stream wait unread, more than "
                    "max_unread_events allows: read them with `async for event in stream`."
                )
            )
        for command, outcome in replies:
            command.done(outcome)
        if events:
            self._news.set()

    def _end_with(self, error: TinyvoiceError) -> None:
        """Close the stream: it cannot go on."""
        self._events.append(Failed(error, self._live.at if self._live is not None else 0.0))
        self._fail(error)

    def _fail(self, error: TinyvoiceError) -> None:
        for answer in self._answers:
            if not answer.done():
                answer.set_exception(error)
        self.drop()
