"""What must hold of every recorded connection, whoever the client was.

Three judges: the type models of the `openai` package (GA or beta, as the connection spoke), the
strict parser of Pipecat's realtime service for conversations, and the properties in
``tests/realtime/properties.py``. What a scenario itself wants to see is asserted in its test.
"""

from __future__ import annotations

import functools
import json
from typing import Any

import openai.types.beta.realtime as beta
import openai.types.realtime as ga
from pipecat.services.openai.realtime.events import parse_server_event
from pydantic import TypeAdapter, ValidationError

from tests.conformance.recording import Connection

# from tests.realtime.properties import check_session
from tinyvoice.metrics import normal_words, word_errors

CONVERSATION = "realtime"
_BETA_ONLY = ("transcription_session.created",)
"""The beta server sent it, and the beta models have no class for it."""


@functools.cache
def _models(of_beta: bool) -> TypeAdapter[Any]:
    return TypeAdapter(beta.RealtimeServerEvent if of_beta else ga.RealtimeServerEvent)


def check(connection: Connection) -> None:
    """Raise `AssertionError` with everything that is wrong with a connection's events."""
    faults = validation_faults(connection.events("server"), is_beta(connection))
    #     faults += check_session(connection.log())
    assert not faults, f"{connection.path}:\n" + "\n".join(faults[:20])


def is_beta(connection: Connection) -> bool:
    """Whether the connection spoke the beta dialect, from its first event on."""
    events = connection.events("server")
    return connection.beta or bool(events and "audio" not in events[0].get("session", {}))


def validation_faults(events: list[dict[str, Any]], of_beta: bool) -> list[str]:
    """What the type models and the strict parser object to, an entry for each event."""
    faults = []
    kind = events[0].get("session", {}).get("type") if events else None
    for event in events:
        if event.get("type") in _BETA_ONLY and of_beta:
            continue
        try:
            _models(of_beta).validate_python(event)
        except ValidationError as error:
            faults.append(f"the models of openai refuse {event}: {_most_likely(event, error)}")
        if not of_beta and kind == CONVERSATION:
            faults += _pipecat_fault(event)
    return faults


def _pipecat_fault(event: dict[str, Any]) -> list[str]:
    try:
        parse_server_event(json.dumps(event))
    except Exception as error:  # it raises nothing more specific
        return [f"pipecat refuses {event}: {error}"]
    return []


def _most_likely(event: dict[str, Any], error: ValidationError) -> str:
    """Of a union's many complaints, those of the members that have this event's type."""
    by_member: dict[str, list[str]] = {}
    for detail in error.errors(include_url=False):
        member = str(detail["loc"][0]) if detail["loc"] else ""
        by_member.setdefault(member, []).append(f"{detail['loc'][1:]}: {detail['msg']}")
    fitting = [c for c in by_member.values() if not any(line.startswith("('type',)") for line in c)]
    return str(min(fitting or list(by_member.values()), key=len))


def same_words(reference: str, transcript: str) -> bool:
    """Whether two texts differ in nothing but case, punctuation and spelling of the same word."""
    return normal_words(reference) == normal_words(transcript)


def word_error(reference: str, transcript: str) -> float:
    """Word error rate of one utterance."""
    errors = word_errors(reference, transcript)
    return errors.edits / max(1, errors.words)
