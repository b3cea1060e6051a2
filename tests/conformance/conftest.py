"""A running server, a recording relay before it, and speech to feed, for the client programs."""

from __future__ import annotations

import wave
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conformance.checking import check
from tests.conformance.programs import run_program
from tests.conformance.recording import Recorder
from tests.conformance.serving import RunningServer, serving
from tinyvoice.audio.resample import resample
from tinyvoice.benchmark.speech import Clip, bundled_speech

RATE = 24_000
"""Of the protocol's pcm, in Hz."""
PAUSE_SECONDS = 1.2


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """The server as a user starts it: embedded model, echo, espeak."""
    with serving() as running:
        yield running


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
        check(connection, complete=True)


@pytest.fixture(scope="session")
def speech() -> dict[str, Clip]:
    """The bundled utterances by name."""
    return {Path(clip.name).stem: clip for clip in bundled_speech()}


@pytest.fixture(scope="session")
def recording(
    speech: dict[str, Clip], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Gives bundled utterances as a 24 kHz WAV file, what the protocol's clients send.

    Several are strung together with a pause between them.
    """
    folder = tmp_path_factory.mktemp("speech")

    def write(*names: str) -> Path:
        path = folder / f"{'-'.join(names)}.wav"
        if not path.exists():
            pause = np.zeros(round(PAUSE_SECONDS * 16_000), dtype=np.float32)
            pieces = [piece for name in names for piece in (speech[name].samples, pause)]
            write_wav(path, np.concatenate(pieces[:-1]))
        return path

    return write


def write_wav(path: Path, samples: NDArray[np.float32]) -> None:
    """Write 16 kHz samples as the protocol has them."""
    samples = resample(samples, 16_000, RATE)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
