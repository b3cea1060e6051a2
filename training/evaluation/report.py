"""Figures of an evaluation: summaries, tables for people, JSON for programs, files for later.

A test set leaves two files in the output folder: ``NAME.json``, its summary, and ``NAME.jsonl``,
one line for each utterance with reference, hypothesis and errors. `training.evaluation.analysis`
reads the second.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tinyvoice.errors import ManifestError
from training.evaluation.evaluate import Result
from training.evaluation.wer import WordErrors, bootstrap_interval, total_errors
from training.evaluation.word_times import MatchedWord, TimeErrors, time_errors

SHOWN_REASONS = 5
"""Of what could not be measured; the files have them all."""


@dataclass(frozen=True)
class Figures:
    """The figures of a set of utterances, or of one group of it."""

    name: str
    utterances: int
    audio_seconds: float
    errors: WordErrors
    exact: int
    """Utterances without any error."""
    with_words: int
    """Utterances for which the model wrote any word."""


@dataclass(frozen=True)
class Summary:
    """All figures of one test set."""

    test_set: str
    title: str
    model: str
    all: Figures
    interval: tuple[float, float]
    """95 % interval of the word error rate."""
    groups: list[Figures]
    """By voice, speaker or kind of sound; empty where there is one only."""
    word_times: TimeErrors | None
    processing_seconds: float
    skipped: list[str]
    """Why utterances could not be measured, one sentence for each."""


def summarise(test_set: str, title: str, model: str, results: Sequence[Result]) -> Summary:
    """Work out the figures of a test set."""
    measured = [result for result in results if result.error is None]
    names = sorted({result.group for result in measured})
    groups = [
        _figures(name, [result for result in measured if result.group == name]) for name in names
    ]
    return Summary(
        test_set=test_set,
        title=title,
        model=model,
        all=_figures("all", measured),
        interval=bootstrap_interval([result.errors for result in measured]),
        groups=groups if len(groups) > 1 else [],
        word_times=time_errors(word for result in measured for word in result.matched_words),
        processing_seconds=sum(result.processing for result in measured),
        skipped=[f"{r.name}: {r.error}" for r in results if r.error is not None],
    )


def _figures(name: str, results: Sequence[Result]) -> Figures:
    return Figures(
        name=name,
        utterances=len(results),
        audio_seconds=sum(result.duration for result in results),
        errors=total_errors(result.errors for result in results),
        exact=sum(result.errors.total == 0 for result in results),
        with_words=sum(
            result.errors.words - result.errors.deletions + result.errors.insertions > 0
            for result in results
        ),
    )


def to_json(summary: Summary) -> dict[str, Any]:
    """Return a summary as the object `--json` prints and ``NAME.json`` holds."""
    return {
        "test_set": summary.test_set,
        "title": summary.title,
        "model": summary.model,
        **_figures_json(summary.all),
        "wer_interval": [round(bound, 5) for bound in summary.interval],
        "word_times": None if summary.word_times is None else asdict(summary.word_times),
        "processing_seconds": round(summary.processing_seconds, 3),
        "skipped": summary.skipped,
        "groups": {group.name: _figures_json(group) for group in summary.groups},
    }


def _figures_json(figures: Figures) -> dict[str, Any]:
    errors = figures.errors
    return {
        "utterances": figures.utterances,
        "audio_seconds": round(figures.audio_seconds, 2),
        "words": errors.words,
        "substitutions": errors.substitutions,
        "insertions": errors.insertions,
        "deletions": errors.deletions,
        # Without reference words there is no rate: what counts is whether anything was heard.
        "wer": round(errors.rate, 5) if errors.words else None,
        "exact": round(figures.exact / figures.utterances, 5) if figures.utterances else None,
        "utterances_with_words": figures.with_words,
    }


def write_results(folder: Path, summary: Summary, results: Iterable[Result]) -> Path:
    """Write ``NAME.json`` and ``NAME.jsonl`` into ``folder`` and return the path of the second."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(to_json(summary), indent=2, ensure_ascii=False)
    (folder / f"{summary.test_set}.json").write_text(text + "\n", encoding="utf-8")
    path = folder / f"{summary.test_set}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for result in results:
            file.write(json.dumps(_result_json(result), ensure_ascii=False) + "\n")
    return path


