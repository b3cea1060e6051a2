"""`tinyvoice agent` as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = [
    sys.executable,
    "-c",
    # Also where the package is not installed, so that nothing announces the command.
    "import sys, tinyvoice.cli.app as p; from tinyvoice_agents.cli import app;"
    "p.app = app; p.main(sys.argv[1:])",
]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}

PATIENCE_S = 240
"""A process that has not begun, or not ended, so long after it should is ended; the test fails."""


def agent(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``tinyvoice agent`` to its end."""
    return subprocess.run(
        [*PROGRAM, *arguments],
        capture_output=True,
        text=True,
        env=ENVIRONMENT | environment,
        timeout=PATIENCE_S,
        check=False,
    )


class RunningAgent:
    """A process that has said that it listens."""

    def __init__(self, process: subprocess.Popen[str], announcement: str) -> None:
        self.process = process
        self.announcement = announcement

    @property
    def address(self) -> str:
        """Host and port."""
        found = re.search(r"//([\d.]+:\d+)/", self.announcement)
        assert found, self.announcement
        return found[1]

    def interrupt(self) -> tuple[int, str]:
        """Press Ctrl-C; exit code and what it said since it listens."""
        self.process.send_signal(signal.SIGINT)
        return self.finish()

    def finish(self) -> tuple[int, str]:
        """Wait for the end; exit code and what it said since it listens."""
        _, errors = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, errors


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[RunningAgent]:
    """Start ``tinyvoice agent`` with these arguments, and end it at the latest with the block."""
    process = subprocess.Popen(
        [*PROGRAM, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT | environment,
        # A shell's background jobs ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    watchdog = threading.Timer(PATIENCE_S, process.kill)
    watchdog.start()
    assert process.stderr is not None
    try:
        announcement = process.stderr.readline()
        while announcement and "Ctrl-C ends" not in announcement:
            announcement = process.stderr.readline()  # ALSA complains of what it does not find
        watchdog.cancel()
        yield RunningAgent(process, announcement)
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        process.stderr.close()
