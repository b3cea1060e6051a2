"""Every example of the guide to HTTP does what the guide says."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.server.conftest import RunningServer
from tinyvoice.audio import load_audio
from tinyvoice.benchmark.speech import BUNDLED, Clip

GUIDE = Path(__file__).parents[2] / "docs" / "http.md"
ADDRESS = "http://127.0.0.1:8000"


def blocks(language: str) -> list[str]:
    pattern = rf"^```{language}\n(.*?)^```"
    return re.findall(pattern, GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines()]
PROGRAMS = blocks("python")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clips: list[Clip]) -> Path:
    """The current folder of who follows the guide: there is a recording in it."""
    (tmp_path / "speech.flac").write_bytes((BUNDLED / clips[1].name).read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS, ids=range(len(COMMANDS)))
def test_curl(server: RunningServer, folder: Path, clips: list[Clip], command: str) -> None:
    words = shlex.split(command.replace(ADDRESS, server.url))

    done = subprocess.run(
        [words[0], "--silent", "--show-error", "--fail", *words[1:]],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    if "-o" in words:
        assert load_audio(folder / words[words.index("-o") + 1]).duration > 0.5
    else:
        assert str(clips[1].text).split()[0] in done.stdout


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_python(server: RunningServer, folder: Path, clips: list[Clip], program: str) -> None:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile(program.replace(ADDRESS, server.url), str(GUIDE), "exec"), {})

    said = str(clips[1].text) if "speech.flac" in program else "play some music in the kitchen"
    assert set(said.split()) <= set(shown.getvalue().split())
