"""The streaming engine by itself: a recording goes in as packets, words come out.

python examples/engine.py tinyvoice/cli/demo.flac
"""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser, RawDescriptionHelpFormatter

from tinyvoice.audio import load_audio
from tinyvoice.engine import Final, Partial, Stream, StreamingEngine

PACKET = 320  # 20 ms at 16 kHz


async def main(path: str) -> None:
    """Print partials and finals of a recording."""
    samples = load_audio(path).samples
    async with StreamingEngine("embedded") as engine:
        stream = engine.stream(sample_rate=16_000)
        reader = asyncio.create_task(read(stream))
        async with stream:
            for start in range(0, len(samples), PACKET):
                await stream.feed(samples[start : start + PACKET])
        await reader


async def read(stream: Stream) -> None:
    """Show what the stream has to say."""
    async for event in stream:
        if isinstance(event, Partial):
            print(f"… {event.stable}|{event.tail}")
        elif isinstance(event, Final):
            print(event.text)


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("recording", help="a sound file")
    asyncio.run(main(parser.parse_args().recording))
