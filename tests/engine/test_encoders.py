"""Incremental encoders against the offline encoder over the whole clip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

import tinyvoice
from tinyvoice.engine.encoders import (
    BlockCacheEncoder,
    IncrementalEncoder,
)
from tinyvoice.engine.features import IncrementalLogMel
from tinyvoice.model.modeling import ASRModel

RATE = 16_000


@pytest.fixture(scope="module")
def model() -> ASRModel:
    return ASRModel.from_pretrained("embedded", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    path = Path(tinyvoice.__file__).parent / "cli" / "demo.flac"
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE
    return samples


def stream(
    encoder: IncrementalEncoder, clips: Sequence[np.ndarray], cuts: Sequence[Sequence[int]]
) -> list[tuple[Tensor, Tensor]]:
    """All frozen embeddings and the last tail of clips fed together in packets of those sizes."""
    states = [encoder.new_state() for _ in clips]
    packets = [np.split(samples, np.cumsum(cut)) for samples, cut in zip(clips, cuts, strict=True)]
    frozen: list[list[Tensor]] = [[] for _ in clips]
    tails: dict[int, Tensor] = {}
    for turn in range(max(map(len, packets))):
        present = [i for i, packet in enumerate(packets) if turn < len(packet)]
        results = encoder.advance([states[i] for i in present], [packets[i][turn] for i in present])
        for i, result in zip(present, results, strict=True):
            frozen[i].append(result.frozen)
            tails[i] = result.tail
            assert states[i].tokens == sum(map(len, frozen[i]))
    return [(torch.cat(frozen[i]), tails[i]) for i in range(len(clips))]


@torch.inference_mode()
def offline(model: ASRModel, samples: np.ndarray, block_frames: int | None) -> Tensor:
    """The embeddings of a whole clip, from the features that a stream of it has."""
    log_mel = IncrementalLogMel(model.need_processor())
    _, (frames,) = log_mel.advance([log_mel.new_state()], [samples])
    hidden, lengths = model.encode(frames.normalised().T[None], None, block_frames)
    embeds, counts = model.project(hidden, lengths)
    return embeds[0, : int(counts[0])]


@pytest.mark.parametrize("block_frames", [12, 8, 7])
def test_blocks_give_what_the_chunk_mask_gives(
    model: ASRModel, speech: np.ndarray, block_frames: int
) -> None:
    expected = offline(model, speech, block_frames)
    encoder = BlockCacheEncoder(model, block_frames)
    ((frozen, tail),) = stream(encoder, [speech], [[5120] * 14])
    assert len(frozen) > 25
    torch.testing.assert_close(torch.cat((frozen, tail)), expected, atol=1e-4, rtol=0)
