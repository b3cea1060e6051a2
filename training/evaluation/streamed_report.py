"""Figures of a streamed evaluation: summaries, tables for people, JSON, a table for the documents.

A test set leaves two files in the folder ``streamed`` of the output folder, named after the set and
how it was played: a ``.json`` with the figures, and a ``.jsonl`` with one line for each utterance.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tinyvoice import metrics
from tinyvoice.errors import ManifestError
from training.evaluation.splits import NEAR_S, SplitErrors
from training.evaluation.wer import WordErrors

if TYPE_CHECKING:
    from training.evaluation.streaming import Evaluation, StreamedResult, StreamingPlan

FOLDER = "streamed"

BEGIN = "<!-- streamed: written by `tinyvoice analyse table` -->"
END = "<!-- end of streamed -->"


@dataclass(frozen=True)
class StreamedSummary:
    """Figures of one test set, played in one way. Rates and shares are None where nothing counts
    for them; seconds are on the audio clock."""

    test_set: str
    title: str
    model: str
    streams: int
    encoder: str
    endpointing: str
    utterances: int
    audio_seconds: float
    equal: int
    ties: int
    different: int
    words: int
    """Of the references."""
    words_heard: int
    wer_streamed: float | None
    wer_offline: float | None
    delta_wer: metrics.PairedDifference | None
    stable_prefix_rate: float | None
    revision_rate: float | None
    first_stable_word: metrics.Distribution | None
    first_partial: metrics.Distribution | None
    partials_per_second: float
    lost_at_beginning: int | None
    """Words of clips that were cut or padded; None where none were."""
    lost_at_end: int | None
    changed_within: int | None
    lost_offline: int | None
    """Words that offline transcripts of the same clips lost at both edges."""
    arrival: str
    splits: SplitErrors | None
    """Words lost and added where utterances were cut for their length; None where none were."""
    processor_seconds: float
    skipped: list[str]
    """Why utterances could not be measured, one sentence for each."""


def summarise_streamed(
    test_set: str, title: str, model: str, plan: StreamingPlan, evaluation: Evaluation
) -> StreamedSummary:
    """Work out the figures of a test set."""
    measured = [result for result in evaluation.results if result.error is None]
    records = [record for result in measured for record in result.records]
    streamed = [_in_metrics(result.errors) for result in measured]
    offline = [_in_metrics(result.offline_errors) for result in measured]
    offline_edges = [r.offline_edges for r in measured if r.offline_edges is not None]
    edges = [result.edges for result in measured if result.edges is not None]
    splits = [result.splits for result in measured if result.splits is not None]
    seconds = sum(result.duration for result in measured)
    verdicts = [result.verdict for result in measured]
    return StreamedSummary(
        test_set=test_set,
        title=title,
        model=model,
        streams=plan.streams,
        encoder=plan.encoder,
        endpointing=plan.endpointing,
        utterances=len(measured),
        audio_seconds=seconds,
        equal=verdicts.count("equal"),
        ties=verdicts.count("tie"),
        different=verdicts.count("different"),
        words=sum(errors.words for errors in streamed),
        words_heard=sum(len(result.streamed.split()) for result in measured),
        wer_streamed=metrics.word_error_rate(streamed),
        wer_offline=metrics.word_error_rate(offline),
        delta_wer=metrics.delta_wer(streamed, offline) if measured else None,
        stable_prefix_rate=metrics.stable_prefix_rate(records),
        revision_rate=metrics.revision_rate(records),
        first_stable_word=metrics.distribution(map(metrics.first_stable_word, records)),
        first_partial=metrics.distribution(map(metrics.first_partial, records)),
        partials_per_second=sum(r.partials for r in measured) / seconds if seconds else 0.0,
        lost_at_beginning=sum(e.lost_at_beginning for e in edges) if edges else None,
        lost_at_end=sum(e.lost_at_end for e in edges) if edges else None,
        changed_within=sum(e.changed for e in edges) if edges else None,
        lost_offline=sum(e.lost_at_beginning + e.lost_at_end for e in offline_edges)
        if edges
        else None,
        arrival=plan.arrival,
        splits=sum(splits, SplitErrors()) if splits else None,
        processor_seconds=evaluation.processor_seconds,
        skipped=[f"{r.name}: {r.error}" for r in evaluation.results if r.error is not None],
    )


def _in_metrics(errors: WordErrors) -> metrics.WordErrors:
    return metrics.WordErrors(errors.total, errors.words)


# Files and JSON ------------------------------------------------------------------------------


def streamed_json(summary: StreamedSummary) -> dict[str, Any]:
    """Return a summary as the object that `--json` prints and the ``.json`` file holds."""
    return {key: _rounded(value) for key, value in asdict(summary).items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return value


def write_streamed(
    folder: Path, summary: StreamedSummary, results: Iterable[StreamedResult]
) -> Path:
    """Write both files below ``folder`` and return the path of the ``.jsonl`` file."""
    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    name = f"{summary.test_set}-{summary.endpointing}-{summary.encoder}-{summary.streams}"
    if summary.arrival != "steady":
        name += f"-{summary.arrival}"
    text = json.dumps(streamed_json(summary), indent=2, ensure_ascii=False)
    (target / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    path = target / f"{name}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for result in results:
            file.write(json.dumps(_result_json(result), ensure_ascii=False) + "\n")
    return path


def _result_json(result: StreamedResult) -> dict[str, Any]:
    stable = [first for first in map(metrics.first_stable_word, result.records) if first]
    return {
        "name": result.name,
        "group": result.group,
        "verdict": result.verdict,
        "margin": _rounded(result.margin),
        "reference": result.reference,
        "streamed": result.streamed,
        "offline": result.offline,
        "errors": asdict(result.errors),
        "offline_errors": asdict(result.offline_errors),
        "duration": round(result.duration, 4),
        "speech_starts": result.speech_starts,
        "partials": result.partials,
        "stable_held": all(map(metrics.stable_is_prefix, result.records)),
        "revised_words": sum(map(metrics.revised_words, result.records)),
        "first_stable_word": round(stable[0], 3) if stable else None,
        "edges": None if result.edges is None else asdict(result.edges),
        "offline_edges": None if result.offline_edges is None else asdict(result.offline_edges),
        "splits": None if result.splits is None else asdict(result.splits),
        "error": result.error,
    }


def read_streamed(folder: Path) -> list[dict[str, Any]]:
    """The figures that `tinyvoice eval --stream -o` left below ``folder``, if any.

    Raises ManifestError where a file is broken.
    """
    figures = []
    for path in sorted((folder / FOLDER).glob("*.json")):
        try:
            summary = json.loads(path.read_text(encoding="utf-8"))
            summary["test_set"], summary["equal"]
        except (ValueError, TypeError, KeyError) as error:
            raise ManifestError(
                f"{path} is no summary of `tinyvoice eval --stream` ({error}): evaluate again.",
                path=str(path),
            ) from error
        figures.append(summary)
    return figures


# Tables --------------------------------------------------------------------------------------


def print_streamed(console: Console, summary: StreamedSummary) -> None:
    """Print the figures of a test set."""
    played = f"{summary.endpointing} endpointing, encoder {summary.encoder}"
    if summary.arrival != "steady":
        played += f", in {summary.arrival}"
    console.print(
        f"\n[bold]{summary.title}[/bold]  [dim]{summary.test_set}, {summary.model}, {played}, "
        f"{summary.streams} at once[/dim]"
    )
    if summary.utterances:
        table = Table(box=SIMPLE_HEAD, pad_edge=False, show_header=False)
        table.add_column("", no_wrap=True)
        table.add_column("", justify="right", no_wrap=True)
        for name, value in _rows(summary):
            table.add_row(name, value)
        console.print(table)
    else:
        console.print("[yellow]Nothing could be measured.[/yellow]")
    for reason in summary.skipped[:5]:
        console.print(f"[yellow]not measured:[/yellow] {reason}", soft_wrap=True)
    if len(summary.skipped) > 5:
        console.print(f"[yellow]and {len(summary.skipped) - 5} more[/yellow]")


def _rows(summary: StreamedSummary) -> list[tuple[str, str]]:
    titles = {name: metric.title for name, metric in metrics.METRICS.items()}
    rows = [
        ("utterances", f"{summary.utterances:,} ({summary.audio_seconds / 60:.1f} minutes)"),
        ("equal to offline", f"{summary.equal:,}"),
        ("ties of the two best tokens", f"{summary.ties:,}"),
        ("different", f"{summary.different:,}"),
    ]
    if summary.delta_wer is not None:
        delta = summary.delta_wer
        rows += [
            (titles["wer_streamed"], f"{summary.wer_streamed:.2%}"),
            (titles["wer_offline"], f"{summary.wer_offline:.2%}"),
            (
                titles["delta_wer"],
                f"{delta.value * 100:+.2f} points ({delta.low * 100:+.2f} to "
                f"{delta.high * 100:+.2f})",
            ),
        ]
    if not summary.words:
        rows.append(("words heard", f"{summary.words_heard:,}"))
    if summary.lost_at_beginning is not None:
        rows += [
            ("words lost at the beginning", f"{summary.lost_at_beginning:,}"),
            ("words lost at the end", f"{summary.lost_at_end:,}"),
            ("words lost at the edges offline", f"{summary.lost_offline:,}"),
            ("words changed or lost within", f"{summary.changed_within:,}"),
        ]
    if (splits := summary.splits) is not None:
        near, far = splits.near_words, splits.far_words
        rows += [
            ("cuts for length", f"{splits.splits:,}"),
            (f"words lost within {NEAR_S:g} s of a cut", _of(splits.near_lost, near)),
            ("words lost elsewhere", _of(splits.far_lost, far)),
            (f"words added within {NEAR_S:g} s of a cut", _of(splits.near_added, near)),
            ("words added elsewhere", _of(splits.far_added, far)),
        ]
    if summary.revision_rate is not None:
        rows += [
            (titles["stable_prefix_rate"], f"{summary.stable_prefix_rate:.2%}"),
            (titles["revision_rate"], f"{summary.revision_rate:.3f} words per word"),
        ]
    for name, spread in (
        ("first_stable_word", summary.first_stable_word),
        ("first_partial", summary.first_partial),
    ):
        if spread is not None:
            rows.append((titles[name], f"{spread.p50:.2f} s median, {spread.p95:.2f} s at 95 %"))
    rows.append(("partials per second of audio", f"{summary.partials_per_second:.2f}"))
    return rows


def _of(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({part / whole:.1%})" if whole else f"{part:,}"


def streamed_table(summaries: Sequence[dict[str, Any]]) -> str:
    """The Markdown tables of summaries for the documents: all of them, and what the edges cost."""
    lines = [
        "| test set | played | utterances | equal | ties | different | ΔWER, points | WER | "
        "stable is a prefix | revision rate | first stable word |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for summary in summaries:
        delta, stable = summary["delta_wer"], summary["first_stable_word"]
        wer, held = summary["wer_streamed"], summary["stable_prefix_rate"]
        revised = summary["revision_rate"]
        cells = [
            f"`{summary['test_set']}`",
            _played(summary),
            f"{summary['utterances']:,}",
            f"{summary['equal']:,}",
            f"{summary['ties']:,}",
            f"{summary['different']:,}",
            "" if delta is None else f"{delta['value'] * 100:+.2f}",
            f"{summary['words_heard']} words" if wer is None else f"{wer:.1%}",
            "" if held is None else f"{held:.1%}",
            "" if revised is None else f"{revised:.2f}",
            "" if stable is None else f"{stable['p50']:.2f} s",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, *_edges_table(summaries), *_splits_table(summaries)])


def _edges_table(summaries: Sequence[dict[str, Any]]) -> list[str]:
    """Words of clips that were cut or padded, against the whole clips' offline transcripts."""
    cut = [summary for summary in summaries if summary["lost_at_beginning"] is not None]
    if not cut:
        return []
    rows = [
        f"| `{summary['test_set']}` | {_played(summary)} | {summary['lost_at_beginning']:,} | "
        f"{summary['lost_at_end']:,} | {summary['changed_within']:,} | "
        f"{summary['lost_offline']:,} | {summary['words']:,} |"
        for summary in cut
    ]
    return [
        "",
        "| cut and padded | played | lost at the beginning | lost at the end | "
        "changed or lost within | lost at the edges offline | of words |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
        *rows,
    ]


def _splits_table(summaries: Sequence[dict[str, Any]]) -> list[str]:
    """Words close to where utterances were cut for their length, and elsewhere."""
    rows = []
    for summary in summaries:
        found = summary.get("splits")
        if found is None:
            continue
        cells = [
            f"`{summary['test_set']}`",
            _played(summary),
            f"{found['splits']:,}",
            _of(found["near_lost"], found["near_words"]),
            _of(found["far_lost"], found["far_words"]),
            _of(found["near_added"], found["near_words"]),
            _of(found["far_added"], found["far_words"]),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    if not rows:
        return []
    return [
        "",
        f"| cut for length | played | cuts | lost within {NEAR_S:g} s of a cut | lost elsewhere | "
        f"added within {NEAR_S:g} s of a cut | added elsewhere |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
        *rows,
    ]


def _played(summary: dict[str, Any]) -> str:
    played = f"{summary['endpointing']}, {summary['encoder']}, {summary['streams']} at once"
    arrival = summary.get("arrival", "steady")
    return played if arrival == "steady" else f"{played}, in {arrival}"
