"""From a configuration's nested mappings to the typed settings that the code works with.

Settings are dataclasses next to the code that reads them. A key that a dataclass does not have, or
a value of another kind than its field's, is refused by its full name, so that a misspelt override
does not silently train something else.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tinyvoice.errors import ConfigurationError

Settings = TypeVar("Settings")


def parse_settings(kind: type[Settings], values: Mapping[str, Any] | None, key: str) -> Settings:
    """Build a settings dataclass from a mapping; ``key`` is where that mapping lies.

    Raises:
        ConfigurationError: an unknown key or a value of the wrong kind; the message names it.
    """
    hints = get_type_hints(kind)
    known = {entry.name for entry in fields(kind)}  # type: ignore[arg-type]
    parsed = {}
    for name, value in (values or {}).items():
        if name not in known:
            raise ConfigurationError(
                f"{_join(key, name)} is not a setting: choose among {', '.join(sorted(known))}.",
                key=_join(key, name),
            )
        parsed[name] = _convert(value, hints[name], _join(key, name))
    return kind(**parsed)


def _convert(value: Any, hint: Any, key: str) -> Any:
    """Return ``value`` as the kind that ``hint`` says."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(value, arguments, key)
    if origin is Literal:
        if value not in arguments:
            raise _wrong(key, value, "one of " + ", ".join(map(str, arguments)))
        return value
    if is_dataclass(hint):
        if value is not None and not isinstance(value, Mapping):
            raise _wrong(key, value, "a group of settings")
        return parse_settings(hint, value, key)  # type: ignore[arg-type]
    if origin is tuple:
        return _convert_tuple(value, arguments, key)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise _wrong(key, value, "a group of settings")
        return {
            name: _convert(entry, arguments[1], _join(key, name)) for name, entry in value.items()
        }
    return _convert_plain(value, hint, key)


def _convert_union(value: Any, choices: Sequence[Any], key: str) -> Any:
    """Try the kinds of a union in order."""
    if value is None and types.NoneType in choices:
        return None
    error: ConfigurationError | None = None
    for choice in choices:
        if choice is not types.NoneType:
            try:
                return _convert(value, choice, key)
            except ConfigurationError as caught:
                error = error or caught
    raise error or _wrong(key, value, "null")


def _convert_tuple(value: Any, arguments: Sequence[Any], key: str) -> tuple[Any, ...]:
    """Return a list as a tuple, of fixed length unless the hint ends in an ellipsis."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise _wrong(key, value, "a list")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_convert(entry, arguments[0], key) for entry in value)
    if len(value) != len(arguments):
        raise _wrong(key, value, f"a list of {len(arguments)}")
    return tuple(_convert(e, kind, key) for e, kind in zip(value, arguments, strict=True))


def _convert_plain(value: Any, hint: type, key: str) -> Any:
    """Return a number, string or truth value."""
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):
        # YAML reads 1e-3 as a string: its numbers need a point.
        try:
            return float(value)
        except ValueError:
            pass
    if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    names = {float: "a number", int: "a whole number", str: "a string", bool: "true or false"}
    raise _wrong(key, value, names.get(hint, str(hint)))


def _wrong(key: str, value: Any, wanted: str) -> ConfigurationError:
    """Return the error for a value of another kind than wanted."""
    return ConfigurationError(f"{key} is {value!r}, and must be {wanted}.", key=key)


def _join(key: str, name: str) -> str:
    """Return the full name of a key."""
    return f"{key}.{name}" if key else str(name)
