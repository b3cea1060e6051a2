"""Delays of one stream, from lists of packets and events."""

from __future__ import annotations

import pytest

from tinyvoice.engine.delays import Delays
from tinyvoice.engine.errors import UtteranceFailedError
from tinyvoice.engine.events import (
    Final,
    Partial,
    SpeechEnded,
    SpeechStarted,
    UtteranceFailed,
)
from tinyvoice.engine.observer import SafeObserver
from tinyvoice.metrics import METRICS


class Heard:
    """Keeps the delays it is told."""

    def __init__(self) -> None:
        self.first: list[tuple[float, float]] = []
        self.final: list[float] = []

    def first_partial(self, audio_s: float, wall_s: float) -> None:
        self.first.append((audio_s, wall_s))

    def time_to_final(self, seconds: float) -> None:
        self.final.append(seconds)


def final(utterance: int, text: str, at: float) -> Final:
    return Final(utterance, text, (), 0.0, at, 0.9, 0.0, at, at)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def delays(heard: Heard) -> Delays:
    """A tenth of a second of audio at every tenth of a second from 100 on."""
    delays = Delays(SafeObserver(heard))  # type: ignore[arg-type]
    for packet in range(1, 31):
        delays.fed(packet / 10, 100 + packet / 10)
    return delays


def test_the_names_are_those_of_the_metrics(heard: Heard) -> None:
    assert all(hasattr(heard, name) for name in ("first_partial", "time_to_final"))
    assert {"first_partial", "time_to_final"} <= set(METRICS)


def test_of_an_utterance(delays: Delays, heard: Heard) -> None:
    delays.delivered(SpeechStarted(0, 1.05, 1.2), 101.25)
    delays.delivered(Partial(0, "", "", 1.4), 101.5)  # nothing to read yet
    delays.delivered(Partial(0, "", "so", 1.7), 101.75)
    delays.delivered(Partial(0, "so", " it", 2.0), 102.1)
    delays.delivered(SpeechEnded(0, 2.0, 2.5), 102.6)
    delays.delivered(final(0, "so it is", 2.5), 102.625)
    # The onset came with the packet that ends at 1.1, the decision with the one that ends at 2.5.
    assert heard.first == [(pytest.approx(0.65), pytest.approx(0.65))]
    assert heard.final == [pytest.approx(0.125)]


def test_a_final_counts_where_there_was_no_partial(delays: Delays, heard: Heard) -> None:
    delays.delivered(SpeechStarted(0, 1.0, 1.2), 101.25)
    delays.delivered(final(0, "yes", 2.0), 102.5)
    assert heard.first == [(pytest.approx(1.0), pytest.approx(1.5))]


def test_no_text_is_no_first_text(delays: Delays, heard: Heard) -> None:
    delays.delivered(SpeechStarted(0, 1.0, 1.2), 101.25)
    delays.delivered(final(0, "", 2.0), 102.5)
    delays.delivered(SpeechStarted(1, 2.1, 2.2), 102.5)
    delays.delivered(UtteranceFailed(1, UtteranceFailedError("no"), 2.5), 102.6)
    assert heard.first == []
    assert len(heard.final) == 1
