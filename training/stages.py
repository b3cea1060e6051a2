"""What a run starts from and which weights it trains.

The recipe has three stages: the projector alone; then a LoRA adapter on the language model with
the projector frozen; then both. ``full`` tunes the projector with the whole language model. A stage
starts from the checkpoint that the stage before it wrote, or from backbones with a fresh projector.

Stages say what is trained, not how: rates and steps are the trainer's settings.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from tinyvoice.errors import ConfigurationError
from tinyvoice.model import checkpoint, lora
from tinyvoice.model.configuration import AUDIO_MODEL_ID, TEXT_MODEL_ID, ASRConfig
from tinyvoice.model.modeling import ASRModel
from tinyvoice.model.projectors import build_projector
from tinyvoice.model.timestamps import ALPHABET
from tinyvoice.model.weights import WeightFiles

Stage = Literal["projector", "lora", "projector_and_lora", "full"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelSettings:
    """The model to train: its backbones, its projector and its adapter."""

    checkpoint: str | None = "embedded"
    """Where encoder and language model come from: ``embedded``, a folder or a Hub checkpoint. Null
    takes them from ``audio_model_id`` and ``text_model_id``."""
    audio_model_id: str = AUDIO_MODEL_ID
    text_model_id: str = TEXT_MODEL_ID
    system_prompt: str | None = None
    """Null keeps the checkpoint's."""

    projector: Literal["fresh", "keep"] = "fresh"
    """``keep`` goes on with the checkpoint's projector, whatever the keys below say."""
    projector_type: str = "mlp"
    projector_pool_stride: int | None = None
    projector_hidden_dim: int | None = None
    downsample_rate: int | None = None
    num_experts: int | None = None
    num_experts_per_tok: int | None = None
    router_aux_loss_coef: float | None = None
    qformer_window_size: int | None = None
    qformer_hidden_size: int | None = None
    qformer_num_layers: int | None = None
    qformer_num_heads: int | None = None
    qformer_intermediate_size: int | None = None
    projector_shapes: dict[str, dict[str, int]] = field(default_factory=dict)
    """For each type the keys above that a fresh projector takes where they are null."""

    lora_rank: int | None = None
    lora_alpha: float | None = None
    lora_dropout: float | None = None
    lora_target_modules: tuple[str, ...] | None = None

    label_smoothing: float | None = None
    audio_token_dropout: float = 0.0
    """How often an audio token's embedding is replaced by zeros in training."""
    chunk_mask_probability: float = 0.0
    """How often a step's encoder pass sees only blocks of the past, as in streaming."""
    chunk_frames: tuple[int, int] = (8, 32)
    """Smallest and largest block, in encoder frames."""
    train_encoder: bool = False
    aligner: bool = False
    """Add a word aligner where the checkpoint has none. One that is there is kept."""


PROJECTOR_KEYS = (
    "projector_type",
    "projector_pool_stride",
    "projector_hidden_dim",
    "downsample_rate",
    "num_experts",
    "num_experts_per_tok",
    "router_aux_loss_coef",
    "qformer_window_size",
    "qformer_hidden_size",
    "qformer_num_layers",
    "qformer_num_heads",
    "qformer_intermediate_size",
)
LORA_KEYS = ("lora_rank", "lora_alpha", "lora_dropout", "lora_target_modules")


def build_model(settings: ModelSettings, stage: Stage) -> ASRModel:
    """Load or assemble the model of a run, in float32, with the weights of its stage trainable.

    Raises:
        CheckpointError: the checkpoint or a backbone cannot be loaded.
        ConfigurationError: settings that contradict each other.
        MissingExtraError: a LoRA stage without PEFT.
    """
    if settings.checkpoint is None:
        if settings.projector == "keep":
            raise ConfigurationError(
                "model.projector=keep needs model.checkpoint, the checkpoint whose projector is "
                "kept.",
                key="model.projector",
            )
        model = assemble_model(settings)
    else:
        model = checkpoint.load_checkpoint(settings.checkpoint, dtype=torch.float32)
        _apply_overrides(model.config, settings)
        if settings.projector == "fresh":
            _set_projector_keys(model.config, settings)
            model.projector = build_projector(model.config)
    if settings.aligner and model.aligner is None:
        model.config.aligner_alphabet = ALPHABET
        model.aligner = nn.Linear(model.config.encoder_dim or 0, model.config.aligner_classes)
    apply_stage(model, stage, settings)
    return model


