"""Checkpoints in tiny-audio's layout: reading, checking, writing.

A checkpoint is a folder (local, on the Hub, or shipped with the package) with ``config.json``,
``model.safetensors`` that holds ``projector.*``, a tokenizer, ``preprocessor_config.json`` and,
where used, a LoRA adapter in PEFT's format. Encoder and language model come from the two ids in the
configuration: folders relative to the checkpoint, other folders, or Hub repositories. A checkpoint
with ``embedded_backbones`` holds those weights itself.

A checkpoint that is not whole is refused with the key and the reason. Nothing in it is executed:
``auto_map`` and Python files are ignored, pickled weights refused.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig
from transformers.utils import logging as transformers_logging

import tinyvoice
from tinyvoice.errors import CheckpointError, ConfigurationError
from tinyvoice.model import lora
from tinyvoice.model.configuration import FORMAT_VERSION, MAX_LAYERS, ASRConfig
from tinyvoice.model.modeling import AUDIO_TOKEN, ASRModel
from tinyvoice.model.projectors import PROJECTOR_GROUP, PROJECTORS, find_projector
from tinyvoice.model.skeleton import WithoutWeights
from tinyvoice.model.weights import (
    WEIGHTS_FILE,
    WeightFiles,
    check_names,
    load_into,
    make_tied,
    more,
    read_json,
    write_json,
    write_weights,
)

logger = logging.getLogger(__name__)

EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).parent / "embedded"
# Where an encoder's tensors may lie in its own repository: as transformers writes GLM-ASR now, as
# published, and a bare encoder.
TOWER_PREFIXES = ("model.audio_tower.", "audio_tower.", "")
HUB_FILES = ("*.json", "*.jinja", "*.safetensors", "*.txt", "*.model")


@dataclass(frozen=True)
class Backbone:
    """Encoder or language model to load: its configuration and where its tensors are.

    ``prefix`` is what stands before the module's own tensor names in the files.
    """

    config: PreTrainedConfig
    files: WeightFiles
    prefix: str


def resolve_folder(
    name: str | Path, beside: Path | None = None, revision: str | None = None
) -> Path:
    """The local folder of a checkpoint: ``"embedded"``, a folder, or a Hub repository.

    ``beside`` is a folder that relative names are tried against first. Raises
    :class:`CheckpointError` when the name is neither, or cannot be downloaded.
    """
    if str(name) == EMBEDDED:
        if not (EMBEDDED_FOLDER / "config.json").is_file():
            raise CheckpointError(
                "this installation has no embedded checkpoint; give a folder or a Hub name",
                key=EMBEDDED,
            )
        return EMBEDDED_FOLDER
    if beside is not None and str(name) and (beside / name).is_dir():
        return (beside / name).resolve()
    if Path(name).is_dir():
        return Path(name).resolve()
    if Path(name).exists():
        raise CheckpointError(f"{name} is a file; give the folder it lies in", key=str(name))
    return _hub_folder(str(name), revision)


def _hub_folder(name: str, revision: str | None) -> Path:
    """The cached copy of a Hub repository, downloaded where needed."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(
            f"there is no folder {name}; give an existing one or a Hub name like owner/model",
            key=name,
        )
    patterns = list(HUB_FILES)
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except HFValidationError as error:
        raise CheckpointError(
            f"{name!r} is neither a folder nor a valid Hub name like owner/model", key=name
        ) from error
    except HfHubHTTPError as error:
        raise CheckpointError(
            f"the Hub refused {name} ({error.response.status_code}); check the name, and for a "
            "private or gated repository log in with `hf auth login`",
            key=name,
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        # The Hub client has no common base for "offline", "not cached" and broken connections.
        raise CheckpointError(
            f"{name} is not in the local cache and the Hub cannot be reached; connect once and run "
            f"`hf download {name}`, or give a local folder instead",
            key=name,
        ) from error


def load_checkpoint(
    name: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    revision: str | None = None,
    max_file_bytes: int | None = None,
    config: ASRConfig | None = None,
) -> ASRModel:
    """Build a model from a checkpoint, with tokenizer and processor, in evaluation mode.

    ``config`` replaces the one in the folder. Weights stored in another precision are cast to
    ``dtype``. Raises :class:`CheckpointError`.
    """
    folder = resolve_folder(name, revision=revision)
    content = config.to_dict() if config is not None else read_json(folder / "config.json")
    check_config(content, folder)
    own = WeightFiles(folder, max_file_bytes=max_file_bytes)
    encoder, language, content = find_backbones(content, folder, own, max_file_bytes)
    tokenizer = load_tokenizer(folder, language.files.folder)
    text_config = {**language.config.to_dict(), "vocab_size": vocabulary(language, tokenizer, own)}
    asr_config = build_config({**content, "text_config": text_config}, folder)
    asr_config.name_or_path = str(name)
    model = build_on_meta(asr_config, folder)

    place: dict[str, Any] = {"device": device, "dtype": dtype}
    load_tower(model, encoder, **place)
    load_language_model(model, language, own, **place)
    load_own(model, own, **place)
    replace_meta_buffers(model, torch.device(device))
    if asr_config.use_lora:
        lora.load_adapter(model, folder, max_file_bytes, **place)
    else:
        lora.warn_of_unused_files(folder)
    processor = load_processor(folder, encoder.files.folder, tokenizer)
    check_processor(processor, asr_config, folder)
    model.use_processor(processor)
    apply_freezing(model)
    return model.eval()


def check_config(content: dict[str, Any], folder: Path) -> None:
    """Refuse what is recognisably not ours or not yet known, before anything is built."""
    where = folder / "config.json"
    kind = content.get("model_type")
    if kind != ASRConfig.model_type:
        raise CheckpointError(
            f"model_type in {where} is {kind!r}, not {ASRConfig.model_type!r}; "
            "this is no speech recognition checkpoint of tiny-audio's format",
            key="model_type",
        )
    version = content.get("format_version", FORMAT_VERSION)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise CheckpointError(
            f"format_version in {where} is {version!r}; known are 1 to {FORMAT_VERSION}",
            key="format_version",
        )
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"format_version in {where} is {version}, newer than {FORMAT_VERSION}, the newest that "
            f"tinyvoice {tinyvoice.__version__} reads; update tinyvoice",
            key="format_version",
        )
    check_writer(content.get("tinyvoice_version"), where)
    check_depth(content, where)
    projector = content.get("projector_type", "mlp")
    if not isinstance(projector, str) or find_projector(projector) is None:
        raise CheckpointError(
            f"projector_type in {where} is {projector!r}; known are "
            f"{', '.join(sorted(PROJECTORS))}, register_projector adds your own, and a package "
            f"announces one in the entry-point group {PROJECTOR_GROUP}",
            key="projector_type",
        )


