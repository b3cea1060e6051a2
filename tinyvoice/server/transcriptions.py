"""``POST /v1/audio/transcriptions`` and its neighbour that translates nothing.

A recording in, its words out: at once as JSON, text or subtitles, or as server-sent events while it
is being heard. How recordings share the model with live sessions is told in ``recordings.py``.
Speakers are not told apart, and nothing is translated.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.requests import ClientDisconnect

from tinyvoice.audio.files import Audio
from tinyvoice.engine import Final, Partial, Stream
from tinyvoice.errors import TinyvoiceError
from tinyvoice.server.disconnects import (
    CLIENT_CLOSED_REQUEST,
    SSE_HEADERS,
    StreamedAnswer,
    while_connected,
)
from tinyvoice.server.errors import ApiError
from tinyvoice.server.places import places_of, refuse_when_busy
from tinyvoice.server.recordings import events_of, finals_of, read_recording
from tinyvoice.server.transcription_formats import (
    FileTranscript,
    as_json,
    as_srt,
    as_text,
    as_verbose,
    as_vtt,
    token_logprobs,
)
from tinyvoice.server.transcription_request import TranscriptionRequest, read_request
from tinyvoice.server.uploads import read_form

logger = logging.getLogger(__name__)
router = APIRouter()

PARTIAL_INTERVAL_MS = 640
"""Audio between two looks at an utterance that is being streamed."""


@router.post("/v1/audio/transcriptions")
async def create_transcription(request: Request) -> Response:
    """Transcribe an uploaded recording."""
    state = request.app.state
    refuse_when_busy(request.app)
    async with AsyncExitStack() as stack:
        stack.enter_context(places_of(request.app).take())
        try:
            limits = state.settings
            form = await stack.enter_async_context(
                read_form(request, limits.max_upload_bytes, limits.upload_seconds)
            )
            wanted = read_request(form)
            answer = await while_connected(request, _answer(request, wanted, stack))
            if isinstance(answer, StreamedAnswer):
                answer.own(stack.pop_all())
            return answer
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)


@router.post("/v1/audio/translations")
async def create_translation() -> Response:
    """Refuse: there is no model that translates."""
    raise ApiError(
        400,
        "This server does not translate: use /v1/audio/transcriptions for a transcript in the "
        "language that is spoken.",
        code="translation_not_supported",
    )


async def _answer(
    request: Request, wanted: TranscriptionRequest, stack: AsyncExitStack
) -> Response:
    """The answer; one that is streamed needs what the stack holds until it ends."""
    state = request.app.state
    await stack.enter_async_context(places_of(request.app).model)
    audio = await read_recording(
        wanted.file.file, state.settings.max_file_seconds, state.settings.max_upload_bytes
    )
    state.metrics.audio_seconds.labels("http").inc(audio.duration)
    stream: Stream = state.engine.stream(
        settings=wanted.settings,
        partials=wanted.stream,
        partial_interval_ms=PARTIAL_INTERVAL_MS,
        word_times=wanted.word_times,
    )
    # Dropped, not closed: what nobody waits for any more is not transcribed.
    stack.callback(stream.drop)
    await stream.open()
    if wanted.stream:
        parts = _events(request.app, stream, audio, wanted)
        patience = state.settings.send_timeout_seconds
        return StreamedAnswer(parts, "text/event-stream", patience, SSE_HEADERS)
    finals = await finals_of(stream, audio)
    return _formatted(FileTranscript(finals, audio.duration), wanted)


def _formatted(transcript: FileTranscript, wanted: TranscriptionRequest) -> Response:
    match wanted.response_format:
        case "text":
            return PlainTextResponse(as_text(transcript))
        case "srt":
            return PlainTextResponse(as_srt(transcript))
        case "vtt":
            return PlainTextResponse(as_vtt(transcript))
        case "verbose_json":
            return JSONResponse(as_verbose(transcript, wanted.language, wanted.granularities))
        case _:
            return JSONResponse(as_json(transcript, wanted.logprobs))


async def _events(
    app: Any, stream: Stream, audio: Audio, wanted: TranscriptionRequest
) -> AsyncGenerator[bytes, None]:
    """Server-sent events: deltas, the whole, ``[DONE]``; or an error, and nothing behind it."""
    finals: list[Final] = []
    text = AppendedText()
    try:
        async with aclosing(events_of(stream, audio)) as events:
            async for event in events:
                delta = ""
                if isinstance(event, Partial):
                    delta = text.partial(event)
                elif isinstance(event, Final):
                    delta = text.final(event)
                    finals.append(event)
                if delta:
                    yield _sse({"type": "transcript.text.delta", "delta": delta})
    except Exception as error:
        yield _sse(_failure(app, error).body)
        return
    transcript = FileTranscript(finals, audio.duration)
    done: dict[str, Any] = {"type": "transcript.text.done", "text": transcript.text}
    if wanted.logprobs:
        done["logprobs"] = token_logprobs(finals)
    yield _sse(done)
    yield b"data: [DONE]\n\n"


def _failure(app: Any, error: Exception) -> ApiError:
    """What a client may know of a fault that came after the answer had begun."""
    logger.error("a streamed transcription failed", exc_info=error)
    app.state.metrics.errors.labels("transcription").inc()
    if isinstance(error, ApiError):
        return error
    if isinstance(error, TinyvoiceError):
        return ApiError(500, str(error))
    return ApiError(500, "The server had an error while processing your request.")


def _sse(event: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()


class AppendedText:
    """The text of several utterances as deltas: what has been given is never taken back.

    Of a partial only the stable part is given. Where a final, against expectation, does not
    continue what was given, nothing more of its utterance is.
    """

    def __init__(self) -> None:
        self._before = False
        """Whether an earlier utterance had any text."""
        self._given = ""
        """What has been given of the current utterance."""

    def partial(self, event: Partial) -> str:
        """The new text of a partial."""
        return self._more(event.stable.rstrip())

    def final(self, event: Final) -> str:
        """The rest of an utterance, which is over with it."""
        more = self._more(event.text)
        self._before = self._before or bool(self._given)
        self._given = ""
        return more

    def _more(self, text: str) -> str:
        if not text.startswith(self._given):
            return ""
        more = text[len(self._given) :]
        if more and not self._given and self._before:
            more = " " + more
        self._given = text
        return more
