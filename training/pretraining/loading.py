"""Batches for a training step: this process's share of them, from any optimisation step on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from training.data.batching import BatchSettings, GlobalBatches, MicroBatches
from training.pretraining.loop import join_processes

PREFETCHED_BATCHES = 4
"""Batches that each loader process keeps ready."""


def endless_batches(
    clips: Dataset[Any],
    durations: NDArray[np.floating],
    collate: Callable[[list[Any]], Any],
    batch: BatchSettings,
    step: int,
    workers: int = 1,
) -> Iterator[Any]:
    """Batches without end, the same whether a run began at ``step`` or came there.

    ``durations`` (clips,) have the unit of ``batch.seconds``; ``workers`` 0 loads in this process.
    """
    rank, processes = join_processes()
    batches = GlobalBatches(durations, batch, processes)
    return iter(
        DataLoader(
            clips,
            batch_sampler=MicroBatches(batches, rank=rank, first_step=step),
            collate_fn=collate,
            num_workers=workers,
            prefetch_factor=PREFETCHED_BATCHES if workers else None,
        )
    )
