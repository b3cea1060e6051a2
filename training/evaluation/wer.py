"""Word error rate: substitutions, insertions and deletions, with a bootstrap interval.

Both sides are normalised first (`training.text.normalise`), then aligned by words with the least
number of edits (jiwer). The rate of a set is its errors over its reference words, not the mean of
the rates of its utterances.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tinyvoice.errors import MissingExtraError
from training.text import normalise

BOOTSTRAP_SAMPLES = 2000
"""Resamplings of the utterances behind an interval."""


@dataclass(frozen=True, slots=True)
class WordErrors:
    """Edits that turn references into hypotheses, and the number of reference words."""

    substitutions: int = 0
    insertions: int = 0
    deletions: int = 0
    words: int = 0

    @property
    def total(self) -> int:
        """All edits."""
        return self.substitutions + self.insertions + self.deletions

    @property
    def rate(self) -> float:
        """Edits per reference word; where nothing was said, 1.0 if any word was heard, else 0.0."""
        return self.total / self.words if self.words else float(self.total > 0)

    def __add__(self, other: WordErrors) -> WordErrors:
        return WordErrors(
            self.substitutions + other.substitutions,
            self.insertions + other.insertions,
            self.deletions + other.deletions,
            self.words + other.words,
        )


EditKind = Literal["equal", "substitute", "insert", "delete"]


@dataclass(frozen=True, slots=True)
class AlignedWord:
    """One step of an alignment: a word of each side, or ``None`` where a side has no counterpart.

    Positions count the words of their side from 0.
    """

    kind: EditKind
    reference: str | None
    hypothesis: str | None
    reference_position: int | None
    hypothesis_position: int | None


def align_words(reference: Sequence[str], hypothesis: Sequence[str]) -> list[AlignedWord]:
    """Align two lists of words with the least number of edits, from left to right.

    Raises MissingExtraError where jiwer is not installed.
    """
    if not reference or not hypothesis:
        return _one_sided(reference, hypothesis)
    try:
        import jiwer
    except ImportError as error:
        raise MissingExtraError("eval", "measuring word error rates") from error
    output = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
    steps: list[AlignedWord] = []
    for chunk in output.alignments[0]:
        kind: EditKind = chunk.type  # type: ignore[assignment]  # jiwer says str
        left = range(chunk.ref_start_idx, chunk.ref_end_idx)
        right = range(chunk.hyp_start_idx, chunk.hyp_end_idx)
        for offset in range(max(len(left), len(right))):
            i = left[offset] if left else None
            j = right[offset] if right else None
            steps.append(
                AlignedWord(
                    kind,
                    None if i is None else reference[i],
                    None if j is None else hypothesis[j],
                    i,
                    j,
                )
            )
    return steps


def _one_sided(reference: Sequence[str], hypothesis: Sequence[str]) -> list[AlignedWord]:
    """Align with a side that has no words, which jiwer takes for a mistake of its caller."""
    deleted = [AlignedWord("delete", word, None, i, None) for i, word in enumerate(reference)]
    inserted = [AlignedWord("insert", None, word, None, j) for j, word in enumerate(hypothesis)]
    return deleted + inserted


def word_errors(reference: str, hypothesis: str) -> WordErrors:
    """Count the word errors of one utterance; both texts are normalised first."""
    words = normalise(reference).split()
    steps = align_words(words, normalise(hypothesis).split())
    kinds = [step.kind for step in steps]
    return WordErrors(
        kinds.count("substitute"), kinds.count("insert"), kinds.count("delete"), len(words)
    )


def total_errors(errors: Iterable[WordErrors]) -> WordErrors:
    """Add up the errors of many utterances."""
    return sum(errors, WordErrors())


def bootstrap_interval(
    errors: Sequence[WordErrors], *, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Interval of the word error rate at confidence ``level``, by resampling utterances.

    The percentile method of Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR
    performance evaluation" (ICASSP 2004). Without reference words it is ``(0.0, 0.0)``.
    """
    return difference_interval(errors, [WordErrors()] * len(errors), level=level, seed=seed)


def difference_interval(
    first: Sequence[WordErrors], second: Sequence[WordErrors], *, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Interval of the rate of ``first`` minus that of ``second``, for the same utterances in order.

    Paired: each resampling draws the same utterances on both sides, so what is hard for both
    cancels out. Rates are over the reference words of ``first``.
    """
    edits = np.array([a.total - b.total for a, b in zip(first, second, strict=True)], dtype=float)
    words = np.array([errors.words for errors in first], dtype=float)
    if not words.sum():
        return 0.0, 0.0
    generator = np.random.default_rng(seed)
    rates = np.empty(BOOTSTRAP_SAMPLES)
    for index in range(BOOTSTRAP_SAMPLES):
        drawn = generator.integers(len(words), size=len(words))
        rates[index] = edits[drawn].sum() / max(words[drawn].sum(), 1.0)
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
