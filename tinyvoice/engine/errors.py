"""What can go wrong with a stream or the engine."""

from __future__ import annotations

from tinyvoice.errors import TinyvoiceError


class EngineError(TinyvoiceError):
    """Base of the engine's errors."""


class EngineClosedError(EngineError):
    """The engine has not been opened, or is closed."""


class EngineFailedError(EngineClosedError):
    """The engine has closed itself: its worker died more often than ``max_restarts`` allows."""


class EngineFullError(EngineError):
    """As many streams are open as the settings allow."""


class EngineOverloadedError(EngineError):
    """The model falls behind with the streams it has: a further one would harm them."""


class StreamClosedError(EngineError):
    """Something was asked of a stream that is closed."""


class UnreadEventsError(EngineError):
    """Nobody reads a stream's events."""


class StreamFailedError(EngineError):
    """The model raised for this stream; the cause is chained."""


class UtteranceFailedError(EngineError):
    """An utterance could not be transcribed; the stream goes on. The cause is chained."""
