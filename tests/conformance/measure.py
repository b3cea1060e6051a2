"""What a client of the server waits for, over many utterances, next to what the engine took.

    python -m tests.conformance.measure --utterances 100 --data FOLDER --json FILE

Plays utterances one after the other, at speaking pace, into a transcription session of a server in
this process, and reports

- the share of turns whose transcript is the concatenation of its deltas (at least 99 %),
- the share of turns with a first delta before the speech was over,
- the time from the packet that let the end of speech be decided to ``completed`` at the client,
  against the engine's own time to final of the same utterances (at most 20 ms more),
- the word error rate, so that nobody measures how fast nonsense comes.

The packet that lets the end be decided is the one that completes the last window of voice activity
detection. At 24 kHz the server's resampler knows a sample 1.5 ms after it was spoken, so where a
window ends with a packet, the packet behind it is the one; the engine counts in the same way.

The server runs in a thread, since the engine tells its own figures in its process only: client and
server share one interpreter, which makes the difference larger than it is between two processes.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import math
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from websockets.asyncio.client import ClientConnection, connect

from tinyvoice.audio.polyphase import PolyphaseResampler
from tinyvoice.audio.resample import resample
from tinyvoice.benchmark.machine import describe_machine
from tinyvoice.benchmark.speech import BUNDLED, Clip, load_speech
from tinyvoice.engine import EngineSettings, StreamingEngine
from tinyvoice.metrics import distribution, word_error_rate, word_errors
from tinyvoice.server.app import build_app
from tinyvoice.server.listener import Server, listener_config
from tinyvoice.server.settings import ServerSettings

RATE = 24_000
"""The protocol's; 16 kHz is what the engine hears, and is accepted as an extension."""
ENGINE_RATE = 16_000
PACKET_MS = 20
PAUSE_S = 1.0
"""Silence behind an utterance: longer than the turn detection waits."""
START_S = 120.0
PATIENCE_S = 120.0
SHORTFALL_MS = 500
"""So much before its end may the last recording's speech be over."""
LEAST_AGREEMENT = 0.99
MOST_OVERHEAD_S = 0.020
TRANSCRIPTION = "conversation.item.input_audio_transcription."


class EngineFigures:
    """An observer of the engine that keeps times to final, and nothing else."""

    def __init__(self) -> None:
        self.times_to_final: list[float] = []

    def time_to_final(self, seconds: float) -> None:
        """A final is delivered, so long after the packet that let the end be decided came in."""
        self.times_to_final.append(seconds)

    def first_partial(self, audio_s: float, wall_s: float) -> None:
        """Not kept."""

    def batch(self, kind: str, size: int, seconds: float) -> None:
        """Not kept."""

    def queue(self, streams: int, pending_s: float) -> None:
        """Not kept."""

    def refused(self, reason: str) -> None:
        """Not kept."""

    def restarted(self) -> None:
        """Not kept."""


@dataclass
class Turn:
    """What a client saw of one turn."""

    item_id: str
    audio_start_ms: int = 0
    deltas: list[str] = field(default_factory=list)
    transcript: str | None = None
    early: bool = False
    """Whether text came before the speech was over."""
    audio_end_ms: int = 0
    waited_s: float = 0.0
    """From the packet that let the end of speech be decided to ``completed``."""


@dataclass
class Figures:
    """The outcome; times in seconds."""

    utterances: int
    turns: int
    equal_share: float
    """Of turns: the deltas together are the transcript."""
    early_share: float
    """Of turns with words: the first delta came before the speech was over."""
    word_error_rate: float | None
    waited: dict[str, float] | None
    """``completed`` at the client."""
    engine: dict[str, float] | None
    """The engine's own time to final."""
    overhead: dict[str, float] | None
    """The difference, turn by turn."""
    speed: float
    machine: dict[str, Any]


@contextmanager
def measured_server(figures: EngineFigures) -> Iterator[str]:
    """A server in a thread, whose engine tells ``figures``; gives its address."""
    found: list[tuple[str, asyncio.AbstractEventLoop, Server]] = []
    ready = threading.Event()

    async def serve() -> None:
        settings = ServerSettings(port=0, device="cpu")
        engine = StreamingEngine(
            settings.model, EngineSettings(), device=settings.device, observer=figures
        )
        async with engine:
            app = build_app(settings, engine=engine)

            async def drain() -> None:
                await app.state.sessions.drain(settings.drain_seconds)

            def announce() -> None:
                port = listener.servers[0].sockets[0].getsockname()[1]
                found.append((f"ws://127.0.0.1:{port}", asyncio.get_running_loop(), listener))
                ready.set()

            listener = Server(listener_config(app, settings), drain, announce)
            await listener.serve()

    def run() -> None:
        try:
            asyncio.run(serve())
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="server", daemon=True)
    thread.start()
    assert ready.wait(START_S)
    assert found, "the server did not start"
    address, loop, listener = found[0]
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(listener.stop)
        thread.join(START_S)


