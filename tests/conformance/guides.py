"""The code blocks of a guide, and how a reader would run them: pasted as they stand.

The address of the server is the one thing that is replaced, since tests have a port of their own.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
ADDRESS = "127.0.0.1:8000"
LONGEST_SECONDS = 120.0
"""A program that takes longer hangs."""

_HEADING = re.compile(r"^#{2,} (.*)$", re.MULTILINE)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


class GuideError(Exception):
    """A program of a guide failed; the message has what it wrote."""


@dataclass(frozen=True)
class Block:
    """A code block of a guide."""

    guide: str
    """Name of the file in ``docs/``."""
    section: str
    """The heading above it."""
    language: str
    number: int
    """Its place among the blocks of this language in its section, from 0."""
    text: str

    @property
    def name(self) -> tuple[str, str, str, int]:
        """What tells it from all the others."""
        return self.guide, self.section, self.language, self.number

    def pointed_at(self, url: str) -> str:
        """The program for a server at ``http://HOST:PORT`` or ``https://HOST:PORT``."""
        assert ADDRESS in self.text, f"{self.name} names no address"
        return self.text.replace(ADDRESS, url.partition("://")[2])


def blocks(guide: str) -> list[Block]:
    """Every code block of a guide, in order."""
    text = (DOCS / guide).read_text(encoding="utf-8")
    headings = [(match.start(), match[1]) for match in _HEADING.finditer(text)]
    found: list[Block] = []
    for match in _BLOCK.finditer(text):
        section = next((name for at, name in reversed(headings) if at < match.start()), "")
        same = [b for b in found if (b.section, b.language) == (section, match[1])]
        found.append(Block(guide, section, match[1], len(same), match[2]))
    return found


def block(guide: str, section: str, language: str, number: int = 0) -> Block:
    """One of them."""
    name = (guide, section, language, number)
    (found,) = (block for block in blocks(guide) if block.name == name)
    return found


async def run(command: list[str], folder: Path, environment: Mapping[str, str]) -> str:
    """What a command writes, run in this folder as its user would.

    Raises:
        GuideError: it ended with an error or took too long.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "PYTHON"))}
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**kept, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        output, errors = await process.communicate()
        raise GuideError(f"took too long:\n{output.decode()}{errors.decode()}") from None
    if process.returncode != 0:
        raise GuideError(f"failed:\n{output.decode()}{errors.decode()}")
    sys.stderr.write(errors.decode())
    return output.decode()
