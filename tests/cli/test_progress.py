"""The progress bar: silent where nobody watches, late for short work, never in the way of text."""

import io
from contextlib import redirect_stderr

import pytest

from tinyvoice.cli import progress
from tinyvoice.cli.progress import Activity, hidden


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def wait_for_bar(activity: Activity) -> None:
    timer = activity._timer
    assert timer is not None
    timer.join()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def test_nothing_is_shown_where_standard_error_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PATIENCE_S", 0.0)
    with Activity("Working", total=2) as activity:
        activity.describe("Still working")
        activity.advance()
    assert capsys.readouterr() == ("", "")


def test_short_work_shows_nothing(terminal: Terminal) -> None:
    with redirect_stderr(terminal), Activity("Working", total=2) as activity:
        activity.advance()
        assert activity._timer is not None  # it would come, had it taken longer
    assert terminal.getvalue() == ""


def test_long_work_is_shown_and_wiped_away(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PATIENCE_S", 0.0)
    with redirect_stderr(terminal), Activity("Working", total=2) as activity:
        wait_for_bar(activity)
        activity.describe("Transcribing [bold].wav")
        activity.advance()
    shown = terminal.getvalue()
    assert "Transcribing [bold].wav" in shown
    assert "1/2" in shown
    assert shown.rstrip("\n").endswith("\x1b[2K")  # the line is erased in the end


def test_what_is_under_way_is_part_of_what_is_done(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PATIENCE_S", 0.0)
    with redirect_stderr(terminal), Activity("Working", total=2) as activity:
        wait_for_bar(activity)
        activity.under_way(0.5)
        with hidden():  # and shown again, without waiting for the bar's next refresh
            pass
        activity.advance()
        activity.under_way(0.75)
        with hidden():
            pass
    shown = terminal.getvalue()
    assert shown.index("25%") < shown.index("88%")
    assert "1/2" in shown


def test_text_is_written_while_the_bar_is_away(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PATIENCE_S", 0.0)
    with redirect_stderr(terminal), Activity("Working", total=2) as activity:
        wait_for_bar(activity)
        with hidden():
            terminal.write("<text>\n")
    before, after = terminal.getvalue().split("<text>\n")
    assert before.endswith("\x1b[2K")
    assert "Working" in before
    assert "Working" in after


def test_without_work_text_is_simply_written(terminal: Terminal) -> None:
    with hidden():
        terminal.write("text")
    assert terminal.getvalue() == "text"


def test_the_time_that_is_left_follows_from_the_pace() -> None:
    assert progress._left(50, 200, 60.0) == "3:00 left"
    assert progress._left(0.5, 1, 7.0) == "0:07 left"
    assert progress._left(0, 200, 60.0) == ""
    assert progress._left(200, 200, 60.0) == ""
    assert progress._left(5, None, 60.0) == ""
