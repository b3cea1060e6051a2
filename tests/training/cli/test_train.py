"""``tinyvoice train`` hands everything behind it to Hydra."""

import sys

import pytest
from typer.testing import CliRunner

from training.cli.train import app


def test_overrides_reach_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["tinyvoice", "train"])
    arguments = ["+experiments=mosa", "training.max_steps=10", "--cfg", "job"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "projector_type: mosa" in result.output
    assert "max_steps: 10" in result.output


def test_help_names_the_experiments() -> None:
    output = CliRunner().invoke(app, ["--help"]).output
    for name in ("transcription", "mosa", "moe", "qformer", "mlp_lora", "mlp_fine_tune"):
        assert name in output
