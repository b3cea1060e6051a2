"""Tables, documents and plots of a benchmark's record."""

import io
import json
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console

from tinyvoice.benchmark.figures import LATENCIES, Figures, TextFigures
from tinyvoice.benchmark.harness import Pauses
from tinyvoice.benchmark.load import Lateness
from tinyvoice.benchmark.machine import describe_machine, resident_bytes
from tinyvoice.benchmark.overload import OverloadFigures
from tinyvoice.benchmark.report import (
    BEGIN,
    END,
    Record,
    comparison_table,
    headline,
    markdown,
    milliseconds,
    plot,
    print_record,
    read_record,
    tables,
    write_into,
)
from tinyvoice.benchmark.soak import SoakMinute, soak_figures
from tinyvoice.benchmark.suite import BASELINE, ENGINE, Compute, ModelNote, Report
from tinyvoice.errors import ConfigurationError, ManifestError
from tinyvoice.metrics import METRICS, Distribution, PairedDifference

POINT = PairedDifference(0.01, -0.001, 0.021)
DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmark.md"


def figures(streams: int, final_s: float, *, reason: str = "") -> Figures:
    spread = Distribution(40, final_s / 2, final_s, 1.2 * final_s, 1.5 * final_s)
    return Figures(
        streams=streams,
        seconds=30.0,
        utterances=40,
        latencies=dict.fromkeys(LATENCIES, spread),
        first_final=0.02,
        compute=0.05,
        harness=0.01,
        loop_blocked=0.004,
        revision_rate=0.02,
        stable_prefix_rate=1.0,
        held=not reason,
        reason=reason,
        refused=0,
        lateness=Lateness(1000, 0.0001, 0.001, 0.002, 0.0),
        text=TextFigures(0.05, 0.04, POINT, 1.0, 0.05, PairedDifference(0.0, 0.0, 0.0)),
        pauses=Pauses(6_000, 0.001, 0.003, 0.004, 0),
    )


@pytest.fixture
def record() -> Record:
    report = Report(
        "2026-01-02",
        describe_machine(),
        ModelNote("embedded", 6_000_000, "cpu", "float32", "auto", 1, False),
        "bundled",
        {"packet_ms": 20},
        single=figures(1, 0.02),
        peak_memory=500_000_000,
        baseline_single=figures(1, 0.2),
        compute=[
            Compute("3 s", 0.04, 0.1),
            Compute("10 s", 0.04, 0.4),
            Compute("10 s", 0.02, 0.4, streams=16),
        ],
        streams={
            ENGINE: [figures(1, 0.02), figures(16, 0.4, reason="finals after 400 ms")],
            BASELINE: [figures(1, 0.2)],
        },
        held={ENGINE: 12, BASELINE: 2},
        overload=OverloadFigures(
            24, figures(1, 0.02), figures(24, 0.9), figures(1, 0.021), 75, 60, 1.25, "Busy.", 0.5
        ),
        soak=soak_figures([SoakMinute(0.05, 10**8, 10, 2, 50), SoakMinute(0.051, 10**8, 9, 2, 60)]),
    )
    return json.loads(json.dumps(report.to_json()))


def test_everything_measured_has_its_table(record: Record) -> None:
    assert [table.heading for table in tables(record)] == [
        "Latency, 40 utterances",
        "Text and cost",
        "Against transcribing the growing buffer anew",
        "Streams",
        "Streams of the baseline",
        "More streams than are held",
        "Continuous talk",
    ]
    for name in ("single", "baseline_single", "overload", "soak"):
        record[name] = None
    record["compute"], record["held"], record["streams"] = [], {}, {ENGINE: []}
    assert list(tables(record)) == []


def test_the_engine_beside_the_baseline(record: Record) -> None:
    rows = {row[0]: row[1:] for row in comparison_table(record).rows}
    assert rows["compute, CPU s per s, utterances of 10 s"] == ("0.0400", "0.4000", "10.0×")
    together = "compute, CPU s per s, utterances of 10 s, 16 streams together"
    assert rows[together] == ("0.0200", "0.4000", "20.0×")
    assert rows["streams held"] == ("12", "2", "6.0×")
    assert rows["time to final, p95"] == ("20 ms", "200 ms", "10.0×")


def test_the_terminal_shows_names_and_figures(record: Record) -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    print_record(console, record)
    shown = console.export_text()
    for word in (
        "time to final",
        "ΔWER",
        "WER offline of the same stretches",
        "+0.00 points (+0.00 to +0.00)",
        "+1.00 points (-0.10 to +2.10)",
        "event loop late by, p99 / p99.9",
        "0 of 6,000 times",
        "3.0 ms, 4.0 ms",
        "500.0 MB",
        "12 streams held",
        "no: finals",
    ):
        assert word in shown
    assert "interrupted" not in shown


