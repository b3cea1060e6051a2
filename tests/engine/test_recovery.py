"""A worker that dies: what was being said is lost, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.engine.hearing import SECOND, Samples, finals, padded, pcm16, play
from tests.engine.test_worker import kill
from tinyvoice.benchmark.speech import Clip
from tinyvoice.engine import (
    EngineError,
    EngineFailedError,
    EngineSettings,
    Event,
    Failed,
    Final,
    SpeechEnded,
    SpeechStarted,
    StreamingEngine,
    UtteranceFailed,
    UtteranceFailedError,
)
from tinyvoice.model.modeling import ASRModel

pytestmark = pytest.mark.asyncio


class Broken(BaseException):
    """What no `except Exception` catches."""


def kill_myself() -> None:
    """End the thread with its next instructions."""
    kill(threading.get_ident())


def fall_over() -> None:
    raise Broken


def breaking_once(
    patch: pytest.MonkeyPatch, holder: Any, name: str, on_call: int, breaks: Callable[[], None]
) -> list[int]:
    """Break a thread in the given call of a method; the list holds what calls there were."""
    method, calls = getattr(holder, name), list[int]()

    def broken(*arguments: Any, **options: Any) -> Any:
        calls.append(len(calls) + 1)
        if len(calls) == on_call:
            breaks()
        return method(*arguments, **options)

    patch.setattr(holder, name, broken)
    return calls


def ends(events: list[Event]) -> list[Final | UtteranceFailed]:
    return [event for event in events if isinstance(event, Final | UtteranceFailed)]


@pytest.fixture(scope="module")
def recordings(clips: list[Clip]) -> list[Samples]:
    return [
        np.concatenate([padded(clips[2 * n + i].samples, 0.3, 0.8) for i in range(2)])
        for n in range(3)
    ]


@pytest.fixture(scope="module")
def undisturbed(model: ASRModel, recordings: list[Samples]) -> list[list[Event]]:
    return asyncio.run(play_all(StreamingEngine(model), recordings))


async def play_all(engine: StreamingEngine, recordings: list[Samples]) -> list[list[Event]]:
    async with engine:
        return await asyncio.gather(*(play(engine, r, n) for n, r in enumerate(recordings)))


@pytest.mark.parametrize(
    ("method", "call", "breaks"),
    [
        ("judge", 4, kill_myself),
        ("run_partials", 4, kill_myself),
        ("run_finals", 2, kill_myself),
        ("run_finals", 2, fall_over),
        ("open", 2, kill_myself),
    ],
)
async def test_a_worker_that_dies_in_a_pass(
    model: ASRModel,
    recordings: list[Samples],
    undisturbed: list[list[Event]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    method: str,
    call: int,
    breaks: Callable[[], None],
) -> None:
    async with StreamingEngine(model) as engine:
        calls = breaking_once(monkeypatch, engine._need_runner(), method, call, breaks)
        with caplog.at_level(logging.ERROR, "tinyvoice.engine"):
            async with asyncio.timeout(120):
                heard = await asyncio.gather(
                    *(play(engine, r, n) for n, r in enumerate(recordings))
                )
        assert len(calls) >= call
        assert engine.ready
    assert len([r for r in caplog.records if "worker died" in r.message]) == 1
    lost = 0
    for before, events in zip(undisturbed, heard, strict=True):
        announced = [e for e in events if isinstance(e, SpeechStarted | SpeechEnded)]
        assert announced == [e for e in before if isinstance(e, SpeechStarted | SpeechEnded)]
        assert [e.utterance for e in ends(events)] == [0, 1]
        for expected, end in zip(finals(before), ends(events), strict=True):
            if isinstance(end, UtteranceFailed):
                lost += 1
                assert isinstance(end.error, UtteranceFailedError)
            else:
                assert end.text == expected.text
                assert (end.audio_start, end.audio_end) == (
                    expected.audio_start,
                    expected.audio_end,
                )
        times = [event.at for event in events]
        assert times == sorted(times)
    assert lost <= len(recordings)  # of each stream what was being said, if anything


async def test_a_worker_that_dies_with_nothing_to_do(model: ASRModel, clips: list[Clip]) -> None:
    async with StreamingEngine(model) as engine, engine.stream() as stream:
        await stream.flush()
        assert engine._worker is not None
        kill(engine._worker.thread_id)
        await stream.feed(pcm16(padded(clips[0].samples)))
        await stream.close()
        (final,) = finals([event async for event in stream])
    assert final.text


async def test_commands_are_answered_all_the_same(
    model: ASRModel, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with StreamingEngine(model) as engine:
        async with engine.stream(endpointing="manual") as stream:
            calls = breaking_once(
                monkeypatch, engine._need_runner(), "run_partials", 1, kill_myself
            )
            data = pcm16(clips[0].samples)
            half = len(data) // 4 * 2
            await stream.feed(data[:half])
            while not calls:
                await asyncio.sleep(0.001)
            await stream.feed(data[half:])
            # What was lost and what came since are one utterance, as they would have been.
            assert await stream.commit() == 0
            assert (await stream.update(word_times=False)).word_times is False
            await stream.feed(pcm16(clips[1].samples))
            assert await stream.commit() == 1
        first, second = ends([event async for event in stream])
    assert isinstance(first, UtteranceFailed)
    assert first.at == pytest.approx(len(clips[0].samples) / SECOND)
    assert isinstance(second, Final)
    assert second.text == model.transcribe(clips[1].samples).text
    assert second.words == ()


async def test_an_error_in_the_scheduler_is_recovered_from(
    model: ASRModel, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with StreamingEngine(model) as engine, engine.stream() as stream:
        await stream.flush()

        def wrong() -> None:
            raise AssertionError("broken on purpose")

        breaking_once(monkeypatch, engine._scheduler, "ask_turns", 4, wrong)
        for start in range(0, len(clips[0].samples), 4_000):
            await stream.feed(pcm16(clips[0].samples[start : start + 4_000]))
            await stream.flush()
        await stream.feed(pcm16(padded(clips[1].samples, 1.0, 1.0)))
        await stream.close()
        assert [end.utterance for end in ends([event async for event in stream])] == [0, 1]


class TestTooOften:
    async def test_the_engine_closes_and_says_why(
        self, model: ASRModel, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with StreamingEngine(model, EngineSettings(max_restarts=1)) as engine:
            streams = [await engine.stream(endpointing="manual").open() for _ in range(2)]

            # A fake, for nothing that is fed makes the thread die.
            def always(*_: Any) -> None:
                kill_myself()

            monkeypatch.setattr(engine._need_runner(), "judge", always)
            for stream in streams:
                await stream.feed(pcm16(clips[0].samples))
            outcomes = await asyncio.gather(
                *(stream.commit() for stream in streams), return_exceptions=True
            )
            assert all(isinstance(outcome, EngineFailedError) for outcome in outcomes)
            assert not engine.ready
            assert engine.open_streams == 0
            for stream in streams:
                last = [event async for event in stream][-1]
                assert isinstance(last, Failed)
                assert "died 2 times" in str(last.error)
            with pytest.raises(EngineFailedError, match="SystemExit"):
                await engine.stream().open()

    async def test_a_worker_that_cannot_be_replaced(
        self, model: ASRModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with StreamingEngine(model, EngineSettings(max_restarts=2)) as engine:
            stream = await engine.stream().open()
            monkeypatch.setattr(engine._need_runner(), "build", None)
            assert engine._worker is not None
            kill(engine._worker.thread_id)
            with pytest.raises(EngineError):
                await stream.flush()
            assert not engine.ready
