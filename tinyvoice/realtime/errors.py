"""What a client did wrong, in the words of the protocol."""

from __future__ import annotations

from typing import Any

from tinyvoice.errors import TinyvoiceError


class ProtocolError(TinyvoiceError):
    """A client's event that cannot be followed; it becomes one ``error`` event.

    ``code`` and ``param`` are those of the protocol: ``param`` is the path of the field that is
    wrong (``session.audio.input.format``), None where no field is.
    """

    def __init__(
        self,
        code: str,
        message: str,
        param: str | None = None,
        *,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.kind = kind
        """``type`` of the error: ``invalid_request_error`` or ``server_error``."""

    def describe(self, event_id: str | None) -> dict[str, Any]:
        """The ``error`` object: every key is present, as strict clients ask for."""
        return {
            "type": self.kind,
            "code": self.code,
            "message": self.message,
            "param": self.param,
            "event_id": event_id,
        }


def missing(param: str) -> ProtocolError:
    """A field that has to be there is not."""
    return ProtocolError(
        "missing_required_parameter", f"Missing required parameter: '{param}'.", param
    )


def wrong_type(param: str, expected: str, value: object) -> ProtocolError:
    """A field holds another kind of value."""
    got = TYPE_NAMES.get(type(value), "a value of another type")
    return ProtocolError(
        "invalid_type", f"Invalid type for '{param}': expected {expected}, but got {got}.", param
    )


def wrong_value(param: str, message: str) -> ProtocolError:
    """A field holds a value of the right type that cannot be meant."""
    return ProtocolError("invalid_value", message, param)


def unsupported(param: str, value: object, supported: list[str]) -> ProtocolError:
    """A field holds a word that is none of those allowed."""
    shown = str(value)[:100]
    choices = ", ".join(f"'{choice}'" for choice in supported)
    return wrong_value(param, f"Invalid value: '{shown}'. Supported values are: {choices}.")


TYPE_NAMES: dict[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal number",
    type(None): "null",
}
