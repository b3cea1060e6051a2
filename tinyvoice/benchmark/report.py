"""Tables of a benchmark's record, for the terminal and for documents, and its plot.

Everything here is made from the record's JSON (:meth:`~tinyvoice.benchmark.suite.Report.to_json`),
so that a record kept in a file gives the same tables as a run just ended.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyvoice.errors import ConfigurationError, ManifestError, MissingExtraError
from tinyvoice.metrics import HELD_TIME_TO_FINAL_S, LONG_PAUSE_S, METRICS

if TYPE_CHECKING:
    from rich.console import Console

BEGIN = "<!-- figures: written by `tinyvoice bench` -->"
END = "<!-- end of figures -->"

Record = dict[str, Any]

UNKNOWN = "–"


@dataclass(frozen=True)
class Table:
    """A heading, column titles and rows of text; the first column is words, the others figures."""

    heading: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""


def headline(record: Record) -> str:
    """What was measured, where and when, in one line."""
    model, machine = record["model"], record["machine"]
    if model is None:
        return (
            f"{record['server']['address']}, measured from {machine['processor']}, "
            f"{machine['cores']} cores, {record['date']}"
        )
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    semantic = record["settings"].get("endpointing") == "semantic"
    ends = ", semantic endpointing" if semantic else ""
    weights = ", random weights" if model["random_weights"] else ""
    return (
        f"{model['name']} ({model['parameters'] / 1e6:,.0f} M parameters{weights}, "
        f"{model['dtype']} on {model['device']}), {machine['processor']}, {machine['cores']} "
        f"cores{gpu}, torch {machine['torch']}{ends}, {record['date']}"
    )


def tables(record: Record) -> Iterator[Table]:
    """All tables that the record has figures for."""
    if record["single"]:
        yield latency_table(record["single"])
        yield single_table(record)
    if record["baseline_single"] or record["compute"] or "baseline" in record["held"]:
        yield comparison_table(record)
    if single := record.get("server_single"):
        yield latency_table(single, "one session")
        yield server_single_table(single)
    if (beside := server_comparison_table(record)).rows:
        yield beside
    for kind, runs in record["streams"].items():
        if runs:
            yield streams_table(kind, runs, record["held"].get(kind))
    if record.get("overload"):
        yield overload_table(record["overload"])
    if record["soak"] and record["soak"]["minutes"]:
        yield soak_table(record["soak"])
    if record.get("pipecat"):
        yield pipecat_table(record)
        if record["pipecat"]["detection"]:
            yield detection_table(record["pipecat"]["detection"])


# Tables --------------------------------------------------------------------------------------


def latency_table(single: Record, what: str = "one stream") -> Table:
    """Latencies of one stream, or of one session of a server."""
    rows = []
    for name, spread in single["latencies"].items():
        if spread is None:
            continue
        values = (spread[key] for key in ("p50", "p95", "p99", "greatest"))
        rows.append((METRICS[name].title, *map(milliseconds, values), f"{spread['count']:,}"))
    columns = (what, "p50", "p95", "p99", "greatest", "of")
    through = "" if what == "one stream" else " through the server"
    return Table(f"Latency{through}, {single['utterances']} utterances", columns, rows)


def single_table(record: Record) -> Table:
    """What has one value for a run of one stream."""
    single, text = record["single"], record["single"]["text"] or {}
    values = {
        "revision_rate": number(single["revision_rate"], 3),
        "stable_prefix_rate": percent(single["stable_prefix_rate"]),
        **word_errors(text),
        "compute": number(single["compute"], 4),
        "peak_memory": megabytes(record["peak_memory"]),
        "loop_blocked": milliseconds(single["loop_blocked"]),
    }
    rows = [(METRICS[name].title, shown) for name, shown in values.items() if shown != UNKNOWN]
    rows += _equal_to_offline(text)
    if single["harness"]:
        rows.append(("measuring itself, CPU s per s, taken off", number(single["harness"], 4)))
    rows += _of_every_single(single)
    return Table("Text and cost", ("one stream", "figure"), rows)


def server_single_table(single: Record) -> Table:
    """What has one value for a run of one session of a server."""
    text = single["text"] or {}
    values = {
        METRICS["revision_rate"].title: number(single["revision_rate"], 3),
        METRICS["stable_prefix_rate"].title: percent(single["stable_prefix_rate"]),
        **{METRICS[name].title: shown for name, shown in word_errors(text).items()},
        "compute of the server": number(single["compute"], 4),
        "memory of the server": megabytes(single["memory"]),
        "measuring itself, CPU s per s, not in it": number(single["harness"], 4),
        "event loop of the measuring blocked": milliseconds(single["loop_blocked"]),
    }
    rows = [(title, shown) for title, shown in values.items() if shown != UNKNOWN]
    rows += _equal_to_offline(text)
    rows += _of_every_single(single)
    return Table("Text and cost of the server", ("one session", "figure"), rows)


def word_errors(text: Record) -> dict[str, str]:
    """Word error rates by the names of their metrics: first of the same audio, then of the whole.

    Records of before the stretches were transcribed lack theirs.
    """
    return {
        "wer_streamed": percent(text.get("wer_streamed")),
        "wer_stretches": percent(text.get("wer_stretches")),
        "delta_wer_stretches": delta(text.get("delta_wer_stretches")),
        "wer_offline": percent(text.get("wer_offline")),
        "delta_wer": delta(text.get("delta_wer")),
    }


def _equal_to_offline(text: Record) -> list[tuple[str, str]]:
    same = text.get("same_as_offline")
    return [] if same is None else [("finals equal to offline", percent(same))]


def _of_every_single(single: Record) -> list[tuple[str, str]]:
    """What is told of an engine's run and of a server's."""
    rows, late = [], single["lateness"]
    if single["first_final"] is not None:
        rows.append(("time to final, first utterance", milliseconds(single["first_final"])))
    if late:
        rows.append(
            ("load generator late by, p99 / greatest",
             f"{milliseconds(late['p99'])} / {milliseconds(late['greatest'])}")
        )  # fmt: skip
    if pauses := single.get("pauses"):  # records of before the others were counted lack it
        rows.append(
            ("event loop late by, p99 / p99.9",
             f"{milliseconds(pauses['p99'])} / {milliseconds(pauses['p999'])}")
        )  # fmt: skip
        rows.append(
            (f"event loop late by more than {milliseconds(LONG_PAUSE_S)}",
             f"{pauses['long']:,} of {pauses['asked']:,} times")
        )  # fmt: skip
    rows += [(f"failed: {failure}", "1") for failure in single["failures"]]
    if single["refused"]:
        rows.append(("refused", str(single["refused"])))
    if single["lost"]:
        rows.append(("utterances lost", str(single["lost"])))
    return rows


def comparison_table(record: Record) -> Table:
    """The engine beside the baseline, in the same run on the same audio."""
    rows: list[tuple[str, ...]] = []
    for compute in record["compute"]:
        ours, theirs = compute["engine"], compute["baseline"]
        title = f"compute, CPU s per s, utterances of {compute['utterances']}"
        if compute.get("streams", 1) > 1:
            title += f", {compute['streams']} streams together"
        shown = (number(ours, 4), number(theirs, 4))
        rows.append((title, *shown, ratio(theirs, ours)))
    held = record["held"]
    if "engine" in held and "baseline" in held:
        ours, theirs = held["engine"], held["baseline"]
        rows.append(("streams held", str(ours), str(theirs), ratio(ours, theirs)))
    single, other = record["single"], record["baseline_single"]
    if single and other:
        for name, key in (
            ("time_to_final", "p50"),
            ("time_to_final", "p95"),
            ("first_partial", "p50"),
            ("first_stable_word", "p50"),
        ):
            a, b = single["latencies"][name], other["latencies"][name]
            if a and b:
                title = f"{METRICS[name].title}, {key}"
                shown = (milliseconds(a[key]), milliseconds(b[key]))
                rows.append((title, *shown, ratio(b[key], a[key])))
        for name, digits in (("compute", 4), ("revision_rate", 3)):
            if single[name] is not None and other[name] is not None:
                shown = (number(single[name], digits), number(other[name], digits))
                rows.append((METRICS[name].title, *shown, ratio(other[name], single[name])))
    columns = ("beside the usual way", "engine", "baseline", "better by")
    return Table("Against transcribing the growing buffer anew", columns, rows)


def server_comparison_table(record: Record) -> Table:
    """The sessions of a server beside the streams of the engine alone, of the same run."""
    rows: list[tuple[str, ...]] = []
    held = record["held"]
    if "engine" in held and "server" in held:
        ours, theirs = held["engine"], held["server"]
        rows.append(("streams held", str(ours), str(theirs), share(theirs, ours)))
    single, other = record["single"], record.get("server_single")
    if single and other:
        for name, key in (
            ("time_to_final", "p50"),
            ("time_to_final", "p95"),
            ("first_partial", "p50"),
            ("partial_lag", "p50"),
        ):
            a, b = single["latencies"][name], other["latencies"][name]
            if a and b:
                title = f"{METRICS[name].title}, {key}"
                rows.append((title, *map(milliseconds, (a[key], b[key])), share(b[key], a[key])))
        if other["compute"] is not None:
            costs = single["compute"], other["compute"]
            shown = (number(cost, 4) for cost in costs)
            rows.append((METRICS["compute"].title, *shown, share(costs[1], costs[0])))
    columns = ("beside the engine alone", "engine", "server", "server / engine")
    return Table("Through the server", columns, rows)


def streams_table(kind: str, runs: Sequence[Record], held: int | None) -> Table:
    """Runs of several numbers of streams."""
    rows = []
    for run in runs:
        final, interval = run["latencies"]["time_to_final"], run["latencies"]["partial_interval"]
        rows.append(
            (
                str(run["streams"]),
                milliseconds(final and final["p50"]),
                milliseconds(final and final["p95"]),
                milliseconds(interval and interval["p95"]),
                str(run["refused"]),
                number(run["compute"], 4),
                _pauses(run),
                milliseconds(run["lateness"] and run["lateness"]["greatest"]),
                "yes" if run["held"] else f"no: {fault(run['reason'])}",
            )
        )
    columns = (
        "streams",
        "final p50",
        "final p95",
        "partials p95",
        "refused",
        "CPU s/s",
        "blocked p99.9, most",
        "load late",
        "held",
    )
    if kind == "server":
        took = max(run["harness"] for run in runs)
        note = f"up to {number(took, 4)} CPU s per s of audio went into the measuring, beside it"
        if held is not None:
            note = f"{held} sessions held; {note}"
        return Table("Sessions of the server", columns, rows, note)
    title = "Streams" if kind == "engine" else "Streams of the baseline"
    return Table(title, columns, rows, "" if held is None else f"{held} streams held")


def _pauses(run: Record) -> str:
    """How late the event loop was: once in a thousand times, and at most."""
    most = milliseconds(run["loop_blocked"])
    pauses = run.get("pauses")
    return most if not pauses else f"{milliseconds(pauses['p999'])}, {most}"


def overload_table(found: Record) -> Table:
    """One stream before, too many at once, one stream behind."""
    rows = []
    for key, title in (
        ("before", "1, before"),
        ("during", f"{found['streams']}, too many"),
        ("after", "1, after"),
    ):
        if (run := found[key]) is None:
            continue
        final, interval = run["latencies"]["time_to_final"], run["latencies"]["partial_interval"]
        spreads = [spread and spread[p] for spread in (final, interval) for p in ("p50", "p95")]
        rows.append(
            (
                title,
                *map(milliseconds, spreads),
                f"{run['utterances']:,}",
                str(run["lost"]),
                str(len(run["failures"])),
            )
        )
    columns = (
        *("streams", "final p50", "final p95", "partials p50", "partials p95"),
        *("finals", "utterances lost", "streams failed"),
    )
    return Table("More streams than are held", columns, rows, _overload_note(found))


def _overload_note(found: Record) -> str:
    refused = "nobody was refused"
    if found["refused"]:
        refused = (
            f"refused {found['refused']:,} times, first {found['refused_after_s']:.1f} s after the "
            f'load began: "{found["words"].rstrip(".")}"'
        )
    recovered = "none was let in afterwards"
    if found["recovered_s"] is not None:
        recovered = f"let in again {found['recovered_s']:.1f} s after the load's last packet"
    return f"a late comer asked for a stream {found['asked']:,} times; {refused}; {recovered}"


def soak_table(soak: Record) -> Table:
    """First and last minute of continuous talk."""
    minutes = soak["minutes"]
    first, last = minutes[0], minutes[-1]
    median = statistics.median(minute["compute"] for minute in minutes)
    rows = [
        ("last three minutes over first three, medians", number(soak["cost_ratio_of_medians"], 3)),
        ("last minute over first", number(soak["cost_ratio"], 3)),
        ("compute, median of all minutes", f"{number(median, 4)} CPU s per s"),
        (f"compute of minute 1 and {len(minutes)}",
         f"{number(first['compute'], 4)}, {number(last['compute'], 4)} CPU s per s"),
        ("memory growth after minute 1", megabytes(soak["memory_growth_bytes"])),
        ("partials, finals, words", ", ".join(
            f"{sum(minute[name] for minute in minutes):,}"
            for name in ("partials", "finals", "words"))),
    ]  # fmt: skip
    return Table("Continuous talk", (f"{len(minutes)} minutes", "figure"), rows)


def pipecat_table(record: Record) -> Table:
    """Our row of the public table of Pipecat's benchmark of recognisers, in its format."""
    found = record["pipecat"]
    times = found["ttfs_s"] or {}
    latencies = [
        f"{1000 * times[key]:.0f} ms" if key in times else UNKNOWN for key in ("p50", "p95", "p99")
    ]
    row = (
        "tinyvoice (in the process)",
        record["model"]["name"],
        f"{100 * found['transcripts']:.1f}",
        f"{100 * found['perfect']:.1f}",
        f"{100 * found['mean_error_rate']:.2f}",
        f"{100 * found['pooled_error_rate']:.2f}",
        *latencies,
    )
    columns = (
        *("Vendor", "Model", "Transcripts", "Perfect", "WER mean", "Pooled"),
        *("TTFS med", "P95", "P99"),
    )
    return Table("In Pipecat's own benchmark", columns, [row], _pipecat_note(found))


