"""One pass of a Qwen3 decoder over new embeddings, with what came before in a cache.

For a model of a few layers most of a decoding step in transformers goes into the way around the
arithmetic: building masks, rotary angles and output objects anew for each token. :class:`Decoder`
runs the same modules' weights directly. It computes what ``Qwen3Model.forward`` computes, which the
tests hold it to, and works with adapted and quantised linear layers, since it calls the layers'
own projections. Language models of another class, or with sliding windows or rescaled rotary
angles, go through their own forward.

It keeps no state: the cache and the positions are the caller's. It does not choose tokens. The
cache is one of transformers', or any :class:`KeyValueStore`.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.models.qwen3.modeling_qwen3 import Qwen3ForCausalLM

from tinyvoice.model.joined_linear import joined_linear

# Devices whose attention kernels share a key head between query heads by themselves.
GROUPED_KERNELS = ("cpu", "cuda")


def new_cache(language_model: Any) -> DynamicCache:
    """An empty cache of keys and values for a language model."""
    return DynamicCache(config=language_model.config)


class KeyValueStore(Protocol):
    """Where a pass puts its keys and values, and finds those of the tokens before it."""

    def update(self, key: Tensor, value: Tensor, layer: int, /) -> tuple[Tensor, Tensor]:
        """Store a layer's new (batch, kv heads, tokens, head_dim); all keys and values to see."""
        ...


