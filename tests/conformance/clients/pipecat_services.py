"""Pipecat: its two services for the protocol, each in a real pipeline."""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import soxr
from feeding import chunks, read_pcm, run, silence
from pipecat.adapters.schemas.function_schema import FunctionSchema
from pipecat.adapters.schemas.tools_schema import ToolsSchema
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMRunFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSTextFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.observers.base_observer import BaseObserver, FramePushed
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.audio.vad_processor import VADProcessor
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.llm_service import FunctionCallParams
from pipecat.services.openai.realtime import events
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.services.openai.stt import OpenAIRealtimeSTTService
from pipecat.workers.runner import WorkerRunner

RATE = 24_000
LOCAL_RATE = 16_000
PATIENCE = 90.0


class Watch(BaseObserver):
    """What a processor pushed, once for each frame, and a way to wait for more."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()
        self.finals: list[str] = []
        self.interims: list[str] = []
        self.errors: list[str] = []
        self.spoken: list[str] = []
        self.text_has_ended = False
        self.audio_bytes = 0
        self.counts: dict[str, int] = {}
        self.news = asyncio.Condition()

    async def on_push_frame(self, data: FramePushed) -> None:
        frame: Frame = data.frame
        if frame.id in self.seen:
            return
        self.seen.add(frame.id)
        name = type(frame).__name__
        self.counts[name] = self.counts.get(name, 0) + 1
        if isinstance(frame, TranscriptionFrame):
            self.finals.append(frame.text)
        elif isinstance(frame, InterimTranscriptionFrame):
            self.interims.append(frame.text)
        elif isinstance(frame, ErrorFrame):
            self.errors.append(frame.error)
        elif isinstance(frame, TTSTextFrame):
            self.spoken.append(frame.text)
            self.text_has_ended = False
        elif isinstance(frame, LLMFullResponseEndFrame):
            self.text_has_ended = True
        elif isinstance(frame, TTSAudioRawFrame):
            self.audio_bytes += len(frame.audio)
        async with self.news:
            self.news.notify_all()

    async def until(self, kind: type[Frame], count: int = 1) -> None:
        await self.until_true(lambda: self.counts.get(kind.__name__, 0) >= count)

    async def until_true(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE), self.news:
            await self.news.wait_for(condition)

    def report(self, **more: Any) -> dict[str, Any]:
        return {
            "finals": self.finals,
            "interims": self.interims,
            "errors": self.errors,
            "spoken": "".join(self.spoken),
            "audio_seconds": self.audio_bytes / 48000,
            "counts": self.counts,
            **more,
        }


async def through(
    processors: list[FrameProcessor],
    act: Callable[[PipelineWorker, Watch], Awaitable[None]],
    rate: int = RATE,
) -> Watch:
    """Run a pipeline while something is done with it."""
    watch = Watch()
    worker = PipelineWorker(
        Pipeline(processors),
        params=PipelineParams(audio_in_sample_rate=rate, audio_out_sample_rate=RATE),
        observers=[watch],
        enable_rtvi=False,
        idle_timeout_secs=None,
    )
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    started = asyncio.Event()

    @worker.event_handler("on_pipeline_started")
    async def on_started(_worker: Any, _frame: Any) -> None:
        started.set()

    running = asyncio.create_task(runner.run())
    await started.wait()
    try:
        await act(worker, watch)
        await worker.queue_frame(EndFrame())
    except BaseException:
        await worker.cancel()
        raise
    finally:
        await running
    return watch


async def speak(worker: PipelineWorker, pcm: bytes, speed: float) -> None:
    """As a transport does: small frames, at the pace of a microphone."""
    async for chunk in chunks(pcm, speed, RATE):
        await worker.queue_frame(InputAudioRawFrame(audio=chunk, sample_rate=RATE, num_channels=1))


async def stt_with_local_vad(options: argparse.Namespace) -> dict[str, Any]:
    """The service commits when Pipecat's own voice activity detection hears the end."""
    # Pipecat's Silero wants 16 kHz, the protocol 24: the service resamples.
    service = OpenAIRealtimeSTTService(
        api_key="none", base_url=websocket(options), turn_detection=False
    )
    vad = VADProcessor(vad_analyzer=SileroVADAnalyzer())

    async def act(worker: PipelineWorker, watch: Watch) -> None:
        for number, path in enumerate(options.speech, start=1):
            pcm = to_16_khz(read_pcm(path) + silence())
            async for chunk in chunks(pcm, options.speed, LOCAL_RATE):
                await worker.queue_frame(
                    InputAudioRawFrame(audio=chunk, sample_rate=LOCAL_RATE, num_channels=1)
                )
            await watch.until(VADUserStoppedSpeakingFrame, number)
            await watch.until(TranscriptionFrame, number)

    return (await through([vad, service], act, LOCAL_RATE)).report()


