"""What a form asks for: the fields of ``POST /v1/audio/transcriptions``, checked.

List fields are taken as ``x[]`` and as ``x``, objects as ``x[y]`` and as JSON. Fields that are
unknown, and models that are, are no error: clients of other servers send some of their own.
``prompt``, ``keywords`` and ``temperature`` are accepted and have no effect, because decoding is
greedy and takes no hints.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import FormData, UploadFile

from tinyvoice.engine.settings import StreamSettings
from tinyvoice.errors import ConfigurationError
from tinyvoice.server.errors import ApiError

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
GRANULARITIES = ("word", "segment")
TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off", "")

FILE_SETTINGS = StreamSettings(silence_ms=300, background=True)
"""How a recording is heard where the request does not say otherwise. Shorter pauses end an
utterance than in talk: nobody is interrupted, and shorter utterances are understood better."""

_CHUNKING = {
    "threshold": "threshold",
    "prefix_padding_ms": "prefix_padding_ms",
    "silence_duration_ms": "silence_ms",
}


@dataclass(frozen=True)
class TranscriptionRequest:
    """A checked form."""

    file: UploadFile
    response_format: str
    """One of `FORMATS`; has no say in what is streamed."""
    granularities: frozenset[str]
    """Of `GRANULARITIES`: what ``verbose_json`` is to hold."""
    stream: bool
    logprobs: bool
    language: str
    """What the client said, or nothing; it is repeated, and has no effect on the words."""
    settings: StreamSettings

    @property
    def word_times(self) -> bool:
        """Whether the answer needs to know when each word was said."""
        return not self.stream and self.response_format in ("srt", "vtt", "verbose_json")


def read_request(form: FormData) -> TranscriptionRequest:
    """Check a form.

    Raises:
        ApiError: 400; ``param`` names the field.
    """
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise ApiError(
            400,
            "Missing required parameter: 'file'. Send the recording as a file of the form."
            if file is None
            else "'file' is no file: give the part of the form a file name.",
            param="file",
            code="missing_required_parameter",
        )
    return TranscriptionRequest(
        file=file,
        response_format=_response_format(_text(form, "response_format") or "json"),
        granularities=_granularities(_list(form, "timestamp_granularities")),
        stream=_flag(form, "stream"),
        logprobs="logprobs" in _list(form, "include"),
        language=_text(form, "language") or next(iter(_list(form, "languages")), ""),
        settings=_settings(form),
    )


def _response_format(wanted: str) -> str:
    if wanted == "diarized_json":
        raise ApiError(
            400,
            "diarized_json is not supported: the model does not tell speakers apart; use "
            "verbose_json for segments with times.",
            param="response_format",
            code="unsupported_value",
        )
    if wanted not in FORMATS:
        raise _invalid("response_format", wanted, FORMATS)
    return wanted


def _granularities(wanted: list[str]) -> frozenset[str]:
    for one in wanted:
        if one not in GRANULARITIES:
            raise _invalid("timestamp_granularities", one, GRANULARITIES)
    return frozenset(wanted or ("segment",))


def _settings(form: FormData) -> StreamSettings:
    """How the recording is to be cut, from ``chunking_strategy`` in any of its forms."""
    _number("temperature", _text(form, "temperature") or "0", 0.0, 2.0)
    name = "chunking_strategy"
    strategy: dict[str, Any] = {
        key.removeprefix(f"{name}[").removesuffix("]"): value
        for key, value in form.multi_items()
        if key.startswith(f"{name}[") and isinstance(value, str)
    }
    plain = _text(form, name)
    if plain.startswith("{"):
        try:
            strategy = json.loads(plain)
        except (ValueError, RecursionError):
            raise ApiError(
                400,
                "Invalid value: 'chunking_strategy' is not JSON.",
                param=name,
                code="invalid_value",
            ) from None
    elif plain not in ("", "auto", "server_vad", "null"):
        raise _invalid(name, plain, ("auto", "server_vad"))
    kind = strategy.get("type", "server_vad")
    if kind not in ("server_vad", "auto"):
        raise _invalid(f"{name}[type]", kind, ("server_vad",))
    changes = {
        ours: _number(f"{name}[{theirs}]", strategy[theirs])
        for theirs, ours in _CHUNKING.items()
        if strategy.get(theirs) is not None
    }
    try:
        return FILE_SETTINGS.changed(**changes)
    except ConfigurationError as error:
        theirs = next((t for t, ours in _CHUNKING.items() if ours == error.key), "")
        raise ApiError(
            400, f"Invalid value: {error}", param=f"{name}[{theirs}]", code="invalid_value"
        ) from None


def _text(form: FormData, name: str) -> str:
    """The field, or nothing; a part that is a file by mistake counts as missing."""
    value = form.get(name)
    return value.strip() if isinstance(value, str) else ""


def _list(form: FormData, name: str) -> list[str]:
    """A list field in any of the ways in which clients write one."""
    found = []
    for key, value in form.multi_items():
        base, bracket, index = key.partition("[")
        if base != name or (bracket and not index.rstrip("]").isdecimal() and index != "]"):
            continue
        if isinstance(value, str):
            found += [piece.strip(" \"'[]") for piece in value.split(",")]
    return [one for one in found if one]


def _flag(form: FormData, name: str) -> bool:
    value = _text(form, name).lower()
    if value not in TRUE + FALSE:
        raise _invalid(name, value, ("true", "false"))
    return value in TRUE


def _number(name: str, value: Any, lowest: float = -math.inf, highest: float = math.inf) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or not lowest <= number <= highest:
        raise ApiError(
            400,
            f"Invalid value: '{_shown(value)}'. '{name}' is a number"
            + (f" from {lowest:g} to {highest:g}." if math.isfinite(lowest) else "."),
            param=name,
            code="invalid_value",
        )
    return number


def _invalid(name: str, value: Any, choices: tuple[str, ...]) -> ApiError:
    supported = ", ".join(f"'{choice}'" for choice in choices)
    return ApiError(
        400,
        f"Invalid value: '{_shown(value)}'. Supported values are: {supported}.",
        param=name,
        code="invalid_value",
    )


def _shown(value: Any) -> str:
    """What a client sent, short enough for a message."""
    text = str(value)
    return text if len(text) <= 64 else text[:64] + "…"
