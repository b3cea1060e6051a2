"""Batches of similar length, bounded by their padded seconds, the same on every run.

A *global batch* is what one optimizer step sees. It is formed first, over all processes, and only
then cut into micro-batches, so two processes see together what one process sees with the doubled
batch. The order is a function of the seed and the epoch alone: position ``n`` can be computed
without having lived through the first ``n`` batches, so to resume is to start there.

This module knows durations, never audio.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinyvoice.errors import ConfigurationError

SMALLEST_POOL = 8
"""A pool holds at least this many full batches, or there is little to sort."""


@dataclass(frozen=True)
class BatchSettings:
    """How batches are formed; seconds and clips count for one micro-batch of one process."""

    seconds: float = 160.0
    """Padded seconds of a micro-batch at most: its longest clip times its number of clips."""
    max_clips: int = 64
    accumulation: int = 1
    """Micro-batches of a process that make up one optimizer step."""
    pool: int = 2048
    """Clips that are drawn at random and then sorted by length together, over all processes; more
    waste less padding and mix lengths less."""
    seed: int = 0
    shuffle: bool = True


@dataclass(frozen=True)
class ClipKey:
    """A clip's place in the run: which clip, in which epoch. Seeds everything random about it."""

    epoch: int
    index: int
    counts: bool = True
    """False for a clip that fills an otherwise empty micro-batch and has no weight in the loss."""


class GlobalBatches:
    """The endless sequence of global batches over clips of known duration.

    Args:
        durations: ``(clips,)`` seconds.
        settings: sizes for one process.
        processes: how many processes share the work.

    Raises:
        ConfigurationError: no clips, or a setting that is not positive.
    """

    def __init__(
        self, durations: NDArray[np.floating], settings: BatchSettings, processes: int = 1
    ) -> None:
        for key in ("seconds", "max_clips", "accumulation", "pool"):
            if getattr(settings, key) <= 0:
                raise ConfigurationError(f"batch.{key} must be positive.", key=f"batch.{key}")
        if len(durations) == 0:
            raise ConfigurationError(
                "There is no clip to train on: check the paths and limits under 'data'.", key="data"
            )
        self.durations = np.asarray(durations, dtype=np.float64)
        self.settings = settings
        self.parts = settings.accumulation * processes
        self._epoch = -1
        self._batches: list[NDArray[np.int64]] = []

    def epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the global batches of an epoch, each the indices of its clips.

        Every clip is in exactly one batch. Clips are sorted by length within pools of shuffled
        clips, cut into batches, and the batches shuffled.
        """
        if epoch != self._epoch:
            random = np.random.default_rng([self.settings.seed, epoch])
            order = np.arange(len(self.durations))
            if self.settings.shuffle:
                random.shuffle(order)
            batches: list[NDArray[np.int64]] = []
            pool = max(self.settings.pool, SMALLEST_POOL * self.settings.max_clips * self.parts)
            for start in range(0, len(order), pool):
                batches += self._cut(order[start : start + pool])
            if self.settings.shuffle:
                random.shuffle(batches)
            self._epoch, self._batches = epoch, batches
        return self._batches

    def from_step(self, step: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield ``(epoch, clips)`` for optimizer steps ``step``, ``step + 1``, … without end."""
        epoch, position = 0, step
        while position >= len(self.epoch(epoch)):
            position -= len(self.epoch(epoch))
            epoch += 1
        while True:
            for clips in self.epoch(epoch)[position:]:
                yield epoch, clips
            epoch, position = epoch + 1, 0

    def _cut(self, clips: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Sort clips by length and cut them where a batch would pass the limits."""
        clips = clips[np.argsort(self.durations[clips], kind="stable")]
        max_seconds = self.settings.seconds * self.parts
        max_clips = self.settings.max_clips * self.parts
        batches, start = [], 0
        for end in range(1, len(clips) + 1):
            if end < len(clips):
                count = end + 1 - start
                fits = count <= max_clips and count * self.durations[clips[end]] <= max_seconds
                # A batch smaller than the number of micro-batches would leave a process idle.
                if fits or count <= self.parts:
                    continue
            batches.append(clips[start:end])
            start = end
        return batches


class MicroBatches:
    """The micro-batches of one process, as a batch sampler for `torch.utils.data.DataLoader`.

    Yields lists of `ClipKey`, ``accumulation`` of them for each optimizer step. Where a global
    batch has fewer clips than micro-batches, the empty ones repeat its first clip, marked as not
    counting.
    """

    def __init__(self, batches: GlobalBatches, *, rank: int = 0, first_step: int = 0) -> None:
        self.batches = batches
        self.rank = rank
        self.first_step = first_step

    def __iter__(self) -> Iterator[list[ClipKey]]:
        accumulation, parts = self.batches.settings.accumulation, self.batches.parts
        for epoch, clips in self.batches.from_step(self.first_step):
            for micro in range(accumulation):
                # Dealt out one by one: neighbours in length land on different processes, which
                # therefore finish together.
                part = clips[self.rank * accumulation + micro :: parts]
                if len(part):
                    yield [ClipKey(epoch, int(index)) for index in part]
                else:
                    yield [ClipKey(epoch, int(clips[0]), counts=False)]
