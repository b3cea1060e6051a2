"""Talking to an agent: real speech in, real speech out, what it says written down again.

The transport keeps sound in memory instead of playing it, so that a conversation takes the time
that computing it takes. `Talk.hold_voice` stops the playing, for interruptions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pipecat.frames.frames import (
    BotStoppedSpeakingFrame,
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    OutputAudioRawFrame,
    StartFrame,
    TTSAudioRawFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection
from pipecat.transports.base_input import BaseInputTransport
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import BaseTransport, TransportParams

from agents.conversation import hold
from tinyvoice.audio.resample import resample
from tinyvoice.model.modeling import ASRModel
from tinyvoice.voices.espeak_process import EspeakProcess

RATE = 16_000
VOICE = "en-us"
"""A voice that the embedded model understands well."""
SILENCE_S = 1.2
PATIENCE_S = 60.0


class _Input(BaseInputTransport):
    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)


class _Output(BaseOutputTransport):
    def __init__(self, params: TransportParams) -> None:
        super().__init__(params)
        self.sound: list[bytes] = []
        self.playing = asyncio.Event()
        self.playing.set()
        self.played = asyncio.Event()
        self.speaking = False
        self.stops = 0
        self.interruptions = 0
        self.turns = 0
        self.news = asyncio.Event()

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        if isinstance(frame, TTSAudioRawFrame):
            self.sound.append(frame.audio)
            self.speaking = True
            self.played.set()
        await self.playing.wait()
        return True

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InterruptionFrame):
            self.interruptions += 1
            self.news.set()
        elif isinstance(frame, UserStoppedSpeakingFrame):
            self.turns += 1
            self.news.set()

    async def push_frame(
        self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM
    ) -> None:
        if isinstance(frame, BotStoppedSpeakingFrame) and direction is FrameDirection.DOWNSTREAM:
            self.speaking = False
            self.stops += 1
            self.news.set()
        await super().push_frame(frame, direction)


class MemoryTransport(BaseTransport):
    """Sound from and to this process."""

    def __init__(self) -> None:
        super().__init__()
        params = TransportParams(
            audio_in_enabled=True, audio_out_enabled=True, audio_out_end_silence_secs=0
        )
        self._input, self._output = _Input(params), _Output(params)
        self._register_event_handler("on_client_connected")
        self._register_event_handler("on_client_disconnected")

    def input(self) -> _Input:
        return self._input

    def output(self) -> _Output:
        return self._output

    async def connect(self) -> None:
        await self._call_event_handler("on_client_connected", self)

    async def disconnect(self) -> None:
        await self._call_event_handler("on_client_disconnected", self)


def speech(mouth: EspeakProcess, text: str) -> NDArray[np.float32]:
    """A text in a voice that the embedded model understands well, at 16 kHz."""
    spoken = mouth.speak(text, VOICE)
    samples = np.frombuffer(spoken.pcm16, dtype="<i2").astype(np.float32)
    return resample(samples / np.float32(32768), spoken.sample_rate, RATE)


class Talk:
    """A conversation under way."""

    def __init__(self, transport: MemoryTransport, model: ASRModel, mouth: EspeakProcess) -> None:
        self.transport = transport
        self.output = transport.output()
        self._model = model
        self._mouth = mouth

    def speech(self, text: str) -> NDArray[np.float32]:
        return speech(self._mouth, text)

    async def say(self, text: str) -> None:
        """Speak, and be silent for a while."""
        await self.play(self.speech(text))

    async def play(self, samples: NDArray[np.float32]) -> None:
        """Play a recording to the agent, be silent for a while, and wait for the turn's end."""
        self.output.sound.clear()
        turns = self.output.turns
        edge = np.zeros(int(SILENCE_S * RATE), dtype=np.float32)
        sound = np.concatenate([edge[: RATE // 4], samples, edge])
        await self.feed(sound)
        await self.until(lambda: self.output.turns > turns)

    async def feed(self, samples: NDArray[np.float32]) -> None:
        """Let the agent hear something, as quickly as it takes it."""
        pcm = np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)
        for start in range(0, len(pcm), RATE // 50):
            await self.transport.input().push_audio_frame(
                InputAudioRawFrame(
                    audio=pcm[start : start + RATE // 50].tobytes(),
                    sample_rate=RATE,
                    num_channels=1,
                )
            )
            await asyncio.sleep(0)

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait for something that the output notices."""
        async with asyncio.timeout(PATIENCE_S):
            while not reached():
                self.output.news.clear()
                await self.output.news.wait()

    def heard(self) -> str:
        """What the agent has said since the last words to it, as the model hears it."""
        samples = np.frombuffer(b"".join(self.output.sound), dtype="<i2").astype(np.float32)
        samples = resample(samples / np.float32(32768), self.output.sample_rate, RATE)
        [transcript] = self._model.transcribe([np.pad(samples, RATE // 2)], sample_rate=RATE)
        return transcript.text

    async def hears(self, words: str) -> str:
        """All that the agent has said, once ``words`` are in it and it says no more."""
        heard = ""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    self.output.news.clear()
                    heard = self.heard() if self.output.sound else ""
                    # A rest of this answer would make another word of the next one's first.
                    if words in heard and not self.output.speaking:
                        return heard
                    await self.output.news.wait()
        except TimeoutError:
            raise AssertionError(f"{words!r} was not said, but {heard!r}") from None

    async def answer(self, text: str, expected: str) -> str:
        """Say ``text``, and expect an answer."""
        await self.say(text)
        return await self.hears(expected)


@asynccontextmanager
async def talking(
    build: Callable[[BaseTransport], PipelineWorker],
    model: ASRModel,
    mouth: EspeakProcess,
    greeting: str = "Hello.",
) -> AsyncIterator[Talk]:
    """A conversation with the agent that ``build`` makes; greeted, and ended by leaving."""
    transport = MemoryTransport()
    worker = build(transport)
    started = asyncio.Event()

    @worker.event_handler("on_pipeline_started")
    async def _started(_worker: Any, _frame: Any) -> None:
        started.set()

    task = asyncio.create_task(hold(worker, transport, greeting))
    talk = Talk(transport, model, mouth)
    async with asyncio.timeout(PATIENCE_S):
        await started.wait()
        await transport.connect()
    await talk.until(lambda: talk.output.stops > 0)
    try:
        yield talk
    finally:
        await transport.disconnect()
        async with asyncio.timeout(PATIENCE_S):
            await task
