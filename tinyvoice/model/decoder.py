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
    """Runs a language model's layers over embeddings; ``positions`` bounds the rotary table."""

    def __init__(self, language_model: Any, positions: int) -> None:
        self.language_model = language_model
        self.model = language_model.get_decoder()
        self.head = language_model.get_output_embeddings()
        self.direct = runs_directly(language_model)
        if self.direct:
            self.cos, self.sin = rotary_tables(self.model, positions)
            self.norms = [
                (
                    RMSNorm.of(layer.input_layernorm),
                    head_norm(layer.self_attn),
                    RMSNorm.of(layer.post_attention_layernorm),
                )
                for layer in self.model.layers
            ]
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
        # The same angles for all heads: (batch, 1, tokens, head_dim).
        rotary = self.cos[positions][:, None], self.sin[positions][:, None]
        hidden = embeds
        for index, layer in enumerate(self.model.layers):
            attention, mlp = layer.self_attn, layer.mlp
            before_attention, of_heads, before_mlp = self.norms[index]
            query, key, value = project_heads(attention, before_attention(hidden), of_heads, rotary)
            keys, values = store.update(key, value, index)
            groups = attention.num_key_value_groups
            if groups > 1 and query.device.type not in GROUPED_KERNELS:
                keys, values = (x.repeat_interleave(groups, dim=1) for x in (keys, values))
                groups = 1
            attended = nn.functional.scaled_dot_product_attention(
                query,
                keys,
                values,
                attn_mask=mask,
                is_causal=causal,
                scale=attention.scaling,
                enable_gqa=groups > 1,
            )
            hidden = hidden + attention.o_proj(join_heads(attended))
            normed = before_mlp(hidden)
            hidden = hidden + mlp.down_proj(mlp.act_fn(mlp.gate_proj(normed)) * mlp.up_proj(normed))
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
    """Cosine and signed sine (positions, head_dim) for :func:`project_heads`.

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


def head_norm(attention: Any) -> RMSNorm:
    """The norms of query heads and key heads together, with a weight (heads, 1, head_dim)."""
    keys = attention.config.num_key_value_heads
    queries = keys * attention.num_key_value_groups
    weight = torch.cat(
        [
            attention.q_norm.weight.expand(queries, 1, -1),
            attention.k_norm.weight.expand(keys, 1, -1),
        ]
    )
    return RMSNorm(weight, attention.q_norm.variance_epsilon)


def project_heads(
    attention: Any, hidden: Tensor, norm: RMSNorm, rotary: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value of one layer, (batch, heads, tokens, head_dim), normed and rotated.

    Queries and keys are normed and rotated in one go, in half as many operations.
    """
    cos, sin = rotary
    query = split_heads(attention.q_proj(hidden), attention.head_dim)
    key = split_heads(attention.k_proj(hidden), attention.head_dim)
    value = split_heads(attention.v_proj(hidden), attention.head_dim)
    both = norm(torch.cat((query, key), dim=1))
    turned = both.roll(both.shape[-1] // 2, dims=-1)
    both = torch.addcmul(both * cos, turned, sin)
    return both[:, : query.shape[1]], both[:, query.shape[1] :], value


def split_heads(states: Tensor, head_dim: int) -> Tensor:
    """(batch, tokens, heads * head_dim) to (batch, heads, tokens, head_dim)."""
    batch, tokens, _ = states.shape
    if tokens == 1:
        return states.view(batch, -1, 1, head_dim)
    return states.view(batch, tokens, -1, head_dim).transpose(1, 2)


def join_heads(states: Tensor) -> Tensor:
    """The inverse of :func:`split_heads`."""
    batch, _, tokens, _ = states.shape
    return states.transpose(1, 2).reshape(batch, tokens, -1)


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
