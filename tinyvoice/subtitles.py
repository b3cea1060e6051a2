"""Subtitles from words with times, as SubRip (SRT) and WebVTT.

Cues follow what broadcasters ask for: at most two lines of 42 characters, at most seven seconds, at
least one second where the next cue leaves room, and no cue across a pause. Widths count characters,
so full-width scripts take more room on a screen than these limits assume.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

LINE_CHARACTERS = 42
LINES = 2
LONGEST_CUE_S = 7.0
SHORTEST_CUE_S = 1.0
PAUSE_S = 0.6
"""A silence that long ends a cue."""

_PAUSE_WEIGHT = 2.0
_PUNCTUATION_WEIGHT = 0.4


class TimedWord(Protocol):
    """What a cue is made of: a text and its times in seconds."""

    @property
    def text(self) -> str: ...  # noqa: D102
    @property
    def start(self) -> float: ...  # noqa: D102
    @property
    def end(self) -> float: ...  # noqa: D102


@dataclass(frozen=True)
class Cue:
    """Lines of text on the screen from ``start`` to ``end``, in milliseconds."""

    start: int
    end: int
    lines: tuple[str, ...]


@dataclass(frozen=True)
class _Piece:
    """A word, or a part of one too long for a line, which then joins on without a space."""

    text: str
    start: float
    end: float
    space_before: bool = True


def make_cues(words: Sequence[TimedWord]) -> list[Cue]:
    """Group words, in order of time, into cues that neither overlap nor exceed the limits."""
    pieces = [piece for word in words for piece in _pieces(word)]
    groups = [group for phrase in _phrases(pieces) for group in _split(phrase)]
    cues: list[Cue] = []
    for index, group in enumerate(groups):
        start = max(_milliseconds(group[0].start), cues[-1].end if cues else 0)
        end = max(min(_milliseconds(group[-1].end), start + _milliseconds(LONGEST_CUE_S)), start)
        if end - start < _milliseconds(SHORTEST_CUE_S):
            end = start + _milliseconds(SHORTEST_CUE_S)
            if index + 1 < len(groups):
                end = min(end, _milliseconds(groups[index + 1][0].start))
        cues.append(Cue(start, max(end, start + 1), _lines(group)))
    return cues


def spread_words(text: str, duration: float) -> list[_Piece]:
    """Give the words of a text times in proportion to their letters, for want of measured ones."""
    words = text.split()
    total = sum(map(len, words)) or 1
    pieces, start = [], 0.0
    for word in words:
        end = start + duration * len(word) / total
        pieces.append(_Piece(word, start, end))
        start = end
    return pieces


def format_srt(cues: Sequence[Cue]) -> str:
    """Write cues as SubRip: numbered, comma before the milliseconds, a blank line between."""
    blocks = []
    for number, cue in enumerate(cues, 1):
        # SubRip has no escapes; an arrow in the text would read as a line of times.
        text = "\n".join(line.replace("-->", "->") for line in cue.lines)
        blocks.append(f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{text}\n")
    return "\n".join(blocks)


def format_vtt(cues: Sequence[Cue]) -> str:
    """Write cues as WebVTT (https://www.w3.org/TR/webvtt1/), text escaped."""
    blocks = ["WEBVTT\n"]
    for cue in cues:
        text = "\n".join(_escape(line) for line in cue.lines)
        blocks.append(f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{text}\n")
    return "\n".join(blocks)


def _pieces(word: TimedWord) -> Iterator[_Piece]:
    text = " ".join(word.text.split())
    if not text:
        return
    end = max(word.start, word.end)
    count = -(-len(text) // LINE_CHARACTERS)
    step = (end - word.start) / count
    for index in range(count):
        part = text[index * LINE_CHARACTERS : (index + 1) * LINE_CHARACTERS]
        start = word.start + index * step
        yield _Piece(part, start, start + step, space_before=index == 0)


def _phrases(pieces: Sequence[_Piece]) -> Iterator[list[_Piece]]:
    phrase: list[_Piece] = []
    for piece in pieces:
        if phrase and piece.start - phrase[-1].end >= PAUSE_S:
            yield phrase
            phrase = []
        phrase.append(piece)
    if phrase:
        yield phrase


def _split(phrase: list[_Piece]) -> list[list[_Piece]]:
    """Cut a phrase in two, and its parts again, until each fits into one cue."""
    finished: list[list[_Piece]] = []
    waiting = [phrase]
    while waiting:
        part = waiting.pop()
        if len(part) == 1 or _fits(part):
            finished.append(part)
        else:
            cut = _best_cut(part)
            waiting += [part[cut:], part[:cut]]
    return finished


def _fits(part: Sequence[_Piece]) -> bool:
    if part[-1].end - part[0].start > LONGEST_CUE_S:
        return False
    # Long parts cannot fit; wrapping them to find out would cost the square of their length.
    return len(part) <= LINES * LINE_CHARACTERS and len(_lines(part)) <= LINES


def _best_cut(part: Sequence[_Piece]) -> int:
    """Find where to cut: near the middle, at a silence or after a punctuation mark."""
    total = sum(len(piece.text) for piece in part)
    best, best_cost, seen = 1, float("inf"), 0
    for index in range(1, len(part)):
        before, after = part[index - 1], part[index]
        seen += len(before.text)
        cost = abs(2 * seen - total) / total
        cost -= _PAUSE_WEIGHT * max(after.start - before.end, 0.0)
        if before.text[-1] in ".,;:?!…。，？！":
            cost -= _PUNCTUATION_WEIGHT
        if cost < best_cost:
            best, best_cost = index, cost
    return best


def _lines(part: Sequence[_Piece]) -> tuple[str, ...]:
    """Wrap a part; of the ways to break two lines, take the one that is most even."""
    whole = _join(part)
    if len(whole) <= LINE_CHARACTERS:
        return (whole,)
    pairs = [(_join(part[:cut]), _join(part[cut:])) for cut in range(1, len(part))]
    even = min(pairs, key=lambda pair: max(map(len, pair)), default=(whole, ""))
    if max(map(len, even)) <= LINE_CHARACTERS:
        return even
    return tuple(_join([piece]) for piece in part)  # too long for one cue: more lines than fit


def _join(part: Sequence[_Piece]) -> str:
    return "".join((" " if piece.space_before else "") + piece.text for piece in part).strip()


def _milliseconds(seconds: float) -> int:
    return max(round(seconds * 1000), 0)


def _clock(milliseconds: int, mark: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{mark}{milliseconds:03}"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