def test_a_record_of_before_some_figures_were_taken_is_shown_without_them(record: Record) -> None:
    runs = [record["single"], *record["streams"][ENGINE], *record["streams"][BASELINE]]
    for run in runs:
        del run["pauses"], run["text"]["wer_stretches"], run["text"]["delta_wer_stretches"]
    _, text, _, streams, *_ = tables(record)
    shown = {row[0]: row[1] for row in text.rows}
    assert shown["WER streamed"] == "5.0%"
    assert not any("stretches" in title or "late by, p99 / p99.9" in title for title in shown)
    assert streams.rows[0][streams.columns.index("blocked p99.9, most")] == "4.0 ms"


def test_the_headline_names_an_endpointing_that_is_not_the_usual_one(record: Record) -> None:
    assert "endpointing" not in headline(record)
    record["settings"]["endpointing"] = "semantic"
    assert headline(record).endswith(", semantic endpointing, 2026-01-02")


def test_what_gives_way_when_too_many_come(record: Record) -> None:
    table = next(t for t in tables(record) if t.heading == "More streams than are held")
    assert [row[0] for row in table.rows] == ["1, before", "24, too many", "1, after"]
    assert [row[table.columns.index("final p95")] for row in table.rows] == [
        "20 ms",
        "900 ms",
        "21 ms",
    ]
    assert table.note == (
        "a late comer asked for a stream 75 times; refused 60 times, first 1.2 s after the load "
        'began: "Busy"; let in again 0.5 s after the load\'s last packet'
    )
    found = record["overload"]
    found |= {"after": None, "refused": 0, "recovered_s": None}
    table = next(t for t in tables(record) if t.heading == "More streams than are held")
    assert len(table.rows) == 2
    assert table.note.endswith("75 times; nobody was refused; none was let in afterwards")


def test_continuous_talk_is_headed_by_medians(record: Record) -> None:
    *_, table = tables(record)
    assert table.rows[0][0] == "last three minutes over first three, medians"
    assert ("compute, median of all minutes", "0.0505 CPU s per s") in table.rows


def test_a_document_gets_its_figures_between_the_marks(tmp_path: Path, record: Record) -> None:
    document = tmp_path / "page.md"
    document.write_text(f"# Page\n\n{BEGIN}\nold\n{END}\n\nrest\n")
    write_into(document, markdown([record], "page.png"))
    written = document.read_text()
    assert written.startswith(f"# Page\n\n{BEGIN}\n\n**embedded (6 M parameters")
    assert written.endswith(f"{END}\n\nrest\n")
    assert "| time to final | 10 ms | 20 ms |" in written
    assert "](page.png)" in written
    assert "old" not in written
    write_into(document, markdown([record], "page.png"))
    assert document.read_text() == written


def test_a_document_without_marks_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text("text")
    with pytest.raises(ConfigurationError, match="lacks the lines"):
        write_into(document, "figures")
    assert document.read_text() == "text"
    with pytest.raises(ConfigurationError, match="cannot be read"):
        write_into(tmp_path / "none.md", "figures")


def test_a_record_survives_its_file(tmp_path: Path, record: Record) -> None:
    path = tmp_path / "kept.json"
    path.write_text(json.dumps(record))
    assert read_record(path) == record
    path.write_text("[]")
    with pytest.raises(ManifestError, match="is no record"):
        read_record(path)


def test_a_plot_of_every_kind_of_record(tmp_path: Path, record: Record) -> None:
    pytest.importorskip("matplotlib")
    for index, left_out in enumerate(([], ["single"], ["streams"])):
        part = {**record, **{name: {} if name == "streams" else None for name in left_out}}
        path = tmp_path / f"{index}.png"
        plot([part], path)
        assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigurationError, match="nothing to draw"):
        plot([{**record, "single": None, "streams": {}}], tmp_path / "none.png")


def test_milliseconds() -> None:
    assert [milliseconds(v) for v in (None, 0.00312, 0.0312, 1.5)] == [
        "–",
        "3.1 ms",
        "31 ms",
        "1,500 ms",
    ]


def test_the_page_explains_every_metric() -> None:
    page = DOCUMENT.read_text()
    for metric in METRICS.values():
        assert f"**{metric.title}**" in page, metric.title
    assert BEGIN in page
    assert END in page


def test_the_machine_is_described() -> None:
    machine = describe_machine()
    assert machine.cores >= 1
    assert machine.processor in str(machine)
    assert asdict(machine)["gpu"] is None
    held = resident_bytes()
    assert held is None or held > 10_000_000
