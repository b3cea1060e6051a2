"""Recordings through the streaming engine, for commands that are no coroutines.

Several recordings are played at once, each as a stream of its own; where partials are shown it is
one after the other. Recordings are not read here and results not written.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from tinyvoice.cli.live_line import LiveLine
from tinyvoice.cli.progress import hidden
from tinyvoice.engine import (
    EngineSettings,
    Failed,
    Final,
    Partial,
    StreamingEngine,
    UtteranceFailed,
)
from tinyvoice.engine.recording import joined, stream_recording
from tinyvoice.errors import TinyvoiceError

if TYPE_CHECKING:
    from tinyvoice.audio import Audio
    from tinyvoice.model.modeling import ASRModel
    from tinyvoice.model.transcript import Transcript


@dataclass(frozen=True)
class StreamedRecording:
    """A recording's finals, and what they say together."""

    transcript: Transcript
    finals: tuple[Final, ...]


class StreamedTranscriber:
    """Plays recordings into an engine of its own; a context.

    Args:
        model: the model, loaded.
        word_times: whether words get times.
        at_once: streams at a time, where no partials are shown.
        speed: seconds of audio in a second; None for as fast as it goes.
    """

    def __init__(
        self, model: ASRModel, *, word_times: bool, at_once: int, speed: float | None = None
    ) -> None:
        self._engine = StreamingEngine(model, EngineSettings(max_streams=at_once + 1))
        self._word_times, self._speed = word_times, speed
        self._at_once = at_once
        self._live = sys.stderr.isatty()
        self._runner = asyncio.Runner()

    def __enter__(self) -> StreamedTranscriber:
        try:
            self._runner.run(self._engine.open())
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._runner.run(self._engine.close())
        finally:
            self._runner.close()

    def __call__(self, clips: Sequence[Audio]) -> list[StreamedRecording | TinyvoiceError]:
        """Transcribe recordings; for one that cannot be, the error."""
        if self._live:
            # The bar of progress makes room: partials are shown in its place.
            with hidden():
                return [self._runner.run(self._one(clip)) for clip in clips]
        return self._runner.run(self._all(clips))

    async def _all(self, clips: Sequence[Audio]) -> list[StreamedRecording | TinyvoiceError]:
        places = asyncio.Semaphore(self._at_once)

        async def one(clip: Audio) -> StreamedRecording | TinyvoiceError:
            async with places:
                return await self._one(clip)

        return await asyncio.gather(*map(one, clips))

    async def _one(self, clip: Audio) -> StreamedRecording | TinyvoiceError:
        finals: list[Final] = []
        line = LiveLine(sys.stderr) if self._live else None
        try:
            async for event in stream_recording(
                self._engine, clip.samples, speed=self._speed, word_times=self._word_times
            ):
                if isinstance(event, Failed | UtteranceFailed):
                    return event.error
                if isinstance(event, Final):
                    finals.append(event)
                elif isinstance(event, Partial) and line is not None:
                    said = " ".join(final.text for final in finals if final.text)
                    line.show(f"{said} {event.stable}".lstrip(), event.tail)
        except TinyvoiceError as error:
            return error
        finally:
            if line is not None:
                line.clear()
        return StreamedRecording(joined(finals, clip.duration), tuple(finals))
