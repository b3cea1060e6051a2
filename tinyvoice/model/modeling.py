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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.glmasr.modeling_glmasr import GlmAsrEncoder
from transformers.utils import ModelOutput
from transformers.utils.import_utils import is_flash_attn_2_available

from tinyvoice.model.configuration import ASRConfig
from tinyvoice.model.encoder import encode_features
from tinyvoice.model.generation import GeneratedTokens, PromptTemplate, greedy_decode
from tinyvoice.model.projectors import build_projector, frame_mask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

AUDIO_TOKEN = "<audio>"
STOP_TOKENS = ("<|im_end|>", "<|endoftext|>")
IGNORED_LABEL = -100


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
        self.audio_token_id: int | None = None
        self.stop_token_ids: tuple[int, ...] = ()
        self.prompt_template: PromptTemplate | None = None
        self.audio_tower.requires_grad_(not config.freeze_encoder)
        self.projector.requires_grad_(not config.freeze_projector)
        self.language_model.requires_grad_(not config.freeze_language_model)

    def use_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Take token ids and the prompt's fixed parts from a tokenizer that knows ``<audio>``."""
        vocabulary = tokenizer.get_vocab()
        self.tokenizer = tokenizer
        self.audio_token_id = vocabulary[AUDIO_TOKEN]
        self.stop_token_ids = tuple(vocabulary[t] for t in STOP_TOKENS if t in vocabulary)
        self.prompt_template = PromptTemplate.from_tokenizer(tokenizer, self.config.system_prompt)

    def train(self, mode: bool = True) -> ASRModel:
        """Training mode for the parts that train; frozen parts stay deterministic."""
        super().train(mode)
        for part in (self.audio_tower, self.projector, self.language_model):
            if not is_trainable(part):
                part.train(False)
        return self

    def get_input_embeddings(self) -> nn.Module:
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
            embeds, counts = self.project(encoder_hidden, encoder_lengths)
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
        places = input_ids == self.audio_token_id
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
        """Whole prompts around the audio, left-padded: (batch, tokens, M) and a (batch, tokens) mask.

        Left padding puts every clip's next token at the same place. Padding is zero and masked.
        """
        if self.prompt_template is None:
            raise ValueError("the model has no tokenizer yet; call use_tokenizer first")
        embed = self.get_input_embeddings()
        device = audio_embeds.device
        prefix = embed(torch.tensor(self.prompt_template.prefix, dtype=torch.long, device=device))
        suffix = embed(torch.tensor(self.prompt_template.suffix, dtype=torch.long, device=device))
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
    ) -> list[GeneratedTokens]:
        """Greedy transcripts of a batch as tokens with their log-probabilities."""
        hidden, lengths = self.encode(input_features, input_features_mask)
        embeds, counts = self.project(hidden, lengths)
        prompts, mask = self.embed_prompts(embeds, counts)
        return greedy_decode(
            self.language_model,
            prompts,
            mask,
            stop_token_ids=self.stop_token_ids,
            max_new_tokens=max_new_tokens or self.config.max_new_tokens or 128,
        )

    def generate(  # type: ignore[override]
        self,
        input_features: Tensor,
        input_features_mask: Tensor | None = None,
        max_new_tokens: int | None = None,
    ) -> list[list[int]]:
        """Greedy transcripts of a batch as token ids, without prompt and stop token."""
        outputs = self.generate_with_scores(input_features, input_features_mask, max_new_tokens)
        return [output.ids for output in outputs]


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
    logger.warning("attn_implementation %s cannot run on this machine; using sdpa", wanted)
    return "sdpa"
