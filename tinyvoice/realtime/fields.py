"""Reading fields of a client's event: each of these returns a clean value or raises.

They are lenient about what cannot be misunderstood (``200.0`` where an integer is asked for) and
name the field by its path in every error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tinyvoice.realtime.errors import (
    ProtocolError,
    missing,
    unsupported,
    wrong_type,
    wrong_value,
)

LARGEST_INTEGER = 2**31 - 1
LONGEST_IDENTIFIER = 512
LONGEST_NAME = 256


def an_object(value: Any, path: str) -> Mapping[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise wrong_type(path, "an object", value)
    return value


def an_array(value: Any, path: str, most: int | None = None) -> list[Any]:
    """A JSON array, with at most so many entries."""
    if not isinstance(value, list):
        raise wrong_type(path, "an array", value)
    if most is not None and len(value) > most:
        raise wrong_value(
            path, f"Invalid '{path}': array too long. Expected at most {most} entries."
        )
    return value


def a_string(value: Any, path: str, most: int | None = None) -> str:
    """A string of at most so many characters."""
    if not isinstance(value, str):
        raise wrong_type(path, "a string", value)
    if most is not None and len(value) > most:
        raise wrong_value(
            path,
            f"Invalid '{path}': string too long. Expected a string with maximum length {most}, "
            f"but got a string with length {len(value)}.",
        )
    return value


def an_identifier(value: Any, path: str) -> str:
    """A string that names something: neither empty nor endless."""
    text = a_string(value, path, LONGEST_IDENTIFIER)
    if not text:
        raise wrong_value(path, f"Invalid '{path}': the string is empty.")
    return text


def a_boolean(value: Any, path: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise wrong_type(path, "a boolean", value)
    return value


def a_number(value: Any, path: str, lowest: float, highest: float) -> float:
    """A finite number between the bounds; an integer stays one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type(path, "a number", value)
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong_value(path, f"Invalid '{path}': expected a finite number.")
    if not lowest <= value <= highest:
        raise wrong_value(
            path, f"Invalid '{path}': expected a value from {lowest:g} to {highest:g}."
        )
    return value


def an_integer(value: Any, path: str, lowest: int = 0, highest: int = LARGEST_INTEGER) -> int:
    """An integer between the bounds, also where it is written ``200.0``."""
    number = a_number(value, path, lowest, highest)
    if number != int(number):
        raise wrong_type(path, "an integer", value)
    return int(number)


def one_of(value: Any, path: str, choices: Sequence[str]) -> str:
    """One of some words."""
    text = a_string(value, path)
    if text not in choices:
        raise unsupported(path, text, list(choices))
    return text


def required(container: Mapping[str, Any], name: str, path: str) -> Any:
    """The value of a field that has to be there."""
    if name not in container:
        raise missing(path)
    return container[name]


def nesting(value: Any) -> int:
    """How many objects and arrays lie within one another. No recursion: the input is hostile."""
    depth, level = 0, [value]
    while level:
        below: list[Any] = []
        nested = False
        for entry in level:
            if isinstance(entry, dict):
                below.extend(entry.values())
                nested = True
            elif isinstance(entry, list):
                below.extend(entry)
                nested = True
        depth += nested
        level = below
    return depth


def check_values(value: Any) -> None:
    """Refuse what cannot be sent on: half characters, numbers that JSON does not have.

    Raises:
        ProtocolError: ``invalid_json``.
    """
    waiting = [value]
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, dict):
            waiting.extend(entry)
            waiting.extend(entry.values())
        elif isinstance(entry, list):
            waiting.extend(entry)
        elif isinstance(entry, str):
            if not encodable(entry):
                raise ProtocolError("invalid_json", "The event holds a surrogate without its pair.")
        elif isinstance(entry, float) and not math.isfinite(entry):
            raise ProtocolError("invalid_json", "The event holds a number that JSON does not have.")
        elif isinstance(entry, int) and abs(entry) >= 2**63:
            raise ProtocolError("invalid_json", "The event holds an integer beyond 64 bits.")


def encodable(text: str) -> bool:
    """Whether the text can be written as UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def parse_event(text: str, most_characters: int) -> Mapping[str, Any]:
    """The JSON object in a text frame; its values are not checked yet (`check_values`).

    Raises:
        ProtocolError: it is too long, or no JSON object.
    """
    if len(text) > most_characters:
        raise wrong_value(
            "", f"The event is too large: {len(text)} characters, at most {most_characters}."
        )
    try:
        event = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(
            "invalid_json", "We could not parse the JSON body of your event: it is no valid JSON."
        ) from error
    if not isinstance(event, dict):
        raise ProtocolError("invalid_json", "An event is a JSON object with a 'type'.")
    return event
