"""Models of the true shapes with random weights: speed and memory without a download.

What such a model writes means nothing; how long it takes and how much memory it needs is what the
published one takes and needs. Run it to see::

    python -m tinyvoice.model.random_weights --shape full --projector mlp --dtype float32

The tokenizer is a byte-level one made here, so its texts are not those of Qwen3's vocabulary.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from tinyvoice.errors import ConfigurationError
from tinyvoice.model.checkpoint import add_audio_token, replace_meta_buffers
from tinyvoice.model.configuration import ASRConfig
from tinyvoice.model.devices import choose
from tinyvoice.model.modeling import ASRModel
from tinyvoice.model.processing import ASRProcessor
from tinyvoice.model.quantization import Int8Linear, Int8Module, quantize
from tinyvoice.model.weights import make_tied

# GLM-ASR-Nano-2512's encoder and Qwen3-0.6B are the defaults of ASRConfig.
MINIATURE_ENCODER: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_mel_bins": 80,
}
MINIATURE_LANGUAGE_MODEL: dict[str, Any] = {
    "model_type": "qwen3",
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "tie_word_embeddings": True,
}
SHAPES = ("full", "miniature")

PUBLISHED_PROJECTORS: dict[str, dict[str, int]] = {
    "mlp": {"projector_hidden_dim": 2048},  # 12.6M
    "moe": {"projector_hidden_dim": 768},  # 23.6M
    "qformer": {"qformer_hidden_size": 768, "qformer_intermediate_size": 2304},  # 18.3M
}
"""Keys with which a full-size projector has about as many weights as tiny-audio's guide gives for
its type (12, 24 and 18 million); ``configs/model/full.yaml`` has them too. MOSA is not here: the
widths of its layers are fixed by the checkpoint format and make 42.8 million."""

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
# Spread of a fresh transformer's weights, as in both backbones' configurations.
WEIGHT_STD = 0.02


def byte_level_tokenizer() -> Any:
    """A tokenizer of bytes and the special tokens the prompts use, with their chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    add_audio_token(fast)
    return fast


def random_config(shape: str, projector_type: str) -> ASRConfig:
    """Configuration of one of the :data:`SHAPES`."""
    if shape not in SHAPES:
        raise ConfigurationError(
            f"the shape {shape!r} is unknown; known are {', '.join(SHAPES)}", key="shape"
        )
    if shape == "full":
        shape_keys: dict[str, Any] = dict(PUBLISHED_PROJECTORS.get(projector_type, {}))
        return ASRConfig(projector_type=projector_type, **shape_keys)
    encoder = {"model_type": "glmasr_encoder", **MINIATURE_ENCODER}
    return ASRConfig(
        projector_type=projector_type,
        qformer_num_heads=4,
        audio_config={"model_type": "glmasr", "audio_config": encoder},
        text_config=dict(MINIATURE_LANGUAGE_MODEL),
    )


