"""The Python programs of the guide for clients, run as they stand there, beside their client only.

Those in JavaScript are run by ``javascript/test_guides.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.checking import same_words
from tests.conformance.conftest import write_wav
from tests.conformance.environments import environment
from tests.conformance.guides import block, run
from tests.conformance.serving import RunningServer
from tinyvoice.benchmark.speech import Clip

GUIDE = "clients.md"
NAME = "12"
QUIET = {"OPENAI_AGENTS_DISABLE_TRACING": "1", "NO_PROXY": "127.0.0.1"}
"""Nothing is reported to anybody."""

Speech = dict[str, Clip]


@pytest.fixture
def folder(tmp_path: Path, speech: Speech) -> Path:
    """The current folder of who follows a guide: there is a recording in it."""
    write_wav(tmp_path / "speech.wav", speech[NAME].samples)
    return tmp_path


async def run_python(
    client: str, section: str, number: int, folder: Path, server: RunningServer
) -> str:
    program = block(GUIDE, section, "python", number).pointed_at(server.url)
    return await run([str(environment(client)), "-c", program], folder, QUIET)


@pytest.mark.parametrize(
    ("client", "section", "number"),
    [
        ("openai", "Python: openai", 0),
        ("openai", "Python: any WebSocket library", 0),
        ("pipecat", "Pipecat", 0),
        ("livekit", "LiveKit Agents", 1),
    ],
)
async def test_python_that_hears(
    server: RunningServer, folder: Path, speech: Speech, client: str, section: str, number: int
) -> None:
    said = await run_python(client, section, number, folder, server)
    assert same_words(speech[NAME].text or "", said.splitlines()[-1])


@pytest.mark.parametrize(
    ("client", "section", "number"), [("pipecat", "Pipecat", 1), ("livekit", "LiveKit Agents", 0)]
)
async def test_python_that_makes_services(
    server: RunningServer, folder: Path, client: str, section: str, number: int
) -> None:
    await run_python(client, section, number, folder, server)


async def test_python_that_converses(server: RunningServer, folder: Path) -> None:
    written = await run_python("openai", "Python: openai", 1, folder, server)
    assert written.strip() == "You said: Hello there, how are you?"
    spoken = await run_python("openai_agents", "Python: OpenAI Agents SDK", 0, folder, server)
    assert float(spoken.removeprefix("an answer of ").split()[0]) > 0.5
