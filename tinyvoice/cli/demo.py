"""Show streaming: a page to talk to in the browser, or a recording in the terminal.

The page comes from a server on this machine and needs no internet: words appear while you speak,
and an agent answers. The recording is synthetic speech of flite's voice slt, made for this purpose
by `training.demo_recording`; it shows that the installation works and how streaming feels, not how
well a model understands people.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinyvoice.cli.options import ModelName
from tinyvoice.cli.progress import Activity

if TYPE_CHECKING:
    from tinyvoice.benchmark.observation import Received
    from tinyvoice.benchmark.speech import Clip
    from tinyvoice.benchmark.timeline import Timeline
    from tinyvoice.engine import Event
    from tinyvoice.metrics import UtteranceRecord
    from tinyvoice.model.modeling import ASRModel

app = typer.Typer(add_completion=False)

RECORDING = Path(__file__).with_name("demo.flac")

MANIFEST = Path(__file__).with_name("demo.jsonl")
"""What is said in the recording, and when."""

PACKET_MS = 20
"""What a WebRTC client sends at a time."""

_SHOWN = ("time_to_final", "first_partial", "first_stable_word", "partial_lag")


@app.command(
    epilog="Without a browser or a microphone: tinyvoice demo --recording",
    context_settings={"help_option_names": ["-h", "--help"]},
)
def demo(
    model: ModelName = "embedded",
    recording: Annotated[
        bool,
        typer.Option(
            "--recording", help="Play a recording in the terminal instead, then its latencies."
        ),
    ] = False,
    port: Annotated[
        int, typer.Option("--port", "-p", min=0, max=65_535, help="Port of the page; 0 is any.")
    ] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")
    ] = True,
) -> None:
    """Show streaming: a page to talk to in the browser, or a recording in the terminal.

    The page is served to this machine only, until Ctrl-C. Of a recording, what is stable is shown
    plain, what may still change dim, or in brackets where standard output is no terminal.
    """
    if recording:
        from tinyvoice.cli.transcribe import load_model

        with Activity(f"Loading the model {model}"):
            loaded = load_model(model)
        asyncio.run(_play(loaded))
    else:
        _show_page(model, port, open_browser=browser)


def _show_page(model: str, port: int, *, open_browser: bool) -> None:
    """Serve the page, and the agent behind it, to this machine."""
    import webbrowser

    from tinyvoice.cli import serve
    from tinyvoice.server import logs
    from tinyvoice.server.settings import ServerSettings

    serve.check_extra()
    settings = ServerSettings.load({"model": model, "port": port, "log_level": "warning"})
    settings.check()

    def announce(port: int) -> None:
        url = f"http://{settings.host}:{port}/"
        print(f"Talk to it at {url}  (Ctrl-C ends it)", flush=True)
        if open_browser and not webbrowser.open(url):
            print("No browser could be opened: open that address in one.", flush=True)

    with serve.bound(settings.host, settings.port) as sockets:
        logs.configure(settings.log_level, settings.log_format, settings.log_content)
        serve.run(settings, sockets, None, announce)


async def _play(model: ASRModel) -> None:
    from tinyvoice.audio import SAMPLE_RATE, load_audio
    from tinyvoice.benchmark.observation import Received, StreamClock, observe
    from tinyvoice.benchmark.speech import load_speech
    from tinyvoice.engine import StreamingEngine
    from tinyvoice.engine.recording import stream_recording

    samples = load_audio(RECORDING).samples
    clips = load_speech(MANIFEST)
    received: list[Received] = []
    view = _View()
    loop = asyncio.get_running_loop()
    async with StreamingEngine(model) as engine:
        start = loop.time()
        async for event in stream_recording(engine, samples, packet_ms=PACKET_MS, speed=1.0):
            received.append(Received(event, loop.time()))
            view.show(event)
    clock = StreamClock(start, PACKET_MS * SAMPLE_RATE // 1000, len(samples))
    heard = observe(received, clock, _timeline(len(samples)), clips)
    _show_latencies([item.record for item in heard])
    _show_texts(clips, [item.final.text for item in heard])


def _timeline(samples: int) -> Timeline:
    """Where the sentences lie in the recording."""
    from tinyvoice.audio import SAMPLE_RATE
    from tinyvoice.benchmark.timeline import Placed, Timeline

    lines = MANIFEST.read_text(encoding="utf-8").splitlines()
    starts = [round(json.loads(line)["offset"] * SAMPLE_RATE) for line in lines]
    return Timeline(tuple(Placed(*place) for place in enumerate(starts)), samples)


class _View:
    """Partials on a line that changes, or a line each; finals with the time of their speech."""

    def __init__(self) -> None:
        from tinyvoice.cli.live_line import LiveLine

        self._line = LiveLine(sys.stdout, prefix="  … ") if sys.stdout.isatty() else None
        self._last = ""

    def show(self, event: Event) -> None:
        """Show an event that has text."""
        from tinyvoice.engine import Failed, Final, Partial, UtteranceFailed

        if isinstance(event, Failed | UtteranceFailed):
            self._clear()
            raise event.error
        if isinstance(event, Partial):
            if self._line is not None:
                self._line.show(event.stable.lstrip(), event.tail)
            elif event.text != self._last:
                tail = event.tail.strip()
                shown = f"{event.stable.strip()} ({tail})" if tail else event.stable.strip()
                print(f"{event.at:6.2f} s   {shown.strip()}", flush=True)
                self._last = event.text
        elif isinstance(event, Final) and event.text:
            self._clear()
            print(f"{event.start:6.2f} s to {event.end:.2f} s: {event.text}", flush=True)

    def _clear(self) -> None:
        if self._line is not None:
            self._line.clear()


def _show_latencies(records: list[UtteranceRecord]) -> None:
    from rich.console import Console
    from rich.table import Table

    from tinyvoice import metrics

    values: dict[str, list[float | None]] = {
        "time_to_final": [metrics.time_to_final(record) for record in records],
        "first_partial": [metrics.first_partial(record) for record in records],
        "first_stable_word": [metrics.first_stable_word(record) for record in records],
        "partial_lag": [lag for record in records for lag in metrics.partial_lags(record)],
    }
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("latency")
    for title in ("median", "greatest"):
        table.add_column(title, justify="right")
    for name in _SHOWN:
        spread = metrics.distribution(values[name])
        if spread is not None:
            table.add_row(
                metrics.METRICS[name].title,
                f"{spread.p50 * 1000:.0f} ms",
                f"{spread.greatest * 1000:.0f} ms",
            )
    console = Console(highlight=False)
    console.print()
    console.print(table)


def _show_texts(clips: list[Clip], heard: list[str]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    for title, texts in (
        ("\n[bold]spoken[/] ", [clip.text or "" for clip in clips]),
        ("[bold]heard[/]  ", heard),
    ):
        console.print(title, end="")
        console.print(", ".join(filter(None, texts)), markup=False, soft_wrap=True)
