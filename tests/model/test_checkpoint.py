"""Checkpoints in the published layout: read, written, read again, and refused where not whole.

:func:`tokens_by_transformers` is the yardstick: it loads the same files with transformers and PEFT
alone, without a line of the code under test but the projectors' forward.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    GlmAsrForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen3ForCausalLM,
    WhisperFeatureExtractor,
)

from tests.miniature import (
    PROJECTOR_TYPES,
    clips,
    random_model,
    write_backbones,
    write_checkpoint,
)
from tinyvoice.errors import CheckpointError
from tinyvoice.model import weights
from tinyvoice.model.checkpoint import resize_rows, resolve_folder
from tinyvoice.model.configuration import FORMAT_VERSION, ASRConfig
from tinyvoice.model.modeling import ASRModel
from tinyvoice.model.projectors import build_projector

VARIANTS: dict[str, dict[str, Any]] = {
    **{kind: {"projector_type": kind} for kind in PROJECTOR_TYPES},
    "lora": {"lora": True},
    "tuned": {"tuned": True},
    "lora on tuned": {"lora": True, "tuned": True},
    "no system prompt": {"system_prompt": ""},
}


def load(folder: Path, **options: Any) -> ASRModel:
    return ASRModel.from_pretrained(folder, device="cpu", dtype="float32", **options)


def tokens(model: ASRModel, waves: list[np.ndarray]) -> list[list[int]]:
    return model.generate(*model.need_processor().features(waves))


@torch.no_grad()
def tokens_by_transformers(folder: Path, wave: np.ndarray) -> list[int]:
    """One clip's tokens by the published recipe, step by step."""
    config = json.loads((folder / "config.json").read_text())
    state = load_file(folder / "model.safetensors")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / config["text_model_id"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<audio>"]})

    tower = GlmAsrForConditionalGeneration.from_pretrained(
        folder / config["audio_model_id"], dtype=torch.float32
    ).model.audio_tower.eval()
    language_model: Any = Qwen3ForCausalLM.from_pretrained(
        folder / config["text_model_id"], dtype=torch.float32
    )
    language_model.resize_token_embeddings(len(tokenizer), mean_resizing=True)
    tuned = under(state, "language_model.")
    if tuned:
        language_model.load_state_dict(tuned, strict=False)
        language_model.tie_weights()
    if config["use_lora"]:
        language_model = peft.PeftModel.from_pretrained(language_model, folder)
    projector = build_projector(ASRConfig(**config)).eval()
    projector.load_state_dict(under(state, "projector."))

    extractor: Any = WhisperFeatureExtractor.from_pretrained(folder)
    features = extractor(
        wave, sampling_rate=16000, padding=False, return_tensors="pt", return_attention_mask=True
    ).input_features
    audio = projector(tower(features).last_hidden_state)
    system = config["system_prompt"]
    messages = [{"role": "system", "content": system}] if system else []
    content = "<audio>" * audio.shape[1] + " Transcribe the speech to text"
    messages.append({"role": "user", "content": content})
    ids = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, enable_thinking=False, return_tensors="pt"
    )["input_ids"]
    embeds = language_model.get_input_embeddings()(ids)
    places = ids == tokenizer.convert_tokens_to_ids("<audio>")
    stops = [tokenizer.convert_tokens_to_ids(t) for t in ("<|im_end|>", "<|endoftext|>")]
    found = (
        language_model.eval()
        .generate(
            inputs_embeds=embeds.masked_scatter(places[..., None], audio),
            attention_mask=torch.ones_like(ids),
            generation_config=GenerationConfig(
                max_new_tokens=config["max_new_tokens"], eos_token_id=stops, pad_token_id=stops[1]
            ),
        )[0]
        .tolist()
    )
    return found[:-1] if found[-1] in stops else found


