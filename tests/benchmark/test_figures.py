"""Figures of a run: hand-made runs, and small real ones through engine and baseline."""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest

from tinyvoice.benchmark.baseline import GrowingBufferEngine, LocalAgreement
from tinyvoice.benchmark.figures import figures_of, text_figures
from tinyvoice.benchmark.harness import (
    DeafEngine,
    LoopProbe,
    Run,
    RunSettings,
    paced_run,
    plan_run,
    stopping_on_interrupt,
)
from tinyvoice.benchmark.observation import Heard
from tinyvoice.benchmark.soak import SoakMinute, one_minute, soak, soak_figures
from tinyvoice.benchmark.speech import Clip, bundled_speech
from tinyvoice.benchmark.suite import search_held
from tinyvoice.benchmark.timeline import make_timeline, render
from tinyvoice.engine.engine import StreamingEngine
from tinyvoice.engine.events import Event, Final, Partial, SpeechEnded, SpeechStarted
from tinyvoice.engine.settings import EngineSettings
from tinyvoice.errors import ConfigurationError
from tinyvoice.metrics import PairedDifference, Update, UtteranceRecord
from tinyvoice.model.modeling import ASRModel

STREAM = {"silence_ms": 200}


@pytest.fixture(scope="module")
def model() -> ASRModel:
    return ASRModel.from_pretrained("embedded", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return bundled_speech()[:4]


def hand_made(clips: Sequence[Clip], texts: Sequence[str]) -> Run:
    """A run in which each clip of the timeline was heard as the text given for it."""
    seconds = sum(clip.duration + 0.8 for clip in clips) + 1.0
    plan = plan_run(clips, RunSettings(seconds=seconds))
    heard = []
    for place, placed in enumerate(plan.timelines[0].placed):
        begin = placed.start / 16_000
        end = begin + clips[placed.clip].duration
        record = UtteranceRecord(
            onset=begin,
            voice_end=end,
            decided=end + 0.2,
            updates=(Update(end - 0.3, "", "a", end - 0.3, end - 0.4),),
            final=texts[placed.clip],
            received=end + 0.2 + 0.01 * (place + 1),
            first_word_end=begin + 0.3,
        )
        final = Final(
            place, texts[placed.clip], (), begin, end, 1.0, begin - 0.3, end + 0.1, end + 0.2
        )
        heard.append(Heard(record, final, place))
    return Run(plan, [heard], audio_s=seconds, cpu_s=0.1 * seconds, wall_s=seconds)


def test_latencies_of_all_utterances(clips: list[Clip]) -> None:
    run = hand_made(clips, [clip.text or "" for clip in clips])
    figures = figures_of(run, 0.2, harness=0.02)
    spread = figures.latencies["time_to_final"]
    assert figures.utterances == 4
    assert spread is not None
    assert (spread.p50, spread.greatest) == (pytest.approx(0.025), pytest.approx(0.04))
    assert figures.latencies["ttfs"].p50 == pytest.approx(0.225)  # type: ignore[union-attr]
    assert figures.first_final == pytest.approx(0.01)
    assert figures.compute == pytest.approx(0.08)
    assert not figures.held  # the only partial comes seconds after the first word
    assert figures.reason.startswith("partials every")


def test_words_of_random_weights_are_left_out(clips: list[Clip]) -> None:
    figures = figures_of(hand_made(clips, ["x"] * 4), 0.2, with_text=False)
    assert figures.revision_rate is figures.stable_prefix_rate is None
    assert figures.latencies["time_to_final"] is not None


def test_word_error_rates_are_paired_by_clip(clips: list[Clip]) -> None:
    texts = [clip.text or "" for clip in clips]
    words = sum(len(text.split()) for text in texts)
    wrong = [texts[0] + " extra", *texts[1:]]
    figures = text_figures(hand_made(clips, wrong), clips, lambda sounds: texts[: len(sounds)])
    assert figures.wer_streamed == pytest.approx(1 / words)
    assert figures.wer_offline == 0.0
    assert figures.delta_wer is not None
    assert figures.delta_wer.value == pytest.approx(1 / words)
    assert figures.delta_wer.low == 0.0 < figures.delta_wer.high


def test_what_the_endpointing_cuts_is_told_apart_from_what_streaming_does(
    clips: list[Clip],
) -> None:
    texts = [clip.text or "" for clip in clips]
    words = sum(len(text.split()) for text in texts)
    cut = ["", *texts[1:]]  # of the first clip, a stretch was heard that has no words in it
    run = hand_made(clips, cut)
    finals = [cut[placed.clip] for placed in run.plan.timelines[0].placed]
    answers = iter([texts, finals])  # first the clips are transcribed, whole, then the stretches
    figures = text_figures(run, clips, lambda _: next(answers))
    lost = len(texts[0].split()) / words
    assert (figures.wer_streamed, figures.wer_offline) == (pytest.approx(lost), 0.0)
    assert figures.delta_wer is not None
    assert figures.delta_wer.value == pytest.approx(lost)
    assert figures.wer_stretches == figures.wer_streamed
    assert figures.delta_wer_stretches == PairedDifference(0.0, 0.0, 0.0)
    assert figures.same_as_offline == 1.0


def test_nothing_known_of_what_was_said(clips: list[Clip]) -> None:
    unknown = [Clip(c.name, c.samples, None, c.onset, None) for c in clips]
    figures = text_figures(hand_made(unknown, ["a"] * 4), unknown, lambda s: ["a"] * len(s))
    assert (figures.wer_streamed, figures.delta_wer) == (None, None)
    assert figures.same_as_offline == 1.0


def test_the_search_for_streams_held() -> None:
    for most in (0, 1, 5, 22, 23, 100):
        tried: list[int] = []

        def held(streams: int, most: int = most, tried: list[int] = tried) -> bool:
            tried.append(streams)
            return streams <= most

        search_held(held, lambda: False)
        found = max((n for n in tried if n <= most), default=0)
        assert most * 0.85 <= found <= most
        assert len(tried) <= 12
        assert len(set(tried)) == len(tried)


def test_the_search_ends_when_interrupted() -> None:
    tried: list[int] = []
    search_held(lambda n: not tried.append(n), lambda: len(tried) >= 3)  # type: ignore[func-returns-value]
    assert tried == [1, 2, 4]


def test_what_two_hypotheses_agree_on_is_stable() -> None:
    agreement = LocalAgreement()
    seen = []
    for text in ("turn", "turn of the", "turn on the", "turn on the lie", "turn in"):
        agreement.update(text)
        seen.append((agreement.stable, agreement.tail))
    assert seen == [
        ("", "turn"),
        ("turn", " of the"),
        ("turn", " on the"),
        ("turn on the", " lie"),
        ("turn on the", ""),
    ]


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="streams is 0"):
        RunSettings(streams=0)


