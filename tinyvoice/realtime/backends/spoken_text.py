"""Making written text fit to be spoken: without markdown, emoji, code and addresses.

What is left keeps its place: for each character to be spoken it is known which of the original it
was, so that word times of the voice can be told in terms of the text that the client has.
Numbers and abbreviations are the voice's to read.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(r"```[^\n`]*\n?")
_MARKUP = re.compile(
    r"(?P<image>!\[(?P<described>[^\]]*)\]\([^)\s]*\))"
    r"|(?P<link>\[(?P<label>[^\]]+)\]\([^)\s]*\))"
    r"|(?P<address>https?://(?:www\.)?(?P<host>[^\s/?#)\]]+)[^\s)\]]*)"
    r"|(?P<tag></?[A-Za-z][^<>]{0,80}>)"
    r"|(?P<times>(?<=\d)\s*[*×]\s*(?=\d))"
    r"|(?P<line>^[ \t]*(?:#{1,6}[ \t]+|>[ \t]?|[-*+][ \t]+|(?:[-*_=|:][ \t]*){3,}$))"
    r"|(?P<marks>[*`~|#]+)"
    r"|(?P<low>_+)",
    re.MULTILINE,
)
_SPOKEN_GROUPS = {"image": "described", "link": "label", "address": "host"}
"""Of a piece of markup that has words, the part that holds them."""

_DROPPED = frozenset(("So", "Sk", "Cs", "Co", "Cn", "Cf"))
"""Unicode's classes of emoji, their modifiers, and what cannot be seen."""
_KEPT = "°"
_EMOJI_MARKS = re.compile("[\ufe00-\ufe0f\u20e3]")
"""Variation selectors and the key cap, of a class with the accents of letters."""


@dataclass(frozen=True)
class SpokenText:
    """What a voice is given for a stretch of text."""

    text: str
    """Empty where there is nothing to say."""
    origins: tuple[int, ...]
    """For each of its characters, the original's."""
    length: int
    """Characters of the original."""

    def original(self, characters: int) -> int:
        """How much of the original is spoken when so many characters of ``text`` are.

        Marks that are not spoken belong to the word before them.
        """
        if characters <= 0:
            return 0
        if characters >= len(self.origins):
            return self.length
        return self.origins[characters]


class SpeechCleaner:
    """Cleans an answer clause by clause; it remembers whether it is inside a block of code."""

    def __init__(self) -> None:
        self._in_code = False

    def clean(self, clause: str) -> SpokenText:
        """What is to be said of the next clause."""
        kept: list[tuple[str, int]] = []
        position = 0
        for fence in _FENCE.finditer(clause):
            if not self._in_code:
                kept.extend(_without_markup(clause, position, fence.start()))
            self._in_code = not self._in_code
            position = fence.end()
        if not self._in_code:
            kept.extend(_without_markup(clause, position, len(clause)))
        return _tidied(kept, len(clause))


def _without_markup(clause: str, start: int, end: int) -> Iterator[tuple[str, int]]:
    position = start
    for match in _MARKUP.finditer(clause, start, end):
        yield from _plain(clause, position, match.start())
        group = _SPOKEN_GROUPS.get(match.lastgroup or "")
        position = match.end()
        if group is not None:
            yield from _plain(clause, *match.span(group))
            if match.lastgroup == "address" and match[0][-1] in ".,;:!?":
                position -= 1
        elif match.lastgroup == "times":
            yield from ((character, match.start()) for character in " times ")
        elif match.lastgroup in ("low", "tag"):
            yield " ", match.start()
    yield from _plain(clause, position, end)


def _plain(clause: str, start: int, end: int) -> Iterator[tuple[str, int]]:
    for position in range(start, end):
        character = clause[position]
        dropped = unicodedata.category(character) in _DROPPED or _EMOJI_MARKS.match(character)
        if not dropped or character in _KEPT:
            yield character, position


def _tidied(kept: list[tuple[str, int]], length: int) -> SpokenText:
    """One blank between words, none around; nothing at all if there is no letter or digit."""
    if not any(character.isalnum() for character, _ in kept):
        return SpokenText("", (), length)
    tidy: list[tuple[str, int]] = []
    for character, position in kept:
        if not character.isspace():
            tidy.append((character, position))
        elif tidy and tidy[-1][0] != " ":
            tidy.append((" ", position))
    if tidy[-1][0] == " ":
        tidy.pop()
    text = "".join(character for character, _ in tidy)
    return SpokenText(text, tuple(position for _, position in tidy), length)
