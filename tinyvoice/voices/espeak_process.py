"""eSpeak NG in a process of its own: the caller's threads stay free, its state stays out of reach.

The library has global state and room for one thread; here it does not matter to anyone else, and
a text gives the same samples whenever and beside whatever it is spoken (``espeak_worker.py``).
The methods block: call them from a thread.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import tinyvoice
from tinyvoice.errors import ConfigurationError, MissingExtraError, TinyvoiceError
from tinyvoice.voices.espeak import Synthesis

_WORKER = "tinyvoice.voices.espeak_worker"


class EspeakError(TinyvoiceError):
    """A text could not be spoken."""


class EspeakProcess:
    """One process; one text at a time, from one thread at a time.

    Raises:
        MissingExtraError: the package espeakng-loader is not installed.
        ConfigurationError: the library cannot be started.
    """

    def __init__(self) -> None:
        if not _installed("espeakng_loader"):
            raise MissingExtraError("serve", "speaking with eSpeak NG")
        package = str(Path(tinyvoice.__file__).parents[1])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._ended = False
        self._requests = cast(BinaryIO, self._process.stdin)
        self._answers = cast(BinaryIO, self._process.stdout)
        try:
            self.sample_rate = int(self._heading()["sample_rate"])
        except EspeakError as error:
            self.close()
            raise ConfigurationError(f"eSpeak NG cannot be started: {error}") from error

    def speak(self, text: str, voice: str, *, rate: float = 1.0, pitch: float = 1.0) -> Synthesis:
        """Speak ``text``; ``rate`` and ``pitch`` are factors of the voice's own.

        Raises:
            EspeakError: there is no such voice, or the library failed; where the process has ended
                (:attr:`alive` is false), a new one is needed.
        """
        request = {"text": text, "voice": voice, "rate": rate, "pitch": pitch}
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()
            heading = self._heading()
            pcm16 = self._answers.read(heading["bytes"])
        except OSError as error:
            self._ended = True
            raise EspeakError(f"eSpeak NG's process has ended ({error}).") from error
        if len(pcm16) < heading["bytes"]:
            self._ended = True
            raise EspeakError("eSpeak NG's process ended in the middle of a text.")
        return Synthesis(
            pcm16,
            heading["sample_rate"],
            [(position, sample) for position, sample in heading["words"]],
            [(mnemonic, sample) for mnemonic, sample in heading["phonemes"]],
        )

    @property
    def alive(self) -> bool:
        """Whether the process runs and answers."""
        # Its pipes close a moment before the system says that it has ended.
        return not self._ended and self._process.poll() is None

    def close(self) -> None:
        """End the process; safe to call again, and from another thread than `speak`'s."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._requests, self._answers):
            with suppress(OSError):  # what was not written is of no use any more
                pipe.close()

    def _heading(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line.endswith(b"\n"):
            self._ended = True
            raise EspeakError("eSpeak NG's process has ended.")
        heading: dict[str, Any] = json.loads(line)
        if "error" in heading:
            raise EspeakError(heading["error"])
        return heading


def _installed(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None
