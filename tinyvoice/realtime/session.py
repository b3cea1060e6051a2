"""One Realtime session: client events, engine events and answers in; outputs to be carried out.

`RealtimeSession` is the protocol and nothing else. It does no I/O, owns no task and reads no clock:
a shell (WebSocket, WebRTC) feeds it what arrives and carries out `take()` in order after each
input. It neither hears nor speaks: the engine's stream and the responder are the shell's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from tinyvoice.engine.events import Event
from tinyvoice.realtime.backends.interface import BackendEvent
from tinyvoice.realtime.errors import ProtocolError
from tinyvoice.realtime.limits import SessionLimits
from tinyvoice.realtime.outputs import Output

__all__ = ["ProtocolError", "RealtimeSession", "SessionLimits", "session_configuration"]

Kind = Literal["realtime", "transcription"]
Dialect = Literal["ga", "beta"]
Transport = Literal["websocket", "webrtc"]


class RealtimeSession:
    """The state of one session.

    ``configuration`` is what `session_configuration` returned, for a session that begins with the
    configuration of a client secret. ``ids`` makes an identifier from its prefix, ``now`` is the
    time in unix seconds from which ``expires_at`` counts. No input raises on what a client sent.
    """

    def __init__(
        self,
        kind: Kind = "realtime",
        *,
        model: str = "tinyvoice",
        dialect: Dialect = "ga",
        transport: Transport = "websocket",
        configuration: Mapping[str, Any] | None = None,
        limits: SessionLimits | None = None,
        ids: Callable[[str], str] | None = None,
        now: float | None = None,
    ) -> None:
        self.kind = kind
        self.closed = False
        """Whether `Disconnect` has been put out; further inputs do nothing."""

    # --- what the shell tells --------------------------------------------------------------------

    def open(self) -> None:
        """The connection stands: format and settings of the stream, ``session.created``."""

    def receive_text(self, text: str) -> None:
        """A text frame or data channel message of the client: one event."""

    def receive_binary(self, data: bytes) -> None:
        """A binary frame, which the protocol does not have."""

    def receive_audio(self, audio: bytes) -> None:
        """Audio of an audio track, in the format of the last `SetFormat`."""

    def receive_engine(self, event: Event) -> None:
        """An event of the engine's stream."""

    def committed(self, item_id: str, utterance: int | None) -> None:
        """The answer to `Commit`: the utterance that was ended, None if there was none."""

    def flushed(self, name: str) -> None:
        """The answer to `Flush`."""

    def receive_backend(self, response_id: str, event: BackendEvent) -> None:
        """An event of the answer that `Generate` asked for."""

    def timer(self, name: str) -> None:
        """A timer set by `SetTimer` is due."""

    def playback_started(self, response_id: str) -> None:
        """The first audio of an answer leaves (WebRTC)."""

    def playback_finished(self, response_id: str) -> None:
        """All audio of an answer that was put out has left (WebRTC)."""

    def playback_cleared(self, response_id: str, played_ms: float) -> None:
        """The answer to `StopPlayback`: how much of the answer's audio has left (WebRTC)."""

    def drain(self) -> None:
        """The server shuts down: finish turns and answers, then close with 1001."""

    def expire(self) -> None:
        """The session's time is over: say so and close with 1001."""

    def fail(self, error: Exception) -> None:
        """The shell cannot go on: say so and close with 1011."""

    def take(self) -> list[Output]:
        """What is to be done since the last call, in order."""
        return []

    # --- what it is ------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """The effective session in GA form, as ``session.created`` carries it."""
        return {}


def session_configuration(kind: Kind | None, payload: Any) -> dict[str, Any]:
    """Check the ``session`` of a client secret or of a call, in either dialect.

    ``kind`` None takes the payload's ``type``, a conversation where there is none. The outcome is
    a complete configuration with its ``type``, for `RealtimeSession`'s ``configuration``.

    Raises:
        ProtocolError: a value in it cannot be used; ``param`` says which.
    """
    return {}
