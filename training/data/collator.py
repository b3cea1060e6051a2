"""From clips to batches: cut, augment, compute features, write prompt and labels, pad.

`TrainingClips` is the map from a clip's place in the run (`training.data.batching.ClipKey`) to a
finished example; it runs in the data loader's workers. `collate` pads examples to a batch. All
that is random about a clip is drawn from a generator seeded by seed, epoch and index, so a clip
is the same whichever worker or process makes it, and after a resume.

Neither chooses clips nor moves tensors to a device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from tinyvoice.errors import AudioError
from tinyvoice.model.encoder import conv_output_length
from tinyvoice.model.modeling import ASRModel
from tinyvoice.model.processing import IGNORED_LABEL, ASRProcessor
from tinyvoice.model.timestamps import frame_letter_targets
from training.data.augmentation import Augmentation, Clip, Random, empty_clip
from training.data.batching import ClipKey
from training.data.manifest import SAMPLE_RATE

LONGEST_CLIP_S = 60.0
"""Room for clips of 30 s that augmentation has slowed down and padded."""

SHORTEST_CLIP_S = 0.5
"""Clips are padded to this, so that every projector makes at least one audio token of them."""

WORD_END_TOLERANCE_S = 0.02
"""A word counts as spoken when a cut takes no more than this from its end."""


class ClipSource(Protocol):
    """Clips by index: a manifest, a Hub data set, a mixture of them."""

    def __len__(self) -> int: ...

    def clip(self, index: int) -> Clip:
        """Read a clip; raises `AudioError` where that fails."""


@dataclass(frozen=True)
class FrameCounts:
    """How many frames and audio tokens a clip becomes, looked up by its log-mel frames."""

    encoder_frames: NDArray[np.int64]
    audio_tokens: NDArray[np.int64]
    frame_seconds: float
    """Seconds of an encoder frame."""

    @classmethod
    def of(cls, model: ASRModel, processor: ASRProcessor) -> FrameCounts:
        """Tabulate a model's counts up to `LONGEST_CLIP_S`."""
        mel_frames = torch.arange(int(LONGEST_CLIP_S / processor.hop_seconds) + 2)
        layers = model.config.encoder_conv_layers or []
        encoder_frames = conv_output_length(mel_frames, layers)
        audio_tokens = model.projector.output_length(encoder_frames).clamp_min(0)
        stride = int(np.prod([stride for _, _, stride in layers]))
        return cls(
            encoder_frames.numpy(), audio_tokens.numpy(), float(processor.hop_seconds * stride)
        )


@dataclass(frozen=True)
class ClipSettings:
    """What happens to a clip on its way into a batch."""

    seed: int = 0
    cut_probability: float = 0.0
    """How often a clip with known word times is cut at a random point, its label with it, so that
    the model learns to write what has been said so far and no more."""
    shortest_cut_s: float = 0.3
    empty_probability: float = 0.0
    """How often a clip is replaced by silence, noise or tones with an empty label."""
    system_prompt: str = ""
    aligner_alphabet: str | None = None
    """The letters of the model's aligner, or None where it has none."""
    silence_padding_s: float = 0.0
    """Seconds of silence around every clip: the model's own, so that it learns from what it will be
    given. A clip that was cut has none behind it, as live speech that goes on has none."""
    skip_unreadable: bool = False
    """Leave clips out whose audio cannot be read, rather than raise."""


@dataclass(frozen=True)
class Example:
    """One finished clip; lengths differ from clip to clip."""

    features: Tensor
    """``(mels, frames)``."""
    input_ids: list[int]
    labels: list[int]
    frame_targets: NDArray[np.int64] | None
    """The aligner's class of every encoder frame, None where word times are unknown."""
    seconds: float
    text: str
    counts: bool = True
    """Whether the clip has weight in the loss."""
    error: str | None = None
    """Why the clip could not be read, if it could not."""


