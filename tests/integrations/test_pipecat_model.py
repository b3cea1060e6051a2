"""Another model while a pipeline runs; the other is a copy of the embedded one."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from pipecat.frames.frames import STTUpdateSettingsFrame, TranscriptionFrame
from pipecat.utils.errors import ErrorCategory

from tests.integrations.conftest import start
from tinyvoice.benchmark.speech import Clip
from tinyvoice.engine import StreamingEngine
from tinyvoice.integrations import PipecatASRService
from tinyvoice.integrations.shared_engine import close_engines
from tinyvoice.model import modeling

EMBEDDED = Path(modeling.__file__).parent / "embedded"


@pytest.mark.parametrize("when", ["between utterances", "in an utterance"])
async def test_another_model_takes_over_behind_the_utterance_and_its_times_go_on(
    tmp_path: Path, clips: list[Clip], when: str
) -> None:
    other = tmp_path / "other"
    shutil.copytree(EMBEDDED, other)
    try:
        first = await PipecatASRService.load(device="cpu")
        second = await PipecatASRService.load(other, device="cpu")
        service = PipecatASRService(device="cpu")
        found = await start(service)  # nothing in it tells that a user's turn is over
        delta = PipecatASRService.Settings(model=str(other))
        half = len(clips[0].samples) // 2 if when == "in an utterance" else len(clips[0].samples)
        await found.feed(clips[0].samples[:half])
        if when == "in an utterance":
            await found.worker.queue_frame(STTUpdateSettingsFrame(delta=delta))
        await found.feed(clips[0].samples[half:])
        await found.silence(0.5)
        await found.until(TranscriptionFrame)
        if when == "between utterances":
            await found.worker.queue_frame(STTUpdateSettingsFrame(delta=delta))
        async with asyncio.timeout(25):
            while service._stream is None or service._stream._engine is not second:
                await asyncio.sleep(0.01)
        before = found.fed / found.rate
        await found.feed(clips[1].samples)
        await found.silence(0.5)
        finals = await found.until(TranscriptionFrame, count=2)
        await found.end()
        assert not found.errors
        assert [frame.text for frame in finals] == [clip.text for clip in clips[:2]]
        assert all(frame.finalized for frame in finals)
        assert [frame.result.utterance for frame in finals] == [0, 1]
        words = finals[1].result.words
        # Of the audio that comes late, some may have reached the stream before.
        assert before - 0.1 <= finals[1].result.start <= words[0].start + 0.5
        assert words[-1].end <= before + clips[1].duration + 0.1
        assert (first.open_streams, second.open_streams) == (0, 0)
    finally:
        await close_engines()


async def test_a_model_that_cannot_be_loaded_changes_nothing(
    tmp_path: Path, clips: list[Clip]
) -> None:
    try:
        service = PipecatASRService(device="cpu")
        found = await start(service)
        delta = PipecatASRService.Settings(model=str(tmp_path))
        await found.worker.queue_frame(STTUpdateSettingsFrame(delta=delta))
        [error] = await found.until_errors()
        await found.feed(clips[0].samples)
        await found.silence(0.5)
        [final] = await found.until(TranscriptionFrame)
        await found.end()
        assert error.category is ErrorCategory.APPLICATION
        assert service._settings.model == "embedded"
        assert final.text == clips[0].text
    finally:
        await close_engines()


async def test_the_model_of_an_engine_of_ones_own_stays(
    engine: StreamingEngine, clips: list[Clip]
) -> None:
    service = PipecatASRService(engine=engine)
    found = await start(service)
    delta = PipecatASRService.Settings(model="another", silence_ms=300)
    await found.worker.queue_frame(STTUpdateSettingsFrame(delta=delta))
    [error] = await found.until_errors()
    await found.feed(clips[0].samples)
    await found.silence(0.5)
    [final] = await found.until(TranscriptionFrame)
    await found.end()
    assert error.category is ErrorCategory.APPLICATION
    assert "cannot be changed in an engine of your own" in error.error
    assert (service._settings.model, service._settings.silence_ms) == ("embedded", 1000)
    assert final.text == clips[0].text
