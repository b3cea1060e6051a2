"""What an engine tells a program that keeps figures: loads, batches and delays as they happen.

Names and definitions are those of `tinyvoice.metrics`; sums and percentiles are the observer's
affair. Nothing said is told here: that is what events are for.
"""

from __future__ import annotations

import logging
from typing import Any, Literal, Protocol

logger = logging.getLogger(__name__)

BatchKind = Literal["encode", "partial", "final"]
Refusal = Literal["full", "overloaded"]


class EngineObserver(Protocol):
    """Told by an engine what it does.

    `batch` and `queue` are called in the engine's worker, the others in its event loop, so that an
    observer has to bear calls from two threads; the counters of the usual metrics libraries do.
    Every call is made while somebody waits for text: return in microseconds, and do no I/O. What a
    call raises is logged, and changes nothing.
    """

    def batch(self, kind: BatchKind, size: int, seconds: float) -> None:
        """The model has worked on ``size`` streams at once.

        ``partial``: brought their hypotheses up to date, from new audio to text; ``encode``: the
        part of it that the encoder took; ``final``: made final passes, early ones included.
        """

    def queue(self, streams: int, pending_s: float) -> None:
        """A step begins: streams that wait for something, and seconds of audio not heard yet.

        The audio is that of all open streams together.
        """

    def refused(self, reason: Refusal) -> None:
        """A stream was not opened: all are taken, or the model falls behind."""

    def restarted(self) -> None:
        """The worker died and is being replaced."""

    def first_partial(self, audio_s: float, wall_s: float) -> None:
        """The first text of an utterance is delivered, so long after the onset of its speech.

        ``audio_s`` counts the audio from the onset to what the text is made of; ``wall_s`` the time
        since the packet with the onset came in.
        """

    def time_to_final(self, seconds: float) -> None:
        """A final is delivered, so long after the packet that let the end be decided came in.

        Where a `commit` ended the utterance, that is the last packet before it.
        """


class SafeObserver:
    """Hands everything on to one observer or none; what that raises is logged.

    It has the methods of `EngineObserver`.
    """

    def __init__(self, observer: EngineObserver | None) -> None:
        self.observer = observer

    def batch(self, kind: BatchKind, size: int, seconds: float) -> None:
        """See `EngineObserver.batch`."""
        self._tell("batch", kind, size, seconds)

    def queue(self, streams: int, pending_s: float) -> None:
        """See `EngineObserver.queue`."""
        self._tell("queue", streams, pending_s)

    def refused(self, reason: Refusal) -> None:
        """See `EngineObserver.refused`."""
        self._tell("refused", reason)

    def restarted(self) -> None:
        """See `EngineObserver.restarted`."""
        self._tell("restarted")

    def first_partial(self, audio_s: float, wall_s: float) -> None:
        """See `EngineObserver.first_partial`."""
        self._tell("first_partial", audio_s, wall_s)

    def time_to_final(self, seconds: float) -> None:
        """See `EngineObserver.time_to_final`."""
        self._tell("time_to_final", seconds)

    def _tell(self, name: str, *values: Any) -> None:
        if self.observer is None:
            return
        try:
            getattr(self.observer, name)(*values)
        except Exception:
            logger.exception("the observer of the engine raised in %s", name)
