from pathlib import Path

import torch
from safetensors.torch import save_file

from training.evaluation.results_table import replace_table
from training.recipe_table import (
    BEGIN,
    END,
    PROJECTORS,
    error_rate,
    later_stages,
    trained_parameters,
)

ROOT = Path(__file__).parents[2]


def test_every_projector_type_has_a_row() -> None:
    assert [run.name for run in PROJECTORS] == ["mlp", "mosa", "moe", "qformer"]
    experiments = {run.overrides[0].partition("=")[2] for run in PROJECTORS}
    for name in experiments:
        assert (ROOT / "configs" / "experiments" / f"{name}.yaml").exists()


def test_each_stage_starts_where_the_one_before_ended(tmp_path: Path) -> None:
    lora, both = later_stages(tmp_path)
    assert f"model.checkpoint={tmp_path / 'mlp' / 'best'}" in lora.overrides
    assert f"model.checkpoint={tmp_path / lora.name / 'best'}" in both.overrides


def test_trained_parameters_are_those_of_the_stage(tmp_path: Path) -> None:
    save_file(
        {"projector.a": torch.zeros(3, 4), "aligner.weight": torch.zeros(7)},
        tmp_path / "model.safetensors",
    )
    assert trained_parameters(tmp_path, "mlp") == 12
    save_file({"lora_A": torch.zeros(5)}, tmp_path / "adapter_model.safetensors")
    assert trained_parameters(tmp_path, "lora") == 5
    assert trained_parameters(tmp_path, "both") == 17


def test_the_guide_has_a_place_for_the_table() -> None:
    guide = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert "| new |" in replace_table(guide, "| new |", BEGIN, END)


def test_error_rates_have_their_interval() -> None:
    figures = {"wer": 0.31239, "wer_interval": [0.27815, 0.3459]}
    assert error_rate(figures) == "31.2% (27.8% to 34.6%)"
