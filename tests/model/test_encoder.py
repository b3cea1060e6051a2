"""The masked encoder against transformers' own forward, clip by clip."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.glmasr.modeling_glmasr import GlmAsrEncoder

from tests.miniature import MELS, glm_asr_config, scatter_weights
from tinyvoice.model.encoder import conv_output_length, encode_features, encoder_lengths


@pytest.fixture(scope="module")
def tower() -> GlmAsrEncoder:
    return build("sdpa")


def build(attention: str) -> GlmAsrEncoder:
    config: Any = glm_asr_config().audio_config
    config._attn_implementation = attention
    built = GlmAsrEncoder(config)
    scatter_weights(built, seed=5)
    return built.eval()


def features(*lengths: int) -> Tensor:
    """Right-padded features whose padding is far from zero, to be noticed where it leaks."""
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(len(lengths), MELS, max(lengths), generator=generator)
    for row, length in enumerate(lengths):
        batch[row, :, length:] = 100.0
    return batch


@pytest.mark.parametrize(("mel", "frames"), [(1, 1), (2, 1), (3, 2), (100, 50), (3000, 1500)])
def test_lengths_follow_the_convolutions(tower: GlmAsrEncoder, mel: int, frames: int) -> None:
    assert encoder_lengths(tower, mel) == frames
    assert conv_output_length(torch.tensor([mel]), [[1, 3, 1], [1, 3, 2]]).tolist() == [frames]


@torch.no_grad()
def test_a_single_clip_is_what_transformers_gives(tower: GlmAsrEncoder) -> None:
    clip = features(61)
    hidden, lengths = encode_features(tower, clip)
    torch.testing.assert_close(hidden, tower(clip).last_hidden_state)
    assert lengths.tolist() == [31]


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_padded_batch_gives_what_single_clips_give(attention: str) -> None:
    tower = build(attention)
    mel_lengths = [90, 61, 30, 7, 1]
    batch = features(*mel_lengths)
    hidden, lengths = encode_features(tower, batch, torch.tensor(mel_lengths))
    for row, length in enumerate(mel_lengths):
        alone = tower(batch[row : row + 1, :, :length]).last_hidden_state[0]
        torch.testing.assert_close(hidden[row, : lengths[row]], alone, atol=1e-5, rtol=1e-4)
        assert not hidden[row, lengths[row] :].any()


@torch.no_grad()
def test_an_empty_clip_spoils_nothing(tower: GlmAsrEncoder) -> None:
    batch = features(40, 20)
    hidden, _ = encode_features(tower, batch, torch.tensor([40, 0]))
    assert hidden.isfinite().all()
    alone, _ = encode_features(tower, batch[:1])
    torch.testing.assert_close(hidden[0], alone[0], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_chunks_hide_the_future(tower: GlmAsrEncoder) -> None:
    # Frames of the first block must not change with audio whose convolutions lie behind it.
    batch = features(80)
    later = batch.clone()
    later[:, :, 40:] += 1.0
    chunked = [encode_features(tower, x, chunk_frames=8)[0] for x in (batch, later)]
    torch.testing.assert_close(chunked[0][:, :16], chunked[1][:, :16])
    assert not torch.allclose(chunked[0][:, 24:], chunked[1][:, 24:])
    full = [encode_features(tower, x)[0] for x in (batch, later)]
    assert not torch.allclose(full[0][:, :16], full[1][:, :16])


@torch.no_grad()
def test_chunks_see_the_past_and_their_own_block(tower: GlmAsrEncoder) -> None:
    batch = features(80)
    earlier = batch.clone()
    earlier[:, :, :4] += 1.0
    chunked = [encode_features(tower, x, chunk_frames=8)[0] for x in (batch, earlier)]
    assert ((chunked[0] - chunked[1]).abs().amax(-1) > 0).all()


@torch.no_grad()
def test_chunks_and_padding_together(tower: GlmAsrEncoder) -> None:
    batch = features(80, 33)
    hidden, lengths = encode_features(tower, batch, torch.tensor([80, 33]), chunk_frames=5)
    alone, _ = encode_features(tower, batch[1:, :, :33], chunk_frames=5)
    torch.testing.assert_close(hidden[1, : lengths[1]], alone[0], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_chunk_of_the_whole_clip_is_full_attention(tower: GlmAsrEncoder) -> None:
    batch = features(50)
    torch.testing.assert_close(
        encode_features(tower, batch, chunk_frames=25)[0], encode_features(tower, batch)[0]
    )


def test_gradients_reach_the_encoder_through_the_mask(tower: GlmAsrEncoder) -> None:
    hidden, _ = encode_features(tower, features(40, 20), torch.tensor([40, 20]), chunk_frames=4)
    hidden.sum().backward()
    assert tower.conv1.weight.grad is not None
    assert tower.conv1.weight.grad.isfinite().all()
    tower.zero_grad()
