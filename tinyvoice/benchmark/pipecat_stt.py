"""Pipecat's own benchmark of recognisers, with our service in it.

The method is that of pipecat-ai/stt-benchmark: a pipeline of voice activity detection (Silero, stop
after 0.2 s) and the service; every sample in 20 ms chunks at speaking pace, then silence until the
first final text has come, and 2 s more for late ones; a fresh service a sample, one after the
other. TTFS is what Pipecat's service base reports as time to first byte: from the end of the
speech, as the voice activity detection sees it, to the last final text. Word errors are counted by
rule (``meaning.py``) where theirs are judged by a language model.

It measures what Pipecat sees, threads and event loop included; what the engine alone takes is
measured by `suite`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADParams
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    MetricsFrame,
    TranscriptionFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.metrics.metrics import TTFBMetricsData
from pipecat.observers.base_observer import BaseObserver, FramePushed
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.audio.vad_processor import VADProcessor
from pipecat.services.stt_service import STTService
from pipecat.workers.runner import WorkerRunner

from tinyvoice.benchmark.meaning import meaning_errors
from tinyvoice.benchmark.speech import Clip
from tinyvoice.metrics import Distribution, distribution

SAMPLE_RATE = 16_000
CHUNK_MS = 20
STOP_S = 0.2
"""Silence after which Pipecat's voice activity detection says that speech is over."""
LONGEST_WAIT_S = 10.0
LATE_TEXT_S = 2.0


@dataclass(frozen=True)
class Sample:
    """What came of one recording."""

    name: str
    reference: str
    text: str
    ttfs: float | None
    """Seconds; None where no final text answered."""
    first_interim: float | None
    """Seconds from the beginning of the recording's audio to the first interim text."""
    interims: int
    vad_stop: float | None
    """Seconds from the beginning to the last stop of voice activity: a service that holds up the
    event loop would move it."""
    finalized: bool


class DeafService(STTService):
    """Hears nothing: shows when voice activity stops where no recogniser is at work."""

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        """Let the audio pass."""
        del audio
        yield None


@dataclass(frozen=True)
class PipecatFigures:
    """A row of the public table, and what stands behind it."""

    samples: Sequence[Sample] = field(repr=False)

    @property
    def transcripts(self) -> float:
        """Share of samples with a text."""
        return _mean([bool(sample.text) for sample in self.samples])

    @property
    def perfect(self) -> float:
        """Share of samples without an error of meaning."""
        return _mean([self._errors(sample).edits == 0 for sample in self.samples])

    @property
    def mean_error_rate(self) -> float:
        """Mean over samples of errors by reference words."""
        errors = [self._errors(sample) for sample in self.samples]
        return _mean([one.edits / max(one.words, 1) for one in errors])

    @property
    def pooled_error_rate(self) -> float:
        """Errors of all samples by their reference words."""
        errors = [self._errors(sample) for sample in self.samples]
        return sum(one.edits for one in errors) / max(sum(one.words for one in errors), 1)

    @property
    def ttfs(self) -> Distribution | None:
        """Seconds."""
        return distribution(sample.ttfs for sample in self.samples)

    @property
    def finalized(self) -> float:
        """Share of samples whose text answered the flush."""
        return _mean([sample.finalized for sample in self.samples])

    def to_json(self) -> dict[str, Any]:
        """Everything, with the samples."""
        return {
            "transcripts": self.transcripts,
            "perfect": self.perfect,
            "mean_error_rate": self.mean_error_rate,
            "pooled_error_rate": self.pooled_error_rate,
            "finalized": self.finalized,
            "ttfs_s": asdict(self.ttfs) if self.ttfs else None,
            "samples": [asdict(sample) for sample in self.samples],
        }

    @staticmethod
    def _errors(sample: Sample) -> Any:
        return meaning_errors(sample.reference, sample.text)


