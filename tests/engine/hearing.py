"""Playing recordings into the engine, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tinyvoice.engine import Event, Final, Stream, StreamingEngine

SECOND = 16_000
Samples = NDArray[np.float32]


def pcm16(samples: Samples) -> bytes:
    """Float samples as 16-bit little-endian bytes."""
    return (np.clip(samples, -1, 1) * 32767).round().astype("<i2").tobytes()


def heard_as(samples: Samples) -> Samples:
    """What is left of float samples after :func:`pcm16`."""
    return np.frombuffer(pcm16(samples), "<i2").astype(np.float32) / np.float32(32768)


def packets(data: bytes, random: np.random.Generator, most: int = 6_000) -> Iterator[bytes]:
    """The bytes in pieces of random length, odd ones included."""
    at = 0
    while at < len(data):
        size = int(random.integers(1, most))
        yield data[at : at + size]
        at += size


def padded(samples: Samples, before_s: float = 0.5, after_s: float = 1.0) -> Samples:
    """The samples with silence around."""
    return np.pad(samples, (round(before_s * SECOND), round(after_s * SECOND)))


async def play(
    engine: StreamingEngine, samples: Samples, seed: int = 0, **settings: object
) -> list[Event]:
    """All events of a stream that is fed the samples in random packets and then closed."""
    stream: Stream = engine.stream(**settings)  # type: ignore[arg-type]
    async with stream:
        for packet in packets(pcm16(samples), np.random.default_rng(seed)):
            await stream.feed(packet)
            await asyncio.sleep(0)
    return [event async for event in stream]


def finals(events: Sequence[Event]) -> list[Final]:
    """The finals among events."""
    return [event for event in events if isinstance(event, Final)]


def said(events: Sequence[Event]) -> str:
    """The texts of all finals, joined."""
    return " ".join(final.text for final in finals(events) if final.text)
