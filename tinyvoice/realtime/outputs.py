"""What a session asks of the shell around it.

`RealtimeSession` does no I/O: everything it wants done is one of these, in the order in which it is
to be done. The shell (a WebSocket, a WebRTC call) carries them out and tells the session what came
of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinyvoice.realtime.backends.interface import ResponseRequest


@dataclass(frozen=True)
class Send:
    """Send this server event; it is complete, in the dialect of the connection."""

    event: Mapping[str, Any]


@dataclass(frozen=True)
class Feed:
    """Feed these bytes, in the format of the last `SetFormat`, to the engine's stream."""

    audio: bytes


@dataclass(frozen=True)
class SetFormat:
    """Audio fed from now on has this format; the first one comes before any `Feed`."""

    encoding: str
    """``pcm16``, ``mulaw`` or ``alaw``."""
    sample_rate: int


@dataclass(frozen=True)
class SetStream:
    """Change settings of the engine's stream (names of `StreamSettings`)."""

    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Commit:
    """End the engine's utterance; hand its number or None to `RealtimeSession.committed`."""

    item_id: str


@dataclass(frozen=True)
class Clear:
    """Forget the engine's utterance; hand nothing back."""


@dataclass(frozen=True)
class Flush:
    """Call `RealtimeSession.flushed` with this name when all audio fed so far has been heard.

    Events of the engine about that audio are handed over before.
    """

    name: str


@dataclass(frozen=True)
class Generate:
    """Begin an answer; hand each of its events to `RealtimeSession.receive_backend`."""

    response_id: str
    request: ResponseRequest


@dataclass(frozen=True)
class CancelGeneration:
    """Stop the answer; events of it that still come are ignored."""

    response_id: str


@dataclass(frozen=True)
class Play:
    """Play this audio of an answer; only where the transport has an audio track (WebRTC)."""

    response_id: str
    item_id: str
    audio: bytes
    """pcm16 mono at 24 kHz."""


@dataclass(frozen=True)
class StopPlayback:
    """Throw away what waits to be played; hand the milliseconds played to ``playback_cleared``."""

    response_id: str


@dataclass(frozen=True)
class SetTimer:
    """Call `RealtimeSession.timer` with this name after so many seconds; replaces one so named."""

    name: str
    seconds: float


@dataclass(frozen=True)
class CancelTimer:
    """Forget the timer of this name, if it runs."""

    name: str


@dataclass(frozen=True)
class Disconnect:
    """Send what stands before this, then close the connection with a WebSocket close code."""

    code: int
    reason: str


Output = (
    Send
    | Feed
    | SetFormat
    | SetStream
    | Commit
    | Clear
    | Flush
    | Generate
    | CancelGeneration
    | Play
    | StopPlayback
    | SetTimer
    | CancelTimer
    | Disconnect
)
