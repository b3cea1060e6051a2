"""Words lost and added where an utterance was cut for its length.

An utterance that is longer than the model takes is cut at its quietest points, which may lie inside
a word or between words that explain each other. Words whose times are known tell what that costs:
errors close to the cuts are counted apart from those elsewhere, which a model makes anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from training.evaluation.test_sets import WordTimes
from training.evaluation.wer import align_words
from training.text import normalise

NEAR_S = 0.5
"""A word that is spoken, in part, less than this before or behind a cut is close to it."""


@dataclass(frozen=True)
class SplitErrors:
    """Words of references that are missing, and words that were added, by where they are.

    A word that is said again is an added one. One that was misheard is neither.
    """

    splits: int = 0
    near_words: int = 0
    near_lost: int = 0
    near_added: int = 0
    far_words: int = 0
    far_lost: int = 0
    far_added: int = 0

    def __add__(self, other: SplitErrors) -> SplitErrors:
        return SplitErrors(
            *(getattr(self, f.name) + getattr(other, f.name) for f in fields(SplitErrors))
        )


def split_errors(words: WordTimes, text: str, splits: Sequence[float]) -> SplitErrors | None:
    """Compare a text with the words that were spoken, close to the cuts and elsewhere.

    Args:
        words: what was spoken, with times in seconds.
        text: what was understood.
        splits: where the audio was cut, in seconds on the same clock.

    Returns:
        None where the words cannot be told apart in the normalised reference.
    """
    spoken = [normalise(word) for word, _, _ in words]
    if any(len(word.split()) != 1 for word in spoken):
        return None
    near = [
        any(start - NEAR_S < split < end + NEAR_S for split in splits) for _, start, end in words
    ]
    lost, added = {True: 0, False: 0}, {True: 0, False: 0}
    heard = 0
    for step in align_words(spoken, normalise(text).split()):
        if step.reference_position is not None:
            heard = step.reference_position + 1
        if step.kind == "delete":
            lost[near[heard - 1]] += 1
        elif step.kind == "insert":
            # Between two words, of which either may be the one that was said again.
            added[any(near[max(heard - 1, 0) : heard + 1])] += 1
    close = sum(near)
    return SplitErrors(
        len(splits), close, lost[True], added[True], len(near) - close, lost[False], added[False]
    )
