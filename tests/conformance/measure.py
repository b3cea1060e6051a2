"""What a client of the server waits for, over many utterances, next to what the engine took.

    python -m tests.conformance.measure --utterances 24 --json FILE
    python -m tests.conformance.measure --data clinc-unseen --data-dir DATA --utterances 500 \
        --speed 0

Plays utterances one after the other, at speaking pace, into a transcription session of a server in
this process, and reports

- the share of turns whose transcript is the concatenation of its deltas (at least 99 %),
- the share of turns with a first delta before the speech was over,
- the time to ``completed`` at the client, against the engine's own time to final of the same
  utterances (at most 20 ms more), counted in two ways,
- the word error rate, so that nobody measures how fast nonsense comes.

A client counts from the packet with the audio in which the end of speech was decided
(``audio_end_ms``). The engine counts from the packet with which it knew that audio, and that is a
later one where a resampler keeps samples back. Both counts are shown; the bound is on the client's.

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
from bisect import bisect_left
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

from tinyvoice.audio.pcm import PCMStream
from tinyvoice.audio.resample import resample
from tinyvoice.benchmark.machine import describe_machine
from tinyvoice.benchmark.speech import BUNDLED, Clip, load_speech, make_clip
from tinyvoice.engine import EngineSettings, StreamingEngine
from tinyvoice.metrics import distribution, word_error_rate, word_errors
from tinyvoice.server.app import build_app
from tinyvoice.server.listener import Server, listener_config
from tinyvoice.server.settings import ServerSettings
from training.evaluation.test_sets import BUILT_IN, Request, load_test_set

RATE = 24_000
"""The protocol's; 16 kHz is what the engine hears, and is accepted as an extension."""
ENGINE_RATE = 16_000
PACKET_MS = 20
PAUSE_S = 1.0
"""Silence behind an utterance: longer than the turn detection waits."""
START_S = 120.0
PATIENCE_S = 120.0
SESSION_UTTERANCES = 24
"""A client that sends far more than is heard yet leaves the server's pings unanswered too long."""
AUDIBLE = 0.05
"""Of an utterance's greatest sample: where what is quieter follows, speech is over."""
SHORTFALL_MS = 500
"""So much before its last audible sample may the end of an utterance be found."""
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
    """From the packet with the audio in which the end of speech was decided to ``completed``."""
    waited_since_known_s: float = 0.0
    """From the packet with which the engine knew that audio to ``completed``."""


@dataclass
class Figures:
    """The outcome; times in seconds."""

    utterances: int
    turns: int
    equal_share: float
    """Of turns: the deltas together are the transcript."""
    equal_interval: tuple[float, float]
    """Where that share lies in 95 of 100 such runs."""
    early_share: float
    """Of turns with words: the first delta came before the speech was over."""
    early_interval: tuple[float, float]
    deltas_per_turn: float
    """Of turns with words."""
    word_error_rate: float | None
    waited: dict[str, float] | None
    """``completed`` at the client, which counts from the audio."""
    waited_since_known: dict[str, float] | None
    """The same, from the packet with which the engine knew the audio."""
    engine: dict[str, float] | None
    """The engine's own time to final."""
    overhead: dict[str, float] | None
    """The difference, turn by turn, of what the client counts."""
    overhead_since_known: dict[str, float] | None
    """The same, from the packet with which the engine knew the audio."""
    speed: float
    data: str
    machine: dict[str, Any]


@contextmanager
def measured_server(figures: EngineFigures) -> Iterator[str]:
    """A server in a thread, whose engine tells ``figures``; gives its address."""
    found: list[tuple[str, asyncio.AbstractEventLoop, Server]] = []
    ready = threading.Event()

    async def serve() -> None:
        # One session at a time: how late its partials are refuses nobody.
        settings = ServerSettings(port=0, device="cpu", refuse_partial_gap_s=3_600)
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
        self.known = KnownAudio(rate)
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
            last = len(self.sent) - 1
            turn.waited_s = now - self.sent[min(packet_with(turn.audio_end_ms), last)]
            known = self.known.since(turn.audio_end_ms)
            turn.waited_since_known_s = now - self.sent[min(known, last)]

    async def settled(self, until_ms: int) -> None:
        """Wait until every turn is over, and one that ends after this time has been among them."""

        def over() -> bool:
            turns = list(self.turns.values())
            told = all(turn.transcript is not None for turn in turns)
            return told and bool(turns) and turns[-1].audio_end_ms >= until_ms

        async with asyncio.timeout(PATIENCE_S), self.news:
            await self.news.wait_for(over)


