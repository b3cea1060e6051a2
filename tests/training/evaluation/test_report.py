"""Tests of training.evaluation.report."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tinyvoice.errors import ManifestError
from training.evaluation.evaluate import Result
from training.evaluation.report import (
    print_summary,
    read_results,
    summarise,
    to_json,
    write_results,
)
from training.evaluation.wer import word_errors
from training.evaluation.word_times import MatchedWord


def result(name: str, reference: str, hypothesis: str, group: str = "") -> Result:
    errors = word_errors(reference, hypothesis)
    return Result(name, group, reference, hypothesis, errors, 2.0, 0.1, 0.9)


SPOKEN = [
    result("1", "call my mom", "call my mom", "anna"),
    result("2", "play some jazz", "play some chess", "bert"),
    result("3", "stop", "", "bert"),
]
NOISE = [result("1", "", "", "hum"), result("2", "", "oh no", "clicks")]


def printed(results: list[Result]) -> str:
    console = Console(width=120, record=True, force_terminal=False)
    print_summary(console, summarise("set", "A set", "embedded", results))
    return console.export_text()


def test_figures_of_a_set_and_its_groups() -> None:
    figures = to_json(summarise("set", "A set", "embedded", SPOKEN))
    assert figures["wer"] == pytest.approx(2 / 7, abs=1e-4)
    assert (figures["substitutions"], figures["insertions"], figures["deletions"]) == (1, 0, 1)
    assert figures["exact"] == pytest.approx(1 / 3, abs=1e-4)
    assert figures["audio_seconds"] == 6.0
    assert figures["wer_interval"][0] <= figures["wer"] <= figures["wer_interval"][1]
    assert {name: group["wer"] for name, group in figures["groups"].items()} == {
        "anna": 0.0,
        "bert": 0.5,
    }


def test_non_speech_counts_words_heard_and_has_no_rate() -> None:
    figures = to_json(summarise("no-speech", "Noise", "embedded", NOISE))
    assert figures["wer"] is None
    assert figures["insertions"] == 2
    assert figures["utterances_with_words"] == 1
    table = printed(NOISE)
    assert "words heard" in table
    assert "WER" not in table


def test_the_table_shows_rates_and_what_could_not_be_measured() -> None:
    failed = Result("4", "", "x", "", word_errors("", ""), 0.0, 0.0, 0.0, error="x.wav is empty")
    table = printed([*SPOKEN, failed])
    assert "28.6%" in table
    assert "bert" in table
    assert "x.wav is empty" in table


def test_word_times_are_summed_up() -> None:
    timed = replace(result("1", "go", "go", ""), matched_words=(MatchedWord("go", 0.01, 0.03),))
    figures = to_json(summarise("word-times", "Times", "embedded", [timed]))
    assert figures["word_times"]["words"] == 1
    assert figures["word_times"]["median_ms"] == 20.0
    assert "20 ms" in printed([timed])


def test_results_survive_being_written_and_read(tmp_path: Path) -> None:
    timed = replace(result("1", "go", "Go.", "v"), matched_words=(MatchedWord("go", 0.1, 0.0),))
    results = [timed, *SPOKEN[1:]]
    path = write_results(tmp_path, summarise("set", "A set", "embedded", results), results)
    assert path == tmp_path / "set.jsonl"
    assert read_results(path) == results
    assert read_results(tmp_path) == results
    assert json.loads((tmp_path / "set.json").read_text())["utterances"] == 3


def test_a_file_that_holds_no_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="tinyvoice eval -o"):
        read_results(tmp_path)
    (tmp_path / "x.jsonl").write_text('{"name": "a"}\n')
    with pytest.raises(ManifestError, match=r"x\.jsonl:1"):
        read_results(tmp_path)
