"""The encoder's transformer layers over frames of many streams, packed without padding.

All streams' frames lie one behind the other in one (frames, width) matrix. Only attention is done
segment by segment, on views of each stream's cache of keys and values, which it also fills. The
arithmetic is that of transformers' ``GlmAsrEncoderLayer``, arranged so that a few frames at a time
cost few calls: queries, keys and values in one product, and both rotated at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.glmasr.modeling_glmasr import GlmAsrEncoder

from tinyvoice.engine.encoder_state import KeyValueCache
from tinyvoice.model.joined_linear import joined_linear


@dataclass(frozen=True)
class Span:
    """One stream's frames in the packed matrix."""

    start: int
    end: int
    """Rows of the packed matrix."""
    first: int
    """The first of them as a frame of its utterance."""

    @property
    def last(self) -> int:
        """The frame of the utterance behind the last row."""
        return self.first + self.end - self.start


@dataclass(frozen=True)
class Segment:
    """Rows that attend to the same keys: a block, or what there is of one. Without gaps."""

    stream: int
    rows: int
    keys: int
    """Frames of the utterance that the rows see, from its beginning."""


class PackedLayers:
    """The layers and the final norm of an encoder.

    On a CPU the linear layers' weights are copied in the order that products of a few rows read
    fastest, so later changes of the tower's weights are not seen.
    """

    def __init__(self, tower: GlmAsrEncoder) -> None:
        attention: Any = tower.layers[0].self_attn
        self._rotary_emb = tower.rotary_emb
        self._norm = tower.norm
        self._weight = tower.conv1.weight
        self.head_dim: int = attention.head_dim
        self.key_heads: int = attention.config.num_key_value_heads
        self._heads: int = attention.config.num_attention_heads
        self._scaling: float = attention.scaling
        self.layers = [PackedLayer(layer) for layer in tower.layers]
        self._partner, self._cosines, self._sines = self._rotary_tables(KeyValueCache.FIRST_FRAMES)

    def new_cache(self) -> KeyValueCache:
        """Room for an utterance's keys and values."""
        device, dtype = self._weight.device, self._weight.dtype
        return KeyValueCache(len(self.layers), self.key_heads, self.head_dim, device, dtype)

    def __call__(
        self,
        hidden: Tensor,
        spans: Sequence[Span],
        segments: Sequence[Segment],
        caches: Sequence[KeyValueCache],
    ) -> Tensor:
        """(frames, width) from the convolutions to (frames, width) of the encoder's output.

        Each span's keys and values are written to its stream's cache, over whatever is there.
        """
        for cache, span in zip(caches, spans, strict=True):
            cache.reserve(span.last)
        cosines, sines = self._rotary_rows(spans)
        sizes = [span.end - span.start for span in spans]
        rows = [segment.rows for segment in segments]
        # Views of all layers at once, taken apart layer by layer.
        places = zip(
            *(
                cache.storage[:, :, :, span.first : span.last].unbind()
                for cache, span in zip(caches, spans, strict=True)
            ),
            strict=True,
        )
        seen = zip(
            *(
                caches[segment.stream].storage[:, :, :, : segment.keys].unsqueeze(2).unbind()
                for segment in segments
            ),
            strict=True,
        )
        for layer, new, known in zip(self.layers, places, seen, strict=True):
            mixed = layer.queries_keys_values(hidden).unflatten(-1, (-1, self.head_dim))
            self._rotate(mixed[:, : self._heads + self.key_heads], cosines, sines)
            pairs = mixed[:, self._heads :].unflatten(1, (2, -1)).permute(1, 2, 0, 3)
            for place, pair in zip(new, pairs.split(sizes, dim=2), strict=True):
                place.copy_(pair)
            queries = mixed[:, : self._heads].transpose(0, 1).unsqueeze(0).split(rows, dim=2)
            outputs = [
                self._attend(query, pair) for query, pair in zip(queries, known, strict=True)
            ]
            output = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
            hidden = layer.rest(hidden, output[0].transpose(0, 1).flatten(1))
        return self._norm(hidden)

    def _attend(self, query: Tensor, pair: Tensor) -> Tensor:
        """(1, heads, rows, head_dim) queries over (2, 1, key heads, frames, head_dim)."""
        key, value = pair.unbind()
        return nn.functional.scaled_dot_product_attention(
            query,
            key,
            value,
            scale=self._scaling,
            enable_gqa=self._heads != self.key_heads,
        )

    def _rotate(self, heads: Tensor, cosines: Tensor, sines: Tensor) -> None:
        """Rotary positions, in place, of (frames, heads, head_dim)."""
        partners = heads.index_select(-1, self._partner)
        heads.mul_(cosines).addcmul_(partners, sines)

    def _rotary_tables(self, frames: int) -> tuple[Tensor, Tensor, Tensor]:
        """Each dimension's partner, and (frames, 1, head_dim) cosines and signed sines.

        Dimensions behind the rotary ones stay as they are: their cosine is 1 and their sine 0.
        """
        positions = torch.arange(frames, device=self._weight.device)[None]
        cosines, sines = self._rotary_emb(self._weight, position_ids=positions)
        width = cosines.shape[-1]
        partner = torch.arange(self.head_dim, device=cosines.device)
        partner[:width] = partner[:width].roll(width // 2)
        signs = torch.ones(width, device=cosines.device, dtype=cosines.dtype)
        signs[: width // 2] = -1
        spare = (0, self.head_dim - width)
        cosines = nn.functional.pad(cosines[0], spare, value=1.0)
        sines = nn.functional.pad(sines[0] * signs, spare)
        return partner, cosines[:, None], sines[:, None]

    def _rotary_rows(self, spans: Sequence[Span]) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the packed rows."""
        furthest = max(span.last for span in spans)
        if furthest > len(self._cosines):
            self._partner, self._cosines, self._sines = self._rotary_tables(2 * furthest)
        if len(spans) == 1:
            rows = slice(spans[0].first, spans[0].last)
            return self._cosines[rows], self._sines[rows]
        places = torch.cat([torch.arange(span.first, span.last) for span in spans])
        places = places.to(self._cosines.device)
        return self._cosines[places], self._sines[places]


class PackedLayer:
    """One layer's products, attention itself left out."""

    def __init__(self, layer: Any) -> None:
        attention = layer.self_attn
        self._input_norm = layer.input_layernorm
        self._norm = layer.post_attention_layernorm
        self._activation = layer.mlp.act_fn
        self._mixed = joined_linear([attention.q_proj, attention.k_proj, attention.v_proj])
        self._out = joined_linear([attention.o_proj])
        self._up = joined_linear([layer.mlp.fc1])
        self._down = joined_linear([layer.mlp.fc2])

    def queries_keys_values(self, hidden: Tensor) -> Tensor:
        """(frames, width) to (frames, queries, keys and values side by side)."""
        return self._mixed(self._input_norm(hidden))

    def rest(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """The layer's output from its input and what attention gave, all (frames, width)."""
        hidden = hidden + self._out(attended)
        return hidden + self._down(self._activation(self._up(self._norm(hidden))))
