"""Look into the errors of an evaluation: worst utterances, entities, two models compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from training.evaluation.analysis import (
    Change,
    Comparison,
    alignment,
    compare_results,
    entity_errors,
    high_error_utterances,
)
from training.evaluation.evaluate import Result
from training.evaluation.report import read_results
from training.evaluation.results_table import (
    BEGIN,
    END,
    VOICES_BEGIN,
    VOICES_END,
    figures_table,
    replace_table,
    voices_table,
)
from training.evaluation.streamed_report import BEGIN as STREAMED_BEGIN
from training.evaluation.streamed_report import END as STREAMED_END
from training.evaluation.streamed_report import read_streamed, streamed_table

app = typer.Typer(
    help="Look into the errors of an evaluation.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Results = Annotated[
    Path, typer.Argument(help="What `tinyvoice eval -o` wrote: its folder, or a .jsonl file in it.")
]
Limit = Annotated[int, typer.Option("-n", min=1, help="Show at most so many.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("high-wer")
def high_wer(
    results: Results,
    threshold: Annotated[
        float, typer.Option(min=0.0, help="Word error rate from which on utterances are shown.")
    ] = 0.5,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """Show the utterances that went worst, with what differs marked."""
    every = read_results(results)
    bad = high_error_utterances(every, threshold)
    if as_json:
        _print_json([_utterance(result) for result in bad[:limit]])
        return
    console = Console()
    share = len(bad) / len(every) if every else 0.0
    console.print(f"{len(bad)} of {len(every)} utterances ({share:.1%}) reach {threshold:.0%} WER")
    for result in bad[:limit]:
        group = f", {result.group}" if result.group else ""
        console.print(f"\n[bold]{result.errors.rate:.0%}[/bold] [dim]{result.name}{group}[/dim]")
        reference, hypothesis = _marked(result)
        console.print(f"  said   {reference}", soft_wrap=True)
        console.print(f"  wrote  {hypothesis}", soft_wrap=True)


@app.command("entity-errors")
def entities(results: Results, limit: Limit = 4, as_json: AsJson = False) -> None:
    """Show how often numbers, dates, times, money, letters and rare words were missed."""
    found = entity_errors(read_results(results))
    if as_json:
        _print_json(
            [
                {
                    "entity": entity.entity,
                    "words": entity.words,
                    "missed": entity.missed,
                    "confusions": entity.confusions[:limit],
                }
                for entity in found
            ]
        )
        return
    table = Table("entity", header_style="dim")
    for heading in ("words", "missed", "rate"):
        table.add_column(heading, justify="right")
    table.add_column("most often")
    for entity in found:
        confusions = ", ".join(
            f"{said} → {wrote or '∅'} ({count})" for said, wrote, count in entity.confusions[:limit]
        )
        row = [str(entity.words), str(entity.missed), f"{entity.rate:.1%}", escape(confusions)]
        table.add_row(entity.entity, *row)
    Console().print(table)


@app.command("compare")
def compare(first: Results, second: Results, limit: Limit = 10, as_json: AsJson = False) -> None:
    """Compare two evaluations of the same test set, utterance by utterance."""
    comparison = compare_results(read_results(first), read_results(second))
    if as_json:
        _print_json(_comparison(comparison, limit))
        return
    console = Console()
    low, high = comparison.interval
    difference = comparison.second.rate - comparison.first.rate
    verdict = "differ" if comparison.significant else "may be equal"
    console.print(
        f"{comparison.utterances} utterances: {comparison.first.rate:.2%} → "
        f"[bold]{comparison.second.rate:.2%}[/bold] WER, {difference * 100:+.2f} points "
        f"(95 % interval {low * 100:+.2f} to {high * 100:+.2f}): they {verdict}"
    )
    for title, changes in (("better", comparison.better), ("worse", comparison.worse)):
        console.print(f"\n[bold]{len(changes)} {title}[/bold]")
        for change in changes[:limit]:
            _print_change(console, change)


@app.command("table")
def table(
    results: Annotated[Path, typer.Argument(help="Folder that `tinyvoice eval -o` wrote.")],
    into: Annotated[
        list[Path] | None,
        typer.Option(help="Document whose table of figures is replaced; may be repeated."),
    ] = None,
) -> None:
    """Print the figures as a Markdown table, or put it into documents.

    Streamed evaluations and the voices kept out of training have tables of their own, for documents
    that have a place for them.
    """
    streamed = read_streamed(results)
    offline = any(results.glob("*.json")) or not streamed
    tables = {BEGIN: (figures_table(results), END)} if offline else {}
    if voices := voices_table(results):
        tables[VOICES_BEGIN] = (voices, VOICES_END)
    if streamed:
        tables[STREAMED_BEGIN] = (streamed_table(streamed), STREAMED_END)
    if not into:
        print("\n\n".join(table for table, _ in tables.values()))
    for document in into or []:
        text = document.read_text(encoding="utf-8")
        for begin, (table, end) in tables.items():
            if begin == BEGIN or begin in text:
                text = replace_table(text, table, begin, end)
        document.write_text(text, encoding="utf-8")


def _print_change(console: Console, change: Change) -> None:
    console.print(f"  {change.gain:+d} [dim]{change.first.name}[/dim]")
    console.print(f"     said   {escape(change.first.reference)}", soft_wrap=True)
    console.print(f"     first  {_marked(change.first)[1]}", soft_wrap=True)
    console.print(f"     second {_marked(change.second)[1]}", soft_wrap=True)


def _marked(result: Result) -> tuple[str, str]:
    """Reference and hypothesis with the words that differ in colour."""
    said, wrote = [], []
    for step in alignment(result):
        right = step.kind == "equal"
        if step.reference is not None:
            word = escape(step.reference)
            said.append(word if right else f"[green]{word}[/green]")
        if step.hypothesis is not None:
            word = escape(step.hypothesis)
            wrote.append(word if right else f"[red]{word}[/red]")
    return " ".join(said), " ".join(wrote) or "[dim](nothing)[/dim]"


def _utterance(result: Result) -> dict[str, object]:
    return {
        "name": result.name,
        "group": result.group,
        "wer": round(result.errors.rate, 5),
        "reference": result.reference,
        "hypothesis": result.hypothesis,
    }


def _comparison(comparison: Comparison, limit: int) -> dict[str, object]:
    def listed(changes: list[Change]) -> list[dict[str, object]]:
        return [
            {
                "name": change.first.name,
                "gain": change.gain,
                "reference": change.first.reference,
                "first": change.first.hypothesis,
                "second": change.second.hypothesis,
            }
            for change in changes[:limit]
        ]

    return {
        "utterances": comparison.utterances,
        "first_wer": round(comparison.first.rate, 5),
        "second_wer": round(comparison.second.rate, 5),
        "difference_interval": [round(bound, 5) for bound in comparison.interval],
        "better": len(comparison.better),
        "worse": len(comparison.worse),
        "greatest_gains": listed(comparison.better),
        "greatest_losses": listed(comparison.worse),
    }


def _print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))
