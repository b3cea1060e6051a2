"""Pipecat's own benchmark of recognisers, with our service in it.

The method is that of pipecat-ai/stt-benchmark: voice activity detection (Silero, stop after 0.2 s)
and the service in a pipeline; every sample in 20 ms chunks at speaking pace, then silence until the
first final text has come, and 2 s more for late ones; a fresh service a sample, one after the
other. TTFS is what Pipecat's service base reports as time to first byte: from the end of the
speech, as the voice activity detection sees it, to the last final text. Word errors are counted by
rule (``meaning.py``) where theirs are judged by a language model.

The pipeline is a voice agent's, where theirs has the detection in a processor before the service:
the service, then the context aggregators with Pipecat's default turn strategies. Detection is in
the user aggregator, whose frames travel upstream to the service, and its smart-turn model computes
on the same cores while the final text is made.

Beside it are counted the flushes (stops of voice activity) that no finalized text answered, empty
frames, frames with text over sound in which nobody speaks (`quiet`), the user turns that the
strategies started and stopped, and the samples whose texts all reached the context. Whether the
service delays the voice activity detection itself is measured by `pipecat_detection`.

It measures what Pipecat sees, threads and event loop included; what the engine alone takes is
measured by `suite`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADParams
from pipecat.frames.frames import (
    EndFrame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    MetricsFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.metrics.metrics import TTFBMetricsData
from pipecat.observers.base_observer import BaseObserver, FramePushed
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
)
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.stt_service import STTService
from pipecat.workers.runner import WorkerRunner

from tinyvoice.benchmark.meaning import meaning_errors
from tinyvoice.benchmark.quiet import quiet_sounds
from tinyvoice.benchmark.speech import Clip
from tinyvoice.metrics import Distribution, distribution

SAMPLE_RATE = 16_000
CHUNK_MS = 20
STOP_S = 0.2
"""Silence after which Pipecat's voice activity detection says that speech is over."""
LONGEST_WAIT_S = 10.0
LATE_TEXT_S = 2.0
"""Also what is waited, at least, for a turn to end behind its text."""
QUIET_S = 10.0
"""Of each kind of sound in which nobody speaks."""


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
    flushes: int
    """Stops of voice activity."""
    unanswered: int
    """Flushes that no finalized text answered before the next one."""
    empty: int
    """Interim and final frames without a word."""
    turns_started: int = 0
    """User turns that the aggregator's strategies began,"""
    turns_stopped: int = 0
    """and that they ended before the pipeline did."""
    in_context: bool = False
    """Whether the user's messages in the context were, by then, all the final texts."""

    @property
    def finalized(self) -> bool:
        """Whether a text answered a flush."""
        return self.flushes > self.unanswered


@dataclass(frozen=True)
class Quiet:
    """What came of sound in which nobody speaks."""

    name: str
    seconds: float
    frames: int
    """Interim and final frames; each is one too many."""
    texts: Sequence[str]
    turns: int = 0
    """User turns that it began; each is one too many."""


@dataclass(frozen=True)
class PipecatFigures:
    """A row of the public table, and what stands behind it."""

    samples: Sequence[Sample] = field(repr=False)
    quiet: Sequence[Quiet] = ()

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

    @property
    def flushes(self) -> int:
        """Stops of voice activity."""
        return sum(sample.flushes for sample in self.samples)

    @property
    def unanswered(self) -> int:
        """Flushes that no finalized text answered."""
        return sum(sample.unanswered for sample in self.samples)

    @property
    def empty(self) -> int:
        """Frames without a word."""
        return sum(sample.empty for sample in self.samples)

    @property
    def hallucinated(self) -> int:
        """Frames over sound in which nobody speaks."""
        return sum(quiet.frames for quiet in self.quiet)

    @property
    def in_context(self) -> int:
        """Samples whose texts all reached the context."""
        return sum(sample.in_context for sample in self.samples)

    def to_json(self) -> dict[str, Any]:
        """Everything, with the samples."""
        return {
            "transcripts": self.transcripts,
            "perfect": self.perfect,
            "mean_error_rate": self.mean_error_rate,
            "pooled_error_rate": self.pooled_error_rate,
            "finalized": self.finalized,
            "ttfs_s": asdict(self.ttfs) if self.ttfs else None,
            "flushes": self.flushes,
            "unanswered": self.unanswered,
            "empty": self.empty,
            "hallucinated": self.hallucinated,
            "turns_started": sum(sample.turns_started for sample in self.samples),
            "turns_stopped": sum(sample.turns_stopped for sample in self.samples),
            "in_context": self.in_context,
            "quiet_turns": sum(quiet.turns for quiet in self.quiet),
            "quiet_s": sum(quiet.seconds for quiet in self.quiet),
            "quiet": [asdict(quiet) for quiet in self.quiet],
            "samples": [asdict(sample) for sample in self.samples],
        }

    @staticmethod
    def _errors(sample: Sample) -> Any:
        return meaning_errors(sample.reference, sample.text)


