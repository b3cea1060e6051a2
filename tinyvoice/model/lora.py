"""LoRA adapters on the language model, read and written in PEFT's file format.

The adapter layers are injected into the language model in place, which therefore keeps its class
and its methods. PEFT is an optional dependency, asked for only when a model has an adapter.
"""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tinyvoice.errors import CheckpointError, MissingExtraError
from tinyvoice.model.weights import (
    WeightFiles,
    check_names,
    make_tied,
    read_json,
    write_json,
    write_weights,
)

if TYPE_CHECKING:
    from tinyvoice.model.modeling import ASRModel

logger = logging.getLogger(__name__)

CONFIG_FILE = "adapter_config.json"
ADAPTER_WEIGHTS_FILE = "adapter_model.safetensors"
ADAPTER_FILES = (CONFIG_FILE, ADAPTER_WEIGHTS_FILE)
ADAPTER_NAME = "default"
# PEFT saves a model's tensors under its own wrapper's path.
PEFT_PREFIX = "base_model.model."
LAYER_MARK = "lora_"

# What of adapter_config.json shapes the layers. The rest is either bookkeeping or another method,
# which check_adapter_config refuses where it is switched on.
LAYER_KEYS = (
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "bias",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
    "layers_pattern",
    "exclude_modules",
)
UNSUPPORTED_KEYS = (
    "use_dora",
    "modules_to_save",
    "trainable_token_indices",
    "megatron_config",
    "target_parameters",
    "layer_replication",
    "lora_bias",
    "use_qalora",
)


def peft() -> Any:
    """The PEFT library, or an error that says how to get it."""
    try:
        import peft as library
    except ImportError as error:
        raise MissingExtraError("lora", "a checkpoint with a LoRA adapter") from error
    if torch.distributed.is_available():
        # PEFT takes it for imported by transformers, which a quick start puts off.
        importlib.import_module("torch.distributed.tensor")
    return library


def has_adapter(model: ASRModel) -> bool:
    """Whether the language model has LoRA layers."""
    return any(LAYER_MARK in name for name, _ in model.language_model.named_modules())


def add_adapter(model: ASRModel) -> None:
    """Inject a fresh adapter as the configuration describes it; only it remains trainable."""
    config = model.config
    settings = peft().LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=list(config.lora_target_modules or ()),
        bias="none",
        task_type="CAUSAL_LM",
    )
    inject(model, settings)
    config.use_lora = True


def inject(model: ASRModel, settings: Any) -> None:
    """Put LoRA layers into the language model and freeze the rest of it."""
    try:
        peft().inject_adapter_in_model(settings, model.language_model, ADAPTER_NAME)
    except ValueError as error:
        raise CheckpointError(
            f"the adapter does not fit the language model ({error})", key="target_modules"
        ) from error
    model.adapter_settings = settings
    for name, parameter in model.language_model.named_parameters():
        parameter.requires_grad_(LAYER_MARK in name or not model.config.freeze_language_model)


def load_adapter(
    model: ASRModel,
    folder: Path,
    max_file_bytes: int | None,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
) -> None:
    """Inject the adapter of a checkpoint folder and load its weights.

    A checkpoint that asks for LoRA but has no adapter files gets a fresh adapter, as tiny-audio
    gives it one. That changes no output, so a warning says that whatever was trained is missing.
    """
    if not (folder / CONFIG_FILE).is_file():
        if (folder / ADAPTER_WEIGHTS_FILE).is_file():
            raise CheckpointError(
                f"{CONFIG_FILE} is missing in {folder} beside {ADAPTER_WEIGHTS_FILE}",
                key=CONFIG_FILE,
            )
        logger.warning(
            "use_lora is set in %s, but %s is missing there: a fresh adapter takes its place, "
            "which has learnt nothing; fetch the checkpoint again if it was trained with one",
            folder / "config.json",
            CONFIG_FILE,
        )
        add_adapter(model)
        return
    files = WeightFiles(folder, ADAPTER_WEIGHTS_FILE, max_file_bytes)
    inject(model, adapter_settings(read_json(folder / CONFIG_FILE), folder))
    module: Any = model.language_model
    expected = {
        key: tuple(value.shape) for key, value in module.state_dict().items() if LAYER_MARK in key
    }
    names = {model_name(key): key for key in files.files}
    # PEFT adds whole embeddings to a file when a vocabulary was resized.
    for name in embedding_names(module):
        if name in names:
            expected[name] = tuple(module.state_dict()[name].shape)
    check_names(files, names, expected, set(), "LoRA adapter", file_name)
    tensors = files.read(names.values(), device, dtype)
    module.load_state_dict(
        {key: tensors[name] for key, name in names.items()}, strict=False, assign=True
    )
    make_tied(module)
    model.language_model_tuned |= any(name in names for name in embedding_names(module))
    for name, parameter in module.named_parameters():
        if LAYER_MARK in name:
            parameter.requires_grad_(True)


