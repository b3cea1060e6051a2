"""A server of the benchmark's own: ``tinyvoice serve`` in a process that ends with this one.

The server never outlives whoever measures: it reads a pipe that nobody writes to, and stops when
that is closed, in whatever way this process ends.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO

from tinyvoice.benchmark.remote_turns import RemoteError
from tinyvoice.errors import MissingExtraError

START_S = 180.0
"""How long loading and warming the model may take."""
STOP_S = 20.0

_LISTENS = "Ctrl-C"
"""In the last line of what `tinyvoice serve` says when it can be used."""


def check_extra() -> None:
    """Raise MissingExtraError unless a server can be started and measured."""
    try:
        import aiortc  # noqa: F401
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
        import websockets  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtraError("serve", "tinyvoice bench --serve") from None


@contextmanager
def served(options: Sequence[str]) -> Iterator[str]:
    """Start ``tinyvoice serve`` with these options on a free port; gives its Realtime address.

    Settings of a server in the environment do not hold for it.

    Raises:
        RemoteError: it does not start.
    """
    command = [sys.executable, "-m", __name__, "serve", "--port", "0", *options]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TINYVOICE_")}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            # Ctrl-C is for the measuring, which ends the server itself.
            process_group=0 if os.name == "posix" else None,
        )
        assert process.stdout is not None
        listening = _Listening(process.stdout)
        listening.start()
        try:
            yield _address(process, listening, log)
        finally:
            _stop(process)
            listening.join()
            process.stdout.close()


class _Listening(threading.Thread):
    """Reads what the server prints; ``ready`` is set when it listens, or has ended."""

    def __init__(self, output: IO[bytes]) -> None:
        super().__init__(name="output of the server", daemon=True)
        self._output = output
        self.address: str | None = None
        self.ready = threading.Event()

    def run(self) -> None:
        found = None
        for line in self._output:
            text = line.decode(errors="replace")
            found = found or next(iter(re.findall(r"wss?://\S+?/v1/realtime", text)), None)
            if _LISTENS in text:
                self.address = found
                self.ready.set()
        self.ready.set()


def _address(process: subprocess.Popen[bytes], listening: _Listening, log: IO[bytes]) -> str:
    in_time = listening.ready.wait(START_S)
    if listening.address is not None:
        return listening.address
    if not in_time:
        raise RemoteError(f"`tinyvoice serve` did not start within {START_S:g} s: try it by hand.")
    process.wait()
    log.seek(0)
    lines = log.read().decode(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "it said nothing")
    said = last.strip().removeprefix("error: ").rstrip(".")
    raise RemoteError(f"`tinyvoice serve` did not start: {said}.")


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.close()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_with_parent() -> None:
    """Stop as at SIGTERM when the pipe from the parent is closed."""
    # Not through `sys.stdin`: its lock would be held when the program ends by itself.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    from tinyvoice.cli.app import main

    threading.Thread(target=_end_with_parent, name="end with parent", daemon=True).start()
    main(sys.argv[1:])