def _pipecat_note(found: Record) -> str:
    flushes, unanswered, samples = found["flushes"], found["unanswered"], len(found["samples"])
    turns, settings = "", ""
    if "turns_started" in found:  # records of before it was counted lack it
        turns = (
            f"; user turns of the default strategies, started / stopped: "
            f"{found['turns_started']:,} / {found['turns_stopped']:,}; the texts of "
            f"{found['in_context']:,} of {samples:,} samples were in the context"
        )
    if used := found.get("settings"):
        shown = ("stop_secs", "early_final_ms", "partial_interval_ms")
        settings = "; " + ", ".join(f"{name} {used[name]}" for name in shown if name in used)
    quiet = "sound without speech was not played"
    if found["quiet_s"]:
        quiet = f"{found['hallucinated']} over {found['quiet_s']:.0f} s of sound without speech"
    return (
        f"{samples} samples of {found['different']} different utterances{settings}; "
        "transcripts, perfect and errors in %, counted by rule; a finalized text answered "
        f"{flushes - unanswered:,} of {flushes:,} flushes; frames without a word: "
        f"{found['empty']}; frames with text: {quiet}{turns}"
    )


def detection_table(found: Record) -> Table:
    """When decisions of the voice activity detection leave, beside a service that does nothing."""
    names = {
        "service": "with the service",
        "nothing": "with one that does nothing",
        "added": "what the service adds",
    }
    rows = []
    for key, title in names.items():
        spread = found[f"{key}_s"]
        if spread is not None:
            values = (spread[name] for name in ("p50", "p95", "p99", "greatest"))
            rows.append((title, *map(milliseconds, values), f"{spread['count']:,}"))
    columns = ("late by", "p50", "p95", "p99", "greatest", "of")
    note = (
        f"the same decisions at the same places in {percent(found['same'])} of "
        f"{len(found['recordings'])} recordings"
    )
    return Table("Voice activity detection behind the service", columns, rows, note)


