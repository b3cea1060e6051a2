"""Measure a model, offline or streamed: word error rates, false words, word times, speed."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tinyvoice.cli.options import LoadInt8, ModelPrecision, Precision
from tinyvoice.errors import ConfigurationError
from training.evaluation.edge_sets import EDGE_SETS
from training.evaluation.evaluate import ModelTranscriber, Result, evaluate
from training.evaluation.report import Summary, print_summary, summarise, to_json, write_results
from training.evaluation.streamed_report import (
    print_streamed,
    streamed_json,
    summarise_streamed,
    write_streamed,
)
from training.evaluation.test_sets import (
    BUILT_IN,
    DATA_VARIABLE,
    NON_SPEECH_SECONDS,
    MissingDataError,
    Request,
    TestSet,
    load_test_set,
)

if TYPE_CHECKING:
    from tinyvoice.model.modeling import ASRModel
    from training.evaluation.streaming import StreamingPlan

SPEED = "speed"


class Encoder(StrEnum):
    """Forms of the incremental encoder."""

    AUTO = "auto"
    BLOCK = "block"
    WINDOW = "window"


class Arrival(StrEnum):
    """How packets come."""

    STEADY = "steady"
    BURSTS = "bursts"


class OnError(StrEnum):
    """What a broken line does."""

    RAISE = "raise"
    SKIP = "skip"


class Endpointing(StrEnum):
    """What ends an utterance."""

    MANUAL = "manual"
    VAD = "vad"


app = typer.Typer(pretty_exceptions_enable=False)


@app.command(
    epilog="Test sets: "
    + ", ".join([*BUILT_IN, SPEED])
    + f". Their data lies in --data-dir ({DATA_VARIABLE}); no-speech and speed need none. "
    + f"Made for --stream, without data: {', '.join(EDGE_SETS)}."
)
def evaluate_command(
    data_sets: Annotated[
        list[str],
        typer.Option(
            "-d",
            "--dataset",
            help="Built-in test set, 'all' of them, a manifest (.jsonl), a folder with "
            "transcripts.tsv, or the id of a Hub data set. May be given several times.",
        ),
    ],
    model: Annotated[
        str, typer.Option("-m", "--model", help="Name, folder or Hub id of a checkpoint.")
    ] = "embedded",
    count: Annotated[
        int | None,
        typer.Option("-n", "--count", min=1, help="At most so many utterances of each set."),
    ] = None,
    workers: Annotated[int, typer.Option("-w", "--workers", min=1, help="Worker processes.")] = 1,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Folder for figures and hypotheses: NAME.json and NAME.jsonl."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print figures as JSON, one line for each set.")
    ] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(envvar=DATA_VARIABLE, help="Folder with the data of the built-in sets."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    dtype: ModelPrecision = Precision.AUTO,
    int8: LoadInt8 = False,
    on_error: Annotated[
        OnError,
        typer.Option(
            help="What a broken line of a manifest or of transcripts.tsv does: raise stops, skip "
            "leaves it out and counts it."
        ),
    ] = OnError.RAISE,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips transcribed at once.")] = 16,
    seed: Annotated[int, typer.Option(help="Draws utterances, voices and sounds.")] = 0,
    split: Annotated[str, typer.Option(help="Split of a Hub data set.")] = "test",
    configuration: Annotated[
        str | None, typer.Option("--config", help="Configuration of a Hub data set.")
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(help="Column of transcripts in a Hub data set.")
    ] = None,
    audio_column: Annotated[str, typer.Option(help="Column of audio in it.")] = "audio",
    seconds: Annotated[
        float, typer.Option(min=10.0, help="Seconds of each kind of sound in no-speech.")
    ] = NON_SPEECH_SECONDS,
    stream: Annotated[
        bool,
        typer.Option(
            "--stream",
            help="Play the utterances into the streaming engine, in packets of random sizes, and "
            "compare with offline transcripts.",
        ),
    ] = False,
    streams: Annotated[
        int, typer.Option(min=1, max=1000, help="With --stream: utterances played at once.")
    ] = 8,
    encoder: Annotated[
        Encoder, typer.Option(help="With --stream: the incremental encoder; auto suits the model.")
    ] = Encoder.AUTO,
    endpointing: Annotated[
        Endpointing,
        typer.Option(
            help="With --stream: manual plays the clips as they are; vad puts silence around them "
            "and lets voice activity detection find them."
        ),
    ] = Endpointing.MANUAL,
    arrival: Annotated[
        Arrival,
        typer.Option(
            help="With --stream: steady sends a packet when the one before has been processed; "
            "bursts sends several together at random times, so that partials thin out."
        ),
    ] = Arrival.STEADY,
) -> None:
    """Transcribe test sets with a model and print how well it did."""
    names = [*BUILT_IN, SPEED] if "all" in data_sets else data_sets
    request = Request(
        data_dir,
        count,
        seed,
        split,
        configuration,
        audio_column,
        text_column,
        seconds,
        on_error.value,
    )
    console, notes = Console(), Console(stderr=True)
    measured = 0
    loaded, plan = None, None
    if stream:
        loaded = _load(model, device, dtype, int8)
        plan = _plan(streams, encoder, endpointing, seed, batch_size, arrival)
    for name in names:
        if name == SPEED:
            if stream:
                notes.print(f"[yellow]skipped {name}:[/yellow] tinyvoice bench measures it")
                continue
            if int8 or dtype is not Precision.AUTO:
                notes.print(
                    f"[yellow]skipped {name}:[/yellow] it measures the model as it is loaded "
                    "without --int8 and --dtype",
                    soft_wrap=True,
                )
                continue
            _measure_speed(model, console, output, as_json)
            measured += 1
            continue
        try:
            test_set = load_test_set(name, request)
        except MissingDataError as error:
            notes.print(f"[yellow]skipped {name}:[/yellow] {error}", soft_wrap=True)
            continue
        if loaded is not None and plan is not None:
            measured += _stream(test_set, model, loaded, plan, console, output, as_json)
            continue
        timed = test_set.name == "word-times"
        transcriber = ModelTranscriber(model, device, batch_size, timed, dtype.value, int8)
        results = _with_progress(test_set, transcriber, workers, notes)
        summary = summarise(test_set.name, test_set.title, model, results)
        summary = replace(summary, skipped=[*test_set.broken, *summary.skipped])
        _show(summary, results, console, output, as_json)
        measured += summary.all.utterances
    if not measured:
        raise typer.Exit(1)


def _with_progress(
    test_set: TestSet, transcriber: ModelTranscriber, workers: int, console: Console
) -> list[Result]:
    with _progress(test_set, console) as advance:
        return evaluate(test_set.examples, transcriber, workers=workers, progress=advance)


@contextmanager
def _progress(test_set: TestSet, console: Console) -> Iterator[Callable[[int], None]]:
    """A bar of the test set's examples, on a terminal; gives what moves it on."""
    if not test_set.examples:
        left_out = f" ({len(test_set.broken)} broken lines left out)" if test_set.broken else ""
        raise ConfigurationError(
            f"The test set {test_set.name} holds no utterance{left_out}.", key="dataset"
        )
    columns = (
        TextColumn(test_set.name),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        bar = progress.add_task("", total=len(test_set.examples))
        yield lambda done: progress.advance(bar, done)


def _plan(
    streams: int,
    encoder: Encoder,
    endpointing: Endpointing,
    seed: int,
    batch_size: int,
    arrival: Arrival,
) -> StreamingPlan:
    from training.evaluation.streaming import StreamingPlan

    return StreamingPlan(streams, encoder.value, endpointing.value, seed, batch_size, arrival.value)


def _load(model: str, device: str, dtype: Precision, int8: bool) -> ASRModel:
    from tinyvoice.model.modeling import ASRModel

    loaded: ASRModel = ASRModel.from_pretrained(
        model, device=device, dtype=dtype.value, load_in_8bit=int8
    )
    return loaded


def _stream(
    test_set: TestSet,
    model: str,
    loaded: ASRModel,
    plan: StreamingPlan,
    console: Console,
    output: Path | None,
    as_json: bool,
) -> int:
    """Play a test set into the engine, show how well it went, and return how many it measured."""
    from training.evaluation.streaming import evaluate_streamed

    with _progress(test_set, Console(stderr=True)) as advance:
        evaluation = asyncio.run(
            evaluate_streamed(test_set.examples, loaded, plan, progress=advance)
        )
    summary = summarise_streamed(test_set.name, test_set.title, model, plan, evaluation)
    summary = replace(summary, skipped=[*test_set.broken, *summary.skipped])
    if output is not None:
        path = write_streamed(output, summary, evaluation.results)
    if as_json:
        print(json.dumps(streamed_json(summary), ensure_ascii=False), flush=True)
        return summary.utterances
    print_streamed(console, summary)
    if output is not None:
        console.print(f"[dim]utterances in {os.fspath(path)}[/dim]", soft_wrap=True)
    return summary.utterances


def _show(
    summary: Summary,
    results: list[Result],
    console: Console,
    output: Path | None,
    as_json: bool,
) -> None:
    if output is not None:
        path = write_results(output, summary, results)
    if as_json:
        print(json.dumps(to_json(summary), ensure_ascii=False), flush=True)
        return
    print_summary(console, summary)
    if output is not None:
        console.print(f"[dim]hypotheses in {os.fspath(path)}[/dim]", soft_wrap=True)


def _measure_speed(model: str, console: Console, output: Path | None, as_json: bool) -> None:
    from training.evaluation.speed import measure_speed, print_speed, write_speed

    speed = measure_speed(model)
    if output is not None:
        write_speed(output, speed)
    if as_json:
        print(json.dumps(speed.to_json()), flush=True)
    else:
        print_speed(console, speed)
