"""What the scheduler does next: the real model, step by step, on a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.engine.hearing import SECOND, Samples, padded
from tinyvoice.benchmark.speech import Clip
from tinyvoice.engine import EngineSettings, Event, Final, StreamSettings
from tinyvoice.engine.live import Command, FinalPass, LiveStream
from tinyvoice.engine.load import LOAD_SECONDS
from tinyvoice.engine.runner import ModelRunner
from tinyvoice.engine.scheduler import Scheduler
from tinyvoice.model.modeling import ASRModel

PACKET = SECOND // 10


class Passes(ModelRunner):
    """The model, with a list of the passes that it made and of whom they were for."""

    def __init__(self, model: ASRModel, settings: EngineSettings) -> None:
        self.made: list[tuple[str, int]] = []
        super().__init__(model, settings)

    def run_partials(self, streams: Sequence[LiveStream]) -> None:
        self.made += [("partial", id(stream)) for stream in streams]
        super().run_partials(streams)

    def run_finals(self, passes: Sequence[FinalPass], *, word_times: bool = True) -> None:
        self.made += [("final", len(passes))]
        super().run_finals(passes, word_times=word_times)


class Bench:
    """A scheduler, its clock, and streams that are fed by hand."""

    def __init__(self, model: ASRModel, settings: EngineSettings) -> None:
        self.now = 100.0
        self.passes = Passes(model, settings)
        self.scheduler = Scheduler(self.passes, settings, clock=lambda: self.now)

    def open(self, **settings: Any) -> LiveStream:
        stream = self.passes.open(StreamSettings(**settings))
        self.scheduler.add(stream)
        return stream

    def play(
        self, *streams: LiveStream, sound: Samples, step: Callable[[], object] = lambda: None
    ) -> None:
        """Feed the same sound at the pace of speech, with a step where there is time for one."""
        began = self.now
        for start in range(0, len(sound), PACKET):
            packet = sound[start : start + PACKET]
            due = began + (start + len(packet)) / SECOND
            for stream in streams:
                stream.receive(packet, due)
            if self.now < due:
                self.now = due
                step()

    def step(self) -> list[Event]:
        """One step; the events, of all streams one after the other."""
        self.scheduler.step()
        return [event for stream in self.scheduler.streams for event in stream.take()[0]]

    def work_off(self) -> list[Event]:
        """Steps until nothing is left to do."""
        events: list[Event] = []
        while self.scheduler.busy:
            events += self.step()
        return events


@pytest.fixture
def bench(model: ASRModel) -> Bench:
    return Bench(model, EngineSettings(max_batch=1))


@pytest.fixture
def talk(clips: list[Clip]) -> Samples:
    """Some seconds of speech without a pause that ends it."""
    return clips[20].samples


def commit() -> Command:
    return Command("commit", lambda _: None)


def test_under_load_partials_thin_out(bench: Bench, talk: Samples) -> None:
    streams = [bench.open(endpointing="manual") for _ in range(4)]
    bench.play(*streams, sound=talk[: 3 * SECOND], step=bench.step)
    shares = [bench.passes.made.count(("partial", id(stream))) for stream in streams]
    # Alone, each would have had one every 320 ms, nine; there were 30 steps of one partial.
    assert sum(shares) <= 30
    assert max(shares) < 9
    # Those who have waited longest come first: all get as many, to one or two.
    assert max(shares) - min(shares) <= 2
    # Hearing goes on meanwhile, and what is understood late is understood together.
    assert all(stream.pending < SECOND // 2 for stream in streams)


def test_finals_go_before_partials_that_have_waited_longer(bench: Bench, talk: Samples) -> None:
    streams = [bench.open(endpointing="manual") for _ in range(2)]
    over = bench.open(endpointing="manual", partials=False)
    bench.play(*streams, sound=talk[:SECOND])
    over.receive(talk[: SECOND // 2], bench.now)
    over.inbox.append(commit())
    bench.scheduler.step()
    assert [kind for kind, _ in bench.passes.made] == ["final", "partial"]
    assert isinstance(over.take()[0][0], Final)


def test_without_partials_late_finals_are_noticed(bench: Bench, clips: list[Clip]) -> None:
    """Final passes that take longer than there is time for, and nobody who asks for partials."""
    sound = padded(clips[0].samples, 0.3, 8.0)
    streams = [bench.open(partials=False) for _ in range(3)]
    run_finals = bench.passes.run_finals

    def slow(passes: Sequence[FinalPass], **options: Any) -> None:
        bench.now += 2.0  # a machine on which each takes two seconds
        run_finals(passes, **options)

    bench.passes.run_finals = slow  # type: ignore[method-assign]
    events: list[Event] = []
    bench.play(*streams, sound=sound, step=lambda: events.extend(bench.step()))
    events += bench.work_off()
    assert len([event for event in events if isinstance(event, Final)]) == 3
    assert bench.scheduler.lateness_s >= 2.0
    bench.now += LOAD_SECONDS + 0.1
    assert bench.scheduler.lateness_s == 0.0


def test_audio_that_nobody_has_heard_is_noticed_at_once(bench: Bench, talk: Samples) -> None:
    stream = bench.open(partials=False)
    bench.play(stream, sound=talk[: 2 * SECOND])
    assert bench.scheduler.lateness_s == pytest.approx(2.0, abs=0.2)
    bench.work_off()
    assert bench.scheduler.lateness_s == 0.0


def test_recordings_and_the_background_do_not_count(bench: Bench, talk: Samples) -> None:
    flood = bench.open(partials=False)
    flood.receive(talk[: 5 * SECOND // 2], bench.now)
    patient = bench.open(background=True)
    bench.play(patient, sound=talk[: 2 * SECOND])
    assert bench.scheduler.lateness_s == 0.0


def test_a_pause_of_the_source_hides_no_late_final(bench: Bench, talk: Samples) -> None:
    """Push to talk: nothing comes in while the text is waited for."""
    streams = [bench.open(endpointing="manual", partials=False) for _ in range(2)]
    for stream in streams:
        stream.receive(talk[:SECOND], bench.now)
    bench.now += 1.0
    for stream in streams:
        stream.inbox.append(commit())
    bench.step()  # one of both finals
    bench.now += 3.0
    bench.work_off()
    assert bench.scheduler.lateness_s == pytest.approx(1.5, abs=0.1)  # the median of 0 and 3
