"""A small grammar of things people say to voice agents: the repository's own text source.

The grammar itself is ``grammar.txt``. A sentence is a template whose ``{slots}`` are filled at
random from lists or from number makers. The text comes out as people write it, digits included;
``training.text.normalise`` turns it into words. It makes the recipe run without any other file; it
is no substitute for real transcripts.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path


def _read(path: Path) -> tuple[dict[str, list[str]], list[str]]:
    """Slots and templates of the grammar file."""
    slots: dict[str, list[str]] = {}
    templates: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("@"):
            name, _, choices = line[1:].partition(": ")
            slots[name] = choices.split("|")
        elif line and not line.startswith("#"):
            templates.append(line)
    return slots, templates


_SLOTS, _TEMPLATES = _read(Path(__file__).with_name("grammar.txt"))

_SPOKEN_DIGITS = "zero one two three four five six seven eight nine".split()


_BEFORE_THE_HOUR = ("half past", "quarter past", "quarter to", "ten to", "twenty past")


def _time(draw: random.Random) -> str:
    hour = draw.randint(1, 12)
    form = draw.random()
    if form < 0.3:
        return f"{hour} o'clock"
    if form < 0.6:
        return f"{hour} {draw.choice(('am', 'pm', 'in the morning', 'in the evening'))}"
    if form < 0.8:
        return f"{draw.choice(_BEFORE_THE_HOUR)} {hour}"
    return f"{hour} {draw.choice((10, 15, 20, 25, 30, 35, 40, 45, 50, 55))}"


def _amount(draw: random.Random) -> str:
    """Amounts people say are often round."""
    choices = (draw.randint(10, 999), 10 * draw.randint(10, 99), 100 * draw.randint(1, 90))
    return str(draw.choice(choices))


def _digits(draw: random.Random, low: int, high: int) -> str:
    return " ".join(draw.choice(_SPOKEN_DIGITS) for _ in range(draw.randint(low, high)))


_MAKERS: dict[str, Callable[[random.Random], str]] = {
    "n12": lambda draw: str(draw.randint(1, 12)),
    "n30": lambda draw: str(draw.randint(10, 30)),
    "n60": lambda draw: str(draw.randint(1, 60)),
    "n100": lambda draw: str(draw.randint(1, 100)),
    "n1000": _amount,
    "time": _time,
    "digits": lambda draw: _digits(draw, 3, 6),
    "phone": lambda draw: _digits(draw, 7, 10),
    "year": lambda draw: str(draw.choice((draw.randint(1800, 1999), draw.randint(2010, 2030)))),
    "day_of_month": lambda draw: f"{draw.randint(1, 31)}",
}  # fmt: skip

_SLOT = re.compile(r"\{(\w+)\}")


def sentence(draw: random.Random) -> str:
    """One random sentence, drawn from ``draw``."""

    def fill(match: re.Match[str]) -> str:
        name = match.group(1)
        if name in _MAKERS:
            return _MAKERS[name](draw)
        return draw.choice(_SLOTS[name])

    return _SLOT.sub(fill, draw.choice(_TEMPLATES))


def sentences(count: int, seed: int = 0) -> Iterator[str]:
    """``count`` sentences, each different from the others, the same for the same ``seed``.

    Short templates run out of variety: after a hundred draws that gave nothing new, repeats are let
    through.
    """
    draw = random.Random(seed)
    seen: set[str] = set()
    for _ in range(count):
        text = sentence(draw)
        for _ in range(100):
            if text not in seen:
                break
            text = sentence(draw)
        seen.add(text)
        yield text