async def stt_with_server_vad(options: argparse.Namespace) -> dict[str, Any]:
    """The server finds the turns."""
    service = OpenAIRealtimeSTTService(
        api_key="none",
        base_url=websocket(options),
        turn_detection={"type": "server_vad", "silence_duration_ms": 500},
        settings=OpenAIRealtimeSTTService.Settings(
            model="gpt-transcribe", noise_reduction="near_field", prompt="Names: Bob."
        ),
    )

    async def act(worker: PipelineWorker, watch: Watch) -> None:
        for number, path in enumerate(options.speech, start=1):
            await speak(worker, read_pcm(path) + silence(), options.speed)
            await watch.until(TranscriptionFrame, number)

    return (await through([service], act)).report()


def llm(options: argparse.Namespace) -> OpenAIRealtimeLLMService:
    return OpenAIRealtimeLLMService(
        api_key="none",
        base_url=websocket(options),
        settings=OpenAIRealtimeLLMService.Settings(
            model="tinyvoice",
            system_instruction="Be brief.",
            session_properties=events.SessionProperties(
                audio=events.AudioConfiguration(
                    input=events.AudioInput(
                        transcription=events.InputAudioTranscription(model="gpt-4o-transcribe"),
                        turn_detection=events.TurnDetection(silence_duration_ms=500),
                        noise_reduction=events.InputAudioNoiseReduction(type="near_field"),
                    )
                )
            ),
        ),
    )


async def tool(options: argparse.Namespace) -> dict[str, Any]:
    """A typed question for which the model calls a function, then a spoken turn."""
    calls: list[Any] = []

    async def get_weather(params: FunctionCallParams) -> None:
        calls.append([params.function_name, dict(params.arguments)])
        await params.result_callback({"weather": "sunny"})

    schema = FunctionSchema(
        name="get_weather",
        description="Look up the weather of a city.",
        properties={"city": {"type": "string"}},
        required=["city"],
    )
    service = llm(options)
    service.register_function("get_weather", get_weather)
    context = LLMContext(
        [{"role": "user", "content": "What is the weather in Paris?"}],
        tools=ToolsSchema(standard_tools=[schema]),
    )
    pair = LLMContextAggregatorPair(context)

    async def act(worker: PipelineWorker, watch: Watch) -> None:
        await worker.queue_frame(LLMRunFrame())
        # One ends the call, one the answer.
        await watch.until(TTSTextFrame)
        await watch.until(LLMFullResponseEndFrame, 2)
        await speak(worker, read_pcm(options.speech[0]) + silence(), options.speed)
        await watch.until(UserStoppedSpeakingFrame)
        await watch.until(TranscriptionFrame)
        await watch.until(LLMFullResponseEndFrame, 3)

    watch = await through([pair.user(), service, pair.assistant()], act)
    return watch.report(calls=calls, messages=[str(message) for message in context.messages])


async def interruption(options: argparse.Namespace) -> dict[str, Any]:
    """The user speaks into a long answer; Pipecat interrupts and truncates it."""
    long = " ".join(f"This is sentence number {n}, and it goes on." for n in range(60))
    service = llm(options)
    pair = LLMContextAggregatorPair(LLMContext([{"role": "user", "content": long}]))

    async def act(worker: PipelineWorker, watch: Watch) -> None:
        await worker.queue_frame(LLMRunFrame())
        await watch.until(TTSAudioRawFrame)
        await speak(worker, read_pcm(options.speech[0]) + silence(), options.speed)
        await watch.until(UserStartedSpeakingFrame)
        await watch.until(InterruptionFrame)
        await watch.until(TranscriptionFrame)
        # How many ends an interruption gives is no matter: the one after the second answer is.
        await watch.until_true(
            lambda: "".join(watch.spoken).count("You said") == 2 and watch.text_has_ended
        )

    return (await through([pair.user(), service, pair.assistant()], act)).report()


def websocket(options: argparse.Namespace) -> str:
    return str(options.relay).replace("http", "ws", 1) + "/v1/realtime"


def to_16_khz(pcm: bytes) -> bytes:
    samples = soxr.resample(np.frombuffer(pcm, "<i2"), RATE, LOCAL_RATE)
    return bytes(np.asarray(samples, "<i2").tobytes())


if __name__ == "__main__":
    run(
        {
            "stt_with_local_vad": stt_with_local_vad,
            "stt_with_server_vad": stt_with_server_vad,
            "tool": tool,
            "interruption": interruption,
        }
    )