def fault(reason: str) -> str:
    """What was not held, without the figure that stands in a column of its own."""
    return reason.partition(" after ")[0].partition(" every ")[0]


# Values --------------------------------------------------------------------------------------


def milliseconds(value: float | None) -> str:
    """Seconds as milliseconds, with a decimal where they are few."""
    if value is None:
        return UNKNOWN
    shown = value * 1000
    return f"{shown:.1f} ms" if abs(shown) < 10 else f"{shown:,.0f} ms"


def number(value: float | None, digits: int) -> str:
    """A plain number."""
    return UNKNOWN if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A share."""
    return UNKNOWN if value is None else f"{value:.1%}"


def delta(difference: Record | None) -> str:
    """A difference of rates in points, with its interval."""
    if not difference:
        return UNKNOWN
    value, low, high = (difference[key] * 100 for key in ("value", "low", "high"))
    return f"{value:+.2f} points ({low:+.2f} to {high:+.2f})"


def megabytes(value: float | None) -> str:
    """Bytes as megabytes."""
    return UNKNOWN if value is None else f"{value / 1e6:,.1f} MB"


def ratio(greater: float, smaller: float) -> str:
    """How many times one is the other."""
    return f"{greater / smaller:.1f}×" if smaller else UNKNOWN


def share(part: float, whole: float) -> str:
    """One as a multiple of the other, exact enough for shares below 1."""
    return f"{part / whole:.2f}" if whole else UNKNOWN


# Terminal and documents ----------------------------------------------------------------------


def print_record(console: Console, record: Record) -> None:
    """Show all tables on a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable

    console.print(headline(record), style="dim", soft_wrap=True)
    for table in tables(record):
        console.print(f"\n[bold]{table.heading}[/bold]")
        shown = RichTable(box=SIMPLE_HEAD, pad_edge=False, header_style="dim")
        for index, column in enumerate(table.columns):
            shown.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
        if table.note:
            console.print(table.note)
    if record["interrupted"]:
        console.print("\ninterrupted: figures of what was measured until then", style="yellow")


