"""How much one session may ask for."""

from __future__ import annotations

from dataclasses import dataclass, fields

from tinyvoice.errors import ConfigurationError


@dataclass(frozen=True)
class SessionLimits:
    """Bounds of one session; what exceeds them is told in an ``error`` event.

    Raises:
        ConfigurationError: a bound is not positive; ``key`` names it.
    """

    event_bytes: int = 20 * 1024 * 1024
    """Characters of one client event's JSON text."""
    append_bytes: int = 15 * 1024 * 1024
    """Bytes of audio in one ``input_audio_buffer.append``."""
    uncommitted_seconds: float = 600.0
    """Audio that may wait for a commit. Without turn detection the oldest is dropped beyond that,
    with an error, until there is a commit or a clear; with it a turn of this length is ended."""
    minimum_commit_ms: float = 100.0
    """Audio that a commit takes at least."""
    stall_seconds: float = 2.0
    """A turn that the server detects ends when its client sends no audio at all for so long."""
    items: int = 1_000
    """Items kept; the oldest ones are deleted when there are more."""
    conversation_bytes: int = 32 * 1024 * 1024
    """Size of all items together; the oldest ones are deleted when there is more."""
    tools: int = 128
    """Tools of a session or of a response."""
    tools_bytes: int = 512 * 1024
    """Characters of their JSON text together."""
    instruction_characters: int = 256 * 1024
    """Length of ``instructions``, and of each other text in the configuration."""
    json_depth: int = 64
    """Objects and arrays within one another in a client's event."""
    out_of_band_responses: int = 8
    """Responses outside the conversation that are made at the same time."""
    response_seconds: float = 60.0
    """A response fails when its language model and voice say nothing for so long, once it is its
    turn."""
    session_seconds: float = 3_600.0
    """Length of a session; then it is closed."""
    drain_seconds: float = 30.0
    """Time that turns get to finish when the server shuts down."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigurationError(
                    f"{field.name} is {value!r}; give a number above 0.", key=field.name
                )
