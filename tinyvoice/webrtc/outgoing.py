"""Plays pcm16 into a call at the pace of a clock, in frames of 20 ms.

`Playback` is the queue: what waits, whose turn it is, how much of each answer was played. It does
no I/O and reads no clock. `OutgoingTrack` is the audio track that takes a frame from it every
20 ms, silence when there is none, so that packets flow during the whole call; aiortc encodes them
with the codec that was agreed on. What the listener's own jitter buffer still holds is not known
here: what has left counts as played.
"""

from __future__ import annotations

import asyncio
import fractions
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame
from numpy.typing import NDArray

from tinyvoice.audio.polyphase import PolyphaseResampler
from tinyvoice.webrtc.errors import PlaybackFullError

SAMPLE_RATE = 24_000
FRAME_S = 0.02
FRAME_BYTES = 2 * round(SAMPLE_RATE * FRAME_S)
_TRACK_RATE = 48_000
_BYTES_PER_MS = 2 * SAMPLE_RATE // 1000
_SILENCE = bytes(FRAME_BYTES)


@dataclass
class _Answer:
    response_id: str
    waiting: bytearray = field(default_factory=bytearray)
    played: int = 0
    """Bytes that have left."""
    complete: bool = False
    """Whether nothing more will come."""


class Playback:
    """Audio that waits to be played, by the answer it belongs to; answers play one after another.

    Args:
        on_started: called with the answer's id when its first audio leaves.
        on_drained: called with the id when all of a complete answer has been played.
        longest_s: how much may wait in all.
    """

    def __init__(
        self,
        on_started: Callable[[str], None] = lambda _: None,
        on_drained: Callable[[str], None] = lambda _: None,
        longest_s: float = 900.0,
    ) -> None:
        self._on_started = on_started
        self._on_drained = on_drained
        self._capacity = round(longest_s * 1000) * _BYTES_PER_MS
        self._answers: deque[_Answer] = deque()

    @property
    def playing(self) -> str | None:
        """The answer whose audio is leaving or waits first; None when there is nothing."""
        return self._answers[0].response_id if self._answers else None

    @property
    def queued_ms(self) -> float:
        """How much waits to be played."""
        return sum(len(answer.waiting) for answer in self._answers) / _BYTES_PER_MS

    def play(self, response_id: str, pcm16: bytes) -> None:
        """Queue more audio of an answer: mono, 24 kHz, whole samples.

        Raises:
            PlaybackFullError: too much waits already; this audio is dropped.
        """
        if len(pcm16) % 2:
            raise ValueError("Audio to play ends within a sample: send whole samples.")
        if sum(len(answer.waiting) for answer in self._answers) + len(pcm16) > self._capacity:
            raise PlaybackFullError(
                f"More than {self._capacity / _BYTES_PER_MS / 1000:.0f} seconds of audio wait to "
                "be played: send it no faster than it plays, or allow more."
            )
        answer = self._find(response_id)
        if answer is None:
            answer = _Answer(response_id)
            self._answers.append(answer)
        answer.waiting += pcm16

    def end(self, response_id: str) -> None:
        """Nothing more comes of this answer: it counts as drained when all has been played."""
        answer = self._find(response_id)
        if answer is not None:
            answer.complete = True

    def clear(self, response_id: str) -> int:
        """Drop what waits of an answer, at once; return how many ms of it were played."""
        answer = self._find(response_id)
        if answer is None:
            return 0
        self._answers.remove(answer)
        return answer.played // _BYTES_PER_MS

    def next_frame(self) -> bytes:
        """The next 20 ms: 960 bytes of audio or silence.

        An answer that is not complete keeps the last part of a frame until the rest comes, so that
        no silence falls between two pieces that belong together.
        """
        while self._answers and self._answers[0].complete and not self._answers[0].waiting:
            # Its last frame left one frame ago: only now has it been played.
            self._drained(self._answers.popleft())
        answer = self._answers[0] if self._answers else None
        if answer is None or (len(answer.waiting) < FRAME_BYTES and not answer.complete):
            return _SILENCE
        frame = bytes(answer.waiting[:FRAME_BYTES])
        del answer.waiting[:FRAME_BYTES]
        answer.played += len(frame)
        if answer.played == len(frame):
            self._on_started(answer.response_id)
        return frame.ljust(FRAME_BYTES, b"\0")

    def _drained(self, answer: _Answer) -> None:
        if answer.played:
            self._on_drained(answer.response_id)

    def _find(self, response_id: str) -> _Answer | None:
        return next((each for each in self._answers if each.response_id == response_id), None)


class Pacer:
    """When frames are due: every 20 ms of a clock, counted from the first one.

    A frame that is asked for late does not delay those after it. Only after a stall longer than
    ``catch_up_s`` does the count begin anew: a burst of old frames would help nobody.
    """

    def __init__(self, interval_s: float = FRAME_S, catch_up_s: float = 0.2) -> None:
        self.interval_s = interval_s
        self.catch_up_s = catch_up_s
        self._first: float | None = None
        self._frames = 0

    def wait(self, now: float) -> float:
        """Seconds from ``now`` to the next frame, 0 if it is due; counts it."""
        if self._first is None:
            self._first = now
        due = self._first + self._frames * self.interval_s
        if now - due > self.catch_up_s:
            self._first, self._frames, due = now, 0, now
        self._frames += 1
        return max(0.0, due - now)


class OutgoingTrack(MediaStreamTrack):
    """The audio track that plays a `Playback`, from when it is first read until it is stopped."""

    kind = "audio"

    def __init__(self, playback: Playback) -> None:
        super().__init__()
        self._playback = playback
        self._pacer = Pacer()
        # At the codec's own rate its encoder need not hold a frame back.
        self._resampler = PolyphaseResampler(SAMPLE_RATE, _TRACK_RATE)
        self._position = 0

    async def recv(self) -> AudioFrame:
        """The next 20 ms, when they are due.

        Raises:
            MediaStreamError: the track has been stopped.
        """
        await asyncio.sleep(self._pacer.wait(asyncio.get_running_loop().time()))
        if self.readyState != "live":
            raise MediaStreamError
        frame = AudioFrame.from_ndarray(self._next_samples(), format="s16", layout="stereo")
        frame.sample_rate = _TRACK_RATE
        frame.pts = self._position
        frame.time_base = fractions.Fraction(1, _TRACK_RATE)
        self._position += frame.samples
        return frame

    def _next_samples(self) -> NDArray[np.int16]:
        """The next frame of the playback at the track's rate, interleaved: ``(1, 1920)``."""
        samples = np.frombuffer(self._playback.next_frame(), dtype="<i2").astype(np.float32)
        converted = np.clip(np.round(self._resampler.process(samples)), -32768, 32767)
        # Twice the same: making two channels out of one, aiortc's encoder would take 3 dB away.
        return np.repeat(converted.astype(np.int16), 2).reshape(1, -1)
