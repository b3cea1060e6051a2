"""What streams cost when they are served together.

Each stream is fed the same length of audio in turn, and the engine is waited for after each round:
every partial is made, whatever the machine can keep up with, so that the cost of two engines can be
compared even where one of them could not hold so many streams in real time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.benchmark.harness import Engine, LiveStream
from tinyvoice.benchmark.speech import Clip
from tinyvoice.engine.events import Failed, UtteranceFailed

PACKET_S = 0.16
"""Audio that each stream is fed in a round: half the usual interval of partials."""

SECONDS_A_STREAM = 24.0
"""Audio that each stream plays at most: two of the long clips, and the baseline is slow."""


async def cost_together(
    engine: Engine,
    clips: Sequence[Clip],
    streams: int,
    settings: dict[str, Any],
    *,
    pause_s: float,
    stop: asyncio.Event,
    progress: Callable[[float], None] = lambda _: None,
) -> float:
    """Processor seconds per second of audio of ``streams`` streams on an open engine.

    Stream *i* plays the clips from the *i*-th on, and begins a little later than the one before, so
    that their utterances neither begin nor end together.
    """
    sounds = [sound_of(clips, number, streams, pause_s) for number in range(streams)]
    length = min(round(SECONDS_A_STREAM * SAMPLE_RATE), *(len(sound) for sound in sounds))
    size = round(PACKET_S * SAMPLE_RATE)
    async with contextlib.AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(engine.stream(SAMPLE_RATE, **settings))
            for _ in range(streams)
        ]
        readers = [asyncio.create_task(read(stream)) for stream in opened]
        began, at = time.process_time(), 0
        while at + size <= length and not stop.is_set():
            rounds = [
                play(stream, sound[at : at + size].tobytes())
                for stream, sound in zip(opened, sounds, strict=True)
            ]
            await asyncio.gather(*rounds)
            at += size
            progress(at / length)
        cost = (time.process_time() - began) / max(1, streams * at / SAMPLE_RATE)
    await asyncio.gather(*readers)
    return cost


async def play(stream: LiveStream, packet: bytes) -> None:
    """Feed a packet and wait until it has been processed."""
    await stream.feed(packet)
    await stream.flush()


async def read(stream: LiveStream) -> None:
    """Read a stream's events to the end; a failure is raised."""
    async for event in stream:
        if isinstance(event, Failed | UtteranceFailed):
            raise event.error


def sound_of(clips: Sequence[Clip], number: int, streams: int, pause_s: float) -> NDArray[np.int16]:
    """The clips in the order of one stream, silence before the first and after each."""
    pause = np.zeros(round(pause_s * SAMPLE_RATE), dtype=np.int16)
    before = np.zeros(round(number / streams * SAMPLE_RATE), dtype=np.int16)
    first = number % len(clips)
    pieces = [before, pause]
    for clip in [*clips[first:], *clips[:first]]:
        pieces += [clip.pcm16(), pause]
    return np.concatenate(pieces)
