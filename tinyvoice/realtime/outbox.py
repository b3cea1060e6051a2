"""What a session wants done, in order: the one place where server events get their identifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinyvoice.realtime.dialect import Dialect, to_beta
from tinyvoice.realtime.outputs import Output, Send


class Outbox:
    """Outputs that wait for the shell."""

    def __init__(self, ids: Callable[[str], str], dialect: Dialect) -> None:
        self.ids = ids
        self.dialect: Dialect = dialect
        self._outputs: list[Output] = []

    def put(self, output: Output) -> None:
        """Add something to be done."""
        self._outputs.append(output)

    def emit(self, kind: str, **fields: Any) -> None:
        """Add a server event, in the dialect of the connection."""
        event = self.event(kind, **fields)
        if event is not None:
            self._outputs.append(Send(event))

    def event(self, kind: str, **fields: Any) -> dict[str, Any] | None:
        """A server event in the dialect of the connection; None where that one says nothing."""
        event: dict[str, Any] = {"type": kind, "event_id": self.ids("event"), **fields}
        return to_beta(event) if self.dialect == "beta" else event

    def take(self) -> list[Output]:
        """Everything added since the last call."""
        outputs, self._outputs = self._outputs, []
        return outputs
