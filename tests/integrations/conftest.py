"""Pipelines of Pipecat around the service, fed with recorded speech."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import EndFrame, ErrorFrame, Frame, InputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.audio.vad_processor import VADProcessor
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.stt_service import STTService
from pipecat.workers.runner import WorkerRunner

from tests.server.conftest import RunningServer, running
from tinyvoice.benchmark.speech import Clip, bundled_speech
from tinyvoice.engine import StreamingEngine
from tinyvoice.model.modeling import ASRModel
from tinyvoice.server.settings import ServerSettings

RATE = 16_000
CHUNK = 320


@pytest.fixture(scope="session")
def model() -> ASRModel:
    loaded = ASRModel.from_pretrained("embedded", device="cpu", dtype="float32")
    loaded.eval()
    return loaded


@pytest.fixture(scope="session")
def clips(model: ASRModel) -> list[Clip]:
    """Short utterances that the model gets right, so that a lost word shows."""
    found = [clip for clip in bundled_speech() if clip.duration < 4.5]
    texts = model.transcribe([clip.samples for clip in found], sample_rate=RATE)
    right = [clip for clip, heard in zip(found, texts, strict=True) if heard.text == clip.text]
    assert len(right) >= 4
    return right


@pytest_asyncio.fixture
async def engine(model: ASRModel) -> AsyncIterator[StreamingEngine]:
    async with StreamingEngine(model) as opened:
        yield opened


def server_settings(**changes: Any) -> ServerSettings:
    """Of a server that takes sessions however slow the machine is."""
    base = {"port": 0, "tts": "none", "refuse_partial_gap_s": 3_600}
    return ServerSettings(**{**base, **changes})


@pytest.fixture(scope="session")
def server(model: ASRModel) -> Iterator[RunningServer]:
    """A server on a free port of 127.0.0.1."""
    with running(server_settings(), model) as found:
        yield found


class Sink(FrameProcessor):
    """The end of the pipeline: keeps what arrives, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []
        self.news = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, InputAudioRawFrame):
            self.frames.append(frame)
            self.news.set()
        await self.push_frame(frame, direction)

    def of(self, *kinds: type[Frame]) -> list[Any]:
        return [frame for frame in self.frames if isinstance(frame, kinds)]


@dataclass
class Running:
    """A pipeline at work."""

    worker: PipelineWorker
    sink: Sink
    errors: list[ErrorFrame]
    task: asyncio.Task[None]
    rate: int
    fed: int = 0
    marks: dict[str, int] = field(default_factory=dict)

    async def feed(self, samples: np.ndarray, pace_s: float = 0.0) -> None:
        """Audio in [-1, 1] in 20 ms frames; ``pace_s`` is the time that each takes."""
        pcm = np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)
        chunk = self.rate // 50
        for start in range(0, len(pcm), chunk):
            piece = pcm[start : start + chunk].tobytes()
            self.fed += len(piece) // 2
            await self.worker.queue_frame(
                InputAudioRawFrame(audio=piece, sample_rate=self.rate, num_channels=1)
            )
            await asyncio.sleep(pace_s)

    async def silence(self, seconds: float, pace_s: float = 0.0) -> None:
        await self.feed(np.zeros(int(seconds * self.rate), dtype=np.float32), pace_s)

    async def until(self, *kinds: type[Frame], count: int = 1) -> list[Any]:
        """The frames of these kinds, once there are so many."""
        async with asyncio.timeout(25):
            while len(self.sink.of(*kinds)) < count:
                self.sink.news.clear()
                await self.sink.news.wait()
        return self.sink.of(*kinds)

    async def until_errors(self, count: int = 1) -> list[ErrorFrame]:
        """The error frames, once there are so many."""
        async with asyncio.timeout(25):
            while len(self.errors) < count:
                await asyncio.sleep(0.01)
        return self.errors

    async def end(self) -> Sink:
        await self.worker.queue_frame(EndFrame())
        async with asyncio.timeout(25):
            await self.task
        return self.sink


async def start(
    service: STTService,
    *,
    rate: int = RATE,
    vad: bool = True,
    before: Sequence[Any] = (),
    after: Sequence[Any] = (),
) -> Running:
    """Start a pipeline of voice activity detection, the service, and a sink."""
    sink = Sink()
    errors: list[ErrorFrame] = []
    stages = [VADProcessor(vad_analyzer=SileroVADAnalyzer())] if vad else []
    worker = PipelineWorker(
        Pipeline([*before, *stages, service, *after, sink]),
        params=PipelineParams(
            audio_in_sample_rate=rate, enable_metrics=True, enable_usage_metrics=True
        ),
        enable_rtvi=False,
        idle_timeout_secs=None,
    )

    @service.event_handler("on_error")
    async def _on_error(_service: Any, frame: ErrorFrame) -> None:
        errors.append(frame)

    started = asyncio.Event()

    @worker.event_handler("on_pipeline_started")
    async def _on_pipeline_started(_worker: Any, _frame: Any) -> None:
        started.set()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    task = asyncio.create_task(runner.run())
    async with asyncio.timeout(25):
        await started.wait()
    return Running(worker, sink, errors, task, rate)
