"""What an engine tells of itself."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from tests.engine.hearing import finals, padded, pcm16, play
from tests.engine.test_worker import kill
from tinyvoice.benchmark.speech import Clip
from tinyvoice.engine import (
    EngineFullError,
    EngineObserver,
    EngineSettings,
    Partial,
    StreamingEngine,
)
from tinyvoice.model.modeling import ASRModel

pytestmark = pytest.mark.asyncio


class Notebook(EngineObserver):
    """Keeps all it is told, with the thread it was told in."""

    def __init__(self) -> None:
        self.told: list[tuple[str, tuple[Any, ...], int]] = []

    def _note(self, name: str, *values: Any) -> None:
        self.told.append((name, values, threading.get_ident()))

    def batch(self, kind: Any, size: int, seconds: float) -> None:
        self._note("batch", kind, size, seconds)

    def queue(self, streams: int, pending_s: float) -> None:
        self._note("queue", streams, pending_s)

    def refused(self, reason: Any) -> None:
        self._note("refused", reason)

    def restarted(self) -> None:
        self._note("restarted")

    def first_partial(self, audio_s: float, wall_s: float) -> None:
        self._note("first_partial", audio_s, wall_s)

    def time_to_final(self, seconds: float) -> None:
        self._note("time_to_final", seconds)

    def of(self, name: str) -> list[tuple[Any, ...]]:
        """What was told by one method."""
        return [values for told, values, _ in self.told if told == name]


async def test_batches_queue_and_delays(model: ASRModel, clips: list[Clip]) -> None:
    notebook = Notebook()
    async with StreamingEngine(model, observer=notebook) as engine:
        heard = await asyncio.gather(*(play(engine, padded(clip.samples)) for clip in clips[:3]))
    batches = notebook.of("batch")
    assert {kind for kind, _, _ in batches} == {"encode", "partial", "final"}
    assert {size for _, size, _ in batches} <= {1, 2, 3}
    assert all(seconds > 0 for _, _, seconds in batches)
    # A partial is told of with or without text, and its events may have been overtaken.
    partials = sum(isinstance(event, Partial) for events in heard for event in events)
    assert sum(size for kind, size, _ in batches if kind == "partial") >= partials
    assert max(streams for streams, _ in notebook.of("queue")) >= 1
    assert max(pending for _, pending in notebook.of("queue")) > 0
    assert len(notebook.of("time_to_final")) == sum(len(finals(events)) for events in heard)
    assert len(notebook.of("first_partial")) == 3
    assert all(0 < audio < 10 and wall > 0 for audio, wall in notebook.of("first_partial"))
    here = threading.get_ident()
    for name, _, thread in notebook.told:
        assert (thread == here) is (name not in ("batch", "queue"))


async def test_refusals_and_restarts(model: ASRModel) -> None:
    notebook = Notebook()
    settings = EngineSettings(max_streams=1)
    engine = StreamingEngine(model, settings, observer=notebook)
    async with engine, engine.stream() as stream:
        with pytest.raises(EngineFullError):
            await engine.stream().open()
        assert engine._worker is not None
        kill(engine._worker.thread_id)
        await stream.flush()
    assert notebook.of("refused") == [("full",)]
    assert notebook.of("restarted") == [()]


async def test_one_that_raises_disturbs_nothing(
    model: ASRModel, clips: list[Clip], caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Notebook):
        def _note(self, name: str, *values: Any) -> None:
            raise RuntimeError(name)

    with caplog.at_level(logging.ERROR, "tinyvoice.engine.observer"):
        async with StreamingEngine(model, observer=Broken()) as engine:
            async with engine.stream() as stream:
                await stream.feed(pcm16(padded(clips[0].samples)))
            (final,) = finals([event async for event in stream])
    assert final.text
    assert {"time_to_final", "batch"} <= {record.message.split()[-1] for record in caplog.records}