def warn_of_unused_files(folder: Path) -> None:
    """Say so where a checkpoint that does not ask for LoRA has adapter files all the same."""
    unused = [name for name in ADAPTER_FILES if (folder / name).is_file()]
    if unused:
        logger.warning(
            "%s has %s, but use_lora is not set in its config.json, so the adapter is not used; "
            "set use_lora to true if it belongs to this checkpoint, or else remove it",
            folder,
            " and ".join(unused),
        )


def embedding_names(language_model: Any) -> list[str]:
    """Tensor names of the input and the output embedding."""
    owners = (language_model.get_input_embeddings(), language_model.get_output_embeddings())
    return [f"{name}.weight" for name, owner in language_model.named_modules() if owner in owners]


def adapter_settings(content: dict[str, Any], folder: Path) -> Any:
    """A ``LoraConfig`` from the file's values that matter; other methods are refused."""
    where = folder / CONFIG_FILE
    if content.get("peft_type") != "LORA":
        raise CheckpointError(
            f"peft_type in {where} is {content.get('peft_type')!r}; only LORA is known",
            key="peft_type",
        )
    for key in UNSUPPORTED_KEYS:
        if content.get(key):
            raise CheckpointError(f"{key} in {where} is set; it is not supported", key=key)
    settings = {key: content[key] for key in LAYER_KEYS if content.get(key) is not None}
    if not settings.get("target_modules"):
        raise CheckpointError(f"target_modules is missing in {where}", key="target_modules")
    try:
        return peft().LoraConfig(**settings, task_type="CAUSAL_LM", inference_mode=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{where} cannot be used ({error})", key=CONFIG_FILE) from error


def model_name(key: str) -> str:
    """A tensor's name in the module for its name in an adapter file."""
    name = key.removeprefix(PEFT_PREFIX)
    for kind in ("lora_A", "lora_B"):
        name = name.replace(f".{kind}.weight", f".{kind}.{ADAPTER_NAME}.weight")
    return name


def file_name(key: str) -> str:
    """A tensor's name in an adapter file for its name in the module."""
    return PEFT_PREFIX + key.replace(f".{ADAPTER_NAME}.", ".")


def save_adapter(model: ASRModel, folder: Path, dtype: torch.dtype | None) -> None:
    """Write the adapter's two files."""
    tensors = {
        file_name(key): value
        for key, value in model.language_model.state_dict().items()
        if LAYER_MARK in key
    }
    write_weights(folder / ADAPTER_WEIGHTS_FILE, tensors, dtype)
    settings = model.adapter_settings
    content = {
        key: sorted(value) if isinstance(value, set) else value
        for key, value in settings.to_dict().items()
    }
    # Empty, not null: readers turn null into the name "None" and look for that on the Hub.
    content |= {"base_model_name_or_path": "", "inference_mode": True}
    write_json(folder / CONFIG_FILE, content)


def plain_state_dict(language_model: nn.Module) -> dict[str, Tensor]:
    """The language model's own tensors under the names they have without an adapter."""
    return {
        key.replace(".base_layer.", "."): value
        for key, value in language_model.state_dict().items()
        if LAYER_MARK not in key
    }
