"""Configuration of the speech recognition model: encoder, projector, language model.

The keys are those of tiny-audio's ``config.json`` (``model_type: "asr_model"``), flat, with the
whole GLM-ASR configuration nested as ``audio_config`` and the Qwen3 one as ``text_config``.
Generation settings live at the top level too, as published checkpoints have them: they are declared
fields here, which is what makes transformers accept them when the configuration is saved.

This module holds values and checks them. It does not load weights and knows no file layout.
"""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from tinyvoice.errors import ConfigurationError
from tinyvoice.vad.segmentation import MAX_SECONDS, MIN_SECONDS

# Version of the checkpoint layout this package writes. A reader refuses higher ones.
FORMAT_VERSION = 1

AUDIO_MODEL_ID = "zai-org/GLM-ASR-Nano-2512"
TEXT_MODEL_ID = "Qwen/Qwen3-0.6B"

# Shapes of Qwen/Qwen3-0.6B, used when a configuration does not bring its own.
QWEN3_0_6B: dict[str, Any] = {
    "vocab_size": 151936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"},
    "tie_word_embeddings": True,
    "eos_token_id": 151645,
    "bos_token_id": 151643,
}

LORA_TARGET_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

# (padding, kernel, stride) of the Whisper-type encoders' two convolutions.
CONV_LAYERS = ((1, 3, 1), (1, 3, 2))

# Keys whose values are counts.
COUNTS = (
    "projector_pool_stride",
    "downsample_rate",
    "num_experts",
    "num_experts_per_tok",
    "qformer_window_size",
    "qformer_num_layers",
    "qformer_num_heads",
    "lora_rank",
    "audio_sample_rate",
)

# Settings of generation that must be at least this, where they are given at all.
LEAST_SETTINGS = {"max_new_tokens": 1, "min_new_tokens": 0, "num_beams": 1}

# Deeper or wider than any speech model, and far from what would keep a machine busy for an hour.
MAX_LAYERS = 512
MAX_EXPERTS = 1024

# Keys of published configurations that mean nothing here and must never lead to running code.
IGNORED_KEYS = ("auto_map", "custom_pipelines", "pipeline_tag", "encoder")


MIN_PIECE_S = 4 * MIN_SECONDS
"""Pieces that are to be shorter cannot be cut well."""

MAX_PADDING_S = 2.0
"""More silence around a clip would only take the place of speech."""


