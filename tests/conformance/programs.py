"""Runs a client program in its own environment and reads what it reports.

A client program is a file in ``clients/``: it is told on its command line where the server is, uses
one third-party client against it, and prints a line of JSON at the end. It cannot import anything
of tinyvoice or of the tests beside its own folder.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from tests.conformance.environments import environment

PROGRAMS = Path(__file__).with_name("clients")
LONGEST_SECONDS = 240.0
"""A client that takes longer hangs."""


class ProgramError(Exception):
    """A client program failed; the message has what it wrote."""


async def run_program(
    client: str, program: str, *arguments: object, seconds: float = LONGEST_SECONDS
) -> dict[str, Any]:
    """What the program reports.

    Args:
        client: whose environment to run it in, see :func:`environment`.
        program: name of a file in ``clients/``, without its suffix.
        arguments: of its command line.
        seconds: after which it is ended.

    Raises:
        ProgramError: it ended with an error, took too long, or did not report.
    """
    # Waiting for an installation must not hold up the recorder, which lives in the same loop.
    python = await asyncio.to_thread(environment, client)
    process = await asyncio.create_subprocess_exec(
        str(python),
        str(PROGRAMS / f"{program}.py"),
        *(str(argument) for argument in arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_environment_variables(),
    )
    try:
        async with asyncio.timeout(seconds):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        output, errors = await process.communicate()
        raise ProgramError(_story(program, arguments, "took too long", output, errors)) from None
    if process.returncode != 0:
        raise ProgramError(_story(program, arguments, "failed", output, errors))
    try:
        report = json.loads(output.decode().strip().splitlines()[-1])
    except (IndexError, ValueError):
        raise ProgramError(_story(program, arguments, "reported nothing", output, errors)) from None
    assert isinstance(report, dict), report
    return report


def _environment_variables() -> dict[str, str]:
    """Ours, less what would lead a client elsewhere or have it report to somebody."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "PYTHON"))}
    return kept | {"OPENAI_AGENTS_DISABLE_TRACING": "1", "NO_PROXY": "127.0.0.1"}


def _story(
    program: str, arguments: tuple[object, ...], what: str, output: bytes, errors: bytes
) -> str:
    words = " ".join(str(argument) for argument in arguments)
    said = f"{output.decode(errors='replace')}{errors.decode(errors='replace')}"
    return f"{program} {words} {what}:\n{said[-6000:]}"