def markdown(records: Sequence[Record], plot: str | None = None) -> str:
    """All tables of several records, for a document; ``plot`` is the path of its picture."""
    parts = []
    for record in records:
        parts.append(f"**{headline(record)}**; speech: {record['speech']}")
        for table in tables(record):
            parts.append(f"### {table.heading}")
            lines = [_row(table.columns), _row(["---"] + ["---:"] * (len(table.columns) - 1))]
            parts.append("\n".join(lines + [_row(row) for row in table.rows]))
            if table.note:
                parts.append(f"{table.note}.")
    if plot is not None:
        parts.append(f"![Latency of one stream, and time to final by streams]({plot})")
    return "\n\n".join(parts)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def read_around(document: Path) -> tuple[str, str]:
    """What stands in a document before :data:`BEGIN` and behind :data:`END`.

    Raises:
        ConfigurationError: there is no such document, or it lacks the marks.
    """
    try:
        content = document.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{document} cannot be read ({error.strerror}): give a document with the lines "
            f"{BEGIN} and {END}.",
            key="into",
        ) from error
    head, begin, rest = content.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ConfigurationError(
            f"{document} lacks the lines {BEGIN} and {END}: add them.", key="into"
        )
    return head, tail


def write_into(document: Path, text: str) -> None:
    """Replace what stands between the marks in a document; raises as `read_around`."""
    head, tail = read_around(document)
    document.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}", encoding="utf-8")


