"""Runs streams in real time through an engine and takes down what their readers see.

:func:`paced_run` plays a :class:`~tinyvoice.benchmark.load.LoadPlan` to an engine, whichever one:
anything with the surface of :class:`Engine`. What came out and when is in :class:`Run`; figures are
made of it in ``figures.py``. The event loop does nothing but hand packets in and events out.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from array import array
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.benchmark.load import (
    Lateness,
    LoadError,
    LoadPlan,
    Parser,
    Payloads,
    generator,
    stagger,
    start,
)
from tinyvoice.benchmark.observation import Heard, Received, StreamClock, observe
from tinyvoice.benchmark.speech import Clip
from tinyvoice.benchmark.timeline import make_timelines
from tinyvoice.engine.errors import EngineError
from tinyvoice.engine.events import Event, Failed, UtteranceFailed
from tinyvoice.errors import ConfigurationError, TinyvoiceError
from tinyvoice.metrics import LONG_PAUSE_S

START_SPREAD_S = 4.0
"""Streams begin within this time, so that their utterances do not end together."""
PROBE_INTERVAL_S = 0.005
"""How often the event loop is asked whether it is on time."""

_GENERATOR_START_S = 60.0
_LEAD_S = 0.2
"""From the moment everything is ready to the schedule's zero."""
_POLL_S = 0.2
_DRAIN_S = 30.0
"""What an overloaded engine may take, after the last packet, to come to an end."""


class LiveStream(Protocol):
    """What is needed of a stream."""

    async def feed(self, packet: bytes) -> None:
        """Take audio."""

    async def flush(self) -> None:
        """Return when all audio so far has been processed."""

    async def close(self) -> None:
        """Finish what is pending."""

    def __aiter__(self) -> AsyncIterator[Event | Received]:
        """Events as they come, or with the time at which they came."""


class Engine(Protocol):
    """What is needed of an engine: it is entered, and opens streams."""

    async def __aenter__(self) -> Any:
        """Load and warm the model."""

    async def __aexit__(self, *reason: Any) -> None:
        """Stop."""

    def stream(self, sample_rate: int, **settings: Any) -> AbstractAsyncContextManager[LiveStream]:
        """A stream of 16-bit mono audio."""


@dataclass(frozen=True)
class RunSettings:
    """How a run is played."""

    streams: int = 1
    seconds: float = 30.0
    packet_ms: int = 20
    pause_ms: int = 800
    """Silence between utterances."""
    seed: int = 0
    stream: dict[str, Any] = field(default_factory=dict)
    """Settings of every stream of the engine."""
    probe: bool = True
    """Whether the event loop is watched, which costs some processor time itself."""

    def __post_init__(self) -> None:
        for name, low in (("streams", 1), ("seconds", 1), ("packet_ms", 1), ("pause_ms", 1)):
            if getattr(self, name) < low:
                raise ConfigurationError(
                    f"{name} is {getattr(self, name)}; it must be at least {low}.", key=name
                )


@dataclass(frozen=True)
class Pauses:
    """By how many seconds the event loop was late for a timer that was set again and again."""

    asked: int
    """How often the timer was set."""
    p99: float
    p999: float
    greatest: float
    long: int
    """How often it was late by more than :data:`~tinyvoice.metrics.LONG_PAUSE_S`."""


@dataclass
class Run:
    """What one run brought."""

    plan: LoadPlan
    heard: list[list[Heard]]
    """Utterances of each stream."""
    refused: int = 0
    """Streams that the engine did not take."""
    failures: list[str] = field(default_factory=list)
    """What streams said that failed."""
    lost: int = 0
    """Clips that were played to the end and are in no final."""
    audio_s: float = 0.0
    """Audio that was played, all streams together."""
    cpu_s: float = 0.0
    """Processor time of this process meanwhile."""
    wall_s: float = 0.0
    pauses: Pauses | None = None
    lateness: Lateness | None = None
    interrupted: bool = False


def plan_run(
    clips: Sequence[Clip], settings: RunSettings, payloads: Payloads | None = None
) -> LoadPlan:
    """The load of a run: the same for the same settings."""
    packet = settings.packet_ms * SAMPLE_RATE // 1000
    timelines = make_timelines(
        clips,
        settings.streams,
        settings.seconds,
        pause_s=settings.pause_ms / 1000,
        seed=settings.seed,
    )
    spread = min(START_SPREAD_S, settings.seconds / 4) if settings.streams > 1 else 0.0
    starts = stagger(settings.streams, spread, packet / SAMPLE_RATE)
    return LoadPlan([clip.pcm16() for clip in clips], timelines, starts, packet, payloads)


