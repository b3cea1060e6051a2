"""Subtitles: limits of cues hold for any words, and both formats are written as specified."""

import re
from dataclasses import dataclass

import numpy as np
import pytest

from tinyvoice.subtitles import (
    LINE_CHARACTERS,
    LINES,
    Cue,
    format_srt,
    format_vtt,
    make_cues,
    spread_words,
)


@dataclass(frozen=True)
class Word:
    text: str
    start: float
    end: float


def spoken(text: str, start: float = 0.0, seconds: float = 0.3) -> list[Word]:
    return [
        Word(word, start + index * seconds, start + (index + 0.9) * seconds)
        for index, word in enumerate(text.split())
    ]


def test_a_short_sentence_is_one_cue() -> None:
    cues = make_cues(spoken("turn off the lights", start=1.0))
    assert cues == [Cue(1000, 2170, ("turn off the lights",))]


def test_a_cue_stays_for_a_second_where_there_is_room() -> None:
    assert make_cues([Word("yes", 0.5, 0.7)]) == [Cue(500, 1500, ("yes",))]
    assert make_cues([Word("yes", 0.0, 0.2), Word("no", 0.85, 1.0)]) == [
        Cue(0, 850, ("yes",)),
        Cue(850, 1850, ("no",)),
    ]


def test_a_pause_separates_cues_and_a_breath_does_not() -> None:
    words = [Word("one", 0.0, 1.0), Word("two", 1.5, 2.5), Word("three", 3.2, 4.5)]
    assert [cue.lines for cue in make_cues(words)] == [("one two",), ("three",)]


def test_two_lines_are_as_even_as_they_can_be() -> None:
    (cue,) = make_cues(spoken("what is the weather going to be like in new york on friday", 0, 0.2))
    assert cue.lines == ("what is the weather going to", "be like in new york on friday")


def test_long_speech_is_cut_after_punctuation() -> None:
    text = "first of all I would like to thank everybody here. now let us look at the second part"
    assert [" ".join(cue.lines) for cue in make_cues(spoken(text, seconds=0.25))] == [
        "first of all I would like to thank everybody here.",
        "now let us look at the second part",
    ]


def test_a_word_longer_than_a_line_is_cut() -> None:
    (cue,) = make_cues([Word("x" * 60, 0.0, 2.0)])
    assert cue.lines == ("x" * 42, "x" * 18)


def test_no_words_no_cues() -> None:
    assert make_cues([]) == []
    assert make_cues([Word("  ", 0.0, 1.0)]) == []
    assert format_srt([]) == ""
    assert format_vtt([]) == "WEBVTT\n"


@pytest.mark.parametrize("seed", range(20))
def test_limits_hold_for_any_words(seed: int) -> None:
    random = np.random.default_rng(seed)
    words, now = [], 0.0
    for _ in range(300):
        text = "".join(
            random.choice(list("abcdefg.,&<"), random.integers(1, 100 if seed % 2 else 9))
        )
        start = now + random.choice([0.0, 0.05, 0.5, 2.0], p=[0.5, 0.4, 0.05, 0.05])
        now = start + random.choice([0.0, 0.001, 0.3, 9.0], p=[0.02, 0.03, 0.94, 0.01])
        words.append(Word(text, start, now))
    cues = make_cues(words)
    shown = "".join("".join(cue.lines) for cue in cues).replace(" ", "")
    assert shown == "".join(word.text for word in words)
    for cue, following in zip(cues, [*cues[1:], None], strict=True):
        assert 1 <= len(cue.lines) <= LINES
        assert all(0 < len(line) <= LINE_CHARACTERS for line in cue.lines)
        assert cue.start < cue.end <= cue.start + 7000
        assert following is None or cue.end <= following.start


def test_an_hour_without_a_pause_is_quick_enough_to_finish() -> None:
    cues = make_cues(spoken("word " * 12_000))
    assert cues[-1].end == pytest.approx(3_600_000, abs=1000)
    assert max(cue.end - cue.start for cue in cues) <= 7000


def test_srt_is_numbered_and_uses_commas() -> None:
    cues = [Cue(0, 1500, ("one", "two")), Cue(3_723_004, 3_724_000, ("a --> b",))]
    assert format_srt(cues) == (
        "1\n00:00:00,000 --> 00:00:01,500\none\ntwo\n\n2\n01:02:03,004 --> 01:02:04,000\na -> b\n"
    )


def test_vtt_has_its_header_and_escapes() -> None:
    cues = [Cue(0, 1500, ("<b> & -->",)), Cue(1500, 360_000_000, ("x",))]
    assert format_vtt(cues) == (
        "WEBVTT\n"
        "\n00:00:00.000 --> 00:00:01.500\n&lt;b&gt; &amp; --&gt;\n"
        "\n00:00:01.500 --> 100:00:00.000\nx\n"
    )


def test_times_are_spread_where_none_were_measured() -> None:
    pieces = spread_words("a bbb", 4.0)
    assert [(piece.text, piece.start, piece.end) for piece in pieces] == [
        ("a", 0.0, 1.0),
        ("bbb", 1.0, 4.0),
    ]
    assert spread_words("", 4.0) == []


def test_every_time_line_matches_the_grammar() -> None:
    cues = make_cues(spoken("some words to be shown " * 20))
    pattern = re.compile(r"\d{2,}:[0-5]\d:[0-5]\d[.,]\d{3} --> \d{2,}:[0-5]\d:[0-5]\d[.,]\d{3}")
    for text in (format_srt(cues), format_vtt(cues)):
        lines = [line for line in text.splitlines() if "-->" in line]
        assert len(lines) == len(cues)
        assert all(pattern.fullmatch(line) for line in lines)
