"""Which part of a growing utterance's hypothesis is stable, and which is tail.

Successive hypotheses of the same utterance agree on more and more words from the beginning. A word
is declared stable when the evidence says that the final will have it too: hypotheses in a row that
agree on it, for long enough, the decoder's margin over the next best choice, and words spoken after
it. What is stable never changes: where a later hypothesis disagrees with it, the two are aligned,
and the tail is what the hypothesis says after that.

(Agreement of successive hypotheses: Liu et al. 2020, "Low-latency sequence-to-sequence speech
recognition and translation by partial hypothesis selection".)

Words are what stands between spaces: text without any becomes stable with the final only. Nothing
here hears audio or changes what the model decodes.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tinyvoice.engine.decoding import Decoded
from tinyvoice.model.text import MAX_PHRASE_WORDS, clean_transcript

WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class StabilityRule:
    """What a word needs to become stable, together with all words before it."""

    agreements: int = 2
    """Hypotheses in a row that have the word in its place."""
    age_s: float = 0.3
    """Seconds of audio since the first of them."""
    margin: float = 1.0
    """Natural log-probability distance to the next best token, at the word's least sure token."""
    words_behind: int = 1
    """Words that the hypothesis has after it."""
    pause_s: float = 0.9
    """Age from which on no word after it is needed."""


@dataclass
class HypothesisWord:
    """A word of the current hypothesis and the evidence for it."""

    text: str
    start: int
    end: int
    margin: float = 0.0
    agreements: int = 1
    since: float = 0.0


@dataclass
class StablePrefix:
    """The stable part and the tail of one utterance's hypotheses.

    ``stable + tail`` is the text to show. Both may be empty; the tail brings its leading space.
    """

    tokenizer: Any
    rule: StabilityRule = field(default_factory=StabilityRule)
    stable: str = ""
    tail: str = ""
    stable_words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._words: list[HypothesisWord] = []
        self._spelling = Spelling(self.tokenizer)

    @property
    def text(self) -> str:
        """Stable part and tail."""
        return self.stable + self.tail

    def update(self, decoded: Decoded, seconds: float) -> None:
        """Take the hypothesis after ``seconds`` of the utterance's audio."""
        spelt = self._spelling.of(decoded.ids)
        text = clean_transcript(spelt)
        words = [HypothesisWord(m.group(), *m.span(), since=seconds) for m in WORD.finditer(text)]
        untouched = text == spelt.strip()
        if untouched:
            offset = len(spelt) - len(spelt.lstrip())
            for word in words:
                word.margin = self._spelling.least(
                    decoded.margins, word.start + offset, word.end + offset
                )
        for word, before in zip(words, self._words, strict=False):
            if word.text != before.text:
                break
            word.agreements, word.since = before.agreements + 1, before.since
        self._words = words
        aligned = align_prefix(self.stable_words, [word.text for word in words])
        agrees = [word.text for word in words[: len(self.stable_words)]] == self.stable_words
        # A loop that was cut may yet turn out to be none, and the other way round.
        if untouched and agrees:
            aligned = self._grow(text, aligned, seconds)
        begin = words[aligned - 1].end if aligned else 0
        tail = text[begin:]
        self.tail = f" {tail}" if tail and self.stable and not aligned else tail

    def _grow(self, text: str, have: int, seconds: float) -> int:
        """Declare words stable behind the first ``have``; how many are stable then."""
        count = have
        while count < len(self._words) and self._qualifies(count, seconds):
            count += 1
        words = [word.text for word in self._words]
        while count > have and may_become_loop(words, count):
            count -= 1
        if count > have:
            begin = self._words[have - 1].end if have else 0
            self.stable += text[begin : self._words[count - 1].end]
            self.stable_words += words[have:count]
        return count

    def _qualifies(self, at: int, seconds: float) -> bool:
        word, rule = self._words[at], self.rule
        age = seconds - word.since
        behind = len(self._words) - 1 - at
        return (
            word.agreements >= rule.agreements
            and age >= rule.age_s
            and word.margin >= rule.margin
            and (behind >= rule.words_behind or age >= rule.pause_s)
        )


class Spelling:
    """What token ids spell, and which tokens wrote which characters.

    Successive hypotheses share their beginnings, so only what is new is decoded.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        self.ends: list[int] = []

    def of(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, special tokens left out."""
        shared = 0
        for mine, other in zip(self.ids, ids, strict=False):
            if mine != other:
                break
            shared += 1
        del self.ends[shared:]
        self.ids = list(ids)
        text = ""
        # Prefixes, because a token on its own may be half a character.
        for count in range(min(shared, max(0, len(ids) - 1)) + 1, len(ids) + 1):
            text = str(self.tokenizer.decode(self.ids[:count], skip_special_tokens=True))
            del self.ends[count - 1 :]
            self.ends.append(len(text))
        return text

    def least(self, scores: Sequence[float], start: int, end: int) -> float:
        """The least of the scores of the tokens that wrote characters ``start`` to ``end``."""
        first, last = bisect_right(self.ends, start), bisect_left(self.ends, end) + 1
        return min(scores[first:last], default=0.0)


def align_prefix(stable: Sequence[str], words: Sequence[str]) -> int:
    """How many of ``words`` say what ``stable`` says: the prefix of least edit distance.

    Of equally good prefixes the one nearest in length to ``stable`` is taken, the longer of two.
    """
    if list(words[: len(stable)]) == list(stable):
        return len(stable)
    costs = list(range(len(words) + 1))
    for row, said in enumerate(stable, 1):
        before, costs = costs, [row]
        for column, word in enumerate(words, 1):
            costs.append(
                min(before[column - 1] + (word != said), before[column] + 1, costs[-1] + 1)
            )
    return min(
        range(len(words) + 1), key=lambda count: (costs[count], abs(count - len(stable)), -count)
    )


def may_become_loop(words: Sequence[str], count: int) -> bool:
    """Whether the end of the first ``count`` words may yet be cut from the final as a loop.

    That is when they end inside the repetition of a phrase and no later word breaks it.
    """
    folded = [word.casefold() for word in words]
    for length in range(1, min(MAX_PHRASE_WORDS, count - 1) + 1):
        if folded[count - 1] != folded[count - 1 - length]:
            continue
        if all(folded[at] == folded[at - length] for at in range(count, len(folded))):
            return True
    return False
