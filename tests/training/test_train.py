"""Whole runs from Hydra's configuration: every experiment, stages in a row, two processes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tests.miniature import write_checkpoint
from tests.training.recordings import write_recordings
from tinyvoice.errors import ConfigurationError
from tinyvoice.model.checkpoint import load_checkpoint
from tinyvoice.model.configuration import AUDIO_MODEL_ID, ASRConfig
from tinyvoice.model.random_weights import PUBLISHED_PROJECTORS
from training.settings import parse_settings
from training.train import CONFIGS, RunSettings, clip_settings, open_data, run
from training.trainer import STATE_FILE, TrainerSettings

EXPERIMENTS = ("transcription", "mosa", "moe", "qformer", "mlp_lora", "mlp_fine_tune")


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        configuration = OmegaConf.to_container(compose("config", list(overrides)), resolve=True)
    assert isinstance(configuration, dict)
    return {str(key): value for key, value in configuration.items()}


@pytest.fixture
def small(tmp_path: Path) -> list[str]:
    """Overrides that train a miniature checkpoint on tones for a few steps."""
    write_recordings(tmp_path, 16)
    write_recordings(tmp_path, 4, seed=1, name="dev.jsonl")
    write_checkpoint(tmp_path / "model")
    return [
        "data=manifest",
        f"data.corpora.0.manifest={tmp_path}/m.jsonl",
        f"data.corpora.0.eval_manifest={tmp_path}/dev.jsonl",
        f"model.checkpoint={tmp_path}/model",
        "training.max_steps=3",
        "training.workers=0",
        "training.wandb=off",
        f"output_dir={tmp_path}/model/out",
    ]


def test_the_default_configuration_states_the_codes_own_defaults() -> None:
    settings = parse_settings(RunSettings, composed(), "")
    assert settings.training == TrainerSettings()
    assert settings.model.checkpoint == "embedded"
    assert settings.data.corpora[0].synthesis is not None


def test_a_large_gpu_takes_large_batches() -> None:
    settings = parse_settings(RunSettings, composed("training=large_gpu"), "")
    assert settings.training.batch.seconds == 600
    assert settings.training.rates == TrainerSettings().rates


def test_the_full_model_has_projectors_of_the_published_sizes() -> None:
    settings = parse_settings(RunSettings, composed("model=full"), "")
    assert settings.model.projector_shapes == PUBLISHED_PROJECTORS


def test_a_bounded_run_needs_no_more_clips_than_its_batches_hold() -> None:
    bounded = parse_settings(RunSettings, composed("training.max_steps=10"), "").training
    assert bounded.clips_per_process() == 10 * bounded.batch.max_clips
    assert parse_settings(RunSettings, composed(), "").training.clips_per_process() is None


def test_clips_are_padded_as_the_model_will_pad_them() -> None:
    settings = parse_settings(RunSettings, composed(), "")
    assert clip_settings(settings, ASRConfig(silence_padding_s=0.5)).silence_padding_s == 0.5


@pytest.mark.parametrize("stage", [(), ("+experiments=mlp_lora",)])
def test_the_documented_command_trains_the_full_model(stage: tuple[str, ...]) -> None:
    overrides = ("model=full", "data=loquacious", "training=large_gpu", *stage)
    settings = parse_settings(RunSettings, composed(*overrides), "")
    assert settings.model.checkpoint is None
    assert settings.model.audio_model_id == AUDIO_MODEL_ID
    assert settings.data.corpora[0].path == "speechbrain/LoquaciousSet"
    assert settings.training.batch.seconds == 600


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("model", ["embedded", "full"])
@pytest.mark.parametrize("data", ["synthesis", "loquacious", "multi_asr", "manifest"])
def test_every_combination_of_groups_is_a_valid_configuration(
    experiment: str, model: str, data: str
) -> None:
    overrides = [f"+experiments={experiment}", f"model={model}", f"data={data}"]
    projector = experiment if experiment in ("mosa", "moe", "qformer") else "mlp"
    settings = parse_settings(RunSettings, composed(*overrides, "training.max_steps=7"), "")
    assert settings.training.max_steps == 7
    assert settings.model.projector_type == projector
    assert settings.data.corpora


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_trains_a_checkpoint_that_loads(
    experiment: str, small: list[str], tmp_path: Path
) -> None:
    overrides = [f"+experiments={experiment}", "model.qformer_num_heads=4", "model.num_experts=2"]
    result = run(composed(*small, *overrides))
    assert result.step == 3
    assert result.figures.keys() == {"loss", "wer"}
    for folder in (result.checkpoint, result.best):
        assert folder is not None
        model = load_checkpoint(folder)
        assert model.config.use_lora == (experiment == "mlp_lora")


def test_stages_follow_one_another(small: list[str], tmp_path: Path) -> None:
    out = tmp_path / "model"
    first = run(composed(*small, f"output_dir={out}/one"))
    second = run(
        composed(
            *small,
            "+experiments=mlp_lora",
            f"model.checkpoint={first.checkpoint}",
            f"output_dir={out}/two",
        )
    )
    third = run(
        composed(
            *small,
            "+experiments=mlp_lora",
            "stage=projector_and_lora",
            f"model.checkpoint={second.checkpoint}",
            f"output_dir={out}/three",
        )
    )
    models = [load_checkpoint(result.checkpoint) for result in (first, second, third)]
    projectors = [model.projector.state_dict()["linear_1.weight"] for model in models]
    assert torch.equal(projectors[0], projectors[1])
    assert not torch.equal(projectors[1], projectors[2])


def test_the_number_of_samples_and_what_was_left_out_are_told(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(manifest.read_text() + "broken\n")
    run(composed(*small, "data.max_train_samples=5", "data.on_error=skip"))
    told = capsys.readouterr().err
    assert f"training: 5 clips of {manifest}" in told
    # Before training and, where it is read, at the end.
    assert told.count(f"left out of {manifest}: 1 broken lines") == 2
    assert f"{manifest}:17: not a line of JSON" in told.splitlines()[-1]


def test_clips_that_cannot_be_cut_are_told(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = parse_settings(RunSettings, composed(*small, "data.cut_probability=0.5"), "").data
    open_data(cut)
    assert "warning" not in capsys.readouterr().err, "the recordings have word times"
    manifest = tmp_path / "m.jsonl"
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    for line in lines:
        del line["words"]
    manifest.write_text("\n".join(map(json.dumps, lines)))
    open_data(cut)
    assert f"data.cut_probability is 0.5, but {manifest} has no word" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+training.steps=3", r"training\.steps is not a setting"),
        ("stage=everything", "stage is 'everything'"),
        ("data.corpora=[]", r"data\.corpora is empty"),
        ("data.longest_s=40", r"data\.longest_s is 40, and must be at most 30"),
        ("data.corpora.0.manifest=null", "No corpus .* has a training part"),
        ("training.batch.seconds=-1", r"batch\.seconds must be positive"),
        ("+data.augmentation.echo={}", "echo is not a transform"),
    ],
)
def test_mistakes_are_named(small: list[str], override: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        run(composed(*small, override))


def environment() -> dict[str, str]:
    root = Path(__file__).resolve().parents[2]
    return os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}


def test_two_processes_train_as_one_with_the_doubled_batch(
    small: list[str], tmp_path: Path
) -> None:
    shared = [
        *small,
        "data.cut_probability=0.5",
        "training.schedule.warmup_steps=1",
        "training.max_steps=4",
    ]
    one = [*shared, "training.batch.seconds=8", "training.batch.max_clips=64"]
    whole = run(composed(*one, f"output_dir={tmp_path}/model/one"))
    two = [*shared, "training.batch.seconds=4", "training.batch.max_clips=32"]
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
        *("-m", "training.train", *two, f"output_dir={tmp_path}/model/two"),
    ]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "with 2 process(es)" in done.stderr
    saved = tmp_path / "model" / "two" / whole.checkpoint.name / STATE_FILE
    parts = torch.load(saved, weights_only=True)["weights"]
    for name, value in torch.load(whole.checkpoint / STATE_FILE)["weights"].items():
        torch.testing.assert_close(parts[name], value, atol=1e-5, rtol=0)


def test_a_mistake_ends_the_program_with_one_sentence(small: list[str]) -> None:
    command = [sys.executable, "-m", "training.train", *small, "stage=everything"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: stage is 'everything'")
    assert "Traceback" not in done.stderr
