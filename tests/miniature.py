"""Miniature models for tests: random weights, real shapes of everything, milliseconds to build.

:func:`write_checkpoint` writes checkpoints in the layout that tiny-audio publishes, by hand: it
uses none of tinyvoice's own saving code, so that reading them tests the format, not a round trip.
:func:`random_model` builds an :class:`ASRModel` in memory.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import (
    GlmAsrConfig,
    GlmAsrForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    WhisperFeatureExtractor,
)

from tinyvoice.model.configuration import ASRConfig
from tinyvoice.model.modeling import ASRModel
from tinyvoice.model.processing import ASRProcessor
from tinyvoice.model.projectors import build_projector

ENCODER_DIM = 32
LLM_DIM = 48
MELS = 80
SAMPLE_RATE = 16_000

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
SENTENCES = [
    "turn the lights on in the kitchen and play some music",
    "what is the weather like tomorrow morning in the city",
    "Transcribe the speech to text",
    "system user assistant you are a helpful assistant",
]
# Qwen3's own template does the same for one turn, with thinking switched off.
CHAT_TEMPLATE = (
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"
)

GENERATION_KEYS: dict[str, Any] = {
    "num_beams": 1,
    "max_new_tokens": 12,
    "min_new_tokens": 0,
    "repetition_penalty": 1.0,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "use_cache": True,
    "do_sample": False,
    "temperature": None,
    "top_p": None,
    "top_k": None,
}

PROJECTOR_TYPES = ("mlp", "mosa", "moe", "qformer")
LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def tokenizer(audio_token: bool = True) -> PreTrainedTokenizerFast:
    """A byte-level BPE of a few hundred tokens with a chat template, like Qwen3's in kind."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(SENTENCES, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    if audio_token:
        fast.add_special_tokens({"additional_special_tokens": ["<audio>"]})
    return fast


def feature_extractor(mels: int = MELS) -> WhisperFeatureExtractor:
    """Whisper's feature extractor for a few mel bands."""
    return WhisperFeatureExtractor(feature_size=mels, padding_value=0.0)


def glm_asr_config() -> GlmAsrConfig:
    """A whole GLM-ASR configuration in miniature, its own language model included."""
    return GlmAsrConfig(
        audio_config={
            "model_type": "glmasr_encoder",
            "hidden_size": ENCODER_DIM,
            "intermediate_size": 2 * ENCODER_DIM,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_mel_bins": MELS,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": 64,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "eos_token_id": [1],
        },
        audio_token_id=2,
    )


def qwen3_config(vocab_size: int, layers: int = 2, tied: bool = True) -> Qwen3Config:
    """A Qwen3 configuration in miniature."""
    return Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=LLM_DIM,
        intermediate_size=2 * LLM_DIM,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=2048,
        rope_parameters={"rope_theta": 10000.0, "rope_type": "default"},
        tie_word_embeddings=tied,
    )


def asr_config(projector_type: str = "mlp", **changes: Any) -> ASRConfig:
    """Configuration of a miniature model."""
    settings: dict[str, Any] = {
        "projector_type": projector_type,
        "audio_config": glm_asr_config().to_dict(),
        "text_config": qwen3_config(len(tokenizer())).to_dict(),
        "projector_hidden_dim": 40,
        "qformer_num_heads": 4,
        "model_dtype": "float32",
        **GENERATION_KEYS,
    }
    return ASRConfig(**(settings | changes))