async def paced_run(
    engine: Engine,
    clips: Sequence[Clip],
    settings: RunSettings,
    stop: asyncio.Event | None = None,
    progress: Callable[[float], None] = lambda _: None,
    payloads: Payloads | None = None,
) -> Run:
    """Play a run to an open engine; ``stop`` ends it early with what there is.

    ``progress`` is told the share of the run that is over, some times a second. ``payloads`` makes
    the packets that the engine's streams are fed, where they are to be other than 16-bit PCM.

    Raises:
        LoadError: the generator's process does not start, or breaks off.
    """
    plan = plan_run(clips, settings, payloads)
    stop = stop or asyncio.Event()
    with generator(plan) as connection:
        feeds = [Feed(engine, settings.stream) for _ in plan.timelines]
        parser = Parser(lambda stream, _, packet: feeds[stream].put(packet))
        async with playing(connection, parser) as broken:
            await asyncio.gather(*(feed.open() for feed in feeds))
            await until(lambda: parser.ready, time.monotonic() + _GENERATOR_START_S, stop, broken)
            zero = time.monotonic() + _LEAD_S
            start(connection, zero)
            async with LoopProbe(settings.probe) as probe:
                cpu = time.process_time()
                tasks = [asyncio.create_task(feed.run()) for feed in feeds]

                def played() -> bool:
                    progress(min(1.0, max(0.0, time.monotonic() - zero) / plan.seconds))
                    return parser.lateness is not None

                await until(played, zero + plan.seconds + _DRAIN_S, stop, broken)
                for feed in feeds:
                    feed.put(None)
                await finish(tasks, stop)
                cpu = time.process_time() - cpu
            ended = time.monotonic()
    run = gather(plan, clips, feeds, zero, ended)
    run.cpu_s, run.wall_s = cpu, ended - zero
    run.lateness, run.pauses = parser.lateness, probe.pauses
    run.interrupted = stop.is_set()
    if run.interrupted:
        run.failures, run.lost = [], 0
    return run


@asynccontextmanager
async def playing(connection: Any, parser: Parser) -> AsyncIterator[asyncio.Event]:
    """Hand what the generator sends to the parser; gives what is set when its end is reached."""
    ended = asyncio.Event()

    class Receiver(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            parser.feed(data)

        def connection_lost(self, _: Exception | None) -> None:
            ended.set()

    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(Receiver, sock=connection)
    try:
        yield ended
    finally:
        transport.close()
        await asyncio.sleep(0)


async def until(
    reached: Callable[[], bool], deadline: float, stop: asyncio.Event, broken: asyncio.Event
) -> None:
    """Wait until something is reached, or for ``stop``.

    Raises:
        LoadError: the generator broke off, or the deadline has passed.
    """
    while not reached() and not stop.is_set():
        if broken.is_set() or time.monotonic() > deadline:
            raise LoadError(
                "The process that plays the streams broke off: see what it wrote, and try again."
            )
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _POLL_S)


async def finish(tasks: Sequence[asyncio.Task[None]], stop: asyncio.Event) -> None:
    """Wait for the streams to end, a while; drop those that do not, or all when interrupted."""
    await asyncio.wait(tasks, timeout=0.5 if stop.is_set() else _DRAIN_S)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Feed:
    """One stream of a run: what it is fed, and what it says."""

    def __init__(self, engine: Engine, settings: dict[str, Any]) -> None:
        self._context = engine.stream(SAMPLE_RATE, **settings)
        self._stream: LiveStream | None = None
        self._packets: deque[bytes | None] = deque()
        self._more = asyncio.Event()
        self.received: list[Received] = []
        self.refused = False
        self.failure: str | None = None

    async def open(self) -> None:
        """Open the stream; an engine that is full refuses it."""
        try:
            self._stream = await self._context.__aenter__()
        except EngineError:
            self.refused = True

    def put(self, packet: bytes | None) -> None:
        """Queue a packet; None is the end."""
        if not self.refused:
            self._packets.append(packet)
            self._more.set()

    async def run(self) -> None:
        """Feed and read until the end."""
        if self._stream is None:
            return
        reader = asyncio.create_task(self._read(self._stream))
        try:
            await self._feed(self._stream)
            await reader
        except TinyvoiceError as error:
            self.failure = self.failure or str(error)
        except asyncio.CancelledError:
            self.failure = self.failure or "the stream did not come to its end"
            raise
        finally:
            reader.cancel()
            reason = sys.exc_info()
            with suppress(TinyvoiceError):
                await self._context.__aexit__(*reason)

    async def _feed(self, stream: LiveStream) -> None:
        while True:
            while self._packets:
                packet = self._packets.popleft()
                if packet is None:
                    await stream.close()
                    return
                await stream.feed(packet)
            self._more.clear()
            await self._more.wait()

    async def _read(self, stream: LiveStream) -> None:
        async for item in stream:
            received = item if isinstance(item, Received) else Received(item, time.monotonic())
            self.received.append(received)
            if isinstance(received.event, Failed | UtteranceFailed):
                self.failure = str(received.event.error)


