"""The speech recognition model: GLM-ASR encoder, projector, Qwen3 language model.

Each step is a method of its own (:meth:`ASRModel.encode`, :meth:`~ASRModel.project`,
:meth:`~ASRModel.embed_prompts`, :meth:`~ASRModel.generate_with_scores`) and none keeps state on
the model, so that a streaming engine can call them in its own order and rhythm. Padded batches
give what single clips give.

Reading and writing checkpoints is in ``checkpoint.py``, the decoding loop in ``generation.py``,
log-mel features and prompts' text in ``processing.py``.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.glmasr.modeling_glmasr import GlmAsrEncoder
from transformers.utils import ModelOutput
from transformers.utils.import_utils import is_flash_attn_2_available

from tinyvoice.errors import ConfigurationError
from tinyvoice.model.configuration import ASRConfig
from tinyvoice.model.encoder import encode_features
from tinyvoice.model.generation import (
    GeneratedTokens,
    PromptTemplate,
    greedy_decode,
    greedy_steps,
    search_decode,
)
from tinyvoice.model.projectors import build_projector, frame_mask

if TYPE_CHECKING:
    from tinyvoice.model.processing import ASRProcessor
    from tinyvoice.model.transcription import Segmentation

logger = logging.getLogger(__name__)

AUDIO_TOKEN = "<audio>"
STOP_TOKENS = ("<|im_end|>", "<|endoftext|>")
IGNORED_LABEL = -100

# Tokens of a transcript where the configuration sets no bound.
MAX_NEW_TOKENS = 128
# What plain greedy decoding has; other values go through generate of transformers.
PLAIN_GENERATION: dict[str, Any] = {
    "num_beams": 1,
    "do_sample": False,
    "min_new_tokens": 0,
    "repetition_penalty": 1.0,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "temperature": None,
    "top_p": None,
    "top_k": None,
}
# Without sampling or beams these change nothing.
SAMPLING_ONLY = {"temperature", "top_p", "top_k", "length_penalty"}


@dataclass
class ASROutput(ModelOutput):
    """What :meth:`ASRModel.forward` returns.

    With labels, ``logits`` holds the supervised positions only, (positions, vocabulary) in reading
    order: a projector is trained on a few words behind hundreds of audio tokens, and the rest of
    the vocabulary matrix product would be thrown away. Without labels it is (batch, tokens,
    vocabulary).
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    encoder_hidden: Tensor | None = None
    encoder_lengths: Tensor | None = None


