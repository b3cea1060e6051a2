"""From an upload to what the engine says about it.

A recording goes through the streaming engine as a stream of its own, as fast as the engine hears
it, so that the text of each utterance is the one that its audio gives offline, and that a live
stream would get. It is a stream in the background: the engine works on it while no live stream has
anything to do, a pass at a time, so that a live stream waits for one pass over one utterance at
most; however busy live streams are, it gets a step a second and ends some day. Only
``max_files_at_once`` recordings are in memory and being heard, the others wait for their turn;
partials, of which a recording needs many, are made only where they are sent. Files are decoded in
threads, and nothing of the model runs in the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, BinaryIO, TypeVar

from tinyvoice.audio.files import Audio, AudioLimits, load_audio
from tinyvoice.engine import Failed, Final, Stream
from tinyvoice.engine.events import Event, UtteranceFailed
from tinyvoice.engine.recording import play
from tinyvoice.errors import AudioError, AudioTooLongError, MissingExtraError
from tinyvoice.server.errors import ApiError

PACKET_MS = 960
"""Audio that the engine has of a recording at a time, about what it hears in one step."""
SHORTEST_S = 0.1
"""A recording with less is refused, as by OpenAI."""

_UPLOAD = "the upload"

Result = TypeVar("Result")


async def read_recording(file: BinaryIO, max_seconds: float, max_bytes: int) -> Audio:
    """Decode an uploaded file, whatever its name says it is.

    Raises:
        ApiError: 400: it is no audio, damaged, empty, too short or too long.
    """

    def read() -> Audio:
        limits = AudioLimits(max_seconds=max_seconds, max_bytes=max_bytes)
        return load_audio(file, name=_UPLOAD, limits=limits)

    try:
        audio = await in_thread(read)
    except AudioTooLongError as error:
        raise _refused(_sentence(error, "The recording "), "audio_too_long") from None
    except MissingExtraError as error:
        raise _refused(
            _sentence(error, "This server cannot read the file: "), "unsupported_format"
        ) from None
    except AudioError as error:
        raise _refused(
            _sentence(error, "Audio file might be corrupted or unsupported: it "), "invalid_value"
        ) from None
    if audio.duration < SHORTEST_S:
        raise _refused(
            f"Audio file is too short. Minimum audio length is {SHORTEST_S} seconds.",
            "audio_too_short",
        )
    return audio


def _sentence(error: Exception, beginning: str) -> str:
    """What is wrong with a file that has no name of its own."""
    return beginning + str(error).removeprefix(f"{_UPLOAD}: ")


def _refused(message: str, code: str) -> ApiError:
    return ApiError(400, message, param="file", code=code)


async def in_thread(function: Callable[..., Result], *arguments: Any) -> Result:
    """Run a function in a thread; cancelling waits until it has ended, so that what it works on
    can be closed then."""
    running = asyncio.get_running_loop().run_in_executor(None, function, *arguments)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait((running,))
        raise


async def events_of(stream: Stream, audio: Audio) -> AsyncGenerator[Event, None]:
    """What an open stream of the engine says about a recording.

    Raises:
        TinyvoiceError: the model failed for a part of it: what is left is no transcript.
    """
    async with aclosing(play(stream, audio.samples, packet_ms=PACKET_MS)) as events:
        async for event in events:
            if isinstance(event, Failed | UtteranceFailed):
                raise event.error
            yield event


async def finals_of(stream: Stream, audio: Audio) -> list[Final]:
    """All finals of a recording; raises as `events_of`."""
    async with aclosing(events_of(stream, audio)) as events:
        return [event async for event in events if isinstance(event, Final)]