def read_record(path: Path) -> Record:
    """A record that was kept in a file.

    Raises:
        ManifestError: it cannot be read, or is none.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        headline(record)
        list(tables(record))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ManifestError(
            f"{path} is no record of `tinyvoice bench` ({error}): write one with --save.",
            path=str(path),
        ) from error
    return dict(record)


# Plot ----------------------------------------------------------------------------------------


def plot(records: Sequence[Record], path: Path) -> None:
    """Draw latencies of one stream, time to final over the number of streams, and how late voice
    activity is decided in a pipeline.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ConfigurationError: nothing was measured that could be drawn.
    """
    check_plotting()
    from matplotlib.figure import Figure

    single = next((found for record in records if (found := _a_single(record))), None)
    streamed = [record for record in records if any(record["streams"].values())]
    detected = next((found for record in records if (found := _detection(record))), None)
    panels = (single is not None) + bool(streamed) + (detected is not None)
    if not panels:
        raise ConfigurationError(
            "There is nothing to draw: measure one stream, --streams or --pipecat.", key="plot"
        )
    figure = Figure(figsize=(5.5 * panels, 4.0), layout="constrained")
    axes = iter(figure.subplots(1, panels, squeeze=False)[0])
    if single is not None:
        _draw_latencies(next(axes), single)
    if streamed:
        _draw_streams(next(axes), streamed)
    if detected is not None:
        _draw_detection(next(axes), detected)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{path} cannot be written ({error}): give a file that ends in .png.", key="plot"
        ) from error


def check_plotting() -> None:
    """Raise MissingExtraError unless plots can be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("bench", "drawing the plot") from error


