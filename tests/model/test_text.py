import pytest

from tinyvoice.model.text import clean_transcript, cut_trailing_repetition, strip_thinking


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("turn it on", "turn it on"),
        ("go to to to", "go to"),
        ("go to to", "go to to"),
        ("no No NO", "no"),
        ("the the the end", "the the the end"),
        ("i am sorry i am sorry I am Sorry", "i am sorry"),
        ("well i am sorry i am sorry", "well i am sorry i am sorry"),
        ("dial 444444", "dial 4"),
        ("dial 44", "dial 44"),
        ("a b a b a b a b", "a b"),
        ("don't don't don't", "don't"),
        ("two  spaces   kept", "two  spaces   kept"),
    ],
)
def test_cut_trailing_repetition(text: str, expected: str) -> None:
    assert cut_trailing_repetition(text) == expected


@pytest.mark.parametrize("length", [2, 5, 20])
def test_phrases_of_two_to_twenty_words_are_cut(length: int) -> None:
    phrase = " ".join(f"w{index}x" for index in range(length))
    assert cut_trailing_repetition(f"so {phrase} {phrase} {phrase}") == f"so {phrase}"


def test_a_longer_phrase_is_left() -> None:
    phrase = " ".join(f"w{index}x" for index in range(21))
    text = f"{phrase} {phrase} {phrase}"
    assert cut_trailing_repetition(text) == text


def test_cutting_twice_changes_nothing_more() -> None:
    once = cut_trailing_repetition("x a b a b a b")
    assert cut_trailing_repetition(once) == once == "x a b"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\n\n</think>\n\nhello", "hello"),
        ("<think>so</think>a <think>b</think>c", "a c"),
        ("hello <think>never closed", "hello"),
        ("rest of a thought</think> hello", "hello"),
        ("  hello ", "hello"),
    ],
)
def test_strip_thinking(text: str, expected: str) -> None:
    assert strip_thinking(text) == expected


def test_clean_transcript_does_both() -> None:
    assert clean_transcript("<think>hm</think> stop stop stop") == "stop"
