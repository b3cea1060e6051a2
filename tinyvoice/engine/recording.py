"""Play a recording into a stream: the same events at every speed.

What a live stream is told depends on how fast its audio comes in one respect only: partials that
fall behind are left out. Here each packet waits until the one before has been heard and its events
have been read, so that a recording gives one list of events, on any machine. Files are not read
here, and nothing is shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.checks import in_range
from tinyvoice.engine.engine import StreamingEngine
from tinyvoice.engine.errors import EngineError
from tinyvoice.engine.events import Event, Failed, Final
from tinyvoice.engine.settings import StreamSettings
from tinyvoice.engine.stream import Stream
from tinyvoice.model.transcript import Transcript
from tinyvoice.model.transcription import join

PACKET_MS = 100
"""Audio that is fed at a time. Shorter than the interval of partials, so that none is left out."""


async def stream_recording(
    engine: StreamingEngine,
    samples: NDArray[np.float32],
    *,
    packet_ms: int = PACKET_MS,
    speed: float | None = None,
    settings: StreamSettings | None = None,
    **changes: Any,
) -> AsyncGenerator[Event, None]:
    """The events of a recording that is played into a stream of its own.

    Args:
        engine: an open engine.
        samples: ``(samples,)``, 16 kHz mono in [-1, 1].
        packet_ms: audio fed at a time, 1 to 10,000.
        speed: seconds of audio played in a second, on absolute time; None for as fast as the engine
            hears it.
        settings, changes: as for `StreamingEngine.stream`.

    Raises:
        EngineClosedError, EngineFullError, EngineOverloadedError: there is no place.
        AudioError, ConfigurationError, MissingExtraError: the samples or settings are no good.

    Leaving early drops the stream, at once where the iterator is closed (`contextlib.aclosing`).
    """
    async with engine.stream(settings=settings, **changes) as stream:
        async for event in play(stream, samples, packet_ms=packet_ms, speed=speed):
            yield event


async def play(
    stream: Stream,
    samples: NDArray[np.float32],
    *,
    packet_ms: int = PACKET_MS,
    speed: float | None = None,
) -> AsyncGenerator[Event, None]:
    """The events of a recording that is played into an open stream, which is closed at its end.

    Args and errors as for `stream_recording`.
    """
    in_range("packet_ms", packet_ms, 1, 10_000)
    if speed is not None:
        in_range("speed", speed, 0.01, 10_000.0)
    loop = asyncio.get_running_loop()
    begin, fed = loop.time(), 0
    size = packet_ms * SAMPLE_RATE // 1000
    try:
        for start in range(0, len(samples), size):
            packet = samples[start : start + size]
            fed += len(packet)
            if speed is not None:
                # A microphone hands a packet over when its last sample has been spoken.
                await asyncio.sleep(begin + fed / SAMPLE_RATE / speed - loop.time())
            await stream.feed(packet)
            await stream.flush()
            for event in stream.read():
                yield event
        await stream.close()
    except EngineError:
        # A stream that fails says so in its last event; anything else is the caller's affair.
        left = stream.read()
        if not any(isinstance(event, Failed) for event in left):
            raise
        for event in left:
            yield event
        return
    for event in stream.read():
        yield event


def joined(finals: Iterable[Final], duration: float) -> Transcript:
    """One transcript of a recording of ``duration`` seconds from the finals of its utterances.

    The confidence is the finals' geometric mean, weighted by their words. Without any final the
    text is empty.
    """
    parts = [
        Transcript(
            final.text,
            final.words,
            final.confidence,
            final.audio_end - final.audio_start,
            final.audio_start,
        )
        for final in finals
    ]
    return join(parts, duration)