async def measure(
    clips: Sequence[Clip],
    make_service: Callable[[], STTService],
    *,
    after_each: Callable[[int], bool] | None = None,
) -> PipecatFigures:
    """Play every clip to a service of its own, one after the other, at speaking pace.

    ``after_each`` is told how many are done and says whether to go on.
    """
    samples: list[Sample] = []
    for clip in clips:
        samples.append(await measure_clip(clip, make_service()))
        if after_each is not None and not after_each(len(samples)):
            break
    return PipecatFigures(samples)


async def measure_clip(clip: Clip, service: STTService) -> Sample:
    """Play one clip through a pipeline, then silence, and gather what the service pushed."""
    vad = VADProcessor(vad_analyzer=SileroVADAnalyzer(params=VADParams(stop_secs=STOP_S)))
    observer = _Observer()
    worker = PipelineWorker(
        Pipeline([vad, service]),
        params=PipelineParams(
            audio_in_sample_rate=SAMPLE_RATE, enable_metrics=True, enable_usage_metrics=True
        ),
        observers=[observer],
        enable_rtvi=False,
        idle_timeout_secs=None,
    )
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    started = asyncio.Event()

    @worker.event_handler("on_pipeline_started")
    async def _on_pipeline_started(_worker: Any, _frame: Any) -> None:
        started.set()

    await started.wait()
    observer.zero = time.monotonic()
    await _play(worker, clip, observer)
    await worker.queue_frame(EndFrame())
    await running
    return observer.sample(clip)


async def _play(worker: PipelineWorker, clip: Clip, observer: _Observer) -> None:
    """The clip, then silence until the text has come; paced on absolute time."""
    chunk = SAMPLE_RATE * CHUNK_MS // 1000
    speech = clip.pcm16()
    silence = np.zeros(chunk, dtype=np.int16)
    chunks = -(-len(speech) // chunk)
    position = 0
    while True:
        spoken = position * CHUNK_MS / 1000
        if position >= chunks:
            waited = spoken - chunks * CHUNK_MS / 1000
            if observer.finals and time.monotonic() - observer.finals[0][0] >= LATE_TEXT_S:
                return
            if waited >= LONGEST_WAIT_S:
                return
        piece = speech[position * chunk : (position + 1) * chunk]
        piece = np.concatenate([piece, silence[len(piece) :]]) if len(piece) < chunk else piece
        frame = InputAudioRawFrame(audio=piece.tobytes(), sample_rate=SAMPLE_RATE, num_channels=1)
        position += 1
        delay = observer.zero + position * CHUNK_MS / 1000 - time.monotonic()
        await asyncio.sleep(max(delay, 0.0))
        await worker.queue_frame(frame)


class _Observer(BaseObserver):
    """Notes what the service pushes, once for each frame."""

    def __init__(self) -> None:
        super().__init__()
        self.zero = 0.0
        self.finals: list[tuple[float, TranscriptionFrame]] = []
        self.interims: list[float] = []
        self.ttfb: float | None = None
        self.vad_stop: float | None = None
        self._seen: set[int] = set()

    async def on_push_frame(self, data: FramePushed) -> None:
        frame = data.frame
        if frame.id in self._seen:
            return
        self._seen.add(frame.id)
        now = time.monotonic()
        if isinstance(frame, TranscriptionFrame):
            self.finals.append((now, frame))
        elif isinstance(frame, InterimTranscriptionFrame):
            self.interims.append(now - self.zero)
        elif isinstance(frame, VADUserStoppedSpeakingFrame):
            self.vad_stop = now - self.zero
        elif isinstance(frame, MetricsFrame) and isinstance(data.source, STTService):
            for metric in frame.data:
                if isinstance(metric, TTFBMetricsData) and metric.value > 0.0:
                    self.ttfb = metric.value  # the last one counts, as it does there

    def sample(self, clip: Clip) -> Sample:
        return Sample(
            name=clip.name,
            reference=clip.text or "",
            text=" ".join(frame.text for _, frame in self.finals),
            ttfs=self.ttfb,
            first_interim=self.interims[0] if self.interims else None,
            interims=len(self.interims),
            vad_stop=self.vad_stop,
            finalized=any(frame.finalized for _, frame in self.finals),
        )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
