"""The streaming engine: partials and finals while the person speaks."""

from tinyvoice.engine.engine import StreamingEngine
from tinyvoice.engine.errors import (
    EngineClosedError,
    EngineError,
    EngineFailedError,
    EngineFullError,
    EngineOverloadedError,
    StreamClosedError,
    StreamFailedError,
    UnreadEventsError,
    UtteranceFailedError,
)
from tinyvoice.engine.events import (
    Cleared,
    EndOfTurnLikely,
    Event,
    Failed,
    Final,
    Partial,
    SpeechEnded,
    SpeechStarted,
    TokenLogprob,
    UtteranceFailed,
)
from tinyvoice.engine.observer import EngineObserver
from tinyvoice.engine.settings import EngineSettings, StreamSettings
from tinyvoice.engine.stream import Stream

__all__ = [
    "Cleared",
    "EndOfTurnLikely",
    "EngineClosedError",
    "EngineError",
    "EngineFailedError",
    "EngineFullError",
    "EngineObserver",
    "EngineOverloadedError",
    "EngineSettings",
    "Event",
    "Failed",
    "Final",
    "Partial",
    "SpeechEnded",
    "SpeechStarted",
    "Stream",
    "StreamClosedError",
    "StreamFailedError",
    "StreamSettings",
    "StreamingEngine",
    "TokenLogprob",
    "UnreadEventsError",
    "UtteranceFailed",
    "UtteranceFailedError",
]