def build_random_model(
    shape: str = "full",
    projector_type: str = "mlp",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> ASRModel:
    """A model of the given shape with random weights, ready to transcribe (nonsense).

    ``"full"`` has the shapes of GLM-ASR-Nano-2512's encoder and Qwen3-0.6B, 1.25 billion parameters
    in all. No precision but ``dtype`` is ever in memory.
    """
    from transformers import WhisperFeatureExtractor

    config = random_config(shape, projector_type)
    with torch.device("meta"):
        model = ASRModel(config)
        nn.Module.to(model, dtype=dtype)
    model.to_empty(device=device)
    make_tied(model.language_model)
    generator = torch.Generator(device).manual_seed(seed)
    for module in model.modules():
        randomise(module, generator)
    replace_meta_buffers(model, torch.device(device), every=True)
    mels = int(getattr(config.encoder_config, "num_mel_bins", 128))
    extractor = WhisperFeatureExtractor(feature_size=mels)
    model.use_processor(ASRProcessor(extractor, byte_level_tokenizer()))
    return model.eval()


@torch.no_grad()
def randomise(module: nn.Module, generator: torch.Generator) -> None:
    """Fresh values for a module's own parameters: normal matrices, unit scales, zero biases."""
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.dim() > 1:
            parameter.normal_(0.0, WEIGHT_STD, generator=generator)
        else:
            parameter.fill_(0.0 if name == "bias" else 1.0)


@dataclass(frozen=True)
class SpeedReport:
    """What one clip takes; times in seconds, the best of some runs.

    The processor factor is the work of all threads for a second of audio: with one thread it is
    what the real-time factor would be on an idle machine.
    """

    device: str
    dtype: str
    int8: bool
    threads: int
    parameters: int
    weights_gib: float
    peak_memory_gib: float
    build_seconds: float
    clip_seconds: float
    encode_seconds: float
    project_seconds: float
    prefill_seconds: float
    token_seconds: float
    tokens: int
    real_time_factor: float
    processor_factor: float


def measure(model: ASRModel, clip_seconds: float, tokens: int, runs: int = 3) -> dict[str, float]:
    """Seconds for each step of transcribing one clip to ``tokens`` tokens."""
    processor = model.need_processor()
    random = np.random.default_rng(0)
    samples = random.standard_normal(round(clip_seconds * processor.sample_rate)) * 0.1
    features, mask = processor.features([samples.astype(np.float32)], model.device)
    # A random model may stop at once, which would measure nothing.
    model.stop_token_ids = ()
    with torch.inference_mode():
        hidden, lengths = model.encode(features, mask)
        embeds, counts = model.project(hidden, lengths)
        encode = best_times(model, lambda: model.encode(features, mask), runs)
        project = best_times(model, lambda: model.project(hidden, lengths), runs)
        prefill = best_times(model, lambda: model.decode(embeds, counts, 1), runs)
        whole = best_times(model, lambda: model.decode(embeds, counts, tokens), runs)
    return {
        "encode_seconds": encode.wall,
        "project_seconds": project.wall,
        "prefill_seconds": prefill.wall,
        "token_seconds": (whole.wall - prefill.wall) / max(1, tokens - 1),
        "real_time_factor": (encode.wall + project.wall + whole.wall) / clip_seconds,
        "processor_factor": (encode.processor + project.processor + whole.processor) / clip_seconds,
    }


class Times(NamedTuple):
    """Seconds that an action takes: waited for, and spent by this process's threads."""

    wall: float
    processor: float


def best_times(model: ASRModel, action: Callable[[], object], runs: int) -> Times:
    """Least seconds of both kinds that an action takes, the device's queue included."""
    times = []
    for _ in range(runs):
        begin = Times(time.perf_counter(), time.process_time())
        action()
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        end = Times(time.perf_counter(), time.process_time())
        times.append(Times(end.wall - begin.wall, end.processor - begin.processor))
    return Times(min(t.wall for t in times), min(t.processor for t in times))


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory held so far: the device's, or the process's on a CPU (0 where unknown)."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # no such module on Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def weight_bytes(model: ASRModel) -> int:
    """Bytes of a model's weights, quantised ones included; its buffers are too small to matter."""
    bytes_of = {id(p): p.numel() * p.element_size() for p in model.parameters()}
    for module in model.modules():
        if isinstance(module, Int8Linear) and module.packed is not None:
            bytes_of[id(module)] = module.in_features * module.out_features
        elif isinstance(module, Int8Module):
            bytes_of[id(module)] = module.weight8.numel()
    return sum(bytes_of.values())


def speed_report(
    shape: str = "full",
    projector_type: str = "mlp",
    dtype: str = "auto",
    device: str = "auto",
    clip_seconds: float = 3.0,
    tokens: int = 16,
    runs: int = 3,
    int8: bool = False,
) -> SpeedReport:
    """Build a random model and measure it; ``int8`` rounds it to 8-bit weights, as loading does."""
    place, precision = choose(device, dtype)
    begin = time.perf_counter()
    model = build_random_model(shape, projector_type, precision, place)
    parameters = sum(p.numel() for p in model.parameters())
    if int8:
        quantize(model)
    build_seconds = time.perf_counter() - begin
    times = measure(model, clip_seconds, tokens, runs)
    return SpeedReport(
        device=str(place),
        dtype=str(precision).removeprefix("torch."),
        int8=int8,
        threads=torch.get_num_threads(),
        parameters=parameters,
        weights_gib=weight_bytes(model) / 2**30,
        peak_memory_gib=peak_memory_bytes(place) / 2**30,
        build_seconds=build_seconds,
        clip_seconds=clip_seconds,
        tokens=tokens,
        **times,
    )


def main() -> None:
    """Print a :class:`SpeedReport` as JSON."""
    parser = argparse.ArgumentParser(description="speed and memory of a model of random weights")
    parser.add_argument("--shape", choices=SHAPES, default="full")
    parser.add_argument("--projector", default="mlp")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--int8", action="store_true", help="round to 8-bit weights")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of the clip")
    parser.add_argument("--tokens", type=int, default=16, help="tokens to write")
    parser.add_argument("--runs", type=int, default=3, help="the best of so many is reported")
    parser.add_argument("--threads", type=int, help="CPU threads")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    report = speed_report(
        options.shape,
        options.projector,
        options.dtype,
        options.device,
        options.seconds,
        options.tokens,
        options.runs,
        options.int8,
    )
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v
                      for k, v in asdict(report).items()}, indent=2))  # fmt: skip


if __name__ == "__main__":
    main()
