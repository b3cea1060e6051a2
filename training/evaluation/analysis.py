"""What to learn from the errors of an evaluation.

Works on the results that `training.evaluation.report.write_results` wrote: utterances that went
badly, errors on the words that matter most to a voice agent (numbers, dates, times, money, names
of letters, rare words), and two models compared on the same utterances.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tinyvoice.errors import ConfigurationError
from training.evaluation.evaluate import Result
from training.evaluation.wer import (
    AlignedWord,
    WordErrors,
    align_words,
    difference_interval,
    total_errors,
)
from training.text import normalise

_ENTITY_WORDS = {
    "number": """zero oh one two three four five six seven eight nine ten eleven twelve thirteen
        fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy
        eighty ninety hundred thousand million billion point""",
    "ordinal": """first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth
        thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth
        thirtieth""",
    "date": """monday tuesday wednesday thursday friday saturday sunday january february march april
        may june july august september october november december today tomorrow yesterday tonight
        week weekend month year""",
    "time": """am pm o'clock noon midnight morning afternoon evening hour hours minute minutes
        second seconds half quarter""",
    "money": """dollar dollars cent cents euro euros pound pounds pence yen peso pesos percent bucks
        rubles francs""",
    "answer": "yes no yeah yep nope not don't can't won't isn't doesn't didn't",
    "letter": "b c d e f g h j k l m n o p q r s t u v w x y z",
}

ENTITIES = {name: frozenset(words.split()) for name, words in _ENTITY_WORDS.items()}
"""Words that change what an agent does. One may belong to several; *a* and *i* are no letters."""

RARE = "rare word"
"""Words that the references of the whole set hold once: mostly names."""


@dataclass(frozen=True)
class EntityErrors:
    """How often words of a class were missed, and what was written for them."""

    entity: str
    words: int
    missed: int
    confusions: list[tuple[str, str, int]]
    """Reference word, what was written for it (or nothing), how often; most frequent first."""

    @property
    def rate(self) -> float:
        """Share of the class's words that the transcripts lack."""
        return self.missed / self.words if self.words else 0.0


@dataclass(frozen=True)
class Change:
    """One utterance that two models transcribe with different numbers of errors."""

    first: Result
    second: Result

    @property
    def gain(self) -> int:
        """Errors the second makes fewer."""
        return self.first.errors.total - self.second.errors.total


@dataclass(frozen=True)
class Comparison:
    """Two evaluations of the same utterances."""

    utterances: int
    first: WordErrors
    second: WordErrors
    interval: tuple[float, float]
    """95 % interval of the second's word error rate minus the first's."""
    better: list[Change]
    """Utterances the second does better, greatest gain first."""
    worse: list[Change]

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.interval[0] > 0 or self.interval[1] < 0


def measured(results: Iterable[Result]) -> list[Result]:
    """The results of utterances whose audio could be had."""
    return [result for result in results if result.error is None]


def high_error_utterances(results: Iterable[Result], threshold: float) -> list[Result]:
    """Utterances with a word error rate of ``threshold`` or more, worst first."""
    bad = [result for result in measured(results) if result.errors.rate >= threshold]
    return sorted(bad, key=lambda result: (-result.errors.rate, -result.errors.total, result.name))


def alignment(result: Result) -> list[AlignedWord]:
    """Align reference and hypothesis of a result."""
    return align_words(result.reference.split(), normalise(result.hypothesis).split())


def entity_errors(results: Iterable[Result]) -> list[EntityErrors]:
    """Errors for each class of `ENTITIES` that occurs, and for rare words."""
    steps = [step for result in measured(results) for step in alignment(result)]
    references = [step for step in steps if step.reference is not None]
    frequency = Counter(step.reference for step in references)
    classes = {
        **ENTITIES,
        RARE: frozenset(word for word, n in frequency.items() if word is not None and n == 1),
    }
    found = []
    for name, vocabulary in classes.items():
        own = [step for step in references if _belongs(step.reference or "", vocabulary)]
        missed = [step for step in own if step.kind != "equal"]
        confusions = Counter((step.reference or "", step.hypothesis or "") for step in missed)
        if own:
            top = [(*pair, count) for pair, count in confusions.most_common()]
            found.append(EntityErrors(name, len(own), len(missed), top))
    return found


def _belongs(word: str, vocabulary: frozenset[str]) -> bool:
    return word in vocabulary or re.sub(r"'s$", "", word) in vocabulary


def compare_results(first: Sequence[Result], second: Sequence[Result]) -> Comparison:
    """Compare two models on the utterances both have measured, paired by name.

    Raises ConfigurationError where they share none, or where the same name has another reference:
    such evaluations are of different test sets.
    """
    others = {result.name: result for result in measured(second)}
    pairs = [(a, others[a.name]) for a in measured(first) if a.name in others]
    if not pairs:
        raise ConfigurationError(
            "The two evaluations have no utterance in common: compare the same test set, count and "
            "seed."
        )
    for a, b in pairs:
        if a.reference != b.reference:
            raise ConfigurationError(
                f"{a.name} is {a.reference!r} in one evaluation and {b.reference!r} in the other: "
                "compare the same test set, count and seed."
            )
    changes = [Change(a, b) for a, b in pairs]
    return Comparison(
        utterances=len(pairs),
        first=total_errors(a.errors for a, _ in pairs),
        second=total_errors(b.errors for _, b in pairs),
        interval=difference_interval([b.errors for _, b in pairs], [a.errors for a, _ in pairs]),
        better=sorted((c for c in changes if c.gain > 0), key=lambda c: -c.gain),
        worse=sorted((c for c in changes if c.gain < 0), key=lambda c: c.gain),
    )
