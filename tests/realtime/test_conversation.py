"""Which words of an answer were heard."""

from __future__ import annotations

import pytest

from tinyvoice.realtime.conversation import Speech


def speech(*marks: tuple[float, int], complete: bool = True) -> Speech:
    """Two seconds of speech."""
    made = Speech("One, two. Three.", 2_000.0, complete=complete)
    for mark in marks:
        made.mark(*mark)
    return made


@pytest.mark.parametrize(
    ("heard_ms", "text"),
    [
        (0, ""),
        (499, ""),
        (500, "One,"),
        (1_099, "One,"),
        (1_100, "One, two."),
        (1_999, "One, two. Three."),
        (2_000, "One, two. Three."),
        (9_000, "One, two. Three."),
        (-5, ""),
    ],
)
def test_with_word_times(heard_ms: float, text: str) -> None:
    made = speech((500.0, 5), (1_100.0, 9), (1_900.0, 16))
    made.cut(heard_ms)
    assert made.heard_text == text


@pytest.mark.parametrize(
    ("heard_ms", "text"),
    [
        (0, ""),
        (300, ""),
        (600, "One,"),
        (1_000, "One,"),
        (1_200, "One, two."),
        (2_000, "One, two. Three."),
    ],
)
def test_without_word_times_the_voice_is_taken_to_speak_evenly(heard_ms: float, text: str) -> None:
    made = speech()
    made.cut(heard_ms)
    assert made.heard_text == text


def test_what_was_heard_becomes_only_less() -> None:
    made = speech((500.0, 5), (1_100.0, 9))
    made.cut(600)
    made.cut(1_500)
    assert made.heard_text == "One,"


def test_marks_only_go_on() -> None:
    made = speech((500.0, 5), (400.0, 9), (600.0, 3))
    assert made.marks == [(500.0, 5)]


def test_text_without_audio_was_not_heard() -> None:
    made = Speech("Never said.")
    made.cut(0)
    assert made.heard_text == ""


def test_all_is_heard_unless_somebody_says_otherwise() -> None:
    assert speech().heard_text == "One, two. Three."
