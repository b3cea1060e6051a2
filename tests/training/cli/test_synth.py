"""``tinyvoice synth`` speaks a file or the grammar, as much of either as is asked for."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from training.cli.synth import app
from training.data.manifest import read_manifest

pytest.importorskip("espeakng_loader")


def spoken(folder: Path, *arguments: str) -> list[str]:
    options = ["-o", str(folder), "--voices", "espeak/en-us", "-w", "1"]
    result = CliRunner().invoke(app, [*arguments, *options])
    assert result.exit_code == 0, result.output
    return sorted(line.text for line in read_manifest(folder / "manifest.jsonl").utterances)


def test_a_count_bounds_a_file_and_the_grammar(tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("call mom\n\nstop\nplay music\n")
    assert spoken(tmp_path / "two", str(texts), "-n", "2") == ["call mom", "stop"]
    assert spoken(tmp_path / "all", str(texts)) == ["call mom", "play music", "stop"]
    assert len(spoken(tmp_path / "grammar", "-n", "3")) == 3