def _a_single(record: Record) -> Record | None:
    """A run of one stream, of the engine or through a server."""
    found: Record | None = record["single"] or record.get("server_single")
    return found


def _draw_latencies(axes: Any, single: Record) -> None:
    """From the median to the 99th percentile of each latency, as bars one above the other."""
    known = [(n, s) for n, s in single["latencies"].items() if s is not None]
    for row, (_, spread) in enumerate(reversed(known)):
        p50, p95, p99 = (spread[key] * 1000 for key in ("p50", "p95", "p99"))
        axes.plot([p50, p99], [row, row], color="0.75", linewidth=6, solid_capstyle="butt")
        axes.plot([p50, p95], [row, row], color="tab:blue", linewidth=6, solid_capstyle="butt")
        axes.plot([p50], [row], "o", color="black", markersize=5)
        axes.annotate(f"{p50:.0f}", (p50, row), (0, 7), textcoords="offset points", ha="center",
                      fontsize=8)  # fmt: skip
    axes.set_yticks(range(len(known)), [METRICS[name].title for name, _ in reversed(known)])
    axes.set_ylim(-0.6, len(known) - 0.2)
    axes.set_xlim(left=0)
    axes.set_xlabel("ms: median, to p95 (blue), to p99 (grey)")
    axes.set_title("one stream")


def _detection(record: Record) -> Record | None:
    """Of a run in Pipecat's pipelines, what it showed of the voice activity detection."""
    return (record.get("pipecat") or {}).get("detection")


def _draw_detection(axes: Any, found: Record) -> None:
    """Share of the decisions that have left by so late, with the service and without."""
    styles = {"nothing": ("s--", "a service that does nothing"), "service": ("o-", "tinyvoice")}
    for key, (style, name) in styles.items():
        late = sorted(d["late_s"] * 1000 for one in found["recordings"] for d in one[key])
        shares = [(rank + 1) / len(late) for rank in range(len(late))]
        axes.plot(late, shares, style, markersize=3, label=name)
    axes.set_xlabel("ms after the audio that decided was due")
    axes.set_ylabel("share of the decisions")
    axes.set_title("voice activity in a Pipecat pipeline")
    axes.legend()


def _name(record: Record) -> str:
    return str(record["model"]["name"] if record["model"] else record["server"]["address"])


def _draw_streams(axes: Any, records: Sequence[Record]) -> None:
    """95th percentile of the time to final over the number of streams."""
    for record in records:
        for kind, runs in record["streams"].items():
            spreads = [(run["streams"], run["latencies"]["time_to_final"]) for run in runs]
            known = [(n, spread["p95"] * 1000) for n, spread in spreads if spread is not None]
            if not known:
                continue
            name = kind if len(records) == 1 else f"{kind}, {_name(record)}"
            style = {"engine": "o-", "server": "^-."}.get(kind, "s--")
            axes.plot(*zip(*known, strict=True), style, label=name)
    axes.axhline(HELD_TIME_TO_FINAL_S * 1000, color="0.5", linewidth=1, linestyle=":")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("streams")
    axes.set_ylabel("time to final, p95, ms")
    axes.set_title("streams at real-time pace")
    axes.legend()
