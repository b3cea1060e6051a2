"""Streams as their owners use them: the real model, speech in packets, events."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.hearing import (
    SECOND,
    finals,
    heard_as,
    packets,
    padded,
    pcm16,
    play,
    said,
)
from tinyvoice.benchmark.speech import Clip
from tinyvoice.engine import (
    Cleared,
    EngineClosedError,
    EngineError,
    EngineFullError,
    EngineOverloadedError,
    EngineSettings,
    Event,
    Failed,
    Final,
    Partial,
    SpeechEnded,
    SpeechStarted,
    StreamClosedError,
    StreamingEngine,
    UnreadEventsError,
    UtteranceFailed,
    UtteranceFailedError,
)
from tinyvoice.engine.decoding import RollingDecoder
from tinyvoice.engine.live import FinalPass, LiveStream
from tinyvoice.engine.stream import LARGEST_STEP
from tinyvoice.errors import AudioError, ConfigurationError
from tinyvoice.model.modeling import ASRModel

pytestmark = pytest.mark.asyncio

ROOT = Path(__file__).parents[2]


def offline(model: ASRModel, final: Final, samples: np.ndarray) -> str:
    """The offline transcript of a final's audio."""
    begin, end = round(final.audio_start * SECOND), round(final.audio_end * SECOND)
    text: str = model.transcribe(heard_as(samples)[begin:end]).text
    return text


def _probabilities(final: Final) -> list[float]:
    """All that a final says of how sure it is.

    The last digits depend on the draft, which depends on when partials were made: a pass that
    verifies many tokens multiplies larger matrices than one that writes a token, and those are
    summed up in another order.
    """
    words = [word.confidence for word in final.words]
    return [final.confidence, *words, *(token.logprob for token in final.tokens)]


def _without_probabilities(event: Any) -> Any:
    if not isinstance(event, Final):
        return event
    words = tuple(replace(word, confidence=0.0) for word in event.words)
    tokens = tuple(replace(token, logprob=0.0) for token in event.tokens)
    return replace(event, words=words, tokens=tokens, confidence=0.0)


