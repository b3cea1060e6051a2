"""Talk, and watch the words appear: microphone to live transcript.

Words that are settled are shown plain, those that may still change dim, and each utterance gets a
line with its time when it is over. Ctrl-C finishes the current utterance; a second one leaves at
once. Where standard output is no terminal, finals are written to it, one a line.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from tinyvoice.audio.files import SAMPLE_RATE, load_audio
from tinyvoice.audio.microphone import InputDevice, Microphone, find_device, input_devices
from tinyvoice.cli.app import print_warning
from tinyvoice.cli.listening import JsonLines, Latencies, Lines, Screen, View
from tinyvoice.cli.options import Device, ModelName, ModelPrecision, Precision
from tinyvoice.cli.progress import Activity
from tinyvoice.cli.recorder import Recorder
from tinyvoice.errors import TinyvoiceError

if TYPE_CHECKING:
    from tinyvoice.audio import Audio
    from tinyvoice.engine import Stream, StreamSettings
    from tinyvoice.model.modeling import ASRModel

app = typer.Typer(add_completion=False)

PACKET_S = 0.02
"""Sound in a packet of a recording that is played."""

_SETTINGS = "How speech is cut into utterances"


class Endpointing(StrEnum):
    """What ends an utterance."""

    VAD = "vad"
    SEMANTIC = "semantic"
    MANUAL = "manual"


class Eagerness(StrEnum):
    """How soon semantic endpointing ends a turn that sounds unfinished."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    AUTO = "auto"


@dataclass(frozen=True)
class _Session:
    """What was asked for, checked."""

    source: InputDevice | Audio
    speed: float
    seconds: float | None
    settings: StreamSettings
    as_json: bool
    save: str | None


@app.command(
    epilog="A recording instead of the microphone: tinyvoice listen --file talk.wav",
    context_settings={"help_option_names": ["-h", "--help"]},
)
def listen(
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            "-d",
            envvar="TINYVOICE_MICROPHONE",
            metavar="NUMBER|NAME",
            help="Microphone: its number, or a part of its name.",
        ),
    ] = None,
    list_devices: Annotated[
        bool, typer.Option("--list-devices", "-l", help="List the microphones, and stop.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Every event as a JSON object, one a line.")
    ] = False,
    save: Annotated[
        str | None,
        typer.Option(
            "--save",
            metavar="FOLDER|PREFIX",
            help="Keep the sound (.flac, or .wav if said) and the transcript (.txt).",
        ),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", "-f", help="Play a recording instead, at the pace of speech."),
    ] = None,
    speed: Annotated[
        float,
        typer.Option("--speed", min=0.1, max=1000, help="Pace of --file; 2 is twice as fast."),
    ] = 1.0,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0.1, help="Stop after so much sound.")
    ] = None,
    model: ModelName = "embedded",
    compute_device: Annotated[
        Device, typer.Option("--compute-device", help="Where to compute; auto takes the fastest.")
    ] = Device.AUTO,
    dtype: ModelPrecision = Precision.AUTO,
    endpointing: Annotated[
        Endpointing,
        typer.Option(
            help="What ends an utterance: silence; silence after a finished sentence; Enter.",
            rich_help_panel=_SETTINGS,
        ),
    ] = Endpointing.VAD,
    threshold: Annotated[
        float,
        typer.Option(
            min=0.01, max=0.99, help="Probability that is speech.", rich_help_panel=_SETTINGS
        ),
    ] = 0.5,
    silence_ms: Annotated[
        int,
        typer.Option(
            min=32, max=10_000, help="Silence that ends an utterance.", rich_help_panel=_SETTINGS
        ),
    ] = 500,
    prefix_padding_ms: Annotated[
        int,
        typer.Option(
            min=0, max=2000, help="Sound kept before the speech.", rich_help_panel=_SETTINGS
        ),
    ] = 300,
    min_speech_ms: Annotated[
        int,
        typer.Option(
            min=0, max=2000, help="Speech that begins an utterance.", rich_help_panel=_SETTINGS
        ),
    ] = 64,
    eagerness: Annotated[
        Eagerness,
        typer.Option(help="How soon an unfinished turn ends.", rich_help_panel=_SETTINGS),
    ] = Eagerness.AUTO,
    partial_interval_ms: Annotated[
        int,
        typer.Option(
            min=32, max=10_000, help="Sound between two updates.", rich_help_panel=_SETTINGS
        ),
    ] = 320,
) -> None:
    """Talk, and watch the words appear: microphone to live transcript.

    Settled words are plain, those that may still change dim. Ctrl-C finishes; a second one leaves
    at once. With --endpointing manual, Enter ends an utterance.
    """
    if list_devices:
        _list_devices(as_json)
        return
    if file is not None and device is not None:
        raise typer.BadParameter("choose --file or --device", param_hint="--file")
    # What can be wrong is found before the model is loaded.
    source = find_device(device) if file is None else load_audio(file)
    with Activity(f"Loading the model {model}"):
        from tinyvoice.cli.transcribe import load_model

        loaded = load_model(model, device=compute_device.value, dtype=dtype.value)
        from tinyvoice.engine import StreamSettings

        settings = StreamSettings(
            endpointing=endpointing.value,
            threshold=threshold,
            silence_ms=silence_ms,
            prefix_padding_ms=prefix_padding_ms,
            min_speech_ms=min_speech_ms,
            eagerness=eagerness.value,
            partial_interval_ms=partial_interval_ms,
        )
    asyncio.run(_listen(loaded, _Session(source, speed, seconds, settings, as_json, save)))


