"""What a session and its conversation backend say to each other.

A `Responder` answers one request with a sequence of events; it is a `LanguageModel` and a `Voice`
together (see ``responder.py``). Items are those of the protocol (GA form, plain dictionaries).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Item = Mapping[str, Any]
"""A conversation item: ``message``, ``function_call`` or ``function_call_output``."""


@dataclass(frozen=True)
class ResponseRequest:
    """Everything an answer depends on."""

    items: Sequence[Item]
    """The conversation so far, oldest first; user audio is present as its ``transcript``, and
    assistant audio cut to what was heard."""
    instructions: str = ""
    tools: Sequence[Mapping[str, Any]] = ()
    """Function tools in the flat form of the protocol."""
    tool_choice: str | Mapping[str, Any] = "auto"
    parallel_tool_calls: bool = True
    modality: Literal["audio", "text"] = "audio"
    max_output_tokens: int | None = None
    """None is unlimited."""
    voice: str = "alloy"
    speed: float = 1.0
    """0.25 to 4; 1 is the voice's own pace."""
    encoding: Literal["pcm16", "mulaw", "alaw"] = "pcm16"
    """Of the audio that comes back; pcm16 is 24 kHz, the others 8 kHz; all mono."""
    model: str = ""
    """What the client named; a backend with one model ignores it."""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TextDelta:
    """More of the message's text; in an audio answer the text that is about to be spoken."""

    text: str


@dataclass(frozen=True)
class AudioDelta:
    """More speech, in whole samples of the requested encoding, at most one second of it."""

    audio: bytes
    duration_ms: float


@dataclass(frozen=True)
class SpokenMark:
    """At ``audio_ms`` of this answer's audio, the first ``characters`` of its text are spoken."""

    audio_ms: float
    characters: int


@dataclass(frozen=True)
class ToolCallStarted:
    """The model calls a function. Deltas and the end follow before the next call starts."""

    call_id: str
    name: str


@dataclass(frozen=True)
class ToolCallDelta:
    """More of the arguments' JSON text."""

    call_id: str
    arguments: str


@dataclass(frozen=True)
class ToolCallDone:
    """The call is complete; ``arguments`` is the whole JSON text."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Usage:
    """Tokens of an answer; zero where the backend does not say."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True)
class Finished:
    """The answer is over; its last event."""

    reason: Literal["completed", "max_output_tokens", "content_filter"] = "completed"
    usage: Usage = Usage()


@dataclass(frozen=True)
class BackendFailed:
    """The answer cannot go on; its last event. ``message`` is fit for the user."""

    code: str
    message: str


@dataclass(frozen=True)
class Waiting:
    """The answer waits, and nothing is wrong: for its turn, or for its client to read.

    How long that takes is not counted; it is over with the next event.
    """


@dataclass(frozen=True)
class Begun:
    """The answer's turn has come, after `Waiting`."""


BackendEvent = (
    TextDelta
    | AudioDelta
    | SpokenMark
    | ToolCallStarted
    | ToolCallDelta
    | ToolCallDone
    | Waiting
    | Begun
    | Finished
    | BackendFailed
)

ModelEvent = (
    TextDelta
    | ToolCallStarted
    | ToolCallDelta
    | ToolCallDone
    | Waiting
    | Begun
    | Finished
    | BackendFailed
)


class LanguageModel(Protocol):
    """Makes text and tool calls of a conversation."""

    name: str

    async def open(self) -> None:
        """Load and check what is needed.

        Raises:
            ConfigurationError, MissingExtraError, CheckpointError: it cannot work as configured.
        """

    async def close(self) -> None:
        """Give everything back."""

    def reply(self, request: ResponseRequest) -> AsyncIterator[ModelEvent]:
        """Answer; ends with `Finished` or `BackendFailed`. Closing the iterator cancels it."""
        ...


@dataclass(frozen=True)
class SpokenAudio:
    """A stretch of speech."""

    pcm16: bytes
    """s16le mono at the voice's ``sample_rate``."""
    words: Sequence[tuple[int, float]] = ()
    """(characters of the text spoken by then, seconds from the beginning of this text's audio)."""


class Voice(Protocol):
    """Speaks text."""

    name: str
    sample_rate: int

    async def open(self) -> None:
        """Load and check what is needed; raises like `LanguageModel.open`."""

    async def close(self) -> None:
        """Give everything back."""

    def speak(self, text: str, voice: str, speed: float) -> AsyncIterator[SpokenAudio]:
        """Speak a clause or a sentence. An unknown ``voice`` gets the default one.

        Raises:
            VoiceError: it cannot be spoken.
        """
        ...


class Responder(Protocol):
    """Answers requests; what a session's shell is given."""

    async def open(self) -> None:
        """Open language model and voice."""

    async def close(self) -> None:
        """Close both."""

    def respond(self, request: ResponseRequest) -> AsyncIterator[BackendEvent]:
        """Answer; ends with `Finished` or `BackendFailed`. Closing the iterator cancels it."""
        ...