class TestAnUtterance:
    async def test_its_events_in_order(self, model: ASRModel, clips: list[Clip]) -> None:
        async with StreamingEngine(model) as engine:
            events = await play(engine, padded(clips[0].samples))
        kinds = [type(event) for event in events]
        assert kinds[0] is SpeechStarted
        assert kinds[-2:] == [SpeechEnded, Final]
        assert set(kinds[1:-2]) == {Partial}
        assert len({event.utterance for event in events if not isinstance(event, Failed)}) == 1
        times = [event.at for event in events]
        assert times == sorted(times)

    async def test_words_come_while_it_is_spoken(self, model: ASRModel, clips: list[Clip]) -> None:
        samples = padded(clips[20].samples)
        async with StreamingEngine(model) as engine, engine.stream() as stream:
            await stream.feed(pcm16(samples[: len(samples) // 2]))
            await stream.flush()
            await stream.close()
        partials = [event async for event in stream if isinstance(event, Partial)]
        assert len(partials[-1].text.split()) >= 3

    async def test_stable_text_only_grows_and_is_what_the_final_begins_with(
        self, model: ASRModel, clips: list[Clip]
    ) -> None:
        kept = 0
        async with StreamingEngine(model) as engine:
            for clip in clips[:10]:
                events = await play(engine, padded(clip.samples))
                stable = ""
                for event in events:
                    if isinstance(event, Partial):
                        assert event.stable.startswith(stable)
                        stable = event.stable
                (final,) = finals(events)
                kept += final.text.startswith(stable)
        # Not a certainty: corpora show the rate, and when partials fall depends on the machine.
        assert kept >= 9

    async def test_words_have_times_in_the_stream(self, model: ASRModel, clips: list[Clip]) -> None:
        async with StreamingEngine(model) as engine:
            (final,) = finals(await play(engine, padded(clips[1].samples, before_s=3.0)))
        assert [word.text for word in final.words] == final.text.split()
        # Times are exact to a frame or so.
        assert 2.95 <= final.words[0].start < final.words[-1].end <= final.audio_end
        assert 0.0 < final.confidence <= 1.0
        onset = 3.0 + clips[1].onset
        assert abs(final.start - onset) < 0.3

    async def test_two_sentences_are_two_utterances(
        self, model: ASRModel, clips: list[Clip]
    ) -> None:
        samples = np.concatenate([padded(clips[2].samples), padded(clips[3].samples)])
        async with StreamingEngine(model) as engine:
            events = await play(engine, samples)
        assert [final.utterance for final in finals(events)] == [0, 1]

    async def test_partials_can_be_switched_off(self, model: ASRModel, clips: list[Clip]) -> None:
        async with StreamingEngine(model) as engine:
            events = await play(engine, padded(clips[0].samples), partials=False)
        assert [type(event) for event in events] == [SpeechStarted, SpeechEnded, Final]


class TestSameWords:
    """The promise P1: what is streamed equals what is transcribed offline."""

    @pytest.mark.parametrize("encoder", ["block", "window"])
    async def test_alone(self, model: ASRModel, clips: list[Clip], encoder: Any) -> None:
        async with StreamingEngine(model, EngineSettings(encoder=encoder)) as engine:
            for seed, clip in enumerate(clips):
                samples = padded(clip.samples)
                for final in finals(await play(engine, samples, seed)):
                    assert final.text == offline(model, final, samples)

    @pytest.mark.parametrize("encoder", ["block", "window"])
    async def test_in_company(self, model: ASRModel, clips: list[Clip], encoder: Any) -> None:
        recordings = [padded(clip.samples, 0.1 * i, 0.8) for i, clip in enumerate(clips[:16])]
        async with StreamingEngine(model, EngineSettings(encoder=encoder)) as engine:
            heard = await asyncio.gather(
                *(play(engine, samples, seed) for seed, samples in enumerate(recordings))
            )
        for samples, events in zip(recordings, heard, strict=True):
            assert finals(events)
            for final in finals(events):
                assert final.text == offline(model, final, samples)

    async def test_speech_longer_than_the_encoder_takes(
        self, model: ASRModel, clips: list[Clip]
    ) -> None:
        samples = np.concatenate([clip.samples for clip in clips[20:24]] * 2)
        async with StreamingEngine(model) as engine:
            events = await play(engine, samples, endpointing="manual")
        text = said(events)
        assert text == model.transcribe(heard_as(samples), segment="fixed").text
        assert [final.continues for final in finals(events)][-1] is False
        assert any(final.continues for final in finals(events))

    async def test_packets_do_not_matter(self, model: ASRModel, clips: list[Clip]) -> None:
        samples = padded(clips[5].samples)
        async with StreamingEngine(model) as engine:
            async with engine.stream() as stream:
                for start in range(0, len(samples), 320):
                    await stream.feed(pcm16(samples[start : start + 320]))
                    await stream.flush()
            slow = [event async for event in stream]
            fast = await play(engine, samples, seed=9)
        apart = (SpeechStarted, SpeechEnded, Final)
        told = [[event for event in events if isinstance(event, apart)] for events in (slow, fast)]
        sure = [[_probabilities(final) for final in finals(events)] for events in told]
        np.testing.assert_allclose(sure[0], sure[1], atol=1e-4)
        assert [_without_probabilities(event) for event in told[0]] == [
            _without_probabilities(event) for event in told[1]
        ]

    @pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (24_000, 1), (48_000, 2)])
    async def test_other_formats(
        self, model: ASRModel, clips: list[Clip], rate: int, channels: int
    ) -> None:
        import soxr

        samples = padded(clips[7].samples)
        resampled = soxr.resample(samples, SECOND, rate)
        data = pcm16(np.repeat(resampled[:, None], channels, axis=1).astype(np.float32))
        async with StreamingEngine(model) as engine:
            stream = engine.stream(rate, channels=channels)
            async with stream:
                for packet in packets(data, np.random.default_rng(1)):
                    await stream.feed(packet)
            events = [event async for event in stream]
        (final,) = finals(events)
        assert len(final.text.split()) >= 2


class TestTokens:
    async def test_together_are_the_text(self, model: ASRModel, clips: list[Clip]) -> None:
        async with StreamingEngine(model) as engine:
            for clip in clips[:6]:
                (final,) = finals(await play(engine, padded(clip.samples)))
                assert "".join(token.text for token in final.tokens) == final.text
                logprobs = [token.logprob for token in final.tokens]
                assert all(logprob <= 0 for logprob in logprobs)
                assert np.isclose(np.exp(np.mean(logprobs)), final.confidence)


class TestAnotherFormat:
    async def test_in_the_middle_of_a_stream(self, model: ASRModel, clips: list[Clip]) -> None:
        import soxr

        first, second = padded(clips[2].samples), padded(clips[3].samples)
        wide = pcm16(soxr.resample(first, SECOND, 48_000))
        async with StreamingEngine(model) as engine:
            alone = [said(await play(engine, samples)) for samples in (first, second)]
            async with engine.stream(48_000) as stream:
                await stream.feed(wide)
                stream.change_format(SECOND, encoding="float32", channels=2)
                await stream.feed(np.repeat(heard_as(second)[:, None], 2, axis=1).tobytes())
            events = [event async for event in stream]
        assert [final.text for final in finals(events)] == alone
        onset = (len(first) / SECOND) + 0.5 + clips[3].onset
        assert abs(finals(events)[1].start - onset) < 0.2

    async def test_what_the_filter_holds_back_is_heard(self, model: ASRModel) -> None:
        async with StreamingEngine(model) as engine:
            async with engine.stream(48_000, endpointing="manual") as stream:
                await stream.feed(bytes(2 * 48_000))
                stream.change_format(8_000, encoding="mulaw")
                await stream.feed(b"\xff" * 8_000)
                stream.change_format(SECOND)
                await stream.commit()
            (final,) = finals([event async for event in stream])
        late = 24 / 8_000  # what the filter at 8 kHz put before the sound
        assert final.audio_end == 2.0 + late

    async def test_an_unknown_one_changes_nothing(self, model: ASRModel) -> None:
        async with StreamingEngine(model) as engine:
            async with engine.stream(endpointing="manual") as stream:
                await stream.feed(bytes(2 * SECOND - 1))
                for bad in ({"sample_rate": 0}, {"encoding": "opus"}, {"channels": 3}):
                    with pytest.raises(AudioError):
                        stream.change_format(**({"sample_rate": SECOND} | bad))
                stream.change_format(SECOND)
                await stream.feed(bytes(1))  # the other half of the last sample
                await stream.commit()
            (final,) = finals([event async for event in stream])
            assert final.audio_end == 1.0
            with pytest.raises(StreamClosedError):
                stream.change_format(8_000)


class TestNoWordLost:
    """The promise P3: at the edges, and in silence."""

    async def test_cut_and_padded(self, model: ASRModel, clips: list[Clip]) -> None:
        """Behind every 20 ms of silence up to half a second, and cut at every 20 ms of the silence
        that follows its last word, a clip gives the text of the whole one."""
        clip, step = clips[2], SECOND // 50
        whole = model.transcribe(heard_as(clip.samples), sample_rate=SECOND, word_timestamps=True)
        last_word = round(whole.words[-1].end * SECOND)
        cuts = range(len(clip.samples) - step, last_word, -step)
        assert len(cuts) >= 5
        recordings = [padded(clip.samples, shift * 0.02, 1.0) for shift in range(25)]
        recordings += [padded(clip.samples[:end], 0.3, 1.0) for end in cuts]
        async with StreamingEngine(model) as engine:
            heard = await asyncio.gather(
                *(play(engine, samples, partial_interval_ms=1_000) for samples in recordings)
            )
        assert [said(events) for events in heard] == [whole.text] * len(recordings)

    @pytest.mark.parametrize("level", [0.0, 0.003, 0.03])
    async def test_noise_gives_no_words(self, model: ASRModel, level: float) -> None:
        noise = np.random.default_rng(3).normal(0, 1, 10 * SECOND).astype(np.float32) * level
        async with StreamingEngine(model) as engine:
            assert said(await play(engine, noise)) == ""


class TestCommands:
    async def test_commit_ends_the_utterance_now(self, model: ASRModel, clips: list[Clip]) -> None:
        async with StreamingEngine(model) as engine, engine.stream() as stream:
            await stream.feed(pcm16(padded(clips[0].samples, 0.3, 0.0)))
            assert await stream.commit() == 0
            await stream.flush()
            events = [await anext(aiter(stream))]
            assert await stream.commit() is None
        events += [event async for event in stream]
        assert isinstance(events[-1], Final)

    async def test_clear_forgets(self, model: ASRModel, clips: list[Clip]) -> None:
        async with StreamingEngine(model) as engine, engine.stream() as stream:
            await stream.feed(pcm16(padded(clips[0].samples, 0.3, 0.0)))
            await stream.clear()
            await stream.feed(pcm16(padded(clips[1].samples)))
            await stream.close()
            events = [event async for event in stream]
        (final,) = finals(events)
        assert final.utterance == 1
        assert final.start >= len(clips[0].samples) / SECOND
        kinds = [type(event) for event in events if not isinstance(event, Partial)]
        assert kinds == [SpeechStarted, Cleared, SpeechStarted, SpeechEnded, Final]
        (cleared,) = (event for event in events if isinstance(event, Cleared))
        assert cleared.utterance == 0
        assert cleared.at == pytest.approx(0.3 + len(clips[0].samples) / SECOND)

    async def test_clear_in_silence_has_nothing_to_tell(self, model: ASRModel) -> None:
        async with StreamingEngine(model) as engine, engine.stream() as stream:
            await stream.feed(bytes(SECOND))
            await stream.clear()
            await stream.close()
            assert [event async for event in stream] == []

    async def test_clear_with_manual_endpointing_is_told(
        self, model: ASRModel, clips: list[Clip]
    ) -> None:
        """There has been no `SpeechStarted`, but partials may have come."""
        async with StreamingEngine(model) as engine:
            async with engine.stream(endpointing="manual", partials=False) as stream:
                await stream.feed(pcm16(clips[0].samples))
                await stream.clear()
                assert await stream.commit() is None
            assert [type(event) async for event in stream] == [Cleared]

    async def test_flush_brings_everything_fed_before(
        self, model: ASRModel, clips: list[Clip]
    ) -> None:
        async with StreamingEngine(model) as engine, engine.stream() as stream:
            await stream.feed(pcm16(padded(clips[0].samples)))
            await stream.flush()
            # Of whole windows nothing is left; the rest waits for the audio that completes it.
            assert round(stream.pending_s * SECOND) == len(padded(clips[0].samples)) % 512
            stream.drop()
            events = [event async for event in stream]
        assert isinstance(events[-1], Final)

    async def test_settings_change_during_the_stream(
        self, model: ASRModel, clips: list[Clip]
    ) -> None:
        async with StreamingEngine(model) as engine, engine.stream() as stream:
            await stream.update(silence_ms=2_000)
            await stream.feed(pcm16(padded(clips[0].samples, 0.3, 1.0)))
            await stream.flush()
            early = list(stream._events)
            await stream.update(silence_ms=300)
            await stream.feed(pcm16(np.zeros(SECOND // 4, dtype=np.float32)))
            await stream.flush()
            with pytest.raises(ConfigurationError, match="silence_ms"):
                await stream.update(silence_ms=-5)
            assert stream.settings.silence_ms == 300
            await stream.close()
            events = [event async for event in stream]
        assert not finals(early)
        assert len(finals(events)) == 1

    async def test_close_finishes_what_is_pending(self, model: ASRModel, clips: list[Clip]) -> None:
        async with StreamingEngine(model) as engine:
            events = await play(engine, padded(clips[4].samples, 0.2, 0.0))
        assert len(finals(events)) == 1

    async def test_cancellation_drops_it(self, model: ASRModel, clips: list[Clip]) -> None:
        async with StreamingEngine(model) as engine:
            stream = engine.stream()

            async def talk() -> None:
                async with stream:
                    await stream.feed(pcm16(padded(clips[0].samples, 0.2, 0.0)))
                    await asyncio.Event().wait()

            task = asyncio.create_task(talk())
            await asyncio.sleep(0)
            while not stream._live or stream._live.pending > 512:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert engine.open_streams == 0
            assert not finals([event async for event in stream])


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ({"sample_rate": 0}, AudioError),
            ({"sample_rate": 1_000_000}, AudioError),
            ({"channels": 3}, AudioError),
            ({"encoding": "opus"}, AudioError),
            ({"silence_ms": 0}, ConfigurationError),
            ({"loudness": 3}, ConfigurationError),
        ],
    )
    async def test_formats_and_settings_are_refused_at_once(
        self, model: ASRModel, arguments: dict[str, Any], error: type[Exception]
    ) -> None:
        async with StreamingEngine(model) as engine:
            with pytest.raises(error):
                engine.stream(**arguments)

    async def test_a_bad_packet_is_left_out_and_the_stream_goes_on(
        self, model: ASRModel, clips: list[Clip]
    ) -> None:
        samples = padded(clips[0].samples)
        middle = len(samples) // 2
        bad = np.full(100, np.nan, dtype=np.float32)
        async with StreamingEngine(model) as engine:
            async with engine.stream(encoding="float32") as stream:
                await stream.feed(samples[:middle])
                with pytest.raises(AudioError):
                    await stream.feed(bad)
                with pytest.raises(AudioError):
                    await stream.feed(b"")
                await stream.feed(samples[middle:])
            events = [event async for event in stream]
        (final,) = finals(events)
        begin, end = round(final.audio_start * SECOND), round(final.audio_end * SECOND)
        assert final.text == model.transcribe(samples[begin:end]).text

    async def test_a_large_packet_is_left_out_whole(
        self, model: ASRModel, clips: list[Clip]
    ) -> None:
        """The fault is in its last piece; what came before it was right, and its end is odd."""
        samples = np.repeat(padded(clips[0].samples), 3)  # at 48 kHz, good enough for words
        middle = len(samples) // 2
        bad = samples[: 4 * LARGEST_STEP].copy()
        bad[-1] = np.nan
        heard: list[list[Event]] = []
        async with StreamingEngine(model) as engine:
            for packet in (None, bad.tobytes(), bad):
                async with engine.stream(48_000, encoding="float32") as stream:
                    await stream.feed(samples[:middle])
                    if packet is not None:
                        with pytest.raises(AudioError, match="not numbers"):
                            await stream.feed(packet)
                    await stream.feed(samples[middle:])
                heard.append([event async for event in stream])
        expected, *others = [finals(events) for events in heard]
        assert len(expected) == 1
        for found in others:
            assert [(f.text, f.audio_start, f.audio_end, f.at) for f in found] == [
                (f.text, f.audio_start, f.audio_end, f.at) for f in expected
            ]

    async def test_a_large_packet_that_is_left_out_keeps_the_bytes_aligned(
        self, model: ASRModel
    ) -> None:
        bad = np.full(LARGEST_STEP // 2, np.nan, dtype="<f4").tobytes() + b"\0"
        async with StreamingEngine(model) as engine:
            async with engine.stream(endpointing="manual", encoding="float32") as stream:
                with pytest.raises(AudioError, match="not numbers"):
                    await stream.feed(bad)
                await stream.feed(bytes(3 + 4 * SECOND))
                await stream.commit()
            (final,) = finals([event async for event in stream])
        assert final.audio_end == 1 + 1 / SECOND

    async def test_feeding_after_close(self, model: ASRModel) -> None:
        async with StreamingEngine(model) as engine:
            async with engine.stream() as stream:
                pass
            with pytest.raises(StreamClosedError):
                await stream.feed(b"\0\0")

    async def test_a_closed_engine(self, model: ASRModel) -> None:
        engine = StreamingEngine(model)
        with pytest.raises(EngineClosedError):
            await engine.stream().open()
        async with engine:
            stream = await engine.stream().open()
        with pytest.raises(StreamClosedError):
            await stream.feed(b"\0\0")
        with pytest.raises(EngineClosedError):
            await engine.open()


class TestLimits:
    async def test_one_stream_too_many(self, model: ASRModel) -> None:
        async with StreamingEngine(model, EngineSettings(max_streams=2)) as engine:
            first = await engine.stream().open()
            await engine.stream().open()
            with pytest.raises(EngineFullError, match="max_streams"):
                await engine.stream().open()
            await first.close()
            await engine.stream().open()

    async def test_a_flood_waits_and_loses_nothing(
        self, model: ASRModel, clips: list[Clip]
    ) -> None:
        samples = np.concatenate([padded(clip.samples, 0.2, 0.8) for clip in clips[:6]])
        company = np.concatenate([padded(clip.samples, 0.2, 0.8) for clip in clips[6:8]])
        settings = EngineSettings(max_pending_s=1.0, refuse_partial_gap_s=3_600)
        async with StreamingEngine(model, settings) as engine:
            alone = [final.text for final in finals(await play(engine, company))]
            beside = asyncio.create_task(play(engine, company))
            most = 0.0
            async with engine.stream() as stream:
                for start in range(0, len(samples), 4_000):
                    await stream.feed(pcm16(samples[start : start + 4_000]))
                    most = max(most, stream.pending_s)
            events = [event async for event in stream]
            # Who speaks beside it is told the same as alone.
            assert [final.text for final in finals(await beside)] == alone
        assert most <= 1.0
        assert len(finals(events)) == 6
        for final in finals(events):
            assert final.text == offline(model, final, samples)

    async def test_events_that_nobody_reads(self, model: ASRModel, clips: list[Clip]) -> None:
        samples = padded(clips[13].samples, 0.2, 0.7)
        async with StreamingEngine(model, EngineSettings(max_unread_events=10)) as engine:
            stream = await engine.stream().open()

            async def feed_on() -> None:
                for _ in range(10):
                    await stream.feed(pcm16(samples))
                    await stream.flush()

            with pytest.raises((UnreadEventsError, StreamClosedError)):
                await feed_on()
            last = [event async for event in stream][-1]
            assert isinstance(last, Failed)
            assert isinstance(last.error, UnreadEventsError)
            assert engine.open_streams == 0


class TestAloneInCompany:
    """The promise P6: a stream that breaks leaves the others' texts as they are."""

    async def test_an_utterance_whose_final_pass_raises(
        self, model: ASRModel, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recordings = [
            np.concatenate([padded(clip.samples), padded(clips[9].samples)]) for clip in clips[:4]
        ]
        async with StreamingEngine(model) as engine:
            alone = [
                [final.text for final in finals(await play(engine, samples))]
                for samples in recordings
            ]
            runner = engine._need_runner()
            passes = runner.run_finals
            victims: list[FinalPass] = []

            # A fake, for no audio makes the model raise: some stream's first utterance breaks.
            def breaking(batch: Sequence[FinalPass], **options: Any) -> None:
                victims.extend(p for p in batch if not victims)
                if any(p.samples is victims[0].samples for p in batch):
                    raise RuntimeError("broken on purpose")
                passes(batch, **options)

            monkeypatch.setattr(runner, "run_finals", breaking)
            heard = await asyncio.gather(*(play(engine, samples) for samples in recordings))
        failures = [e for events in heard for e in events if isinstance(e, UtteranceFailed)]
        assert len(failures) == 1
        assert isinstance(failures[0].error, UtteranceFailedError)
        assert isinstance(failures[0].error.__cause__, RuntimeError)
        for texts, events in zip(alone, heard, strict=True):
            # One of both for each utterance, in order; the second one is as it would have been.
            ends = [e for e in events if isinstance(e, Final | UtteranceFailed)]
            assert [end.utterance for end in ends] == [0, 1]
            for text, end in zip(texts, ends, strict=True):
                assert isinstance(end, UtteranceFailed) or end.text == text
            kinds = [type(event) for event in events if not isinstance(event, Partial)]
            assert kinds[:3] == [SpeechStarted, SpeechEnded, type(ends[0])]
            assert kinds[3:] == [SpeechStarted, SpeechEnded, type(ends[1])]

    async def test_a_stream_whose_partials_raise_still_gets_its_finals(
        self, model: ASRModel, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recordings = [padded(clip.samples) for clip in clips[:4]]
        async with StreamingEngine(model) as engine:
            alone = [said(await play(engine, samples)) for samples in recordings]
            runner = engine._need_runner()
            passes = runner.run_partials
            victims: list[LiveStream] = []

            # A fake, for no audio makes the model raise: one stream's partials break.
            def breaking(streams: Sequence[LiveStream]) -> None:
                victims.extend(s for s in streams if not victims and s.detector.position > SECOND)
                if any(stream is victims[0] for stream in streams if victims):
                    raise RuntimeError("broken on purpose")
                passes(streams)

            monkeypatch.setattr(runner, "run_partials", breaking)
            heard = await asyncio.gather(*(play(engine, samples) for samples in recordings))
        assert victims
        assert [said(events) for events in heard] == alone

    async def test_a_commit_whose_final_pass_raises_has_its_number(
        self, model: ASRModel, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with StreamingEngine(model) as engine:
            async with engine.stream(endpointing="manual") as stream:
                with monkeypatch.context() as patch:
                    # A fake, for no audio makes the model raise.
                    patch.setattr(engine._need_runner(), "run_finals", None)
                    await stream.feed(pcm16(clips[0].samples))
                    assert await stream.commit() == 0
                    await stream.flush()
                await stream.feed(pcm16(clips[1].samples))
                assert await stream.commit() == 1
            events = [event async for event in stream]
        (failure,) = (event for event in events if isinstance(event, UtteranceFailed))
        assert failure.utterance == 0
        assert failure.at == len(clips[0].samples) / SECOND
        (final,) = finals(events)
        assert final.text == model.transcribe(heard_as(clips[1].samples)).text

    async def test_a_stream_that_cannot_be_heard_fails_alone(
        self, model: ASRModel, clips: list[Clip]
    ) -> None:
        samples = padded(clips[2].samples)
        async with StreamingEngine(model) as engine:
            alone = said(await play(engine, samples))
            deaf = await engine.stream().open()
            assert deaf._live is not None
            # A fault that no audio can make: the network's memory of the stream has another shape.
            deaf._live.vad.memory = np.zeros((3, 1), dtype=np.float32)
            other = asyncio.create_task(play(engine, samples))
            await deaf.feed(pcm16(samples))
            with pytest.raises(EngineError):
                await deaf.flush()
            assert said(await other) == alone
            assert isinstance([event async for event in deaf][-1], Failed)

    async def test_a_stream_that_stalls_and_one_that_vanishes(
        self, model: ASRModel, clips: list[Clip]
    ) -> None:
        samples = padded(clips[2].samples)
        async with StreamingEngine(model) as engine:
            alone = said(await play(engine, samples))
            stalled = await engine.stream().open()
            await stalled.feed(pcm16(padded(clips[3].samples, 0.2, 0.0)))
            vanished = await engine.stream().open()
            await vanished.feed(pcm16(padded(clips[3].samples, 0.2, 0.0)))
            vanished.drop()
            assert said(await play(engine, samples)) == alone

    async def test_memory_comes_back(self, model: ASRModel, clips: list[Clip]) -> None:
        data = pcm16(padded(clips[0].samples[: SECOND // 2], 0.1, 0.0))
        async with StreamingEngine(model) as engine:
            references: list[weakref.ref[LiveStream]] = []
            for number in range(200):
                stream = await engine.stream().open()
                assert stream._live is not None
                references.append(weakref.ref(stream._live))
                await stream.feed(data)
                if number % 3 == 0:
                    await stream.flush()
                stream.drop()
            async with engine.stream() as stream:
                await stream.flush()
            del stream
            gc.collect()
            assert not [reference for reference in references if reference() is not None]
            decoder = engine._need_runner().decoder
            assert isinstance(decoder, RollingDecoder)
            async with asyncio.timeout(30):  # the worker's next step gives back the last one
                while decoder.cache.in_use:
                    await asyncio.sleep(0)


async def test_the_event_loop_is_never_kept_waiting(
    model: ASRModel, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CPU time of the loop's own callbacks; the worker's is the next test's affair."""
    longest = 0.0
    run = asyncio.events.Handle._run

    def measured(handle: asyncio.Handle) -> None:
        nonlocal longest
        before = time.thread_time()
        run(handle)
        longest = max(longest, time.thread_time() - before)

    async with StreamingEngine(model, EngineSettings(freeze_objects=True)) as engine:
        monkeypatch.setattr(asyncio.events.Handle, "_run", measured)
        await asyncio.gather(*(play(engine, padded(clip.samples)) for clip in clips[:8]))
        async with engine.stream(48_000) as stream:
            await stream.feed(bytes(2 * 48_000 * 20))
        monkeypatch.undo()
    gc.unfreeze()
    assert 0.0 < longest < 0.020


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="reads Linux's schedstat")
async def test_the_worker_does_not_keep_the_event_loop_waiting(
    model: ASRModel, clips: list[Clip]
) -> None:
    """Pauses of the loop while the worker holds Python's lock, on the clock of the wall.

    Of a pause only that counts in which the worker was computing, and in which the loop's thread
    was not itself waiting for a processor: other programs' work is neither.
    """
    own = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
    nap, pauses, over = 0.001, list[float](), False

    def waited_for_a_processor() -> float:
        return int(own.read_text().split()[1]) / 1e9

    async def probe(worker: int) -> None:
        while not over:
            began = time.perf_counter(), time.clock_gettime(worker), waited_for_a_processor()
            await asyncio.sleep(nap)
            wall, worked, waited = (
                now - then
                for now, then in zip(
                    (time.perf_counter(), time.clock_gettime(worker), waited_for_a_processor()),
                    began,
                    strict=True,
                )
            )
            pauses.append(min(worked, wall - nap - waited))

    async with StreamingEngine(model, EngineSettings(freeze_objects=True)) as engine:
        assert engine._worker is not None
        assert engine._worker.thread_id is not None
        probing = asyncio.create_task(probe(time.pthread_getcpuclockid(engine._worker.thread_id)))
        await asyncio.gather(*(play(engine, padded(clip.samples)) for clip in clips[16:22]))
        over = True
        await probing
    gc.unfreeze()
    assert len(pauses) > 100
    # Not the longest: what the processor's other guests take is in no account of the system's.
    assert np.percentile(pauses, 99) < 0.020


@pytest.mark.parametrize("freeze_objects", [False, True])
async def test_the_host_programs_objects_are_frozen_only_where_it_says_so(
    model: ASRModel, freeze_objects: bool
) -> None:
    before = gc.get_freeze_count()
    try:
        async with StreamingEngine(model, EngineSettings(freeze_objects=freeze_objects)):
            assert (gc.get_freeze_count() > before) is freeze_objects
    finally:
        gc.unfreeze()


NUMPY_THREADS = """
import asyncio
import threading

from threadpoolctl import ThreadpoolController

from tinyvoice.engine import EngineSettings, StreamingEngine
from tinyvoice.engine.blas_threads import PREFIX


def libraries():
    return ThreadpoolController().select(prefix=PREFIX).lib_controllers


def told(where):
    print(where, *{library.num_threads for library in libraries()})


async def main():
    # In a thread that ends: while it lived, no other could change them.
    setter = threading.Thread(target=lambda: [each.set_num_threads(3) for each in libraries()])
    setter.start()
    setter.join()
    async with StreamingEngine("embedded", EngineSettings(blas_threads=None)) as engine:
        told("left alone")
        first = await StreamingEngine(engine.model, EngineSettings(blas_threads=2)).open()
        told("first")
        second = await StreamingEngine(engine.model).open()
        told("second")
        await first.close()
        told("first closed")
        await second.close()
        told("both closed")


asyncio.run(main())
"""


async def test_numpy_leaves_the_cores_alone_while_an_engine_is_open() -> None:
    # A process of its own: in this one, engines of other tests may be open.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", NUMPY_THREADS),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    told, _ = await process.communicate()
    assert told.decode().splitlines() == [
        "left alone 3",
        "first 2",
        "second 1",
        "first closed 1",
        "both closed 3",
    ]


async def test_by_name_it_loads_the_model_itself() -> None:
    async with StreamingEngine("embedded", device="cpu", dtype="float32") as engine:
        assert engine.ready
        assert engine.model.dtype is not None
    assert not engine.ready


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens by itself, for a minute at most."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


class TestOverload:
    """The promise P5: new streams are refused before those there are suffer, and then welcome."""

    async def test_a_new_stream_is_refused_and_later_welcome(
        self, model: ASRModel, clips: list[Clip]
    ) -> None:
        """The worker is held up, as by a machine that is too slow, until it has fallen behind."""
        talk = clips[20].samples[: 2 * SECOND]
        async with StreamingEngine(model, EngineSettings(refuse_partial_gap_s=0.2)) as engine:
            streams = [await engine.stream(partials=False).open() for _ in range(6)]
            go_on = threading.Event()
            assert engine._worker is not None
            held_up = asyncio.ensure_future(engine._worker.run(go_on.wait))
            await asyncio.gather(*(stream.feed(pcm16(talk)) for stream in streams))
            await until(lambda: engine.overloaded)
            with pytest.raises(EngineOverloadedError, match="falls behind"):
                await engine.stream().open()
            go_on.set()
            await held_up
            # The others lose nothing.
            await asyncio.gather(*(stream.close() for stream in streams))
            for stream in streams:
                assert len(finals([event async for event in stream])) == 1
            async with engine.stream() as stream:
                await stream.flush()

    async def test_a_stream_that_stays_is_welcome_company_again(
        self, model: ASRModel, clips: list[Clip]
    ) -> None:
        """Recovery with somebody there: what came late is forgotten after some seconds."""
        async with StreamingEngine(model, EngineSettings(refuse_partial_gap_s=0.2)) as engine:
            stays = await engine.stream(endpointing="manual").open()
            go_on = threading.Event()
            assert engine._worker is not None
            held_up = asyncio.ensure_future(engine._worker.run(go_on.wait))
            await stays.feed(pcm16(clips[20].samples[: 2 * SECOND]))
            await until(lambda: engine.overloaded)
            go_on.set()
            await held_up
            await stays.flush()
            assert any(isinstance(event, Partial) for event in stays.read())
            await until(lambda: not engine.overloaded)
            async with engine.stream() as stream:
                await stream.flush()
            await stays.close()


class TestSemantic:
    @pytest.mark.parametrize(
        ("clip", "share", "finished"),
        [(9, 1.0, True), (2, 0.6, False)],
        ids=["a whole question", "will it be windy in"],
    )
    async def test_a_finished_sentence_ends_sooner_than_an_unfinished_one(
        self, model: ASRModel, clips: list[Clip], clip: int, share: float, finished: bool
    ) -> None:
        samples = clips[clip].samples
        audio = padded(samples[: round(share * len(samples))], 0.3, 5.0)
        async with StreamingEngine(model) as engine:
            live = await engine.stream(endpointing="semantic", silence_ms=200).open()
            turns = engine._need_runner().smart_turn
            assert turns is not None
            await live.feed(pcm16(audio))
            await live.close()
            (ended,) = [event async for event in live if isinstance(event, SpeechEnded)]
        # The turn model is sure of both.
        asked = turns.complete_probability(audio[: round((ended.time + 0.2) * SECOND)])
        assert (asked > 0.9) if finished else (asked < 0.1)
        pause = ended.at - ended.time
        # To a window: after the pause in which it was asked, or after the longest one.
        assert pause == pytest.approx(0.2 if finished else 4.0, abs=0.033)
