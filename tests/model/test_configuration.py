from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import GlmAsrConfig, Qwen3Config

from tests.miniature import ENCODER_DIM, GENERATION_KEYS, LLM_DIM, asr_config, write_checkpoint
from tinyvoice.errors import ConfigurationError
from tinyvoice.model.configuration import FORMAT_VERSION, ASRConfig


def test_defaults_are_the_full_model() -> None:
    config = ASRConfig()
    assert (config.encoder_dim, config.llm_dim) == (1280, 1024)
    encoder, language = config.encoder_config, config.language_config
    assert (encoder.model_type, encoder.num_hidden_layers) == ("glmasr_encoder", 32)
    assert (language.model_type, language.num_hidden_layers) == ("qwen3", 28)
    assert language.vocab_size == 151936
    assert config.encoder_conv_layers == [[1, 3, 1], [1, 3, 2]]
    assert config.projector_type == "mlp"


def test_a_published_file_loads_with_its_nested_configurations(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    config = ASRConfig.from_pretrained(tmp_path)
    assert isinstance(config.audio_config, GlmAsrConfig)
    assert isinstance(config.text_config, Qwen3Config)
    assert (config.encoder_dim, config.llm_dim) == (ENCODER_DIM, LLM_DIM)
    assert config.system_prompt == "you are a helpful assistant"
    assert config.lora_rank == 4


def test_generation_keys_at_top_level_load_and_are_written_back(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "published", num_beams=3, repetition_penalty=1.2)
    config = ASRConfig.from_pretrained(tmp_path / "published")
    assert (config.num_beams, config.repetition_penalty) == (3, 1.2)
    config.save_pretrained(tmp_path / "saved")
    content = json.loads((tmp_path / "saved" / "config.json").read_text())
    expected = GENERATION_KEYS | {"num_beams": 3, "repetition_penalty": 1.2}
    assert {key: content[key] for key in GENERATION_KEYS} == expected


def test_saving_and_loading_keeps_every_key(tmp_path: Path) -> None:
    config = asr_config("qformer", aligner_alphabet="abc", embedded_backbones=True, lora_rank=3)
    config.save_pretrained(tmp_path)
    assert ASRConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_remote_code_is_not_carried_along(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    config = ASRConfig.from_pretrained(tmp_path)
    for key in ("auto_map", "custom_pipelines", "pipeline_tag"):
        assert key not in config.to_dict()


def test_aligner_classes_are_silence_and_letters_twice() -> None:
    assert asr_config(aligner_alphabet="abcde").aligner_classes == 11
    assert asr_config().aligner_classes == 0


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        ({"encoder_dim": 7}, "encoder_dim", "audio_config says the hidden size is 32"),
        ({"llm_dim": 7}, "llm_dim", "text_config says the hidden size is 48"),
        ({"projector_pool_stride": 0}, "projector_pool_stride", "at least 1"),
        ({"num_experts": 0}, "num_experts", "at least 1"),
        ({"num_experts_per_tok": 0}, "num_experts_per_tok", "at least 1"),
        ({"downsample_rate": 0}, "downsample_rate", "at least 1"),
        ({"qformer_window_size": -1}, "qformer_window_size", "at least 1"),
        ({"projector_pool_stride": "four"}, "projector_pool_stride", "whole number"),
        ({"num_experts": 10**9}, "num_experts", "more than 1024"),
        ({"qformer_num_layers": 10**9}, "qformer_num_layers", "more than 512"),
        ({"lora_rank": 0}, "lora_rank", "at least 1"),
        ({"encoder_conv_layers": [[1, 3]]}, "encoder_conv_layers", "padding, kernel, stride"),
        ({"encoder_conv_layers": [[1, 3, 0]]}, "encoder_conv_layers", "padding, kernel, stride"),
        ({"encoder_conv_layers": 5}, "encoder_conv_layers", "padding, kernel, stride"),
        ({"system_prompt": 5}, "system_prompt", "text"),
        ({"max_new_tokens": 0}, "max_new_tokens", "at least 1"),
        ({"max_new_tokens": -1}, "max_new_tokens", "at least 1"),
        ({"num_beams": 0}, "num_beams", "at least 1"),
    ],
)
def test_impossible_values_are_refused_by_key(
    changes: dict[str, Any], key: str, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        asr_config(**changes)
    assert caught.value.key == key


def test_a_missing_system_prompt_is_an_empty_one() -> None:
    assert asr_config(system_prompt=None).system_prompt == ""


def test_format_version_is_written() -> None:
    assert asr_config().to_dict()["format_version"] == FORMAT_VERSION
