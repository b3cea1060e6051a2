"""Text of a model in which tags enclose what is not to be said: thoughts and function calls.

The text comes in pieces that end anywhere, within a tag too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TaggedPiece:
    """A piece of text, or the end of an enclosed one."""

    tag: str
    """The tag around it; "" for none."""
    text: str
    closed: bool = False
    """The enclosed text ends with this piece, which may be empty."""


class TagSplitter:
    """Splits text at ``<tag>`` and ``</tag>``; tags do not nest.

    Args:
        tags: names to look for; everything else is text.
    """

    def __init__(self, tags: Sequence[str]) -> None:
        self._tags = tuple(tags)
        self._inside = ""
        self._held = ""

    def feed(self, text: str) -> Iterator[TaggedPiece]:
        """Take more text; give what is certain. What may be the beginning of a tag waits."""
        text = self._held + text
        while True:
            marks = [f"</{self._inside}>"] if self._inside else [f"<{tag}>" for tag in self._tags]
            found = [(at, mark) for mark in marks if (at := text.find(mark)) >= 0]
            if not found:
                break
            at, mark = min(found)
            if self._inside:
                yield TaggedPiece(self._inside, text[:at], closed=True)
                self._inside = ""
            else:
                if at:
                    yield TaggedPiece("", text[:at])
                self._inside = mark[1:-1]
            text = text[at + len(mark) :]
        keep = max(_overlap(text, mark) for mark in marks)
        self._held = text[len(text) - keep :]
        if len(text) > keep:
            yield TaggedPiece(self._inside, text[: len(text) - keep])

    def flush(self) -> Iterator[TaggedPiece]:
        """Give what is left; an enclosed text that was not ended is not closed."""
        if self._held:
            yield TaggedPiece(self._inside, self._held)
        self._held = ""


def _overlap(text: str, mark: str) -> int:
    """Length of the longest end of ``text`` that is a beginning of ``mark``."""
    for length in range(min(len(text), len(mark) - 1), 0, -1):
        if text.endswith(mark[:length]):
            return length
    return 0