def gather(
    plan: LoadPlan, clips: Sequence[Clip], feeds: Sequence[Feed], zero: float, ended: float
) -> Run:
    """Put together what all streams said."""
    run = Run(plan, [])
    for feed, timeline, begin in zip(feeds, plan.timelines, plan.starts, strict=True):
        clock = StreamClock(zero + begin, plan.packet_samples, timeline.samples)
        fed = clock.fed(ended)
        # What was being said when a run was interrupted was heard in part: it is no utterance.
        whole = [
            index
            for index, placed in enumerate(timeline.placed)
            if placed.start / SAMPLE_RATE + clips[placed.clip].duration <= fed
        ]
        heard = [
            item
            for item in observe(feed.received, clock, timeline, clips)
            if item.clip is None or item.clip in whole
        ]
        run.heard.append(heard)
        run.audio_s += fed
        run.refused += feed.refused
        if feed.failure is not None:
            run.failures.append(feed.failure)
        elif not feed.refused:
            found = {item.clip for item in heard}
            run.lost += sum(index not in found for index in whole)
    return run


class DeafEngine:
    """Takes audio and does nothing with it: what a run costs on it is the harness's own share."""

    async def __aenter__(self) -> DeafEngine:
        return self

    async def __aexit__(self, *reason: Any) -> None:
        pass

    @asynccontextmanager
    async def stream(self, sample_rate: int, **settings: Any) -> AsyncIterator[LiveStream]:
        """A stream that never says anything."""
        del sample_rate, settings
        yield DeafStream()


class DeafStream:
    """A stream of the :class:`DeafEngine`."""

    def __init__(self) -> None:
        self._closed = asyncio.Event()

    async def feed(self, packet: bytes) -> None:
        """Drop audio."""

    async def flush(self) -> None:
        """Nothing is ever pending."""

    async def close(self) -> None:
        """End the stream."""
        self._closed.set()

    async def __aiter__(self) -> AsyncIterator[Event]:
        await self._closed.wait()
        nothing: tuple[Event, ...] = ()
        for event in nothing:
            yield event


class LoopProbe:
    """Notes by how much the event loop is late for a timer that it is set again and again."""

    def __init__(self, wanted: bool = True) -> None:
        self._wanted = wanted
        self._late = array("f")
        self._task: asyncio.Task[None] | None = None

    @property
    def pauses(self) -> Pauses | None:
        """What was found; None where nobody wanted to know, or there was no time for it."""
        if not self._late:
            return None
        late = np.asarray(self._late)
        p99, p999 = np.percentile(late, [99, 99.9])
        long = int((late > LONG_PAUSE_S).sum())
        return Pauses(len(late), float(p99), float(p999), float(late.max()), long)

    async def __aenter__(self) -> LoopProbe:
        if self._wanted:
            self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _watch(self) -> None:
        while True:
            due = time.monotonic() + PROBE_INTERVAL_S
            await asyncio.sleep(PROBE_INTERVAL_S)
            self._late.append(time.monotonic() - due)


@asynccontextmanager
async def stopping_on_interrupt() -> AsyncIterator[asyncio.Event]:
    """What Ctrl-C sets; a second one interrupts as usual."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def interrupt() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    if os.name == "nt":  # no signal handlers in its event loop: Ctrl-C interrupts at once
        yield stop
        return
    try:
        loop.add_signal_handler(signal.SIGINT, interrupt)
    except (RuntimeError, ValueError):  # not the main thread
        yield stop
        return
    try:
        yield stop
    finally:
        loop.remove_signal_handler(signal.SIGINT)