class Listener:
    """One session: feeds packets, and notes what comes and when."""

    def __init__(self, connection: ClientConnection, speed: float, rate: int) -> None:
        self.connection = connection
        self.rate = rate
        self.speed = speed
        self.turns: dict[str, Turn] = {}
        self.sent: list[float] = []
        """When each packet was sent; together they are the session's audio clock."""
        self.news = asyncio.Condition()

    async def configure(self) -> None:
        """Ask for a transcription session with the server's voice activity detection."""
        heard: dict[str, Any] = {
            "format": {"type": "audio/pcm", "rate": self.rate},
            "transcription": {"model": "tinyvoice"},
            "turn_detection": {"type": "server_vad"},
        }
        session = {"type": "transcription", "audio": {"input": heard}}
        await self.connection.send(json.dumps({"type": "session.update", "session": session}))

    async def play(self, sound: bytes) -> None:
        """Send packets when they are due."""
        size = 2 * self.rate * PACKET_MS // 1000
        begin = time.monotonic()
        for number, start in enumerate(range(0, len(sound), size)):
            if self.speed:
                due = begin + number * PACKET_MS / 1000 / self.speed
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            audio = base64.b64encode(sound[start : start + size].ljust(size, b"\0")).decode()
            event = json.dumps({"type": "input_audio_buffer.append", "audio": audio})
            self.sent.append(time.monotonic())
            await self.connection.send(event)

    async def read(self) -> None:
        """Take events until the connection closes."""
        async for message in self.connection:
            now = time.monotonic()
            event = json.loads(message)
            assert event["type"] != "error", event
            async with self.news:
                self.note(event, now)
                self.news.notify_all()

    def note(self, event: dict[str, Any], now: float) -> None:
        kind = event["type"]
        if kind == "input_audio_buffer.speech_started":
            self.turns[event["item_id"]] = Turn(event["item_id"], event["audio_start_ms"])
        elif kind == "input_audio_buffer.speech_stopped":
            turn = self.turns[event["item_id"]]
            turn.audio_end_ms, turn.early = event["audio_end_ms"], bool(turn.deltas)
        elif kind == TRANSCRIPTION + "delta":
            self.turns[event["item_id"]].deltas.append(event["delta"])
        elif kind == TRANSCRIPTION + "completed":
            turn = self.turns[event["item_id"]]
            turn.transcript = event["transcript"]
            deciding = deciding_packet(turn.audio_end_ms, self.rate)
            turn.waited_s = now - self.sent[min(deciding, len(self.sent) - 1)]

    async def settled(self, until_ms: int) -> None:
        """Wait until every turn is over, and one that ends after this time has been among them."""

        def over() -> bool:
            turns = list(self.turns.values())
            told = all(turn.transcript is not None for turn in turns)
            return told and bool(turns) and turns[-1].audio_end_ms >= until_ms

        async with asyncio.timeout(PATIENCE_S), self.news:
            await self.news.wait_for(over)


def deciding_packet(audio_end_ms: int, rate: int) -> int:
    """The number of the packet with which the engine knows the sound up to this time."""
    known_ms = float(audio_end_ms)
    if rate != ENGINE_RATE:
        known_ms += 1000 * PolyphaseResampler(rate, ENGINE_RATE).delay_s
    return math.ceil(known_ms / PACKET_MS) - 1


async def listen(
    url: str, clips: Sequence[Clip], speed: float, rate: int = RATE
) -> list[list[Turn]]:
    """The turns of each clip, played one after the other in one session."""
    pause = np.zeros(round(PAUSE_S * ENGINE_RATE), dtype=np.float32)
    begins_ms = np.cumsum([0.0, *(1000 * (clip.duration + PAUSE_S) for clip in clips)])
    joined = np.concatenate([piece for clip in clips for piece in (clip.samples, pause)])
    async with connect(f"{url}/v1/realtime?intent=transcription", max_size=None) as connection:
        listener = Listener(connection, speed, rate)
        await listener.configure()
        reading = asyncio.create_task(listener.read())
        await listener.play(pcm(joined, rate))
        await listener.settled(round(begins_ms[-2] + 1000 * clips[-1].duration) - SHORTFALL_MS)
        await connection.close()
        await reading
    turns: list[list[Turn]] = [[] for _ in clips]
    for turn in listener.turns.values():
        middle = (turn.audio_start_ms + turn.audio_end_ms) / 2
        turns[int(np.searchsorted(begins_ms[1:-1], middle))].append(turn)
    return turns