class ASRConfig(PreTrainedConfig):
    """Everything needed to build an :class:`~tinyvoice.model.modeling.ASRModel`.

    ``encoder_dim`` and ``llm_dim`` default to the sizes of the nested configurations. Five keys go
    beyond tiny-audio's and are optional: ``aligner_alphabet`` (letters of the word aligner),
    ``embedded_backbones`` (encoder and language model weights lie in this checkpoint's own
    safetensors), ``silence_padding_s`` (seconds of silence put before and behind every clip, for a
    model that expects speech to begin and end in silence), ``longest_piece_s`` (seconds of sound
    that the model understands well in one go; what is longer is cut; None for all that the encoder
    takes) and ``freeze_encoder``.

    Raises :class:`~tinyvoice.errors.ConfigurationError` for values no model can be built from.
    """

    model_type = "asr_model"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "audio_config": SubConfigSpec(config_class=AutoConfig, model_type="glmasr"),
        "text_config": SubConfigSpec(
            config_class=AutoConfig, model_type="qwen3", init_kwargs=QWEN3_0_6B
        ),
    }

    audio_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None

    audio_model_id: str = AUDIO_MODEL_ID
    text_model_id: str = TEXT_MODEL_ID
    attn_implementation: str = "sdpa"
    model_dtype: str = "bfloat16"
    system_prompt: str = ""
    enable_thinking: bool = False

    encoder_dim: int | None = None
    llm_dim: int | None = None
    encoder_conv_layers: list | None = None
    audio_sample_rate: int = 16000

    projector_type: str = "mlp"
    projector_pool_stride: int = 4
    projector_hidden_dim: int | None = None
    downsample_rate: int = 5
    num_experts: int = 4
    num_experts_per_tok: int = 2
    router_aux_loss_coef: float = 0.01
    router_z_loss_coef: float = 1e-4
    qformer_window_size: int = 15
    qformer_hidden_size: int | None = None
    qformer_num_layers: int = 2
    qformer_num_heads: int = 16
    qformer_intermediate_size: int | None = None

    use_lora: bool = False
    lora_rank: int = 8
    lora_alpha: int | float = 32
    lora_dropout: float = 0.0
    lora_target_modules: list | None = None
    freeze_encoder: bool = True
    freeze_projector: bool = False
    freeze_language_model: bool = True
    audio_token_dropout: float = 0.0
    label_smoothing: float = 0.0

    aligner_alphabet: str | None = None
    embedded_backbones: bool = False
    silence_padding_s: float = 0.0
    longest_piece_s: float | None = None
    tinyvoice_version: str | None = None
    format_version: int = FORMAT_VERSION

    max_new_tokens: int | None = 128
    min_new_tokens: int | None = 0
    num_beams: int | None = 1
    do_sample: bool | None = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = 1.0
    length_penalty: float | None = 1.0
    no_repeat_ngram_size: int | None = 0
    use_cache: bool | None = True

    def __post_init__(self, **kwargs: Any) -> None:
        for key in IGNORED_KEYS:
            kwargs.pop(key, None)
        super().__post_init__(**kwargs)
        for key in COUNTS:
            if getattr(self, key) is None:
                setattr(self, key, getattr(type(self), key))
        self.encoder_conv_layers = conv_layers(self.encoder_conv_layers or CONV_LAYERS)
        self.system_prompt = self.system_prompt or ""
        self.lora_target_modules = list(self.lora_target_modules or LORA_TARGET_MODULES)
        self.encoder_dim = self.encoder_dim or self.encoder_config.hidden_size
        self.llm_dim = self.llm_dim or self.language_config.hidden_size
        self.architectures = ["ASRModel"]
        self._check_values()

    @property
    def encoder_config(self) -> PreTrainedConfig:
        """The ``glmasr_encoder`` configuration inside the GLM-ASR one."""
        outer: Any = self.audio_config
        return outer.audio_config if hasattr(outer, "audio_config") else outer

    @property
    def language_config(self) -> Any:
        """The Qwen3 configuration."""
        return self.text_config

    @property
    def aligner_classes(self) -> int:
        """Outputs of the aligner: silence, word-initial letters, letters inside a word."""
        return 1 + 2 * len(self.aligner_alphabet) if self.aligner_alphabet else 0

    def _check_values(self) -> None:
        pairs = (
            ("encoder_dim", self.encoder_dim, self.encoder_config.hidden_size, "audio_config"),
            ("llm_dim", self.llm_dim, self.language_config.hidden_size, "text_config"),
        )
        for key, value, size, owner in pairs:
            if value != size:
                raise ConfigurationError(
                    f"{key} is {value}, but {owner} says the hidden size is {size}; "
                    "make them equal",
                    key=key,
                )
        for key in COUNTS:
            value = getattr(self, key)
            if not isinstance(value, int) or value < 1:
                raise ConfigurationError(
                    f"{key} is {value!r}; it must be a whole number, at least 1", key=key
                )
        for key, least in LEAST_SETTINGS.items():
            value = getattr(self, key)
            if value is not None and (not isinstance(value, int) or value < least):
                raise ConfigurationError(
                    f"{key} is {value!r}; it must be a whole number, at least {least}", key=key
                )
        for key, limit in (("qformer_num_layers", MAX_LAYERS), ("num_experts", MAX_EXPERTS)):
            if getattr(self, key) > limit:
                raise ConfigurationError(
                    f"{key} is {getattr(self, key)}, more than {limit}", key=key
                )
        padding = self.silence_padding_s
        if not isinstance(padding, int | float) or not 0.0 <= padding <= MAX_PADDING_S:
            raise ConfigurationError(
                f"silence_padding_s is {padding!r}; it must be 0 to {MAX_PADDING_S:g} seconds",
                key="silence_padding_s",
            )
        longest = self.longest_piece_s
        if longest is not None and (
            isinstance(longest, bool)
            or not isinstance(longest, int | float)
            or not MIN_PIECE_S <= longest <= MAX_SECONDS
        ):
            raise ConfigurationError(
                f"longest_piece_s is {longest!r}; it must be {MIN_PIECE_S:g} to {MAX_SECONDS:g} "
                "seconds, or null for all that the encoder takes",
                key="longest_piece_s",
            )
        for key in ("projector_type", "system_prompt", "audio_model_id", "text_model_id"):
            if not isinstance(getattr(self, key), str):
                raise ConfigurationError(
                    f"{key} is {getattr(self, key)!r}; it must be text", key=key
                )


def conv_layers(layers: object) -> list[list[int]]:
    """Convolutions as ``[padding, kernel, stride]`` lists of whole numbers, checked."""
    if isinstance(layers, list | tuple) and all(
        isinstance(layer, list | tuple)
        and len(layer) == 3
        and all(isinstance(number, int) for number in layer)
        and layer[0] >= 0
        and min(layer[1:]) >= 1
        for layer in layers
    ):
        return [list(layer) for layer in layers]
    raise ConfigurationError(
        f"encoder_conv_layers is {layers!r}; it must be a list of [padding, kernel, stride]",
        key="encoder_conv_layers",
    )