def _result_json(result: Result) -> dict[str, Any]:
    record = asdict(result)
    record["errors"] = asdict(result.errors)
    record["matched_words"] = [
        [word.text, round(word.start_error, 4), round(word.end_error, 4)]
        for word in result.matched_words
    ]
    for key in ("duration", "processing", "confidence"):
        record[key] = round(record[key], 4)
    return record


def read_results(path: Path) -> list[Result]:
    """Read a ``.jsonl`` file of results, or all of a folder.

    Raises ManifestError where there is none or a line is broken.
    """
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise ManifestError(
            f"{path} holds no results: give a folder that `tinyvoice eval -o` wrote, or a .jsonl "
            "file in it.",
            path=str(path),
        )
    results = []
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                results.append(_parse_result(json.loads(line)))
            except (ValueError, TypeError, KeyError) as error:
                raise ManifestError(
                    f"{file}:{number}: not a result of `tinyvoice eval` ({error}); evaluate again.",
                    path=str(file),
                    line=number,
                ) from error
    return results


def _parse_result(record: dict[str, Any]) -> Result:
    words = tuple(MatchedWord(*word) for word in record.pop("matched_words"))
    return Result(errors=WordErrors(**record.pop("errors")), matched_words=words, **record)


# Tables --------------------------------------------------------------------------------------


def print_summary(console: Console, summary: Summary) -> None:
    """Print what belongs to the test set: error rates, words heard in noise, word times."""
    console.print(f"\n[bold]{summary.title}[/bold]  [dim]{summary.test_set}, {summary.model}[/dim]")
    figures = summary.all
    if not figures.utterances:
        console.print("[yellow]Nothing could be measured.[/yellow]")
    elif figures.errors.words:
        console.print(_error_table(summary))
    else:
        console.print(_non_speech_table(summary))
    if summary.word_times is not None:
        console.print(_word_time_table(summary.word_times))
    if summary.skipped:
        console.print(f"[yellow]{len(summary.skipped)} not measured:[/yellow]")
    for reason in summary.skipped[:SHOWN_REASONS]:
        console.print(f"  {reason}", soft_wrap=True, markup=False)
    if len(summary.skipped) > SHOWN_REASONS:
        console.print(f"  [yellow]and {len(summary.skipped) - SHOWN_REASONS} more[/yellow]")


def _error_table(summary: Summary) -> Table:
    table = _table("clips", "words", "WER", "S/I/D", "all right")
    for group in summary.groups:
        table.add_row(*_error_row(group))
    if summary.groups:
        table.add_section()
    table.add_row(*_error_row(summary.all), style="bold")
    low, high = summary.interval
    table.caption = f"95 % interval of the WER: {low:.2%} to {high:.2%}"
    return table


def _table(*headings: str) -> Table:
    """A table of figures that keeps names and numbers whole in a window of 80 columns."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="dim")
    table.add_column("", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _error_row(figures: Figures) -> list[str]:
    errors = figures.errors
    return [
        figures.name,
        f"{figures.utterances:,}",
        f"{errors.words:,}",
        f"{errors.rate:.1%}",
        f"{errors.substitutions}/{errors.insertions}/{errors.deletions}",
        f"{figures.exact / figures.utterances:.1%}",
    ]


def _non_speech_table(summary: Summary) -> Table:
    table = _table("clips", "minutes", "clips with words", "words heard")
    for group in [*summary.groups, summary.all]:
        if group is summary.all:
            table.add_section()
        table.add_row(
            group.name,
            str(group.utterances),
            f"{group.audio_seconds / 60:.1f}",
            str(group.with_words),
            str(group.errors.insertions),
            style="bold" if group is summary.all else None,
        )
    return table


def _word_time_table(times: TimeErrors) -> Table:
    table = _table("matched words", "median error", "95th percentile")
    rows = [
        ("starts", times.start_median_ms, times.start_p95_ms),
        ("ends", times.end_median_ms, times.end_p95_ms),
        ("both", times.median_ms, times.p95_ms),
    ]
    for name, median, p95 in rows:
        style = "bold" if name == "both" else None
        table.add_row(name, f"{times.words:,}", f"{median:.0f} ms", f"{p95:.0f} ms", style=style)
    return table
