"""Reading what a client script reports of its connection."""

from __future__ import annotations

from typing import Any

from tests.conformance.checking import session_faults

Event = dict[str, Any]


def server_events(report: dict[str, Any], beta: bool = False) -> list[Event]:
    """The server's events of a report whose log is without faults."""
    log = [(side, event) for side, event in report["log"]]
    faults = session_faults(log, beta)
    assert not faults, "\n".join(faults[:20])
    return [event for side, event in log if side == "server"]


def of_type(events: list[Event], kind: str) -> list[Event]:
    """Those of the events."""
    return [event for event in events if event["type"] == kind]


def spoken(item: dict[str, Any]) -> str:
    """What a message says, spoken or written."""
    return " ".join(part.get("transcript") or part.get("text") or "" for part in item["content"])
