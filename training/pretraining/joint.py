"""Training of a miniature model as a whole, after the recipe's stages: encoder, projector, reader,
aligner.

The backbones of a miniature model are small enough to be moved together. Freezing them first (stage
``projector``) lets a fresh projector find them where pretraining left them; moving everything
afterwards is what brings the error down.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GlmAsrConfig, Qwen3Config

from tinyvoice.model.configuration import ASRConfig
from tinyvoice.model.modeling import ASRModel
from tinyvoice.model.processing import IGNORED_LABEL, ASRProcessor
from tinyvoice.model.timestamps import ALPHABET
from training.data.augmentation import Augmentation
from training.data.batching import BatchSettings
from training.data.collator import Batch, ClipSettings, FrameCounts, TrainingClips, collate
from training.data.mixing import Mixture
from training.pretraining.encoder import EncoderSettings, build_encoder, chunk_of_step
from training.pretraining.loading import endless_batches
from training.pretraining.reader import ReaderSettings, build_language_model

MOST_TOKENS = 256
"""Tokens of a transcript at most: thirty seconds of fast speech are about 150."""

ALIGNER_WEIGHT = 0.3
"""Weight of the aligner's loss: it must follow the encoder, not lead it."""


SILENCE_PADDING_S = 0.5
"""Clips of training mostly begin and end in silence, and those that do not are understood worse: of
single digits cut out tightly, twice as many are wrong without it."""

LONGEST_PIECE_S = 12.0
"""Sentences of training are a few seconds long, and strings of them are few. Of talk without a
pause the model gets a third of the words wrong in pieces of 29 s, and a fifth in pieces of this
length (`tinyvoice eval -d long-speech --stream`)."""


def build_model(
    encoder: EncoderSettings, reader: ReaderSettings, processor: ASRProcessor
) -> ASRModel:
    """An ``ASRModel`` of the miniature shapes with random weights and every part trainable."""
    text_config: Qwen3Config = build_language_model(reader, len(processor.tokenizer)).config
    audio_config = build_encoder(encoder).config
    config = ASRConfig(
        audio_config=GlmAsrConfig(audio_config=audio_config.to_dict(), text_config=None).to_dict(),
        text_config=text_config.to_dict(),
        audio_model_id="embedded",
        text_model_id="embedded",
        model_dtype="float32",
        projector_type="mlp",
        projector_pool_stride=reader.pool_stride,
        aligner_alphabet=ALPHABET,
        embedded_backbones=True,
        silence_padding_s=SILENCE_PADDING_S,
        longest_piece_s=LONGEST_PIECE_S,
        freeze_encoder=False,
        freeze_language_model=False,
        max_new_tokens=MOST_TOKENS,
    )
    model = ASRModel(config)
    model.use_processor(processor)
    return model


def take_backbones(
    model: ASRModel, encoder_state: dict[str, Tensor], reader_state: dict[str, Tensor]
) -> None:
    """Put pretrained weights in: the tower and aligner of one program, the reader of the other."""
    towers = _part(encoder_state, "tower.")
    model.audio_tower.load_state_dict(towers)
    assert model.aligner is not None
    model.aligner.load_state_dict(_part(encoder_state, "aligner."))
    model.language_model.load_state_dict(_part(reader_state, "language_model."))


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }


def clip_batches(
    mixture: Mixture,
    model: ASRModel,
    processor: ASRProcessor,
    clips: ClipSettings,
    augmentation: Augmentation,
    batch: BatchSettings,
    step: int,
    workers: int = 1,
) -> Iterator[Batch]:
    """Endless batches from optimisation step ``step`` on."""
    counts = FrameCounts.of(model, processor)
    source = TrainingClips(mixture, processor, counts, clips, augmentation)
    return endless_batches(source, mixture.durations, collate, batch, step, workers)


class JointLoss:
    """Cross-entropy of the transcript plus the aligner's, with a chunk mask half of the time."""

    def __init__(self, model: ASRModel, settings: EncoderSettings) -> None:
        self.model, self.settings = model, settings

    def __call__(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        """Loss to minimise, and its parts."""
        output = self.model(
            batch.input_ids,
            batch.attention_mask,
            batch.input_features,
            batch.input_features_mask,
            labels=batch.labels,
            chunk_frames=chunk_of_step(self.settings, step),
        )
        numbers: dict[str, float] = {"transcript": float(output.loss.detach())}
        targets = batch.labels[:, 1:]
        right = output.logits.argmax(-1) == targets[targets != IGNORED_LABEL]
        numbers["accuracy"] = float(right.float().mean())
        loss: Tensor = output.loss
        if batch.frame_targets is not None and output.encoder_hidden.requires_grad:
            letters = self.aligner_loss(output.encoder_hidden, batch.frame_targets)
            numbers["letter"] = float(letters.detach())
            loss = loss + ALIGNER_WEIGHT * letters
        return loss, numbers

    def aligner_loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy over the frames whose letter is known."""
        assert self.model.aligner is not None
        # The batch's longest clip may be one without word times: targets are then the shorter.
        hidden = hidden[:, : targets.shape[1]]
        known = targets != IGNORED_LABEL
        return nn.functional.cross_entropy(self.model.aligner(hidden)[known], targets[known])


def parameter_groups(model: ASRModel, stage: str) -> list[dict[str, Any]]:
    """Learning rates of a stage: ``projector`` freezes the rest, ``joint`` moves everything."""
    whole = stage == "joint"
    for part in (model.audio_tower, model.language_model, model.aligner):
        if part is not None:
            part.requires_grad_(whole)
    if not whole:
        return [{"params": list(model.projector.parameters()), "lr": 2e-3}]
    assert model.aligner is not None
    encoder = [*model.audio_tower.parameters(), *model.aligner.parameters()]
    return [
        {"params": encoder, "lr": 8e-4},
        {"params": list(model.projector.parameters()), "lr": 6e-4},
        {"params": list(model.language_model.parameters()), "lr": 6e-4},
    ]


def single_threaded() -> None:
    """One thread a process: small matrices gain more from processes than from threads."""
    torch.set_num_threads(1)