def check_writer(version: object, where: Path) -> None:
    """Refuse the version of tinyvoice that wrote a checkpoint if it is a later major one."""
    if version is None:
        return
    major = str(version).partition(".")[0]
    if not isinstance(version, str) or not major.isdecimal():
        raise CheckpointError(
            f"tinyvoice_version in {where} is {version!r}; it must be like "
            f"{tinyvoice.__version__!r}, or left out",
            key="tinyvoice_version",
        )
    if int(major) > int(tinyvoice.__version__.partition(".")[0]):
        raise CheckpointError(
            f"tinyvoice_version in {where} is {version}, and this is tinyvoice "
            f"{tinyvoice.__version__}; update tinyvoice",
            key="tinyvoice_version",
        )


def check_depth(content: dict[str, Any], where: Path, path: str = "") -> None:
    """Refuse absurd numbers of layers in a configuration and those nested in it.

    The configuration classes of transformers already build a list entry for each layer.
    """
    for key, value in content.items():
        if isinstance(value, dict):
            check_depth(value, where, f"{path}{key}.")
        elif str(key).endswith("layers") and isinstance(value, int) and value > MAX_LAYERS:
            raise CheckpointError(
                f"{path}{key} in {where} is {value}, more than {MAX_LAYERS}; correct it",
                key=f"{path}{key}",
            )