def _list_devices(as_json: bool) -> None:
    devices = input_devices()
    if as_json:
        print(json.dumps([asdict(device) for device in devices], indent=2))
        return
    if not devices:
        find_device()  # says what to do about it
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("number", justify="right")
    table.add_column("name", overflow="fold")
    table.add_column("channels", justify="right")
    table.add_column("rate", justify="right")
    table.add_column("")
    for device in devices:
        table.add_row(
            str(device.index),
            device.name,
            str(device.channels),
            f"{device.sample_rate} Hz",
            "default" if device.default else "",
        )
    Console(markup=False, highlight=False).print(table)


# One session ---------------------------------------------------------------------------------


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
async def _open_source(session: _Session) -> AsyncIterator[_Source]:
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


async def _listen(model: ASRModel, session: _Session) -> None:
    """Everything from the loaded model to the summary."""
    from tinyvoice.engine import StreamingEngine

    latencies = Latencies()
    engine = StreamingEngine(model)
    async with AsyncExitStack() as stack:
        with Activity("Warming the model up"):
            await stack.enter_async_context(engine)
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
        from tinyvoice.engine import Failed

        async for event in self.stream:
            self.latencies.received(event)
            if self.recorder is not None:
                self.recorder.note(event)
            self.view.show(event)
            if isinstance(event, Failed):
                return event.error
        return None


def _peak(packet: NDArray[Any]) -> float:
    """The largest magnitude, as a share of full scale."""
    full_scale = 32768.0 if packet.dtype == np.int16 else 1.0
    return max(float(packet.max(initial=0)), -float(packet.min(initial=0))) / full_scale


def _view(session: _Session, source: _Source, latencies: Latencies) -> View:
    ending = "Enter ends an utterance, " if session.settings.endpointing == "manual" else ""
    hint = f"{source.name}: {ending}Ctrl-C ends"
    if session.as_json or not sys.stdout.isatty():
        print(f"Listening to {hint}", file=sys.stderr, flush=True)
        return JsonLines(print_warning) if session.as_json else Lines(print_warning)
    from rich.console import Console

    return Screen(Console(highlight=False), latencies, hint)


def _conclude(latencies: Latencies, overruns: int, recorder: Recorder | None) -> None:
    """Say on standard error what came of it."""
    print(latencies.summary(), file=sys.stderr)
    if overruns:
        print_warning(f"sound was lost {overruns} times: words may be missing.")
    if recorder is not None:
        print(f"saved: {recorder.sound_path}, {recorder.text_path}", file=sys.stderr)


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
