"""Thousands of streams that come and go: what they held comes back."""

from __future__ import annotations

import ctypes
import ctypes.util
import gc
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.engine.hearing import SECOND, padded, pcm16
from tinyvoice.benchmark.speech import bundled_speech
from tinyvoice.engine import StreamingEngine

OPENS = 2_000
MOST_GROWTH = 20 * 2**20


def resident_bytes() -> int:
    """This process's memory, after what is free has been given back to the system."""
    gc.collect()
    ctypes.CDLL(ctypes.util.find_library("c")).malloc_trim(0)
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


async def open_and_drop(engine: StreamingEngine, count: int, data: bytes) -> None:
    """Streams that vanish: most at once, some while a pass is due, some after one."""
    for number in range(count):
        stream = await engine.stream().open()
        await stream.feed(data[: 2 * (number % SECOND)] or data[:2])
        if number % 10 == 0:
            await stream.flush()
        stream.drop()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.asyncio
async def test_two_thousand_streams_leave_no_memory_behind() -> None:
    data = pcm16(padded(bundled_speech()[0].samples[: SECOND // 2], 0.1, 0.4))
    async with StreamingEngine("embedded", device="cpu", dtype="float32") as engine:
        await open_and_drop(engine, OPENS // 10, data)
        before = resident_bytes()
        await open_and_drop(engine, OPENS, data)
        async with engine.stream() as stream:
            await stream.feed(np.zeros(SECOND, dtype="<i2").tobytes())
        assert resident_bytes() - before < MOST_GROWTH
        assert engine.open_streams == 0
