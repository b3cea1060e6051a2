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

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinyvoice.engine.decoding import Decoded
from tinyvoice.model.text import MAX_PHRASE_WORDS, clean_transcript

WORD = re.compile(r"\S+")


# Hypotheses in a row that disagree with the stable part before it grows on behind the place that
# they agree on best. Once or twice is a slip; then it is the stable part that was wrong.
DISAGREEMENTS = 3


@dataclass(frozen=True)
class StabilityRule:
    """What a word needs to become stable, together with all words before it.

    The defaults were tuned on the embedded model's validation voices, for stable text that is a
    prefix of the final in 99 % of utterances.
    """

    agreements: int = 2
    """Hypotheses in a row that have the word in its place."""
    age_s: float = 0.3
    """Seconds of audio since the first of them."""
    margin: float = 3.0
    """Natural log-probability distance to the second best token, at the word's least sure token,
    averaged over those hypotheses, the newest counting for half. As much is needed of the
    hypothesis' end where no word follows."""
    following_margin: float = 2.0
    """The same of the token that follows the word: while the next word is unsure, this one may be
    its beginning."""
    words_behind: int = 1
    """Words that the hypothesis has after it, or else a sure end."""


@dataclass
class HypothesisWord:
    """A word of the current hypothesis and the evidence for it."""

    text: str
    start: int
    end: int
    since: float
    """Seconds of audio when a hypothesis first had it in its place."""
    margin: float = 0.0
    following: float = 0.0
    """Margin of the token after it."""
    agreements: int = 1

    def confirm(self, before: HypothesisWord) -> None:
        """Add the evidence of the hypotheses before this one."""
        self.agreements, self.since = before.agreements + 1, before.since
        self.margin = (self.margin + before.margin) / 2
        self.following = (self.following + before.following) / 2


class StablePrefix:
    """The stable part and the tail of one utterance's hypotheses.

    ``stable + tail`` is the text to show. Both may be empty; the tail brings its leading space.
    """

    def __init__(
        self, tokenizer: Any, rule: StabilityRule | None = None, certain_s: float = math.inf
    ) -> None:
        self.rule = rule or StabilityRule()
        self.certain_s = certain_s
        """Seconds of the utterance that are in it wherever it will be cut, should it become too
        long: words that come up later may yet belong to the next one, and are not stable."""
        self.stable = ""
        self.tail = ""
        self._heard: list[str] = []
        """The words that hypotheses have in the place of the stable part."""
        self._words: list[HypothesisWord] = []
        self._end_margin = 0.0
        self._disagreements = 0
        self._spelling = Spelling(tokenizer)

    @property
    def text(self) -> str:
        """Stable part and tail."""
        return self.stable + self.tail

    def update(self, decoded: Decoded, seconds: float) -> None:
        """Take the hypothesis after ``seconds`` of the utterance's audio."""
        spelt = self._spelling.of(decoded.ids)
        text = clean_transcript(spelt)
        # A loop that is cut now may yet turn out to be none: such a hypothesis is shown and proves
        # nothing.
        untouched = text == spelt.strip()
        ended = len(decoded.margins) > len(decoded.ids)
        self._end_margin = decoded.margins[-1] if ended else 0.0
        words = [HypothesisWord(m.group(), *m.span(), seconds) for m in WORD.finditer(text)]
        if untouched:
            self._weigh(words, decoded.margins, len(spelt) - len(spelt.lstrip()))
        self._words = words
        said = [word.text for word in words]
        have = align_prefix(self._heard, said)
        agrees = said[: len(self._heard)] == self._heard
        self._disagreements = 0 if agrees else self._disagreements + 1
        if self._disagreements == DISAGREEMENTS:
            self._heard, agrees, self._disagreements = said[:have], True, 0
        if untouched and agrees:
            have = self._grow(text, have, seconds)
        self.tail = self._following(text, have)

    def _weigh(self, words: list[HypothesisWord], margins: Sequence[float], offset: int) -> None:
        for word in words:
            first, end = self._spelling.tokens(word.start + offset, word.end + offset)
            word.margin = min(margins[first:end], default=0.0)
            word.following = margins[end] if end < len(margins) else 0.0
        for word, before in zip(words, self._words, strict=False):
            if word.text != before.text:
                break
            word.confirm(before)

    def _grow(self, text: str, have: int, seconds: float) -> int:
        """Declare words stable behind the first ``have``; how many are stable then."""
        count = have
        while count < len(self._words) and self._qualifies(count, seconds):
            count += 1
        words = [word.text for word in self._words]
        while count > have and may_become_loop(words, count):
            count -= 1
        if count > have:
            self.stable += self._following(text[: self._words[count - 1].end], have)
            self._heard = words[:count]
        return count

    def _qualifies(self, at: int, seconds: float) -> bool:
        word, rule = self._words[at], self.rule
        behind = len(self._words) - 1 - at
        return (
            word.since <= self.certain_s
            and word.agreements >= rule.agreements
            and seconds - word.since >= rule.age_s
            and word.margin >= rule.margin
            and word.following >= rule.following_margin
            and (behind >= rule.words_behind or self._end_margin >= rule.margin)
        )

    def _following(self, text: str, have: int) -> str:
        """What ``text`` says behind its first ``have`` words, to be put behind the stable part."""
        rest = text[self._words[have - 1].end :] if have else text
        return f" {rest}" if rest and self.stable and not have else rest


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

    def tokens(self, start: int, end: int) -> tuple[int, int]:
        """The tokens that wrote characters ``start`` to ``end``, as first and end."""
        return bisect_right(self.ends, start), bisect_left(self.ends, end) + 1


def align_prefix(stable: Sequence[str], words: Sequence[str]) -> int:
    """How many of ``words`` say what ``stable`` says: the prefix of least edit distance.

    Of equally good prefixes the one nearest in length to ``stable`` is taken, the longer of two.
    """
    shared = 0
    while shared < min(len(stable), len(words)) and stable[shared] == words[shared]:
        shared += 1
    if shared == len(stable):
        return shared
    rest = words[shared:]
    costs = list(range(len(rest) + 1))
    for row, said in enumerate(stable[shared:], 1):
        before, costs = costs, [row]
        for column, word in enumerate(rest, 1):
            replaced = before[column - 1] + (word != said)
            costs.append(min(replaced, before[column] + 1, costs[-1] + 1))
    length = len(stable) - shared
    return shared + min(range(len(costs)), key=lambda n: (costs[n], abs(n - length), -n))


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