def build_config(content: dict[str, Any], folder: Path) -> ASRConfig:
    """The configuration from a checked dictionary; its faults become checkpoint errors."""
    try:
        return ASRConfig.from_dict(content)
    except ConfigurationError as error:
        raise CheckpointError(f"config.json in {folder}: {error}", key=error.key) from error
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"config.json in {folder} cannot be used ({error}); correct or fetch it again",
            key="config.json",
        ) from error


def find_backbones(
    content: dict[str, Any], folder: Path, own: WeightFiles, max_file_bytes: int | None
) -> tuple[Backbone, Backbone, dict[str, Any]]:
    """Where encoder and language model come from, and the configuration with their own in it."""
    if content.get("embedded_backbones"):
        config = build_config(content, folder)
        tower = Backbone(config.encoder_config, own, "audio_tower.")
        return tower, Backbone(config.language_config, own, "language_model."), content
    ids = {}
    for key in ("audio_model_id", "text_model_id"):
        backbone_id = content.get(key, getattr(ASRConfig, key))
        if not isinstance(backbone_id, str) or not backbone_id:
            raise CheckpointError(
                f"{key} in {folder / 'config.json'} is {backbone_id!r}; it must name a model",
                key=key,
            )
        ids[key] = resolve_folder(backbone_id, beside=folder)
        if (folder / backbone_id).is_dir() or Path(backbone_id).is_dir():
            content = {**content, key: str(ids[key])}
    audio_config = read_backbone_config(ids["audio_model_id"], ("glmasr", "glmasr_encoder"))
    text_config = read_backbone_config(ids["text_model_id"], None)
    encoder_config = getattr(audio_config, "audio_config", audio_config)
    if encoder_config is audio_config:
        # A bare encoder: the layout wants the whole GLM-ASR configuration around it.
        outer = content.get("audio_config") or {"model_type": "glmasr"}
        content = {**content, "audio_config": {**outer, "audio_config": encoder_config.to_dict()}}
    else:
        content = {**content, "audio_config": audio_config.to_dict()}
    tower_files = WeightFiles(ids["audio_model_id"], max_file_bytes=max_file_bytes)
    text_files = WeightFiles(ids["text_model_id"], max_file_bytes=max_file_bytes)
    prefix = tower_prefix(tower_files)
    return (
        Backbone(encoder_config, tower_files, prefix),
        Backbone(text_config, text_files, ""),
        content,
    )


def read_backbone_config(folder: Path, kinds: tuple[str, ...] | None) -> PreTrainedConfig:
    """A backbone's own configuration, of one of the model types that can serve."""
    content = read_json(folder / "config.json")
    kind = content.get("model_type")
    if kinds is not None and kind not in kinds:
        raise CheckpointError(
            f"model_type in {folder / 'config.json'} is {kind!r}; it must be one of "
            f"{', '.join(kinds)}",
            key="model_type",
        )
    check_depth(content, folder / "config.json")
    content = {
        key: value for key, value in content.items() if key not in ("auto_map", "model_type")
    }
    try:
        return AutoConfig.for_model(str(kind), **content)
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{folder / 'config.json'} cannot be used ({error}); fetch the model again",
            key="model_type",
        ) from error


def tower_prefix(files: WeightFiles) -> str:
    """What stands before the encoder's tensor names in a GLM-ASR or encoder folder."""
    for prefix in TOWER_PREFIXES:
        if f"{prefix}conv1.weight" in files.files:
            return prefix
    raise CheckpointError(
        f"{files.folder} has no audio encoder: none of "
        f"{', '.join(f'{prefix}conv1.weight' for prefix in TOWER_PREFIXES)} is in its weights",
        key="conv1.weight",
    )


