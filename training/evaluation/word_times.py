"""Word times of a transcript against known ones: how far off starts and ends are.

Only words that both sides have are compared, found by the alignment of the word error rate: what
the model misheard has no right time. The known times are those of a synthesiser or of a manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tinyvoice.model.transcript import Word
from training.evaluation.wer import align_words
from training.text import normalise


@dataclass(frozen=True, slots=True)
class MatchedWord:
    """A word both sides have; errors are transcript minus reference, in seconds."""

    text: str
    start_error: float
    end_error: float


@dataclass(frozen=True)
class TimeErrors:
    """Absolute errors of word starts and ends, pooled and apart, in milliseconds."""

    words: int
    median_ms: float
    p95_ms: float
    start_median_ms: float
    start_p95_ms: float
    end_median_ms: float
    end_p95_ms: float


def match_words(
    reference: Sequence[tuple[str, float, float]], heard: Sequence[Word]
) -> tuple[MatchedWord, ...]:
    """Pair the words of a transcript with the reference's ``(word, start, end)``, in seconds.

    Words that normalise to none or to several (``7:30``) have no time of their own: they are passed
    over.
    """
    known = [(normalise(text), start, end) for text, start, end in reference]
    timed = [(normalise(word.text), word.start, word.end) for word in heard]
    # An alignment takes single words; one that stands for several matches nothing in this form.
    left = [text.replace(" ", "_") or "_" for text, _, _ in known]
    right = [text.replace(" ", "_") or "__" for text, _, _ in timed]
    matched = []
    for step in align_words(left, right):
        if step.kind != "equal" or step.reference is None or "_" in step.reference:
            continue
        assert step.reference_position is not None
        assert step.hypothesis_position is not None
        text, start, end = known[step.reference_position]
        _, heard_start, heard_end = timed[step.hypothesis_position]
        matched.append(MatchedWord(text, heard_start - start, heard_end - end))
    return tuple(matched)


def time_errors(words: Iterable[MatchedWord]) -> TimeErrors | None:
    """Median and 95th percentile of the absolute errors; ``None`` without any word."""
    errors = np.abs([(word.start_error, word.end_error) for word in words]) * 1000
    if not errors.size:
        return None
    starts, ends = errors[:, 0], errors[:, 1]

    def at(values: np.ndarray, percentile: float) -> float:
        return round(float(np.percentile(values, percentile)), 1)

    return TimeErrors(
        words=len(errors),
        median_ms=at(errors, 50),
        p95_ms=at(errors, 95),
        start_median_ms=at(starts, 50),
        start_p95_ms=at(starts, 95),
        end_median_ms=at(ends, 50),
        end_p95_ms=at(ends, 95),
    )
