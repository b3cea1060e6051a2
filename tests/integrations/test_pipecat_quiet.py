"""No flush without an answer and no frame without speech, whichever service transcribes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from pipecat.frames.frames import (
    InterimTranscriptionFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)

from tests.integrations.conftest import start
from tests.server.conftest import RunningServer
from tinyvoice.benchmark.quiet import quiet_sounds
from tinyvoice.benchmark.speech import Clip
from tinyvoice.engine import StreamingEngine
from tinyvoice.integrations import PipecatASRService, PipecatRemoteASRService
from tinyvoice.integrations.pipecat_stream import PipecatStreamService

MakeService = Callable[[], PipecatStreamService]


@pytest.fixture(params=["in the process", "of a server"])
def make_service(
    request: pytest.FixtureRequest, engine: StreamingEngine, server: RunningServer
) -> MakeService:
    if request.param == "of a server":
        return lambda: PipecatRemoteASRService(url=server.url, drain_s=20.0)
    return lambda: PipecatASRService(engine=engine)


async def test_nothing_is_pushed_over_sound_without_speech(make_service: MakeService) -> None:
    found = await start(make_service())
    for sound in quiet_sounds(4.0).values():
        await found.feed(sound)
    sink = await found.end()
    assert sink.of(InterimTranscriptionFrame, TranscriptionFrame) == []
    assert not found.errors


async def test_every_flush_is_answered_and_no_frame_is_empty(
    make_service: MakeService, clips: list[Clip]
) -> None:
    found = await start(make_service())
    for number, (clip, sound) in enumerate(
        zip(clips[:3], list(quiet_sounds(1.0).values())[2:], strict=True), 1
    ):
        await found.feed(clip.samples)
        await found.silence(0.4)
        await found.until(VADUserStoppedSpeakingFrame, count=number)
        await found.until(TranscriptionFrame, count=number)
        await found.feed(sound)
    sink = await found.end()
    kinds = (VADUserStartedSpeakingFrame, VADUserStoppedSpeakingFrame, TranscriptionFrame)
    turns = sink.of(*kinds)
    stops = [i for i, frame in enumerate(turns) if isinstance(frame, VADUserStoppedSpeakingFrame)]
    assert len(stops) >= 3
    for stop in stops:
        answer = turns[stop + 1]
        assert isinstance(answer, TranscriptionFrame)
        assert answer.finalized
    texts = sink.of(InterimTranscriptionFrame, TranscriptionFrame)
    assert all(frame.text.strip() for frame in texts)
    assert len(sink.of(TranscriptionFrame)) == len(stops)


async def test_a_flush_of_silence_is_not_waited_for(
    make_service: MakeService, clips: list[Clip]
) -> None:
    service = make_service()
    found = await start(service, vad=False)
    await found.silence(1.0)
    await found.worker.queue_frame(VADUserStoppedSpeakingFrame(stop_secs=0.2))
    await found.until(VADUserStoppedSpeakingFrame)
    async with asyncio.timeout(25):
        while service._flushes == 0 or service._finalize_requested:
            await asyncio.sleep(0.01)
    # A later text that answers no flush is not taken for the answer to that one.
    await found.feed(clips[0].samples)
    await found.silence(1.5)
    [final] = await found.until(TranscriptionFrame)
    await found.end()
    assert final.text == clips[0].text
    assert not final.finalized
