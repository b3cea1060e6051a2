"""`openai-agents`: its speech-to-text session, and its realtime runner."""

import argparse
import asyncio
from typing import Any

import numpy as np
from agents.realtime import RealtimeAgent, RealtimeRunner
from agents.voice import StreamedAudioInput, STTModelSettings
from agents.voice.models.openai_stt import OpenAISTTModel
from feeding import chunks, read_pcm, run, silence
from openai import AsyncOpenAI

from agents import function_tool

PATIENCE = 90.0


async def speech_to_text(options: argparse.Namespace) -> dict[str, Any]:
    """Turns of a session that ends with its audio; the last has no silence after it."""
    client = AsyncOpenAI(base_url=f"{options.relay}/v1", api_key="none", max_retries=0)
    audio = StreamedAudioInput()
    session = await OpenAISTTModel("gpt-4o-transcribe", client).create_session(
        audio, STTModelSettings(), False, False
    )

    async def speak() -> None:
        pcm = silence().join(read_pcm(path) for path in options.speech)
        async for chunk in chunks(pcm, options.speed):
            await audio.add_audio(np.frombuffer(chunk, np.int16))
        await audio.add_audio(None)

    speaking = asyncio.create_task(speak())
    turns = [turn async for turn in session.transcribe_turns()]
    await speaking
    return {"turns": turns}


class Watch:
    """The runner's events, gathered by kind."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.types: list[str] = []
        self.errors: list[str] = []
        self.tools: list[list[Any]] = []
        self.history: list[Any] = []
        self.audio_bytes = 0

    async def until(self, wanted: str, count: int = 1) -> Any:
        async with asyncio.timeout(PATIENCE):
            async for event in self.session:
                self.note(event)
                count -= event.type == wanted
                if count == 0:
                    return event
        raise RuntimeError(f"the session ended before {wanted}: {self.types}")

    async def until_answered(self) -> None:
        """To the end of a response that is more than a tool call."""
        while True:
            event = await self.until("raw_model_event")
            if event.data.type == "raw_server_event":
                server = event.data.data
                if server.get("type") == "response.done" and any(
                    item.get("type") == "message" for item in server["response"]["output"]
                ):
                    return

    def note(self, event: Any) -> None:
        self.types.append(event.type)
        if event.type == "error":
            self.errors.append(str(event.error))
        elif event.type in ("tool_start", "tool_end"):
            output = getattr(event, "output", None)
            self.tools.append([event.type, event.tool.name, event.arguments, output])
        elif event.type == "audio":
            self.audio_bytes += len(event.audio.data)
        elif event.type == "history_updated":
            self.history = event.history

    def report(self, **more: Any) -> dict[str, Any]:
        return {
            "types": sorted(set(self.types)),
            "errors": self.errors,
            "tools": self.tools,
            "audio_seconds": self.audio_bytes / 48000,
            "history": [item.model_dump() for item in self.history],
            **more,
        }


@function_tool
def get_weather(city: str) -> str:
    """Look up the weather of a city."""
    return f"sunny in {city}"


def runner(options: argparse.Namespace, agent: RealtimeAgent, **settings: Any) -> Any:
    url = options.relay.replace("http", "ws", 1) + "/v1/realtime?model=tinyvoice"
    config = {"url": url, "api_key": "none", "initial_model_settings": settings}
    return RealtimeRunner(agent).run(model_config=config)


async def tool(options: argparse.Namespace) -> dict[str, Any]:
    """A typed question, whose answer the agent's function knows."""
    agent = RealtimeAgent(name="helper", instructions="Be brief.", tools=[get_weather])
    async with await runner(options, agent) as session:
        watch = Watch(session)
        await session.send_message("What is the weather in Paris?")
        await watch.until("tool_end")
        await watch.until_answered()
        return watch.report()


async def interruption(options: argparse.Namespace) -> dict[str, Any]:
    """A long answer, which the user interrupts by speaking."""
    agent = RealtimeAgent(name="helper", instructions="Be brief.")
    settings = {
        "turn_detection": {"type": "server_vad", "interrupt_response": True},
        "input_audio_transcription": {"model": "gpt-4o-mini-transcribe"},
    }
    async with await runner(options, agent, **settings) as session:
        watch = Watch(session)
        long = " ".join(f"This is sentence number {n}, and it goes on." for n in range(60))
        await session.send_message(long)
        await watch.until("audio")

        async def speak() -> None:
            async for chunk in chunks(read_pcm(options.speech[0]) + silence(), options.speed):
                await session.send_audio(chunk)

        speaking = asyncio.create_task(speak())
        interrupted = await watch.until("audio_interrupted")
        await watch.until_answered()
        await watch.until_answered()
        await speaking
        return watch.report(interrupted=interrupted.item_id)


if __name__ == "__main__":
    run({"speech_to_text": speech_to_text, "tool": tool, "interruption": interruption})
