"""Tests of training.evaluation.streamed_report."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tinyvoice.errors import ManifestError
from tinyvoice.metrics import Update, UtteranceRecord
from training.evaluation.splits import SplitErrors
from training.evaluation.streamed_report import (
    print_streamed,
    read_streamed,
    streamed_json,
    streamed_table,
    summarise_streamed,
    write_streamed,
)
from training.evaluation.streaming import Edges, Evaluation, StreamedResult, StreamingPlan
from training.evaluation.wer import WordErrors

RECORD = UtteranceRecord(
    onset=0.5,
    voice_end=2.0,
    decided=None,
    updates=(Update(1.0, "", "call", 1.0, 1.0), Update(1.4, "call", " my", 1.4, 1.4)),
    final="call mum",
    received=2.5,
    first_word_end=0.9,
)
RESULT = StreamedResult(
    name="1",
    group="",
    reference="call mum",
    streamed="call mum",
    offline="call mum",
    verdict="equal",
    margin=None,
    errors=WordErrors(words=2),
    offline_errors=WordErrors(substitutions=1, words=2),
    duration=2.0,
    speech_starts=1,
    partials=2,
    records=(RECORD,),
)
RESULTS = [
    RESULT,
    replace(
        RESULT,
        name="2",
        verdict="tie",
        margin=1e-5,
        edges=Edges(1, 0, 2),
        offline_edges=Edges(0, 2, 0),
        splits=SplitErrors(1, 10, 1, 2, 40, 4, 0),
    ),
    replace(RESULT, name="3", verdict="different", margin=0.5),
    replace(RESULT, name="4", error="x.wav is empty"),
]
EVALUATION = Evaluation(RESULTS, 0.3)
SUMMARY = summarise_streamed("set", "A set", "embedded", StreamingPlan(), EVALUATION)


def test_figures_of_a_set() -> None:
    figures = streamed_json(SUMMARY)
    assert (figures["utterances"], figures["equal"], figures["ties"], figures["different"]) == (
        3,
        1,
        1,
        1,
    )
    assert figures["wer_streamed"] == 0.0
    assert figures["wer_offline"] == 0.5
    assert figures["delta_wer"] == {"value": -0.5, "low": -0.5, "high": -0.5}
    assert figures["stable_prefix_rate"] == 1.0
    assert figures["revision_rate"] == 0.5
    assert figures["first_stable_word"]["p50"] == 0.5
    assert figures["first_partial"]["p50"] == 0.5
    assert figures["partials_per_second"] == 1.0
    assert (figures["lost_at_beginning"], figures["lost_at_end"]) == (1, 0)
    assert figures["lost_offline"] == 2
    assert figures["arrival"] == "steady"
    assert figures["splits"]["near_lost"] == 1
    assert figures["skipped"] == ["4: x.wav is empty"]


def test_the_table_for_people() -> None:
    console = Console(width=120, record=True, force_terminal=False)
    print_streamed(console, SUMMARY)
    text = console.export_text()
    assert "-50.00 points" in text
    assert "ties of the two best tokens" in text
    assert "words lost at the beginning" in text
    assert "1 of 10 (10.0%)" in text
    assert "x.wav is empty" in text


def test_sound_without_speech_has_words_heard_and_no_rates() -> None:
    noise = replace(RESULT, reference="", streamed="", offline="", records=(), errors=WordErrors())
    noise = replace(noise, offline_errors=WordErrors(), partials=0)
    summary = summarise_streamed("n", "N", "embedded", StreamingPlan(), Evaluation([noise], 0.1))
    assert (summary.words_heard, summary.wer_streamed, summary.revision_rate) == (0, None, None)
    assert "| 0 words |" in streamed_table([streamed_json(summary)])


def test_nothing_measured_is_said(tmp_path: Path) -> None:
    evaluation = Evaluation([RESULTS[-1]], 0.0)
    summary = summarise_streamed("n", "N", "embedded", StreamingPlan(), evaluation)
    console = Console(width=120, record=True, force_terminal=False)
    print_streamed(console, summary)
    assert "Nothing could be measured." in console.export_text()


def test_files_and_the_table_for_documents(tmp_path: Path) -> None:
    assert read_streamed(tmp_path) == []
    path = write_streamed(tmp_path, SUMMARY, RESULTS)
    assert path == tmp_path / "streamed" / "set-manual-auto-8.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["verdict"] for line in lines] == ["equal", "tie", "different", "equal"]
    assert (lines[0]["stable_held"], lines[0]["revised_words"]) == (True, 1)
    table = streamed_table(read_streamed(tmp_path)).splitlines()
    played = "| `set` | manual, auto, 8 at once |"
    assert [line for line in table if line.startswith(played)] == [
        f"{played} 3 | 1 | 1 | 1 | -50.00 | 0.0% | 100.0% | 0.50 | 0.50 s |",
        f"{played} 1 | 0 | 2 | 2 | 6 |",
        f"{played} 1 | 1 of 10 (10.0%) | 4 of 40 (10.0%) | 2 of 10 (20.0%) | 0 of 40 (0.0%) |",
    ]


def test_how_packets_came_is_told(tmp_path: Path) -> None:
    plan = StreamingPlan(streams=32, endpointing="vad", arrival="bursts")
    summary = summarise_streamed("set", "A set", "embedded", plan, Evaluation([RESULT], 0.3))
    path = write_streamed(tmp_path, summary, [RESULT])
    assert path.name == "set-vad-auto-32-bursts.jsonl"
    (line,) = streamed_table(read_streamed(tmp_path)).splitlines()[2:]
    assert line.startswith("| `set` | vad, auto, 32 at once, in bursts | 1 |")


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "streamed").mkdir()
    (tmp_path / "streamed" / "x.json").write_text("[]")
    with pytest.raises(ManifestError, match=r"x\.json"):
        read_streamed(tmp_path)
