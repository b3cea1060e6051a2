"""What a session costs beside its stream: the CPU time of each step from a packet to the engine.

    python -m tests.conformance.session_cost

One session's packets of 20 ms at 24 kHz go through the steps one by one, in one thread, and the
thread's CPU time is counted, so that other programs disturb little. Not counted, because it takes
the whole server: the event loop's system calls, and the waiting of the engine's worker for the
interpreter lock while the loop has it. ``tinyvoice bench --serve`` measures the whole.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State
from websockets.uri import parse_uri

from tinyvoice.audio.pcm import PCMStream
from tinyvoice.benchmark.machine import describe_machine
from tinyvoice.realtime.outputs import Feed
from tinyvoice.realtime.session import RealtimeSession

SECONDS = 20
"""Of audio; more than the caches hold, less than a session may leave uncommitted."""
PACKETS = 50
"""A second."""
REPETITIONS = 5
"""The least of them counts: the others were disturbed."""


@dataclass(frozen=True)
class Step:
    """One step; ``cost`` is CPU seconds per second of audio."""

    name: str
    cost: float


def cost_of(work: Callable[[], None]) -> float:
    """CPU seconds per second of audio of something that is done with all the audio."""
    least = float("inf")
    for _ in range(REPETITIONS):
        begin = time.thread_time()
        work()
        least = min(least, time.thread_time() - begin)
    return least / SECONDS


def measure() -> list[Step]:
    """The steps in the order in which a packet takes them."""
    chance = np.random.default_rng(0)
    sound = (chance.standard_normal((SECONDS * PACKETS, 480)) * 3_000).astype("<i2")
    packets = [packet.tobytes() for packet in sound]

    def encode() -> list[str]:
        return [
            json.dumps(
                {"type": "input_audio_buffer.append", "audio": base64.b64encode(packet).decode()}
            )
            for packet in packets
        ]

    texts = encode()
    frames = [Frame(Opcode.TEXT, text.encode()).serialize(mask=True) for text in texts]

    def frame() -> None:
        client = ClientProtocol(parse_uri("ws://localhost"), state=State.OPEN)
        for text in texts:
            client.send_text(text.encode())
            client.data_to_send()

    def unframe() -> None:
        server = Protocol(Side.SERVER, state=State.OPEN)
        for data in frames:
            server.receive_data(data)
            server.events_received()

    def understand() -> None:
        session = RealtimeSession("transcription", now=0)
        session.open()
        fed = 0
        for text in texts:
            session.receive_text(text)
            fed += sum(len(o.audio) for o in session.take() if isinstance(o, Feed))
        assert fed == sum(map(len, packets))

    def resample() -> None:
        stream = PCMStream(24_000)
        for packet in packets:
            stream.decode(packet)

    def convert() -> None:
        stream = PCMStream(16_000)
        for packet in packets:
            stream.decode(packet[:640])

    return [
        Step("client: base64 and JSON", cost_of(lambda: void(encode()))),
        Step("client: WebSocket frames, masked", cost_of(frame)),
        Step("server: WebSocket frames", cost_of(unframe)),
        Step("server: JSON, checks, base64", cost_of(understand)),
        Step("server: 24 kHz to 16 kHz", cost_of(resample)),
        Step("an engine alone, 16 kHz: bytes to samples", cost_of(convert)),
    ]


def void(_: object) -> None:
    """Nothing: what was made is not needed."""


def main() -> int:
    """The command."""
    table = Table(title="CPU time per second of audio of one session")
    table.add_column("step")
    table.add_column("ms", justify="right")
    for step in measure():
        table.add_row(step.name, f"{1000 * step.cost:.2f}")
    console = Console()
    console.print(table)
    console.print(str(describe_machine()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