class ASRModel(PreTrainedModel):
    """Audio to text; see the module docstring.

    Built from an :class:`ASRConfig` with random weights. ``freeze_encoder``, ``freeze_projector``
    and ``freeze_language_model`` of the configuration set ``requires_grad`` once, here; later
    changes through ``requires_grad_`` are respected everywhere.
    """

    config_class = ASRConfig
    config: ASRConfig
    base_model_prefix = "model"
    main_input_name = "input_features"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: ASRConfig) -> None:
        config._attn_implementation = runnable_attention(config.attn_implementation)
        super().__init__(config)
        self.audio_tower = GlmAsrEncoder(cast(Any, config.encoder_config))
        self.projector = build_projector(config)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.aligner = (
            nn.Linear(cast(int, config.encoder_dim), config.aligner_classes)
            if config.aligner_classes
            else None
        )
        self.processor: ASRProcessor | None = None
        self.audio_token_id: int | None = None
        self.stop_token_ids: tuple[int, ...] = ()
        self.adapter_settings: Any = None
        # Whether the language model differs from its own repository's, adapter aside.
        self.language_model_tuned = not config.freeze_language_model
        self.audio_tower.requires_grad_(not config.freeze_encoder)
        self.projector.requires_grad_(not config.freeze_projector)
        self.language_model.requires_grad_(not config.freeze_language_model)

    def use_processor(self, processor: ASRProcessor) -> None:
        """Take features, prompts and token ids from a processor."""
        vocabulary = processor.tokenizer.get_vocab()
        self.processor = processor
        self.audio_token_id = vocabulary[AUDIO_TOKEN]
        self.stop_token_ids = tuple(vocabulary[t] for t in STOP_TOKENS if t in vocabulary)

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self.need_processor().tokenizer

    def need_processor(self) -> ASRProcessor:
        """The processor; raises :class:`ConfigurationError` where the model has none yet."""
        if self.processor is None:
            raise ConfigurationError(
                "the model has no tokenizer and no features yet; load it from a checkpoint or give "
                "it an ASRProcessor with use_processor",
                key="processor",
            )
        return self.processor

    @property
    def prompt_template(self) -> PromptTemplate:
        """Token ids before and after the audio, with the configured system prompt."""
        processor = self.need_processor()
        ids = processor.prompt_ids(1, self.config.system_prompt or "")
        return PromptTemplate.around(processor.audio_token_id, ids)

    def train(self, mode: bool = True) -> ASRModel:
        """Training mode for the parts that train; frozen parts stay deterministic."""
        super().train(mode)
        for part in (self.audio_tower, self.projector, self.language_model):
            if not is_trainable(part):
                part.train(False)
        return self

    def get_input_embeddings(self) -> nn.Module:
        """The language model's token embedding."""
        return self.language_model.get_input_embeddings()

    def encode(
        self,
        input_features: Tensor,
        input_features_mask: Tensor | None = None,
        chunk_frames: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Log-mel (batch, mels, frames) to encoder frames (batch, frames, D) and (batch,) lengths.

        The mask is (batch, frames), 1 inside the clip; clips are right-padded. ``chunk_frames``
        limits attention to a frame's own block of encoder frames and earlier ones.
        """
        lengths = None if input_features_mask is None else input_features_mask.sum(-1).long()
        features = input_features.to(self.audio_tower.conv1.weight.dtype)
        with no_grad_unless(is_trainable(self.audio_tower)):
            return encode_features(self.audio_tower, features, lengths, chunk_frames)

    def project(self, hidden: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encoder frames to audio embeddings (batch, tokens, M) and (batch,) token counts."""
        with no_grad_unless(is_trainable(self.projector) or hidden.requires_grad):
            if self.projector.needs_lengths:
                embeds = self.projector(hidden, lengths)
            else:
                embeds = self.projector(hidden)
        return embeds, self.projector.output_length(lengths).clamp_min(0)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        input_features: Tensor | None = None,
        input_features_mask: Tensor | None = None,
        labels: Tensor | None = None,
        chunk_frames: int | None = None,
    ) -> ASROutput:
        """One teacher-forced pass.

        ``input_ids`` (batch, tokens) hold the ``<audio>`` id once per projected frame; those
        embeddings are replaced by the projector's. ``labels`` are aligned with ``input_ids``, -100
        where nothing is to be learnt; the loss is the mean over the rest, plus the projector's
        auxiliary loss in training. Raises ``ValueError`` when the number of audio tokens differs
        from the number of projected frames.
        """
        inputs_embeds = self.get_input_embeddings()(input_ids)
        encoder_hidden = encoder_lengths = None
        if input_features is not None:
            encoder_hidden, encoder_lengths = self.encode(
                input_features, input_features_mask, chunk_frames
            )
            embeds, counts = self.project(self._drop_frames(encoder_hidden), encoder_lengths)
            inputs_embeds = self.scatter_audio(input_ids, inputs_embeds, embeds, counts)
        decoded = self.decoder(inputs_embeds=inputs_embeds, attention_mask=attention_mask)
        head = self.language_model.get_output_embeddings()
        if labels is None:
            return ASROutput(
                logits=head(decoded.last_hidden_state),
                encoder_hidden=encoder_hidden,
                encoder_lengths=encoder_lengths,
            )
        targets = labels[:, 1:]
        supervised = targets != IGNORED_LABEL
        logits = head(decoded.last_hidden_state[:, :-1][supervised])
        return ASROutput(
            loss=self.loss(logits, targets[supervised]),
            logits=logits,
            encoder_hidden=encoder_hidden,
            encoder_lengths=encoder_lengths,
        )

    def _drop_frames(self, hidden: Tensor) -> Tensor:
        """Zero whole encoder frames at random in training, ``audio_token_dropout`` of them."""
        share = self.config.audio_token_dropout
        if not self.training or share <= 0:
            return hidden
        kept = torch.rand(hidden.shape[:2], device=hidden.device) >= share
        return hidden * kept[..., None].to(hidden.dtype)

    @property
    def decoder(self) -> nn.Module:
        """The language model without its head."""
        return self.language_model.get_decoder()

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of (positions, vocabulary) logits, plus the auxiliary loss."""
        loss = nn.functional.cross_entropy(
            logits.float(),
            targets,
            reduction="sum",
            label_smoothing=self.config.label_smoothing if self.training else 0.0,
        ) / max(1, targets.numel())
        auxiliary = getattr(self.projector, "auxiliary_loss", None) if self.training else None
        return loss if auxiliary is None else loss + auxiliary

    def scatter_audio(
        self, input_ids: Tensor, inputs_embeds: Tensor, audio_embeds: Tensor, counts: Tensor
    ) -> Tensor:
        """Replace the embeddings of ``<audio>`` positions by each clip's audio embeddings."""
        places = torch.eq(input_ids, cast(int, self.audio_token_id))
        found = places.sum(-1)
        if not torch.equal(found, counts.to(found)):
            raise ValueError(
                f"the prompts hold {found.tolist()} {AUDIO_TOKEN} tokens, but the clips give "
                f"{counts.tolist()} audio embeddings"
            )
        inside = frame_mask(counts, audio_embeds.shape[1])
        flat = audio_embeds[inside].to(inputs_embeds.dtype)
        return inputs_embeds.masked_scatter(places[..., None], flat)

    def embed_prompts(self, audio_embeds: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Whole prompts around the audio: embeddings (batch, tokens, M), mask (batch, tokens).

        Left padding puts every clip's next token at the same place. Padding is zero and masked.
        """
        template = self.prompt_template
        embed = self.get_input_embeddings()
        device = audio_embeds.device
        prefix = embed(torch.tensor(template.prefix, dtype=torch.long, device=device))
        suffix = embed(torch.tensor(template.suffix, dtype=torch.long, device=device))
        rows = [
            torch.cat([prefix, audio_embeds[row, :count].to(prefix.dtype), suffix])
            for row, count in enumerate(counts.tolist())
        ]
        longest = max(row.shape[0] for row in rows)
        prompts = prefix.new_zeros(len(rows), longest, prefix.shape[-1])
        mask = torch.zeros(len(rows), longest, dtype=torch.long, device=device)
        for index, row in enumerate(rows):
            prompts[index, longest - row.shape[0] :] = row
            mask[index, longest - row.shape[0] :] = 1
        return prompts, mask

    @torch.inference_mode()
    def generate_with_scores(
        self,
        input_features: Tensor,
        input_features_mask: Tensor | None = None,
        max_new_tokens: int | None = None,
        **settings: Any,
    ) -> list[GeneratedTokens]:
        """Transcripts of a batch as tokens with their log-probabilities.

        Greedy, unless the configuration or ``settings`` (names of ``GenerationConfig``) ask for
        beams, sampling or penalties. A clip too short for one audio token has no tokens.
        """
        hidden, lengths = self.encode(input_features, input_features_mask)
        embeds, counts = self.project(hidden, lengths)
        return self.decode(embeds, counts, max_new_tokens, **settings)

    @torch.inference_mode()
    def decode(
        self,
        audio_embeds: Tensor,
        counts: Tensor,
        max_new_tokens: int | None = None,
        **settings: Any,
    ) -> list[GeneratedTokens]:
        """Transcripts of projected clips; see :meth:`generate_with_scores`."""
        outputs = [GeneratedTokens() for _ in range(counts.shape[0])]
        heard = counts.nonzero()[:, 0]
        if not heard.numel():
            return outputs
        prompts, mask = self.embed_prompts(audio_embeds[heard], counts[heard])
        limits: dict[str, Any] = {
            "stop_token_ids": self.stop_token_ids,
            "max_new_tokens": max_new_tokens or self.config.max_new_tokens or MAX_NEW_TOKENS,
        }
        search = self.search_settings(settings)
        if search:
            ids = self.prompt_ids(counts[heard])
            decoded = search_decode(self.language_model, prompts, mask, ids, **limits, **search)
        else:
            decoded = greedy_decode(self.language_model, prompts, mask, **limits)
        for row, output in zip(heard.tolist(), decoded, strict=True):
            outputs[row] = output
        return outputs

    def prompt_ids(self, counts: Tensor) -> Tensor:
        """Token ids of the prompts that :meth:`embed_prompts` embeds, padded alike."""
        processor = self.need_processor()
        rows = [processor.prompt_ids(n, self.config.system_prompt or "") for n in counts.tolist()]
        longest = max(len(row) for row in rows)
        padding = self.stop_token_ids[-1] if self.stop_token_ids else 0
        return torch.tensor(
            [[padding] * (longest - len(row)) + row for row in rows], device=counts.device
        )

    def search_settings(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Generation settings that differ from plain greedy decoding; empty for greedy."""
        asked = {key: getattr(self.config, key) for key in PLAIN_GENERATION} | settings
        changed = {
            key: value
            for key, value in asked.items()
            if value is not None and value != PLAIN_GENERATION.get(key)
        }
        if not changed.keys() - SAMPLING_ONLY and not asked["do_sample"]:
            return {}
        return changed

    def generate(
        self,
        input_features: Tensor,
        input_features_mask: Tensor | None = None,
        max_new_tokens: int | None = None,
        **settings: Any,
    ) -> list[list[int]]:
        """Transcripts of a batch as token ids, without prompt and stop token."""
        outputs = self.generate_with_scores(
            input_features, input_features_mask, max_new_tokens, **settings
        )
        return [output.ids for output in outputs]

    @torch.inference_mode()
    def decode_steps(self, audio_embeds: Tensor, counts: Tensor) -> Iterator[list[int]]:
        """Greedy transcript of one projected clip, as all ids so far after each new token."""
        if not int(counts[0]):
            return
        prompts, mask = self.embed_prompts(audio_embeds, counts)
        ids: list[int] = []
        for _, tokens, _ in greedy_steps(
            self.language_model,
            prompts,
            mask,
            stop_token_ids=self.stop_token_ids,
            max_new_tokens=self.config.max_new_tokens or MAX_NEW_TOKENS,
        ):
            ids.append(tokens[0])
            yield list(ids)

    def transcribe(
        self,
        audio: Any,
        *,
        sample_rate: int | None = None,
        word_timestamps: bool = False,
        batch_size: int = 16,
        segment: Segmentation = "pauses",
        progress: Callable[[float], None] | None = None,
        **generation: Any,
    ) -> Any:
        """Transcribe one clip, or a list of clips.

        ``audio`` is a path, a URL, bytes of a file, an array or an ``Audio``, of any length;
        ``sample_rate`` is that of arrays, 16 kHz unless said. ``batch_size`` pieces of at most 30 s
        run together. ``generation`` may hold ``max_new_tokens`` and names of ``GenerationConfig``.

        ``segment`` says where clips are cut that the model does not take whole, 30 s or less:
        with ``"pauses"`` between utterances, found by voice activity as in live speech, and
        stretches without speech are left out; with ``"fixed"`` at the quietest points near that
        length, and everything is transcribed. Shorter clips are taken whole. ``progress`` is called
        with the share of the work that has been done, from 0 to 1.

        Returns a :class:`~tinyvoice.model.transcript.Transcript`, or a list of them for a list.
        Raises :class:`~tinyvoice.errors.AudioError` for a source that cannot be read.
        """
        from tinyvoice.model.transcription import transcribe

        return transcribe(
            self,
            audio,
            sample_rate=sample_rate,
            word_timestamps=word_timestamps,
            batch_size=batch_size,
            segment=segment,
            progress=progress,
            **generation,
        )

    def generate_streaming(
        self,
        audio: Any,
        *,
        sample_rate: int | None = None,
        segment: Segmentation = "pauses",
    ) -> Iterator[str]:
        """A finished clip's transcript in pieces, each as soon as its token is decoded.

        Joined, the pieces are the transcript that :meth:`transcribe` gives, except that a loop at
        the end is not cut: it is only known as one when it has been spoken.
        """
        from tinyvoice.model.transcription import generate_streaming

        return generate_streaming(self, audio, sample_rate=sample_rate, segment=segment)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        name: str | Path = "embedded",
        *,
        device: str | torch.device | None = "auto",
        dtype: str | torch.dtype | None = "auto",
        load_in_8bit: bool = False,
        revision: str | None = None,
        max_file_bytes: int | None = None,
        config: ASRConfig | None = None,
        **loading: Any,
    ) -> ASRModel:
        """Load ``"embedded"``, a folder, or a Hub repository, ready to transcribe.

        ``device`` and ``dtype`` ``"auto"`` are chosen by what the machine does well.
        ``max_file_bytes`` bounds the weight files that are read. Of transformers' loading
        arguments, ``device_map`` and ``torch_dtype`` are taken as the other names of device and
        precision; the rest has no meaning here, and code in a checkpoint is never run. Raises
        :class:`~tinyvoice.errors.CheckpointError` and
        :class:`~tinyvoice.errors.ConfigurationError`.
        """
        from tinyvoice.model.checkpoint import load_checkpoint
        from tinyvoice.model.devices import choose

        device = loading.get("device_map") or device or "auto"
        if isinstance(device, dict):
            # The model is small enough for one device; a map of parts names it for the root.
            device = device.get("", "auto")
        dtype = loading.get("torch_dtype") or dtype or "auto"
        place, precision = choose(device, dtype)
        model = load_checkpoint(
            name,
            device=place,
            dtype=precision,
            revision=revision,
            max_file_bytes=max_file_bytes,
            config=config,
        )
        if load_in_8bit:
            from tinyvoice.model.quantization import quantize

            quantize(model)
        return model

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | Path, *, dtype: torch.dtype | None = None, **_: Any
    ) -> None:
        """Write a checkpoint in tiny-audio's layout; ``dtype`` is the precision in the file."""
        from tinyvoice.model.checkpoint import save_checkpoint

        save_checkpoint(self, save_directory, dtype=dtype)


def is_trainable(module: nn.Module) -> bool:
    """Whether any parameter of the module takes gradients."""
    return any(parameter.requires_grad for parameter in module.parameters())


def no_grad_unless(trainable: bool) -> contextlib.AbstractContextManager[Any]:
    """A context without gradients where nothing inside could use them."""
    return contextlib.nullcontext() if trainable else torch.no_grad()


def runnable_attention(wanted: str | None) -> str:
    """The attention implementation asked for, or sdpa where it cannot run here."""
    if wanted is None:
        return "sdpa"
    if wanted in ("sdpa", "eager"):
        return wanted
    if wanted == "flash_attention_2" and torch.cuda.is_available() and is_flash_attn_2_available():
        return wanted
    # No warning: published configurations ask for flash attention, which most machines lack.
    logger.info("attn_implementation %s cannot run on this machine; using sdpa", wanted)
    return "sdpa"
