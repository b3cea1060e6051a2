"""How far an engine is behind the people who talk to it.

Lateness is counted in seconds that a live source has been waiting: audio that it could not have
said yet, because a packet brought several seconds at once, does not count. `Pace` knows that of one
stream, `Lateness` gathers what all of them waited for. Neither reads a clock: times are given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from statistics import median

LOAD_SECONDS = 3.0
"""What came late in the last seconds says whether the engine keeps up."""

AHEAD_SECONDS = 2.0
"""A stream this much ahead of real time is a recording, and says nothing about keeping up."""


class Pace:
    """How much faster than speech a stream's audio comes in."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._at = 0.0
        self._recording = False

    def fed(self, seconds: float, now: float, *, caught_up: bool) -> None:
        """So much audio has come in; ``caught_up`` where all audio before it had been heard."""
        self._ahead = self.ahead(now) + seconds
        self._at = now
        if caught_up:
            self._recording = False
        if self._ahead > AHEAD_SECONDS:
            # Until all of it has been heard: what waits behind a flood was not waited for.
            self._recording = True

    def ahead(self, now: float) -> float:
        """Seconds of audio that came in before they could have been spoken."""
        return max(0.0, self._ahead - (now - self._at))

    def lateness(self, behind: float, now: float) -> float | None:
        """How long a live source waits that is ``behind`` by so many seconds of its audio.

        None for a recording.
        """
        return None if self._recording else max(0.0, behind - self.ahead(now))


class Lateness:
    """What came late in the last seconds, partials and finals apart.

    Apart, since the many partials of streams that are served must not hide a few finals that are
    not, nor the other way round.
    """

    def __init__(self) -> None:
        self._noted: dict[str, deque[tuple[float, float]]] = {
            "partial": deque(),
            "final": deque(),
        }

    def note(self, kind: str, seconds: float | None, now: float) -> None:
        """A ``partial`` or ``final`` came so late; None is left out."""
        if seconds is not None:
            self._noted[kind].append((now, seconds))

    def typical(self, waiting: Iterable[float | None], now: float) -> float:
        """The largest of three medians: partials', finals', and that of streams that wait now.

        0 where nobody says anything.
        """
        late = [seconds for seconds in waiting if seconds is not None]
        medians = [median(late)] if late else []
        for noted in self._noted.values():
            while noted and noted[0][0] < now - LOAD_SECONDS:
                noted.popleft()
            if noted:
                medians.append(median(seconds for _, seconds in noted))
        return max(medians, default=0.0)

    def clear(self) -> None:
        """Forget everything."""
        for noted in self._noted.values():
            noted.clear()
