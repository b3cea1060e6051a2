"""The programs of the guide for clients, run as they stand there, in processes of their own.

Those whose client is not installed beside the project are run by ``test_guides.py`` in
``tests/conformance/`` and ``tests/conformance/javascript/``; that none is forgotten is seen here.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import wave
from pathlib import Path

import pytest

from tests.conformance.guides import ADDRESS, blocks
from tests.server.conftest import RunningServer, pcm24k
from tinyvoice.benchmark.speech import Clip


def programs(section: str, language: str) -> list[str]:
    """The code blocks of a section; those before the first are of none."""
    texts = [b.text for b in blocks("clients.md") if (b.section, b.language) == (section, language)]
    assert texts, section
    return texts


@pytest.fixture
def folder(tmp_path: Path, clips: list[Clip]) -> Path:
    """The current folder of who follows the guide: there is a recording in it."""
    with wave.open(str(tmp_path / "speech.wav"), "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(24_000)
        recording.writeframes(pcm24k(clips[1]))
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def here(program: str, server: RunningServer) -> str:
    """The program, pointed at the server of the tests."""
    assert ADDRESS in program
    return program.replace(ADDRESS, server.url.removeprefix("http://"))


@pytest.mark.parametrize("section", ["Python: openai", "Python: any WebSocket library", "Pipecat"])
def test_programs_that_hear(
    server: RunningServer, folder: Path, clips: list[Clip], section: str
) -> None:
    program = here(programs(section, "python")[0], server)

    shown = run([sys.executable, "-c", program], folder).splitlines()

    assert shown[-1] == clips[1].text
    if section == "Python: openai":
        # The deltas. They are stable text, which is right in 99 of 100 utterances: this is one of
        # those, in whatever pieces it is heard.
        assert shown[-2] == clips[1].text


def test_a_conversation_in_writing(server: RunningServer, folder: Path) -> None:
    program = here(programs("Python: openai", "python")[1], server)

    assert len(run([sys.executable, "-c", program], folder).split()) > 1


def test_curl(server: RunningServer, folder: Path, clips: list[Clip]) -> None:
    command = shlex.split(here(programs("curl", "bash")[0], server))

    assert str(clips[1].text) in run([command[0], "--silent", "--fail", *command[1:]], folder)


def test_services_that_are_only_made(server: RunningServer, folder: Path) -> None:
    program = here(programs("Pipecat", "python")[1], server)

    run([sys.executable, "-c", program], folder)


def test_clients_that_are_pointed_by_their_environment(server: RunningServer, folder: Path) -> None:
    exports = here(programs("", "bash")[1], server)
    program = "from openai import OpenAI; print(*[model.id for model in OpenAI().models.list()])"

    assert run(["bash", "-c", f'{exports}\n"{sys.executable}" -c "{program}"'], folder).strip()


HERE = {
    ("clients.md", "curl", "bash", 0),
    ("clients.md", "", "bash", 1),
    ("clients.md", "Python: openai", "python", 0),
    ("clients.md", "Python: openai", "python", 1),
    ("clients.md", "Python: any WebSocket library", "python", 0),
    ("clients.md", "Pipecat", "python", 0),
    ("clients.md", "Pipecat", "python", 1),
    ("webrtc.md", "From Python", "python", 0),  # by test_calls.py
}
"""Run by tests/server."""

IN_THEIR_ENVIRONMENT = {
    ("clients.md", "Python: OpenAI Agents SDK", "python", 0),
    ("clients.md", "LiveKit Agents", "python", 0),
    ("clients.md", "LiveKit Agents", "python", 1),
    ("clients.md", "JavaScript: openai", "javascript", 0),
    ("clients.md", "JavaScript: OpenAI Agents SDK", "javascript", 0),
    ("clients.md", "A browser without a library", "javascript", 0),
    ("clients.md", "AI SDK", "javascript", 0),
    ("webrtc.md", "From a browser", "html", 0),
    ("webrtc.md", "From a browser", "javascript", 0),
}
"""Run by the two files ``test_guides.py`` of tests/conformance."""

NOT_RUN = {
    # The start of the server, which all the others need: tests/conformance/serving.py starts it so.
    ("clients.md", "", "bash", 0),
    ("webrtc.md", "", "bash", 0),
}


def test_no_program_of_the_guides_is_left_out() -> None:
    found = [block.name for guide in ("clients.md", "webrtc.md") for block in blocks(guide)]

    assert len(found) == len(set(found))
    assert set(found) == HERE | IN_THEIR_ENVIRONMENT | NOT_RUN
