"""Numbers in what people say, in words or digits: "twenty nine times 7" has 29 and 7.

English, below a thousand million; "six seven" is two numbers, "one hundred and six" is one.
"""

from __future__ import annotations

import re

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SMALL = {word: number for number, word in enumerate(_UNITS)} | {
    word: 20 + 10 * number for number, word in enumerate(_TENS)
}
NUMBER_WORDS = (*_SMALL, "hundred")
"""Words that numbers up to a thousand are made of."""

_LARGE = {"thousand": 1_000, "million": 1_000_000}
_TOKENS = re.compile(r"\d+(?:\.\d+)?|[a-z]+")


def numbers_in(text: str) -> list[float]:
    """All numbers, in their order."""
    found: list[float] = []
    whole, part = 0.0, None  # thousands so far; what is below a thousand, None before it begins
    last = 0.0  # the word before, to tell "twenty nine" from "nine twenty"
    tokens = _TOKENS.findall(text.lower())
    for index, token in enumerate(tokens):
        digits = token[0].isdigit()
        if digits or token in _SMALL:
            value = float(token) if digits else float(_SMALL[token])
            joins = part is not None and not digits and _follows(last, value)
            if part is not None and not joins:
                found.append(whole + part)
                whole, part = 0.0, None
            part, last = (part or 0.0) + value, value
        elif token == "hundred" and part is not None and part < 10:
            part, last = part * 100, 100.0
        elif token in _LARGE and part is not None:
            whole, part, last = whole + part * _LARGE[token], 0.0, 1_000.0
        elif token == "and" and part is not None and last >= 100 and tokens[index + 1 :]:
            continue
        elif part is not None:
            found.append(whole + part)
            whole, part = 0.0, None
    if part is not None:
        found.append(whole + part)
    return found


def _follows(last: float, value: float) -> bool:
    """Whether a word continues the number that the word before belongs to."""
    if last >= 100:
        return True
    return last in range(20, 100, 10) and 0 < value < 10
