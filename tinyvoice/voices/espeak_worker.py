"""The program of the process in which eSpeak NG speaks for :mod:`tinyvoice.voices.espeak_process`.

It reads requests from its standard input, one JSON object a line, and answers each on its standard
output with a JSON line, behind which stand as many bytes of sound as the line says. Each text is
spoken in a fork of the process, so that every one begins in the same state, gives the same samples
whatever was said before, and takes nothing else with it should the library crash on it. A system
that cannot fork speaks in the process itself.

It ends with its input, that is, with the process that started it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any, BinaryIO

from tinyvoice.errors import TinyvoiceError
from tinyvoice.voices import espeak

LONGEST_S = 20
"""Seconds a text may take; the library speaks hundreds of times faster than real time."""
SEED = 1


def main() -> None:
    """Answer requests until the input ends."""
    # Ctrl-C in a terminal reaches all its processes: it is the parent's to decide what follows.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what the library prints is no answer
    try:
        _write(answers, {"sample_rate": espeak.initialise()})
    except TinyvoiceError as error:
        _write(answers, {"error": str(error), "fatal": True})
        return
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if hasattr(os, "fork"):
            _speak_in_fork(request, answers)
        else:
            _speak(request, answers)


def _speak_in_fork(request: dict[str, Any], answers: BinaryIO) -> None:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(LONGEST_S)
            _speak(request, answers)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if status != 0:
        _write(answers, {"error": "eSpeak NG failed on this text."})


def _speak(request: dict[str, Any], answers: BinaryIO) -> None:
    try:
        espeak.initialise(SEED)
        spoken = espeak.speak(
            request["text"], request["voice"], rate=request["rate"], pitch=request["pitch"]
        )
    except TinyvoiceError as error:
        _write(answers, {"error": str(error)})
        return
    heading = {
        "bytes": len(spoken.pcm16),
        "sample_rate": spoken.sample_rate,
        "words": spoken.words,
        "phonemes": spoken.phonemes,
    }
    _write(answers, heading, spoken.pcm16)


def _write(answers: BinaryIO, heading: dict[str, Any], sound: bytes = b"") -> None:
    answers.write(json.dumps(heading).encode() + b"\n" + sound)
    answers.flush()


if __name__ == "__main__":
    main()
