"""Tests of training.cli.analysis."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from training.cli.analysis import app
from training.evaluation.evaluate import Result
from training.evaluation.report import summarise, write_results
from training.evaluation.results_table import BEGIN, END
from training.evaluation.wer import word_errors

runner = CliRunner()


def results_folder(folder: Path, hypotheses: list[str]) -> Path:
    references = ["call my mom", "set a timer for five minutes", "what's on monday"]
    results = [
        Result(str(i), "v", said, wrote, word_errors(said, wrote), 1.0, 0.1, 0.9)
        for i, (said, wrote) in enumerate(zip(references, hypotheses, strict=True))
    ]
    write_results(folder, summarise("mine", "Mine", "embedded", results), results)
    return folder


@pytest.fixture
def good(tmp_path: Path) -> Path:
    hypotheses = ["call my mom", "set a timer for five minutes", "what's on monday"]
    return results_folder(tmp_path / "good", hypotheses)


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    hypotheses = ["call my mop", "set a timer for nine minutes", "[bold]"]
    return results_folder(tmp_path / "bad", hypotheses)


def test_high_wer_shows_the_worst_utterances(bad: Path) -> None:
    result = runner.invoke(app, ["high-wer", str(bad), "--threshold", "0.3"])
    assert result.exit_code == 0, result.output
    assert "2 of 3 utterances" in result.output
    assert result.output.index("what's on monday") < result.output.index("call my mom")
    assert "set a timer" not in result.output


def test_high_wer_as_json(bad: Path) -> None:
    arguments = ["high-wer", str(bad), "--threshold", "0.3", "--json", "-n", "1"]
    found = json.loads(runner.invoke(app, arguments).stdout)
    assert [entry["name"] for entry in found] == ["2"]
    assert found[0]["hypothesis"] == "[bold]"


def test_entity_errors(bad: Path) -> None:
    found = json.loads(runner.invoke(app, ["entity-errors", str(bad), "--json"]).stdout)
    number = next(entry for entry in found if entry["entity"] == "number")
    assert (number["words"], number["missed"]) == (1, 1)
    assert number["confusions"] == [["five", "nine", 1]]
    table = runner.invoke(app, ["entity-errors", str(bad)]).output
    assert "five → nine (1)" in table


def test_compare(good: Path, bad: Path) -> None:
    result = runner.invoke(app, ["compare", str(good), str(bad)])
    assert result.exit_code == 0, result.output
    assert "3 worse" in result.output
    found = json.loads(runner.invoke(app, ["compare", str(bad), str(good), "--json"]).stdout)
    assert (found["better"], found["worse"]) == (3, 0)
    assert found["second_wer"] == 0.0


def test_table_goes_into_documents(good: Path, tmp_path: Path) -> None:
    document = tmp_path / "results.md"
    document.write_text(f"# Results\n{BEGIN}\n{END}\n")
    result = runner.invoke(app, ["table", str(good), "--into", str(document)])
    assert result.exit_code == 0, result.output
    assert "| word error rate (`mine`) | Mine, 3 utterances | **0.0%**" in document.read_text()
    assert "**0.0%**" in runner.invoke(app, ["table", str(good)]).stdout