def settings_of(service: STTService) -> dict[str, Any]:
    """What a service was set to when it was measured, and the silence that its detection waits for.

    Plain values only: what a service has no setting for, and what is an object, is left out.
    """
    plain = (str, int, float, bool)
    given = {name: value for name, value in vars(service.settings).items() if name != "model"}
    return {
        "stop_secs": STOP_S,
        **{name: value for name, value in given.items() if isinstance(value, plain)},
    }


async def measure(
    clips: Sequence[Clip],
    make_service: Callable[[], STTService],
    *,
    after_each: Callable[[int], bool] = lambda _: True,
) -> list[Sample]:
    """Play every clip to a service of its own, one after the other, at speaking pace.

    ``after_each`` is told how many are done and says whether to go on.
    """
    samples: list[Sample] = []
    for clip in clips:
        samples.append(await measure_clip(clip, make_service()))
        if not after_each(len(samples)):
            break
    return samples


async def measure_clip(clip: Clip, service: STTService) -> Sample:
    """Play one clip through a pipeline, then silence, and gather what the service pushed."""
    agent = Agent(service)
    observer = Observer()
    async with pipeline(agent.stages, observer) as worker:
        observer.zero = time.monotonic()
        await _play(worker, clip, observer, agent)
        # The end of a pipeline writes what is left to the context, and a turn's end would not show.
        started, stopped, messages = agent.started, agent.stopped, agent.messages
    sample = observer.sample(clip)
    return replace(
        sample,
        turns_started=started,
        turns_stopped=stopped,
        in_context=bool(sample.text) and " ".join(messages) == sample.text,
    )


async def measure_quiet(
    make_service: Callable[[], STTService], seconds: float = QUIET_S
) -> list[Quiet]:
    """Play sound in which nobody speaks, as fast as it is taken."""
    found: list[Quiet] = []
    for name, sound in quiet_sounds(seconds).items():
        agent = Agent(make_service())
        observer = Observer()
        async with pipeline(agent.stages, observer) as worker:
            for piece in chunks(np.round(sound * 32767).astype(np.int16)):
                await worker.queue_frame(piece)
                await asyncio.sleep(0)
        texts = [frame.text for _, frame in observer.finals]
        frames = len(texts) + len(observer.interims)
        found.append(Quiet(name, seconds, frames, texts, agent.started))
    return found


class Agent:
    """Stages of a voice agent without a language model: the service and what finds its turns.

    The turn strategies are Pipecat's defaults: turns start with voice activity or a text, and stop
    when the smart-turn model finds them complete and the finalized text is there.
    """

    def __init__(self, service: STTService) -> None:
        self.context = LLMContext()
        detection = SileroVADAnalyzer(params=VADParams(stop_secs=STOP_S))
        user, assistant = LLMContextAggregatorPair(
            self.context, user_params=LLMUserAggregatorParams(vad_analyzer=detection)
        )
        self.stages: list[FrameProcessor] = [service, user, assistant]
        self.started = self.stopped = 0
        """User turns."""

        @user.event_handler("on_user_turn_started")
        async def _on_user_turn_started(*_: Any) -> None:
            self.started += 1

        @user.event_handler("on_user_turn_stopped")
        async def _on_user_turn_stopped(*_: Any) -> None:
            self.stopped += 1

    @property
    def messages(self) -> list[str]:
        """What the user has said, as a language model would read it."""
        messages: list[Any] = self.context.messages
        return [str(message["content"]) for message in messages if message["role"] == "user"]


