"""OpenAI's own Realtime client against `tinyvoice serve`: a question goes in, an answer comes out.

tinyvoice serve &
python examples/realtime_client.py question.wav
"""

from __future__ import annotations

import asyncio
import base64
from argparse import ArgumentParser, RawDescriptionHelpFormatter

from openai import AsyncOpenAI

from tinyvoice.audio import load_audio
from tinyvoice.audio.resample import resample

RATE = 24_000


async def main(path: str, server: str) -> None:
    """Print what was understood and what was answered."""
    client = AsyncOpenAI(
        api_key="any",
        base_url=f"{server}/v1",
        websocket_base_url=f"ws{server.removeprefix('http')}/v1",
    )
    pcm = (resample(load_audio(path).samples, 16_000, RATE) * 32767).astype("<i2").tobytes()
    async with client.realtime.connect(model="tinyvoice") as connection:
        await connection.session.update(
            session={
                "type": "realtime",
                "audio": {"input": {"transcription": {"model": "tinyvoice"}}},
            }
        )
        silence = bytes(2 * RATE)
        await connection.input_audio_buffer.append(audio=base64.b64encode(pcm + silence).decode())
        sound = 0
        async for event in connection:
            if event.type == "conversation.item.input_audio_transcription.completed":
                print("you:", event.transcript)
            elif event.type == "response.output_audio.delta":
                sound += len(base64.b64decode(event.delta))
            elif event.type == "response.output_audio_transcript.done":
                print("agent:", event.transcript)
            elif event.type == "response.done":
                print(f"({sound / 2 / RATE:.1f} s of speech)")
                return


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("question", help="a sound file")
    parser.add_argument("server", nargs="?", default="http://127.0.0.1:8000")
    options = parser.parse_args()
    try:
        asyncio.run(main(options.question, options.server))
    except ConnectionRefusedError:
        raise SystemExit(f"Nothing answers at {options.server}: start tinyvoice serve.") from None
