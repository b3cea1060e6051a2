"""Teaches a miniature language model to read: noisy phoneme frames in, text out, without any audio.

A language model that starts from nothing learns nothing of audio embeddings for a long time. Here
it first learns the two things the recipe expects of a frozen language model, to spell and to follow
what stands in the prompt, on sequences that look like a good encoder's output: for each frame a
distribution over phonemes, with the times of the synthesiser and errors like a recogniser's (wrong
phonemes, blurred boundaries, soft decisions). The projector it is taught with is thrown away
afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Qwen3Config, Qwen3ForCausalLM

from tinyvoice.model.processing import IGNORED_LABEL, ASRProcessor
from training.data.batching import BatchSettings, ClipKey
from training.pretraining.frames import N_PHONEMES, FrameCorpus, frame_phonemes
from training.pretraining.loading import endless_batches


@dataclass(frozen=True)
class ReaderSettings:
    """Shape of the miniature language model and the errors in what it reads."""

    width: int = 256
    layers: int = 4
    heads: int = 4
    key_value_heads: int = 1
    head_dim: int = 64
    intermediate: int = 512
    pool_stride: int = 3
    """Encoder frames in one audio token."""
    frame_seconds: float = 0.04
    most_substitutions: float = 0.16
    """Upper end of an utterance's phoneme error probability."""
    time_jitter_seconds: float = 0.012
    most_blur: float = 0.5
    """Largest weight that a frame gives to a phoneme not spoken."""


def build_language_model(settings: ReaderSettings, vocabulary: int) -> Qwen3ForCausalLM:
    """A ``Qwen3ForCausalLM`` of the given shape with random weights."""
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=settings.width,
        intermediate_size=settings.intermediate,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.key_value_heads,
        head_dim=settings.head_dim,
        max_position_embeddings=1024,
        rope_parameters={"rope_theta": 10000.0, "rope_type": "default"},
        tie_word_embeddings=True,
    )
    config._attn_implementation = "sdpa"
    return Qwen3ForCausalLM(config)


class PhonemeReader(nn.Module):
    """Language model behind a projector of phoneme distributions: the same shape as the real
    one's."""

    def __init__(
        self, language_model: Qwen3ForCausalLM, settings: ReaderSettings, audio_token_id: int
    ) -> None:
        super().__init__()
        width = language_model.config.hidden_size
        self.language_model = language_model
        self.project = nn.Sequential(
            nn.Linear(N_PHONEMES * settings.pool_stride, width, bias=False),
            nn.RMSNorm(width, 1e-6),
            nn.GELU(),
            nn.Linear(width, width, bias=False),
            nn.RMSNorm(width, 1e-6),
        )
        self.audio_token_id = audio_token_id

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Loss and share of right next tokens. ``frames`` is (all tokens, phonemes · stride)."""
        embeds = self.language_model.get_input_embeddings()(batch["input_ids"])
        audio = (batch["input_ids"] == self.audio_token_id)[..., None]
        embeds = embeds.masked_scatter(audio, self.project(batch["frames"]))
        hidden = self.language_model.model(
            inputs_embeds=embeds, attention_mask=batch["attention_mask"]
        ).last_hidden_state
        targets = batch["labels"][:, 1:]
        known = targets != IGNORED_LABEL
        logits = self.language_model.lm_head(hidden[:, :-1][known])
        loss = nn.functional.cross_entropy(logits, targets[known])
        return loss, (logits.argmax(-1) == targets[known]).float().mean()


def noisy_frames(
    ids: NDArray[np.uint8],
    starts: NDArray[np.float32],
    seconds: float,
    settings: ReaderSettings,
    random: np.random.Generator,
) -> NDArray[np.float32]:
    """Phoneme distributions of an utterance as a recogniser might give them: (frames, phonemes)."""
    speed = random.uniform(0.85, 1.2)
    ids = ids.copy()
    wrong = random.random(len(ids)) < random.uniform(0.0, settings.most_substitutions)
    ids[wrong] = random.integers(0, N_PHONEMES, int(wrong.sum()))
    starts = np.maximum.accumulate(
        starts * speed + random.normal(0.0, settings.time_jitter_seconds, len(starts))
    )
    n_frames = max(settings.pool_stride, round(seconds * speed / settings.frame_seconds))
    spoken = frame_phonemes(ids, starts.astype(np.float32), n_frames, settings.frame_seconds)
    # Blur leaks to a neighbour in time (a late or early decision) or to any phoneme.
    other = np.where(
        random.random(n_frames) < 0.6,
        np.roll(spoken, random.choice((-1, 1))),
        random.integers(0, N_PHONEMES, n_frames),
    )
    blur = random.random(n_frames) * random.uniform(0.0, settings.most_blur)
    frames = np.zeros((n_frames, N_PHONEMES), dtype=np.float32)
    frames[np.arange(n_frames), spoken] += 1.0 - blur
    frames[np.arange(n_frames), other] += blur
    return frames


class _Readings(Dataset[dict[str, Any]]):
    def __init__(
        self, corpus: FrameCorpus, processor: ASRProcessor, settings: ReaderSettings, seed: int
    ) -> None:
        self.corpus, self.processor, self.settings, self.seed = corpus, processor, settings, seed

    def __getitem__(self, key: ClipKey) -> dict[str, Any]:
        random = np.random.default_rng([self.seed, key.epoch, key.index])
        ids, starts = self.corpus.phonemes(key.index)
        text, seconds = self.corpus.texts[key.index], float(self.corpus.durations[key.index])
        frames = noisy_frames(ids, starts, seconds, self.settings, random)
        tokens = len(frames) // self.settings.pool_stride
        example = self.processor.training_example(text, tokens)
        stacked = frames[: tokens * self.settings.pool_stride].reshape(tokens, -1)
        return {"frames": stacked, "ids": example.input_ids, "labels": example.labels}

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Pad prompts to a batch; ``frames`` of all utterances follow one another."""
        longest = max(len(item["ids"]) for item in items)
        ids = torch.zeros(len(items), longest, dtype=torch.long)
        labels = torch.full((len(items), longest), IGNORED_LABEL)
        mask = torch.zeros(len(items), longest, dtype=torch.long)
        for row, item in enumerate(items):
            count = len(item["ids"])
            ids[row, :count], labels[row, :count] = (
                torch.tensor(item["ids"]),
                torch.tensor(item["labels"]),
            )
            mask[row, :count] = 1
        frames = torch.from_numpy(np.concatenate([item["frames"] for item in items]))
        return {"input_ids": ids, "labels": labels, "attention_mask": mask, "frames": frames}


def reading_batches(
    corpus: FrameCorpus,
    processor: ASRProcessor,
    settings: ReaderSettings,
    batch: BatchSettings,
    step: int,
    workers: int = 1,
) -> Iterator[dict[str, Tensor]]:
    """Endless batches from optimisation step ``step`` on."""
    readings = _Readings(corpus, processor, settings, batch.seed)
    return endless_batches(readings, corpus.durations, readings.collate, batch, step, workers)