class Decoder:
    """Runs a language model's layers over embeddings; ``positions`` bounds the rotary table.

    With ``packed``, weights of plain linear layers on a CPU are copied in the order that a few
    tokens at a time read fastest: later changes of theirs are not seen.
    """

    def __init__(self, language_model: Any, positions: int, packed: bool = False) -> None:
        self.language_model = language_model
        self.model = language_model.get_decoder()
        self.head = language_model.get_output_embeddings()
        self.direct = runs_directly(language_model)
        if self.direct:
            self.head = joined_linear([self.head], copied=packed)
            self.cos, self.sin = rotary_tables(self.model, positions)
            self.layers = [DecoderLayer(layer, packed) for layer in self.model.layers]
            self.last_norm = RMSNorm.of(self.model.norm)

    def __call__(
        self,
        embeds: Tensor,
        positions: Tensor,
        cache: DynamicCache,
        visible: Tensor | None = None,
    ) -> Tensor:
        """Final hidden states (batch, tokens, M) of ``embeds``, whose keys join the cache.

        ``positions`` (batch or 1, tokens) count from each row's first real token. ``visible``
        (batch, past + tokens) marks real tokens where rows are padded; None means all are.
        """
        if not self.direct:
            return self.model(
                inputs_embeds=embeds,
                position_ids=positions,
                past_key_values=cache,
                attention_mask=None if visible is None else visible.long(),
                use_cache=True,
            ).last_hidden_state
        past, tokens = cache.get_seq_length(), embeds.shape[1]
        mask = causal_mask(visible, past, tokens, embeds.device)
        return self.attend(embeds, positions, cache, mask, causal=mask is None and tokens > 1)

    def attend(
        self,
        embeds: Tensor,
        positions: Tensor,
        store: KeyValueStore,
        mask: Tensor | None,
        causal: bool = False,
    ) -> Tensor:
        """The same with an attention mask of the caller's, for models that run directly.

        ``mask``, (batch or 1, 1, tokens, keys) boolean or additive, says which of the keys that
        ``store`` gives back each token sees; None means all of them, or with ``causal`` those up to
        the token's own, where there are as many keys as tokens.
        """
        # The same angles for all heads: (batch, tokens, 1, head_dim).
        rotary = self.cos[positions][:, :, None], self.sin[positions][:, :, None]
        hidden = embeds
        for index, layer in enumerate(self.layers):
            query, key, value = layer.queries_keys_values(hidden, rotary)
            keys, values = store.update(key, value, index)
            groups = layer.groups
            if groups > 1 and query.device.type not in GROUPED_KERNELS:
                keys, values = (x.repeat_interleave(groups, dim=1) for x in (keys, values))
                groups = 1
            attended = nn.functional.scaled_dot_product_attention(
                query,
                keys,
                values,
                attn_mask=mask,
                is_causal=causal,
                scale=layer.scaling,
                enable_gqa=groups > 1,
            )
            hidden = layer.rest(hidden, attended.transpose(1, 2).flatten(2))
        return self.last_norm(hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next token, float32 (…, vocabulary)."""
        return self.head(hidden).float()

    def embed(self, tokens: Tensor) -> Tensor:
        """Embeddings of token ids."""
        return self.model.embed_tokens(tokens)


def runs_directly(language_model: Any) -> bool:
    """Whether :class:`Decoder` knows all that this language model's forward does."""
    if not isinstance(language_model, Qwen3ForCausalLM):
        return False
    config: Any = language_model.config
    return (
        set(config.layer_types or ["full_attention"]) == {"full_attention"}
        and config.rope_parameters["rope_type"] == "default"
        and not str(config._attn_implementation).startswith("flash")
    )


def rotary_tables(model: Any, positions: int) -> tuple[Tensor, Tensor]:
    """Cosine and signed sine (positions, head_dim) for :class:`DecoderLayer`.

    The sign that the rotation gives to half of the dimensions is put into the table.
    """
    weight = model.norm.weight
    cos, sin = model.rotary_emb(weight, torch.arange(positions, device=weight.device)[None])
    half = sin.shape[-1] // 2
    return cos[0], torch.cat((-sin[0, :, :half], sin[0, :, half:]), dim=-1)


class RMSNorm:
    """Root-mean-square normalisation with some weight, over the last dimension.

    In float32 it needs half the operations of the usual formula: the mean's division goes into the
    weight and into epsilon. Other precisions are normed in float32 and rounded before the weight,
    as the model's own norms do.
    """

    def __init__(self, weight: Tensor, epsilon: float) -> None:
        width = weight.shape[-1]
        self.weight = weight
        self.scaled = weight.float() * width**0.5
        self.epsilon = torch.full((), epsilon * width, device=weight.device)

    @classmethod
    def of(cls, norm: Any) -> RMSNorm:
        """The same norm as a Qwen3 norm module's."""
        return cls(norm.weight, norm.variance_epsilon)

    def __call__(self, hidden: Tensor) -> Tensor:
        """The normed (…, width)."""
        if hidden.dtype == torch.float32:
            squares = torch.linalg.vecdot(hidden, hidden)[..., None]
            return hidden * (squares + self.epsilon).rsqrt_() * self.scaled
        wide = hidden.float()
        squares = torch.linalg.vecdot(wide, wide)[..., None]
        scale = (squares + self.epsilon).rsqrt_() * hidden.shape[-1] ** 0.5
        return self.weight * (wide * scale).to(hidden.dtype)


class DecoderLayer:
    """One layer's products and norms; attention itself is left out."""

    def __init__(self, layer: Any, packed: bool) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.groups: int = attention.num_key_value_groups
        self.scaling: float = attention.scaling
        self._head_dim: int = attention.head_dim
        self._keys: int = attention.config.num_key_value_heads
        self._queries = self._keys * self.groups
        self._input_norm = RMSNorm.of(layer.input_layernorm)
        self._norm = RMSNorm.of(layer.post_attention_layernorm)
        # The norms of query heads and key heads together, with a weight (heads, head_dim).
        heads = [
            attention.q_norm.weight.expand(self._queries, -1),
            attention.k_norm.weight.expand(self._keys, -1),
        ]
        self._head_norm = RMSNorm(torch.cat(heads), attention.q_norm.variance_epsilon)
        projections = [attention.q_proj, attention.k_proj, attention.v_proj]
        self._mixed = joined_linear(projections, copied=packed)
        self._out = joined_linear([attention.o_proj], copied=packed)
        self._gate_up = joined_linear([mlp.gate_proj, mlp.up_proj], copied=packed)
        self._down = joined_linear([mlp.down_proj], copied=packed)
        self._activation = mlp.act_fn

    def queries_keys_values(
        self, hidden: Tensor, rotary: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Each (batch, heads, tokens, head_dim), queries and keys normed and rotated.

        Both are normed and rotated in one go, in half as many operations.
        """
        cos, sin = rotary
        mixed = self._mixed(self._input_norm(hidden)).unflatten(-1, (-1, self._head_dim))
        both = self._head_norm(mixed[:, :, : self._queries + self._keys])
        turned = both.roll(self._head_dim // 2, dims=-1)
        both = torch.addcmul(both * cos, turned, sin).transpose(1, 2)
        value = mixed[:, :, self._queries + self._keys :].transpose(1, 2)
        return both[:, : self._queries], both[:, self._queries :], value

    def rest(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """The layer's output from its input and what attention gave, all (batch, tokens, …)."""
        hidden = hidden + self._out(attended)
        gate, up = self._gate_up(self._norm(hidden)).chunk(2, dim=-1)
        return hidden + self._down(self._activation(gate) * up)


def causal_mask(
    visible: Tensor | None, past: int, tokens: int, device: torch.device
) -> Tensor | None:
    """Boolean (batch or 1, 1, tokens, past + tokens), or None where the plain kernel will do."""
    if visible is None and (tokens == 1 or past == 0):
        return None
    mask = torch.ones(tokens, past + tokens, dtype=torch.bool, device=device).tril(past)[None, None]
    if visible is None:
        return mask
    mask = mask & visible.bool()[:, None, None]
    if past == 0:
        # Padding in front sees itself, or its softmax is not a number.
        mask = mask | torch.eye(tokens, dtype=torch.bool, device=device)
    return mask
