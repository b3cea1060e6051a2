"""Errors that change what was meant."""

import pytest

from tinyvoice.benchmark.meaning import meaning_errors, meaning_text
from tinyvoice.metrics import WordErrors


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What's the weather?", "what is the weather"),
        ("It's 25 % off!", "it is twenty five percent off"),
        ("I can't find Tom's keys.", "I cannot find toms key"),
        ("um, a dog ran", "the dogs ran"),
        ("OK, my favourite colour", "okay my favorite color"),
        ("I'd go; they'll stay", "i would go they will stay"),
        ("room 007", "room zero zero seven"),
    ],
)
def test_what_means_the_same_is_no_error(one: str, other: str) -> None:
    assert meaning_text(one) == meaning_text(other)
    assert meaning_errors(one, other).edits == 0


@pytest.mark.parametrize(
    ("reference", "hypothesis", "edits"),
    [
        ("turn the light on", "turn the light off", 1),
        ("do not call her", "do call her", 1),
        ("at seven thirty", "at seven thirteen", 1),
        ("his class", "this glass", 2),
        ("", "hello there", 2),
    ],
)
def test_what_means_another_thing_is(reference: str, hypothesis: str, edits: int) -> None:
    assert meaning_errors(reference, hypothesis).edits == edits


def test_words_are_those_of_the_reference_without_what_is_left_out() -> None:
    assert meaning_errors("um the dog", "dog") == WordErrors(0, 1)