def load_tokenizer(folder: Path, fallback: Path) -> Any:
    """The checkpoint's tokenizer, or else the language model's; ``<audio>`` is added if missing."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    for place in (folder, fallback):
        files = [place / name for name in ("tokenizer.json", "vocab.json")]
        if any(file.is_file() for file in files):
            break
    else:
        raise CheckpointError(
            f"tokenizer.json is missing in {folder} and in {fallback}", key="tokenizer.json"
        )
    # tokenizer.json says everything; the class named beside it may be remote code.
    kind = PreTrainedTokenizerFast if files[0].is_file() else AutoTokenizer
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        tokenizer = kind.from_pretrained(place, local_files_only=True)
    except Exception as error:
        # The Rust tokenizer raises bare Exception for malformed files.
        raise CheckpointError(
            f"the tokenizer in {place} cannot be read ({error}); fetch it again",
            key="tokenizer.json",
        ) from error
    finally:
        transformers_logging.set_verbosity(level)
    add_audio_token(tokenizer)
    return tokenizer


def add_audio_token(tokenizer: Any) -> None:
    """Make ``<audio>`` a token of its own, kept apart from the text around it."""
    from transformers import AddedToken

    if AUDIO_TOKEN not in tokenizer.get_vocab():
        token = AddedToken(AUDIO_TOKEN, normalized=False, special=True)
        tokenizer.add_tokens([token], special_tokens=True)


def vocabulary(language: Backbone, tokenizer: Any, own: WeightFiles) -> int:
    """Rows of the language model's embedding.

    Embedded weights keep theirs; a separate language model is resized to the tokenizer's length,
    which drops unused rows or adds one for ``<audio>``.
    """
    if language.files is not own:
        return len(tokenizer)
    rows = int(getattr(language.config, "vocab_size", 0))
    if rows < len(tokenizer):
        raise CheckpointError(
            f"the tokenizer in {own.folder} has {len(tokenizer)} tokens, but the language model "
            f"only {rows} rows",
            key="vocab_size",
        )
    return rows


def build_on_meta(config: ASRConfig, folder: Path) -> ASRModel:
    """The modules without memory or initialisation; weights are assigned afterwards."""
    try:
        with WithoutWeights():
            return ASRModel(config)
    except (TypeError, ValueError, RuntimeError, ConfigurationError, AssertionError) as error:
        raise CheckpointError(
            f"no model can be built from config.json in {folder} ({error}); correct it",
            key="config.json",
        ) from error


def load_tower(model: ASRModel, encoder: Backbone, **place: Any) -> None:
    """Encoder weights, and no other tensor of a whole GLM-ASR checkpoint."""
    names = encoder.files.keys_under(encoder.prefix)
    place["prefix"] = encoder.prefix
    load_into(model.audio_tower, encoder.files, names, what="audio encoder", **place)


def load_language_model(
    model: ASRModel, language: Backbone, own: WeightFiles, **place: Any
) -> None:
    """Language model weights: embedded or fully tuned ones here, otherwise from its own folder."""
    tuned = own.keys_under("language_model.")
    embedded = language.files is own
    files, names = (
        (own, tuned) if tuned or embedded else (language.files, language.files.keys_under(""))
    )
    model.language_model_tuned = bool(tuned) or model.language_model_tuned
    module: Any = model.language_model
    tied = tied_names(module)
    if tied and set(tied) <= set(names):
        # Both names of one tensor: the second is the same by configuration.
        names = {key: name for key, name in names.items() if key != tied[1]}
    elif tied and tied[1] in names:
        names = {tied[0] if key == tied[1] else key: name for key, name in names.items()}
    if files is own:
        place |= {"optional": tied[1:], "prefix": "language_model."}
        load_into(module, files, names, what="language model", **place)
    else:
        load_resized(module, files, names, tied[1:], **place)
    make_tied(module)


def tied_names(language_model: Any) -> tuple[str, ...]:
    """Names of the input and output embedding if they are one tensor, otherwise nothing."""
    if not language_model.config.tie_word_embeddings:
        return ()
    by_module = {module: name for name, module in language_model.named_modules()}
    pair = (language_model.get_input_embeddings(), language_model.get_output_embeddings())
    return tuple(f"{by_module[module]}.weight" for module in pair)


def load_resized(
    module: Any, files: WeightFiles, names: dict[str, str], optional: tuple[str, ...], **place: Any
) -> None:
    """Weights of a language model whose vocabulary differs from the tokenizer's length.

    Rows beyond the length are dropped; new rows are the mean of the old ones, exactly, so that two
    loads of one checkpoint give the same tokens.
    """
    rows = module.config.vocab_size
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    resized = [
        key
        for key in names
        if key in expected
        and len(expected[key]) == 2
        and expected[key][0] == rows
        and is_embedding(module, key)
    ]
    for key in resized:
        shape = files.shapes[names[key]]
        expected[key] = (shape[0], *expected[key][1:])
    check_names(files, names, expected, set(optional), "language model")
    tensors = files.read(names.values(), place["device"], place["dtype"])
    state = {key: tensors[name] for key, name in names.items()}
    for key in resized:
        state[key] = resize_rows(state[key], rows)
    module.load_state_dict(state, strict=False, assign=True)


def is_embedding(module: Any, key: str) -> bool:
    """Whether a tensor name is that of the input or output embedding."""
    owner = module.get_submodule(key.rpartition(".")[0])
    return owner is module.get_input_embeddings() or owner is module.get_output_embeddings()


def resize_rows(weight: torch.Tensor, rows: int) -> torch.Tensor:
    """A (vocabulary, width) matrix cut to ``rows``, or filled up with its mean row."""
    if weight.shape[0] >= rows:
        return weight[:rows].clone()
    mean = weight.float().mean(dim=0, keepdim=True).to(weight.dtype)
    return torch.cat([weight, mean.expand(rows - weight.shape[0], -1)])


def load_own(model: ASRModel, own: WeightFiles, **place: Any) -> None:
    """Projector and aligner; refuses tensors that belong to nothing."""
    known = ["projector.", "language_model."]
    parts: dict[str, nn.Module] = {"projector": model.projector}
    if model.aligner is not None:
        parts["aligner"] = model.aligner
        known.append("aligner.")
    for what, module in parts.items():
        prefix = f"{what}."
        load_into(module, own, own.keys_under(prefix), prefix=prefix, what=what, **place)
    if model.config.embedded_backbones:
        known.append("audio_tower.")
    stray = sorted(key for key in own.files if not key.startswith(tuple(known)))
    if stray:
        raise CheckpointError(
            f"{own.folder}/{own.name} has {stray[0]}, which this configuration has no place for"
            f"{more(stray)}",
            key=stray[0],
        )


def replace_meta_buffers(model: nn.Module, device: torch.device, every: bool = False) -> None:
    """Compute the buffers that no file stores (rotary frequencies) where they are still empty.

    ``every`` computes all of them, for memory that was allocated and not filled.
    """
    for module in model.modules():
        buffers = list(module.named_buffers(recurse=False))
        empty = [name for name, buffer in buffers if every or buffer.is_meta]
        if not empty:
            continue
        fresh: Any = type(module)(config=module.config)
        for name in empty:
            module.register_buffer(name, getattr(fresh, name).to(device), persistent=False)


def load_processor(folder: Path, fallback: Path, tokenizer: Any) -> Any:
    """Feature extractor (the checkpoint's, or else the encoder's) and tokenizer together."""
    from transformers import WhisperFeatureExtractor

    from tinyvoice.model.processing import ASRProcessor

    places = [
        place for place in (folder, fallback) if (place / "preprocessor_config.json").is_file()
    ]
    if not places:
        raise CheckpointError(
            f"preprocessor_config.json is missing in {folder}; fetch the checkpoint again",
            key="preprocessor_config.json",
        )
    content = read_json(places[0] / "preprocessor_config.json")
    content = {key: value for key, value in content.items() if key != "auto_map"}
    template = folder / "chat_template.jinja"
    try:
        extractor: Any = WhisperFeatureExtractor.from_dict(content)
        chat_template = template.read_text(encoding="utf-8") if template.is_file() else None
        return ASRProcessor(extractor, tokenizer, chat_template=chat_template)
    except (TypeError, ValueError, ConfigurationError) as error:
        raise CheckpointError(
            f"the processor files in {places[0]} cannot be used ({error})",
            key="preprocessor_config.json",
        ) from error


def check_processor(processor: Any, config: ASRConfig, folder: Path) -> None:
    """Refuse features that the encoder cannot take, and templates that write no prompt."""
    from jinja2 import TemplateError

    extractor = processor.feature_extractor
    sizes = (
        ("feature_size", extractor.feature_size, cast(Any, config.encoder_config).num_mel_bins),
        ("sampling_rate", extractor.sampling_rate, config.audio_sample_rate),
    )
    for key, value, wanted in sizes:
        if value != wanted:
            raise CheckpointError(
                f"{key} of the features of {folder} is {value}, but the encoder takes {wanted}; "
                "correct preprocessor_config.json",
                key=key,
            )
    try:
        processor.prompt_ids(1, config.system_prompt)
    except (TemplateError, TypeError, ConfigurationError) as error:
        raise CheckpointError(
            f"the chat template of {folder} writes no prompt ({error}); fetch it again",
            key="chat_template",
        ) from error


def apply_freezing(model: ASRModel) -> None:
    """``requires_grad`` as the configuration says; an adapter stays trainable."""
    config = model.config
    model.audio_tower.requires_grad_(not config.freeze_encoder)
    model.projector.requires_grad_(not config.freeze_projector)
    if not config.use_lora:
        model.language_model.requires_grad_(not config.freeze_language_model)


def save_checkpoint(
    model: ASRModel, folder: str | Path, *, dtype: torch.dtype | None = None
) -> list[Path]:
    """Write a checkpoint that :func:`load_checkpoint` and tiny-audio read; returns its files.

    ``dtype`` is the precision in the file (the model's own by default).
    """
    folder = Path(folder)
    if folder.is_file():
        raise CheckpointError(f"{folder} is a file; give a folder to save into", key=str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder / WEIGHTS_FILE, stored_tensors(model), dtype)
    write_json(folder / "config.json", stored_config(model, folder))
    write_generation_config(model, folder / "generation_config.json")
    if lora.has_adapter(model):
        lora.save_adapter(model, folder, dtype)
    else:
        # Files of an earlier save would bring an adapter back that the model no longer has.
        for name in lora.ADAPTER_FILES:
            (folder / name).unlink(missing_ok=True)
    if model.processor is not None:
        model.processor.save_pretrained(folder)
    return sorted(path for path in folder.iterdir() if path.is_file())


def stored_tensors(model: ASRModel) -> dict[str, torch.Tensor]:
    """The tensors that go into ``model.safetensors``, under their names there."""
    config = model.config
    parts: dict[str, nn.Module] = {"projector": model.projector}
    if model.aligner is not None:
        parts["aligner"] = model.aligner
    if config.embedded_backbones:
        parts["audio_tower"] = model.audio_tower
    tensors = {
        f"{part}.{key}": value
        for part, module in parts.items()
        for key, value in module.state_dict().items()
    }
    if config.embedded_backbones or model.language_model_tuned:
        tied = tied_names(model.language_model)[1:]
        plain = lora.plain_state_dict(model.language_model)
        tensors |= {f"language_model.{k}": v for k, v in plain.items() if k not in tied}
    return tensors


def stored_config(model: ASRModel, folder: Path) -> dict[str, Any]:
    """``config.json``: the configuration with the modules' true sizes in it."""
    content = json.loads(model.config.to_json_string(use_diff=True))
    rows = model.language_model.get_input_embeddings().weight.shape[0]
    content["text_config"]["vocab_size"] = int(rows)
    content["vocab_size"] = int(rows)
    content["architectures"] = ["ASRModel"]
    content["model_type"] = ASRConfig.model_type
    content["use_lora"] = lora.has_adapter(model)
    content["tinyvoice_version"] = tinyvoice.__version__
    content["format_version"] = FORMAT_VERSION
    for key in ("audio_model_id", "text_model_id"):
        place = Path(content[key])
        if place.is_absolute() and place.is_dir():
            content[key] = Path(os.path.relpath(place, folder.resolve())).as_posix()
    return content


def write_generation_config(model: ASRModel, path: Path) -> None:
    """``generation_config.json`` with the greedy defaults and the stop tokens."""
    config = model.config
    generation = GenerationConfig(
        max_new_tokens=config.max_new_tokens,
        num_beams=config.num_beams,
        do_sample=config.do_sample,
        eos_token_id=list(model.stop_token_ids) or None,
    )
    write_json(path, json.loads(generation.to_json_string()))