def pcm(samples: NDArray[np.float32], rate: int) -> bytes:
    """16 kHz samples as they go over the wire."""
    sound = np.clip(resample(samples, ENGINE_RATE, rate), -1, 1)
    return np.round(sound * 32767).astype("<i2").tobytes()


def figures_of(
    clips: Sequence[Clip], heard: Sequence[Sequence[Turn]], engine: Sequence[float], speed: float
) -> Figures:
    """Sum up; ``engine`` has the times to final of the same turns in the same order."""
    turns = [turn for of_clip in heard for turn in of_clip]
    assert len(engine) == len(turns), f"{len(turns)} turns, {len(engine)} finals of the engine"
    waited = [turn.waited_s for turn in turns]
    spoken = [turn for turn in turns if turn.transcript]
    errors = [
        word_errors(clip.text, " ".join(turn.transcript or "" for turn in of_clip))
        for clip, of_clip in zip(clips, heard, strict=True)
        if clip.text is not None
    ]
    return Figures(
        utterances=len(clips),
        turns=len(turns),
        equal_share=share(["".join(turn.deltas) == turn.transcript for turn in turns]),
        early_share=share([turn.early for turn in spoken]),
        word_error_rate=word_error_rate(errors),
        waited=spread(waited),
        engine=spread(engine),
        overhead=spread([w - e for w, e in zip(waited, engine, strict=True)]),
        speed=speed,
        machine=asdict(describe_machine()),
    )


def share(answers: Sequence[bool]) -> float:
    """Of those that say yes."""
    return sum(answers) / len(answers) if answers else 0.0


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """As a dictionary, for JSON."""
    found = distribution(values)
    return None if found is None else asdict(found)


def measure(clips: Sequence[Clip], speed: float = 1.0, rate: int = RATE) -> Figures:
    """Start a server, play the clips, sum up."""
    engine = EngineFigures()
    with measured_server(engine) as url:
        heard = asyncio.run(listen(url, clips, speed, rate))
    return figures_of(clips, heard, engine.times_to_final, speed)


def show(console: Console, figures: Figures) -> None:
    """Print the outcome as a table."""
    table = Table(title=f"{figures.turns} turns of {figures.utterances} utterances")
    for heading in ("", "p50", "p95", "p99", "greatest"):
        table.add_column(heading, justify="left" if not heading else "right")
    rows = {
        "completed at the client": figures.waited,
        "the engine's time to final": figures.engine,
        "difference": figures.overhead,
    }
    for name, values in rows.items():
        if values is not None:
            cells = [f"{values[key] * 1000:.1f} ms" for key in ("p50", "p95", "p99", "greatest")]
            table.add_row(name, *cells)
    console.print(table)
    console.print(f"completed equals its deltas: {figures.equal_share:.2%}")
    console.print(f"first delta during speech:   {figures.early_share:.2%}")
    if figures.word_error_rate is not None:
        console.print(f"word error rate:             {figures.word_error_rate:.2%}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; the status says whether the bounds hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--utterances", type=int, default=24)
    parser.add_argument("--data", type=Path, default=BUNDLED, help="folder or manifest of speech")
    parser.add_argument("--speed", type=float, default=1.0, help="times real time, 0 is unbounded")
    parser.add_argument("--rate", type=int, default=RATE, choices=(RATE, ENGINE_RATE))
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args(arguments)
    clips = list(itertools.islice(itertools.cycle(load_speech(options.data)), options.utterances))
    figures = measure(clips, options.speed, options.rate)
    show(Console(), figures)
    if options.json is not None:
        options.json.write_text(json.dumps(asdict(figures), indent=2) + "\n", encoding="utf-8")
    overhead = figures.overhead["p95"] if figures.overhead else 0.0
    return int(figures.equal_share < LEAST_AGREEMENT or overhead > MOST_OVERHEAD_S)


if __name__ == "__main__":
    sys.exit(main())
