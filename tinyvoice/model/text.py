"""Clean-up of decoded transcripts: thinking blocks and runaway repetitions.

A greedy decoder sometimes ends in a loop. The rules are those that published checkpoints are used
with, in their order: a character, then a word, then a phrase that ends the text three times or more
in a row is cut to one. Nothing in the middle of a text is touched, and nothing is re-spelled.
"""

from __future__ import annotations

import re
from itertools import pairwise

THINK_START = "<think>"
THINK_BLOCK = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
# What is left of a block whose beginning lies in the prompt.
THINK_END = re.compile(r"\A.*?</think>", re.DOTALL)

# Repetitions at the end of a text that count as a loop, and the phrases looked at, in words.
MIN_REPEATS = 3
MIN_PHRASE_WORDS = 2
MAX_PHRASE_WORDS = 20


def clean_transcript(text: str) -> str:
    """Decoded text as the user should see it: no thinking, no trailing loop, no outer space."""
    return cut_trailing_repetition(strip_thinking(text))


def strip_thinking(text: str) -> str:
    """Remove ``<think>…</think>`` blocks, an unfinished one included, and the space around."""
    return THINK_END.sub("", THINK_BLOCK.sub("", text)).strip()


def cut_trailing_repetition(text: str) -> str:
    """Cut a character, word or phrase that ends the text three times or more to one.

    Words and phrases are compared without regard to case, and the first of them is kept. A phrase
    has 2 to 20 words, and the shortest one that repeats is taken.
    """
    text = _cut_character(text.strip())
    words = text.split()
    shortened = _cut_phrase(words, 1) or words
    for length in range(MIN_PHRASE_WORDS, MAX_PHRASE_WORDS + 1):
        cut = _cut_phrase(shortened, length)
        if cut is not None:
            shortened = cut
            break
    # Unchanged text keeps its own spacing.
    return text if shortened == words else " ".join(shortened)


def _cut_character(text: str) -> str:
    """One of the characters that end the text in a row, if there are enough of them."""
    run = len(text) - len(text.rstrip(text[-1])) if text else 0
    return text[: len(text) - run + 1] if run >= MIN_REPEATS else text


def _cut_phrase(words: list[str], length: int) -> list[str] | None:
    """Words with the repetitions of their last ``length`` words cut to one, or None."""
    folded = [word.casefold() for word in words]
    blocks = [folded[end - length : end] for end in range(len(folded), length - 1, -length)]
    repeats = 1
    for later, earlier in pairwise(blocks):
        if later != earlier:
            break
        repeats += 1
    if repeats < MIN_REPEATS:
        return None
    return words[: len(words) - (repeats - 1) * length]
