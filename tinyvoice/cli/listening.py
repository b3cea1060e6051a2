"""One session of `tinyvoice listen`: sound goes into a stream, events come out to a view.

Here are the sources (a microphone, or a recording played at the pace of speech), the loop between
them and the engine, and the ways to end it. What is shown is the view's business.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from tinyvoice.audio.files import SAMPLE_RATE, Audio
from tinyvoice.audio.microphone import InputDevice, Microphone
from tinyvoice.cli.app import debugging, print_warning
from tinyvoice.cli.live_view import JsonLines, Latencies, Lines, Screen, View
from tinyvoice.cli.progress import Activity
from tinyvoice.cli.recorder import Recorder
from tinyvoice.engine import (
    EngineSettings,
    Failed,
    Stream,
    StreamingEngine,
    StreamSettings,
    UtteranceFailed,
)
from tinyvoice.errors import TinyvoiceError
from tinyvoice.model.modeling import ASRModel

PACKET_S = 0.02
"""Sound in a packet of a recording that is played."""


@dataclass(frozen=True)
class Session:
    """What the user asked for.

    Attributes:
        source: a microphone to open, or a recording to play.
        settings: how the stream is cut into utterances.
        speed: pace of a recording; 1 is that of speech.
        seconds: sound after which to stop, None for no end.
        as_json: whether every event goes to standard output as JSON.
        save: where sound and transcript are kept, see `save_paths`; None for nowhere.
    """

    source: InputDevice | Audio
    settings: StreamSettings
    speed: float = 1.0
    seconds: float | None = None
    as_json: bool = False
    save: str | None = None


@dataclass
class _Source:
    """Sound to feed: packets in a format, until it ends."""

    name: str
    sample_rate: int
    channels: int
    encoding: str
    packets: AsyncIterator[NDArray[Any]]
    overruns: Callable[[], int]
    """Times that sound was lost."""


@asynccontextmanager
async def _open_source(session: Session) -> AsyncIterator[_Source]:
    source = session.source
    if isinstance(source, InputDevice):
        async with Microphone(source) as microphone:
            form = microphone.format
            yield _Source(
                name=source.name,
                sample_rate=form.sample_rate,
                channels=form.channels,
                encoding="pcm16",
                packets=aiter(microphone),
                overruns=lambda: microphone.overruns,
            )
        return
    yield _Source(
        name=source.source,
        sample_rate=SAMPLE_RATE,
        channels=1,
        encoding="float32",
        packets=_played(source.samples, session.speed),
        overruns=lambda: 0,
    )


async def _played(samples: NDArray[np.float32], speed: float) -> AsyncIterator[NDArray[np.float32]]:
    """Packets of a recording, each when its last sample would have been recorded.

    Times are absolute, so that one late packet does not delay all that follow.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    length = int(PACKET_S * SAMPLE_RATE)
    for start in range(0, len(samples), length):
        packet = samples[start : start + length]
        due = began + (start + len(packet)) / SAMPLE_RATE / speed
        await asyncio.sleep(max(0.0, due - loop.time()))
        yield packet


async def run(model: ASRModel, session: Session) -> None:
    """Listen with a loaded model until the sound ends or the user ends it.

    Raises:
        TinyvoiceError: the sound, the stream or a file to be saved failed; what had been said
            until then has been shown.
    """
    latencies = Latencies()
    engine = StreamingEngine(model, EngineSettings(freeze_objects=True))
    async with AsyncExitStack() as stack:
        with Activity("Warming the model up"):
            await stack.enter_async_context(engine)
        if isinstance(session.source, InputDevice) and not debugging():
            stack.enter_context(_quiet_libraries())
        source = await stack.enter_async_context(_open_source(session))
        stream = await stack.enter_async_context(
            engine.stream(
                source.sample_rate,
                channels=source.channels,
                encoding=source.encoding,
                settings=session.settings,
            )
        )
        recorder = (
            stack.enter_context(Recorder(session.save, source.sample_rate, source.channels))
            if session.save is not None
            else None
        )
        view = stack.enter_context(_view(session, source, latencies))
        run = _Run(source, stream, session.seconds, view, latencies, recorder)
        with _interruption(run.stop), _commits(stream, session.settings):
            error = await run.run()
    _conclude(latencies, source.overruns(), recorder)
    if error is not None:
        raise error


