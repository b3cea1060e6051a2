"""Speak, and see what is understood; a recording can speak instead.

python examples/microphone.py
python examples/microphone.py --file tinyvoice/cli/demo.flac
"""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import AsyncIterator
from typing import Any

from tinyvoice.audio import load_audio
from tinyvoice.audio.microphone import Microphone, find_device
from tinyvoice.engine import Final, StreamingEngine


async def recording(path: str) -> AsyncIterator[Any]:
    """Packets of 20 ms of a recording."""
    samples = load_audio(path).samples
    for start in range(0, len(samples), 320):
        yield samples[start : start + 320]


async def main(path: str | None) -> None:
    """Print each utterance when it is over."""
    async with StreamingEngine("embedded") as engine:
        if path is not None:
            await transcribe(engine, recording(path), rate=16_000, channels=1)
            return
        async with Microphone(find_device()) as microphone:
            form = microphone.format
            await transcribe(engine, aiter(microphone), form.sample_rate, form.channels)


async def transcribe(
    engine: StreamingEngine, packets: AsyncIterator[Any], rate: int, channels: int
) -> None:
    """Feed the packets and print the finals meanwhile."""
    stream = engine.stream(sample_rate=rate, channels=channels)

    async def show() -> None:
        async for event in stream:
            if isinstance(event, Final):
                print(event.text, flush=True)

    reader = asyncio.create_task(show())
    async with stream:
        async for packet in packets:
            await stream.feed(packet)
    await reader


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--file", help="a recording that speaks instead")
    asyncio.run(main(parser.parse_args().file))
