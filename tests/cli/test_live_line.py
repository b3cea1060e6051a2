"""The line that shows partials."""

import io

import pytest

from tinyvoice.cli.live_line import LiveLine, fitted


@pytest.mark.parametrize(
    ("stable", "tail", "room", "expected"),
    [
        ("turn on", " the", 11, ("turn on", " the")),
        ("turn on", " the", 10, ("…rn on", " the")),
        ("turn on", " the light", 8, ("", "…e light")),
        ("", "abc", 2, ("", "…c")),
        ("ab", "cd", 3, ("", "…cd")),
        ("abc", "", 0, ("…c", "")),
    ],
)
def test_the_end_of_a_long_text_is_shown(
    stable: str, tail: str, room: int, expected: tuple[str, str]
) -> None:
    assert fitted(stable, tail, room) == expected
    assert len("".join(expected)) <= max(room, 2)


def test_the_line_is_rewritten_and_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    terminal = io.StringIO()
    line = LiveLine(terminal, prefix="> ")
    line.clear()
    assert terminal.getvalue() == ""
    line.show("turn", " on")
    line.clear()
    line.clear()
    assert terminal.getvalue() == "\r\x1b[2K> turn\x1b[2m on\x1b[22m\r\x1b[2K"
