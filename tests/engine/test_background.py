"""Streams in the background give way: which streams a step is for."""

from __future__ import annotations

import numpy as np
import pytest

from tinyvoice.benchmark.speech import Clip
from tinyvoice.engine import Final, StreamingEngine, StreamSettings
from tinyvoice.engine import scheduler as scheduling
from tinyvoice.engine.live import LiveStream
from tinyvoice.engine.recording import joined, stream_recording
from tinyvoice.engine.runner import ModelRunner
from tinyvoice.engine.scheduler import Scheduler
from tinyvoice.engine.settings import EngineSettings
from tinyvoice.model.modeling import ASRModel

SETTINGS = EngineSettings()


@pytest.fixture(scope="module")
def runner(model: ASRModel) -> ModelRunner:
    return ModelRunner(model, SETTINGS)


def opened(scheduler: Scheduler, background: bool) -> LiveStream:
    """A stream with three seconds of silence to hear, more than a step takes."""
    settings = StreamSettings(background=background)
    stream = scheduler.runner.open(settings)
    scheduler.add(stream)
    for _ in range(30):
        stream.fed += 1_600
        stream.inbox.append(np.zeros(1_600, np.float32))
    return stream


def test_live_streams_come_first(runner: ModelRunner) -> None:
    scheduler = Scheduler(runner, SETTINGS)
    recording, live = opened(scheduler, background=True), opened(scheduler, background=False)
    scheduler.step()  # the first second is everybody's: the recording has never had a turn
    heard = recording.at

    scheduler.step()
    assert recording.at == heard
    while live.has_work:
        scheduler.step()
    assert live.at > 2.9
    scheduler.step()

    assert recording.at > heard


def test_recordings_take_turns_one_in_a_step(runner: ModelRunner) -> None:
    scheduler = Scheduler(runner, SETTINGS)
    one, other = opened(scheduler, background=True), opened(scheduler, background=True)

    scheduler.step()
    assert (one.at > 0, other.at > 0) == (True, False)
    scheduler.step()
    assert one.at == other.at


def test_nobody_starves(runner: ModelRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling, "BACKGROUND_S", 0.0)
    scheduler = Scheduler(runner, SETTINGS)
    recording, live = opened(scheduler, background=True), opened(scheduler, background=False)

    scheduler.step()

    assert live.has_work
    assert recording.at > 0.9


async def test_the_words_are_the_same(model: ASRModel, clips: list[Clip]) -> None:
    async with StreamingEngine(model) as engine:
        said = []
        for background in (False, True):
            heard = stream_recording(engine, clips[2].samples, background=background)
            finals = [event async for event in heard if isinstance(event, Final)]
            said.append(joined(finals, clips[2].duration))

    assert said[0] == said[1]
    assert said[0].text