def packet_with(audio_ms: int) -> int:
    """The number of the packet that brings the sound up to this time."""
    return math.ceil(audio_ms / PACKET_MS) - 1


class KnownAudio:
    """With which packet the engine knows how much: packets go through a decoder like its own."""

    def __init__(self, rate: int) -> None:
        self._decoder = PCMStream(rate)
        self._packet = bytes(2 * rate * PACKET_MS // 1000)
        self._samples: list[int] = []
        """At 16 kHz, after each packet."""

    def since(self, audio_ms: int) -> int:
        """The number of the first packet with which the sound up to this time is known."""
        wanted = audio_ms * ENGINE_RATE // 1000
        while not self._samples or self._samples[-1] < wanted:
            before = self._samples[-1] if self._samples else 0
            self._samples.append(before + len(self._decoder.decode(self._packet)))
        return bisect_left(self._samples, wanted)


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
        await listener.settled(round(begins_ms[-2]) + audible_ms(clips[-1]) - SHORTFALL_MS)
        await connection.close()
        await reading
    turns: list[list[Turn]] = [[] for _ in clips]
    for turn in listener.turns.values():
        middle = (turn.audio_start_ms + turn.audio_end_ms) / 2
        turns[int(np.searchsorted(begins_ms[1:-1], middle))].append(turn)
    return turns


def audible_ms(clip: Clip) -> int:
    """How long it is up to its last audible sample."""
    loud = np.abs(clip.samples) > AUDIBLE * float(np.abs(clip.samples).max(initial=0.0))
    return round(1000 * (int(np.flatnonzero(loud)[-1]) + 1) / ENGINE_RATE)


def pcm(samples: NDArray[np.float32], rate: int) -> bytes:
    """16 kHz samples as they go over the wire."""
    sound = np.clip(resample(samples, ENGINE_RATE, rate), -1, 1)
    return np.round(sound * 32767).astype("<i2").tobytes()


def figures_of(
    clips: Sequence[Clip],
    heard: Sequence[Sequence[Turn]],
    engine: Sequence[float],
    speed: float,
    data: str = "",
) -> Figures:
    """Sum up; ``engine`` has the times to final of the same turns in the same order."""
    turns = [turn for of_clip in heard for turn in of_clip]
    assert len(engine) == len(turns), f"{len(turns)} turns, {len(engine)} finals of the engine"
    waited = [turn.waited_s for turn in turns]
    since_known = [turn.waited_since_known_s for turn in turns]
    spoken = [turn for turn in turns if turn.transcript]
    errors = [
        word_errors(clip.text, " ".join(turn.transcript or "" for turn in of_clip))
        for clip, of_clip in zip(clips, heard, strict=True)
        if clip.text is not None
    ]
    equal = ["".join(turn.deltas) == turn.transcript for turn in turns]
    early = [turn.early for turn in spoken]
    return Figures(
        utterances=len(clips),
        turns=len(turns),
        equal_share=share(equal),
        equal_interval=share_interval(equal),
        early_share=share(early),
        early_interval=share_interval(early),
        deltas_per_turn=sum(len(turn.deltas) for turn in spoken) / max(1, len(spoken)),
        word_error_rate=word_error_rate(errors),
        waited=spread(waited),
        waited_since_known=spread(since_known),
        engine=spread(engine),
        overhead=spread([w - e for w, e in zip(waited, engine, strict=True)]),
        overhead_since_known=spread([w - e for w, e in zip(since_known, engine, strict=True)]),
        speed=speed,
        data=data,
        machine=asdict(describe_machine()),
    )


def share(answers: Sequence[bool]) -> float:
    """Of those that say yes."""
    return sum(answers) / len(answers) if answers else 0.0


def share_interval(answers: Sequence[bool]) -> tuple[float, float]:
    """Its 95 % interval, by Wilson's score, which holds near 0 and 1 too."""
    count = len(answers)
    if not count:
        return 0.0, 1.0
    z = 1.96
    centre = share(answers) + z * z / (2 * count)
    width = z * math.sqrt(share(answers) * (1 - share(answers)) / count + (z / (2 * count)) ** 2)
    scale = 1 + z * z / count
    return max(0.0, (centre - width) / scale), min(1.0, (centre + width) / scale)


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """As a dictionary, for JSON."""
    found = distribution(values)
    return None if found is None else asdict(found)


def measure(clips: Sequence[Clip], speed: float = 1.0, rate: int = RATE, data: str = "") -> Figures:
    """Start a server, play the clips, sum up."""
    engine = EngineFigures()
    heard = []
    with measured_server(engine) as url:
        for start in range(0, len(clips), SESSION_UTTERANCES):
            session = clips[start : start + SESSION_UTTERANCES]
            heard += asyncio.run(listen(url, session, speed, rate))
    return figures_of(clips, heard, engine.times_to_final, speed, data)


def utterances(data: str, folder: Path | None, count: int, skip: int = 0) -> list[Clip]:
    """So many utterances of a folder, a manifest, or a test set of ``tinyvoice eval``.

    The first ``skip`` are left out. Where a folder or a manifest has fewer, they are played again.
    """
    if data in BUILT_IN:
        request = Request(folder, count=skip + count)
        examples = load_test_set(data, request).examples[skip:]
        return [make_clip(one.name, one.source.load()[0], one.text) for one in examples]
    return list(itertools.islice(itertools.cycle(load_speech(Path(data))), skip, skip + count))


def show(console: Console, figures: Figures) -> None:
    """Print the outcome as a table."""
    table = Table(title=f"{figures.turns} turns of {figures.utterances} utterances")
    for heading in ("", "p50", "p95", "p99", "greatest"):
        table.add_column(heading, justify="left" if not heading else "right")
    rows = {
        "completed at the client, from the audio": figures.waited,
        "the same, from when the engine knew it": figures.waited_since_known,
        "the engine's time to final": figures.engine,
        "difference, from the audio": figures.overhead,
        "difference, from when the engine knew it": figures.overhead_since_known,
    }
    for name, values in rows.items():
        if values is not None:
            cells = [f"{values[key] * 1000:.1f} ms" for key in ("p50", "p95", "p99", "greatest")]
            table.add_row(name, *cells)
    console.print(table)
    for name, value, (low, high) in (
        ("completed equals its deltas: ", figures.equal_share, figures.equal_interval),
        ("first delta during speech:   ", figures.early_share, figures.early_interval),
    ):
        console.print(f"{name}{value:.2%} (95 %: {low:.2%} to {high:.2%})")
    console.print(f"deltas per turn with words:  {figures.deltas_per_turn:.2f}")
    if figures.word_error_rate is not None:
        console.print(f"word error rate:             {figures.word_error_rate:.2%}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; the status says whether the bounds hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--utterances", type=int, default=24)
    parser.add_argument(
        "--data", default=str(BUNDLED), help="folder, manifest, or a test set of tinyvoice eval"
    )
    parser.add_argument("--skip", type=int, default=0, help="leave out so many of them")
    parser.add_argument("--data-dir", type=Path, help="where the data of test sets is")
    parser.add_argument("--speed", type=float, default=1.0, help="times real time, 0 is unbounded")
    parser.add_argument("--rate", type=int, default=RATE, choices=(RATE, ENGINE_RATE))
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args(arguments)
    clips = utterances(options.data, options.data_dir, options.utterances, options.skip)
    figures = measure(clips, options.speed, options.rate, Path(options.data).name)
    show(Console(), figures)
    if options.json is not None:
        options.json.write_text(json.dumps(asdict(figures), indent=2) + "\n", encoding="utf-8")
    # Where packets come faster than they can be heard, they wait for those before them.
    overhead = figures.overhead["p95"] if figures.overhead and options.speed else 0.0
    return int(figures.equal_share < LEAST_AGREEMENT or overhead > MOST_OVERHEAD_S)


if __name__ == "__main__":
    sys.exit(main())
