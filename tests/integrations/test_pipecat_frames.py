"""Interruptions and mutes of other processors, and what belongs to one turn mode only."""

from __future__ import annotations

import pytest
from pipecat.frames.frames import (
    InterimTranscriptionFrame,
    InterruptionFrame,
    TranscriptionFrame,
    UserMuteStartedFrame,
    UserMuteStoppedFrame,
)

from tests.integrations.conftest import RATE, start
from tinyvoice.benchmark.speech import Clip
from tinyvoice.engine import StreamingEngine
from tinyvoice.errors import ConfigurationError
from tinyvoice.integrations import PipecatASRService


async def test_an_interruption_takes_nothing_from_what_is_being_said(
    engine: StreamingEngine, clips: list[Clip]
) -> None:
    found = await start(PipecatASRService(engine=engine))
    half = len(clips[0].samples) // 2
    await found.feed(clips[0].samples[:half])
    await found.until(InterimTranscriptionFrame)
    await found.worker.queue_frame(InterruptionFrame())
    await found.feed(clips[0].samples[half:])
    await found.silence(0.5)
    [final] = await found.until(TranscriptionFrame)
    sink = await found.end()
    assert final.text == clips[0].text
    assert final.finalized
    assert len(sink.of(InterruptionFrame)) == 1


async def test_a_muted_user_is_forgotten_where_the_mute_begins_and_ends(
    engine: StreamingEngine, clips: list[Clip]
) -> None:
    found = await start(PipecatASRService(engine=engine), vad=False)
    await found.feed(clips[0].samples[:RATE])
    await found.until(InterimTranscriptionFrame)
    await found.worker.queue_frame(UserMuteStartedFrame())
    await found.feed(clips[1].samples[:RATE])  # a mute strategy does not keep audio away
    await found.worker.queue_frame(UserMuteStoppedFrame())
    await found.silence(1.0)
    await found.feed(clips[2].samples)
    sink = await found.end()
    assert [frame.text for frame in sink.of(TranscriptionFrame)] == [clips[2].text]


def test_an_end_of_turn_is_not_foreseen_where_pipecat_finds_turns() -> None:
    with pytest.raises(ConfigurationError, match='give turn_mode="model"'):
        PipecatASRService(enable_eager_end_of_turn=True)


def test_an_end_of_turn_is_not_foreseen_without_interims() -> None:
    settings = PipecatASRService.Settings(partials=False)
    with pytest.raises(ConfigurationError, match="leave partials on"):
        PipecatASRService(turn_mode="model", enable_eager_end_of_turn=True, settings=settings)
