"""Settings of the engine and of a stream, with their limits.

A stream's settings may change while it runs; each change is checked before anything takes effect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from tinyvoice.errors import ConfigurationError
from tinyvoice.model.segmentation import MAX_SECONDS, MIN_SECONDS

Endpointing = Literal["vad", "semantic", "manual", "external"]
Eagerness = Literal["low", "medium", "high", "auto"]
EncoderForm = Literal["auto", "block", "window"]

LONGEST_PAUSE_S: dict[str, float] = {"low": 8.0, "medium": 4.0, "high": 2.0, "auto": 4.0}
"""Silence that ends a turn although it seems unfinished; OpenAI's Realtime API has the same."""


@dataclass(frozen=True)
class StreamSettings:
    """How one stream is cut into utterances and how often it is told about.

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
    partials: bool = True
    partial_interval_ms: int = 320
    """Audio from one partial to the next, 32 to 10000; more where the engine is overloaded."""
    word_times: bool = True
    background: bool = False
    """Whether the stream gives way: it is worked on while no other stream has anything to do, and a
    little now and then. For recordings, which nobody is listening to."""
    end_likely: bool = False
    """Whether `EndOfTurnLikely` is told when the final pass is begun."""

    def __post_init__(self) -> None:
        one_of("endpointing", self.endpointing, get_args(Endpointing))
        one_of("eagerness", self.eagerness, tuple(LONGEST_PAUSE_S))
        in_range("threshold", self.threshold, 0.01, 0.99)
        in_range("prefix_padding_ms", self.prefix_padding_ms, 0, 2_000)
        in_range("silence_ms", self.silence_ms, 32, 10_000)
        in_range("min_speech_ms", self.min_speech_ms, 0, 2_000)
        in_range("early_final_ms", self.early_final_ms, 0, 2_000)
        in_range("partial_interval_ms", self.partial_interval_ms, 32, 10_000)

    def changed(self, **changes: Any) -> StreamSettings:
        """The settings with some of them replaced.

        Raises:
            ConfigurationError: there is no such setting, or its value is out of range.
        """
        return change(self, changes)


@dataclass(frozen=True)
class EngineSettings:
    """Limits that hold for all streams together.

    Raises:
        ConfigurationError: a value is out of its range; ``key`` names the setting.
    """

    max_streams: int = 256
    """Open streams; one more is refused with `EngineFullError`."""
    max_batch: int = 32
    """Streams that one pass of the model takes."""
    max_pending_s: float = 30.0
    """Audio of a stream, in seconds, that may wait to be heard; then `feed` waits."""
    max_unread_events: int = 1_000
    """Events of a stream that may wait to be read; then the stream fails. Of partials only the
    newest waits."""
    max_utterance_s: float = MAX_SECONDS
    """Speech beyond this is cut at its quietest point. The encoder takes no more than 30 s."""
    refuse_partial_gap_s: float = 1.5
    """Where partials came this much late (on the audio clock, the median of the last seconds), new
    streams are refused with `EngineOverloadedError`."""
    max_restarts: int = 5
    """How often in a minute a worker that died is replaced, 0 to 1000; then the engine closes."""
    encoder: EncoderForm = "auto"
    """``block``: blocks of frames with the past in a cache, for an encoder trained so. ``window``:
    a window encoded anew, for any encoder. ``auto`` chooses by the checkpoint."""
    threads: int | None = None
    """Threads of the model on a CPU: more than one pays only for large models. None chooses."""

    def __post_init__(self) -> None:
        in_range("max_streams", self.max_streams, 1, 100_000)
        in_range("max_batch", self.max_batch, 1, 4_096)
        in_range("max_pending_s", self.max_pending_s, 1.0, 3_600.0)
        in_range("max_unread_events", self.max_unread_events, 10, 1_000_000)
        in_range("max_utterance_s", self.max_utterance_s, 4 * MIN_SECONDS, MAX_SECONDS)
        in_range("refuse_partial_gap_s", self.refuse_partial_gap_s, 0.1, 3_600.0)
        in_range("max_restarts", self.max_restarts, 0, 1_000)
        one_of("encoder", self.encoder, ("auto", "block", "window"))
        if self.threads is not None:
            in_range("threads", self.threads, 1, 1_024)

    def changed(self, **changes: Any) -> EngineSettings:
        """The settings with some of them replaced; raises like the constructor."""
        return change(self, changes)


def change(settings: Any, changes: dict[str, Any]) -> Any:
    """A copy of the dataclass with some fields replaced, unknown ones refused by name."""
    known = [field.name for field in fields(settings)]
    for name in changes:
        if name not in known:
            raise ConfigurationError(
                f"There is no setting {name}: choose from {', '.join(known)}.", key=name
            )
    return replace(settings, **changes)


def in_range(name: str, value: Any, lowest: float, highest: float) -> None:
    """Raise `ConfigurationError` unless the value is a number between the bounds."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not lowest <= value <= highest:
        raise ConfigurationError(
            f"{name} is {value!r}; give a number from {lowest:g} to {highest:g}.", key=name
        )


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise `ConfigurationError` unless the value is one of the choices."""
    if value not in choices:
        raise ConfigurationError(
            f"{name} is {value!r}; choose from {', '.join(choices)}.", key=name
        )
