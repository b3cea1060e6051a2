"""How long a stream's listener waits, told to an observer.

One stream's arrivals (so much audio had come in by then) and events go in, the delays of
`tinyvoice.metrics` come out. It reads no clock: times are given to it.
"""

from __future__ import annotations

from collections import deque

from tinyvoice.engine.events import Cleared, Event, Final, Partial, SpeechStarted, UtteranceFailed
from tinyvoice.engine.observer import SafeObserver

REMEMBERED_PACKETS = 4_096
"""More than a minute of packets of 20 ms: no event is about older audio than that."""


class Delays:
    """Turns one stream's packets and events into the observer's delays; wall times in seconds."""

    def __init__(self, observer: SafeObserver) -> None:
        self._observer = observer
        self._packets: deque[tuple[float, float]] = deque(maxlen=REMEMBERED_PACKETS)
        self._onset: tuple[int, float, float] | None = None
        """Of the utterance without text: number, audio time and wall time of its onset."""

    def fed(self, audio_s: float, now: float) -> None:
        """A packet has come in, and the stream is ``audio_s`` long."""
        self._packets.append((audio_s, now))

    def delivered(self, event: Event, now: float) -> None:
        """An event can be read."""
        if isinstance(event, SpeechStarted):
            self._onset = event.utterance, event.time, self._came_in(event.time, now)
        elif isinstance(event, Partial | Final) and event.text.strip():
            self._tell_first(event, now)
        if isinstance(event, Final):
            self._observer.time_to_final(now - self._came_in(event.at, now))
        if isinstance(event, Final | UtteranceFailed | Cleared):
            self._forget(event.utterance)

    def _tell_first(self, event: Partial | Final, now: float) -> None:
        if self._onset is not None and self._onset[0] == event.utterance:
            _, time, wall = self._onset
            self._observer.first_partial(event.at - time, now - wall)
            self._onset = None

    def _forget(self, utterance: int) -> None:
        if self._onset is not None and self._onset[0] <= utterance:
            self._onset = None

    def _came_in(self, audio_s: float, now: float) -> float:
        """When the packet came in that reaches an audio time."""
        found = now
        for end, wall in reversed(self._packets):
            if end < audio_s - 1e-9:
                break
            found = wall
        return found
