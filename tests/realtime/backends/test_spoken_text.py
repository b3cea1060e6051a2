"""What of a text is spoken, and where it stands in the original."""

import pytest

from tinyvoice.realtime.backends.spoken_text import SpeechCleaner


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("**Bold** and *it* and `code` and ~~gone~~", "Bold and it and code and gone"),
        ("# Title\n- one\n* two\n> three\n", "Title one two three"),
        ("Good 🎉👍🏽 news ❤️!", "Good news !"),
        ("See [the docs](https://x.org/a?b=c) now", "See the docs now"),
        ("![a cat](cat.png) here", "a cat here"),
        ("At https://www.example.com/path?x=1. Yes", "At example.com. Yes"),
        ("<b>very</b> good", "very good"),
        ("2 * 3 is 2*3", "2 times 3 is 2 times 3"),
        ("snake_case name", "snake case name"),
        ("| a | b |\n|---|---|\n", "a b"),
        ("It is 21°C, 5 € or 10 %.", "It is 21°C, 5 € or 10 %."),
        ("größe naïve e\u0301", "größe naïve e\u0301"),
        ("5 < 6 and 7 > 6", "5 < 6 and 7 > 6"),
        ("🎉", ""),
        ("***\n---\n", ""),
        ("...", ""),
        ("", ""),
    ],
)
def test_what_is_spoken(written: str, spoken: str) -> None:
    assert SpeechCleaner().clean(written).text == spoken


def test_code_is_left_out_across_clauses() -> None:
    cleaner = SpeechCleaner()
    clauses = ["Try this: ```python\n", "print('hi')\n", "```\n", "Then run it."]
    assert [cleaner.clean(clause).text for clause in clauses] == [
        "Try this:",
        "",
        "",
        "Then run it.",
    ]


def test_characters_keep_their_place() -> None:
    written = "  **Hello** 🎉 [dear](http://x.y) 2*3 "
    spoken = SpeechCleaner().clean(written)
    assert spoken.text == "Hello dear 2 times 3"
    for index, character in enumerate(spoken.text):
        if character != " " and not 12 < index < 18:
            assert written[spoken.origins[index]] == character
    places = [spoken.original(count) for count in range(len(spoken.text) + 1)]
    assert places == sorted(places)
    assert places[0] == 0
    assert places[5] == written.index("Hello") + len("Hello**")
    assert places[-1] == len(written)
