"""``tinyvoice serve`` in a process of its own, as a user starts it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

START_SECONDS = 120.0
STOP_SECONDS = 120.0


@dataclass
class RunningServer:
    """A server that listens."""

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


@contextmanager
def serving(*flags: str) -> Iterator[RunningServer]:
    """A server with the embedded model, echo and espeak, on a free port, with these flags.

    When all is over it is told to stop; it must end without an error, and must not have logged one.
    """
    command = [sys.executable, "-m", "tinyvoice", "serve", "--port", "0", "--device", "cpu"]
    command += ["--refuse-partial-gap-s", "3600", *flags]  # however slow the machine is
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
