"""A session with a pencil: everything that goes in and out is written down and judged.

Identifiers count up, so that lists of events can be compared as they are.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from typing import Any

from tests.realtime.properties import check_session
from tests.realtime.validation import validate
from tinyvoice.engine.events import Event, Final, Partial, SpeechEnded, SpeechStarted
from tinyvoice.realtime.backends.interface import BackendEvent
from tinyvoice.realtime.limits import SessionLimits
from tinyvoice.realtime.outputs import Generate, Output, Send
from tinyvoice.realtime.session import RealtimeSession

NOW = 1_780_000_000


class Driven:
    """A `RealtimeSession` that is open; each input returns the outputs that it caused."""

    def __init__(self, kind: Any = "realtime", *, opened: bool = True, **options: Any) -> None:
        self._counts: Counter[str] = Counter()
        limits = options.pop("limits", None)
        if isinstance(limits, dict):
            limits = SessionLimits(**limits)
        self.session = RealtimeSession(
            kind, ids=self._identifier, now=NOW, limits=limits, **options
        )
        self.log: list[tuple[str, dict[str, Any]]] = []
        self.outputs: list[Output] = []
        """Of the last input."""
        if opened:
            self.session.open()
            self.taken()

    def _identifier(self, prefix: str) -> str:
        self._counts[prefix] += 1
        return f"{prefix}_{self._counts[prefix]}"

    # --- inputs ----------------------------------------------------------------------------------

    def client(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        """The client sends an event; the server events that it caused."""
        event = {"type": kind, **fields}
        self.log.append(("client", event))
        self.session.receive_text(json.dumps(event))
        return self.taken()

    def raw(self, text: str) -> list[dict[str, Any]]:
        """The client sends a text frame."""
        self.session.receive_text(text)
        return self.taken()

    def append(self, seconds: float, bytes_per_second: int = 48_000) -> list[dict[str, Any]]:
        """The client appends so much silence."""
        audio = bytes(round(seconds * bytes_per_second / 2) * 2)
        return self.client("input_audio_buffer.append", audio=base64.b64encode(audio).decode())

    def engine(self, *events: Event) -> list[dict[str, Any]]:
        """The engine's stream has these events."""
        for event in events:
            self.session.receive_engine(event)
        return self.taken()

    def backend(self, response_id: str, *events: BackendEvent) -> list[dict[str, Any]]:
        """The responder has these events."""
        for event in events:
            self.session.receive_backend(response_id, event)
        return self.taken()

    def tell(self, name: str, *arguments: Any) -> list[dict[str, Any]]:
        """The shell calls another input."""
        getattr(self.session, name)(*arguments)
        return self.taken()

    def taken(self) -> list[dict[str, Any]]:
        """Take the outputs, judge the events among them and return these."""
        self.outputs = self.session.take()
        events = [dict(output.event) for output in self.outputs if isinstance(output, Send)]
        for event in events:
            self.log.append(("server", event))
            validate(event, self.session.kind, self.session.dialect)
        return events

    # --- what came of it -------------------------------------------------------------------------

    @property
    def done(self) -> list[Output]:
        """The outputs of the last input that are not events."""
        return [output for output in self.outputs if not isinstance(output, Send)]

    def put(self, kind: type) -> list[Any]:
        """The outputs of one kind of the last input."""
        return [output for output in self.outputs if isinstance(output, kind)]

    @property
    def generated(self) -> Generate:
        """The only answer that the last input asked for."""
        (found,) = self.put(Generate)
        assert isinstance(found, Generate)
        return found

    def check(self, complete: bool = True) -> None:
        """Assert that the properties hold of all that has been said."""
        assert check_session(self.log, complete=complete, immediate=True) == []

    def turn(self, text: str = "hello world", utterance: int = 0, at: float = 1.0) -> list[Any]:
        """The engine hears somebody say something, from ``at`` on for half a second."""
        return self.engine(*spoken(text, utterance, at))


def spoken(text: str, utterance: int = 0, at: float = 1.0) -> list[Event]:
    """The events of an utterance of half a second."""
    return [
        SpeechStarted(utterance, at, at + 0.1),
        SpeechEnded(utterance, at + 0.5, at + 1.0),
        final(text, utterance, at),
    ]


def final(text: str, utterance: int = 0, at: float = 1.0, **fields: Any) -> Final:
    """A final of half a second of speech with some silence around it."""
    given: dict[str, Any] = {
        "words": (),
        "start": at,
        "end": at + 0.5,
        "confidence": 0.9,
        "audio_start": at - 0.3,
        "audio_end": at + 0.7,
        "at": at + 1.0,
    }
    return Final(utterance, text, **(given | fields))


def partial(stable: str, tail: str = "", utterance: int = 0, at: float = 1.3) -> Partial:
    """What is understood so far."""
    return Partial(utterance, stable, tail, at)


def kinds(events: list[dict[str, Any]]) -> list[str]:
    """The types of events."""
    return [event["type"] for event in events]


def plain(event: dict[str, Any]) -> dict[str, Any]:
    """An event without its identifier."""
    return {name: value for name, value in event.items() if name != "event_id"}


def only_error(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The error, where there is nothing else."""
    assert kinds(events) == ["error"]
    error: dict[str, Any] = events[0]["error"]
    return error
