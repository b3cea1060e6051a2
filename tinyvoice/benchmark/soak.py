"""Continuous talk for a long time: what the last minute costs, and holds, beside the first.

The same minute of speech is fed again and again, without pauses, as fast as it is processed: an
utterance is cut only where the engine cuts what has become too long. Every partial that would be
made in real time is made, because the engine is waited for after each packet.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.benchmark.harness import Engine, LiveStream
from tinyvoice.benchmark.machine import resident_bytes
from tinyvoice.benchmark.speech import Clip
from tinyvoice.engine.events import Failed, Final, Partial, UtteranceFailed
from tinyvoice.metrics import normal_words

PACKET_S = 0.16
"""Audio between two waits for the engine: half its usual interval of partials."""
GAP_S = 0.06
"""Between two clips: less than any endpointing takes for a pause."""
AUDIBLE = 0.02
"""Part of a clip's peak from which on it sounds; what is quieter at its ends is cut off."""

MINUTE_S = 60


@dataclass(frozen=True)
class SoakMinute:
    """One minute of audio: processor seconds for each of its seconds, and memory at its end."""

    compute: float
    resident_bytes: int | None
    partials: int
    finals: int
    words: int


@dataclass(frozen=True)
class SoakFigures:
    """First and last minute compared."""

    minutes: list[SoakMinute]
    cost_ratio: float | None
    """Compute of the last minute over that of the first."""
    cost_ratio_of_medians: float | None
    """The same of the last and first three minutes' medians, which other programs disturb less."""
    memory_growth_bytes: int | None
    """From the end of the first minute to the end of the last."""
    interrupted: bool


def soak_figures(minutes: list[SoakMinute], interrupted: bool = False) -> SoakFigures:
    """Compare first and last; needs two minutes."""
    ratio = of_medians = growth = None
    if len(minutes) > 1:
        costs = [minute.compute for minute in minutes]
        ratio = costs[-1] / costs[0]
        of_medians = median(costs[-3:]) / median(costs[:3])
        first, last = minutes[0].resident_bytes, minutes[-1].resident_bytes
        growth = None if first is None or last is None else last - first
    return SoakFigures(minutes, ratio, of_medians, growth, interrupted)


def one_minute(clips: Sequence[Clip]) -> NDArray[np.int16]:
    """A minute of speech without pauses: clips in order, their silent ends cut off."""
    gap = np.zeros(round(GAP_S * SAMPLE_RATE), dtype=np.int16)
    pieces: list[NDArray[np.int16]] = []
    length, wanted = 0, MINUTE_S * SAMPLE_RATE
    while length < wanted:
        for clip in clips:
            pieces += [_trimmed(clip), gap]
            length += len(pieces[-2]) + len(gap)
    return np.concatenate(pieces)[:wanted]


def _trimmed(clip: Clip) -> NDArray[np.int16]:
    sound = clip.pcm16()
    loud = np.flatnonzero(
        np.abs(sound.astype(np.int32)) > AUDIBLE * np.abs(clip.samples).max() * 2**15
    )
    return sound[loud[0] : loud[-1] + 1] if len(loud) else sound[:0]


async def soak(
    engine: Engine,
    speech: NDArray[np.int16],
    minutes: int,
    settings: dict[str, Any],
    stop: asyncio.Event,
    progress: Callable[[float], None] = lambda _: None,
) -> SoakFigures:
    """Feed ``minutes`` times the same speech (of :func:`one_minute`) to an open engine.

    ``stop`` ends it with what there is.
    """
    found: list[SoakMinute] = []
    async with engine.stream(SAMPLE_RATE, **settings) as stream:
        counts = {"partials": 0, "finals": 0, "words": 0}
        reader = asyncio.create_task(_count(stream, counts))
        try:
            for minute in range(minutes):
                before = dict(counts)
                began = time.process_time()
                for share in in_packets(speech):
                    await stream.feed(share.tobytes())
                    await stream.flush()
                    if stop.is_set() or reader.done():
                        break
                if stop.is_set() or reader.done():
                    break
                cost = (time.process_time() - began) * SAMPLE_RATE / len(speech)
                new = {name: counts[name] - before[name] for name in counts}
                found.append(SoakMinute(cost, resident_bytes(), **new))
                progress((minute + 1) / minutes)
        finally:
            reader.cancel()
            outcome = await asyncio.gather(reader, return_exceptions=True)
    for error in outcome:
        if isinstance(error, Exception) and not isinstance(error, asyncio.CancelledError):
            raise error
    return soak_figures(found, stop.is_set())


def in_packets(speech: NDArray[np.int16]) -> list[NDArray[np.int16]]:
    """The minute in packets of :data:`PACKET_S`."""
    size = round(PACKET_S * SAMPLE_RATE)
    return [speech[at : at + size] for at in range(0, len(speech), size)]


async def _count(stream: LiveStream, counts: dict[str, int]) -> None:
    async for event in stream:
        if isinstance(event, Partial):
            counts["partials"] += 1
        elif isinstance(event, Final):
            counts["finals"] += 1
            counts["words"] += len(normal_words(event.text))
        elif isinstance(event, Failed | UtteranceFailed):
            raise event.error
