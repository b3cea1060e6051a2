"""Greedy decoding over prompt embeddings, for one clip or a left-padded batch.

The greedy loop is written here rather than taken from ``generate`` of transformers because a
transcript of a few words is dominated by that method's set-up; beams and penalties still go there.
This module knows tokens and caches only: no audio and no text clean-up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from tinyvoice.model.decoder import Decoder, new_cache


@dataclass
class GeneratedTokens:
    """One transcript: token ids without the stop token, and each one's natural log-probability."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class PromptTemplate:
    """Token ids before and after the audio tokens; they do not depend on the clip."""

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]

    @classmethod
    def around(cls, audio_token_id: int, prompt_ids: list[int]) -> PromptTemplate:
        """Split the ids of a prompt that has exactly one audio token."""
        at = prompt_ids.index(audio_token_id)
        return cls(tuple(prompt_ids[:at]), tuple(prompt_ids[at + 1 :]))


def greedy_steps(
    language_model: Any,
    prompts: Tensor,
    mask: Tensor,
    *,
    stop_token_ids: Collection[int],
    max_new_tokens: int,
) -> Iterator[tuple[list[int], list[int], list[float]]]:
    """Decode (batch, tokens, M) prompt embeddings, left-padded as (batch, tokens) ``mask`` says.

    Yields, for each step, the rows still running, their new tokens and those tokens' natural
    log-probabilities. A row that gives a stop token, or has ``max_new_tokens``, is not seen again.
    """
    decoder = Decoder(language_model, prompts.shape[1] + max_new_tokens)
    cache = new_cache(language_model)
    rows = list(range(prompts.shape[0]))
    visible = None if bool(mask.all()) else mask.bool()
    lengths = mask.sum(-1)
    embeds, positions = prompts, (mask.cumsum(-1) - 1).clamp_min(0)
    for step in range(max_new_tokens):
        hidden = decoder(embeds, positions, cache, visible)[:, -1]
        best, tokens = torch.log_softmax(decoder.logits(hidden), dim=-1).max(dim=-1)
        ids, logprobs = tokens.tolist(), best.tolist()
        going = [at for at, token in enumerate(ids) if token not in stop_token_ids]
        if not going:
            return
        yield [rows[at] for at in going], [ids[at] for at in going], [logprobs[at] for at in going]
        if len(going) < len(rows):
            kept = torch.tensor(going, device=prompts.device)
            cache.batch_select_indices(kept)
            rows, tokens, lengths = [rows[at] for at in going], tokens[kept], lengths[kept]
            visible = None if visible is None else visible[kept]
        embeds, positions = decoder.embed(tokens[:, None]), (lengths + step)[:, None]
        if visible is not None:
            visible = torch.cat([visible, visible.new_ones(len(rows), 1)], dim=-1)


@torch.inference_mode()
def greedy_decode(
    language_model: Any,
    prompts: Tensor,
    mask: Tensor,
    *,
    stop_token_ids: Collection[int],
    max_new_tokens: int,
) -> list[GeneratedTokens]:
    """The transcripts that :func:`greedy_steps` gives, one for each row."""
    outputs = [GeneratedTokens() for _ in range(prompts.shape[0])]
    for rows, ids, logprobs in greedy_steps(
        language_model, prompts, mask, stop_token_ids=stop_token_ids, max_new_tokens=max_new_tokens
    ):
        for row, token, logprob in zip(rows, ids, logprobs, strict=True):
            outputs[row].ids.append(token)
            outputs[row].logprobs.append(logprob)
    return outputs


@torch.inference_mode()
def search_decode(
    language_model: Any,
    prompts: Tensor,
    mask: Tensor,
    prompt_ids: Tensor,
    *,
    stop_token_ids: Collection[int],
    max_new_tokens: int,
    **settings: Any,
) -> list[GeneratedTokens]:
    """Transcripts by ``generate`` of transformers, for beams, penalties and the like.

    ``prompt_ids`` (batch, tokens) go with the embeddings, so that penalties count the prompt's
    tokens too. ``settings`` are those of ``GenerationConfig``. Log-probabilities are the chosen
    tokens' under the plain model, from one further pass.
    """
    stops = list(stop_token_ids)
    generation = GenerationConfig(
        max_new_tokens=max_new_tokens,
        eos_token_id=stops,
        pad_token_id=stops[0] if stops else 0,
        **settings,
    )
    sequences = language_model.generate(
        input_ids=prompt_ids,
        inputs_embeds=prompts,
        attention_mask=mask,
        generation_config=generation,
    )
    outputs = []
    for row, tokens in enumerate(sequences[:, prompt_ids.shape[1] :].tolist()):
        end = next((at for at, token in enumerate(tokens) if token in stops), len(tokens))
        prompt = prompts[row : row + 1, -int(mask[row].sum()) :]
        outputs.append(GeneratedTokens(tokens[:end], score(language_model, prompt, tokens[:end])))
    return outputs


def score(language_model: Any, prompt: Tensor, ids: list[int]) -> list[float]:
    """Natural log-probability of each token after a (1, tokens, M) prompt and those before it."""
    if not ids:
        return []
    tokens = torch.tensor([ids], device=prompt.device)
    embed = language_model.get_input_embeddings()
    embeds = torch.cat([prompt, embed(tokens).to(prompt.dtype)], dim=1)
    logits = language_model(inputs_embeds=embeds, logits_to_keep=len(ids) + 1).logits
    scores = torch.log_softmax(logits[:, :-1].float(), dim=-1)
    return scores.gather(-1, tokens[..., None])[0, :, 0].tolist()
