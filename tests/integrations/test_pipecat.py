"""`PipecatASRService` in real pipelines of Pipecat, with the embedded model."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator

import numpy as np
import pytest
from pipecat.frames.frames import (
    EagerEndOfTurnCancelFrame,
    EagerTranscriptionFrame,
    InterimTranscriptionFrame,
    MetricsFrame,
    ProposedUserStartedSpeakingFrame,
    ProposedUserStoppedSpeakingFrame,
    STTMetadataFrame,
    STTMuteFrame,
    STTUpdateSettingsFrame,
    TranscriptionFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.metrics.metrics import STTUsageMetricsData, TTFBMetricsData
from pipecat.transcriptions.language import Language
from pipecat.turns.user_turn_strategies import ExternalUserTurnStrategies
from pipecat.utils.errors import ErrorCategory

from tests.integrations.conftest import RATE, start
from tinyvoice.audio.resample import resample
from tinyvoice.benchmark.speech import Clip
from tinyvoice.engine import EngineSettings, StreamingEngine
from tinyvoice.errors import ConfigurationError
from tinyvoice.integrations import PipecatASRService
from tinyvoice.integrations.shared_engine import close_engines, shared_engine
from tinyvoice.model.modeling import ASRModel


async def test_interims_while_speaking_and_a_finalized_text(
    engine: StreamingEngine, clips: list[Clip]
) -> None:
    running = await start(PipecatASRService(engine=engine))
    await running.feed(clips[0].samples, pace_s=0.02)
    await running.silence(0.5, pace_s=0.02)
    [final] = await running.until(TranscriptionFrame)
    await running.end()

    frames = running.sink.frames
    interims = running.sink.of(InterimTranscriptionFrame)
    stop = running.sink.of(VADUserStoppedSpeakingFrame)[0]
    assert interims
    assert frames.index(interims[0]) < frames.index(stop)
    assert all(frame.text.strip() and frame.text == frame.text.strip() for frame in interims)
    assert final.text == clips[0].text
    assert final.finalized
    assert final.language == Language.EN
    assert [word.text for word in final.result.words] == final.text.split()
    assert 0.0 <= final.result.start < final.result.end <= clips[0].duration + 0.1
    assert 0.5 < final.result.confidence <= 1.0
    data = [item for frame in running.sink.of(MetricsFrame) for item in frame.data]
    [ttfb] = [item.value for item in data if isinstance(item, TTFBMetricsData) and item.value]
    assert ttfb > 0.0
    assert sum(item.value.audio_seconds for item in data if isinstance(item, STTUsageMetricsData))
    assert not running.errors


async def test_each_pause_ends_a_segment_and_segments_do_not_overlap(
    engine: StreamingEngine, clips: list[Clip]
) -> None:
    running = await start(PipecatASRService(engine=engine))
    for clip in clips[:3]:
        await running.feed(clip.samples)
        await running.silence(0.8)
        await running.until(TranscriptionFrame, count=clips.index(clip) + 1)
    sink = await running.end()
    assert [frame.text for frame in sink.of(TranscriptionFrame)] == [c.text for c in clips[:3]]
    assert all(frame.finalized for frame in sink.of(TranscriptionFrame))


async def test_nothing_is_said_over_silence_and_noise(engine: StreamingEngine) -> None:
    running = await start(PipecatASRService(engine=engine))
    noise = np.random.default_rng(3).standard_normal(RATE * 20).astype(np.float32)
    for level in (0.0, 0.003, 0.05):
        await running.feed(level * noise)
    sink = await running.end()
    assert sink.of(InterimTranscriptionFrame, TranscriptionFrame) == []


async def test_the_end_of_the_pipeline_brings_the_last_words(
    engine: StreamingEngine, clips: list[Clip]
) -> None:
    running = await start(PipecatASRService(engine=engine), vad=False)
    await running.feed(clips[0].samples)
    sink = await running.end()
    assert [frame.text for frame in sink.of(TranscriptionFrame)] == [clips[0].text]
    assert engine.open_streams == 0


async def test_without_voice_activity_detection_silence_ends_a_segment(
    engine: StreamingEngine, clips: list[Clip]
) -> None:
    running = await start(PipecatASRService(engine=engine), vad=False)
    await running.feed(clips[0].samples)
    await running.silence(1.5)
    [final] = await running.until(TranscriptionFrame)
    await running.end()
    assert final.text == clips[0].text
    assert not final.finalized


async def test_turns_of_the_model_are_proposed(engine: StreamingEngine, clips: list[Clip]) -> None:
    service = PipecatASRService(engine=engine, turn_mode="model")
    running = await start(service, vad=False)
    for clip in clips[:2]:
        await running.feed(clip.samples)
        await running.silence(1.0)
        await running.until(ProposedUserStoppedSpeakingFrame, count=clips.index(clip) + 1)
    sink = await running.end()

    [metadata] = sink.of(STTMetadataFrame)
    assert metadata.ttfs_p99_latency == 0.0
    assert isinstance(metadata.user_turn_strategies, ExternalUserTurnStrategies)
    shown = [
        {
            ProposedUserStartedSpeakingFrame: "start",
            InterimTranscriptionFrame: "interim",
            TranscriptionFrame: "final",
            ProposedUserStoppedSpeakingFrame: "stop",
        }[type(frame)]
        for frame in sink.frames
        if isinstance(
            frame,
            ProposedUserStartedSpeakingFrame
            | InterimTranscriptionFrame
            | TranscriptionFrame
            | ProposedUserStoppedSpeakingFrame,
        )
    ]
    spoken = [kind for kind in shown if kind != "interim"]
    assert spoken == ["start", "final", "stop"] * 2
    assert shown[0] == "start"
    assert all(frame.finalized for frame in sink.of(TranscriptionFrame))


async def test_an_answer_may_be_begun_before_the_turn_is_over(
    engine: StreamingEngine, clips: list[Clip]
) -> None:
    service = PipecatASRService(engine=engine, turn_mode="model", enable_eager_end_of_turn=True)
    running = await start(service, vad=False)
    # As fast as it is spoken: a hypothesis is to be there when the pause begins.
    await running.feed(clips[0].samples, pace_s=0.02)
    await running.silence(0.25, pace_s=0.02)
    await running.feed(clips[1].samples, pace_s=0.02)
    await running.silence(0.8, pace_s=0.02)
    [final] = await running.until(TranscriptionFrame)
    sink = await running.end()
    eager = sink.of(EagerTranscriptionFrame)
    withdrawn = sink.of(EagerEndOfTurnCancelFrame)
    # The pause between the two was none of a turn, and what was begun with is taken back.
    assert len(eager) >= 2
    assert sink.frames.index(eager[0]) < sink.frames.index(withdrawn[0])
    assert len(eager) - len(withdrawn) in (0, 1)
    assert sink.frames.index(eager[-1]) < sink.frames.index(final)
    assert final.text.startswith(clips[0].text or "?")


@pytest.mark.parametrize("rate", [8_000, 24_000, 48_000])
async def test_other_sample_rates(
    engine: StreamingEngine, clips: list[Clip], rate: int, model: ASRModel
) -> None:
    running = await start(PipecatASRService(engine=engine), rate=rate, vad=False)
    sound = resample(clips[0].samples, RATE, rate)
    await running.feed(sound)
    await running.silence(1.5)
    [final] = await running.until(TranscriptionFrame)
    await running.end()
    offline = model.transcribe(sound, sample_rate=rate)
    assert final.text == offline.text


async def test_a_muted_service_hears_nothing_and_forgets_what_was_half_said(
    engine: StreamingEngine, clips: list[Clip]
) -> None:
    running = await start(PipecatASRService(engine=engine), vad=False)
    await running.feed(clips[0].samples[:RATE])
    await running.until(InterimTranscriptionFrame)
    await running.worker.queue_frame(STTMuteFrame(mute=True))
    await running.feed(clips[1].samples)
    await running.worker.queue_frame(STTMuteFrame(mute=False))
    await running.silence(1.0)
    await running.feed(clips[2].samples)
    sink = await running.end()
    assert [frame.text for frame in sink.of(TranscriptionFrame)] == [clips[2].text]


async def test_settings_change_in_place_and_bad_ones_change_nothing(
    engine: StreamingEngine, clips: list[Clip]
) -> None:
    service = PipecatASRService(engine=engine)
    running = await start(service, vad=False)
    bad = PipecatASRService.Settings(silence_ms=5)
    await running.worker.queue_frame(STTUpdateSettingsFrame(delta=bad))
    await running.feed(clips[0].samples)
    await running.silence(1.3)
    await running.until(TranscriptionFrame)
    [error] = running.errors
    assert error.category is ErrorCategory.APPLICATION
    assert service.is_usable
    assert "silence_ms" in error.error
    good = PipecatASRService.Settings(silence_ms=300, partials=False)
    await running.worker.queue_frame(STTUpdateSettingsFrame(delta=good))
    async with asyncio.timeout(20):  # audio overtakes the frame, which is no system frame
        while service._stream is None or service._stream.settings.silence_ms != 300:
            await asyncio.sleep(0.01)
    before = len(running.sink.of(InterimTranscriptionFrame))
    await running.feed(clips[1].samples)
    await running.silence(0.8)
    finals = await running.until(TranscriptionFrame, count=2)
    await running.end()
    assert [frame.text for frame in finals] == [clips[0].text, clips[1].text]
    assert len(running.sink.of(InterimTranscriptionFrame)) == before


async def test_an_unsure_text_is_dropped(engine: StreamingEngine, clips: list[Clip]) -> None:
    settings = PipecatASRService.Settings(min_confidence=1.0)
    running = await start(PipecatASRService(engine=engine, settings=settings))
    await running.feed(clips[0].samples)
    await running.silence(0.8)
    sink = await running.end()
    assert sink.of(TranscriptionFrame) == []
    assert sink.of(InterimTranscriptionFrame)


async def test_no_place_in_the_engine_is_an_error_and_audio_asks_again(
    model: ASRModel, clips: list[Clip]
) -> None:
    async with StreamingEngine(model, EngineSettings(max_streams=1)) as engine:
        async with engine.stream():
            running = await start(PipecatASRService(engine=engine), vad=False)
            [error] = running.errors
            assert error.category is ErrorCategory.RATE_LIMIT
            await running.silence(0.5)
        await running.silence(0.6)
        await running.feed(clips[0].samples)
        sink = await running.end()
        assert [frame.text for frame in sink.of(TranscriptionFrame)] == [clips[0].text]


async def test_eight_pipelines_share_a_model_and_hear_what_one_hears(
    engine: StreamingEngine, clips: list[Clip]
) -> None:
    async def hear(clip: Clip) -> list[str]:
        running = await start(PipecatASRService(engine=engine))
        await running.silence(0.3)
        await running.feed(clip.samples)
        await running.silence(0.8)
        sink = await running.end()
        return [frame.text for frame in sink.of(TranscriptionFrame)]

    chosen = [clips[number % len(clips)] for number in range(8)]
    alone = {clip.name: await hear(clip) for clip in {c.name: c for c in chosen}.values()}
    together = await asyncio.gather(*map(hear, chosen))
    assert together == [alone[clip.name] for clip in chosen]
    assert all(len(texts) == 1 for texts in together)


async def test_services_of_a_process_share_what_they_load(clips: list[Clip]) -> None:
    try:
        first, second = await asyncio.gather(
            PipecatASRService.load("embedded", device="cpu"),
            shared_engine("embedded", device="cpu"),
        )
        assert first is second
        running = await start(PipecatASRService(model="embedded", device="cpu"), vad=False)
        assert first.open_streams == 1
        await running.feed(clips[0].samples)
        sink = await running.end()
        assert [frame.text for frame in sink.of(TranscriptionFrame)] == [clips[0].text]
    finally:
        await close_engines()


async def test_chunks_without_a_pipeline(engine: StreamingEngine, clips: list[Clip]) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for clip in clips[:2]:
            sound = np.concatenate([clip.samples, np.zeros(RATE * 3 // 2, dtype=np.float32)])
            pcm = (sound * 32767).astype("<i2").tobytes()
            for start_ in range(0, len(pcm), 1001):
                yield pcm[start_ : start_ + 1001]

    service = PipecatASRService(engine=engine)
    heard = [transcript async for transcript in service.stream(chunks())]
    assert [transcript.text for transcript in heard] == [clip.text for clip in clips[:2]]
    partial = [item async for item in service.stream(chunks(), partials=True) if not item.final]
    assert partial
    assert all(item.text == item.stable + item.tail for item in partial)


async def test_a_source_that_breaks_off_is_told_behind_what_it_brought(
    engine: StreamingEngine, clips: list[Clip]
) -> None:
    async def chunks(error: BaseException) -> AsyncIterator[bytes]:
        yield (clips[0].samples * 32767).astype("<i2").tobytes()
        raise error

    heard = list[str]()
    service = PipecatASRService(engine=engine)

    async def hear(error: BaseException) -> None:
        async with asyncio.timeout(25):
            async for transcript in service.stream(chunks(error)):
                heard.append(transcript.text)

    with pytest.raises(OSError, match="the microphone is gone"):
        await hear(OSError("the microphone is gone"))
    with pytest.raises(asyncio.CancelledError):
        await hear(asyncio.CancelledError())
    assert heard == [clips[0].text] * 2
    assert engine.open_streams == 0


async def test_whoever_leaves_early_waits_for_nothing(
    engine: StreamingEngine, clips: list[Clip]
) -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            yield (clips[0].samples * 32767).astype("<i2").tobytes()
            await asyncio.Event().wait()
        finally:
            closed.set()

    found = PipecatASRService(engine=engine).stream(endless(), partials=True)
    async with asyncio.timeout(25):
        assert (await anext(found)).text
        await found.aclose()
    assert closed.is_set()
    assert engine.open_streams == 0


async def test_an_unsure_text_is_left_out_without_a_pipeline_too(
    engine: StreamingEngine, clips: list[Clip]
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield (clips[0].samples * 32767).astype("<i2").tobytes()

    settings = PipecatASRService.Settings(min_confidence=1.0)
    service = PipecatASRService(engine=engine, settings=settings)
    assert [transcript async for transcript in service.stream(chunks())] == []


def test_bad_settings_are_told_at_once() -> None:
    with pytest.raises(ConfigurationError, match="silence_ms is 1; give a number from 32"):
        PipecatASRService(settings=PipecatASRService.Settings(silence_ms=1))
    with pytest.raises(ConfigurationError, match="choose from pipecat, model"):
        PipecatASRService(turn_mode="both")  # type: ignore[arg-type]


def test_without_pipecat_one_sentence_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['pipecat'] = None\n"
        "from tinyvoice.errors import MissingExtraError\n"
        "try:\n    from tinyvoice.integrations import PipecatASRService\n"
        "except MissingExtraError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert "pip install 'tinyvoice[pipecat]'" in done.stdout
