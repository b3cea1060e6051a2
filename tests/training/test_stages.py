"""Stages say which weights train, and models are built from checkpoints or from backbones."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.miniature import (
    LLM_DIM,
    PROJECTOR_TYPES,
    clips,
    random_model,
    write_backbones,
    write_checkpoint,
)
from tinyvoice.errors import CheckpointError, ConfigurationError
from tinyvoice.model.checkpoint import load_checkpoint
from tinyvoice.model.modeling import ASRModel
from training.stages import (
    ModelSettings,
    Stage,
    apply_stage,
    assemble_model,
    build_model,
    hold_frozen_weights_in,
    trainable_groups,
    trainable_parameters,
)


def trained_parts(model: ASRModel) -> set[str]:
    return set(trainable_groups(model))


def names(model: ASRModel) -> set[str]:
    return {name for name, _ in trainable_parameters(model)}


@pytest.mark.parametrize(
    ("stage", "parts"),
    [
        ("projector", {"projector"}),
        ("lora", {"decoder"}),
        ("projector_and_lora", {"projector", "decoder"}),
        ("full", {"projector", "decoder"}),
    ],
)
def test_a_stage_trains_its_parts(stage: Stage, parts: set[str]) -> None:
    model = random_model()
    apply_stage(model, stage)
    assert trained_parts(model) == parts
    adapted = {name for name in names(model) if "lora_" in name}
    if "lora" in stage:
        assert adapted == {name for name in names(model) if name.startswith("language_model")}
    else:
        assert not adapted
    assert model.config.freeze_projector == (stage == "lora")
    assert model.config.freeze_language_model == (stage != "full")


def test_the_encoder_trains_when_asked() -> None:
    model = random_model()
    apply_stage(model, "projector", ModelSettings(train_encoder=True))
    assert trained_parts(model) == {"projector", "encoder"}
    assert not model.config.freeze_encoder


def test_stages_follow_one_another(tmp_path: Path) -> None:
    first = ModelSettings(
        checkpoint=str(write_checkpoint(tmp_path / "published")), lora_rank=2, lora_alpha=4.0
    )
    build_model(first, "projector").save_pretrained(tmp_path / "published" / "one")

    second = replace(first, checkpoint=str(tmp_path / "published" / "one"), projector="keep")
    model = build_model(second, "lora")
    assert model.config.lora_rank == 2
    with torch.no_grad():
        for _, parameter in trainable_parameters(model):
            parameter.add_(0.01)
    model.save_pretrained(tmp_path / "published" / "two")

    third = replace(second, checkpoint=str(tmp_path / "published" / "two"))
    again = build_model(third, "projector_and_lora")
    assert trained_parts(again) == {"projector", "decoder"}
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_a_full_fine_tune_of_an_adapted_model_is_refused() -> None:
    model = random_model()
    apply_stage(model, "lora")
    with pytest.raises(ConfigurationError, match="LoRA adapter"):
        apply_stage(model, "full")


@pytest.mark.parametrize("projector", PROJECTOR_TYPES)
def test_a_fresh_projector_of_any_type_stands_on_a_checkpoints_backbones(
    tmp_path: Path, projector: str
) -> None:
    folder = write_checkpoint(tmp_path, "mlp")
    settings = ModelSettings(
        checkpoint=str(folder), projector_type=projector, projector_hidden_dim=24
    )
    model = build_model(settings, "projector")
    assert model.config.projector_type == projector
    published = load_checkpoint(folder)
    assert torch.equal(model.audio_tower.conv1.weight, published.audio_tower.conv1.weight)
    model.save_pretrained(tmp_path / "saved")
    for part in ("glm-asr", "qwen3"):
        (tmp_path / "saved" / part).symlink_to(folder / part)
    again = load_checkpoint(tmp_path / "saved")
    features = model.processor.features(clips(1.0))  # type: ignore[union-attr]
    assert again.generate(*features) == model.eval().generate(*features)


def test_a_type_has_a_shape_of_its_own_which_a_key_overrides(tmp_path: Path) -> None:
    shapes = {"mlp": {"projector_hidden_dim": 40}, "moe": {"projector_hidden_dim": 8}}
    settings = ModelSettings(checkpoint=str(write_checkpoint(tmp_path)), projector_shapes=shapes)
    assert build_model(settings, "projector").config.projector_hidden_dim == 40
    given = replace(settings, projector_hidden_dim=24)
    assert build_model(given, "projector").config.projector_hidden_dim == 24
    wrong = replace(settings, projector_shapes={"mlp": {"width": 3}})
    with pytest.raises(ConfigurationError, match=r"projector_shapes\.mlp\.width shapes no"):
        build_model(wrong, "projector")


def test_keeping_the_projector_keeps_its_shape_and_weights(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, "mosa")
    settings = ModelSettings(checkpoint=str(folder), projector="keep", projector_type="mlp")
    model = build_model(settings, "projector")
    assert model.config.projector_type == "mosa"
    for name, value in load_checkpoint(folder).projector.state_dict().items():
        assert torch.equal(model.projector.state_dict()[name], value)


def test_two_backbones_make_a_model(tmp_path: Path) -> None:
    audio, text = write_backbones(tmp_path)
    settings = ModelSettings(
        checkpoint=None,
        audio_model_id=str(audio),
        text_model_id=str(text),
        qformer_num_heads=4,
        projector_type="qformer",
        system_prompt="listen",
    )
    model = assemble_model(settings)
    assert model.config.llm_dim == LLM_DIM
    assert model.config.system_prompt == "listen"
    # The language model's vocabulary has grown by <audio>, the mean of the others.
    embedding = model.language_model.state_dict()["model.embed_tokens.weight"]
    rows = embedding.shape[0]
    torch.testing.assert_close(embedding[rows - 1], embedding[: rows - 1].mean(dim=0))
    assert len(model.generate(*model.processor.features(clips(1.0)))) == 1  # type: ignore[union-attr]

    model.save_pretrained(tmp_path / "saved")
    again = load_checkpoint(tmp_path / "saved")
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_an_aligner_is_added_only_where_there_is_none(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    model = build_model(ModelSettings(checkpoint=str(folder), aligner=True), "projector")
    assert model.aligner is not None
    assert model.aligner.out_features == 1 + 2 * 27
    assert trained_parts(model) == {"projector", "aligner"}
    assert build_model(ModelSettings(checkpoint=str(folder)), "projector").aligner is None


def test_frozen_weights_can_be_held_in_bfloat16() -> None:
    model = random_model()
    apply_stage(model, "lora")
    hold_frozen_weights_in(model, torch.bfloat16)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == (torch.float32 if "lora_" in name else torch.bfloat16), name


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"model\.projector=keep"):
        build_model(ModelSettings(checkpoint=None, projector="keep"), "projector")
    with pytest.raises(CheckpointError, match="nowhere"):
        build_model(ModelSettings(checkpoint=str(tmp_path / "nowhere")), "projector")
