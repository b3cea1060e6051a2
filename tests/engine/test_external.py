"""Utterances that somebody else begins and ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.engine.hearing import SECOND, Samples, finals, heard_as, padded, pcm16, play
from tinyvoice.benchmark.speech import Clip
from tinyvoice.engine import (
    EndOfTurnLikely,
    Event,
    Final,
    Partial,
    SpeechEnded,
    SpeechStarted,
    Stream,
    StreamingEngine,
)
from tinyvoice.errors import ConfigurationError
from tinyvoice.model.modeling import ASRModel

pytestmark = pytest.mark.asyncio

NOTICE_S = 0.2
"""How late others notice that speech begins or ends, as Pipecat's own voice activity does."""


async def feed(stream: Stream, samples: Samples) -> None:
    for start in range(0, len(samples), 1_600):
        await stream.feed(pcm16(samples[start : start + 1_600]))


async def speak(stream: Stream, clip: Clip, pause_s: float = 1.0) -> int | None:
    """A clip with silence around, begun and committed as late as others would."""
    late = round((clip.onset + NOTICE_S) * SECOND)
    await feed(stream, padded(clip.samples[:late], pause_s, 0.0))
    await stream.start_speech(back_s=0.5)
    await feed(stream, padded(clip.samples[late:], 0.0, NOTICE_S))
    return await stream.commit()


def offline(model: ASRModel, samples: Samples, final: Final) -> str:
    begin, end = round(final.audio_start * SECOND), round(final.audio_end * SECOND)
    text: str = model.transcribe(heard_as(samples)[begin:end]).text
    return text


async def test_utterances_are_what_was_begun_and_committed(
    model: ASRModel, clips: list[Clip]
) -> None:
    spoken = clips[:3]
    async with StreamingEngine(model) as engine:
        async with engine.stream(endpointing="external") as stream:
            assert [await speak(stream, clip) for clip in spoken] == [0, 1, 2]
        events = [event async for event in stream]
    whole = np.concatenate([padded(clip.samples, 1.0, NOTICE_S) for clip in spoken])
    found = finals(events)
    assert [final.utterance for final in found] == [0, 1, 2]
    for final, clip in zip(found, spoken, strict=True):
        assert final.text == offline(model, whole, final)
        words = len(model.transcribe(clip.samples).text.split())
        assert abs(len(final.text.split()) - words) <= 1
    kinds = [type(event) for event in events if not isinstance(event, Partial)]
    assert kinds == [SpeechStarted, SpeechEnded, Final] * 3
    assert any(isinstance(event, Partial) for event in events)


async def test_the_text_is_there_when_the_commit_comes(
    model: ASRModel, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with StreamingEngine(model) as engine:
        runner, passes = engine._need_runner(), list[int]()
        run_finals = runner.run_finals

        def counted(batch: Sequence[Any], **options: Any) -> None:
            passes.append(len(batch))
            run_finals(batch, **options)

        monkeypatch.setattr(runner, "run_finals", counted)
        async with engine.stream(endpointing="external", end_likely=True) as stream:
            await stream.start_speech()
            await feed(stream, padded(clips[0].samples, 0.0, 0.3))
            await stream.flush()
            before, events = len(passes), stream.read()
            assert before >= 1
            await stream.commit()
            assert len(passes) == before
            events += stream.read()
    likely = [event for event in events if isinstance(event, EndOfTurnLikely)]
    (final,) = finals(events)
    assert likely[-1].time == final.end
    assert likely[-1].at == final.audio_end < final.at


async def test_words_after_an_early_final_are_not_lost(model: ASRModel, clips: list[Clip]) -> None:
    first, second = clips[2].samples, clips[3].samples
    whole = np.concatenate([padded(first, 0.0, 0.4), second])
    async with StreamingEngine(model) as engine:
        async with engine.stream(endpointing="external", end_likely=True) as stream:
            await stream.start_speech()
            await feed(stream, whole)
            await stream.commit()
        events = [event async for event in stream]
    (final,) = finals(events)
    assert any(
        isinstance(event, EndOfTurnLikely) and event.at < len(first) / SECOND + 0.5
        for event in events
    )
    assert final.text == offline(model, whole, final)
    apart = [model.transcribe(heard_as(samples)).text.split() for samples in (first, second)]
    assert len(final.text.split()) >= sum(map(len, apart)) - 1


async def test_sound_that_nobody_begins_gives_nothing(model: ASRModel, clips: list[Clip]) -> None:
    async with StreamingEngine(model) as engine:
        assert await play(engine, padded(clips[0].samples), endpointing="external") == []


async def test_clear_forgets_the_utterance(model: ASRModel, clips: list[Clip]) -> None:
    async with StreamingEngine(model) as engine:
        async with engine.stream(endpointing="external") as stream:
            assert await stream.start_speech() == 0
            await feed(stream, clips[0].samples)
            await stream.clear()
            assert await stream.commit() is None
            assert await stream.start_speech() == 1
            assert await stream.start_speech() == 1
            await feed(stream, clips[1].samples)
        (final,) = finals([event async for event in stream])
    assert final.text == model.transcribe(heard_as(clips[1].samples)).text


async def test_only_where_the_setting_says_so(model: ASRModel) -> None:
    async with StreamingEngine(model) as engine, engine.stream() as stream:
        with pytest.raises(ConfigurationError, match="external"):
            await stream.start_speech()
        await stream.update(endpointing="external")
        with pytest.raises(ConfigurationError, match="back_s"):
            await stream.start_speech(back_s=60.0)
        assert await stream.start_speech() == 0


async def test_a_likely_end_is_told_in_vad_mode_too(model: ASRModel, clips: list[Clip]) -> None:
    async with StreamingEngine(model) as engine:
        quiet = await play(engine, padded(clips[0].samples))
        told = await play(engine, padded(clips[0].samples), end_likely=True)
    assert not any(isinstance(event, EndOfTurnLikely) for event in quiet)
    last = [event for event in told if isinstance(event, EndOfTurnLikely)][-1]
    (ended,) = [event for event in told if isinstance(event, SpeechEnded)]
    assert last.time == ended.time
    assert last.at < ended.at
    assert without(told) == without(quiet)


def without(events: list[Event]) -> list[Event]:
    """The events that do not depend on when partials fell."""
    return [e for e in events if isinstance(e, SpeechStarted | SpeechEnded | Final)]
