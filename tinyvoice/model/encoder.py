"""Run a GLM-ASR audio encoder over a batch of clips of different length.

``GlmAsrEncoder.forward`` takes no mask: it attends to padding, and its convolutions smear padding
into the last frames. :func:`encode_features` drives the encoder's own submodules instead and masks
after each step, so that a clip gives the same frames alone and inside a padded batch. It can also
restrict attention to blocks of the past, which is how an encoder is trained to be streamed.

It does not extract log-mel features, keeps no state between calls and holds no parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers.models.glmasr.modeling_glmasr import GlmAsrEncoder

from tinyvoice.model.projectors import Length, frame_mask


def conv_output_length(length: Length, layers: Sequence[Sequence[int]]) -> Length:
    """Frames left of ``length`` after convolutions given as ``(padding, kernel, stride)``."""
    for padding, kernel, stride in layers:
        length = (length + 2 * padding - (kernel - 1) - 1) // stride + 1
    return length


def conv_shape(conv: nn.Conv1d) -> tuple[int, int, int]:
    """``(padding, kernel, stride)`` of a convolution."""
    return int(conv.padding[0]), conv.kernel_size[0], conv.stride[0]


def encoder_lengths(tower: GlmAsrEncoder, lengths: Length) -> Length:
    """Encoder frames for ``lengths`` log-mel frames."""
    return conv_output_length(lengths, (conv_shape(tower.conv1), conv_shape(tower.conv2)))


def encode_features(
    tower: GlmAsrEncoder,
    input_features: Tensor,
    lengths: Tensor | None = None,
    chunk_frames: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Encode log-mel features, as if each clip were alone.

    ``input_features`` is (batch, mels, frames), right-padded; ``lengths`` (batch,) counts each
    clip's log-mel frames, None means all of them. With ``chunk_frames`` an encoder frame sees its
    own block of that many encoder frames and all earlier blocks, never a later one.

    Returns (batch, encoder frames, width), zero behind each clip's end, and the (batch,) lengths
    in encoder frames.
    """
    hidden, final, padded = convolve_features(tower, input_features, lengths)
    inside = frame_mask(final, hidden.shape[1]) if padded else None
    mask = attention_mask(tower.config._attn_implementation, hidden, inside, chunk_frames)
    hidden = run_layers(tower, hidden, mask)
    if inside is not None:
        hidden = hidden * inside[..., None].to(hidden.dtype)
    return hidden, final


def convolve_features(
    tower: GlmAsrEncoder, input_features: Tensor, lengths: Tensor | None = None
) -> tuple[Tensor, Tensor, bool]:
    """The two convolutions, as if each clip were alone.

    Takes what :func:`encode_features` takes. Returns (batch, encoder frames, width), the (batch,)
    lengths in encoder frames, and whether some clip is shorter than the batch; what lies behind a
    short clip's end is not zero.
    """
    batch, _, frames = input_features.shape
    if lengths is None:
        lengths = torch.full((batch,), frames, device=input_features.device)
    first = conv_output_length(lengths, (conv_shape(tower.conv1),))
    final = conv_output_length(first, (conv_shape(tower.conv2),))
    padded = bool((lengths < frames).any())

    hidden = input_features
    if padded:
        hidden = hidden * frame_mask(lengths, frames)[:, None].to(hidden.dtype)
    hidden = nn.functional.gelu(tower.conv1(hidden))
    if padded:
        hidden = hidden * frame_mask(first, hidden.shape[-1])[:, None].to(hidden.dtype)
    hidden = nn.functional.gelu(tower.conv2(hidden)).transpose(1, 2)
    return hidden, final, padded


def run_layers(tower: GlmAsrEncoder, hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Transformer layers and final norm over (batch, frames, width), with rotary positions."""
    positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
    rotary = tower.rotary_emb(hidden, position_ids=positions)
    for layer in tower.layers:
        hidden = layer(hidden, position_embeddings=rotary, attention_mask=mask)
    return tower.norm(hidden)


def attention_mask(
    implementation: str | None,
    hidden: Tensor,
    inside: Tensor | None,
    chunk_frames: int | None,
) -> Tensor | None:
    """The mask the encoder's attention wants: boolean for sdpa, additive for eager, else 2-D.

    None when nothing is to be hidden, which keeps the fast path without a mask.
    """
    frames = hidden.shape[1]
    if chunk_frames is not None and chunk_frames >= frames:
        chunk_frames = None
    if inside is None and chunk_frames is None:
        return None
    if implementation is not None and implementation.startswith("flash"):
        if chunk_frames is not None:
            raise ValueError("flash attention cannot mask by chunks; use attn_implementation sdpa")
        return inside
    visible = torch.ones(1, 1, 1, frames, dtype=torch.bool, device=hidden.device)
    if inside is not None:
        visible = inside[:, None, None].clone()
        # An empty clip must still see something, or its softmax is not a number.
        visible[..., 0] = True
    if chunk_frames is not None:
        block = torch.arange(frames, device=hidden.device) // chunk_frames
        visible = visible & (block[None] <= block[:, None])
    if visible.shape[-2] == 1:
        visible = visible.expand(-1, -1, frames, -1)
    if implementation == "eager":
        hidden_value = torch.finfo(hidden.dtype).min
        return torch.zeros_like(visible, dtype=hidden.dtype).masked_fill(~visible, hidden_value)
    return visible
