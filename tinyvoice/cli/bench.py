"""Measure streaming: latency, words, cost, and how many streams are held.

Recordings are played at speaking pace by a process of its own; what the figures mean is in
``tinyvoice/metrics.py`` and ``docs/benchmark.md``. Ctrl-C ends it with what was measured so far.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinyvoice.cli.options import Device, ModelName, ModelPrecision, Precision
from tinyvoice.cli.progress import Activity, hidden
from tinyvoice.cli.transcribe import load_model
from tinyvoice.errors import TinyvoiceError

if TYPE_CHECKING:
    from tinyvoice.benchmark.report import Record
    from tinyvoice.benchmark.speech import Clip
    from tinyvoice.benchmark.suite import Suite
    from tinyvoice.model.modeling import ASRModel

app = typer.Typer(add_completion=False)

_INTERRUPTED = 130

_MOST_SESSIONS = 4_096
_NEVER_OVERLOADED_S = 3_600

_NOT_OF_A_SERVER = {
    "api_key": "--api-key",
    "random_weights": "--random-weights",
    "partial_ms": "--partial-ms",
    "encoder": "--encoder",
    "endpointing": "--endpointing",
}
"""Options, by their parameters, that a server does not have."""

_OF_THIS_PROCESS = {
    "serve": "--serve",
    "model": "--model",
    "baseline": "--baseline",
    "soak": "--soak",
    "overload": "--overload",
    "pipecat": "--pipecat",
    "random_weights": "--random-weights",
    "shape": "--shape",
    "partial_ms": "--partial-ms",
    "encoder": "--encoder",
    "endpointing": "--endpointing",
    "device": "--device",
    "dtype": "--dtype",
    "threads": "--threads",
    "max_batch": "--max-batch",
}
"""Options that are about an engine in this process."""


class EncoderForm(StrEnum):
    """Forms of the incremental encoder."""

    AUTO = "auto"
    BLOCK = "block"
    WINDOW = "window"


class Endpointing(StrEnum):
    """What ends an utterance."""

    VAD = "vad"
    SEMANTIC = "semantic"


class Shape(StrEnum):
    """Shapes of random weights."""

    FULL = "full"
    MINIATURE = "miniature"


@app.command(
    epilog="How many streams this machine holds: tinyvoice bench --streams auto --baseline",
    context_settings={"help_option_names": ["-h", "--help"]},
)
def bench(
    context: typer.Context,
    model: ModelName = "embedded",
    single: Annotated[
        bool, typer.Option("--single/--no-single", help="Measure one stream.")
    ] = True,
    streams: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,…|auto",
            help="Measure so many streams at once; auto finds the most that are held.",
        ),
    ] = None,
    baseline: Annotated[
        bool,
        typer.Option(
            "--baseline", help="Measure the usual way too: the growing buffer transcribed anew."
        ),
    ] = False,
    overload: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            help="Load it with so many streams, while others ask; auto is twice what is held.",
        ),
    ] = None,
    soak: Annotated[
        int | None,
        typer.Option(
            metavar="MINUTES",
            min=2,
            help="Feed continuous talk as fast as it is processed: last minute against first.",
        ),
    ] = None,
    pipecat: Annotated[
        int | None,
        typer.Option(
            metavar="SAMPLES",
            min=1,
            help="Measure in a pipeline by the method of Pipecat's own benchmark.",
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Measure a running tinyvoice serve instead, through its Realtime sessions.",
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            envvar="TINYVOICE_API_KEY",
            show_envvar=True,
            help="Key of the server at --url.",
        ),
    ] = None,
    serve: Annotated[
        bool,
        typer.Option(
            "--serve",
            help="Start a server too: its sessions beside the streams of the engine alone.",
        ),
    ] = False,
    seconds: Annotated[
        float, typer.Option(min=2.0, help="Length of the runs of one stream.")
    ] = 60.0,
    stream_seconds: Annotated[
        float, typer.Option(min=2.0, help="Length of each run of --streams.")
    ] = 30.0,
    audio: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER|MANIFEST",
            help="Play these recordings instead of those that come along.",
        ),
    ] = None,
    packet_ms: Annotated[int, typer.Option(min=5, max=1000, help="Audio in a packet.")] = 20,
    pause_ms: Annotated[int, typer.Option(min=300, help="Silence between utterances.")] = 800,
    silence_ms: Annotated[
        int,
        typer.Option(min=32, max=2000, help="Silence that ends an utterance; Pipecat takes 200."),
    ] = 200,
    partial_ms: Annotated[
        int | None, typer.Option(min=32, max=10_000, help="Audio from one partial to the next.")
    ] = None,
    encoder: Annotated[
        EncoderForm, typer.Option(help="Form of the incremental encoder.")
    ] = EncoderForm.AUTO,
    endpointing: Annotated[
        Endpointing,
        typer.Option(help="What ends an utterance: silence, or whether it sounds finished."),
    ] = Endpointing.VAD,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.AUTO,
    dtype: ModelPrecision = Precision.AUTO,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of the model; chosen by its size.")
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Streams in one pass of the model.")] = 32,
    random_weights: Annotated[
        bool,
        typer.Option(
            "--random-weights", help="Random weights of the true shapes: speed without a download."
        ),
    ] = False,
    shape: Annotated[Shape, typer.Option(help="Shapes of the random weights.")] = Shape.FULL,
    seed: Annotated[int, typer.Option(help="Same seed, same order of utterances.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep the figures as JSON.")
    ] = None,
    kept: Annotated[
        list[Path] | None,
        typer.Option(
            "--from", metavar="FILE", help="Show figures kept by --save; nothing is measured."
        ),
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw the figures.")] = None,
    into: Annotated[
        Path | None,
        typer.Option(metavar="FILE.md", help="Write the tables between the marks of a document."),
    ] = None,
) -> None:
    """Measure streaming: latency, words, cost, and how many streams are held.

    One stream takes a minute. With --baseline and --streams auto it is some ten minutes, as with
    --serve.
    """
    if url is not None:
        _refuse(context, "--url", _OF_THIS_PROCESS)
    elif serve:
        _refuse(context, "--serve", _NOT_OF_A_SERVER)
        streams = streams or "auto"
    numbers = _numbers(streams)
    too_many = _too_many(overload)
    lost: TinyvoiceError | None = None
    if plot is not None:
        from tinyvoice.benchmark.report import check_plotting

        check_plotting()
    if into is not None:
        from tinyvoice.benchmark.report import read_around

        read_around(into)  # now, not after ten minutes
    if kept:
        from tinyvoice.benchmark.report import read_record

        records = [read_record(path) for path in kept]
    else:
        if not (single or streams or overload or soak or pipecat):
            raise typer.BadParameter("nothing is left to measure", param_hint="--no-single")
        run = {"packet_ms": packet_ms, "pause_ms": pause_ms, "seed": seed}
        place = {"device": device.value, "dtype": dtype.value}
        if url is not None:
            suite = _prepare_remote(url, api_key, audio=audio, run=run, silence_ms=silence_ms)
        else:
            if serve:
                from tinyvoice.benchmark.served import check_extra

                check_extra()
            suite = _prepare(
                model=model,
                audio=audio,
                random_weights=random_weights,
                shape=shape.value,
                place=place,
                engine={"encoder": encoder.value, "threads": threads, "max_batch": max_batch},
                most_streams=max([*(numbers or []), too_many or 0]),
                run=run,
                silence_ms=silence_ms,
                partial_ms=partial_ms,
                endpointing=endpointing.value,
                of_streams=bool(single or streams or overload or soak),
            )
        with _Progress() as progress:
            suite.say = progress.say
            if url is None:
                _measure(suite, single, seconds, streams, numbers, stream_seconds, baseline)
                if overload and not suite.stopped():
                    suite.measure_overload(too_many, stream_seconds)
                if soak and not suite.stopped():
                    suite.run_soak(soak)
                if pipecat and not suite.stopped():
                    suite.measure_pipecat(pipecat)
            if (url is not None or serve) and not suite.stopped():
                options = _server_options(model, place, threads, max_batch) if serve else None
                lost = _measure_server(
                    suite, options, seconds if single else None, bool(streams), numbers,
                    stream_seconds,
                )  # fmt: skip
        records = [suite.report.to_json()]
    if lost is None or _anything(records[0]):
        _deliver(records, as_json=as_json, save=save, plot=plot, into=into)
    if lost is not None:
        raise lost
    if any(record["interrupted"] for record in records) and not kept:
        raise typer.Exit(_INTERRUPTED)


def _measure(
    suite: Suite,
    single: bool,
    seconds: float,
    streams: str | None,
    numbers: list[int] | None,
    stream_seconds: float,
    baseline: bool,
) -> None:
    """Run the parts that are wanted, as long as nobody interrupts."""
    from tinyvoice.benchmark.suite import BASELINE, ENGINE

    if single:
        suite.measure_single(seconds, baseline)
        if baseline and not suite.stopped():
            suite.compare_compute(seconds)
    if streams:
        for kind in (ENGINE, BASELINE) if baseline else (ENGINE,):
            if not suite.stopped():
                suite.measure_streams(kind, numbers, stream_seconds)


def _measure_server(
    suite: Suite,
    own: list[str] | None,
    single_seconds: float | None,
    streams: bool,
    numbers: list[int] | None,
    stream_seconds: float,
) -> TinyvoiceError | None:
    """Measure the suite's server, or one that is started with the options ``own``.

    A server that goes away does not take with it what was measured before: the error is returned.
    """
    from functools import partial

    from tinyvoice.benchmark.remote import RemoteEngine, RemoteError
    from tinyvoice.benchmark.served import served
    from tinyvoice.benchmark.suite import SERVER, ServerNote

    try:
        with ExitStack() as stack:
            if own is not None:
                suite.say("starting the server", 0.0)
                address = stack.enter_context(served(own))
                suite.server = partial(RemoteEngine, address)
                suite.report.server = ServerNote("tinyvoice serve", own=True)
            if single_seconds is not None:
                suite.measure_server_single(single_seconds)
            if streams and not suite.stopped():
                suite.measure_streams(SERVER, numbers, stream_seconds)
    except RemoteError as error:
        return error
    except KeyboardInterrupt:  # while the server starts: what the engine showed is not lost
        suite.report.interrupted = True
    return None


def _server_options(
    model: str, place: dict[str, str], threads: int | None, max_batch: int
) -> list[str]:
    """Options of a server that is to hold what it can: the benchmark decides what that is."""
    options = {
        **place,
        "model": model,
        "max-batch": max_batch,
        "max-sessions": _MOST_SESSIONS,
        "refuse-partial-gap-s": _NEVER_OVERLOADED_S,
        "tts": "none",
        "drain-seconds": 0,
        "log-level": "warning",
    }
    if threads is not None:
        options["threads"] = threads
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def _anything(record: Record) -> bool:
    """Whether there are figures to show."""
    parts = ("single", "server_single", "compute", "overload", "soak", "pipecat")
    return any(record[part] for part in parts) or any(record["streams"].values())


def _prepare_remote(
    url: str, api_key: str | None, *, audio: Path | None, run: dict[str, Any], silence_ms: int
) -> Suite:
    """Load speech; the address is checked, and its server when it is measured."""
    from functools import partial

    from tinyvoice.benchmark.harness import RunSettings
    from tinyvoice.benchmark.remote import RemoteEngine
    from tinyvoice.benchmark.speech import bundled_speech, load_speech
    from tinyvoice.benchmark.suite import Suite, new_server_report
    from tinyvoice.engine.settings import EngineSettings

    engine = partial(RemoteEngine, url, api_key)
    clips = bundled_speech() if audio is None else load_speech(audio)
    settings = {**run, "silence_ms": silence_ms}
    report = new_server_report(engine().shown, _speech_note(clips, audio), settings)
    run_settings = RunSettings(stream={"silence_ms": silence_ms}, **run)
    suite = Suite(None, clips, EngineSettings(), run_settings, silence_ms / 1000, report)
    suite.server = engine
    return suite


def _refuse(context: typer.Context, option: str, others: dict[str, str]) -> None:
    """Say which options on the command line have no meaning beside another one."""
    for name, flag in others.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"it has no meaning beside {option}", param_hint=flag)


def _prepare(
    *,
    model: str,
    audio: Path | None,
    random_weights: bool,
    shape: str,
    place: dict[str, str],
    engine: dict[str, Any],
    most_streams: int,
    run: dict[str, Any],
    silence_ms: int,
    partial_ms: int | None,
    endpointing: str,
    of_streams: bool,
) -> Suite:
    """Load speech and model, check every setting.

    Without ``of_streams`` no stream of the engine is measured by itself, so that the record does
    not tell of settings that nothing was measured with.
    """
    from tinyvoice.benchmark.speech import bundled_speech, load_speech

    # What is heavy is imported once the speech is known to be there.
    clips = bundled_speech() if audio is None else load_speech(audio)
    from tinyvoice.benchmark.harness import RunSettings
    from tinyvoice.benchmark.suite import STREAMS_LIMIT, Suite, new_report
    from tinyvoice.engine.settings import EngineSettings, StreamSettings

    stream: dict[str, Any] = {"silence_ms": silence_ms}
    if endpointing != Endpointing.VAD:  # a server's sessions do not know it by this name
        stream["endpointing"] = endpointing
    if partial_ms is not None:
        stream["partial_interval_ms"] = partial_ms
    used = StreamSettings().changed(**stream)
    engine_settings = EngineSettings(
        max_streams=max(STREAMS_LIMIT, most_streams), freeze_objects=True, **engine
    )
    with Activity(f"Loading the model {model}"):
        loaded = _random_model(shape, **place) if random_weights else load_model(model, **place)
    settings: dict[str, Any] = {"max_batch": engine_settings.max_batch}
    if of_streams:
        names = ("endpointing", "silence_ms", "early_final_ms", "partial_interval_ms")
        settings = {**run, **{name: getattr(used, name) for name in names}, **settings}
    name = f"{shape} shapes" if random_weights else model
    note = _speech_note(clips, audio)
    report = new_report(
        loaded, name, note, engine_settings, settings, random_weights=random_weights
    )
    run_settings = RunSettings(stream=stream, **run)
    silence_s = silence_ms / 1000 if endpointing == Endpointing.VAD else None
    return Suite(loaded, clips, engine_settings, run_settings, silence_s, report)


def _random_model(shape: str, device: str, dtype: str) -> ASRModel:
    from tinyvoice.model.devices import choose
    from tinyvoice.model.random_weights import build_random_model

    where, precision = choose(device, dtype)
    return build_random_model(shape, dtype=precision, device=where)


def _speech_note(clips: list[Clip], audio: Path | None) -> str:
    what = "bundled, synthetic" if audio is None else _name_of(audio)
    total = sum(clip.duration for clip in clips)
    return f"{what}, {len(clips)} utterances, {total:.0f} s"


def _name_of(audio: Path) -> str:
    """What a set of recordings is called: its folder where the manifest has the usual name."""
    from tinyvoice.benchmark.speech import MANIFEST

    path = audio.resolve()
    return path.parent.name if path.name == MANIFEST else path.name


def _deliver(
    records: list[Record],
    *,
    as_json: bool,
    save: Path | None,
    plot: Path | None,
    into: Path | None,
) -> None:
    """Keep, show, draw and write down; figures are kept first, should a later step fail."""
    from tinyvoice.benchmark import report

    text = json.dumps(records[0] if len(records) == 1 else records, indent=2, ensure_ascii=False)
    if save is not None:
        try:
            save.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise TinyvoiceError(
                f"{save}: cannot be written ({error.strerror}); choose another --save."
            ) from error
    with hidden():
        if as_json:
            print(text, flush=True)
        else:
            from rich.console import Console

            for record in records:
                report.print_record(Console(highlight=False), record)
    if plot is not None:
        report.plot(records, plot)
    if into is not None:
        picture = None if plot is None else Path(os.path.relpath(plot, into.parent)).as_posix()
        report.write_into(into, report.markdown(records, picture))


def _numbers(streams: str | None) -> list[int] | None:
    """Numbers of streams, in order; None for ``auto`` and where none are asked for."""
    if streams is None or streams == "auto":
        return None
    try:
        numbers = sorted({int(part) for part in streams.split(",")})
    except ValueError:
        numbers = [0]
    if numbers[0] < 1:
        raise typer.BadParameter(
            f"{streams!r} is no list of numbers of streams: write 1,8,16 or auto",
            param_hint="--streams",
        )
    return numbers


def _too_many(overload: str | None) -> int | None:
    """Streams of an overload; None for ``auto`` and where none is asked for."""
    if overload is None or overload == "auto":
        return None
    if not overload.isdecimal() or not int(overload):
        raise typer.BadParameter(
            f"{overload!r} is no number of streams: write 24 or auto", param_hint="--overload"
        )
    return int(overload)


class _Progress:
    """A bar for each part of the benchmark."""

    def __init__(self) -> None:
        self._activity: Activity | None = None
        self._what = ""

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def say(self, what: str, share: float) -> None:
        """Show the part, and how much of it is over."""
        if what != self._what:
            self._close()
            self._what = what
            self._activity = Activity(what[:1].upper() + what[1:], total=1).__enter__()
        if self._activity is not None:
            self._activity.under_way(share)

    def _close(self) -> None:
        if self._activity is not None:
            self._activity.__exit__(None, None, None)
        self._activity = None
