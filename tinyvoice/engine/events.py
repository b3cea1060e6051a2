"""What a stream tells its listener.

Every time is in seconds on the stream's audio clock: samples received, divided by the sample rate.
``utterance`` counts from 0 in each stream. ``at`` is how much of the stream had been heard when the
event was decided, so that `at` minus a time in the audio is how late the news is on that clock.

An utterance gives, in this order: `SpeechStarted`, any number of `Partial`, `SpeechEnded`, and one
`Final`, or in its place `UtteranceFailed`. One that the stream's owner clears gives `Cleared` in
the place of both. Speech that goes on beyond the longest utterance is cut into several: those
before the last have a `Final` with ``continues`` set, and neither `SpeechEnded` nor another
`SpeechStarted` stands between them. With manual endpointing there are only partials and what ends
an utterance. Utterances end in the order of their numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinyvoice.errors import TinyvoiceError
from tinyvoice.model.transcript import Word


@dataclass(frozen=True)
class SpeechStarted:
    """Somebody began to speak at ``time``."""

    utterance: int
    time: float
    at: float


@dataclass(frozen=True)
class Partial:
    """What has been understood so far.

    ``stable`` only ever grows during an utterance; ``tail`` follows it directly, its own leading
    space included, and may be another one next time. ``at`` says how much audio both stand for: it
    moves on with each partial, also where the words are still the same.
    """

    utterance: int
    stable: str
    tail: str
    at: float

    @property
    def text(self) -> str:
        """Stable part and tail."""
        return self.stable + self.tail


@dataclass(frozen=True)
class EndOfTurnLikely:
    """The speaker paused at ``time``, and the final pass begins: the end may be near.

    Only where the setting ``end_likely`` asks for it. If speech goes on, nothing takes it back, and
    the next pause tells it again.
    """

    utterance: int
    time: float
    at: float


@dataclass(frozen=True)
class SpeechEnded:
    """The speech that has begun ended at ``time``, and its utterance with it."""

    utterance: int
    time: float
    at: float


@dataclass(frozen=True)
class TokenLogprob:
    """Text that the model wrote in one go, mostly a token's, its leading space included."""

    text: str
    logprob: float
    """Natural logarithm of its probability; of tokens that share a character, of all of them."""


@dataclass(frozen=True)
class Final:
    """The transcript of an utterance, the same that its audio gives offline.

    ``start`` and ``end`` bound the speech; ``audio_start`` and ``audio_end`` the stretch of audio
    that was transcribed, which has some silence before and behind. The text is empty where the
    sound was no speech after all.
    """

    utterance: int
    text: str
    words: tuple[Word, ...]
    """Words with their times in the stream; empty where word times are switched off."""
    start: float
    end: float
    confidence: float
    """Geometric mean of the probabilities of all tokens, 0 to 1."""
    audio_start: float
    audio_end: float
    at: float
    continues: bool = False
    """Whether the speech goes on in the next utterance."""
    tokens: tuple[TokenLogprob, ...] = ()
    """The text in the pieces that the model wrote; together they are ``text``."""


@dataclass(frozen=True)
class UtteranceFailed:
    """An utterance cannot be transcribed; it comes in the place of its `Final`.

    The stream goes on with what is said next.
    """

    utterance: int
    error: TinyvoiceError
    at: float
    continues: bool = False
    """Whether the speech goes on in the next utterance."""


@dataclass(frozen=True)
class Cleared:
    """The utterance that was going on has been forgotten, as the stream's owner asked for.

    It comes in the place of `SpeechEnded` and `Final`.
    """

    utterance: int
    at: float


@dataclass(frozen=True)
class Failed:
    """The stream cannot go on; it is closed, and this is its last event."""

    error: TinyvoiceError
    at: float


Event = (
    SpeechStarted
    | Partial
    | EndOfTurnLikely
    | SpeechEnded
    | Final
    | UtteranceFailed
    | Cleared
    | Failed
)
