"""What a recogniser service hands out for an utterance, whatever framework asks."""

from __future__ import annotations

from dataclasses import dataclass

from tinyvoice.engine.events import Final, Partial
from tinyvoice.model.transcript import Word


@dataclass
class Beginning:
    """Where a stream stands in the audio of a service that has had others before it."""

    seconds: float = 0.0
    """Audio that came before the stream's."""
    utterance: int = 0
    """What the stream's first utterance is to the service."""
    next_utterance: int = 0
    """What the first utterance of a stream behind this one would be."""

    def __post_init__(self) -> None:
        self.next_utterance = self.utterance

    def saw(self, utterance: int) -> None:
        """The stream has told of an utterance with this number."""
        self.next_utterance = max(self.next_utterance, self.utterance + utterance + 1)


@dataclass(frozen=True)
class LiveTranscript:
    """The text of one utterance: as far as it is understood, or the whole of it.

    Times are seconds on the service's audio clock: audio received, what a stream before this one
    had included. Utterances count in the same way.
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
    def of_partial(event: Partial, before: Beginning | None = None) -> LiveTranscript:
        """The transcript so far."""
        before = before or Beginning()
        number = before.utterance + event.utterance
        return LiveTranscript(event.text, False, event.stable, number)

    @staticmethod
    def of_final(event: Final, before: Beginning | None = None) -> LiveTranscript:
        """The finished transcript."""
        before = before or Beginning()
        return LiveTranscript(
            text=event.text,
            final=True,
            stable=event.text,
            utterance=before.utterance + event.utterance,
            words=tuple(word.shifted(before.seconds) for word in event.words),
            start=before.seconds + event.start,
            end=before.seconds + event.end,
            confidence=event.confidence,
            audio_secs=event.audio_end - event.audio_start,
        )