async def test_a_paced_run_sees_every_utterance(model: ASRModel, clips: list[Clip]) -> None:
    async with StreamingEngine(model) as engine:
        run = await paced_run(engine, clips, RunSettings(streams=2, seconds=7.0, stream=STREAM))
    figures = figures_of(run, 0.2)
    placed = [len(timeline.placed) for timeline in run.plan.timelines]
    assert (run.lost, run.refused, run.failures) == (0, 0, [])
    assert [len({item.clip for item in heard}) for heard in run.heard] == placed
    assert run.audio_s == pytest.approx(14.0)
    assert run.cpu_s > 0
    assert run.lateness is not None
    assert run.lateness.packets == 700
    for heard in run.heard:
        for item in heard:
            assert item.record.decided is not None
            assert item.record.received >= item.record.decided
            assert all(update.fed >= update.covered for update in item.record.updates)
    assert figures.latencies["partial_lag"] is not None
    stood = [
        all(item.final.text.startswith(update.stable) for update in item.record.updates)
        for heard in run.heard
        for item in heard
    ]
    assert figures.stable_prefix_rate == sum(stood) / len(stood)

    def offline(sounds: Sequence[np.ndarray]) -> list[str]:
        found = model.transcribe(list(sounds), sample_rate=16_000)
        return [transcript.text for transcript in found]

    text = text_figures(run, clips, offline)
    assert text.same_as_offline == 1.0
    assert text.wer_streamed == text.wer_stretches
    assert text.delta_wer_stretches == PairedDifference(0.0, 0.0, 0.0)
    assert text.delta_wer == PairedDifference(0.0, 0.0, 0.0)


async def test_ctrl_c_ends_a_run_with_what_there_is(model: ASRModel, clips: list[Clip]) -> None:
    heard: list[float] = []

    def interrupt(share: float) -> None:
        if share > 0.07 and not heard:
            heard.append(share)
            os.kill(os.getpid(), signal.SIGINT)

    async with StreamingEngine(model) as engine, stopping_on_interrupt() as stop:
        settings = RunSettings(seconds=60.0, stream=STREAM)
        run = await paced_run(engine, clips, settings, stop, interrupt)
    assert run.interrupted
    assert heard
    assert 3.0 < run.audio_s < 60.0
    timeline = run.plan.timelines[0]
    for item in run.heard[0]:  # no half utterance
        assert item.clip is not None
        placed = timeline.placed[item.clip]
        assert placed.start / 16_000 + clips[placed.clip].duration <= run.audio_s
    assert (run.lost, run.failures) == (0, [])
    assert figures_of(run, 0.2).interrupted


