"""The benchmark's parts, one after the other, and the record of what they showed.

Each part opens the engine anew, runs, and adds to a :class:`Report`. Ctrl-C ends the part that is
running with what it has, and leaves out those behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.benchmark.appends import heard_by_server
from tinyvoice.benchmark.baseline import GrowingBufferEngine
from tinyvoice.benchmark.figures import (
    Figures,
    TextFigures,
    figures_of,
    seen_from_outside,
    streamed_word_error_rate,
    text_figures,
)
from tinyvoice.benchmark.harness import (
    DeafEngine,
    Engine,
    Run,
    RunSettings,
    paced_run,
    stopping_on_interrupt,
)
from tinyvoice.benchmark.lockstep import cost_together
from tinyvoice.benchmark.machine import Machine, describe_machine
from tinyvoice.benchmark.overload import OverloadFigures, overload
from tinyvoice.benchmark.soak import SoakFigures, one_minute, soak
from tinyvoice.benchmark.speech import Clip, of_length
from tinyvoice.engine.engine import StreamingEngine
from tinyvoice.engine.settings import EngineSettings
from tinyvoice.errors import ConfigurationError
from tinyvoice.model.modeling import ASRModel
from tinyvoice.model.random_weights import peak_memory_bytes

if TYPE_CHECKING:  # they need extras
    from pipecat.services.stt_service import STTService

    from tinyvoice.benchmark.remote import RemoteEngine
    from tinyvoice.benchmark.usage import Usage

ENGINE, BASELINE, SERVER = "engine", "baseline", "server"

OF_KIND = {ENGINE: "", BASELINE: " of the baseline", SERVER: " of the server"}

COMPARED_LENGTHS: dict[str, tuple[float, float]] = {"3 s": (1.5, 4.5), "10 s": (8.0, 13.0)}
"""Utterances that compute is compared at, by their bounds in seconds."""

STREAMS_TOGETHER = 16
"""Streams whose compute is compared when they are served together."""

STREAMS_LIMIT = 2_048
HARNESS_SECONDS = 5.0
"""Length of the run that shows what the measuring itself costs."""
REFINEMENTS = 3
"""Bisections after doubling has found a number that is not held."""

Say = Callable[[str, float], None]
"""Told what is going on, and the share of it that is over."""


@dataclass(frozen=True)
class ModelNote:
    """What was measured."""

    name: str
    parameters: int
    device: str
    dtype: str
    encoder: str
    threads: int | None
    random_weights: bool


@dataclass(frozen=True)
class ServerNote:
    """The server that was measured."""

    address: str
    own: bool
    """Whether the benchmark started it, with the model that it measured itself."""


@dataclass(frozen=True)
class Compute:
    """Processor seconds per second of audio at utterances of one length."""

    utterances: str
    engine: float
    baseline: float
    streams: int = 1

    @property
    def ratio(self) -> float:
        """How many times as much the baseline computes."""
        return self.baseline / self.engine if self.engine else float("inf")


@dataclass
class Report:
    """Everything that was measured; None and empty where it was not."""

    date: str
    machine: Machine
    """Where it was measured."""
    model: ModelNote | None
    """None where only a server was measured, whose model is not known."""
    speech: str
    settings: dict[str, Any]
    single: Figures | None = None
    peak_memory: int | None = None
    baseline_single: Figures | None = None
    server: ServerNote | None = None
    server_single: Figures | None = None
    compute: list[Compute] = field(default_factory=list)
    streams: dict[str, list[Figures]] = field(default_factory=dict)
    """By :data:`ENGINE`, :data:`BASELINE` and :data:`SERVER`, in the order of their numbers."""
    held: dict[str, int] = field(default_factory=dict)
    """The largest number of streams held of those tried; 0 where none was."""
    overload: OverloadFigures | None = None
    soak: SoakFigures | None = None
    pipecat: dict[str, Any] | None = None
    """Of :class:`~tinyvoice.benchmark.pipecat_stt.PipecatFigures`, and under ``detection`` of
    :class:`~tinyvoice.benchmark.pipecat_detection.DetectionFigures`; ``settings`` are the service's
    own, which are not those of the streams."""
    interrupted: bool = False

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)


@dataclass
class Suite:
    """Measures one model, or a server, on one set of speech."""

    model: ASRModel | None
    """None where only a server is measured."""
    clips: Sequence[Clip]
    engine_settings: EngineSettings
    run_settings: RunSettings
    """Of every run, apart from the number of streams and the length."""
    silence_s: float | None
    """Silence that ends an utterance; None where the endpointing decides that as it goes."""
    report: Report
    say: Say = lambda _what, _share: None
    server: Callable[[], RemoteEngine] | None = None
    """Opens sessions of the server that is to be measured."""
    _harness: dict[bool, float] = field(default_factory=dict)

    def stopped(self) -> bool:
        """Whether Ctrl-C has ended it."""
        return self.report.interrupted

    @property
    def _model(self) -> ASRModel:
        assert self.model is not None
        return self.model

    @property
    def with_text(self) -> bool:
        """Whether words mean something."""
        return self.report.model is None or not self.report.model.random_weights

    # --- parts -----------------------------------------------------------------------------------

    def measure_single(self, seconds: float, baseline: bool) -> None:
        """One stream: latencies, texts, compute, memory; the baseline beside it."""
        run = self._run(ENGINE, self.clips, "one stream", seconds=seconds)
        self.report.peak_memory = peak_memory_bytes(self._model.device)
        self.report.single = self._with_text(run)
        if baseline and not self.stopped():
            run = self._run(BASELINE, self.clips, "one stream of the baseline", seconds=seconds)
            self.report.baseline_single = self._with_text(run)

    def measure_server_single(self, seconds: float) -> None:
        """One session of the server: latencies, words, and what it says of its cost."""
        run, figures = self._run_server("one session of the server", seconds=seconds)
        if self.with_text:
            figures = replace(figures, text=self._text_of_server(run))
        self.report.server_single = figures

    def _text_of_server(self, run: Run) -> TextFigures:
        """Offline transcripts beside them, where the server has the model that is at hand."""
        if self.model is None or not any(run.heard):
            return TextFigures(streamed_word_error_rate(run, self.clips), None, None, None)
        self.say("offline transcripts of the same speech", 0.0)
        return text_figures(run, self.clips, self._offline, heard_by_server(run.plan))

    def compare_compute(self, seconds: float) -> None:
        """Compute per second of audio of engine and baseline, at short and long utterances."""
        for name, bounds in COMPARED_LENGTHS.items():
            clips = of_length(self.clips, *bounds)
            if not clips or self.stopped():
                continue
            costs = {}
            for kind in (ENGINE, BASELINE):
                what = f"compute of the {kind} at utterances of {name}"
                run = self._run(kind, clips, what, seconds=seconds, probe=False)
                if self.stopped():
                    return
                harness = self._harness_compute(probe=False)
                found = figures_of(run, self.silence_s, with_text=False, harness=harness)
                costs[kind] = found.compute or 0.0
            self.report.compute.append(Compute(name, costs[ENGINE], costs[BASELINE]))
        for name, bounds in COMPARED_LENGTHS.items():
            clips = of_length(self.clips, *bounds)
            if clips and not self.stopped():
                self._compare_together(name, clips)

    def _compare_together(self, name: str, clips: Sequence[Clip]) -> None:
        """The same with several streams, as fast as they are served."""
        costs = {}
        for kind in (ENGINE, BASELINE):
            what = f"compute of the {kind}, {STREAMS_TOGETHER} streams, utterances of {name}"
            self.say(what, 0.0)

            async def part(engine: Engine, stop: asyncio.Event, what: str = what) -> float:
                cost = await cost_together(
                    engine,
                    clips,
                    STREAMS_TOGETHER,
                    dict(self.run_settings.stream),
                    pause_s=self.run_settings.pause_ms / 1000,
                    stop=stop,
                    progress=lambda share: self.say(what, share),
                )
                self.report.interrupted = self.report.interrupted or stop.is_set()
                return cost

            costs[kind] = asyncio.run(self._with_engine(kind, part))
            if self.stopped():
                return
        self.report.compute.append(Compute(name, costs[ENGINE], costs[BASELINE], STREAMS_TOGETHER))

    def measure_streams(self, kind: str, numbers: Sequence[int] | None, seconds: float) -> None:
        """Runs at several numbers of streams; None searches for the largest that is held."""
        tried: dict[int, Figures] = {}

        def held(streams: int) -> bool:
            if streams not in tried:
                tried[streams] = self._run_streams(kind, streams, seconds)
                self.report.streams[kind] = [tried[number] for number in sorted(tried)]
                if not self.stopped():
                    holding = [number for number, found in tried.items() if found.held]
                    self.report.held[kind] = max(holding, default=0)
            return tried[streams].held

        if numbers is None:
            search_held(held, self.stopped)
            return
        for number in numbers:
            if not self.stopped():
                held(number)

    def _run_streams(self, kind: str, streams: int, seconds: float) -> Figures:
        what = f"{streams} streams{OF_KIND[kind]}"
        if kind == SERVER:
            return self._run_server(what, streams=streams, seconds=seconds)[1]
        run = self._run(kind, self.clips, what, streams=streams, seconds=seconds)
        return figures_of(run, self.silence_s, with_text=self.with_text)

    def measure_overload(self, streams: int | None, search_seconds: float) -> None:
        """Load the engine with so many streams; None is twice as many as are held.

        How many are held is looked for, in runs of ``search_seconds``, where it is not known yet.
        """
        if streams is None:
            if ENGINE not in self.report.held:
                self.measure_streams(ENGINE, None, search_seconds)
            if self.stopped():
                return
            streams = 2 * max(1, self.report.held[ENGINE])
        count, what = streams, f"{streams} streams, more than are held"

        async def part(engine: Engine, stop: asyncio.Event) -> OverloadFigures:
            return await overload(
                engine,
                self.clips,
                count,
                self.run_settings,
                self.silence_s,
                stop,
                lambda share: self.say(what, share),
                with_text=self.with_text,
            )

        self.say(what, 0.0)
        self.report.overload = asyncio.run(self._with_engine(ENGINE, part))
        self.report.interrupted = self.report.interrupted or self.report.overload.interrupted

    def run_soak(self, minutes: int) -> None:
        """Continuous talk, faster than real time."""

        async def part(engine: Engine, stop: asyncio.Event) -> SoakFigures:
            settings = dict(self.run_settings.stream)
            return await soak(
                engine,
                one_minute(self.clips),
                minutes,
                settings,
                stop,
                lambda share: self.say(f"{minutes} minutes of continuous talk", share),
            )

        self.say(f"{minutes} minutes of continuous talk", 0.0)
        self.report.soak = asyncio.run(self._with_engine(ENGINE, part))
        self.report.interrupted = self.report.interrupted or self.report.soak.interrupted

    def measure_pipecat(self, samples: int) -> None:
        """Pipelines of Pipecat's, by the method of its own benchmark, over so many samples.

        Then what the service does to the voice activity detection, and sound without speech.

        Raises:
            MissingExtraError: Pipecat is not installed.
            ConfigurationError: no recording has a text.
        """
        from tinyvoice import integrations

        _quieten_pipecat()
        service = integrations.PipecatASRService  # first: it says which extra is missing
        spoken = [clip for clip in self.clips if clip.text]
        if not spoken:
            raise ConfigurationError(
                "No recording has a text to compare with: give --audio recordings that have one.",
                key="audio",
            )
        clips = list(islice(cycle(spoken), samples))

        async def part(engine: Any, stop: asyncio.Event) -> dict[str, Any]:
            return await self._in_pipelines(lambda: service(engine=engine), clips, stop)

        found = asyncio.run(self._with_engine(ENGINE, part))
        different = min(len(spoken), len(found["samples"]))
        self.report.pipecat = {**found, "different": different}

    async def _in_pipelines(
        self, make_service: Callable[[], STTService], clips: Sequence[Clip], stop: asyncio.Event
    ) -> dict[str, Any]:
        from tinyvoice.benchmark.pipecat_detection import RECORDINGS, compare_detection
        from tinyvoice.benchmark.pipecat_stt import (
            PipecatFigures,
            measure,
            measure_quiet,
            settings_of,
        )

        def after_each(what: str, of: int) -> Callable[[int], bool]:
            self.say(what, 0.0)

            def report(done: int) -> bool:
                self.say(what, done / of)
                return not stop.is_set()

            return report

        report = after_each(f"{len(clips)} samples in Pipecat's own benchmark", len(clips))
        samples = await measure(clips, make_service, after_each=report)
        quiet, detection = [], None
        if not stop.is_set():
            different = list({clip.name: clip for clip in clips}.values())[:RECORDINGS]
            what = f"voice activity detection over {len(different)} recordings"
            report = after_each(what, len(different))
            detection = await compare_detection(different, make_service, after_each=report)
        if not stop.is_set():
            self.say("sound without speech", 0.0)
            quiet = await measure_quiet(make_service)
        self.report.interrupted = self.report.interrupted or stop.is_set()
        return {
            **PipecatFigures(samples, quiet).to_json(),
            "detection": detection.to_json() if detection is not None else None,
            "settings": settings_of(make_service()),
        }

    # --- one run ---------------------------------------------------------------------------------

    def _settings(self, changes: dict[str, Any]) -> RunSettings:
        base = self.run_settings
        return RunSettings(**{**asdict(base), "stream": dict(base.stream), **changes})

    def _run_server(self, what: str, **changes: Any) -> tuple[Run, Figures]:
        """A run through the server, and its figures.

        Raises:
            RemoteError: the server cannot be measured, or not any more.
        """
        from tinyvoice.benchmark.remote import remote_run

        assert self.server is not None
        settings, engine = self._settings(changes), self.server()
        self.say(what, 0.0)

        async def part() -> tuple[Run, Usage]:
            async with stopping_on_interrupt() as stop, engine:
                report = lambda share: self.say(what, share)  # noqa: E731
                return await remote_run(engine, self.clips, settings, stop, report)

        run, usage = asyncio.run(part())
        self.report.interrupted = self.report.interrupted or run.interrupted
        figures = figures_of(run, self.silence_s, with_text=self.with_text)
        return run, seen_from_outside(figures, run, usage)

    def _run(self, kind: str, clips: Sequence[Clip], what: str, **changes: Any) -> Run:
        settings = self._settings(changes)
        self.say(what, 0.0)

        async def part(engine: Engine, stop: asyncio.Event) -> Run:
            report = lambda share: self.say(what, share)  # noqa: E731
            return await paced_run(engine, clips, settings, stop, report)

        run = asyncio.run(self._with_engine(kind, part))
        self.report.interrupted = self.report.interrupted or run.interrupted
        return run

    def _harness_compute(self, *, probe: bool) -> float:
        """What handing over one stream's packets, and the probe, take by themselves.

        With many streams it is a small part for each, and is left in.
        """
        if self.stopped():
            return self._harness.get(probe, 0.0)
        if probe not in self._harness:
            base = {**asdict(self.run_settings), "streams": 1, "seconds": HARNESS_SECONDS}
            settings = RunSettings(**{**base, "probe": probe})
            self.say("what the measuring itself costs", 0.0)
            run = asyncio.run(paced_run(DeafEngine(), self.clips[:1], settings))
            self._harness[probe] = run.cpu_s / run.audio_s
        return self._harness[probe]

    async def _with_engine(
        self, kind: str, part: Callable[[Engine, asyncio.Event], Coroutine[Any, Any, Any]]
    ) -> Any:
        made = {ENGINE: StreamingEngine, BASELINE: GrowingBufferEngine}[kind]
        engine = made(self._model, self.engine_settings)
        async with stopping_on_interrupt() as stop, engine:
            return await part(engine, stop)

    def _with_text(self, run: Run) -> Figures:
        harness = self._harness_compute(probe=True)
        figures = figures_of(run, self.silence_s, with_text=self.with_text, harness=harness)
        if not self.with_text or not figures.utterances:
            return figures
        self.say("offline transcripts of the same speech", 0.0)
        text = text_figures(run, self.clips, self._offline)
        return Figures(**{**vars(figures), "text": text})

    def _offline(self, sounds: Sequence[np.ndarray]) -> list[str]:
        # Cut as the engine cuts an utterance, whatever pauses it has.
        found = self._model.transcribe(list(sounds), sample_rate=SAMPLE_RATE, segment="fixed")
        return [transcript.text for transcript in found] if isinstance(found, list) else []


def search_held(held: Callable[[int], bool], stopped: Callable[[], bool]) -> None:
    """Try numbers of streams until the largest that is held is known well enough.

    Doubles until one is not held, then bisects :data:`REFINEMENTS` times.
    """
    low, high = 0, 1
    while not stopped() and high <= STREAMS_LIMIT and held(high):
        low, high = high, high * 2
    for _ in range(REFINEMENTS):
        middle = (low + high) // 2
        if stopped() or low == 0 or middle in (low, high):
            return
        if held(middle):
            low = middle
        else:
            high = middle


def _quieten_pipecat() -> None:
    """It logs every step to standard error, over the progress bar."""
    with suppress(ModuleNotFoundError):  # whoever needs it says so
        from loguru import logger

        logger.disable("pipecat")


def new_report(
    model: ASRModel,
    name: str,
    speech: str,
    engine_settings: EngineSettings,
    settings: dict[str, Any],
    *,
    random_weights: bool,
) -> Report:
    """A report of which nothing is known yet but what is measured, where, and how."""
    note = ModelNote(
        name=name,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        device=str(model.device),
        dtype=str(model.dtype).removeprefix("torch."),
        encoder=engine_settings.encoder,
        threads=engine_settings.threads,
        random_weights=random_weights,
    )
    return Report(_today(), describe_machine(model.device), note, speech, settings)


def new_server_report(address: str, speech: str, settings: dict[str, Any]) -> Report:
    """A report of a server somewhere, of which nothing is known yet."""
    report = Report(_today(), describe_machine(), None, speech, settings)
    report.server = ServerNote(address, own=False)
    return report


def _today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")
