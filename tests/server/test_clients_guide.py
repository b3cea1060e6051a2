"""The programs of the guide for clients, run as they stand there, in processes of their own.

Those whose client is not installed beside the project are run by ``tests/conformance/``, in other
words; here it is only seen that they are programs.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import wave
from pathlib import Path

import pytest

from tests.server.conftest import RunningServer, pcm24k
from tinyvoice.benchmark.speech import Clip

GUIDE = Path(__file__).parents[2] / "docs" / "clients.md"
ADDRESS = "127.0.0.1:8000"


def programs(section: str, language: str) -> list[str]:
    """The code blocks of a section."""
    text = GUIDE.read_text(encoding="utf-8").partition(f"\n## {section}\n")[2].split("\n## ")[0]
    found = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found, section
    return found


@pytest.fixture
def folder(tmp_path: Path, clips: list[Clip]) -> Path:
    """The current folder of who follows the guide: there is a recording in it."""
    with wave.open(str(tmp_path / "speech.wav"), "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(24_000)
        recording.writeframes(pcm24k(clips[0]))
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

    assert shown[-1] == clips[0].text
    if section == "Python: openai":
        assert shown[-2] == clips[0].text  # the deltas


def test_a_conversation_in_writing(server: RunningServer, folder: Path) -> None:
    program = here(programs("Python: openai", "python")[1], server)

    assert len(run([sys.executable, "-c", program], folder).split()) > 1


def test_curl(server: RunningServer, folder: Path, clips: list[Clip]) -> None:
    command = shlex.split(here(programs("curl", "bash")[0], server))

    assert str(clips[0].text) in run([command[0], "--silent", "--fail", *command[1:]], folder)


def test_services_that_are_only_made(server: RunningServer, folder: Path) -> None:
    program = here(programs("Pipecat", "python")[1], server)

    run([sys.executable, "-c", program], folder)


@pytest.mark.parametrize(
    "section",
    [
        "JavaScript: openai",
        "JavaScript: OpenAI Agents SDK",
        "A browser without a library",
        "AI SDK",
    ],
)
def test_javascript_can_be_parsed(folder: Path, section: str) -> None:
    for number, program in enumerate(programs(section, "javascript")):
        script = folder / f"program{number}.mjs"
        script.write_text(program, encoding="utf-8")
        run(["node", "--check", str(script)], folder)