async def test_more_streams_than_the_engine_takes_are_counted(
    model: ASRModel, clips: list[Clip]
) -> None:
    async with StreamingEngine(model, EngineSettings(max_streams=1)) as engine:
        run = await paced_run(engine, clips[:1], RunSettings(streams=2, seconds=1.0, stream=STREAM))
    assert run.refused == 1
    assert figures_of(run, 0.2).reason == "1 streams refused"


async def play(engine: StreamingEngine, audio: np.ndarray) -> list[Event]:
    """All events of a recording, waiting for the engine after each packet."""
    events: list[Event] = []

    async def read(stream: AsyncIterator[Event]) -> None:
        events.extend([event async for event in stream])

    async with engine.stream(silence_ms=200) as stream:
        reader = asyncio.create_task(read(aiter(stream)))
        for at in range(0, len(audio), 5_120):
            await stream.feed(audio[at : at + 5_120].tobytes())
            await stream.flush()
    await reader
    return events


async def test_the_baseline_gives_the_engine_s_events(model: ASRModel, clips: list[Clip]) -> None:
    timeline = make_timeline(clips, 8.0, pause_s=0.8, draw=random.Random(0))
    audio = render(timeline, [clip.pcm16() for clip in clips], 0, timeline.samples)
    async with StreamingEngine(model) as engine, GrowingBufferEngine(model) as baseline:
        ours, theirs = await play(engine, audio), await play(baseline, audio)
    for kind in (SpeechStarted, SpeechEnded):
        assert [e for e in ours if isinstance(e, kind)] == [
            e for e in theirs if isinstance(e, kind)
        ]
    finals = [e for e in theirs if isinstance(e, Final)]
    assert len(finals) == len(timeline.placed)
    # The baseline's final pass begins at the decision and so has some more silence in it.
    assert [e.text for e in finals] == [e.text for e in ours if isinstance(e, Final)]
    partials = [e for e in theirs if isinstance(e, Partial)]
    assert len(partials) >= 2 * len(finals)
    stable = {final.utterance: "" for final in finals}
    for partial in partials:
        assert partial.stable.startswith(stable[partial.utterance])
        stable[partial.utterance] = partial.stable
    assert all(stable.values())


async def test_an_engine_that_does_nothing_shows_what_measuring_costs(clips: list[Clip]) -> None:
    run = await paced_run(DeafEngine(), clips[:1], RunSettings(seconds=1.0))
    assert run.cpu_s > 0
    assert run.heard == [[]]
    assert run.lost == 1


def test_a_minute_of_talk_has_no_pause() -> None:
    minute = one_minute(bundled_speech())
    assert len(minute) == 60 * 16_000
    quiet = np.abs(minute.astype(np.int32)) < 40
    edges = np.flatnonzero(np.diff(np.concatenate([[0], quiet.astype(np.int8), [0]])))
    assert (edges[1::2] - edges[::2]).max() < 0.2 * 16_000


def test_the_last_minute_against_the_first() -> None:
    minutes = [SoakMinute(cost, 1000 + 10 * n, 1, 1, 1) for n, cost in enumerate((2.0, 1.0, 2.1))]
    figures = soak_figures(minutes)
    assert figures.cost_ratio == pytest.approx(1.05)
    assert figures.memory_growth_bytes == 20
    assert soak_figures(minutes[:1]).cost_ratio is None


async def test_continuous_talk_is_heard_as_fast_as_it_is_processed(model: ASRModel) -> None:
    speech = one_minute(bundled_speech())[: 5 * 16_000]
    settings = {**STREAM, "partial_interval_ms": 640, "word_times": False}
    async with StreamingEngine(model, EngineSettings(max_utterance_s=4.0)) as engine:
        figures = await soak(engine, speech, 2, settings, asyncio.Event())
    assert len(figures.minutes) == 2
    assert sum(minute.finals for minute in figures.minutes) >= 1
    assert sum(minute.partials for minute in figures.minutes) >= 10
    assert sum(minute.words for minute in figures.minutes) > 10
    assert figures.cost_ratio is not None
    assert not figures.interrupted


async def test_continuous_talk_that_is_interrupted(model: ASRModel) -> None:
    stop = asyncio.Event()
    stop.set()
    async with StreamingEngine(model) as engine:
        figures = await soak(engine, np.zeros(16_000, np.int16), 2, STREAM, stop)
    assert (figures.minutes, figures.cost_ratio, figures.interrupted) == ([], None, True)


async def test_an_event_loop_that_somebody_blocks_is_late() -> None:
    async with LoopProbe() as probe:
        await asyncio.sleep(0.05)
        time.sleep(0.1)
        await asyncio.sleep(0.02)
    pauses = probe.pauses
    assert pauses is not None
    assert pauses.greatest > 0.08
    assert pauses.p99 <= pauses.p999 <= pauses.greatest
    assert 1 <= pauses.long <= pauses.asked
    async with LoopProbe(wanted=False) as nobody:
        await asyncio.sleep(0.02)
    assert nobody.pauses is None
