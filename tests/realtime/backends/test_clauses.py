"""Where text that is being written is cut."""

import random

import pytest

from tinyvoice.realtime.backends.clauses import (
    COMFORTABLE,
    FIRST_LONGEST,
    LONGEST,
    ClauseCutter,
)


def cut(text: str, size: int = 1) -> list[str]:
    cutter = ClauseCutter()
    clauses = [c for at in range(0, len(text), size) for c in cutter.feed(text[at : at + size])]
    return clauses + cutter.flush()


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("Yes. It is so.", ["Yes. ", "It is so."]),
        ("What? No! Well…", ["What? ", "No! ", "Well…"]),
        ('He said "Go." Then he left.', ['He said "Go." ', "Then he left."]),
        ("Ask Dr. Smith, of St. Mary, please.", ["Ask Dr. Smith, ", "of St. Mary, please."]),
        (
            "It costs 3.50 or 1,250.75 in all. Good.",
            ["It costs 3.50 or 1,250.75 in all. ", "Good."],
        ),
        ("Use it, e.g. at 5 p.m. or so. Bye.", ["Use it, e.g. at 5 p.m. or so. ", "Bye."]),
        ("Come at 5 p.m. We wait.", ["Come at 5 p.m. ", "We wait."]),
        ("Is it no. 5? No. Not so.", ["Is it no. 5? ", "No. ", "Not so."]),
        ("I met J. Smith. He is fine.", ["I met J. Smith. ", "He is fine."]),
        ("So do I. And you?", ["So do I. ", "And you?"]),
        ("1. Apples\n2. Pears\n", ["1. Apples\n", "2. Pears\n"]),
        ("There are 5. Take 2.", ["There are 5. ", "Take 2."]),
        ("... so. Yes", ["... so. ", "Yes"]),
        ("你好。你好吗？很好", ["你好。", "你好吗？", "很好"]),
        ("", []),
        ("   ", ["   "]),
    ],
)
def test_sentences_end_where_they_end(text: str, clauses: list[str]) -> None:
    assert cut(text) == clauses


def test_the_first_clause_leaves_at_its_first_comma() -> None:
    cutter = ClauseCutter()
    assert cutter.feed("Of course I can, ") == ["Of course I can, "]
    assert cutter.feed("and I will do it right away, ") == []


def test_a_comma_after_too_little_is_no_end() -> None:
    assert cut("Yes, I can. Good.") == ["Yes, I can. ", "Good."]


def test_a_clause_is_known_with_the_character_after_it() -> None:
    cutter = ClauseCutter()
    assert cutter.feed("All right.") == []
    assert cutter.feed(" ") == ["All right. "]
    assert cutter.feed("Next one!\n") == ["Next one!\n"]


def test_words_without_marks_are_cut_between_words() -> None:
    clauses = cut("word " * 200)
    assert len(clauses[0]) <= FIRST_LONGEST
    assert all(len(clause) <= LONGEST for clause in clauses)
    assert all(clause.endswith("word ") and clause.startswith("word") for clause in clauses)


def test_a_long_sentence_is_cut_at_a_comma() -> None:
    clauses = cut("Hello. " + "some words of it, " * 20)
    assert all(clause.endswith(", ") for clause in clauses[1:])
    assert all(COMFORTABLE <= len(clause) <= LONGEST for clause in clauses[1:-1])


def test_a_word_without_end_is_cut() -> None:
    assert max(map(len, cut("x" * 1000))) <= LONGEST


def test_clauses_joined_are_the_text() -> None:
    draw = random.Random(0)
    for _ in range(300):
        text = "".join(
            draw.choices(["a", "Dr", "3", ".", ",", " ", "\n", "!", '"', "。", "—"], k=200)
        )
        assert "".join(cut(text, draw.randint(1, 9))) == text
