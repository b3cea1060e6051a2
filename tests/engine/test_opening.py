"""Streams whose owner goes away while they are being opened."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from tinyvoice.engine import EngineSettings, StreamingEngine
from tinyvoice.model.modeling import ASRModel


async def test_a_place_that_nobody_waits_for_is_given_back(model: ASRModel) -> None:
    async with StreamingEngine(model, EngineSettings(max_streams=2)) as engine:
        for _ in range(5):
            opening = asyncio.ensure_future(engine.stream().open())
            await asyncio.sleep(0)
            opening.cancel()
            with suppress(asyncio.CancelledError):
                await opening
            # The next one waits behind it in the worker, and has the place to itself.
            async with engine.stream() as stream:
                await stream.flush()

        assert engine.open_streams == 0
