"""Who ends a turn and when: Pipecat's own strategies, flushes, the service, audio that stops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import (
    InterimTranscriptionFrame,
    LLMContextFrame,
    ProposedUserStartedSpeakingFrame,
    ProposedUserStoppedSpeakingFrame,
    STTMuteFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
)

from tests.integrations.conftest import RATE, Sink, start
from tinyvoice.benchmark.speech import Clip
from tinyvoice.engine import StreamingEngine
from tinyvoice.errors import ConfigurationError
from tinyvoice.integrations import PipecatASRService

FOR_EVER_S = 3_600.0
TURNS = (
    ProposedUserStartedSpeakingFrame,
    TranscriptionFrame,
    ProposedUserStoppedSpeakingFrame,
)


async def test_with_pipecats_default_strategies_nothing_is_waited_for(
    engine: StreamingEngine, clips: list[Clip]
) -> None:
    context = LLMContext()
    # Whatever waited for a timeout would wait beyond the test's.
    user = LLMContextAggregatorPair(
        context,
        user_params=LLMUserAggregatorParams(
            vad_analyzer=SileroVADAnalyzer(),
            user_turn_stop_timeout=FOR_EVER_S,
            audio_idle_timeout=0,  # a machine that stands still is no microphone that is muted
        ),
    ).user()
    heard = Sink()
    service = PipecatASRService(engine=engine, ttfs_p99_latency=FOR_EVER_S)
    found = await start(service, vad=False, after=[heard, user])
    said = clips[:2]
    await found.silence(0.5, pace_s=0.02)
    for number, clip in enumerate(said, 1):
        await found.feed(clip.samples, pace_s=0.02)
        # Where the turn analyzer takes the sentence for unfinished, it hears some silence first.
        async with asyncio.timeout(25):
            while len(found.sink.of(UserStoppedSpeakingFrame)) < number:
                await found.silence(0.2, pace_s=0.02)
    await found.until(LLMContextFrame, count=len(said))
    sink = await found.end()

    turns = sink.of(UserStartedSpeakingFrame, UserStoppedSpeakingFrame, LLMContextFrame)
    one = [UserStartedSpeakingFrame, UserStoppedSpeakingFrame]
    assert [type(f) for f in turns if not isinstance(f, LLMContextFrame)] == one * len(said)
    messages: list[Any] = context.get_messages()
    assert [message["content"] for message in messages] == [clip.text for clip in said]
    finals = heard.of(TranscriptionFrame)
    assert [frame.text for frame in finals] == [clip.text for clip in said]
    assert all(frame.finalized for frame in finals)
    stops = heard.of(VADUserStoppedSpeakingFrame)
    assert len(stops) == len(said)
    interims = [heard.frames.index(f) for f in heard.of(InterimTranscriptionFrame)]
    begin = 0
    for stop in map(heard.frames.index, stops):
        assert [index for index in interims if begin <= index < stop]
        begin = stop
    assert not found.errors


async def test_a_late_text_is_not_taken_for_the_answer_to_a_later_flush(
    engine: StreamingEngine, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The final pass of the first utterance is held until the second has been flushed."""
    runner, gate = engine._need_runner(), threading.Event()
    run_finals = runner.run_finals

    def held(batch: Sequence[Any], **options: Any) -> None:
        gate.wait(25)
        run_finals(batch, **options)

    monkeypatch.setattr(runner, "run_finals", held)
    service = PipecatASRService(engine=engine)
    found = await start(service, vad=False)
    for number, clip in enumerate(clips[:2], 1):
        await found.worker.queue_frame(VADUserStartedSpeakingFrame(start_secs=0.2))
        await found.feed(clip.samples)
        await found.worker.queue_frame(VADUserStoppedSpeakingFrame(stop_secs=0.2))
        async with asyncio.timeout(25):
            while service._flushes < number:
                await asyncio.sleep(0.01)
    gate.set()
    finals = await found.until(TranscriptionFrame, count=2)
    await found.end()
    assert [frame.text for frame in finals] == [clip.text for clip in clips[:2]]
    assert [frame.finalized for frame in finals] == [False, True]


@pytest.mark.parametrize("said", ["at once", "and goes on later"])
async def test_a_turn_ends_where_audio_stops(
    engine: StreamingEngine, clips: list[Clip], said: str
) -> None:
    service = PipecatASRService(engine=engine, turn_mode="model")
    found = await start(service, vad=False)
    await found.feed(clips[0].samples)
    await found.until(ProposedUserStoppedSpeakingFrame)  # and no silence has been fed
    expected = [clips[0].text]
    if said == "and goes on later":
        await found.feed(clips[1].samples)
        await found.until(ProposedUserStoppedSpeakingFrame, count=2)
        expected.append(clips[1].text)
    sink = await found.end()
    assert [frame.text for frame in sink.of(TranscriptionFrame)] == expected
    assert [type(frame) for frame in sink.of(*TURNS)] == list(TURNS) * len(expected)
    assert all(frame.finalized for frame in sink.of(TranscriptionFrame))


async def test_silence_ends_a_turn_before_the_watch_does(
    engine: StreamingEngine, clips: list[Clip]
) -> None:
    service = PipecatASRService(engine=engine, turn_mode="model", audio_idle_timeout=60.0)
    found = await start(service, vad=False)
    await found.feed(clips[0].samples[:RATE])
    await found.until(ProposedUserStartedSpeakingFrame)
    watch = service._audio_watch
    assert watch is not None
    await found.feed(clips[0].samples[RATE:])
    await found.silence(1.0)
    await found.until(ProposedUserStoppedSpeakingFrame)
    sink = await found.end()
    assert watch.done()  # the silence ended the turn, and nobody waits any more
    assert [frame.text for frame in sink.of(TranscriptionFrame)] == [clips[0].text]


async def test_a_muted_microphone_is_no_audio_that_stopped(
    engine: StreamingEngine, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = PipecatASRService(engine=engine, turn_mode="model", audio_idle_timeout=0.05)
    found = await start(service, vad=False)
    commits = list[None]()
    stream = service._stream
    assert stream is not None
    commit = stream.commit

    async def counted() -> int | None:
        commits.append(None)
        return await commit()

    monkeypatch.setattr(stream, "commit", counted)
    monkeypatch.setattr(service, "_muted", True)  # before the mute has closed the turn
    await service._start_turn()
    for _ in range(20):
        await asyncio.sleep(0.01)
    assert not commits
    await found.worker.queue_frame(STTMuteFrame(mute=True))
    await found.until(ProposedUserStoppedSpeakingFrame)
    await found.worker.queue_frame(STTMuteFrame(mute=False))
    await found.silence(0.1)
    sink = await found.end()
    assert not commits
    assert [type(frame) for frame in sink.of(*TURNS)] == [TURNS[0], TURNS[2]]


async def test_a_turn_without_an_utterance_is_closed(engine: StreamingEngine) -> None:
    service = PipecatASRService(engine=engine, turn_mode="model", audio_idle_timeout=0.05)
    found = await start(service, vad=False)
    await service._start_turn()
    await found.until(ProposedUserStoppedSpeakingFrame)
    sink = await found.end()
    assert [type(frame) for frame in sink.of(*TURNS)] == [TURNS[0], TURNS[2]]


def test_an_idle_time_out_of_range_is_told() -> None:
    with pytest.raises(ConfigurationError, match="audio_idle_timeout is -1"):
        PipecatASRService(audio_idle_timeout=-1)
