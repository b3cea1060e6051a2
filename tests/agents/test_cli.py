"""`tinyvoice agent`: what it says where it cannot run, and that it listens."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = [
    sys.executable,
    "-c",
    "import sys, tinyvoice.cli.app as p; from agents.cli import app;"
    "p.app = app; p.main(sys.argv[1:])",
]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


def agent(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=100,
        check=False,
    )


def test_the_command_is_announced_and_explains_itself() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["tinyvoice.commands"]["agent"] == "agents.cli:app"
    result = agent("--help")
    assert result.returncode == 0
    assert "parrot, dictation, receptionist or assistant" in result.stdout


def test_a_port_that_is_taken_is_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = agent("parrot", "--transport", "webrtc", "--port", port)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: Port {port} is taken by another program")


def test_without_its_microphone_it_says_what_to_do() -> None:
    result = agent("parrot", "--device", "no such microphone")
    assert result.returncode == 1
    assert result.stderr.count("error:") == 1
    assert "microphone" in result.stderr
    assert "Traceback" not in result.stderr


def test_it_listens_and_ends_with_ctrl_c() -> None:
    process = subprocess.Popen(
        [*PROGRAM, "dictation", "--transport", "webrtc", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        found = re.search(r"http://[\d.:]+/", line)
        assert found, line
        with urllib.request.urlopen(found[0], timeout=20) as page:
            assert b"Talk to the agent" in page.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
