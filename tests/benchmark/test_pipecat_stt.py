"""Pipecat's own benchmark of recognisers: what is counted, and what no clock decides."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from functools import partial

import pytest
import pytest_asyncio
from pipecat.frames.frames import Frame, InterimTranscriptionFrame, TranscriptionFrame
from pipecat.utils.time import time_now_iso8601

from tinyvoice.benchmark import pipecat_stt
from tinyvoice.benchmark.harness import RunSettings
from tinyvoice.benchmark.pipecat_detection import (
    Compared,
    DeafService,
    Decision,
    DetectionFigures,
    compare_detection,
)
from tinyvoice.benchmark.pipecat_stt import (
    PipecatFigures,
    Quiet,
    Sample,
    measure,
    measure_quiet,
    settings_of,
)
from tinyvoice.benchmark.report import tables
from tinyvoice.benchmark.speech import Clip, bundled_speech
from tinyvoice.benchmark.suite import Suite, new_report
from tinyvoice.engine import EngineSettings, StreamingEngine
from tinyvoice.errors import ConfigurationError
from tinyvoice.integrations import PipecatASRService
from tinyvoice.model.modeling import ASRModel


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return sorted(bundled_speech(), key=lambda clip: clip.duration)


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[StreamingEngine]:
    async with StreamingEngine("embedded", device="cpu", dtype="float32") as opened:
        yield opened


@pytest.fixture
def suite(clips: list[Clip]) -> Suite:
    model = ASRModel.from_pretrained("embedded", device="cpu", dtype="float32")
    report = new_report(model, "embedded", "bundled", EngineSettings(), {}, random_weights=False)
    return Suite(model, clips, EngineSettings(), RunSettings(), 0.2, report)


class Babbler(DeafService):
    """Says something over everything, and nothing now and then: a fault that ours must not have."""

    def __init__(self) -> None:
        super().__init__()
        self._chunks = 0

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        self._chunks += 1
        now = time_now_iso8601()
        if self._chunks % 50 == 25:
            yield InterimTranscriptionFrame(" ", self._user_id, now)
        elif self._chunks % 50 == 0:
            yield TranscriptionFrame("okay", self._user_id, now)


async def test_a_sample_is_heard_answered_and_timed(
    engine: StreamingEngine, clips: list[Clip]
) -> None:
    shortest = clips[0]
    [sample] = await measure([shortest], lambda: PipecatASRService(engine=engine))
    assert sample.text
    assert sample.ttfs is not None
    # The floor is the silence that Pipecat's detection waits for.
    assert sample.ttfs > 0.19
    assert (sample.flushes, sample.unanswered, sample.empty) == (1, 0, 0)
    assert sample.finalized
    # The pipeline is an agent's: default strategies open and end a turn, and the text is its words.
    assert sample.turns_started == sample.turns_stopped >= 1
    assert sample.in_context


async def test_a_turn_without_a_text_is_begun_and_is_not_in_the_context(
    clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipecat_stt, "LONGEST_WAIT_S", 0.5)  # it would wait for a text
    [sample] = await measure(clips[:1], DeafService)
    assert (sample.flushes, sample.unanswered) == (1, 1)
    assert (sample.turns_started, sample.turns_stopped) == (1, 0)
    assert not sample.in_context


def test_a_services_settings_are_told_as_plain_values(engine: StreamingEngine) -> None:
    changed = PipecatASRService.Settings(early_final_ms=128)
    told = settings_of(PipecatASRService(engine=engine, settings=changed))
    assert told == json.loads(json.dumps(told))
    assert (told["stop_secs"], told["early_final_ms"]) == (0.2, 128)
    assert told["partial_interval_ms"] == 160
    assert settings_of(DeafService()) == {"stop_secs": 0.2}


async def test_whoever_measures_may_stop(clips: list[Clip]) -> None:
    told: list[int] = []

    def after_each(done: int) -> bool:
        told.append(done)
        return False

    babbled = await measure(clips[:3], Babbler, after_each=after_each)
    assert told == [1]
    [sample] = babbled
    assert sample.flushes == sample.unanswered == 1
    assert sample.empty > 0
    assert not sample.finalized


async def test_texts_over_sound_without_speech_are_counted(engine: StreamingEngine) -> None:
    assert {one.frames for one in await measure_quiet(Babbler, 2.0)} == {4}
    found = await measure_quiet(lambda: PipecatASRService(engine=engine), 2.0)
    assert [(one.frames, one.turns) for one in found] == [(0, 0)] * 5
    assert [one.name for one in found] == [
        "silence",
        "faint noise",
        "white noise",
        "hum",
        "clicks",
    ]


async def test_voice_activity_is_decided_at_the_same_places_with_the_service(
    engine: StreamingEngine, clips: list[Clip]
) -> None:
    found = await compare_detection(clips[:4], lambda: PipecatASRService(engine=engine), pace=0.0)
    assert found.same == 1.0
    for one in found.recordings:
        kinds = [decision.kind for decision in one.service]
        assert kinds[:2] == ["started", "stopped"]
        assert len(kinds) % 2 == 0
        places = [decision.audio_s for decision in one.service]
        assert places == sorted(places)


def decisions(*late_ms: float, places: tuple[float, ...] = (0.5, 2.0)) -> list[Decision]:
    kinds = ("started", "stopped")
    return [
        Decision(kind, place, late / 1000)  # type: ignore[arg-type]
        for kind, place, late in zip(kinds, places, late_ms, strict=True)
    ]


def test_what_a_service_adds_is_taken_decision_by_decision() -> None:
    found = DetectionFigures(
        [
            Compared("a", decisions(5.0, 9.0), decisions(4.0, 5.0)),
            Compared("b", decisions(3.0, 3.0), decisions(3.0, 4.0)),
        ]
    )
    assert found.same == 1.0
    assert found.recordings[0].added_s == pytest.approx([0.001, 0.004])
    assert found.added is not None
    assert found.added.count == 4
    assert found.added.p50 == pytest.approx(0.0005)
    assert found.added.greatest == pytest.approx(0.004)
    elsewhere = Compared("c", decisions(5.0, 9.0), decisions(4.0, 5.0, places=(0.5, 2.02)))
    assert elsewhere.added_s == []
    with_it = DetectionFigures([*found.recordings, elsewhere])
    assert with_it.same == pytest.approx(2 / 3)
    assert with_it.added == found.added
    assert with_it.to_json()["same"] == pytest.approx(2 / 3)


def test_figures_are_sums_over_the_samples() -> None:
    one = Sample("a", "yes please", "yes please", 0.21, 0.4, 2, 2, 1, 0)
    other = replace(one, name="b", text="yes", ttfs=0.23, flushes=1, unanswered=0, empty=3)
    found = PipecatFigures([one, other], [Quiet("hum", 10.0, 1, ["uh"])])
    record = found.to_json()
    assert (record["flushes"], record["unanswered"], record["empty"]) == (3, 1, 3)
    assert (record["hallucinated"], record["quiet_s"]) == (1, 10.0)
    assert (record["transcripts"], record["perfect"]) == (1.0, 0.5)
    assert record["pooled_error_rate"] == 0.25
    assert record["ttfs_s"]["count"] == 2
    assert PipecatFigures([]).to_json()["ttfs_s"] is None


def test_a_record_of_everything(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipecat_stt, "measure_quiet", partial(measure_quiet, seconds=0.5))
    told: list[tuple[str, float]] = []
    suite.say = lambda what, share: told.append((what, share))
    suite.measure_pipecat(1)
    record = json.loads(json.dumps(suite.report.to_json()))
    assert not record["interrupted"]
    found = record["pipecat"]
    assert (found["flushes"], found["unanswered"], found["hallucinated"]) == (1, 0, 0)
    assert found["quiet_s"] == 2.5
    assert found["detection"]["same"] == 1.0
    row, detection = tables(record)
    assert "a finalized text answered 1 of 1 flushes" in row.note
    started, stopped = found["turns_started"], found["turns_stopped"]
    assert started == stopped >= 1
    assert f"started / stopped: {started} / {stopped}" in row.note
    assert (found["in_context"], found["quiet_turns"]) == (1, 0)
    assert "the texts of 1 of 1 samples were in the context" in row.note
    # The service's settings, not those of the streams that the rest of the benchmark measures.
    assert (found["settings"]["early_final_ms"], found["settings"]["partial_interval_ms"]) == (
        64,
        160,
    )
    assert "stop_secs 0.2, early_final_ms 64, partial_interval_ms 160" in row.note
    for name in ("turns_started", "turns_stopped", "in_context", "quiet_turns", "settings"):
        del found[name]  # as in records of before
    [old, _] = tables(record)
    assert "1 samples of 1 different utterances; transcripts" in old.note
    assert "context" not in old.note
    assert [cells[0] for cells in detection.rows] == [
        "with the service",
        "with one that does nothing",
        "what the service adds",
    ]
    assert "100.0% of 1 recordings" in detection.note
    assert [share for what, share in told if "samples" in what] == [0.0, 1.0]


def test_what_was_measured_outlives_an_interruption(suite: Suite) -> None:
    pressed: list[float] = []

    def say(what: str, share: float) -> None:
        if share > 0.0 and not pressed:
            pressed.append(share)
            signal.raise_signal(signal.SIGINT)

    suite.say = say
    suite.measure_pipecat(200)
    record = suite.report.to_json()
    assert record["interrupted"]
    assert 1 <= len(record["pipecat"]["samples"]) <= 2
    assert record["pipecat"]["detection"] is None
    [row] = tables(record)
    assert "sound without speech was not played" in row.note


def test_recordings_without_texts_are_refused(suite: Suite, clips: list[Clip]) -> None:
    suite.clips = [replace(clip, text=None) for clip in clips]
    with pytest.raises(ConfigurationError, match="No recording has a text"):
        suite.measure_pipecat(5)
