"""Tests of training.evaluation.wer."""

import pytest

from training.evaluation.wer import (
    AlignedWord,
    WordErrors,
    align_words,
    bootstrap_interval,
    difference_interval,
    total_errors,
    word_errors,
)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors"),
    [
        ("turn on the light", "turn on the light", WordErrors(words=4)),
        ("turn on the light", "turn off the light", WordErrors(substitutions=1, words=4)),
        ("turn on the light", "turn the light", WordErrors(deletions=1, words=4)),
        ("turn on the light", "turn on the big light", WordErrors(insertions=1, words=4)),
        ("turn on the light", "", WordErrors(deletions=4, words=4)),
        ("", "hello there", WordErrors(insertions=2)),
        ("", "", WordErrors()),
        # normalisation belongs to both sides
        ("What's 200 + 3.5?", "what's two hundred plus three point five", WordErrors(words=7)),
        ("seven thirty pm", "7:30 p.m.", WordErrors(words=3)),
    ],
)
def test_counts_edits(reference: str, hypothesis: str, errors: WordErrors) -> None:
    assert word_errors(reference, hypothesis) == errors


def test_alignment_names_each_word_and_its_place() -> None:
    assert align_words(["a", "b", "c"], ["a", "x", "c", "d"]) == [
        AlignedWord("equal", "a", "a", 0, 0),
        AlignedWord("substitute", "b", "x", 1, 1),
        AlignedWord("equal", "c", "c", 2, 2),
        AlignedWord("insert", None, "d", None, 3),
    ]
    assert align_words(["a"], []) == [AlignedWord("delete", "a", None, 0, None)]
    assert align_words([], ["a"]) == [AlignedWord("insert", None, "a", None, 0)]


def test_rate_of_a_set_weighs_utterances_by_their_words() -> None:
    errors = [WordErrors(substitutions=1, words=1), WordErrors(words=9)]
    assert total_errors(errors) == WordErrors(substitutions=1, words=10)
    assert total_errors(errors).rate == 0.1


def test_rate_without_reference_words() -> None:
    assert WordErrors().rate == 0.0
    assert WordErrors(insertions=3).rate == 1.0


def test_interval_holds_the_rate_and_narrows_with_more_utterances() -> None:
    pattern = [WordErrors(substitutions=1, words=10), WordErrors(words=10)]
    low, high = bootstrap_interval(pattern * 20)
    narrow_low, narrow_high = bootstrap_interval(pattern * 500)
    assert low < narrow_low < 0.05 < narrow_high < high
    assert bootstrap_interval(pattern * 20) == (low, high)
    assert bootstrap_interval(pattern * 20, level=0.5) != (low, high)


def test_interval_of_utterances_that_are_all_alike_is_a_point() -> None:
    assert bootstrap_interval([WordErrors(deletions=2, words=8)] * 5) == (0.25, 0.25)
    assert bootstrap_interval([]) == (0.0, 0.0)
    assert bootstrap_interval([WordErrors(insertions=2)]) == (0.0, 0.0)


def test_paired_difference_leaves_out_what_is_hard_for_both() -> None:
    hard, easy = WordErrors(substitutions=9, words=10), WordErrors(words=10)
    one_better = WordErrors(substitutions=8, words=10)
    first, second = [hard, easy] * 50, [one_better, easy] * 50
    low, high = difference_interval(first, second)
    assert 0 < low < 0.05 < high < 0.1
