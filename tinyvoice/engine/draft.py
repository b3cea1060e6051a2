"""The previous hypothesis as a draft of the next one.

A draft proposes tokens; what is true is told to it token by token, and it finds its way back to
what it may still be right about. It decodes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

# How far ahead in an old hypothesis the token that replaced another is looked for.
RESYNC_WINDOW = 8

# Tokens that are proposed after a departure; twice as many each time that all of them were right. A
# draft that was wrong once is often wrong again, and what is behind a wrong token is wasted.
CAUTIOUS_TOKENS = 4


class Draft:
    """What is left of an old hypothesis to propose, as the new one departs from it.

    After a token that the draft does not have in its place, the same token is looked for a little
    further on (words dropped) and from the place of departure (words added); else one word is
    taken to have replaced another. A wrong guess costs its place in a pass and no correctness;
    after one, a few tokens are proposed at a time.
    """

    def __init__(self, ids: Sequence[int], stops: Collection[int]) -> None:
        end = next((at for at, token in enumerate(ids) if token in stops), len(ids))
        self.ids = list(ids[:end])
        self._next = 0
        self._departed = 0
        self._proposing = True
        self._most: float = math.inf
        self._right = 0

    def proposal(self, most: int) -> list[int]:
        """Up to ``most`` tokens that may come next."""
        count = int(min(most, self._most, len(self.ids)))
        return self.ids[self._next : self._next + max(0, count)] if self._proposing else []

    def said(self, token: int) -> bool:
        """Take note of the next true token; whether it was the one proposed."""
        proposed = self._proposing and self._next < len(self.ids) and self.ids[self._next] == token
        if proposed:
            self._next += 1
            self._departed = self._next
            self._right += 1
            if self._right >= self._most:
                self._most, self._right = 2 * self._most, 0
            return True
        self._most, self._right = CAUTIOUS_TOKENS, 0
        window = self.ids[self._departed : self._departed + RESYNC_WINDOW]
        if token in window:
            self._next = self._departed = self._departed + window.index(token) + 1
            self._proposing = True
        elif self._proposing and self._departed == self._next:
            self._next += 1  # taken for a replacement, once
        else:
            self._proposing = False
        return False
