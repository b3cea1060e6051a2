"""Recordings played into the engine: one list of events, whatever the speed."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import numpy as np
import pytest

from tests.engine.hearing import SECOND, Samples, finals, padded
from tinyvoice.benchmark.speech import Clip
from tinyvoice.engine import (
    EngineClosedError,
    EngineSettings,
    Event,
    Failed,
    Final,
    Partial,
    StreamFailedError,
    StreamingEngine,
    StreamSettings,
    UtteranceFailed,
)
from tinyvoice.engine.recording import joined, stream_recording
from tinyvoice.errors import ConfigurationError
from tinyvoice.model.modeling import ASRModel
from tinyvoice.model.transcript import Word

pytestmark = pytest.mark.asyncio


async def events_of(engine: StreamingEngine, samples: Samples, **options: Any) -> list[Event]:
    return [event async for event in stream_recording(engine, samples, **options)]


@pytest.fixture
def two_sentences(clips: list[Clip]) -> Samples:
    return np.concatenate([padded(clips[2].samples), padded(clips[3].samples)])


class TestOffline:
    async def test_says_of_a_long_recording_what_a_stream_says(
        self, model: ASRModel, clips: list[Clip]
    ) -> None:
        padding = np.random.default_rng(4).uniform(0.3, 1.5, len(clips))
        samples = np.concatenate(
            [padded(c.samples, 0.0, s) for c, s in zip(clips, padding, strict=True)]
        )
        async with StreamingEngine(model) as engine:
            events = await events_of(engine, samples, partials=False, packet_ms=960)
        streamed = joined(finals(events), len(samples) / SECOND)
        offline = model.transcribe(samples, word_timestamps=True)
        assert offline.text == streamed.text
        assert offline.confidence == pytest.approx(streamed.confidence, abs=1e-4)
        assert (offline.start, offline.duration) == (0.0, len(samples) / SECOND)
        assert [(word.text, word.start, word.end) for word in offline.words] == [
            (word.text, pytest.approx(word.start), pytest.approx(word.end))
            for word in streamed.words
        ]
        assert len(offline.words) == len(offline.text.split()) > 100


class TestEvents:
    async def test_are_the_same_at_every_speed_and_in_all_packets(
        self, model: ASRModel, two_sentences: Samples
    ) -> None:
        async with StreamingEngine(model) as engine:
            reference = await events_of(engine, two_sentences)
            paced = await events_of(engine, two_sentences, speed=40.0)
            small = await events_of(engine, two_sentences, packet_ms=20)
            large = await events_of(engine, two_sentences, packet_ms=300)
        assert sum(isinstance(event, Partial) for event in reference) > 8
        assert len(finals(reference)) == 2
        assert paced == small == large == reference

    async def test_of_a_stream_that_fails_end_with_the_failure(
        self, model: ASRModel, two_sentences: Samples
    ) -> None:
        async with StreamingEngine(model) as engine:
            assert engine._runner is not None
            engine._runner.vad._kernels = []  # a fault that no audio can make
            events = await events_of(engine, two_sentences)
        assert isinstance(events[-1], Failed)
        assert isinstance(events[-1].error, StreamFailedError)

    async def test_of_utterances_that_fail_say_so_and_go_on(
        self, model: ASRModel, two_sentences: Samples
    ) -> None:
        async with StreamingEngine(model) as engine:
            assert engine._runner is not None
            engine._runner.decoder.decode_finals = None  # type: ignore[method-assign, assignment]
            events = await events_of(engine, two_sentences)
        failed = [event for event in events if isinstance(event, UtteranceFailed)]
        assert [failure.utterance for failure in failed] == [0, 1]
        assert not finals(events)

    async def test_of_nothing_are_none(self, model: ASRModel) -> None:
        async with StreamingEngine(model) as engine:
            assert await events_of(engine, np.zeros(0, dtype=np.float32)) == []


class TestLimits:
    async def test_a_place_is_free_as_soon_as_its_stream_is_over(self, model: ASRModel) -> None:
        """Also where others begin before the engine's next step."""
        async with StreamingEngine(model, EngineSettings(max_streams=4)) as engine:
            streams = [await engine.stream().open() for _ in range(4)]
            for stream in streams:
                stream.drop()
            opened = [engine._open_in_worker(StreamSettings()) for _ in range(4)]
            assert len({live.slot.index for live in opened}) == 4
            for live in opened:
                engine._need_runner().close(live)

    async def test_leaving_early_gives_the_place_back(
        self, model: ASRModel, two_sentences: Samples
    ) -> None:
        async with StreamingEngine(model) as engine:
            async with aclosing(stream_recording(engine, two_sentences)) as events:
                async for event in events:
                    if isinstance(event, Partial):
                        break
                assert engine.open_streams == 1
            assert engine.open_streams == 0

    @pytest.mark.parametrize("options", [{"speed": 0.0}, {"packet_ms": 0}, {"threshold": 2.0}])
    async def test_settings_out_of_range_are_refused(
        self, model: ASRModel, options: dict[str, Any]
    ) -> None:
        async with StreamingEngine(model) as engine:
            with pytest.raises(ConfigurationError):
                await events_of(engine, np.zeros(SECOND, dtype=np.float32), **options)

    async def test_a_closed_engine_is_an_error_of_the_caller(self, model: ASRModel) -> None:
        with pytest.raises(EngineClosedError):
            await events_of(StreamingEngine(model), np.zeros(SECOND, dtype=np.float32))


class TestJoined:
    def final(self, text: str, start: float, confidence: float) -> Final:
        words = tuple(Word(word, start, start + 0.2, confidence) for word in text.split())
        return Final(0, text, words, start, start + 1, confidence, start, start + 1, start + 1)

    async def test_finals_become_one_transcript(self) -> None:
        parts = [self.final("a b", 1, 0.5), self.final("", 3, 1.0), self.final("c d", 5, 0.5)]
        transcript = joined(parts, 7.0)
        assert transcript.text == "a b c d"
        assert [word.start for word in transcript.words] == [1, 1, 5, 5]
        assert transcript.confidence == pytest.approx(0.5)
        assert transcript.duration == 7.0

    async def test_no_final_is_no_text(self) -> None:
        assert (joined([], 2.0).text, joined([], 2.0).duration) == ("", 2.0)
        assert joined([self.final("a", 1, 0.5)], 7.0).duration == 7.0
