"""From a Realtime session's server events to the engine's events, for the benchmark; no I/O.

What a server does not tell is not made up: a final's confidence is not a number, and neither is the
end of the audio it stands for where the server's usage does not say how much that was. Speech that
the engine cuts into several utterances is one turn here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.benchmark.observation import Received
from tinyvoice.engine.events import (
    Event,
    Failed,
    Final,
    Partial,
    SpeechEnded,
    SpeechStarted,
    UtteranceFailed,
)
from tinyvoice.errors import TinyvoiceError
from tinyvoice.model.transcript import Word
from tinyvoice.vad import WINDOW_SAMPLES

PADDING_MS = 300
"""Audio in front of the speech that belongs to a turn: the engine's default, and the protocol's."""

END_MARK = "bench-end"
"""Identifies the commit at the end of what is played."""


class RemoteError(TinyvoiceError):
    """A server cannot be measured."""


@dataclass
class _Turn:
    utterance: int
    started_s: float
    ended_s: float = math.nan
    """How much had been heard when its end was decided."""
    transcript: str = ""
    seconds: float = math.nan
    """Audio that its transcript stands for."""
    completed: float | None = None
    """When its transcript came in."""


@dataclass
class Turns:
    """From a session's server events to the engine's events; no I/O.

    Every time in a server event is in milliseconds of the session's audio, as the engine's are in
    seconds.
    """

    silence_ms: int
    """Silence that ends a turn: its speech ends by so much before its end is decided."""
    cleared: bool = False
    """Whether all audio up to the end mark (a commit and a clear) has been processed."""
    said: str = ""
    """What the server's last ``error`` event said."""
    _turns: dict[str, _Turn] = field(default_factory=dict)
    _pending: set[str] = field(default_factory=set)
    """Items that have begun, and neither transcript nor failure yet."""
    _committed: set[str] = field(default_factory=set)
    _count: int = 0

    @property
    def settled(self) -> bool:
        """Whether the end mark has been answered and no transcript is to come."""
        return self.cleared and not self._pending

    def read(self, event: Mapping[str, Any], wall: float) -> Iterator[Received]:
        """Take a server event that came in at a wall time."""
        kind = str(event.get("type"))
        item = str(event.get("item_id"))
        if kind == "input_audio_buffer.speech_started":
            yield Received(self._started(item, event["audio_start_ms"] / 1000), wall)
        elif kind == "input_audio_buffer.committed":
            self._pending.add(item)
            self._committed.add(item)
        elif kind == "input_audio_buffer.cleared":
            self.cleared = True
            self._pending &= self._committed
        elif kind == "error":
            yield from self._error(event["error"], wall)
        elif kind.startswith("conversation.item.input_audio_transcription."):
            yield from self._transcription(kind.rpartition(".")[2], item, event, wall)
        elif (turn := self._turns.get(item)) is not None:
            yield from self._of_turn(kind, turn, event, wall)

    def rest(self) -> Iterator[Received]:
        """Transcripts whose words have not come, at the end of a session."""
        for turn in self._turns.values():
            yield from self._final(turn, [])

    def _started(self, item: str, start_s: float) -> Event:
        begin = start_s + PADDING_MS / 1000
        turn = self._turns[item] = _Turn(self._count, begin)
        self._count += 1
        self._pending.add(item)
        return SpeechStarted(turn.utterance, begin, math.nan)

    def _error(self, error: Mapping[str, Any], wall: float) -> Iterator[Received]:
        if error.get("event_id") == END_MARK:
            return  # there was nothing left to commit
        self.said = str(error.get("message"))
        reported = RemoteError(f"The server reported an error: {self.said}")
        yield Received(Failed(reported, math.nan), wall)

    def _transcription(
        self, kind: str, item: str, event: Mapping[str, Any], wall: float
    ) -> Iterator[Received]:
        turn = self._turns.get(item)
        if kind not in ("completed", "failed"):
            return
        self._pending.discard(item)
        if turn is None:
            return  # silence that was committed at the end
        if kind == "completed":
            turn.transcript, turn.completed = str(event["transcript"]), wall
            usage = event.get("usage") or {}
            if usage.get("type") == "duration":
                turn.seconds = float(usage["seconds"])
            return  # its words follow
        failed = RemoteError(f"A turn was not transcribed: {event['error'].get('message')}")
        yield Received(UtteranceFailed(turn.utterance, failed, turn.ended_s), wall)

    def _of_turn(
        self, kind: str, turn: _Turn, event: Mapping[str, Any], wall: float
    ) -> Iterator[Received]:
        if kind == "tinyvoice.transcription.partial":
            at = event["at_ms"] / 1000
            yield Received(Partial(turn.utterance, event["stable"], event["tail"], at), wall)
        elif kind == "input_audio_buffer.speech_stopped":
            turn.ended_s = event["audio_end_ms"] / 1000
            yield Received(SpeechEnded(turn.utterance, self._speech_end(turn), turn.ended_s), wall)
        elif kind == "tinyvoice.transcription.words":
            yield from self._final(turn, event["words"])

    def _final(self, turn: _Turn, words: Sequence[Mapping[str, Any]]) -> Iterator[Received]:
        if turn.completed is None:
            return
        final = Final(
            turn.utterance,
            turn.transcript,
            tuple(
                Word(
                    text=str(word["word"]),
                    start=word["start_ms"] / 1000,
                    end=word["end_ms"] / 1000,
                    confidence=word["confidence"],
                )
                for word in words
            ),
            start=turn.started_s,
            end=self._speech_end(turn),
            confidence=math.nan,
            audio_start=turn.started_s - PADDING_MS / 1000,
            audio_end=turn.started_s - PADDING_MS / 1000 + turn.seconds,
            at=turn.ended_s,
        )
        wall, turn.completed = turn.completed, None
        yield Received(final, wall)

    def _speech_end(self, turn: _Turn) -> float:
        """Silence is counted in whole windows of the voice activity detection."""
        windows = math.ceil(self.silence_ms * SAMPLE_RATE / 1000 / WINDOW_SAMPLES)
        return max(turn.started_s, turn.ended_s - windows * WINDOW_SAMPLES / SAMPLE_RATE)