def assemble_model(settings: ModelSettings) -> ASRModel:
    """Put an encoder and a language model together with a fresh projector between them."""
    folders = {
        key: checkpoint.resolve_folder(getattr(settings, key))
        for key in ("audio_model_id", "text_model_id")
    }
    audio_config: Any = checkpoint.read_backbone_config(
        folders["audio_model_id"], ("glmasr", "glmasr_encoder")
    )
    if audio_config.model_type == "glmasr_encoder":
        audio_config = ASRConfig(audio_config={"audio_config": audio_config.to_dict()}).audio_config
    text_config = checkpoint.read_backbone_config(folders["text_model_id"], None)
    tokenizer = checkpoint.load_tokenizer(folders["text_model_id"], folders["text_model_id"])
    config = ASRConfig(
        audio_config=audio_config,
        text_config={**text_config.to_dict(), "vocab_size": len(tokenizer)},
        audio_model_id=_portable(settings.audio_model_id, folders["audio_model_id"]),
        text_model_id=_portable(settings.text_model_id, folders["text_model_id"]),
    )
    _apply_overrides(config, settings)
    _set_projector_keys(config, settings)
    model = checkpoint.build_on_meta(config, folders["text_model_id"])
    place: dict[str, Any] = {"device": "cpu", "dtype": torch.float32}
    audio_files = WeightFiles(folders["audio_model_id"])
    tower = checkpoint.Backbone(
        config.encoder_config, audio_files, checkpoint.tower_prefix(audio_files)
    )
    checkpoint.load_tower(model, tower, **place)
    _load_language_model(model, WeightFiles(folders["text_model_id"]), place)
    model.projector = build_projector(config)
    checkpoint.replace_meta_buffers(model, torch.device("cpu"))
    model.use_processor(
        checkpoint.load_processor(
            folders["text_model_id"]
            if (folders["text_model_id"] / "preprocessor_config.json").is_file()
            else folders["audio_model_id"],
            folders["audio_model_id"],
            tokenizer,
        )
    )
    return model


def apply_stage(model: ASRModel, stage: Stage, settings: ModelSettings | None = None) -> None:
    """Make the weights of a stage trainable and all others frozen, in model and configuration.

    An adapter is added where the stage trains one and the model has none. The aligner trains with
    every stage: it takes nothing from the encoder but its output.

    Raises:
        ConfigurationError: a full fine-tune of a model that has an adapter.
    """
    settings = settings or ModelSettings()
    config = model.config
    config.freeze_projector = stage == "lora"
    config.freeze_language_model = stage != "full"
    config.freeze_encoder = not settings.train_encoder
    model.audio_tower.requires_grad_(settings.train_encoder)
    model.projector.requires_grad_(not config.freeze_projector)
    adapted = lora.has_adapter(model)
    if stage == "full":
        if adapted:
            raise ConfigurationError(
                "stage=full tunes the language model itself, and this checkpoint has a LoRA "
                "adapter: start from one without, or use stage=projector_and_lora.",
                key="stage",
            )
        model.language_model.requires_grad_(True)
        return
    model.language_model.requires_grad_(False)
    if stage == "projector":
        return
    if not adapted:
        _set_keys(config, settings, LORA_KEYS)
        lora.add_adapter(model)
    for name, parameter in model.language_model.named_parameters():
        parameter.requires_grad_(lora.LAYER_MARK in name)


def trainable_groups(model: ASRModel) -> dict[str, list[nn.Parameter]]:
    """Return the trainable parameters by the part whose learning rate they take.

    Parts are ``projector``, ``decoder`` (the language model or its adapter), ``encoder`` and
    ``aligner``; parts without trainable parameters are left out.
    """
    parts: dict[str, nn.Module | None] = {
        "projector": model.projector,
        "decoder": model.language_model,
        "encoder": model.audio_tower,
        "aligner": model.aligner,
    }
    groups = {
        name: [parameter for parameter in part.parameters() if parameter.requires_grad]
        for name, part in parts.items()
        if part is not None
    }
    return {name: parameters for name, parameters in groups.items() if parameters}


def trainable_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield names and trainable parameters."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name, parameter


def hold_frozen_weights_in(model: ASRModel, dtype: torch.dtype) -> None:
    """Cast frozen weights to ``dtype``, which saves their memory; trained ones stay float32.

    Small updates vanish in bfloat16, so what is trained must not be held in it.
    """
    for parameter in model.parameters():
        if not parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def _load_language_model(model: ASRModel, files: WeightFiles, place: dict[str, Any]) -> None:
    """Load a language model from its own folder, resized to the tokenizer."""
    names = files.keys_under("")
    tied = checkpoint.tied_names(model.language_model)
    if tied and set(tied) <= set(names):
        names.pop(tied[1])
    checkpoint.load_resized(model.language_model, files, names, tied[1:], **place)
    if tied:
        head: Any = model.language_model.get_output_embeddings()
        head.weight = model.get_input_embeddings().weight


def _apply_overrides(config: ASRConfig, settings: ModelSettings) -> None:
    """Set what concerns no weights."""
    config.audio_token_dropout = settings.audio_token_dropout
    _set_keys(config, settings, ("system_prompt", "label_smoothing"))


def _set_projector_keys(config: ASRConfig, settings: ModelSettings) -> None:
    """Set the keys that shape the projector: its type's shape, and over it what is given by key.

    Raises:
        ConfigurationError: ``projector_shapes`` has a key that shapes no projector.
    """
    for key, value in settings.projector_shapes.get(settings.projector_type, {}).items():
        if key not in PROJECTOR_KEYS[1:]:
            name = f"model.projector_shapes.{settings.projector_type}.{key}"
            raise ConfigurationError(
                f"{name} shapes no projector: choose among {', '.join(PROJECTOR_KEYS[1:])}.",
                key=name,
            )
        setattr(config, key, value)
    _set_keys(config, settings, PROJECTOR_KEYS)


def _set_keys(config: ASRConfig, settings: ModelSettings, keys: tuple[str, ...]) -> None:
    """Copy the settings that are not null."""
    for key in keys:
        value = getattr(settings, key)
        if value is not None:
            setattr(config, key, list(value) if isinstance(value, tuple) else value)


def _portable(model_id: str, folder: Path) -> str:
    """Return a Hub id as it is, and a local folder as the absolute path that it is."""
    return str(folder) if Path(model_id).is_dir() else model_id
