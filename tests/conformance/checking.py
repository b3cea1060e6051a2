"""What must hold of every recorded connection, whoever the client was.

Every event is what strict clients take it for (``tests/realtime/validation.py``: the type models of
the `openai` package, GA or beta, and Pipecat's parser), and the whole log has the properties of
``tests/realtime/properties.py``. What a scenario itself wants to see is asserted in its test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.conformance.recording import Connection
from tests.realtime.properties import Log, check_session, is_beta
from tests.realtime.validation import validate
from tinyvoice.metrics import normal_words, word_errors

MOST_FAULTS_SHOWN = 20


def check(connection: Connection, *, complete: bool = False) -> None:
    """Raise `AssertionError` with what is wrong with a connection's events.

    ``complete`` says that the client waited for the end of all that it had begun.
    """
    if "call_id=" in connection.path:
        # It joined a call in the middle: what its events build on was said before.
        faults = validation_faults(connection.events("server"), connection.beta)
    else:
        faults = session_faults(connection.log(), connection.beta, complete=complete)
    assert not faults, f"{connection.path}:\n" + "\n".join(faults[:MOST_FAULTS_SHOWN])


def session_faults(log: Log, beta: bool = False, *, complete: bool = False) -> list[str]:
    """Everything that is wrong with a log, a sentence each.

    ``beta`` says that the client asked for the beta when it connected; without that, the log shows
    whether it spoke it.
    """
    events = [event for direction, event in log if direction == "server"]
    return validation_faults(events, beta or is_beta(log)) + check_session(log, complete=complete)


def validation_faults(events: Sequence[Mapping[str, Any]], of_beta: bool) -> list[str]:
    """What strict clients object to in a server's events, an entry for each event."""
    session: Any = events[0].get("session", {}) if events else {}
    kind = "transcription" if "transcription" in str(session.get("object")) else "realtime"
    faults = []
    for event in events:
        try:
            validate(event, kind, "beta" if of_beta else "ga")
        except Exception as error:  # Pipecat's parser raises nothing more specific
            faults.append(str(error))
    return faults


def same_words(reference: str, transcript: str) -> bool:
    """Whether two texts differ in nothing but case, punctuation and spelling of the same word."""
    return normal_words(reference) == normal_words(transcript)


def word_error(reference: str, transcript: str) -> float:
    """Word error rate of one utterance."""
    errors = word_errors(reference, transcript)
    return errors.edits / max(1, errors.words)
