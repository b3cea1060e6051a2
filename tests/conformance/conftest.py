"""A running server, a recording relay before it, and speech to feed, for the client programs."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import wave
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conformance.checking import check
from tests.conformance.programs import run_program
from tests.conformance.recording import Recorder
from tinyvoice.audio.resample import resample
from tinyvoice.benchmark.speech import Clip, bundled_speech

RATE = 24_000
"""Of the protocol's pcm, in Hz."""
START_SECONDS = 120.0
STOP_SECONDS = 30.0


@dataclass
class RunningServer:
    """``tinyvoice serve`` in a process of its own."""

    process: subprocess.Popen[str]
    url: str = ""
    """Like ``http://127.0.0.1:8000``, once it listens."""
    lines: list[str] = field(default_factory=list)
    """What it wrote."""
    listens: threading.Event = field(default_factory=threading.Event)

    def read(self) -> None:
        """Follow what it writes until it ends; the first address in it is its own."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            address = re.search(r"https?://127\.0\.0\.1:\d+", line)
            if address and not self.url:
                self.url = address[0]
                self.listens.set()
        self.listens.set()


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """The server as a user starts it: embedded model, echo, espeak.

    When all is over it is told to stop; it must end without an error, and must not have logged one.
    """
    command = [sys.executable, "-m", "tinyvoice", "serve", "--port", "0", "--device", "cpu"]
    running = RunningServer(
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    )
    reader = threading.Thread(target=running.read, daemon=True)
    reader.start()
    try:
        assert running.listens.wait(START_SECONDS), "".join(running.lines)
        assert running.url, "".join(running.lines)
        yield running
    finally:
        running.process.send_signal(signal.SIGTERM)
        try:
            running.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            running.process.kill()
        reader.join(STOP_SECONDS)
    said = "".join(running.lines)
    assert "Traceback" not in said, said
    assert running.process.returncode in (0, -signal.SIGTERM), said


@dataclass(frozen=True)
class Clients:
    """Runs client programs against the server, through the relay."""

    server: RunningServer
    recorder: Recorder
    folder: Path

    async def run(
        self, client: str, program: str, scenario: str, *speech: Path, speed: float = 0.0
    ) -> dict[str, Any]:
        """What the program reports of a scenario; see `run_program`."""
        where = ["--http", self.server.url, "--relay", self.recorder.url, "--out", self.folder]
        played = ["--speech", *speech] if speech else []
        return await run_program(client, program, scenario, *where, "--speed", speed, *played)


@pytest.fixture
async def clients(server: RunningServer, tmp_path: Path) -> AsyncIterator[Clients]:
    """The way to run clients; everything recorded by the end of the test is checked."""
    async with Recorder(server.url) as recorder:
        yield Clients(server, recorder, tmp_path)
    for connection in recorder.connections:
        check(connection)


@pytest.fixture(scope="session")
def speech() -> dict[str, Clip]:
    """The bundled utterances by name."""
    return {Path(clip.name).stem: clip for clip in bundled_speech()}


@pytest.fixture(scope="session")
def recording(
    speech: dict[str, Clip], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Gives a bundled utterance as a 24 kHz WAV file, what the protocol's clients send."""
    folder = tmp_path_factory.mktemp("speech")

    def write(name: str) -> Path:
        path = folder / f"{name}.wav"
        if not path.exists():
            samples = resample(speech[name].samples, 16_000, RATE)
            with wave.open(str(path), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(RATE)
                file.writeframes(np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
        return path

    return write
