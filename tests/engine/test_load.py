"""How late an engine is: lists of what came in and when, and what follows from them."""

from __future__ import annotations

import pytest

from tinyvoice.engine.load import AHEAD_SECONDS, LOAD_SECONDS, Lateness, Pace


def live(seconds: int) -> Pace:
    """A stream that has been fed for so long, from time 0 on, in packets of 100 ms."""
    pace = Pace()
    for packet in range(10 * seconds):
        pace.fed(0.1, (packet + 1) / 10, caught_up=True)
    return pace


def test_a_live_source_waits_as_long_as_its_audio() -> None:
    pace = live(10)
    assert pace.lateness(0.0, 10.0) == 0.0
    assert pace.lateness(3.1, 10.0) == pytest.approx(3.0)


def test_what_came_at_once_was_not_waited_for() -> None:
    pace = live(10)
    pace.fed(1.5, 20.0, caught_up=True)
    # Pauses earn nothing: a second and a half more than could have been spoken.
    assert pace.ahead(20.0) == 1.5
    assert pace.lateness(1.5, 20.0) == 0.0
    assert pace.lateness(1.5, 20.5) == 0.5
    assert pace.lateness(1.5, 23.0) == 1.5


def test_a_recording_says_nothing_until_all_of_it_is_heard() -> None:
    pace = live(10)
    pace.fed(AHEAD_SECONDS + 0.1, 20.0, caught_up=True)
    assert pace.lateness(2.0, 30.0) is None
    pace.fed(0.1, 30.0, caught_up=False)
    assert pace.lateness(2.0, 30.0) is None
    pace.fed(0.1, 30.1, caught_up=True)
    assert pace.lateness(2.1, 30.1) == pytest.approx(2.0)


def test_few_late_finals_are_not_hidden_by_many_partials() -> None:
    lateness = Lateness()
    for _ in range(100):
        lateness.note("partial", 0.1, 5.0)
    assert lateness.typical([], 5.0) == 0.1
    for late in (2.0, 3.0, 4.0):
        lateness.note("final", late, 5.0)
    assert lateness.typical([], 5.0) == 3.0


def test_who_waits_now_counts_now() -> None:
    lateness = Lateness()
    lateness.note("partial", 0.5, 5.0)
    assert lateness.typical([4.0, 0.1, 6.0, None], 5.0) == 4.0
    assert lateness.typical([None], 5.0) == 0.5


def test_after_some_seconds_it_is_forgotten() -> None:
    lateness = Lateness()
    lateness.note("partial", 9.0, 5.0)
    lateness.note("final", 9.0, 6.0)
    lateness.note("final", None, 6.0)
    assert lateness.typical([], 5.0 + LOAD_SECONDS) == 9.0
    assert lateness.typical([], 6.1 + LOAD_SECONDS) == 0.0
    lateness.note("partial", 9.0, 20.0)
    lateness.clear()
    assert lateness.typical([], 20.0) == 0.0