@dataclass
class Batch:
    """Padded examples, on one device.

    Features are padded with zeros, labels and targets with -100, all on the right.
    """

    input_features: Tensor
    """``(batch, mels, frames)`` float32."""
    input_features_mask: Tensor
    """``(batch, frames)`` bool."""
    input_ids: Tensor
    """``(batch, tokens)`` int64, the ``<audio>`` id once per projected frame."""
    attention_mask: Tensor
    """``(batch, tokens)`` int64."""
    labels: Tensor
    """``(batch, tokens)`` int64, -100 in prompt and padding."""
    frame_targets: Tensor | None
    """``(batch, encoder frames)`` int64 for the aligner, -100 where unknown."""
    label_tokens: int
    """Tokens that the loss is the mean of."""
    target_frames: int
    """Encoder frames that the aligner's loss is the mean of."""
    texts: list[str]
    seconds: float
    """Audio in the batch, without padding."""
    errors: list[str]
    """What could not be read."""

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its tensors on ``device``."""
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Return the batch in memory that a GPU copies from while it computes."""
        return self._with_tensors(Tensor.pin_memory)

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return the batch with its tensors changed."""
        tensors: dict[str, Any] = {
            name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **tensors)


class TrainingClips(Dataset[Example]):
    """Examples by `ClipKey`, made reproducibly from the clips of a source."""

    def __init__(
        self,
        source: ClipSource,
        processor: ASRProcessor,
        counts: FrameCounts,
        settings: ClipSettings | None = None,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.source = source
        self.processor = processor
        self.counts = counts
        self.settings = settings or ClipSettings()
        self.augmentation = augmentation

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: ClipKey) -> Example:
        """Make the example; its randomness depends on seed, epoch and index alone.

        Raises:
            AudioError: the audio cannot be read and ``skip_unreadable`` is off.
        """
        random = np.random.default_rng([self.settings.seed, key.epoch, key.index])
        try:
            clip = self.source.clip(key.index)
        except AudioError as error:
            if not self.settings.skip_unreadable:
                raise
            clip = Clip(np.zeros(int(SHORTEST_CLIP_S * SAMPLE_RATE), dtype=np.float32), "")
            return replace(self._example(clip), counts=False, error=str(error))
        if random.random() < self.settings.empty_probability:
            clip = empty_clip(clip.duration, random)
        if self.augmentation is not None:
            clip = self.augmentation(clip, random)
        whole = clip
        if random.random() < self.settings.cut_probability:
            clip = cut_short(clip, random, self.settings.shortest_cut_s)
        return replace(self._example(clip, goes_on=clip is not whole), counts=key.counts)

    def _example(self, clip: Clip, goes_on: bool = False) -> Example:
        """Compute features, prompt, labels and the aligner's targets."""
        silence = round(self.settings.silence_padding_s * SAMPLE_RATE)
        longest = int(LONGEST_CLIP_S * SAMPLE_RATE) - 2 * silence
        shortest = int(SHORTEST_CLIP_S * SAMPLE_RATE)
        samples = clip.samples[:longest]
        if len(samples) < shortest:
            samples = np.pad(samples, (0, shortest - len(samples)))
        padded = np.pad(samples, (silence, 0 if goes_on else silence))
        features, _ = self.processor.features([padded])
        mel_frames = features.shape[-1]
        input_ids, labels = self.processor.training_example(
            clip.text, int(self.counts.audio_tokens[mel_frames]), self.settings.system_prompt
        )
        return Example(
            features=features[0],
            input_ids=input_ids,
            labels=labels,
            frame_targets=self._frame_targets(clip, int(self.counts.encoder_frames[mel_frames])),
            seconds=len(samples) / SAMPLE_RATE,
            text=clip.text,
        )

    def _frame_targets(self, clip: Clip, frames: int) -> NDArray[np.int64] | None:
        """Return the aligner's targets, right also for a word that the clip's end cuts in two."""
        if clip.words is None or self.settings.aligner_alphabet is None:
            return None
        later = self.settings.silence_padding_s
        words = [(word, start + later, end + later) for word, start, end in clip.words]
        last = max((end for _, _, end in words), default=0.0)
        whole = max(frames, int(last / self.counts.frame_seconds) + 2)
        return frame_letter_targets(
            words, whole, self.counts.frame_seconds, self.settings.aligner_alphabet
        )[:frames]


def cut_short(clip: Clip, random: Random, shortest_s: float = 0.3) -> Clip:
    """Cut a clip at a random point; the label keeps the words that have ended by then.

    Word times stay whole, also those behind the cut. A clip without word times, with a label
    whose words are not those that were timed, or shorter than ``shortest_s`` is returned as it is.
    """
    written = clip.text.split()
    if clip.words is None or len(written) != len(clip.words) or clip.duration <= shortest_s:
        return clip
    end = random.uniform(shortest_s, clip.duration)
    spoken = sum(word_end <= end + WORD_END_TOLERANCE_S for _, _, word_end in clip.words)
    samples = clip.samples[: int(end * SAMPLE_RATE)]
    return replace(clip, samples=samples, text=" ".join(written[:spoken]))


def collate(examples: Sequence[Example]) -> Batch:
    """Pad examples to a batch; one without weight in the loss keeps its place but no labels."""
    features = [example.features for example in examples]
    lengths = torch.tensor([feature.shape[1] for feature in features])
    labels = [
        example.labels if example.counts else [IGNORED_LABEL] * len(example.labels)
        for example in examples
    ]
    padded_labels = _pad_rows([torch.tensor(row) for row in labels], IGNORED_LABEL)
    frame_targets = _frame_target_rows(examples)
    input_ids = _pad_rows([torch.tensor(example.input_ids) for example in examples], 0)
    tokens = torch.tensor([len(example.input_ids) for example in examples])
    padded = features[0].new_zeros(len(features), features[0].shape[0], int(lengths.max()))
    for row, feature in zip(padded, features, strict=True):
        row[:, : feature.shape[1]] = feature
    return Batch(
        input_features=padded,
        input_features_mask=_inside(lengths),
        input_ids=input_ids,
        attention_mask=_inside(tokens).long(),
        labels=padded_labels,
        frame_targets=frame_targets,
        label_tokens=_supervised(padded_labels[:, 1:]),
        target_frames=0 if frame_targets is None else _supervised(frame_targets),
        texts=[example.text for example in examples],
        seconds=sum(example.seconds for example in examples if example.counts),
        errors=[example.error for example in examples if example.error is not None],
    )


def _frame_target_rows(examples: Sequence[Example]) -> Tensor | None:
    """Pad the aligner's targets, or return None where no clip that counts has any."""
    rows = [
        torch.from_numpy(example.frame_targets)
        if example.frame_targets is not None and example.counts
        else torch.zeros(0, dtype=torch.long)
        for example in examples
    ]
    return _pad_rows(rows, IGNORED_LABEL) if any(len(row) for row in rows) else None


def _supervised(labels: Tensor) -> int:
    """Count the labels that are to be learnt."""
    return int((labels != IGNORED_LABEL).sum())


def _pad_rows(rows: list[Tensor], value: int) -> Tensor:
    """Pad vectors on the right to ``(rows, longest)``."""
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)


def _inside(lengths: Tensor) -> Tensor:
    """Return ``(rows, longest)``, true inside each row's length."""
    return torch.arange(int(lengths.max()))[None, :] < lengths[:, None]
