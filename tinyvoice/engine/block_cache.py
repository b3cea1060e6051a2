"""The incremental encoder for checkpoints trained with chunk masks: each block is encoded once.

A frame attends to its own block of ``block_frames`` encoder frames and to all earlier ones, whose
keys and values are cached. A block is final when its last frame has its right context of two
feature frames; the unfinished block behind it is encoded provisionally, anew at each update. The
final frames are those of ``encode_features(..., chunk_frames=block_frames)`` over the whole clip,
however the audio was cut.

Streams of any age run together: their frames lie one behind the other in one (frames, width)
matrix, without padding, and only attention is done stream by stream, on views of each one's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.models.glmasr.modeling_glmasr import apply_rotary_pos_emb

from tinyvoice.engine.encoder_state import EncoderState, KeyValueCache
from tinyvoice.engine.features import IncrementalLogMel
from tinyvoice.engine.projection import AudioEmbeddings, IncrementalProjection
from tinyvoice.errors import ConfigurationError
from tinyvoice.model.encoder import convolve_features, encoder_lengths
from tinyvoice.model.modeling import ASRModel

DEFAULT_BLOCK_FRAMES = 12

# The second convolution halves the rate; both together reach two feature frames to either side.
MEL_PER_FRAME = 2
CONTEXT_MEL = 2


@dataclass(frozen=True)
class Segment:
    """Rows of the packed matrix that attend to the same keys: a block, or what there is of one."""

    stream: int
    start: int
    end: int
    keys: int
    """Frames of the utterance that the rows see, from its beginning."""


@dataclass(frozen=True)
class Span:
    """Where one stream's frames are."""

    start: int
    end: int
    """Rows of the packed matrix."""
    first: int
    """The first of them as a frame of its utterance."""

    @property
    def last(self) -> int:
        """The frame of the utterance behind the last row."""
        return self.first + self.end - self.start