def under(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


@pytest.mark.parametrize("variant", VARIANTS)
def test_tokens_are_those_of_the_published_recipe(tmp_path: Path, variant: str) -> None:
    write_checkpoint(tmp_path, **VARIANTS[variant])
    waves = clips(1.7, 0.6)
    found = tokens(load(tmp_path), waves)
    assert found == [tokens_by_transformers(tmp_path, wave) for wave in waves]
    assert found[0] != found[1]


@pytest.mark.parametrize("variant", VARIANTS)
def test_round_trip_gives_the_same_tokens(tmp_path: Path, variant: str) -> None:
    write_checkpoint(tmp_path / "published", **VARIANTS[variant])
    model, waves = load(tmp_path / "published"), clips(1.7, 0.6)
    model.save_pretrained(tmp_path / "saved")
    assert tokens(load(tmp_path / "saved"), waves) == tokens(model, waves)
    before = load_file(tmp_path / "published" / "model.safetensors")
    after = load_file(tmp_path / "saved" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("variant", ["mlp", "lora", "tuned"])
def test_saved_checkpoints_follow_the_published_recipe(tmp_path: Path, variant: str) -> None:
    write_checkpoint(tmp_path / "published", **VARIANTS[variant])
    model, (wave,) = load(tmp_path / "published"), clips(1.1)
    model.save_pretrained(tmp_path / "saved")
    assert tokens_by_transformers(tmp_path / "saved", wave) == tokens(model, [wave])[0]


def test_saved_files_are_the_published_ones(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "published", lora=True)
    load(tmp_path / "published").save_pretrained(tmp_path / "saved")
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert names == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["architectures"] == ["ASRModel"]
    assert config["model_type"] == "asr_model"
    assert config["audio_config"]["model_type"] == "glmasr"
    assert config["audio_config"]["audio_config"]["model_type"] == "glmasr_encoder"
    assert config["text_config"]["vocab_size"] == len(
        AutoTokenizer.from_pretrained(tmp_path / "saved")
    )
    adapter = json.loads((tmp_path / "saved" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == ""
    assert (adapter["peft_type"], adapter["r"]) == ("LORA", 4)
    keys = load_file(tmp_path / "saved" / "adapter_model.safetensors").keys()
    expected = load_file(tmp_path / "published" / "adapter_model.safetensors").keys()
    assert keys == expected


def test_saving_over_the_folder_it_was_loaded_from(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    model, waves = load(tmp_path), clips(0.9)
    expected = tokens(model, waves)
    model.save_pretrained(tmp_path)
    assert tokens(model, waves) == tokens(load(tmp_path), waves) == expected


def test_a_dropped_adapter_does_not_come_back(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a", lora=True)
    write_checkpoint(tmp_path / "b")
    plain = load(tmp_path / "b")
    load(tmp_path / "a").save_pretrained(tmp_path / "saved")
    plain.save_pretrained(tmp_path / "saved")
    waves = clips(0.9)
    assert tokens(load(tmp_path / "saved"), waves) == tokens(plain, waves)


def test_a_tuned_model_that_is_frozen_again_is_still_written(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "published", tuned=True, freeze_language_model=True)
    model, waves = load(tmp_path / "published"), clips(0.9)
    model.save_pretrained(tmp_path / "saved")
    assert tokens(load(tmp_path / "saved"), waves) == tokens(model, waves)


def test_an_untied_output_embedding(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    tied = tokens(load(tmp_path), clips(1.1))
    write_backbones(tmp_path, tied=False)
    model = load(tmp_path)
    language_model = model.language_model
    assert (
        language_model.get_output_embeddings().weight
        is not language_model.get_input_embeddings().weight
    )
    assert tokens(model, clips(1.1)) == [tokens_by_transformers(tmp_path, *clips(1.1))] != tied


def test_embeddings_inside_an_adapter_file(tmp_path: Path) -> None:
    # PEFT adds them by itself when it believes that the vocabulary was resized.
    write_checkpoint(tmp_path / "published", lora=True)
    file = tmp_path / "published" / "adapter_model.safetensors"
    embedding = load(tmp_path / "published").language_model.get_input_embeddings().weight.detach()
    key = "base_model.model.model.embed_tokens.weight"
    save_file(load_file(file) | {key: embedding.flip(0).contiguous()}, file)
    model, waves = load(tmp_path / "published"), clips(0.9)
    assert torch.equal(model.language_model.get_output_embeddings().weight, embedding.flip(0))
    model.save_pretrained(tmp_path / "saved")
    assert tokens(load(tmp_path / "saved"), waves) == tokens(model, waves)


def test_transformers_names_for_device_and_precision(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    model = ASRModel.from_pretrained(
        tmp_path, device_map={"": "cpu"}, torch_dtype="bfloat16", trust_remote_code=True
    )
    assert (model.device.type, model.dtype) == ("cpu", torch.bfloat16)


def test_a_configuration_given_along_replaces_the_folders(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    config = ASRConfig.from_pretrained(tmp_path)
    config.max_new_tokens = 2
    model = load(tmp_path, config=config)
    assert tokens(model, clips(0.9)) == [ids[:2] for ids in tokens(load(tmp_path), clips(0.9))]


def test_embedded_backbones_need_no_other_folder(tmp_path: Path) -> None:
    model = random_model(embedded_backbones=True, aligner_alphabet="abc")
    model.save_pretrained(tmp_path, dtype=torch.float16)
    state = load_file(tmp_path / "model.safetensors")
    assert {key.split(".")[0] for key in state} == {
        "aligner",
        "audio_tower",
        "language_model",
        "projector",
    }
    assert {value.dtype for value in state.values()} == {torch.float16}
    first, second, waves = load(tmp_path), load(tmp_path), clips(1.2, 0.4)
    assert next(first.parameters()).dtype == torch.float32
    assert tokens(first, waves) == tokens(second, waves)
    first.save_pretrained(tmp_path / "again")
    assert tokens(load(tmp_path / "again"), waves) == tokens(first, waves)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_weights_stored_in_half_precision_load_as_asked(
    tmp_path: Path, stored: torch.dtype
) -> None:
    write_checkpoint(tmp_path, dtype=stored)
    for dtype in (torch.float32, torch.bfloat16):
        model = ASRModel.from_pretrained(tmp_path, device="cpu", dtype=dtype)
        assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    saved = load_file(tmp_path / "model.safetensors")["projector.norm.weight"]
    loaded = load(tmp_path).projector.get_parameter("norm.weight")
    assert torch.equal(loaded, saved.float())


@pytest.mark.parametrize("prefix", ["model.audio_tower.", "audio_tower.", ""])
def test_the_tower_is_found_in_whole_and_bare_encoder_folders(tmp_path: Path, prefix: str) -> None:
    write_checkpoint(tmp_path)
    expected = tokens(load(tmp_path), clips(0.9))
    file = tmp_path / "glm-asr" / "model.safetensors"
    state = load_file(file)
    tower = under(state, "model.audio_tower.") or under(state, "audio_tower.")
    rest = {} if prefix == "" else {"lm_head.weight": torch.ones(2, 2)}
    save_file({f"{prefix}{key}": value for key, value in tower.items()} | rest, file)
    if prefix == "":
        config = json.loads((tmp_path / "glm-asr" / "config.json").read_text())
        bare = config["audio_config"] | {"model_type": "glmasr_encoder"}
        (tmp_path / "glm-asr" / "config.json").write_text(json.dumps(bare))
    assert tokens(load(tmp_path), clips(0.9)) == expected


def test_sharded_backbones(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    expected = tokens(load(tmp_path), clips(0.9))
    shard(tmp_path / "qwen3")
    assert tokens(load(tmp_path), clips(0.9)) == expected


def shard(folder: Path) -> dict[str, str]:
    """Split a folder's weights in two; returns the weight map."""
    state = load_file(folder / "model.safetensors")
    halves = [dict(list(state.items())[place::2]) for place in (0, 1)]
    weight_map: dict[str, str] = {}
    for number, half in enumerate(halves, start=1):
        name = f"model-0000{number}-of-00002.safetensors"
        save_file(half, folder / name)
        weight_map |= dict.fromkeys(half, name)
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return weight_map


def test_unused_rows_of_the_language_model_are_dropped(tmp_path: Path) -> None:
    # Qwen3's embedding has more rows than its tokenizer has tokens.
    write_checkpoint(tmp_path)
    expected = tokens(load(tmp_path), clips(0.9))
    file = tmp_path / "qwen3" / "model.safetensors"
    state = load_file(file)
    key = "model.embed_tokens.weight"
    rows, width = state[key].shape
    mean = state[key].mean(dim=0, keepdim=True)
    state[key] = torch.cat([state[key], mean, torch.full((30, width), 9.0)])
    save_file(state, file)
    edit(tmp_path / "qwen3" / "config.json", vocab_size=rows + 31)
    model = load(tmp_path)
    embedding = model.language_model.get_input_embeddings()
    assert embedding.weight.shape[0] == rows + 1
    assert tokens(model, clips(0.9)) == expected


def test_new_rows_are_the_mean() -> None:
    weight = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert resize_rows(weight, 3).tolist() == [[1, 2], [3, 6], [2, 4]]
    assert resize_rows(weight, 1).tolist() == [[1, 2]]


def test_two_loads_are_equal_bit_for_bit(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    first, second = load(tmp_path).state_dict(), load(tmp_path).state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_an_adapter_less_lora_checkpoint_starts_a_fresh_one_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_checkpoint(tmp_path)
    plain, waves = load(tmp_path), clips(0.9)
    assert not caplog.messages
    edit(tmp_path / "config.json", use_lora=True)
    model = load(tmp_path)
    assert "adapter_config.json is missing there: a fresh adapter takes its place" in caplog.text
    assert tokens(model, waves) == tokens(plain, waves)
    trainable = {name for name, p in model.language_model.named_parameters() if p.requires_grad}
    assert trainable
    assert all("lora_" in name for name in trainable)


def test_an_adapter_that_is_not_asked_for_is_not_used_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_checkpoint(tmp_path / "adapted", lora=True)
    write_checkpoint(tmp_path / "plain")
    edit(tmp_path / "adapted" / "config.json", use_lora=False)
    model, waves = load(tmp_path / "adapted"), clips(0.9)
    assert tokens(model, waves) == tokens(load(tmp_path / "plain"), waves)
    (told,) = caplog.messages
    assert "adapter_config.json and adapter_model.safetensors, but use_lora is not set" in told


def test_python_files_in_a_checkpoint_are_never_run(tmp_path: Path) -> None:
    # write_checkpoint puts a module there that ends the program, and names it in auto_map.
    write_checkpoint(tmp_path)
    assert (tmp_path / "asr_modeling.py").exists()
    edit(
        tmp_path / "tokenizer_config.json",
        auto_map={"AutoTokenizer": ["asr_modeling.Tokenizer", None]},
        tokenizer_class="Tokenizer",
    )
    edit(
        tmp_path / "preprocessor_config.json",
        auto_map={"AutoProcessor": "asr_modeling.ASRProcessor"},
        processor_class="ASRProcessor",
    )
    assert tokens(load(tmp_path), clips(0.9))


def test_flash_attention_falls_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if torch.cuda.is_available():
        pytest.skip("flash attention may run here")
    write_checkpoint(tmp_path, attn_implementation="flash_attention_2")
    with caplog.at_level(logging.INFO, logger="tinyvoice"):
        model = load(tmp_path)
    assert "using sdpa" in caplog.text
    model.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert saved["attn_implementation"] == "flash_attention_2"


# What is refused: how the checkpoint is damaged, the key the error names, part of its reason.


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "config.json", **changes)


def edit_weights(
    change: Callable[[dict[str, Tensor]], object], file: str = "model.safetensors"
) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        state = load_file(folder / file)
        change(state)
        save_file(state, folder / file)

    return damage


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, content: bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return damage


def only_pickled(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")


def only_pickled_adapter(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    torch.save({}, folder / "adapter_model.bin")


def no_encoder(state: dict[str, Tensor]) -> None:
    state.clear()
    state["x"] = torch.ones(1)


def stray_shard(folder: Path) -> None:
    weight_map = shard(folder / "qwen3")
    first = next(iter(weight_map))
    index = {"weight_map": weight_map | {first: "../../elsewhere.safetensors"}}
    (folder / "qwen3" / "model.safetensors.index.json").write_text(json.dumps(index))


def lost_shard(folder: Path) -> None:
    shard(folder / "qwen3")
    (folder / "qwen3" / "model-00002-of-00002.safetensors").unlink()


LINEAR = "projector.linear_1.weight"
EMBEDDING = "language_model.model.embed_tokens.weight"
FINAL_NORM = "language_model.model.norm.weight"
LORA_KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
ADAPTER = "adapter_model.safetensors"
DAMAGES: dict[str, tuple[dict[str, Any], Callable[[Path], object], str, str]] = {
    "missing key": (
        {}, edit_weights(lambda s: s.pop(LINEAR)), LINEAR, f"lacks {LINEAR} of the projector"
    ),
    "unexpected projector key": (
        {}, edit_weights(lambda s: s.update({"projector.extra": torch.ones(1)})),
        "projector.extra", "does not have",
    ),
    "unexpected key": (
        {}, edit_weights(lambda s: s.update({"optimizer.state": torch.ones(1)})),
        "optimizer.state", "no place for",
    ),
    "encoder beside its own repository": (
        {}, edit_weights(lambda s: s.update({"audio_tower.conv1.bias": torch.ones(1)})),
        "audio_tower.conv1.bias", "no place for",
    ),
    "wrong shape": (
        {}, edit_weights(lambda s: s.update({LINEAR: torch.ones(3, 5)})), LINEAR, r"\(3, 5\)"
    ),
    "integer weights": (
        {}, edit_weights(lambda s: s.update({LINEAR: torch.ones(3, 5).to(torch.int8)})),
        LINEAR, "stored as I8",
    ),
    "another projector's weights": (
        {}, edit_config(projector_type="qformer"), "encoder|linear|qformer|query", "lacks"
    ),
    "tuned model lacks a tensor": (
        {"tuned": True}, edit_weights(lambda s: s.pop(FINAL_NORM)),
        FINAL_NORM, f"lacks {FINAL_NORM} of the language model",
    ),
    "tuned model of another vocabulary": (
        {"tuned": True}, edit_weights(lambda s: s.update({EMBEDDING: s[EMBEDDING][:-5].clone()})),
        EMBEDDING, "has shape",
    ),
    "adapter lacks a tensor": (
        {"lora": True}, edit_weights(lambda s: s.pop(LORA_KEY), ADAPTER),
        LORA_KEY, f"lacks {LORA_KEY} of the LoRA adapter",
    ),
    "later major version of the writer": (
        {}, edit_config(tinyvoice_version="99.0.0"), "tinyvoice_version", "99.0.0.*update"
    ),
    "writer's version is no version": (
        {}, edit_config(tinyvoice_version="soon"), "tinyvoice_version", "is 'soon'"
    ),
    "features of other mel bands": (
        {}, lambda f: edit(f / "preprocessor_config.json", feature_size=64),
        "feature_size", "is 64, but the encoder takes 80",
    ),
    "features at another rate": (
        {}, lambda f: edit(f / "preprocessor_config.json", sampling_rate=8000),
        "sampling_rate", "is 8000, but the encoder takes 16000",
    ),
    "chat template with a mistake": (
        {}, lambda f: (f / "chat_template.jinja").write_text("{% if %}"),
        "chat_template", "writes no prompt",
    ),
    "chat template without the audio": (
        {}, lambda f: (f / "chat_template.jinja").write_text("hello"),
        "chat_template", "exactly once",
    ),
    "adapter of another rank": (
        {"lora": True}, edit_weights(lambda s: s.update({LORA_KEY: torch.ones(7, 48)}), ADAPTER),
        "q_proj.lora_A", r"\(7, 48\)",
    ),
    "adapter for other layers": (
        {"lora": True}, edit_weights(lambda s: s.update({f"x.{LORA_KEY}": torch.ones(1)}), ADAPTER),
        "q_proj.lora_A", "does not have",
    ),
    "adapter of another method": (
        {"lora": True}, lambda f: edit(f / "adapter_config.json", peft_type="IA3"),
        "peft_type", "only LORA",
    ),
    "adapter with DoRA": (
        {"lora": True}, lambda f: edit(f / "adapter_config.json", use_dora=True),
        "use_dora", "not supported",
    ),
    "adapter without configuration": (
        {"lora": True}, remove("adapter_config.json"), "adapter_config.json", "is missing"
    ),
    "pickled adapter": (
        {"lora": True}, only_pickled_adapter, "adapter_model.bin", "can run code when opened"
    ),
    "unknown projector": (
        {}, edit_config(projector_type="conformer"), "projector_type", "'conformer'; known are"
    ),
    "projector that is no name": (
        {}, edit_config(projector_type=["mlp"]), "projector_type", "known are"
    ),
    "layers without end": (
        {}, lambda f: edit(f / "qwen3" / "config.json", num_hidden_layers=10**8, layer_types=None),
        "num_hidden_layers", "more than 512",
    ),
    "layers without end, nested": (
        {}, edit_config(audio_config={"audio_config": {"num_hidden_layers": 10**8}}),
        "audio_config.audio_config.num_hidden_layers", "more than 512",
    ),
    "another model type": ({}, edit_config(model_type="whisper"), "model_type", "'whisper'"),
    "newer format": (
        {}, edit_config(format_version=FORMAT_VERSION + 1), "format_version", "update tinyvoice"
    ),
    "senseless format": (
        {}, edit_config(format_version="two"), "format_version", "known are 1 to"
    ),
    "sizes that contradict": (
        {}, edit_config(encoder_dim=33), "encoder_dim", "make them equal"
    ),
    "value of another type": (
        {}, edit_config(projector_pool_stride="four"), "projector_pool_stride", "whole number"
    ),
    "no configuration": ({}, remove("config.json"), "config.json", "is missing"),
    "broken configuration": ({}, write("config.json", b"{"), "config.json", "cannot be read"),
    "binary configuration": ({}, write("config.json", b"\xff\xfe"), "config.json", "cannot be"),
    "configuration that is a list": ({}, write("config.json", b"[]"), "config.json", "no JSON obj"),
    "no weights": ({}, remove("model.safetensors"), "model.safetensors", "is missing"),
    "pickled weights": ({}, only_pickled, "pytorch_model.bin", "can run code when opened"),
    "cut off weights": (
        {}, lambda f: (f / "model.safetensors").write_bytes(
            (f / "model.safetensors").read_bytes()[:-100]
        ),
        "model.safetensors", "no valid safetensors file",
    ),
    "weights that are text": (
        {}, write("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"),
        "model.safetensors", "no valid safetensors file",
    ),
    "broken tokenizer": ({}, write("tokenizer.json", b"{}"), "tokenizer.json", "cannot be read"),
    "backbone without encoder": (
        {}, edit_weights(no_encoder, "glm-asr/model.safetensors"),
        "conv1.weight", "has no audio encoder",
    ),
    "encoder of another kind": (
        {}, lambda f: edit(f / "glm-asr" / "config.json", model_type="whisper"),
        "model_type", "must be one of glmasr",
    ),
    "language model of no kind": (
        {}, lambda f: edit(f / "qwen3" / "config.json", model_type="nothing"),
        "model_type", "cannot be used",
    ),
    "a shard elsewhere": ({}, stray_shard, "weight_map", "same folder"),
    "a lost shard": ({}, lost_shard, "model-00002-of-00002.safetensors", "is missing"),
    "backbone id that is no name": (
        {}, edit_config(audio_model_id=None), "audio_model_id", "must name a model"
    ),
    "backbone folder that is not there": (
        {}, edit_config(text_model_id="./not/there"), "./not/there", "there is no folder"
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_with_key_and_reason(tmp_path: Path, damage: str) -> None:
    options, apply, key, reason = DAMAGES[damage]
    write_checkpoint(tmp_path, **options)
    load(tmp_path)
    apply(tmp_path)
    with pytest.raises(CheckpointError, match=reason) as caught:
        load(tmp_path)
    assert caught.value.key is not None
    assert any(part in caught.value.key for part in key.split("|"))
    assert str(tmp_path) in str(caught.value) or "./not/there" in str(caught.value)


def test_a_file_beyond_the_bound_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    size = max(path.stat().st_size for path in tmp_path.rglob("*.safetensors"))
    load(tmp_path, max_file_bytes=size)
    with pytest.raises(CheckpointError, match="raise max_file_bytes"):
        load(tmp_path, max_file_bytes=size - 1)


def test_the_bound_on_json_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path)
    monkeypatch.setattr(weights, "MAX_JSON_BYTES", 100)
    with pytest.raises(CheckpointError, match="more than the 100"):
        load(tmp_path)


def test_a_name_not_in_the_cache_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(CheckpointError, match="hf download nobody/nothing") as caught:
        ASRModel.from_pretrained("nobody/nothing")
    assert caught.value.key == "nobody/nothing"
    write_checkpoint(tmp_path / "a", audio_model_id="nobody/encoder")
    with pytest.raises(CheckpointError, match="hf download nobody/encoder"):
        load(tmp_path / "a")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("not a name", "valid Hub name"),
        ("a/b/c", "there is no folder"),
        ("../nowhere", "there is no folder"),
        ("/nowhere/at/all", "there is no folder"),
    ],
)
def test_names_that_cannot_be(name: str, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        resolve_folder(name)


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="give the folder it lies in"):
        load(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match="give a folder to save into"):
        load(tmp_path).save_pretrained(tmp_path / "config.json")


def test_an_absent_library_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from tinyvoice.errors import MissingExtraError

    write_checkpoint(tmp_path, lora=True)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tinyvoice\[lora\]'"):
        load(tmp_path)
