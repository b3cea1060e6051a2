"""How utterances are found, with the limits of each setting.

Nothing of what becomes of an utterance is here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from tinyvoice.checks import in_range, one_of

Endpointing = Literal["vad", "semantic", "manual", "external"]
Eagerness = Literal["low", "medium", "high", "auto"]

LONGEST_PAUSE_S: dict[str, float] = {"low": 8.0, "medium": 4.0, "high": 2.0, "auto": 4.0}
"""Silence that ends a turn although it seems unfinished; OpenAI's Realtime API has the same."""


@dataclass(frozen=True)
class EndpointingSettings:
    """Where utterances begin and end.

    Raises:
        ConfigurationError: a value is out of its range; ``key`` names the setting.
    """

    endpointing: Endpointing = "vad"
    """``vad``: silence ends an utterance. ``semantic``: silence that follows a finished sentence
    ends it, and silence after an unfinished one only much later. ``manual``: `commit` ends it, and
    all audio since the last one belongs to it. ``external``: somebody else knows when people speak;
    `start_speech` begins it and `commit` ends it."""
    threshold: float = 0.5
    """Probability of speech, above 0 and below 1, from which sound counts as speech."""
    prefix_padding_ms: int = 300
    """Audio before the speech that belongs to the utterance, 0 to 2000."""
    silence_ms: int = 500
    """Silence that ends an utterance, 32 to 10000; in semantic endpointing the silence after which
    it is asked whether the turn is over."""
    min_speech_ms: int = 64
    """Speech that it takes to begin an utterance, 0 to 2000."""
    early_final_ms: int = 96
    """Silence after which the final pass is begun, at most ``silence_ms`` where that ends the
    utterance; 0 to 2000. If speech goes on, its result is thrown away."""
    eagerness: Eagerness = "auto"
    """How soon an unfinished turn ends in semantic endpointing: after 8, 4 or 2 seconds."""

    def __post_init__(self) -> None:
        one_of("endpointing", self.endpointing, get_args(Endpointing))
        one_of("eagerness", self.eagerness, tuple(LONGEST_PAUSE_S))
        in_range("threshold", self.threshold, 0.01, 0.99)
        in_range("prefix_padding_ms", self.prefix_padding_ms, 0, 2_000)
        in_range("silence_ms", self.silence_ms, 32, 10_000)
        in_range("min_speech_ms", self.min_speech_ms, 0, 2_000)
        in_range("early_final_ms", self.early_final_ms, 0, 2_000)
