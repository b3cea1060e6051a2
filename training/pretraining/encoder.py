"""Pretrains a miniature GLM-ASR encoder on synthetic speech.

The synthesiser knows which phoneme it is speaking at every moment, so the encoder is taught frame
by frame (cross-entropy over phonemes, as in hybrid speech recognisers), which learns many times
faster than an alignment-free loss. A second head names the letter of each frame: it becomes the
aligner that times words. Half of the batches see only blocks of the past, so that the encoder can
be streamed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers.models.glmasr.configuration_glmasr import GlmAsrEncoderConfig
from transformers.models.glmasr.modeling_glmasr import GlmAsrEncoder

from tinyvoice.audio.files import SAMPLE_RATE
from tinyvoice.model.encoder import encode_features
from tinyvoice.model.timestamps import ALPHABET, IGNORED_TARGET, frame_letter_targets
from training.data.augmentation import Augmentation
from training.data.batching import BatchSettings, ClipKey
from training.pretraining.features import LogMel
from training.pretraining.frames import N_PHONEMES, FrameCorpus, frame_phonemes
from training.pretraining.loading import endless_batches

ENCODER_STRIDE = 2
"""Log-mel frames in one encoder frame."""


@dataclass(frozen=True)
class EncoderSettings:
    """Shape of the miniature encoder and how it is trained to be streamed."""

    width: int = 192
    layers: int = 6
    heads: int = 3
    intermediate: int = 768
    mels: int = 80
    chunk_mask_probability: float = 0.5
    chunk_frames: tuple[int, int] = (8, 32)
    """Range of block sizes of the chunk mask, encoder frames (0.32 to 1.28 s)."""


def build_encoder(settings: EncoderSettings) -> GlmAsrEncoder:
    """A ``GlmAsrEncoder`` of the given shape with random weights."""
    config = GlmAsrEncoderConfig(
        hidden_size=settings.width,
        intermediate_size=settings.intermediate,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_mel_bins=settings.mels,
    )
    config._attn_implementation = "sdpa"
    return GlmAsrEncoder(config)


class FramewiseRecogniser(nn.Module):
    """The encoder with its two heads; the phoneme head is thrown away after pretraining."""

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        self.tower = build_encoder(settings)
        self.phonemes = nn.Linear(settings.width, N_PHONEMES)
        self.aligner = nn.Linear(settings.width, 1 + 2 * len(ALPHABET))

    def forward(
        self, features: Tensor, lengths: Tensor, chunk_frames: int | None
    ) -> tuple[Tensor, Tensor]:
        """Log-mel (batch, mels, frames) → phoneme and letter logits (batch, encoder frames,
        classes)."""
        hidden, _ = encode_features(self.tower, features, lengths, chunk_frames)
        return self.phonemes(hidden), self.aligner(hidden)


class _Clips(Dataset[dict[str, Any]]):
    """Clips by key, augmented; each key's randomness is its own, so order does not matter."""

    def __init__(
        self, corpus: FrameCorpus, augmentation: Augmentation, log_mel: LogMel, seed: int
    ) -> None:
        self.corpus, self.augmentation, self.log_mel, self.seed = (
            corpus,
            augmentation,
            log_mel,
            seed,
        )

    def __getitem__(self, key: ClipKey) -> dict[str, Any]:
        random = np.random.default_rng([self.seed, key.epoch, key.index])
        clip = self.corpus.clip(key.index)
        first = clip.words[0][1] if clip.words else 0.0
        spoken = clip.duration
        clip = self.augmentation(clip, random)
        shift = (clip.words[0][1] if clip.words else 0.0) - first
        ids, starts = self.corpus.phonemes(key.index)
        return {
            "samples": clip.samples,
            "words": clip.words or (),
            "ids": np.append(ids, 0).astype(np.uint8),
            "starts": np.append(starts, spoken).astype(np.float32) + np.float32(shift),
        }

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Pad clips to a batch: features, lengths, and both heads' targets."""
        features, lengths = self.log_mel([item["samples"] for item in items])
        frames = -(-features.shape[-1] // ENCODER_STRIDE)
        seconds = ENCODER_STRIDE * self.log_mel.hop / SAMPLE_RATE
        phonemes = np.full((len(items), frames), IGNORED_TARGET)
        letters = np.full((len(items), frames), IGNORED_TARGET)
        for row, item in enumerate(items):
            count = -(-int(lengths[row]) // ENCODER_STRIDE)
            phonemes[row, :count] = frame_phonemes(item["ids"], item["starts"], count, seconds)
            letters[row, :count] = frame_letter_targets(item["words"], count, seconds)
        return {
            "features": features,
            "lengths": lengths,
            "phonemes": torch.from_numpy(phonemes),
            "letters": torch.from_numpy(letters),
        }


def frame_batches(
    corpus: FrameCorpus,
    augmentation: Augmentation,
    log_mel: LogMel,
    batch: BatchSettings,
    step: int,
    workers: int = 1,
) -> Iterator[dict[str, Tensor]]:
    """Endless batches from optimisation step ``step`` on."""
    clips = _Clips(corpus, augmentation, log_mel, batch.seed)
    return endless_batches(clips, corpus.durations, clips.collate, batch, step, workers)


def chunk_of_step(settings: EncoderSettings, step: int) -> int | None:
    """Block size of a step's chunk mask, or None for full attention; a resumed run repeats it."""
    random = np.random.default_rng([7, step])
    if random.random() >= settings.chunk_mask_probability:
        return None
    return int(random.integers(settings.chunk_frames[0], settings.chunk_frames[1] + 1))


class FramewiseLoss:
    """Cross-entropy of both heads, with a chunk mask in some steps."""

    def __init__(self, model: FramewiseRecogniser, settings: EncoderSettings) -> None:
        self.model, self.settings = model, settings

    def __call__(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
        """Loss to minimise, and its parts."""
        phonemes, letters = self.model(
            batch["features"], batch["lengths"], chunk_of_step(self.settings, step)
        )
        phoneme_loss = _cross_entropy(phonemes, batch["phonemes"])
        letter_loss = _cross_entropy(letters, batch["letters"])
        known = batch["phonemes"] != IGNORED_TARGET
        right = (phonemes.argmax(-1) == batch["phonemes"])[known].float().mean()
        return phoneme_loss + 0.5 * letter_loss, {
            "phoneme": float(phoneme_loss.detach()),
            "letter": float(letter_loss.detach()),
            "accuracy": float(right),
        }


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED_TARGET
    )
