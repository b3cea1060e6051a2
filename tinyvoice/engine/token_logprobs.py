"""What the tokens of a transcript spell, each with its log-probability.

A token of a byte-level vocabulary may be half a character; such tokens are told of together, so
that every piece is text of its own. Nothing is decoded here that was not decoded before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tinyvoice.engine.events import TokenLogprob


def token_logprobs(
    tokenizer: Any, ids: Sequence[int], logprobs: Sequence[float], text: str
) -> tuple[TokenLogprob, ...]:
    """The pieces that ``ids`` spell, cut to what the cleaned transcript ``text`` has of them.

    The pieces make up ``text``. Natural log-probabilities of tokens that share a character are
    added; a token whose text was cleaned away is left out.
    """
    whole = str(tokenizer.decode(list(ids), skip_special_tokens=True))
    pieces: list[TokenLogprob] = []
    end, waiting = 0, 0.0
    for count, logprob in enumerate(logprobs, start=1):
        # Prefixes, because a token on its own may be half a character.
        said = str(tokenizer.decode(list(ids[:count]), skip_special_tokens=True))
        waiting += logprob
        if len(said) > end and whole.startswith(said):
            pieces.append(TokenLogprob(said[end:], waiting))
            end, waiting = len(said), 0.0
    return cut_to(pieces, text)


def cut_to(pieces: Sequence[TokenLogprob], text: str) -> tuple[TokenLogprob, ...]:
    """The pieces without the characters that ``text`` lacks.

    ``text`` has the pieces' characters in order, some of them taken away; of white space it may
    have other than they.
    """
    spelt = "".join(piece.text for piece in pieces)
    owners = [index for index, piece in enumerate(pieces) for _ in piece.text]
    kept = [""] * len(pieces)
    at, blanks = max(0, spelt.find(text)), ""
    for character in text:
        if character.isspace() and spelt[at : at + 1] != character:
            blanks += character
            continue
        at = spelt.find(character, at)
        if at < 0:  # the text is not made of the pieces: say what is certain
            break
        kept[owners[at]] += blanks + character
        at, blanks = at + 1, ""
    return tuple(
        TokenLogprob(part, piece.logprob) for part, piece in zip(kept, pieces, strict=True) if part
    )


def join_tokens(parts: Iterable[Sequence[TokenLogprob]]) -> tuple[TokenLogprob, ...]:
    """The pieces of several transcripts whose texts are joined by blanks; empty ones count not."""
    joined: list[TokenLogprob] = []
    for part in parts:
        blank = " " if joined and part else ""
        joined += [TokenLogprob(blank + piece.text, piece.logprob) for piece in part[:1]]
        joined += part[1:]
    return tuple(joined)
