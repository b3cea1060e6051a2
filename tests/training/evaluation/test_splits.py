"""Tests of training.evaluation.splits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from training.evaluation.splits import SplitErrors, split_errors

WORDS = tuple((word, at * 1.0, at + 0.8) for at, word in enumerate("a b c d e f g h".split()))
"""Spoken a second apart, from 0 on."""
NONE = SplitErrors(splits=1, near_words=2, far_words=6)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a b c d e f g h", {}),
        ("a b c e f g h", {"near_lost": 1}),
        ("a b c f g h", {"near_lost": 2}),
        ("a b c d d e f g h", {"near_added": 1}),
        ("a b c d e d e f g h", {"near_added": 2}),
        ("b c d e f g h", {"far_lost": 1}),
        ("a a b c d e f g h", {"far_added": 1}),
        ("a b c x e f g h", {}),
        ("", {"near_lost": 2, "far_lost": 6}),
    ],
)
def test_words_close_to_a_cut_are_told_from_those_elsewhere(
    text: str, found: dict[str, int]
) -> None:
    # Between d (3.0 to 3.8) and e (4.0 to 4.8): c ended 1.1 s before, f begins 1.1 s after.
    assert split_errors(WORDS, text, [3.9]) == replace(NONE, **found)


def test_figures_of_several_clips_add_up() -> None:
    one = split_errors(WORDS, "a b c d d e f g h", [3.9])
    assert one is not None
    assert one + one == SplitErrors(splits=2, near_words=4, near_added=2, far_words=12)


def test_words_that_normalisation_takes_apart_have_no_times() -> None:
    assert split_errors((("$5", 0.0, 1.0),), "five dollars", [0.5]) is None
