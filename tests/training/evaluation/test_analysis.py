"""Tests of training.evaluation.analysis."""

import pytest

from tinyvoice.errors import ConfigurationError
from training.evaluation.analysis import (
    RARE,
    compare_results,
    entity_errors,
    high_error_utterances,
)
from training.evaluation.evaluate import Result
from training.evaluation.wer import word_errors


def result(name: str, reference: str, hypothesis: str, error: str | None = None) -> Result:
    errors = word_errors(reference, hypothesis)
    return Result(name, "", reference, hypothesis, errors, 1.0, 0.1, 0.9, error=error)


def test_high_error_utterances_come_worst_first() -> None:
    results = [
        result("fine", "one two three", "one two three"),
        result("half", "one two", "one too"),
        result("lost", "one two", ""),
        result("absent", "one two", "", error="no such file"),
    ]
    assert [r.name for r in high_error_utterances(results, 0.5)] == ["lost", "half"]
    assert [r.name for r in high_error_utterances(results, 0.6)] == ["lost"]


def test_entity_errors_count_missed_words_of_each_class() -> None:
    results = [
        result("1", "seven am on monday", "eleven am on monday"),
        result("2", "seven dollars", "seven dollars"),
        result("3", "ask zoe for seven", "ask so for"),
    ]
    found = {entity.entity: entity for entity in entity_errors(results)}
    assert (found["number"].words, found["number"].missed) == (3, 2)
    assert set(found["number"].confusions) == {("seven", "eleven", 1), ("seven", "", 1)}
    assert (found["time"].words, found["time"].missed) == (1, 0)
    assert (found["date"].words, found["money"].words) == (1, 1)
    assert "letter" not in found
    assert ("zoe", "so", 1) in found[RARE].confusions
    assert found["number"].rate == pytest.approx(2 / 3)


def test_possessives_belong_to_their_word() -> None:
    found = {e.entity: e for e in entity_errors([result("1", "monday's list", "monday's list")])}
    assert found["date"].words == 1


def test_comparison_pairs_by_name() -> None:
    first = [result("a", "x y", "x"), result("b", "x y", "x y"), result("only", "x", "x")]
    second = [result("b", "x y", "q q"), result("a", "x y", "x y")]
    comparison = compare_results(first, second)
    assert comparison.utterances == 2
    assert (comparison.first.total, comparison.second.total) == (1, 2)
    assert [change.first.name for change in comparison.better] == ["a"]
    assert [(c.first.name, c.gain) for c in comparison.worse] == [("b", -2)]
    assert comparison.interval[0] <= 0.25 <= comparison.interval[1]
    assert not comparison.significant


def test_a_difference_in_every_utterance_is_significant() -> None:
    first = [result(str(i), "x y", "x") for i in range(30)]
    second = [result(str(i), "x y", "x y") for i in range(30)]
    comparison = compare_results(first, second)
    assert comparison.significant
    assert comparison.interval == (-0.5, -0.5)


def test_evaluations_of_different_sets_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="no utterance in common"):
        compare_results([result("a", "x", "x")], [result("b", "x", "x")])
    with pytest.raises(ConfigurationError, match="'x' in one evaluation and 'y'"):
        compare_results([result("a", "x", "x")], [result("a", "y", "y")])
