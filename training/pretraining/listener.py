"""Trains projector and language model on cached encoder output, several times faster than on audio.

In a miniature model the encoder costs more than the language model, but it is the language model
that takes longest: it has a lexicon to learn. Here the encoder, frozen, hears every clip once,
augmented; what it makes of it is kept in float16, and projector and language model pass over that
as often as there is time for. Small noise, dropped frames and a shifted start stand in for the
augmentation that a cache cannot repeat.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tinyvoice.model.modeling import ASRModel
from tinyvoice.model.processing import IGNORED_LABEL, ASRProcessor
from training.data.augmentation import Augmentation
from training.data.batching import BatchSettings, ClipKey, GlobalBatches
from training.data.collator import ClipSettings, FrameCounts, TrainingClips, collate
from training.data.mixing import Mixture
from training.pretraining.encoder import EncoderSettings
from training.pretraining.loading import endless_batches
from training.pretraining.loop import join_processes


@dataclass(frozen=True)
class ListenerSettings:
    """What stands in for augmentation, applied to cached frames."""

    noise: float = 0.1
    """Standard deviation of the noise added, as a fraction of the frames' own."""
    dropped_frames: float = 0.02
    most_shift: int = 2
    """Frames that may be missing at the start: the projector's groups then fall otherwise."""


@torch.inference_mode()
def cache_frames(
    model: ASRModel,
    processor: ASRProcessor,
    mixture: Mixture,
    clips: ClipSettings,
    augmentation: Augmentation,
    chunks: EncoderSettings,
    folder: Path,
    *,
    seconds: float = 60.0,
) -> None:
    """Encode every clip of the mixture once; each process writes its share under ``folder``.

    Files of process r: ``frames-r.f16`` (all frames, width) and ``clips-r.jsonl`` (frames and text
    of each clip, in order).
    """
    rank, processes = join_processes()
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / f"clips-{rank}.jsonl").exists():
        return
    source = TrainingClips(
        mixture, processor, FrameCounts.of(model, processor), clips, augmentation
    )
    batch = BatchSettings(seconds=seconds, max_clips=128, shuffle=False, pool=1 << 20)
    batches = GlobalBatches(mixture.durations, batch, processes)
    keys = [
        [ClipKey(0, int(index)) for index in part[rank::processes]] for part in batches.epoch(0)
    ]
    loader = DataLoader(
        source, batch_sampler=[key for key in keys if key], collate_fn=collate, num_workers=1
    )
    random = np.random.default_rng(rank)
    model.eval()
    lines = []
    with (folder / f"frames-{rank}.f16").open("wb") as file:
        for item in loader:
            chunk = None
            if random.random() < chunks.chunk_mask_probability:
                chunk = int(random.integers(chunks.chunk_frames[0], chunks.chunk_frames[1] + 1))
            hidden, lengths = model.encode(item.input_features, item.input_features_mask, chunk)
            for row, count, text in zip(hidden, lengths.tolist(), item.texts, strict=True):
                file.write(row[:count].to(torch.float16).numpy().tobytes())
                lines.append(json.dumps({"frames": count, "text": text}) + "\n")
    (folder / f"clips-{rank}.jsonl").write_text("".join(lines))


class CachedFrames(Dataset[dict[str, Any]]):
    """The cached clips of all processes, with prompts; keys seed what is random about a clip."""

    def __init__(
        self, folder: Path, model: ASRModel, processor: ASRProcessor, settings: ListenerSettings
    ) -> None:
        self.processor, self.settings = processor, settings
        self.width = int(model.config.encoder_dim or 0)
        self.output_length = model.projector.output_length
        self.texts: list[str] = []
        self._arrays: list[NDArray[np.float16]] = []
        places: list[tuple[int, int, int]] = []
        for part, labels in enumerate(sorted(folder.glob("clips-*.jsonl"))):
            name = labels.name.replace("clips", "frames").replace(".jsonl", ".f16")
            flat = np.memmap(folder / name, dtype=np.float16, mode="r")
            self._arrays.append(flat.reshape(-1, self.width))
            start = 0
            for line in labels.open(encoding="utf-8"):
                record = json.loads(line)
                self.texts.append(record["text"])
                places.append((part, start, record["frames"]))
                start += record["frames"]
        self._places = np.array(places, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def frame_counts(self) -> NDArray[np.float64]:
        """Encoder frames of each clip."""
        return self._places[:, 2].astype(np.float64)

    def __getitem__(self, key: ClipKey) -> dict[str, Any]:
        random = np.random.default_rng([key.epoch, key.index])
        part, start, count = self._places[key.index]
        first = int(random.integers(0, self.settings.most_shift + 1)) if count > 20 else 0
        frames = self._arrays[part][start + first : start + count].astype(np.float32)
        frames += random.standard_normal(frames.shape, dtype=np.float32) * (
            self.settings.noise * float(frames.std())
        )
        frames[random.random(len(frames)) < self.settings.dropped_frames] = 0.0
        tokens = int(self.output_length(len(frames)))
        example = self.processor.training_example(self.texts[key.index], tokens)
        return {"frames": frames, "ids": example.input_ids, "labels": example.labels}

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Pad frames and prompts to a batch."""

        def pad(rows: list[Tensor], value: float) -> Tensor:
            return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)

        ids = pad([torch.tensor(item["ids"]) for item in items], 0)
        sizes = torch.tensor([len(item["ids"]) for item in items])
        return {
            "hidden": pad([torch.from_numpy(item["frames"]) for item in items], 0.0),
            "lengths": torch.tensor([len(item["frames"]) for item in items]),
            "input_ids": ids,
            "attention_mask": (torch.arange(ids.shape[1])[None] < sizes[:, None]).long(),
            "labels": pad([torch.tensor(item["labels"]) for item in items], IGNORED_LABEL),
        }


def listening_batches(
    cache: CachedFrames, batch: BatchSettings, step: int
) -> Iterator[dict[str, Tensor]]:
    """Endless batches from optimisation step ``step`` on; the batch's "seconds" are frames here."""
    return endless_batches(cache, cache.frame_counts, cache.collate, batch, step)


def listening_loss(model: ASRModel, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy of the transcripts, given encoder frames instead of audio."""
    embeds, counts = model.project(batch["hidden"], batch["lengths"])
    prompts = model.get_input_embeddings()(batch["input_ids"])
    prompts = model.scatter_audio(batch["input_ids"], prompts, embeds, counts)
    decoded = model.decoder(inputs_embeds=prompts, attention_mask=batch["attention_mask"])
    targets = batch["labels"][:, 1:]
    known = targets != IGNORED_LABEL
    logits = model.language_model.get_output_embeddings()(decoded.last_hidden_state[:, :-1][known])
    loss = model.loss(logits, targets[known])
    accuracy = (logits.argmax(-1) == targets[known]).float().mean()
    return loss, {"accuracy": float(accuracy)}
