"""`openai` Python: the beta protocol, which its ``client.beta.realtime`` still speaks."""

import argparse
import asyncio
from typing import Any

from feeding import base64_text, chunks, read_pcm, run, silence
from openai import AsyncOpenAI
from openai.resources.beta.realtime.realtime import AsyncRealtimeConnection

COMPLETED = "conversation.item.input_audio_transcription.completed"
INTERIM = "conversation.item.input_audio_transcription.delta"
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Look up the weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}


def client(options: argparse.Namespace) -> AsyncOpenAI:
    """The beta client insists on TLS unless it is told where WebSockets go."""
    return AsyncOpenAI(
        base_url=f"{options.http}/v1",
        websocket_base_url=options.relay.replace("http", "ws", 1) + "/v1",
        api_key="none",
        max_retries=0,
    )


class Heard:
    """What the client's iterator gave, gathered by kind."""

    def __init__(self, connection: AsyncRealtimeConnection) -> None:
        self.connection = connection
        self.types: list[str] = []
        self.deltas: dict[str, str] = {}
        self.transcripts: dict[str, str] = {}
        self.spoken_bytes = 0

    async def until(self, *wanted: str) -> Any:
        """Read on to the first event of one of these types."""
        async for event in self.connection:
            self.types.append(event.type)
            if event.type == INTERIM:
                self.deltas[event.item_id] = self.deltas.get(event.item_id, "") + event.delta
            elif event.type == COMPLETED:
                self.transcripts[event.item_id] = event.transcript
            elif event.type == "response.audio.delta":
                self.spoken_bytes += len(event.delta) * 3 // 4
            if event.type in wanted:
                return event
        raise RuntimeError(f"the connection closed before {wanted}: {self.types}")

    def report(self, **more: Any) -> dict[str, Any]:
        return {
            "types": self.types,
            "deltas": self.deltas,
            "transcripts": self.transcripts,
            "audio_seconds": self.spoken_bytes / 48000,
            **more,
        }


async def feed(connection: AsyncRealtimeConnection, pcm: bytes, speed: float) -> None:
    async for chunk in chunks(pcm, speed):
        await connection.input_audio_buffer.append(audio=base64_text(chunk))


async def conversation(options: argparse.Namespace) -> dict[str, Any]:
    """Speech in and out, then a typed question that needs a tool."""
    async with client(options).beta.realtime.connect(model="tinyvoice") as connection:
        heard = Heard(connection)
        created = await heard.until("session.created")
        await connection.session.update(
            session={
                "modalities": ["audio", "text"],
                "input_audio_format": "pcm16",
                "input_audio_transcription": {"model": "whisper-1"},
                "turn_detection": {"type": "server_vad", "silence_duration_ms": 500},
                "tools": [WEATHER],
                "temperature": 0.8,
                "voice": "alloy",
            }
        )
        updated = await heard.until("session.updated")
        pcm = read_pcm(options.speech[0]) + silence()
        feeding = asyncio.create_task(feed(connection, pcm, options.speed))
        spoken = await heard.until("response.audio_transcript.done")
        await heard.until("response.done")
        await feeding
        content = [{"type": "input_text", "text": "What is the weather in Paris?"}]
        item = {"type": "message", "role": "user", "content": content}
        await connection.conversation.item.create(item=item)
        await connection.response.create(response={"modalities": ["text"]})
        call = await heard.until("response.function_call_arguments.done")
        await heard.until("response.done")
        output = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
        await connection.conversation.item.create(item=output)
        await connection.response.create(response={"modalities": ["text"]})
        text = await heard.until("response.text.done")
        done = await heard.until("response.done")
        return heard.report(
            session=created.session.model_dump(exclude_unset=True),
            turn_detection=updated.session.turn_detection.model_dump(exclude_unset=True),
            answer=spoken.transcript,
            arguments=call.arguments,
            text=text.text,
            content=done.response.output[0].content[0].type,
        )


async def cancelled(options: argparse.Namespace) -> dict[str, Any]:
    """The client stops a long answer and says how much was heard."""
    async with client(options).beta.realtime.connect(model="tinyvoice") as connection:
        heard = Heard(connection)
        await heard.until("session.created")
        long = " ".join(f"This is sentence number {n}, and it goes on." for n in range(60))
        content = [{"type": "input_text", "text": long}]
        item = {"type": "message", "role": "user", "content": content}
        await connection.conversation.item.create(item=item)
        await connection.response.create()
        delta = await heard.until("response.audio.delta")
        await connection.response.cancel()
        done = await heard.until("response.done")
        await connection.conversation.item.truncate(
            item_id=delta.item_id, content_index=0, audio_end_ms=100
        )
        truncated = await heard.until("conversation.item.truncated")
        return heard.report(status=done.response.status, audio_end_ms=truncated.audio_end_ms)


async def transcription(options: argparse.Namespace) -> dict[str, Any]:
    """A transcription session in the beta's own shape."""
    query = {"intent": "transcription"}
    realtime = client(options).beta.realtime
    async with realtime.connect(model="", extra_query=query) as connection:
        heard = Heard(connection)
        await connection.transcription_session.update(
            session={
                "input_audio_format": "pcm16",
                "input_audio_transcription": {"model": "gpt-4o-transcribe", "language": "en"},
                "turn_detection": {"type": "server_vad", "silence_duration_ms": 500},
                "input_audio_noise_reduction": {"type": "near_field"},
            }
        )
        await heard.until("transcription_session.updated")
        pcm = b"".join(read_pcm(path) + silence() for path in options.speech)
        feeding = asyncio.create_task(feed(connection, pcm, options.speed))
        for _ in options.speech:
            await heard.until(COMPLETED)
        await feeding
        return heard.report()


async def ephemeral_session(options: argparse.Namespace) -> dict[str, Any]:
    """The beta's way to an ephemeral key, and a session with it."""
    made = await client(options).beta.realtime.sessions.create(
        model="tinyvoice", modalities=["text"], instructions="Only for this key."
    )
    bearer = AsyncOpenAI(
        base_url=f"{options.http}/v1",
        websocket_base_url=options.relay.replace("http", "ws", 1) + "/v1",
        api_key=made.client_secret.value,
    )
    async with bearer.beta.realtime.connect(model="tinyvoice") as connection:
        heard = Heard(connection)
        created = await heard.until("session.created")
        return heard.report(
            value=made.client_secret.value,
            instructions=created.session.instructions,
            modalities=created.session.modalities,
        )


if __name__ == "__main__":
    run(
        {
            "conversation": conversation,
            "cancelled": cancelled,
            "transcription": transcription,
            "ephemeral_session": ephemeral_session,
        }
    )
