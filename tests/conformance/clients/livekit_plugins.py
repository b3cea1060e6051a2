"""LiveKit agents: the OpenAI plug-in's recognisers and its realtime model, with no room."""

import argparse
import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from feeding import CHUNK_MS, chunks, read_pcm, run, silence
from livekit import rtc
from livekit.agents import function_tool, llm, stt, utils
from livekit.plugins import openai
from openai.types import realtime

RATE = 24_000
PATIENCE = 90.0


def frames(pcm: bytes, milliseconds: int = CHUNK_MS) -> list[rtc.AudioFrame]:
    size = 2 * RATE * milliseconds // 1000
    pieces = [pcm[start : start + size] for start in range(0, len(pcm), size)]
    return [rtc.AudioFrame(piece, RATE, 1, len(piece) // 2) for piece in pieces]


async def stt_realtime(options: argparse.Namespace) -> dict[str, Any]:
    """The streaming recogniser; the second stream takes over the first one's connection."""
    heard: list[dict[str, Any]] = []
    async with utils.http_context.open():
        recogniser = openai.STT(
            model="gpt-4o-transcribe",
            use_realtime=True,
            base_url=f"{options.relay}/v1",
            api_key="none",
        )
        for path in options.speech:
            heard.append(await recognise(recogniser, path, options.speed))
        await recogniser.aclose()
    return {"heard": heard}


async def recognise(recogniser: openai.STT, path: str, speed: float) -> dict[str, Any]:
    stream = recogniser.stream()
    interims: list[str] = []
    types: list[str] = []

    async def speak() -> None:
        async for chunk in chunks(read_pcm(path) + silence(), speed):
            stream.push_frame(rtc.AudioFrame(chunk, RATE, 1, len(chunk) // 2))

    speaking = asyncio.create_task(speak())
    final = ""
    async with asyncio.timeout(PATIENCE):
        async for event in stream:
            types.append(event.type.value)
            if event.type == stt.SpeechEventType.INTERIM_TRANSCRIPT:
                interims.append(event.alternatives[0].text)
            elif event.type == stt.SpeechEventType.FINAL_TRANSCRIPT:
                final = event.alternatives[0].text
            elif event.type == stt.SpeechEventType.RECOGNITION_USAGE:
                break
    await speaking
    await stream.aclose()
    return {"interims": interims, "final": final, "types": types}


async def stt_http(options: argparse.Namespace) -> dict[str, Any]:
    """The recogniser that sends a file, in both formats that it asks for."""
    texts = {}
    async with utils.http_context.open():
        for model in ("whisper-1", "gpt-4o-transcribe"):
            recogniser = openai.STT(
                model=model, use_realtime=False, base_url=f"{options.http}/v1", api_key="none"
            )
            event = await recogniser.recognize(frames(read_pcm(options.speech[0])))
            texts[model] = event.alternatives[0].text
            await recogniser.aclose()
    return {"texts": texts}


class Talk:
    """A realtime session and what it has emitted."""

    def __init__(self, session: llm.RealtimeSession) -> None:
        self.session = session
        self.generations: asyncio.Queue[llm.GenerationCreatedEvent] = asyncio.Queue()
        self.transcripts: list[Any] = []
        self.errors: list[str] = []
        self.counts: dict[str, int] = {}
        self.final = asyncio.Event()
        session.on("generation_created", self.generations.put_nowait)
        session.on("error", lambda event: self.errors.append(str(event.error)))
        session.on("input_audio_transcription_completed", self.transcribed)
        for name in ("input_speech_started", "input_speech_stopped"):
            session.on(name, lambda _event, name=name: self.count(name))

    def count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def transcribed(self, event: Any) -> None:
        self.transcripts.append([event.transcript, event.is_final])
        if event.is_final:
            self.final.set()

    def report(self, **more: Any) -> dict[str, Any]:
        return {
            "transcripts": self.transcripts,
            "errors": self.errors,
            "counts": self.counts,
            "context": [item.model_dump(mode="json") for item in self.session.chat_ctx.items],
            **more,
        }


@asynccontextmanager
async def talking(options: argparse.Namespace) -> AsyncIterator[Talk]:
    async with utils.http_context.open(), asyncio.timeout(PATIENCE * 2):
        model = openai.realtime.RealtimeModel(
            base_url=f"{options.relay}/v1",
            api_key="none",
            model="gpt-realtime",
            input_audio_transcription=realtime.AudioTranscription(model="gpt-4o-mini-transcribe"),
            turn_detection=realtime.realtime_audio_input_turn_detection.ServerVad(
                type="server_vad",
                silence_duration_ms=500,
                create_response=True,
                interrupt_response=True,
            ),
        )
        session = model.session()
        try:
            yield Talk(session)
        finally:
            await session.aclose()
            await model.aclose()


async def spoken(
    generation: llm.GenerationCreatedEvent, talk: Talk | None = None
) -> dict[str, Any]:
    """All that a generation gives; with ``talk`` it is interrupted after its first audio."""
    text, seconds, calls = [], 0.0, []
    message_id = None
    async for message in generation.message_stream:
        message_id = message.message_id

        async def read(stream: Any) -> None:
            async for piece in stream:
                text.append(str(piece))

        reading = asyncio.create_task(read(message.text_stream))
        async for frame in message.audio_stream:
            seconds += frame.duration
            if talk is not None:
                talk.session.interrupt()
                talk = None
        await reading
    async for call in generation.function_stream:
        calls.append([call.name, call.arguments, call.call_id])
    return {"text": "".join(text), "seconds": seconds, "calls": calls, "message_id": message_id}


@function_tool
async def get_weather(city: str) -> str:
    """Look up the weather of a city."""
    return f"sunny in {city}"


async def tool(options: argparse.Namespace) -> dict[str, Any]:
    """A typed question, a function call, its output, the answer."""
    async with talking(options) as talk:
        await talk.session.update_instructions("Be brief.")
        await talk.session.update_tools([get_weather])
        context = talk.session.chat_ctx.copy()
        context.add_message(role="user", content="What is the weather in Paris?")
        await talk.session.update_chat_ctx(context)
        first = await spoken(await talk.session.generate_reply())
        name, arguments, call_id = first["calls"][0]
        output = await get_weather(**json.loads(arguments))
        context = talk.session.chat_ctx.copy()
        context.items.append(
            llm.FunctionCallOutput(name=name, call_id=call_id, output=output, is_error=False)
        )
        await talk.session.update_chat_ctx(context)
        second = await spoken(await talk.session.generate_reply())
        return talk.report(first=first, second=second)


async def interruption(options: argparse.Namespace) -> dict[str, Any]:
    """An answer that the program interrupts and truncates; then a spoken turn."""
    async with talking(options) as talk:
        long = " ".join(f"This is sentence number {n}, and it goes on." for n in range(60))
        context = talk.session.chat_ctx.copy()
        context.add_message(role="user", content=long)
        await talk.session.update_chat_ctx(context)
        cut = await spoken(await talk.session.generate_reply(), talk)
        talk.session.truncate(message_id=cut["message_id"], modalities=["audio"], audio_end_ms=300)
        while not talk.generations.empty():
            talk.generations.get_nowait()
        async for chunk in chunks(read_pcm(options.speech[0]) + silence(), options.speed):
            talk.session.push_audio(rtc.AudioFrame(chunk, RATE, 1, len(chunk) // 2))
        answer = await spoken(await talk.generations.get())
        await talk.final.wait()
        return talk.report(cut=cut, answer=answer)


if __name__ == "__main__":
    run(
        {
            "stt_realtime": stt_realtime,
            "stt_http": stt_http,
            "tool": tool,
            "interruption": interruption,
        }
    )