@asynccontextmanager
async def pipeline(
    stages: Sequence[FrameProcessor], observer: BaseObserver | None = None
) -> AsyncIterator[PipelineWorker]:
    """A pipeline that has started; at the end it takes all that was queued, then ends."""
    worker = PipelineWorker(
        Pipeline([*stages]),
        params=PipelineParams(
            audio_in_sample_rate=SAMPLE_RATE, enable_metrics=True, enable_usage_metrics=True
        ),
        observers=[observer] if observer is not None else [],
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
    yield worker
    await worker.queue_frame(EndFrame())
    await running


def chunks(speech: NDArray[np.int16]) -> Iterator[InputAudioRawFrame]:
    """Frames of `CHUNK_MS`; the last one is filled up with silence."""
    size = SAMPLE_RATE * CHUNK_MS // 1000
    padded = np.pad(speech, (0, -len(speech) % size))
    for begin in range(0, len(padded), size):
        audio = padded[begin : begin + size].tobytes()
        yield InputAudioRawFrame(audio=audio, sample_rate=SAMPLE_RATE, num_channels=1)


async def _play(worker: PipelineWorker, clip: Clip, observer: Observer, agent: Agent) -> None:
    """The clip, then silence until the text has come and the turn has ended; on absolute time."""
    silence = np.zeros(SAMPLE_RATE * CHUNK_MS // 1000, dtype=np.int16)
    spoken_s = 0.0
    for frame in chain(chunks(clip.pcm16()), (next(chunks(silence)) for _ in count())):
        if spoken_s >= clip.duration:
            turning = agent.started > agent.stopped
            late = observer.finals and time.monotonic() - observer.finals[0][0] >= LATE_TEXT_S
            if late and not turning:
                return
            if spoken_s - clip.duration >= LONGEST_WAIT_S:
                return
        spoken_s += CHUNK_MS / 1000
        await asyncio.sleep(max(observer.zero + spoken_s - time.monotonic(), 0.0))
        await worker.queue_frame(frame)


class Observer(BaseObserver):
    """Notes what the service pushes, once for each frame."""

    def __init__(self) -> None:
        super().__init__()
        self.zero = 0.0
        self.finals: list[tuple[float, TranscriptionFrame]] = []
        self.interims: list[float] = []
        self.ttfb: float | None = None
        self.flushes = self.unanswered = self.empty = 0
        self._asked = False
        self._seen: set[int] = set()

    async def on_push_frame(self, data: FramePushed) -> None:
        """A processor has handed on a frame; each frame counts once."""
        frame = data.frame
        if frame.id in self._seen:
            return
        self._seen.add(frame.id)
        now = time.monotonic()
        if isinstance(frame, TranscriptionFrame):
            self.finals.append((now, frame))
            self._asked = self._asked and not frame.finalized
            self.empty += not frame.text.strip()
        elif isinstance(frame, InterimTranscriptionFrame):
            self.interims.append(now - self.zero)
            self.empty += not frame.text.strip()
        elif isinstance(frame, VADUserStartedSpeakingFrame | VADUserStoppedSpeakingFrame):
            # The aggregator makes two of each; what counts is the one that the service is told by.
            if isinstance(data.destination, STTService):
                self._give_up()
                self._asked = isinstance(frame, VADUserStoppedSpeakingFrame)
                self.flushes += self._asked
        elif isinstance(frame, MetricsFrame) and isinstance(data.source, STTService):
            for metric in frame.data:
                if isinstance(metric, TTFBMetricsData) and metric.value > 0.0:
                    self.ttfb = metric.value  # the last one counts, as it does there

    def _give_up(self) -> None:
        """The flush before, if there was one, is not answered any more."""
        self.unanswered += self._asked
        self._asked = False

    def sample(self, clip: Clip) -> Sample:
        """What came of the clip, at its end."""
        self._give_up()
        return Sample(
            name=clip.name,
            reference=clip.text or "",
            text=" ".join(frame.text for _, frame in self.finals),
            ttfs=self.ttfb,
            first_interim=self.interims[0] if self.interims else None,
            interims=len(self.interims),
            flushes=self.flushes,
            unanswered=self.unanswered,
            empty=self.empty,
        )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
