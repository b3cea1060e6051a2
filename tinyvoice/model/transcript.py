"""The result of transcribing a clip: text, words with times, and how sure the model is."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Word:
    """One word and when it was said, in seconds from the beginning of the clip."""

    text: str
    start: float
    end: float
    confidence: float
    """Geometric mean of the probabilities of the word's tokens, 0 to 1."""

    def shifted(self, seconds: float) -> Word:
        """The same word, ``seconds`` later."""
        return replace(self, start=self.start + seconds, end=self.end + seconds)


@dataclass(frozen=True)
class Transcript:
    """What was said in a clip, or in a piece of one."""

    text: str
    words: tuple[Word, ...]
    """Words in order; empty where word times were not asked for."""
    confidence: float
    """Geometric mean of the probabilities of all tokens, 0 to 1; 1 where there are none."""
    duration: float
    """Seconds of audio."""
    start: float = 0.0
    """Seconds from the beginning of the clip to the beginning of this piece."""

    @property
    def end(self) -> float:
        """Seconds from the beginning of the clip to the end of this piece."""
        return self.start + self.duration
