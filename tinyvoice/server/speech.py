"""``POST /v1/audio/speech``: a text in, speech out, by the voice that the server was given.

The text is spoken clause by clause, and what is spoken is encoded and sent while the next clause is
being spoken. Voices run in threads or processes of their own, encoders in threads.
``instructions`` are accepted and have no effect.
"""

from __future__ import annotations

import base64
import json
import logging
import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect

from tinyvoice.errors import TinyvoiceError
from tinyvoice.realtime.backends.clauses import ClauseCutter
from tinyvoice.realtime.backends.errors import VoiceError
from tinyvoice.realtime.backends.interface import Voice
from tinyvoice.realtime.backends.iterators import closing
from tinyvoice.realtime.backends.sound import SpeechEncoder
from tinyvoice.server.disconnects import (
    CLIENT_CLOSED_REQUEST,
    SSE_HEADERS,
    StreamedAnswer,
    while_connected,
)
from tinyvoice.server.errors import ApiError
from tinyvoice.server.places import places_of, refuse_when_stopping
from tinyvoice.server.recordings import in_thread
from tinyvoice.server.sound_formats import CONTENT_TYPES, build_format

logger = logging.getLogger(__name__)
router = APIRouter()

DEFAULT_VOICE = "alloy"
SLOWEST, FASTEST = 0.25, 4.0
STREAM_FORMATS = ("audio", "sse")

Sound = AsyncGenerator[bytes, None]


@dataclass(frozen=True)
class SpeechRequest:
    """A checked request."""

    text: str
    voice: str
    response_format: str
    """One of `CONTENT_TYPES`."""
    speed: float
    sse: bool


@router.post("/v1/audio/speech")
async def create_speech(request: Request) -> Response:
    """Speak a text."""
    app = request.app
    refuse_when_stopping(app)
    async with AsyncExitStack() as stack:
        stack.enter_context(places_of(app).take())
        try:
            wanted = read_request(await _json(request), app.state.settings.max_speech_characters)
            voice: Voice | None = getattr(app.state.responder, "voice", None)
            if voice is None:
                raise ApiError(
                    400,
                    "This server has no voice: start it with --tts.",
                    code="speech_not_supported",
                )
            answer = await while_connected(request, _answer(app, voice, wanted))
            answer.own(stack.pop_all())
            return answer
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _answer(app: Any, voice: Voice, wanted: SpeechRequest) -> StreamedAnswer:
    """The answer, once the voice has proven that it speaks."""
    sound = encoded(spoken(voice, wanted), wanted.response_format)
    try:
        first = await anext(sound, None)
    except VoiceError as error:
        raise ApiError(500, str(error), code="voice_failed") from error
    if first is None:
        raise _invalid("input", "there is nothing in it that can be spoken")
    patience = app.state.settings.send_timeout_seconds
    if wanted.sse:
        parts = _events(app, first, sound)
        return StreamedAnswer(parts, "text/event-stream", patience, SSE_HEADERS)
    content_type = CONTENT_TYPES[wanted.response_format]
    return StreamedAnswer(_bytes(app, first, sound), content_type, patience)


async def _json(request: Request) -> Mapping[str, Any]:
    """The body; its size is bounded for all requests alike."""
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise ApiError(
            400, "We could not parse the JSON body of your request.", code="invalid_json"
        ) from None
    if not isinstance(body, dict):
        raise ApiError(400, "The body of the request is no JSON object.", code="invalid_type")
    return body


