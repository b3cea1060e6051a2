"""What the client programs share: reading a recording, feeding it at a given speed, reporting.

Only the standard library, since every program runs in the environment of its own client.
"""

import argparse
import asyncio
import base64
import json
import sys
import time
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

CHUNK_MS = 40
SILENCE_SECONDS = 1.2
"""Enough for a turn to end by itself."""


def arguments(**more: Any) -> argparse.Namespace:
    """The command line every program has: scenario, where the server is, what to play."""
    parser = argparse.ArgumentParser()
    parser.add_argument("scenario")
    parser.add_argument("--http", help="base URL for requests, like http://127.0.0.1:8000")
    parser.add_argument("--relay", help="base URL for WebSockets")
    parser.add_argument("--speech", nargs="*", default=[], help="recordings, 24 kHz mono WAV")
    parser.add_argument("--speed", type=float, default=0.0, help="times real time, 0 is unbounded")
    parser.add_argument("--out", help="folder for what comes back")
    return parser.parse_args()


def read_pcm(path: str) -> bytes:
    """The samples of a recording as they go over the wire."""
    with wave.open(path, "rb") as file:
        assert file.getparams()[:3] == (1, 2, 24000), "24 kHz mono 16-bit recordings only"
        return file.readframes(file.getnframes())


def write_pcm(path: Path, pcm: bytes, rate: int = 24000) -> None:
    """Keep what the server said."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm)


def silence(seconds: float = SILENCE_SECONDS, rate: int = 24000) -> bytes:
    """Nothing at all, for so long."""
    return bytes(2 * round(seconds * rate))


async def chunks(pcm: bytes, speed: float, rate: int = 24000) -> AsyncIterator[bytes]:
    """The audio in pieces, each when a microphone ``speed`` times as fast would have it."""
    size = 2 * rate * CHUNK_MS // 1000
    begin = time.monotonic()
    for number, start in enumerate(range(0, len(pcm), size)):
        if speed > 0:
            due = begin + number * CHUNK_MS / 1000 / speed
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        yield pcm[start : start + size]


def base64_text(data: bytes) -> str:
    """Audio as events carry it."""
    return base64.b64encode(data).decode("ascii")


def run(scenarios: dict[str, Any]) -> None:
    """Carry out the scenario named on the command line and print what it reports."""
    options = arguments()
    report = asyncio.run(scenarios[options.scenario](options))
    sys.stdout.write("\n" + json.dumps(report) + "\n")
