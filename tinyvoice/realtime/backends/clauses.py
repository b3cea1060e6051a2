"""Cutting text that is still being written into clauses that can be spoken.

A voice needs a stretch of text that makes sense to the ear; the listener wants the first sound at
once. So the first clause of an answer ends at the first comma that leaves something to say, and
later ones at the end of a sentence, or at a comma where a sentence is long. The clauses joined
together are the text, to the character.

It knows English abbreviations, decimals, initials and list numbers, and the full-width marks of
Chinese and Japanese; it does not parse.
"""

from __future__ import annotations

import re

FIRST_SHORTEST = 12
"""Characters from which the first clause may end at a comma."""
FIRST_LONGEST = 80
"""Characters after which the first clause ends between two words."""
COMFORTABLE = 100
"""Characters from which a later clause ends at a comma."""
LONGEST = 240
"""Characters after which any clause ends between two words, or inside one that is longer."""

_CLOSING = "[\"'”’)\\]»*_`]*"
_BOUNDARY = re.compile(
    rf"(?P<sentence>(?P<mark>[.!?…]+){_CLOSING}(?=\s)[^\S\n]*\n*|[。！？]+[”’）】」』]*|\n+)"
    rf"|(?P<comma>[,;:]{_CLOSING}\s+|[，、；：]|\s[–—]\s|(?<=\w)—(?=\w))"
)
_LAST_WORD = re.compile(r"[^\s(\[\"'“‘]+$")
_NEVER_END = frozenset(
    "mr mrs ms dr prof st vs e.g i.e cf fig approx dept gen col capt rev".split()
)
# These end a sentence only where the next word begins with a capital.
_MAY_END = frozenset("etc inc ltd co corp jr sr a.m p.m u.s u.k".split())


class ClauseCutter:
    """Cuts one answer; feed it what is written, in any pieces."""

    def __init__(self) -> None:
        self._text = ""
        self._first = True

    def feed(self, text: str) -> list[str]:
        """Take more of the text; return the clauses that are now complete."""
        self._text += text
        clauses = []
        while end := self._end():
            clauses.append(self._take(end))
        return clauses

    def flush(self) -> list[str]:
        """Return what is left: the text, or a part of it, is over."""
        clauses = []
        while end := self._end(over=True) or len(self._text):
            clauses.append(self._take(end))
        return clauses

    def _take(self, end: int) -> str:
        clause, self._text = self._text[:end], self._text[end:]
        self._first = self._first and not _has_words(clause)
        return clause

    def _end(self, over: bool = False) -> int:
        """Where the next clause ends, 0 if that is not known yet."""
        shortest = FIRST_SHORTEST if self._first else COMFORTABLE
        longest = FIRST_LONGEST if self._first else LONGEST
        for match in _BOUNDARY.finditer(self._text):
            if match.end() > longest:
                break
            clause = self._text[: match.end()]
            if not _has_words(clause):
                continue
            if match["comma"]:
                if len(clause) >= shortest:
                    return match.end()
            elif match["mark"] is None or "." not in match["mark"] or len(match["mark"]) > 1:
                return match.end()
            else:
                ends = _ends_sentence(
                    self._text[: match.start()], self._text[match.end() :].lstrip(), over
                )
                if ends is None:
                    return 0
                if ends:
                    return match.end()
        return self._bound(longest) if len(self._text) > longest else 0

    def _bound(self, longest: int) -> int:
        blank = max(self._text.rfind(mark, longest // 2, longest) for mark in " \t\n")
        if blank >= 0:
            return blank + 1
        # A word that does not end: a first clause waits for it as long as any other.
        return 0 if len(self._text) <= LONGEST else LONGEST


def _has_words(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _ends_sentence(before: str, after: str, over: bool) -> bool | None:
    """Whether a full stop between the two ends a sentence; None if ``after`` must tell and is
    not there yet."""
    found = _LAST_WORD.search(before)
    word = found[0].lower() if found else ""
    if word in _NEVER_END:
        return False
    if word.isdigit():
        line = before[before.rfind("\n") + 1 :]
        return line.strip() != word  # "1." at the beginning of a line counts items
    if len(word) == 1 and found is not None and found[0].isupper() and word != "i":
        return False
    if word in _MAY_END or word == "no" or "." in word:
        if not after:
            return True if over else None
        return after[0].isupper() if word != "no" else not after[0].isdigit()
    return True
