"""Filling a function's arguments from a sentence, by its JSON schema and by rule.

This is what lets :mod:`echo` call tools without a model: a client's way to its tools can be tried
offline, and the same sentence always gives the same call. It understands nothing. For each property
of the schema, in order:

- ``const`` or ``enum``: the first value that the sentence mentions;
- a number: the next one of the sentence, in digits or words up to ninety-nine;
- a boolean: false if the sentence has "not", "no", "off", "never", "stop" or "don't", else true;
- a string: what stands between quotation marks, or else follows the next of the words in, at, for,
  to, of, from, on, about, with, named, called, up to the next of these or a comma;
- an array: one item filled in the same way; an object: its properties.

What is not found is left out, unless the schema requires it: then it is the ``default``, the first
value of an ``enum``, ``minimum`` or 0, or for a string the whole sentence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_PREPOSITIONS = "in|at|for|to|of|from|on|about|with|named|called"
_QUOTED = re.compile(r"[\"“«]([^\"”»]+)[\"”»]")
_PHRASE = re.compile(
    rf"\b(?:{_PREPOSITIONS})\s+(?:the\s+|a\s+|an\s+)?(.+?)"
    rf"(?=\s+(?:{_PREPOSITIONS}|and)\b|[,;:?!]|\.(?:\s|$)|$)",
    re.IGNORECASE,
)
_NEGATION = re.compile(r"\b(?:not|no|off|never|stop|don't|dont)\b", re.IGNORECASE)
_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_NUMBER = re.compile(
    rf"-?\d+(?:[.,]\d+)*|\b(?:{'|'.join(_TENS)})(?:[ -](?:{'|'.join(_UNITS[1:10])}))?\b"
    rf"|\b(?:{'|'.join(_UNITS)})\b",
    re.IGNORECASE,
)
_DEEPEST = 5
"""Levels of nested objects and arrays that are filled; a schema may refer to itself."""
_MISSING = object()


def fill_arguments(schema: Any, sentence: str) -> dict[str, Any]:
    """Arguments for a function whose ``parameters`` are ``schema``; {} where it has none."""
    return _Filler(sentence).properties(schema if isinstance(schema, Mapping) else {}, _DEEPEST)


class _Filler:
    """What of a sentence has not been used yet."""

    def __init__(self, sentence: str) -> None:
        self.sentence = sentence.strip()
        self.numbers = [_value(match[0]) for match in _NUMBER.finditer(sentence)]
        self.phrases = _QUOTED.findall(sentence) or [
            phrase.strip(" .'’") for phrase in _PHRASE.findall(sentence)
        ]

    def properties(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        properties = schema.get("properties")
        required = schema.get("required")
        required = required if isinstance(required, list) else []
        for name, of in properties.items() if isinstance(properties, Mapping) else ():
            of = of if isinstance(of, Mapping) else {}
            value = self.value(of, name in required, depth)
            if value is not _MISSING:
                found[name] = value
        return found

    def value(self, schema: Mapping[str, Any], required: bool, depth: int) -> Any:
        found = self.mentioned(schema, required, depth)
        if found is not _MISSING or not required:
            return found
        if "default" in schema:
            return schema["default"]
        return _fallback(schema, self.sentence)

    def mentioned(self, schema: Mapping[str, Any], required: bool, depth: int) -> Any:
        """The value that the sentence gives to a property, or `_MISSING`."""
        values = _choices(schema)
        if values:
            return next((value for value in values if self.mentions(value)), _MISSING)
        kind = _kind(schema)
        if kind in ("integer", "number"):
            return self.number(kind)
        if kind == "boolean":
            return not _NEGATION.search(self.sentence) if required else _MISSING
        if kind == "array":
            items = schema.get("items")
            of = items if isinstance(items, Mapping) else {}
            item = self.mentioned(of, required, depth - 1) if depth else _MISSING
            return _MISSING if item is _MISSING else [item]
        if kind == "object":
            filled = self.properties(schema, depth - 1) if depth else {}
            return filled or (_MISSING if not required else {})
        return self.phrases.pop(0) if self.phrases else _MISSING

    def mentions(self, value: Any) -> bool:
        words = re.escape(str(value)).replace("_", "[_ -]")
        return re.search(rf"(?<!\w){words}(?!\w)", self.sentence, re.IGNORECASE) is not None

    def number(self, kind: str) -> Any:
        for index, number in enumerate(self.numbers):
            if kind == "number" or number == int(number):
                del self.numbers[index]
                return int(number) if number == int(number) else number
        return _MISSING


def _choices(schema: Mapping[str, Any]) -> list[Any]:
    if "const" in schema:
        return [schema["const"]]
    values = schema.get("enum")
    return values if isinstance(values, list) else []


def _kind(schema: Mapping[str, Any]) -> str:
    """The type; of several the first that is not null."""
    kind = schema.get("type")
    if kind is None:
        for key in ("anyOf", "oneOf"):
            options = schema.get(key)
            if isinstance(options, list):
                kind = [of.get("type") for of in options if isinstance(of, Mapping)]
    if isinstance(kind, list):
        kind = next((of for of in kind if of != "null"), None)
    return kind if isinstance(kind, str) else "string"


def _fallback(schema: Mapping[str, Any], sentence: str) -> Any:
    values = _choices(schema)
    if values:
        return values[0]
    kind = _kind(schema)
    if kind in ("integer", "number"):
        return schema.get("minimum", 0)
    return {"boolean": True, "array": [], "object": {}, "null": None}.get(kind, sentence)


def _value(number: str) -> float:
    words = re.split(r"[ -]", number.lower())
    if words[0] in _TENS:
        tens = 10.0 * (_TENS.index(words[0]) + 2)
        return tens + (_UNITS.index(words[1]) if len(words) > 1 else 0)
    if words[0] in _UNITS:
        return float(_UNITS.index(words[0]))
    if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", number):
        number = number.replace(",", "")
    try:
        return float(number.replace(",", "."))
    except ValueError:  # 1.2.3: a version, a date
        return float(re.split(r"[.,]", number)[0])