def scatter_weights(module: nn.Module, seed: int, scale: float = 0.15) -> None:
    """Random weights far enough apart that different audio gives different tokens."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm_weight = parameter.dim() == 1 and name.endswith("weight")
            parameter.copy_(1 + 0.1 * noise if is_norm_weight else scale * noise)


def random_model(projector_type: str = "mlp", seed: int = 0, **changes: Any) -> ASRModel:
    """A miniature model with its processor, in evaluation mode."""
    model = ASRModel(asr_config(projector_type, **changes))
    scatter_weights(model, seed)
    model.use_processor(ASRProcessor(feature_extractor(), tokenizer()))
    return model.eval()


def clip(seconds: float, seed: int = 0) -> np.ndarray:
    """A clip of coloured noise, float32 at 16 kHz."""
    random = np.random.default_rng(seed)
    samples = random.standard_normal(round(seconds * SAMPLE_RATE)).cumsum()
    samples -= np.linspace(samples[0], samples[-1], len(samples))
    return (0.3 * samples / np.abs(samples).max()).astype(np.float32)


def clips(*seconds: float) -> list[np.ndarray]:
    """Clips of the given lengths, each its own noise."""
    return [clip(length, seed) for seed, length in enumerate(seconds)]


def write_backbones(folder: Path, seed: int = 0, tied: bool = True) -> tuple[Path, Path]:
    """A GLM-ASR and a Qwen3 repository under ``folder``; their paths."""
    audio, text = folder / "glm-asr", folder / "qwen3"
    whole = GlmAsrForConditionalGeneration(glm_asr_config())
    scatter_weights(whole, seed)
    whole.save_pretrained(audio)
    feature_extractor().save_pretrained(audio)
    base_tokenizer = tokenizer(audio_token=False)
    language_model = Qwen3ForCausalLM(qwen3_config(len(base_tokenizer), tied=tied))
    scatter_weights(language_model, seed + 1)
    language_model.save_pretrained(text)
    base_tokenizer.save_pretrained(text)
    return audio, text


def write_checkpoint(
    folder: Path,
    projector_type: str = "mlp",
    *,
    lora: bool = False,
    tuned: bool = False,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    **changes: Any,
) -> Path:
    """A checkpoint as published, with its backbones in folders inside it; returns ``folder``.

    ``lora`` adds an adapter, ``tuned`` puts a fully tuned language model into the weights.
    """
    audio, text = write_backbones(folder, seed)
    text_config = json.loads((text / "config.json").read_text())
    text_config["vocab_size"] += 1
    config: dict[str, Any] = {
        "model_type": "asr_model",
        "architectures": ["ASRModel"],
        "auto_map": {"AutoModel": "asr_modeling.ASRModel"},
        "custom_pipelines": {"automatic-speech-recognition": {"impl": "asr_pipeline.ASRPipeline"}},
        "pipeline_tag": "automatic-speech-recognition",
        "audio_model_id": audio.name,
        "text_model_id": text.name,
        "attn_implementation": "sdpa",
        "model_dtype": "float32",
        "system_prompt": "you are a helpful assistant",
        "encoder_dim": ENCODER_DIM,
        "llm_dim": LLM_DIM,
        "encoder_conv_layers": [[1, 3, 1], [1, 3, 2]],
        "audio_sample_rate": SAMPLE_RATE,
        "projector_type": projector_type,
        "projector_pool_stride": 4,
        "projector_hidden_dim": None,
        "downsample_rate": 5,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "router_aux_loss_coef": 0.01,
        "qformer_window_size": 15,
        "qformer_hidden_size": None,
        "qformer_num_layers": 2,
        "qformer_num_heads": 4,
        "qformer_intermediate_size": None,
        "use_lora": lora,
        "lora_rank": 4,
        "lora_alpha": 32,
        "lora_dropout": 0.0,
        "lora_target_modules": LORA_TARGETS,
        "freeze_projector": False,
        "freeze_language_model": not tuned,
        "audio_token_dropout": 0.0,
        "audio_config": json.loads((audio / "config.json").read_text()) | {"num_mel_bins": MELS},
        "text_config": text_config,
        "vocab_size": text_config["vocab_size"],
        **GENERATION_KEYS,
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "asr_modeling.py").write_text("raise SystemExit('never run code of a checkpoint')\n")
    tensors = projector_tensors(config, seed)
    if tuned:
        tensors |= tuned_tensors(text_config, seed)
    save_file(
        {key: value.to(dtype) for key, value in tensors.items()}, folder / "model.safetensors"
    )
    tokenizer().save_pretrained(folder)
    feature_extractor().save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"max_new_tokens": 12}))
    if lora:
        write_adapter(folder, text_config, seed)
    return folder


def projector_tensors(config: dict[str, Any], seed: int) -> dict[str, Tensor]:
    """Random ``projector.*`` tensors for a configuration."""
    projector = build_projector(ASRConfig(**config))
    scatter_weights(projector, seed + 2)
    return {f"projector.{key}": value for key, value in projector.state_dict().items()}


def tuned_tensors(text_config: dict[str, Any], seed: int) -> dict[str, Tensor]:
    """Random ``language_model.*`` tensors, the tied output embedding left out."""
    language_model = Qwen3ForCausalLM(Qwen3Config(**text_config))
    scatter_weights(language_model, seed + 3)
    state = language_model.state_dict()
    return {f"language_model.{k}": v.clone() for k, v in state.items() if k != "lm_head.weight"}


def write_adapter(folder: Path, text_config: dict[str, Any], seed: int) -> None:
    """A LoRA adapter in PEFT's format, its names spelled out."""
    rank = 4
    language_model = Qwen3ForCausalLM(Qwen3Config(**text_config))
    generator = torch.Generator().manual_seed(seed + 4)
    tensors = {}
    for name, module in language_model.named_modules():
        if name.rpartition(".")[2] in LORA_TARGETS and isinstance(module, nn.Linear):
            key = f"base_model.model.{name}"
            down = torch.randn(rank, module.in_features, generator=generator)
            up = torch.randn(module.out_features, rank, generator=generator)
            tensors[f"{key}.lora_A.weight"] = 0.1 * down
            tensors[f"{key}.lora_B.weight"] = 0.1 * up
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "",
        "r": rank,
        "lora_alpha": 32,
        "lora_dropout": 0.0,
        "target_modules": LORA_TARGETS,
        "bias": "none",
        "inference_mode": True,
        "modules_to_save": None,
        "use_dora": False,
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