def read_request(body: Mapping[str, Any], max_characters: int) -> SpeechRequest:
    """Check a request's body. Unknown fields and models are accepted.

    Raises:
        ApiError: 400; ``param`` names the field.
    """
    text = body.get("input")
    if text is None:
        raise ApiError(
            400,
            "Missing required parameter: 'input'.",
            param="input",
            code="missing_required_parameter",
        )
    if not isinstance(text, str):
        raise _invalid("input", "it is no string")
    if not text.strip():
        raise _invalid("input", "it is empty")
    if len(text) > max_characters:
        raise ApiError(
            400,
            f"Invalid 'input': string too long. Expected a string with maximum length "
            f"{max_characters}, but got a string with length {len(text)} instead.",
            param="input",
            code="string_above_max_length",
        )
    stream_format = _choice(body, "stream_format", STREAM_FORMATS, "audio")
    return SpeechRequest(
        # Half a character, which JSON can express, cannot be spoken.
        text=text.encode("utf-8", "replace").decode(),
        voice=_voice(body.get("voice")),
        response_format=_choice(body, "response_format", tuple(CONTENT_TYPES), "mp3"),
        speed=_speed(body.get("speed")),
        sse=stream_format == "sse",
    )


def _voice(value: Any) -> str:
    if isinstance(value, Mapping):
        value = value.get("id")
    if value is None or value == "":
        return DEFAULT_VOICE
    if not isinstance(value, str):
        raise _invalid("voice", "it is neither a string nor an object with an id")
    return value


def _speed(value: Any) -> float:
    if value is None:
        return 1.0
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not SLOWEST <= value <= FASTEST:
        raise _invalid("speed", f"expected a number from {SLOWEST:g} to {FASTEST:g}")
    return float(value)


def _choice(body: Mapping[str, Any], name: str, choices: tuple[str, ...], default: str) -> str:
    value = body.get(name)
    if value is None:
        return default
    if value not in choices:
        supported = ", ".join(f"'{choice}'" for choice in choices)
        raise _invalid(name, f"supported values are {supported}")
    return str(value)


def _invalid(name: str, reason: str) -> ApiError:
    return ApiError(400, f"Invalid '{name}': {reason}.", param=name, code="invalid_value")


# --- sound ----------------------------------------------------------------------------------------


async def spoken(voice: Voice, wanted: SpeechRequest) -> Sound:
    """The speech as s16le mono at 24 kHz, clause by clause; raises `VoiceError`."""
    cutter = ClauseCutter()
    for clause in [*cutter.feed(wanted.text), *cutter.flush()]:
        if not clause.strip():
            continue
        # A new one for each clause: a voice may learn its sample rate only when it speaks.
        encoder: SpeechEncoder | None = None
        async with closing(voice.speak(clause, wanted.voice, wanted.speed)) as stretches:
            async for stretch in stretches:
                encoder = encoder or SpeechEncoder(voice.sample_rate, "pcm16")
                if sound := encoder.encode(stretch.pcm16):
                    yield sound
        if encoder is not None and (rest := encoder.encode(b"", last=True)):
            yield rest


async def encoded(sound: Sound, name: str) -> Sound:
    """The bytes of a file of the format; none at all for no sound."""
    begun = None
    async with aclosing(sound):
        async for pcm16 in sound:
            begun = begun or build_format(name)
            if ready := await in_thread(begun.encode, pcm16):
                yield ready
    if begun is not None and (rest := await in_thread(begun.finish)):
        yield rest


async def _bytes(app: Any, first: bytes, sound: Sound) -> Sound:
    """The file. A fault in the middle breaks the answer off, so that it is not taken as whole."""
    async with aclosing(sound):
        yield first
        try:
            async for part in sound:
                yield part
        except TinyvoiceError:
            app.state.metrics.errors.labels("speech").inc()
            raise


async def _events(app: Any, first: bytes, sound: Sound) -> Sound:
    """The file in server-sent events, then the end; or an error, and nothing behind it."""
    async with aclosing(sound):
        yield _delta(first)
        try:
            async for part in sound:
                yield _delta(part)
        except Exception as error:
            logger.error("a streamed speech failed", exc_info=error)
            app.state.metrics.errors.labels("speech").inc()
            known = isinstance(error, TinyvoiceError)
            message = str(error) if known else "The server had an error while speaking."
            yield _sse(ApiError(500, message).body)
            return
    usage = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    yield _sse({"type": "speech.audio.done", "usage": usage})


def _delta(part: bytes) -> bytes:
    return _sse({"type": "speech.audio.delta", "audio": base64.b64encode(part).decode()})


def _sse(event: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(event)}\n\n".encode()
