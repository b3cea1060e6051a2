"""Servers, recordings and a browser for the JavaScript clients."""

from __future__ import annotations

import shutil
import wave
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conformance.checking import check
from tests.conformance.recording import Recorder
from tests.conformance.serving import RunningServer, serving
from tinyvoice.audio.resample import resample
from tinyvoice.benchmark.speech import Clip

API_KEY = "sk-conformance"
Recording = Callable[..., Path]
_SPEECH_RATE = 16_000


@pytest.fixture(scope="session")
def secured() -> Iterator[RunningServer]:
    """A server with TLS that wants a key."""
    with serving("--tls-self-signed", "--api-key", API_KEY) as running:
        yield running


@pytest.fixture
async def recorder(server: RunningServer) -> AsyncIterator[Recorder]:
    """A relay to the plain server; everything recorded by the end of the test is checked."""
    async with Recorder(server.url) as relay:
        yield relay
    assert relay.connections, "the client did not go through the relay"
    for connection in relay.connections:
        check(connection)


@pytest.fixture(scope="session")
def played(speech: dict[str, Clip], tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Writes a bundled utterance to a file, between silences.

    Takes its name, seconds of silence ``before`` and ``after``, and the ``rate``; 24 kHz is a file
    of raw samples, as the protocol has them, and any other rate a WAV file.
    """
    folder = tmp_path_factory.mktemp("played")

    def write(name: str, before: float = 0.3, after: float = 0.3, rate: int = 24_000) -> Path:
        samples = resample(speech[name].samples, _SPEECH_RATE, rate)
        pcm = np.round(np.clip(samples, -1, 1) * 32_767).astype("<i2")
        silences = round(before * rate), round(after * rate)
        path = folder / f"{name}-{before}-{after}-{rate}.{'pcm' if rate == 24_000 else 'wav'}"
        content = np.pad(pcm, silences).tobytes()
        if rate == 24_000:
            path.write_bytes(content)
            return path
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes(content)
        return path

    return write


@pytest.fixture(scope="session")
def browser() -> str:
    """The program of a Chromium."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    assert found, "no Chromium: on Debian run sudo apt-get install chromium"
    return found
