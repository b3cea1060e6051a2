"""Streams served together: every stream plays all clips, and what it cost is counted."""

from __future__ import annotations

import asyncio

import numpy as np

from tinyvoice.benchmark.lockstep import cost_together, sound_of
from tinyvoice.benchmark.speech import bundled_speech
from tinyvoice.engine import StreamingEngine


def test_each_stream_has_an_order_of_its_own() -> None:
    clips = bundled_speech()[:3]
    lengths = [len(clip.samples) for clip in clips]
    sounds = [sound_of(clips, number, 2, pause_s=0.5) for number in range(2)]
    assert len(sounds[0]) == sum(lengths) + 4 * 8_000
    assert len(sounds[1]) == len(sounds[0]) + 8_000
    np.testing.assert_array_equal(sounds[0][8_000 : 8_000 + lengths[0]], clips[0].pcm16())
    np.testing.assert_array_equal(sounds[1][16_000 : 16_000 + lengths[1]], clips[1].pcm16())


async def test_it_plays_to_the_end_and_costs_something() -> None:
    shares: list[float] = []
    async with StreamingEngine("embedded", device="cpu", dtype="float32") as engine:
        cost = await cost_together(
            engine,
            bundled_speech()[:2],
            2,
            {"silence_ms": 200},
            pause_s=0.4,
            stop=asyncio.Event(),
            progress=shares.append,
        )
        assert engine.open_streams == 0
    assert cost > 0.0
    assert shares == sorted(shares)
    assert shares[-1] > 0.9


async def test_it_ends_when_it_is_told_to() -> None:
    stop = asyncio.Event()
    stop.set()
    async with StreamingEngine("embedded", device="cpu", dtype="float32") as engine:
        clips = bundled_speech()[:1]
        assert await cost_together(engine, clips, 2, {}, pause_s=0.4, stop=stop) >= 0.0
