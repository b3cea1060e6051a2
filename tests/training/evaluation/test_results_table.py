"""Tests of training.evaluation.results_table."""

import json
from pathlib import Path

import pytest

from tinyvoice.errors import ConfigurationError, ManifestError
from training.evaluation.evaluate import Result
from training.evaluation.report import summarise, write_results
from training.evaluation.results_table import (
    BEGIN,
    END,
    figures_table,
    replace_table,
    voices_table,
)
from training.evaluation.wer import word_errors


def measure(folder: Path, name: str, *pairs: tuple[str, str]) -> None:
    results = [
        Result(str(i), "", said, wrote, word_errors(said, wrote), 60.0, 1.0, 1.0)
        for i, (said, wrote) in enumerate(pairs)
    ]
    write_results(folder, summarise(name, "A set of mine", "embedded", results), results)


def test_each_kind_of_set_has_its_figure(tmp_path: Path) -> None:
    measure(tmp_path, "own", ("a b c d", "a b c"))
    measure(tmp_path, "fsdd", ("one", "one"), ("two", "ten"))
    measure(tmp_path, "no-speech", ("", ""), ("", "oh no"))
    lines = figures_table(tmp_path).splitlines()
    assert len(lines) == 5
    assert "digits right (`fsdd`)" in lines[2]
    assert "**50.0%**" in lines[2]
    assert "2 minutes | **2** words" in lines[3]
    assert "A set of mine, 1 utterances | **25.0%** (25.0% to 25.0%)" in lines[4]


def test_speed_has_rows_for_each_front_end(tmp_path: Path) -> None:
    factor = {"wall": 0.02, "processor": 0.02}
    speed = {
        "test_set": "speed",
        "machine": "A processor, one core of 4",
        "front_ends": [{"front_end": "pipeline", "single": factor, "batch": factor}],
        "start_seconds": 3.2,
        "start_peak_mb": 900.4,
    }
    (tmp_path / "speed.json").write_text(json.dumps(speed))
    table = figures_table(tmp_path)
    assert "batches of 16 (`pipeline`) | one core, A processor | **0.020**" in table
    assert "**3.2 s**" in table
    assert "**900 MB**" in table


def test_voices_kept_out_have_a_table_the_best_understood_first(tmp_path: Path) -> None:
    assert voices_table(tmp_path) is None
    said = [("bob", "a b", "a"), ("ann", "a b", "a b"), ("ann", "c d", "c d"), ("bob", "c", "c")]
    results = [
        Result(str(i), voice, ref, wrote, word_errors(ref, wrote), 1.0, 1.0, 1.0)
        for i, (voice, ref, wrote) in enumerate(said)
    ]
    write_results(tmp_path, summarise("clinc-unseen", "Voices", "embedded", results), results)
    table = voices_table(tmp_path)
    assert table is not None
    assert table.splitlines()[2:] == [
        "| ann | 2 | 4 | 0.0% | 100% |",
        "| bob | 2 | 3 | 33.3% | 50% |",
    ]
    (tmp_path / "clinc-unseen.json").write_text("{}")
    with pytest.raises(ManifestError, match=r"clinc-unseen\.json"):
        voices_table(tmp_path)


def test_the_table_replaces_what_stood_between_the_marks() -> None:
    document = f"# Title\n\n{BEGIN}\nold\n{END}\n\nafter\n"
    replaced = replace_table(document, "| new |")
    assert replaced == f"# Title\n\n{BEGIN}\n\n| new |\n\n{END}\n\nafter\n"
    assert replace_table(replaced, "| new |") == replaced


def test_a_document_without_marks_and_a_folder_without_figures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="add them"):
        replace_table("# Title\n", "| new |")
    with pytest.raises(ManifestError, match="holds no figures"):
        figures_table(tmp_path)
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ManifestError, match=r"x\.json"):
        figures_table(tmp_path)
