"""Tests of training.evaluation.word_times."""

import pytest

from tinyvoice.model.transcript import Word
from training.evaluation.word_times import MatchedWord, match_words, time_errors

REFERENCE = (("turn", 0.1, 0.3), ("on", 0.3, 0.4), ("the", 0.4, 0.5), ("light", 0.5, 0.9))


def word(text: str, start: float, end: float) -> Word:
    return Word(text, start, end, 1.0)


def test_equal_words_are_paired_in_order() -> None:
    heard = [word("Turn", 0.12, 0.3), word("on", 0.3, 0.45), word("light.", 0.4, 0.9)]
    matched = match_words(REFERENCE, heard)
    assert [entry.text for entry in matched] == ["turn", "on", "light"]
    assert matched[0].start_error == pytest.approx(0.02)
    assert matched[1].end_error == pytest.approx(0.05)
    assert matched[2].start_error == pytest.approx(-0.1)


def test_misheard_words_are_not_compared() -> None:
    heard = [word("burn", 0.1, 0.3), word("on", 0.3, 0.4), word("a", 0.4, 0.5)]
    assert [entry.text for entry in match_words(REFERENCE, heard)] == ["on"]


def test_a_word_read_as_several_is_passed_over() -> None:
    reference = (("at", 0.0, 0.2), ("7:30", 0.2, 0.8), ("now", 0.8, 1.0))
    heard = [word("at", 0.0, 0.2), word("7:30", 0.2, 0.8), word("now", 0.8, 1.0)]
    assert [entry.text for entry in match_words(reference, heard)] == ["at", "now"]


def test_errors_are_absolute_and_in_milliseconds() -> None:
    errors = time_errors([MatchedWord("a", -0.02, 0.04), MatchedWord("b", 0.02, -0.08)])
    assert errors is not None
    assert errors.words == 2
    assert (errors.start_median_ms, errors.end_median_ms) == (20.0, 60.0)
    assert errors.median_ms == 30.0
    assert errors.end_p95_ms == 78.0


def test_nothing_matched_has_no_errors() -> None:
    assert match_words(REFERENCE, []) == ()
    assert time_errors([]) is None
