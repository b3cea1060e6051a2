"""Whether a recogniser in a Pipecat pipeline delays the voice activity detection behind it.

In a voice agent audio passes the recogniser before it reaches the detection, which sits in the user
aggregator; both share one event loop. A service that works where it should only queue shows as a
detection that decides late, and then everything that follows is late.

Each recording is played twice at speaking pace, through the same pipeline: once with the service,
once with one in its place that lets the audio pass and does nothing (`DeafService`). The order
changes from recording to recording. Of each decision are taken: how much audio the detection had
had, which no clock can change, and when its frame left, counted from the time at which the last of
that audio was due. What a recogniser adds is the difference between the two runs, decision by
decision.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADParams
from pipecat.frames.frames import (
    Frame,
    InputAudioRawFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.audio.vad_processor import VADProcessor
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.settings import STTSettings
from pipecat.services.stt_service import STTService

from tinyvoice.benchmark.pipecat_stt import CHUNK_MS, SAMPLE_RATE, STOP_S, chunks, pipeline
from tinyvoice.benchmark.speech import Clip
from tinyvoice.metrics import Distribution, distribution

RECORDINGS = 24
"""Different recordings that are played, at most: each takes twice its length and two seconds."""

SILENCE_S = 1.0
"""Behind a recording: enough for the detection to stop."""


@dataclass(frozen=True)
class Decision:
    """The detection says that speech has begun or ended."""

    kind: Literal["started", "stopped"]
    audio_s: float
    """Audio that it had had."""
    late_s: float
    """When its frame left, after the time at which the last of that audio was due."""

    @property
    def place(self) -> tuple[str, float]:
        """What it is that no clock changes."""
        return self.kind, self.audio_s


@dataclass(frozen=True)
class Compared:
    """One recording, with the service and with one that does nothing."""

    name: str
    service: Sequence[Decision]
    nothing: Sequence[Decision]

    @property
    def same(self) -> bool:
        """Whether the detection decided the same at the same places."""
        return [d.place for d in self.service] == [d.place for d in self.nothing]

    @property
    def added_s(self) -> list[float]:
        """What the service adds to each decision; nothing can be said where they differ."""
        if not self.same:
            return []
        return [a.late_s - b.late_s for a, b in zip(self.service, self.nothing, strict=True)]


@dataclass(frozen=True)
class DetectionFigures:
    """What a service does to the detection's timing."""

    recordings: Sequence[Compared] = field(repr=False)

    @property
    def same(self) -> float:
        """Share of the recordings with the same decisions at the same places."""
        return sum(one.same for one in self.recordings) / max(len(self.recordings), 1)

    @property
    def service(self) -> Distribution | None:
        """How late decisions leave with the service, in seconds."""
        return distribution(d.late_s for one in self.recordings for d in one.service)

    @property
    def nothing(self) -> Distribution | None:
        """The same without."""
        return distribution(d.late_s for one in self.recordings for d in one.nothing)

    @property
    def added(self) -> Distribution | None:
        """What the service adds, decision by decision, in seconds; it may be negative."""
        return distribution(added for one in self.recordings for added in one.added_s)

    def to_json(self) -> dict[str, Any]:
        """Everything, with the decisions."""
        spreads = {"service": self.service, "nothing": self.nothing, "added": self.added}
        return {
            "same": self.same,
            **{f"{name}_s": asdict(found) if found else None for name, found in spreads.items()},
            "recordings": [asdict(one) for one in self.recordings],
        }


class DeafService(STTService):
    """Hears nothing: shows when voice activity is decided where no recogniser is at work."""

    def __init__(self) -> None:
        settings = STTSettings(model=None, language=None)
        super().__init__(settings=settings, ttfs_p99_latency=1.0)

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        """Let the audio pass."""
        del audio
        yield None


class _NotedVAD(VADProcessor):
    """Notes when its decisions leave, and how much audio it has had by then."""

    def __init__(self) -> None:
        params = VADParams(stop_secs=STOP_S)
        super().__init__(vad_analyzer=SileroVADAnalyzer(params=params))
        self.zero = time.monotonic()
        self.decisions: list[Decision] = []
        self._chunks = 0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        self._chunks += isinstance(frame, InputAudioRawFrame)
        await super().process_frame(frame, direction)

    async def broadcast_frame(self, frame_cls: type[Frame], **kwargs: Any) -> None:
        if frame_cls is VADUserStartedSpeakingFrame:
            self._note("started")
        elif frame_cls is VADUserStoppedSpeakingFrame:
            self._note("stopped")
        await super().broadcast_frame(frame_cls, **kwargs)

    def _note(self, kind: Literal["started", "stopped"]) -> None:
        audio_s = self._chunks * CHUNK_MS / 1000
        self.decisions.append(Decision(kind, audio_s, time.monotonic() - self.zero - audio_s))


async def compare_detection(
    clips: Sequence[Clip],
    make_service: Callable[[], STTService],
    *,
    after_each: Callable[[int], bool] = lambda _: True,
    pace: float = 1.0,
) -> DetectionFigures:
    """Play each recording with the service and with one that does nothing.

    ``after_each`` is told how many are done and says whether to go on. ``pace`` below 1 plays
    faster than people speak: the decisions are the same, how late they leave says nothing then.
    """
    compared: list[Compared] = []
    for clip in clips:
        ways = [make_service, DeafService]
        heard: dict[bool, list[Decision]] = {}
        for way in ways if len(compared) % 2 == 0 else ways[::-1]:
            heard[way is make_service] = await _decisions(clip, way(), pace)
        compared.append(Compared(clip.name, heard[True], heard[False]))
        if not after_each(len(compared)):
            break
    return DetectionFigures(compared)


async def _decisions(clip: Clip, service: STTService, pace: float) -> list[Decision]:
    vad = _NotedVAD()
    silence = np.zeros(round(SILENCE_S * SAMPLE_RATE), dtype=np.int16)
    async with pipeline([service, vad]) as worker:
        vad.zero = time.monotonic()
        for number, frame in enumerate(chunks(np.concatenate([clip.pcm16(), silence])), 1):
            due = vad.zero + number * CHUNK_MS / 1000 * pace
            await asyncio.sleep(max(due - time.monotonic(), 0.0))
            await worker.queue_frame(frame)
    return vad.decisions