@dataclass
class _Run:
    """Moves packets in and events out until the sound ends or somebody stops it."""

    source: _Source
    stream: Stream
    seconds: float | None
    view: View
    latencies: Latencies
    recorder: Recorder | None
    stopped: bool = False

    def stop(self) -> None:
        """End with the packet in progress."""
        self.stopped = True

    async def run(self) -> TinyvoiceError | None:
        """Return what ended it, if it was an error; what had been said by then is shown first."""
        reader = asyncio.create_task(self._read())
        error: TinyvoiceError | None = None
        try:
            await self._feed(reader)
            await self.stream.close()
        except TinyvoiceError as problem:
            error = problem
            await self.stream.close()
        return await reader or error

    async def _feed(self, reader: asyncio.Task[Any]) -> None:
        lost = False
        async for packet in self.source.packets:
            if self.stopped or reader.done():
                return
            if self.recorder is not None:
                self.recorder.hear(packet)
            await self.stream.feed(packet)
            self.latencies.fed(len(packet) / self.source.sample_rate)
            self.view.level(_peak(packet))
            if self.source.overruns() and not lost:
                lost = True
                self.view.warn("Sound was lost: this machine, or another program on it, is busy.")
            if self.seconds is not None and self.latencies.fed_s >= self.seconds - PACKET_S / 2:
                return

    async def _read(self) -> TinyvoiceError | None:
        error: TinyvoiceError | None = None
        async for event in self.stream:
            self.latencies.received(event)
            self.view.show(event)
            if isinstance(event, UtteranceFailed):
                self.view.warn(str(event.error))
            if isinstance(event, Failed):
                return event.error
            try:
                if self.recorder is not None:
                    self.recorder.note(event)
            except TinyvoiceError as problem:
                # What has been said is shown all the same.
                error = problem
                self.stop()
        return error


def _peak(packet: NDArray[Any]) -> float:
    """The largest magnitude, as a share of full scale."""
    full_scale = 32768.0 if packet.dtype == np.int16 else 1.0
    return max(float(packet.max(initial=0)), -float(packet.min(initial=0))) / full_scale


def _view(session: Session, source: _Source, latencies: Latencies) -> View:
    ending = "Enter ends an utterance, " if session.settings.endpointing == "manual" else ""
    hint = f"{source.name}: {ending}Ctrl-C ends"
    if session.as_json or not sys.stdout.isatty():
        print(f"Listening to {hint}", file=sys.stderr, flush=True)
        return JsonLines(print_warning) if session.as_json else Lines(print_warning)
    return Screen(Console(highlight=False), latencies, hint)


def _conclude(latencies: Latencies, overruns: int, recorder: Recorder | None) -> None:
    """Say on standard error what came of it."""
    print(latencies.summary(), file=sys.stderr)
    if overruns:
        print_warning(f"sound was lost {overruns} times: words may be missing.")
    if recorder is not None and not recorder.failed:
        print(f"saved: {recorder.sound_path}, {recorder.text_path}", file=sys.stderr)


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep PortAudio and ALSA from writing into the screen what they also return as errors.

    They write to the process's standard error; Python's own goes to a copy of it meanwhile.
    """
    sys.stderr.flush()
    before, number = sys.stderr, sys.stderr.fileno()
    kept, nowhere = os.dup(number), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
    with open(os.dup(kept), "w", buffering=1, errors="backslashreplace") as ours:  # noqa: PTH123
        sys.stderr = ours
        try:
            yield
        finally:
            sys.stderr = before
            os.dup2(kept, number)
            os.close(kept)


@contextmanager
def _interruption(stop: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C, or a request to terminate, stops once; a second Ctrl-C interrupts as usual.

    Where Ctrl-C was ignored from the start, as in a shell's background jobs, it stays ignored.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(_number: int, _frame: Any) -> None:
        stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _commits(stream: Stream, settings: StreamSettings) -> Iterator[None]:
    """With manual endpointing, each line on standard input ends the utterance."""
    if settings.endpointing != "manual" or sys.stdin is None:
        yield
        return
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[Any]] = set()
    number = sys.stdin.fileno()

    def read() -> None:
        content = os.read(number, 4096)
        if not content:
            loop.remove_reader(number)
        for _ in range(content.count(b"\n")):
            tasks.add(asyncio.ensure_future(_commit(stream)))

    # Neither a file nor a Windows console can be waited for; the end of sound still ends speech.
    with suppress(OSError, NotImplementedError):
        loop.add_reader(number, read)
    try:
        yield
    finally:
        with suppress(OSError, NotImplementedError):
            loop.remove_reader(number)
        for task in tasks:
            task.cancel()


async def _commit(stream: Stream) -> None:
    with suppress(TinyvoiceError):  # the stream may have ended with the line
        await stream.commit()
