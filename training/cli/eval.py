"""Measure a model: word error rates, digits, false words, word times, speed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tinyvoice.errors import ConfigurationError
from training.evaluation.evaluate import ModelTranscriber, Result, evaluate
from training.evaluation.report import Summary, print_summary, summarise, to_json, write_results
from training.evaluation.test_sets import (
    BUILT_IN,
    DATA_VARIABLE,
    MissingDataError,
    Request,
    TestSet,
    load_test_set,
)

SPEED = "speed"

app = typer.Typer(pretty_exceptions_enable=False)


@app.command(
    epilog="Test sets: "
    + ", ".join([*BUILT_IN, SPEED])
    + f". Their data lies in --data-dir ({DATA_VARIABLE}); no-speech and speed need none."
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
) -> None:
    """Transcribe test sets with a model and print how well it did."""
    names = [*BUILT_IN, SPEED] if "all" in data_sets else data_sets
    request = Request(data_dir, count, seed, split, configuration, audio_column, text_column)
    console, notes = Console(), Console(stderr=True)
    measured = 0
    for name in names:
        if name == SPEED:
            _measure_speed(model, console, output, as_json)
            measured += 1
            continue
        try:
            test_set = load_test_set(name, request)
        except MissingDataError as error:
            notes.print(f"[yellow]skipped {name}:[/yellow] {error}", soft_wrap=True)
            continue
        timed = test_set.name == "word-times"
        transcriber = ModelTranscriber(model, device, batch_size, word_timestamps=timed)
        results = _with_progress(test_set, transcriber, workers, notes)
        summary = summarise(test_set.name, test_set.title, model, results)
        _show(summary, results, console, output, as_json)
        measured += 1
    if not measured:
        raise typer.Exit(1)


def _with_progress(
    test_set: TestSet, transcriber: ModelTranscriber, workers: int, console: Console
) -> list[Result]:
    if not test_set.examples:
        raise ConfigurationError(f"The test set {test_set.name} holds no utterance.", key="dataset")
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
        return evaluate(
            test_set.examples,
            transcriber,
            workers=workers,
            progress=lambda done: progress.advance(bar, done),
        )


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