class BlockCacheEncoder:
    """Streaming encoder with cached blocks; see the module's description.

    Args:
        model: a model with its processor. Its attention implementation is not used: attention here
            is always torch's own.
        block_frames: encoder frames in a block. More gives the encoder more right context, and
            embeddings are frozen later.

    Raises:
        ConfigurationError: ``block_frames`` is below 1, or the projector takes whole clips only.
    """

    def __init__(self, model: ASRModel, block_frames: int = DEFAULT_BLOCK_FRAMES) -> None:
        if block_frames < 1:
            raise ConfigurationError(
                f"block_frames is {block_frames}; a block needs at least one frame.",
                key="block_frames",
            )
        self.block_frames = block_frames
        self._tower: Any = model.audio_tower
        self._config: Any = self._tower.config
        self._weight: Tensor = self._tower.conv1.weight
        self._log_mel = IncrementalLogMel(model.need_processor(), self._weight.device)
        self._projection = IncrementalProjection(model)
        attention = self._tower.layers[0].self_attn
        self._head_dim: int = attention.head_dim
        self._key_heads: int = self._config.num_key_value_heads
        self._rotary = self._rotary_table(KeyValueCache.FIRST_FRAMES)

    def new_state(self) -> EncoderState:
        """The state of a new utterance."""
        cache = KeyValueCache(
            len(self._tower.layers),
            self._key_heads,
            self._head_dim,
            self._weight.device,
            self._weight.dtype,
        )
        return EncoderState(
            self._log_mel.new_state(),
            self._projection.new_state(),
            self._weight.new_empty(0, self._log_mel.mels),
            self._projection.no_embeddings(),
            cache=cache,
        )

    @torch.inference_mode()
    def advance(
        self, states: Sequence[EncoderState], samples: Sequence[NDArray[np.float32]]
    ) -> list[AudioEmbeddings]:
        """Move several utterances on by their new audio.

        ``samples`` holds each one's new samples at the model's sample rate, ``(samples,)`` float32
        in [-1, 1], of any length. Returns each one's newly frozen embeddings and its provisional
        tail. The states change only when all of it has succeeded.
        """
        log_mels, frames = self._log_mel.advance([s.log_mel for s in states], samples)
        mels = [
            torch.cat((state.mel, new.normalised().to(state.mel.dtype)))
            for state, new in zip(states, frames, strict=True)
        ]
        results = [
            AudioEmbeddings(self._projection.no_embeddings(), state.tail) for state in states
        ]
        active = [i for i, new in enumerate(frames) if len(new.log_mel) and len(samples[i])]
        if active:
            chosen = [states[i] for i in active]
            finals = [self._final_frames(log_mels[i].frames) for i in active]
            hidden = self._encode(chosen, [mels[i] for i in active])
            projections, embeddings = self._projection.advance(
                [state.projection for state in chosen],
                [
                    rows[: end - s.frames]
                    for rows, end, s in zip(hidden, finals, chosen, strict=True)
                ],
                [
                    rows[end - s.frames :]
                    for rows, end, s in zip(hidden, finals, chosen, strict=True)
                ],
            )
            for at, index in enumerate(active):
                state, embedded = states[index], embeddings[at]
                keep = self._first_mel(finals[at]) - self._first_mel(state.frames)
                known = len(mels[index]) - (len(frames[index].log_mel) - frames[index].final)
                state.mel = mels[index][keep:known].clone()
                state.frames, state.projection = finals[at], projections[at]
                state.tokens += len(embedded.frozen)
                state.tail = embedded.tail
                results[index] = embedded
        for state, log_mel in zip(states, log_mels, strict=True):
            state.log_mel = log_mel
        return results

    def _final_frames(self, mel_frames: int) -> int:
        """Encoder frames in whole blocks, all of their right context there."""
        frames = max(0, mel_frames - CONTEXT_MEL + 1) // MEL_PER_FRAME
        return frames // self.block_frames * self.block_frames

    @staticmethod
    def _first_mel(frames: int) -> int:
        """The first feature frame that encoder frames from ``frames`` on depend on."""
        return max(0, frames * MEL_PER_FRAME - CONTEXT_MEL)

    def _encode(self, states: Sequence[EncoderState], mels: Sequence[Tensor]) -> list[Tensor]:
        """Each stream's encoder frames from its first that is not final, ``(frames, width)``."""
        hidden, spans = self._convolve(states, mels)
        segments = self._segments(spans)
        caches = [state.cache for state in states if state.cache is not None]
        for cache, span in zip(caches, spans, strict=True):
            cache.reserve(span.last)
        rotary = self._rotary_rows(spans)
        for index, layer in enumerate(self._tower.layers):
            normed = layer.input_layernorm(hidden)
            hidden = hidden + self._attend(index, layer, normed, rotary, spans, segments, caches)
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        hidden = self._tower.norm(hidden)
        return [hidden[span.start : span.end] for span in spans]

    def _convolve(
        self, states: Sequence[EncoderState], mels: Sequence[Tensor]
    ) -> tuple[Tensor, list[Span]]:
        """The convolutions over each stream's frames that are not final, packed."""
        lengths = [len(mel) for mel in mels]
        features = nn.utils.rnn.pad_sequence(list(mels), batch_first=True).transpose(1, 2)
        uneven = min(lengths) < max(lengths)
        counted = torch.tensor(lengths, device=features.device) if uneven else None
        hidden, _, _ = convolve_features(self._tower, features, counted)
        rows, spans, at = [], [], 0
        for index, (state, length) in enumerate(zip(states, lengths, strict=True)):
            # Where there is left context, the first frame is one that is final already.
            row = hidden[index, int(state.frames > 0) : encoder_lengths(self._tower, length)]
            rows.append(row)
            spans.append(Span(at, at + len(row), state.frames))
            at += len(row)
        return torch.cat(rows), spans

    def _segments(self, spans: Sequence[Span]) -> list[Segment]:
        """The packed rows block by block; each stream begins at the start of a block."""
        segments = []
        for stream, span in enumerate(spans):
            for start in range(span.start, span.end, self.block_frames):
                end = min(start + self.block_frames, span.end)
                segments.append(Segment(stream, start, end, span.first + end - span.start))
        return segments

    def _attend(
        self,
        index: int,
        layer: Any,
        normed: Tensor,
        rotary: tuple[Tensor, Tensor],
        spans: Sequence[Span],
        segments: Sequence[Segment],
        caches: Sequence[KeyValueCache],
    ) -> Tensor:
        """Self-attention of one layer, (frames, width) to the same; fills the caches."""
        attention = layer.self_attn
        queries = attention.q_proj(normed).unflatten(-1, (-1, self._head_dim))
        keys = attention.k_proj(normed).unflatten(-1, (-1, self._head_dim))
        values = attention.v_proj(normed).unflatten(-1, (-1, self._head_dim))
        queries, keys = apply_rotary_pos_emb(queries, keys, *rotary, unsqueeze_dim=1)
        pairs = torch.stack((keys, values)).transpose(1, 2)
        for cache, span in zip(caches, spans, strict=True):
            cache.storage[index, :, :, span.first : span.last] = pairs[:, :, span.start : span.end]
        queries = queries.transpose(0, 1)[None]
        outputs = []
        for segment in segments:
            seen = caches[segment.stream].storage[index, :, :, : segment.keys]
            outputs.append(
                nn.functional.scaled_dot_product_attention(
                    queries[:, :, segment.start : segment.end],
                    seen[None, 0],
                    seen[None, 1],
                    scale=attention.scaling,
                    enable_gqa=attention.num_key_value_groups > 1,
                )
            )
        output = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
        return attention.o_proj(output[0].transpose(0, 1).flatten(1))

    def _rotary_table(self, frames: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the first positions, each (frames, rotary width)."""
        positions = torch.arange(frames, device=self._weight.device)[None]
        cosines, sines = self._tower.rotary_emb(self._weight, position_ids=positions)
        return cosines[0], sines[0]

    def _rotary_rows(self, spans: Sequence[Span]) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the packed rows."""
        furthest = max(span.last for span in spans)
        if furthest > len(self._rotary[0]):
            self._rotary = self._rotary_table(2 * furthest)
        cosines, sines = self._rotary
        if len(spans) == 1:
            rows = slice(spans[0].first, spans[0].last)
            return cosines[rows], sines[rows]
        places = torch.cat([torch.arange(span.first, span.last) for span in spans])
        places = places.to(cosines.device)
        return cosines[places], sines[places]
