"""Word times from the language model's attention, for checkpoints without an aligner.

While a decoder writes a word, some of its attention heads look at the audio the word is in. One
teacher-forced pass over prompt and transcript shows where: the heads that look at the audio, at
little of it at a time, and move forward through it are averaged, and a monotonic path of least cost
(dynamic time warping) gives each token its stretch of audio. This follows the way word times are
read from Whisper's cross-attention (Radford et al. 2022), with the heads chosen anew for each clip,
since nothing is known of them beforehand.

Times are no finer than an audio token (80 ms in the published checkpoints), and two words may share
one. Attention weights are computed here from the layers' inputs, for the transcript's rows alone:
switching the model itself to an attention that returns its weights would disturb its other users.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers.models.qwen3.modeling_qwen3 import apply_rotary_pos_emb, repeat_kv

from tinyvoice.model.viterbi import LeftToRight

if TYPE_CHECKING:
    from tinyvoice.model.modeling import ASRModel

# Heads that are averaged, of all layers.
HEADS = 8
# Columns at the edges of a word's stretch whose attention is below this share of its peak are
# silence before or after the word.
EDGE_SHARE = 0.1
# Tokens that may share one audio token with their neighbours: a syllable may have several tokens.
MAX_SKIP = 4
ATTENTION_FLOOR = 1e-4


@torch.inference_mode()
def align_tokens(
    model: ASRModel,
    hidden: Tensor,
    ids: Sequence[int],
    ranges: Sequence[tuple[int, int]],
    frame_seconds: float,
) -> list[tuple[float, float]]:
    """Start and end in seconds of the words that tokens ``ranges`` of ``ids`` wrote.

    Args:
        model: the speech recognition model, with its tokenizer.
        hidden: one clip's encoder frames ``(frames, width)``.
        ids: the transcript's tokens, without the stop token.
        ranges: ``(first, end)`` tokens of each word.
        frame_seconds: seconds per encoder frame.
    """
    frames = torch.tensor([len(hidden)], device=hidden.device)
    audio, counts = model.project(hidden[None], frames)
    n_audio = int(counts[0])
    if n_audio == 0 or not ids:
        return [(0.0, len(hidden) * frame_seconds)] * len(ranges)
    many = 6000  # frames; a multiple of every projector's stride, so that the ratio is exact
    token_seconds = frame_seconds * many / int(model.projector.output_length(many))
    weights = best_heads(transcript_attention(model, audio, counts, ids))
    edges = token_edges(weights)
    spans, clip_end = [], len(hidden) * frame_seconds
    for first, end in ranges:
        begin, stop = word_edges(weights, edges, first, max(end, first + 1))
        spans.append((min(begin * token_seconds, clip_end), min(stop * token_seconds, clip_end)))
    return spans


def transcript_attention(
    model: ASRModel, audio: Tensor, counts: Tensor, ids: Sequence[int]
) -> Iterator[np.ndarray]:
    """Each layer's attention from the transcript to the audio, ``(heads, tokens + 1, audio)``.

    Row ``i`` is the position that predicts token ``i``; the last row predicts the end. A row's
    weights add up to what the head gives to the audio, at most 1.
    """
    template = model.prompt_template
    assert template is not None, "a model that has decoded tokens has its prompt"
    prompt, _ = model.embed_prompts(audio, counts)
    answer = torch.tensor([list(ids)], dtype=torch.long, device=prompt.device)
    inputs = torch.cat([prompt, model.get_input_embeddings()(answer)], dim=1)
    decoder: Any = model.decoder
    states = decoder(inputs_embeds=inputs, output_hidden_states=True, use_cache=False).hidden_states
    length = inputs.shape[1]
    positions = torch.arange(length, device=inputs.device)[None]
    rows = slice(length - len(ids) - 1, length)
    columns = slice(len(template.prefix), len(template.prefix) + int(counts[0]))
    later = positions > positions[:, rows].T
    cos, sin = decoder.rotary_emb(inputs, positions)
    for layer, state in zip(decoder.layers, states, strict=False):
        attention, normed = layer.self_attn, layer.input_layernorm(state)
        heads = (1, length, -1, attention.head_dim)
        query = attention.q_norm(attention.q_proj(normed).view(heads)).transpose(1, 2)
        key = attention.k_norm(attention.k_proj(normed).view(heads)).transpose(1, 2)
        query, key = apply_rotary_pos_emb(query, key, cos, sin)
        key = repeat_kv(key, attention.num_key_value_groups)
        scores = (query[0, :, rows] @ key[0].transpose(1, 2)).float() * attention.scaling
        weights = scores.masked_fill(later, -torch.inf).softmax(dim=-1)
        yield weights[:, :, columns].cpu().numpy()


def best_heads(layers: Iterator[np.ndarray], count: int = HEADS) -> np.ndarray:
    """Mean attention ``(tokens + 1, audio)`` of the heads that follow the audio, rows adding to 1.

    A head counts by the product of its share on the audio, how narrow its rows are, and how
    steadily their centres move forward.
    """
    kept: list[tuple[float, np.ndarray]] = []
    for layer in layers:
        for head in layer:
            share = head.sum(axis=1, keepdims=True)
            weights = head / np.maximum(share, ATTENTION_FLOOR)
            kept.append((float(share.mean()) * _forward_motion(weights), weights))
        kept = sorted(kept, key=lambda scored: -scored[0])[:count]
    total = sum(score for score, _ in kept)
    if total <= 0:  # no head moves forward, as with random weights: they all count the same
        return np.mean([weights for _, weights in kept], axis=0)
    return np.sum([score / total * weights for score, weights in kept], axis=0)


def _forward_motion(weights: np.ndarray) -> float:
    """How much rows ``(tokens, audio)`` look like a path: 0 to 1, 1 for a sharp diagonal."""
    tokens, audio = weights.shape
    columns = np.arange(audio)
    centres = weights @ columns
    spread = np.sqrt(np.maximum(weights @ columns**2 - centres**2, 0.0)).mean()
    narrow = max(0.0, 1.0 - spread / max(audio / np.sqrt(12.0), 1.0))  # 0 where all is even
    if tokens < 3 or centres.std() == 0:
        return narrow
    steadiness = float(np.corrcoef(np.arange(tokens), centres)[0, 1])
    return narrow * max(0.0, steadiness)


def token_edges(weights: np.ndarray) -> np.ndarray:
    """First audio token of every row of ``weights (tokens + 1, audio)``, and the end: rows + 1.

    The path goes through all audio tokens in order. Rows compete for a column by their share of
    what the column gets, so that a column that all rows look at decides nothing.
    """
    rows, audio = weights.shape
    share = np.maximum(weights, ATTENTION_FLOOR)
    scores = np.log(share / share.sum(axis=0)).T
    skip = max(MAX_SKIP, -(-rows // audio))
    costs = np.zeros((skip + 2, rows), dtype=np.float32)
    for step in range(1, skip + 2):
        costs[step, :step] = np.inf
    start = np.full(rows, np.inf, dtype=np.float32)
    start[: skip + 1] = 0.0
    path = LeftToRight(np.arange(rows), costs, start, np.zeros(rows, np.float32)).best_path(scores)
    assert path is not None, "from every row there is a way to stay"
    return np.searchsorted(path, np.arange(rows + 1))


def word_edges(weights: np.ndarray, edges: np.ndarray, first: int, end: int) -> tuple[int, int]:
    """Audio tokens ``(begin, end)`` of the word that rows ``first`` to ``end`` wrote.

    Its stretch of the path without columns at either edge that its rows hardly look at, and one
    column where all its tokens share a neighbour's.
    """
    begin, stop = int(edges[first]), int(edges[min(end, len(edges) - 1)])
    if begin >= stop:
        return begin, begin + 1
    looks = weights[first:end, begin:stop].max(axis=0)
    seen = np.flatnonzero(looks >= EDGE_SHARE * looks.max())
    return begin + int(seen[0]), begin + int(seen[-1]) + 1
