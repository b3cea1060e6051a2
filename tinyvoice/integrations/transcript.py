"""What a recogniser service hands out for an utterance, whatever framework asks."""

from __future__ import annotations

from dataclasses import dataclass

from tinyvoice.engine.events import Final, Partial
from tinyvoice.model.transcript import Word


@dataclass(frozen=True)
class LiveTranscript:
    """The text of one utterance: as far as it is understood, or the whole of it.

    Times are seconds on the stream's audio clock (samples received, divided by the sample rate).
    """

    text: str
    final: bool
    stable: str
    """The part that will not change; all of the text where ``final``."""
    utterance: int
    words: tuple[Word, ...] = ()
    """Words with times and confidence; only with ``final``."""
    start: float | None = None
    end: float | None = None
    confidence: float | None = None
    """Geometric mean of the probabilities of all tokens, 0 to 1; only with ``final``."""
    audio_secs: float | None = None
    """Audio that was transcribed, its silence before and behind included; only with ``final``."""

    @property
    def tail(self) -> str:
        """What follows the stable part and may change."""
        return self.text[len(self.stable) :]

    @staticmethod
    def of_partial(event: Partial) -> LiveTranscript:
        """The transcript so far."""
        return LiveTranscript(event.text, False, event.stable, event.utterance)

    @staticmethod
    def of_final(event: Final) -> LiveTranscript:
        """The finished transcript."""
        return LiveTranscript(
            text=event.text,
            final=True,
            stable=event.text,
            utterance=event.utterance,
            words=event.words,
            start=event.start,
            end=event.end,
            confidence=event.confidence,
            audio_secs=event.audio_end - event.audio_start,
        )
